//! The one binary: parses the command line and dispatches.

fn main() {
    print!("{}", minimalimage::api::crd::yaml().unwrap());
}
