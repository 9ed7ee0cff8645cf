//! Programs and libraries for the cases, each compiled once by the compiler that people use for it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::images::suite;

const HELLO: &str = "#include <stdio.h>\nint main(void) { puts(\"started\"); return 0; }\n";
const GREET: &str = "#include <stdio.h>\nvoid greet(void) { puts(\"started\"); }\n";
const USES_GREET: &str = "void greet(void);\nint main(void) { greet(); return 0; }\n";
/// libchain.so.1 needs libgreet.so.1.
const CHAIN: &str = "void greet(void);\nvoid chain(void) { greet(); }\n";
const USES_CHAIN: &str = "void chain(void);\nint main(void) { chain(); return 0; }\n";
const PLUGINS: &str = "#include <dlfcn.h>\n#include <stdio.h>\nint main(void) { dlopen(\"libnowhere.so.1\", RTLD_NOW); \
                       puts(\"started\"); return 0; }\n";
const HELLO_CXX: &str = "#include <iostream>\nint main() { std::cout << \"started\" << std::endl; }\n";
/// Without any C library: system calls of the 32-bit mode.
const BITS32: &str = "static const char text[] = \"started\\n\";\nvoid _start(void) {\n\
    __asm__ volatile(\"int $0x80\" : : \"a\"(4), \"b\"(1), \"c\"(text), \"d\"(8));\n\
    __asm__ volatile(\"int $0x80\" : : \"a\"(1), \"b\"(0));\n}\n";
/// A symbol of a later library: the linker notes its version.
const FUTURE: &str =
    "#include <stdio.h>\nint future(void);\nint main(void) { future(); puts(\"started\"); return 0; }\n";
const WEAK: &str = "#include <stdio.h>\nint future(void) __attribute__((weak));\n\
                    int main(void) { if (future) future(); puts(\"started\"); return 0; }\n";
const CGO: &str = "package main\n\n// int seven(void) { return 7; }\nimport \"C\"\n\nfunc main() { if C.seven() == 7 { println(\"started\") } }\n";
const GO: &str = "package main\n\nimport \"os\"\n\nfunc main() { os.Stdout.WriteString(\"started\\n\") }\n";
const RUST: &str = "fn main() { println!(\"started\"); }\n";
const JAVA: &str =
    "package app;\npublic class Main { public static void main(String[] a) { System.out.println(\"started\"); } }\n";
/// A compiled module without Python's headers: PyModuleDef as PEP 3121 and the limited API lay it out.
const PYTHON: &str = "extern void *PyModule_Create2(void *, int);\n\
    static void *definition[13] = {(void *)1, 0, 0, 0, 0, \"fast\", 0, (void *)-1};\n\
    void *PyInit_fast(void) { return PyModule_Create2(definition, 1013); }\n";

/// A directory with all of them.
pub struct Programs {
    directory: tempfile::TempDir,
}

