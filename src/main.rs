//! The one binary: parses the command line and dispatches.

fn main() {}