impl Programs {
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn build() -> Self {
        let programs = Self { directory: tempfile::tempdir().unwrap() };
        programs.c();
        programs.libraries();
        programs.versions();
        programs.others();
        programs.java();
        programs
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn run(&self, command: &str) {
        run(self.directory.path(), command);
    }

    fn c(&self) {
        for (name, text) in [("hello.c", HELLO), ("hello.cc", HELLO_CXX), ("bits32.c", BITS32), ("plugins.c", PLUGINS)]
        {
            self.write(name, text);
        }
        self.run("gcc hello.c -o hello && gcc -static hello.c -o hello-static && gcc -static-pie hello.c -o hello-static-pie");
        self.run("gcc -c hello.c -o hello.o && g++ hello.cc -o hello-cxx && gcc plugins.c -o plugins");
        self.run("gcc -m32 -O1 -fno-pie -no-pie -nostdlib -static bits32.c -o bits32");
        self.run("musl-gcc hello.c -o hello-musl && musl-gcc -static hello.c -o hello-musl-static");
        self.run("gcc hello.c -o hello-odd-loader -Wl,--dynamic-linker=/opt/loader.so");
        let mut cut = fs::read(self.path("hello")).unwrap();
        cut.truncate(20);
        fs::write(self.path("cut"), cut).unwrap();
    }

    fn libraries(&self) {
        for (name, text) in
            [("greet.c", GREET), ("uses-greet.c", USES_GREET), ("chain.c", CHAIN), ("uses-chain.c", USES_CHAIN)]
        {
            self.write(name, text);
        }
        self.run(
            "gcc -shared -fPIC greet.c -Wl,-soname,libgreet.so.1 -o libgreet.so.1 && ln -s libgreet.so.1 libgreet.so",
        );
        self.run("gcc -shared -fPIC greet.c -o libplain.so");
        let (rpath, runpath) = ("-Wl,--disable-new-dtags,-rpath,", "-Wl,--enable-new-dtags,-rpath,");
        for (name, path) in [
            ("libchain.so.1", String::new()),
            ("libchain-origin.so.1", format!("{runpath}'$ORIGIN'")),
            ("libchain-elsewhere.so.1", format!("{runpath}/nowhere")),
        ] {
            let link = format!("-L. -lgreet -Wl,-soname,libchain.so.1 {path}");
            self.run(&format!("gcc -shared -fPIC chain.c {link} -o {name}"));
        }
        for (name, path) in [
            ("greet", String::new()),
            ("greet-rpath", format!("{rpath}/opt/lib")),
            ("greet-runpath", format!("{runpath}/opt/lib")),
            ("greet-origin", format!("{runpath}'$ORIGIN/../lib'")),
            ("greet-lib", format!("{runpath}'/opt/$LIB'")),
        ] {
            self.run(&format!("gcc uses-greet.c -L. -lgreet {path} -o {name}"));
        }
        self.run("mkdir -p opt/lib && cp libplain.so opt/lib && gcc uses-greet.c opt/lib/libplain.so -o greet-slash");
        for (name, path) in [("chain-rpath", rpath), ("chain-runpath", runpath)] {
            let link = "-L. -l:libchain.so.1 -Wl,--allow-shlib-undefined";
            self.run(&format!("gcc uses-chain.c {link} {path}/opt/lib -o {name}"));
        }
        self.run("musl-gcc -shared -fPIC greet.c -Wl,-soname,libgreet.so.1 -o libgreet-musl.so.1");
        self.run(
            "musl-gcc -shared -fPIC chain.c -L. -l:libgreet-musl.so.1 -Wl,-soname,libchain.so.1 -o libchain-musl.so.1",
        );
        self.run(&format!("musl-gcc uses-greet.c -L. -l:libgreet-musl.so.1 {runpath}/opt/lib -o greet-musl"));
        self.run("musl-gcc uses-greet.c -L. -l:libgreet-musl.so.1 -o greet-musl-plain");
        let link = "-L. -l:libchain-musl.so.1 -Wl,--allow-shlib-undefined";
        self.run(&format!("musl-gcc uses-chain.c {link} {runpath}/opt/lib -o chain-musl"));
        self.write("empty.c", "void greet(void) {}\n");
        self.run("gcc -m32 -O1 -shared -fPIC -nostdlib empty.c -Wl,-soname,libgreet.so.1 -o libgreet-386.so.1");
        // The same library for other processors, as far as a loader looks: e_machine is the word at 18.
        let mut foreign = fs::read(self.path("libgreet.so.1")).unwrap();
        foreign[18] = 183;
        fs::write(self.path("libgreet-arm64.so.1"), foreign).unwrap();
    }

    /// Programs that were linked with later versions of libraries, which are made here with nothing else in them.
    fn versions(&self) {
        self.write("future.c", FUTURE);
        self.write("weak.c", WEAK);
        let future = "int future(void) { return 1; }\n";
        let c = "void puts(void) {}\nvoid __cxa_finalize(void) {}\nvoid __libc_start_main(void) {}\n";
        self.write("stub.c", future);
        self.write("stub-glibc.c", &format!("{future}{c}"));
        self.write("old.c", "int past(void) { return 1; }\n");
        // The linker takes one libc.so.6, so this one has what a program cannot do without.
        let glibc =
            "GLIBC_2.2.5 { global: puts; __cxa_finalize; }; GLIBC_2.34 { global: __libc_start_main; }; GLIBC_2.38";
        for (soname, versions, name) in [
            ("libc.so.6", glibc, "glibc"),
            ("libstdc++.so.6", "GLIBCXX_3.4.32", "glibcxx"),
            ("libfuture.so.1", "FUTURE_2.0", "future"),
        ] {
            let source = if name == "glibc" { "stub-glibc.c" } else { "stub.c" };
            self.write("map", &format!("{versions} {{ global: future; local: *; }};\n"));
            self.run(&format!(
                "gcc -shared -fPIC -nostdlib {source} -Wl,--version-script=map,-soname,{soname} -o stub-{name}.so"
            ));
            self.run(&format!("gcc future.c -Wl,--no-as-needed ./stub-{name}.so -o needs-{name}"));
        }
        self.run("gcc weak.c -Wl,--no-as-needed ./stub-future.so -o needs-weak");
        self.weaken("needs-weak", "FUTURE_2.0");
        self.write("map", "FUTURE_1.0 { global: past; };\n");
        self.run("gcc -shared -fPIC old.c -Wl,--version-script=map,-soname,libfuture.so.1 -o libfuture-old.so.1");
        self.write("stub.c", "int abs(int);\nint future(void) { return abs(1); }\n");
        self.run("gcc -fno-builtin -shared -fPIC stub.c -Wl,-soname,libfuture.so.1 -o libfuture-unversioned.so.1");
        self.write("stub.c", future);
        self.run("gcc -shared -fPIC -nostdlib stub.c -Wl,-soname,libfuture.so.1 -o libfuture-bare.so.1");
    }

    /// Marks a needed version as one that may be missing: its flags follow its hash, both in Vernaux (LSB, symbol versioning).
    fn weaken(&self, name: &str, version: &str) {
        let hash = version.bytes().fold(0_u32, |hash, byte| {
            let hash = (hash << 4).wrapping_add(u32::from(byte));
            (hash ^ (hash & 0xf000_0000) >> 24) & 0x0fff_ffff
        });
        let mut bytes = fs::read(self.path(name)).unwrap();
        let at = bytes.windows(4).position(|word| word == hash.to_le_bytes()).unwrap();
        bytes[at + 4] = 2;
        fs::write(self.path(name), bytes).unwrap();
    }

    fn others(&self) {
        self.write("main.rs", RUST);
        self.run("rustc main.rs -o rust && rustc --target x86_64-unknown-linux-musl main.rs -o rust-musl");
        for (name, text, environment) in [
            ("go-static", GO, "CGO_ENABLED=0"),
            ("go-arm64", GO, "CGO_ENABLED=0 GOARCH=arm64"),
            ("go-386", GO, "CGO_ENABLED=0 GOARCH=386"),
            ("go-cgo", CGO, "CGO_ENABLED=1"),
        ] {
            self.write("main.go", text);
            self.run(&format!("GO111MODULE=off GOTOOLCHAIN=local {environment} go build -o {name} main.go"));
        }
        fs::copy(suite("trixie").join("usr/bin/printf"), self.path("printf-trixie")).unwrap();
        self.write("fast.c", PYTHON);
        self.run("gcc -shared -fPIC fast.c -o fast.so");
    }

    fn java(&self) {
        fs::create_dir_all(self.path("app")).unwrap();
        self.write("app/Main.java", JAVA);
        self.run(
            "javac --release 11 app/Main.java && jar --create --file app.jar --main-class app.Main app/Main.class",
        );
        self.run(
            "jar --create --file no-main.jar app/Main.class && jar --create --file empty.jar --main-class app.Main map",
        );
        // What a compiler of Java 21 writes: its version is the word at 6.
        let mut newer = fs::read(self.path("app/Main.class")).unwrap();
        newer[7] = 65;
        fs::create_dir_all(self.path("newer/app")).unwrap();
        fs::write(self.path("newer/app/Main.class"), newer).unwrap();
        self.run("jar --create --file newer.jar --main-class app.Main -C newer app/Main.class");
    }
}

pub fn run(directory: &Path, command: &str) {
    let output = Command::new("sh").args(["-euc", command]).current_dir(directory).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}\n{said}\nthis test needs the compilers that tests/setup installs");
}
