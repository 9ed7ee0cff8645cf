//! The cases.

use minimalimage::api::v1alpha1::Preflight;

use super::case::{Base, Case, Content, app, case, script};

pub fn all() -> Vec<Case> {
    [
        programs(),
        directories(),
        paths(),
        libraries(),
        versions(),
        musl(),
        starts(),
        permissions(),
        scripts(),
        java(),
        python(),
    ]
    .concat()
}

fn programs() -> Vec<Case> {
    use Base::{Cc, Glibc, Scratch};
    vec![
        app("static Go", Scratch, "go-static"),
        app("Go with cgo", Scratch, "go-cgo").refused("CGO_ENABLED=0"),
        app("Go with cgo", Glibc, "go-cgo"),
        app("Go for arm64", Scratch, "go-arm64").refused("/app is for arm64, the image for amd64: build it for amd64"),
        app("dynamic C", Scratch, "hello")
            .refused("/app needs the loader /lib64/ld-linux-x86-64.so.2, which an image from scratch does not have"),
        app("dynamic C", Glibc, "hello"),
        app("static C", Scratch, "hello-static"),
        app("static-pie C", Scratch, "hello-static-pie"),
        app("C++", Glibc, "hello-cxx")
            .refused("libstdc++.so.6, which the base glibc does not have: add the Debian package libstdc++6"),
        app("C++", Cc, "hello-cxx"),
        app("Rust for glibc", Glibc, "rust").refused("libgcc_s.so.1"),
        app("Rust for glibc", Cc, "rust"),
        app("Rust for musl (static-pie)", Scratch, "rust-musl"),
        app("32-bit static", Scratch, "bits32").warned("32 bits"),
        app("32-bit Go", Scratch, "go-386").warned("32 bits"),
        app("a loader at an odd place", Glibc, "hello-odd-loader").refused("link it with the loader that the base has"),
        app("a loader at an odd place, linked", Glibc, "hello-odd-loader")
            .link("/opt/loader.so", "/lib64/ld-linux-x86-64.so.2"),
        app("a plugin that is not there (dlopen)", Glibc, "plugins"),
    ]
}

const SYSTEM: &str = "/usr/lib/x86_64-linux-gnu/libgreet.so.1";
const LOCAL: &str = "/usr/local/lib/libgreet.so.1";
const OPT: &str = "/opt/lib/libgreet.so.1";
const LIBRARY: &str = "libgreet.so.1";

/// A program of C that needs libraries.
fn greet(name: &'static str, program: &'static str) -> Case {
    app(name, Base::Glibc, program)
}

fn directories() -> Vec<Case> {
    vec![
        greet("library missing", "greet").refused("/app needs libgreet.so.1, which the base glibc does not have"),
        greet("library in the system's directory", "greet").program(SYSTEM, LIBRARY),
        greet("library in /usr/lib", "greet").program("/usr/lib/libgreet.so.1", LIBRARY),
        greet("library in /lib64, which Debian's loader does not search", "greet")
            .program("/usr/lib64/libgreet.so.1", LIBRARY)
            .refused("/usr/lib64/libgreet.so.1 is not where the loader looks"),
        greet("library in /usr/local/lib, no cache", "greet").program(LOCAL, LIBRARY).refused("LD_LIBRARY_PATH"),
        greet("library in a directory of ld.so.conf.d, no cache", "greet")
            .program(LOCAL, LIBRARY)
            .text("/etc/ld.so.conf", "include /etc/ld.so.conf.d/*.conf\n")
            .text("/etc/ld.so.conf.d/local.conf", "# ours\n/usr/local/lib\n")
            .refused("run ldconfig in the stage"),
        Case {
            ldconfig: true,
            ..greet("library in a directory of ld.so.conf.d, with cache", "greet")
                .program(LOCAL, LIBRARY)
                .text("/etc/ld.so.conf", "include /etc/ld.so.conf.d/*.conf\n")
                .text("/etc/ld.so.conf.d/local.conf", "/usr/local/lib\n")
        },
        greet("LD_LIBRARY_PATH", "greet").program(LOCAL, LIBRARY).env("LD_LIBRARY_PATH", "/nowhere:/usr/local/lib"),
        greet("LD_LIBRARY_PATH with the working directory", "greet")
            .program(OPT, LIBRARY)
            .env("LD_LIBRARY_PATH", "/nowhere:")
            .dir("/opt/lib"),
        greet("LD_LIBRARY_PATH of a setuid program", "greet")
            .with(0o4755, (0, 0))
            .program(LOCAL, LIBRARY)
            .env("LD_LIBRARY_PATH", "/usr/local/lib")
            .user("65532")
            // It starts where setuid has no effect: with allowPrivilegeEscalation: false, as runc is told here.
            .warned("needs libgreet.so.1"),
    ]
}

fn paths() -> Vec<Case> {
    vec![
        greet("RPATH", "greet-rpath").program(OPT, LIBRARY),
        greet("RUNPATH", "greet-runpath").program(OPT, LIBRARY),
        greet("RUNPATH elsewhere", "greet-runpath").program("/opt/libgreet.so.1", LIBRARY).refused("$ORIGIN"),
        case("RUNPATH with $ORIGIN", Base::Glibc)
            .program("/srv/app/bin/app", "greet-origin")
            .program("/srv/app/lib/libgreet.so.1", LIBRARY)
            .run(&["/srv/app/bin/app"]),
        case("RUNPATH with $ORIGIN, started by a link", Base::Glibc)
            .program("/srv/app/bin/app", "greet-origin")
            .program("/srv/app/lib/libgreet.so.1", LIBRARY)
            .link("/bin-of-ours/app", "/srv/app/bin/app")
            .run(&["/bin-of-ours/app"]),
        greet("RUNPATH with $LIB", "greet-lib").program("/opt/lib/x86_64-linux-gnu/libgreet.so.1", LIBRARY),
        greet("RPATH is inherited", "chain-rpath")
            .program("/opt/lib/libchain.so.1", "libchain.so.1")
            .program(OPT, LIBRARY),
        greet("RUNPATH is not inherited", "chain-runpath")
            .program("/opt/lib/libchain.so.1", "libchain.so.1")
            .program(OPT, LIBRARY)
            .refused("/opt/lib/libchain.so.1 needs libgreet.so.1"),
        greet("RUNPATH of each with $ORIGIN", "chain-runpath")
            .program("/opt/lib/libchain.so.1", "libchain-origin.so.1")
            .program(OPT, LIBRARY),
        greet("a RUNPATH ends the RPATH of those above", "chain-rpath")
            .program("/opt/lib/libchain.so.1", "libchain-elsewhere.so.1")
            .program(OPT, LIBRARY)
            .refused("/opt/lib/libchain.so.1 needs libgreet.so.1"),
        greet("a library of a library is missing", "chain-rpath")
            .program("/opt/lib/libchain.so.1", "libchain.so.1")
            .refused("/opt/lib/libchain.so.1 needs libgreet.so.1"),
        greet("a library needed by its path", "greet-slash").program("/opt/lib/libplain.so", "libplain.so").dir("/"),
        greet("a library needed by its path, elsewhere", "greet-slash")
            .program("/opt/lib/libplain.so", "libplain.so")
            .dir("/opt")
            .refused("libplain.so"),
    ]
}

fn libraries() -> Vec<Case> {
    vec![
        greet("a library by a link", "greet").program("/opt/real.so", LIBRARY).link(SYSTEM, "/opt/real.so"),
        greet("a library by a link to nothing", "greet").link(SYSTEM, "/opt/real.so").refused("libgreet.so.1"),
        greet("a text where the library should be", "greet")
            .text(SYSTEM, "INPUT(libgreet.so.2)\n")
            .refused("no library"),
        greet("an empty library first", "greet")
            .put("/opt/lib/libgreet.so.1", Content::Text(String::new()), 0o644)
            .program(SYSTEM, LIBRARY)
            .env("LD_LIBRARY_PATH", "/opt/lib")
            .refused("no library"),
        greet("library for other processors", "greet")
            .program(SYSTEM, "libgreet-arm64.so.1")
            .refused("other processors"),
        greet("library for other processors first, right one later", "greet")
            .program(OPT, "libgreet-arm64.so.1")
            .program(SYSTEM, LIBRARY)
            .env("LD_LIBRARY_PATH", "/opt/lib")
            // Ours to tell: it is of no use in this image.
            .warned("is for arm64"),
        greet("library for certain processors alone", "greet")
            .program("/usr/lib/x86_64-linux-gnu/glibc-hwcaps/x86-64-v2/libgreet.so.1", LIBRARY),
        greet("32-bit library first, right one later", "greet")
            .program(OPT, "libgreet-386.so.1")
            .program(SYSTEM, LIBRARY)
            .env("LD_LIBRARY_PATH", "/opt/lib")
            .warned("32 bits"),
        greet("a library under another name", "greet")
            .program("/usr/lib/x86_64-linux-gnu/greet-1.0.so", LIBRARY)
            .refused("/usr/lib/x86_64-linux-gnu/greet-1.0.so is not where the loader looks"),
        greet("library that the user may not read", "greet")
            .program(SYSTEM, LIBRARY)
            .with(0o600, (0, 0))
            .user("65532")
            .refused("may not be read"),
    ]
}

fn versions() -> Vec<Case> {
    use Base::{Bullseye, Cc, Glibc, Trixie};
    let needs =
        |name, program, library| app(name, Glibc, program).program("/usr/lib/x86_64-linux-gnu/libfuture.so.1", library);
    vec![
        app("dynamic C of bookworm", Bullseye, "hello").refused("use a base of suite bookworm or newer"),
        app("dynamic C of bookworm", Trixie, "hello"),
        app("C++ of bookworm", Trixie, "hello-cxx"),
        app("Go with cgo of bookworm", Bullseye, "go-cgo").refused("GLIBC_2.34"),
        app("static-pie C of bookworm", Bullseye, "hello-static-pie"),
        app("a program of trixie", Glibc, "printf-trixie")
            .run(&["/app", "started"])
            .refused("use a base of suite trixie"),
        app("a program of trixie", Trixie, "printf-trixie").run(&["/app", "started"]),
        app("a newer glibc", Glibc, "needs-glibc")
            .refused("needs GLIBC_2.38, which /lib/x86_64-linux-gnu/libc.so.6 of the base glibc does not offer"),
        app("a newer libstdc++", Cc, "needs-glibcxx").refused("use a base of suite trixie"),
        needs("a version of a library that is missing", "needs-future", "libfuture-old.so.1").refused("FUTURE_2.0"),
        needs("a version of a library that is there", "needs-future", "stub-future.so"),
        needs("a version of a library without versions", "needs-future", "libfuture-unversioned.so.1"),
        needs("a version of a library that knows of no versions", "needs-future", "libfuture-bare.so.1")
            .refused("FUTURE_2.0"),
        needs("a weak version that is missing", "needs-weak", "libfuture-old.so.1"),
    ]
}

fn musl() -> Vec<Case> {
    use Base::{Glibc, Musl, Scratch};
    let library = "libgreet-musl.so.1";
    vec![
        app("musl", Musl, "hello-musl"),
        app("musl", Scratch, "hello-musl").refused("/lib/ld-musl-x86_64.so.1"),
        app("musl", Glibc, "hello-musl")
            .refused("is linked against musl (/lib/ld-musl-x86_64.so.1), but the base glibc has glibc"),
        app("static musl", Scratch, "hello-musl-static"),
        app("dynamic C", Musl, "hello").refused("is linked against glibc"),
        app("glibc's loader, as musl's under its name", Musl, "hello")
            .link("/lib64/ld-linux-x86-64.so.2", "/lib/ld-musl-x86_64.so.1"),
        app("musl, library in /usr/lib", Musl, "greet-musl-plain").program("/usr/lib/libgreet.so.1", library),
        app("musl, library in its own path", Musl, "greet-musl-plain")
            .program("/opt/lib/libgreet.so.1", library)
            .text("/etc/ld-musl-x86_64.path", "/nowhere\n/opt/lib\n"),
        app("musl, its own path without the library", Musl, "greet-musl-plain")
            .program("/usr/lib/libgreet.so.1", library)
            .text("/etc/ld-musl-x86_64.path", "/nowhere\n")
            .refused("/usr/lib/libgreet.so.1 is not where the loader looks"),
        app("musl, RUNPATH is inherited", Musl, "chain-musl")
            .program("/opt/lib/libchain.so.1", "libchain-musl.so.1")
            .program("/opt/lib/libgreet.so.1", library),
        app("musl, library for other processors first", Musl, "greet-musl-plain")
            .program("/lib/libgreet.so.1", "libgreet-386.so.1")
            .program("/usr/lib/libgreet.so.1", library)
            .refused("other processors"),
    ]
}

fn starts() -> Vec<Case> {
    use Base::{Glibc, Scratch, Shell};
    let hello = |name| app(name, Scratch, "hello-static");
    vec![
        case("no entrypoint there", Scratch).refused("/app is not in the image"),
        hello("a relative entrypoint").run(&["./app"]).dir("/"),
        hello("a relative entrypoint, elsewhere").run(&["./app"]).dir("/opt").refused("/opt/app is not in the image"),
        case("a name on PATH", Scratch)
            .program("/opt/bin/app", "hello-static")
            .run(&["app"])
            .env("PATH", "/bin:/opt/bin"),
        case("a name on the usual PATH", Scratch).program("/usr/local/bin/app", "hello-static").run(&["app"]),
        hello("a name not on PATH")
            .run(&["app"])
            .env("PATH", "/usr/bin")
            .refused("`app` is in no directory of PATH (/usr/bin)"),
        case("a name on PATH that is no program", Scratch)
            .text("/bin/app", "x")
            .with(0o644, (0, 0))
            .run(&["app"])
            .env("PATH", "/bin")
            .refused("may not be executed"),
        hello("an absolute link").link("/opt/app", "/app").run(&["/opt/app"]),
        hello("a link to a link").link("/opt/one", "../two").link("/two", "app").run(&["/opt/one"]),
        case("a link to nothing", Scratch).link("/app", "/opt/app").refused("/app is a link to /opt/app"),
        case("links in a circle", Scratch).link("/app", "b").link("/b", "app").refused("links lead in a circle"),
        hello("a file on the way").run(&["/app/server"]).refused("something on its way is no directory"),
        case("a directory", Scratch).put("/app", Content::Directory, 0o755).refused("is a directory"),
        case("an empty file", Scratch).text("/app", "").refused("is empty"),
        script("a text", Scratch, "hello\n").refused("neither a program nor a script"),
        app("an object file", Glibc, "hello.o").refused("object file"),
        app("a library as the program", Glibc, "libgreet.so.1").refused("is a library"),
        case("shell form", Shell).program("/app", "hello-static").run(&["/bin/sh", "-c", "exec /app"]),
        case("shell form", Glibc)
            .program("/app", "hello-static")
            .run(&["/bin/sh", "-c", "exec /app"])
            .refused("the entrypoint is in shell form, but the base glibc has no /bin/sh"),
        case("env as the entrypoint", Shell).program("/app", "hello-static").run(&["/usr/bin/env", "A=b", "/app"]),
        case("env as the entrypoint, program missing", Shell)
            .run(&["/usr/bin/env", "A=b", "/app"])
            .refused("/app is not"),
    ]
}

fn permissions() -> Vec<Case> {
    use Base::Scratch;
    let hello = |name, mode, owner| app(name, Scratch, "hello-static").with(mode, owner);
    vec![
        hello("not executable", 0o644, (0, 0)).refused("may not be executed by user 0 (mode 0644, owner 0:0)"),
        hello("executable by its owner, run by root", 0o100, (7, 7)),
        hello("executable by its owner, run by another", 0o744, (0, 0)).user("65532").capable("by user 65532"),
        hello("executable by its owner, run by him", 0o500, (65532, 0)).user("65532"),
        hello("executable by its group", 0o610, (0, 0)).user("65532"),
        app("executable by a further group", Base::Glibc, "hello-static").with(0o610, (0, 50)).user("1000"),
        hello("closed to its own group", 0o705, (7, 0)).user("65532").capable("by user 65532"),
        hello("executable by nobody, run by an ordinary user", 0o644, (0, 0)).user("65532").refused("by user 65532"),
        app("executable by its owner, on PATH", Scratch, "hello-static")
            .with(0o700, (0, 0))
            .env("PATH", "/")
            .run(&["app"])
            .user("65532")
            .capable("/app may not be executed by user 65532"),
        app("executable by its owner, by env", Base::Shell, "hello-static")
            .with(0o700, (0, 0))
            .run(&["/bin/env", "/app"])
            .user("65532")
            .refused("by user 65532"),
        app("a library is missing too", Base::Glibc, "greet")
            .with(0o700, (0, 0))
            .user("65532")
            .refused("needs libgreet.so.1"),
        app("a loader in a closed directory", Base::Glibc, "hello-odd-loader")
            .put("/opt", Content::Directory, 0o700)
            .link("/opt/loader.so", "/lib64/ld-linux-x86-64.so.2")
            .user("65532")
            .capable("needs the loader /opt/loader.so, which the image's user may not execute"),
        hello("not readable", 0o111, (0, 0)).user("65532"),
        hello("setuid", 0o4755, (0, 0)).user("65532"),
        case("in a closed directory", Scratch)
            .put("/opt", Content::Directory, 0o700)
            .program("/opt/app", "hello-static")
            .run(&["/opt/app"])
            .user("65532")
            .capable("the directory /opt may not be entered by user 65532 (mode 0700, owner 0:0)"),
        case("in a closed directory, run by root", Scratch)
            .put("/opt", Content::Directory, 0o700)
            .program("/opt/app", "hello-static")
            .run(&["/opt/app"]),
    ]
}

fn scripts() -> Vec<Case> {
    use Base::{Glibc, Scratch, Shell};
    let shell = "#!/bin/sh\necho started\n";
    vec![
        script("a script", Shell, shell),
        script("a script", Scratch, shell)
            .refused("/app is a script for /bin/sh, which an image from scratch does not have"),
        script("a script for bash", Shell, "#!/bin/bash\necho started\n").refused("/bin/bash"),
        script("a script by env", Shell, "#!/usr/bin/env sh\necho started\n"),
        script("a script by env, interpreter missing", Shell, "#!/usr/bin/env python3\nprint('started')\n")
            .refused("`python3`, which is in no directory of PATH"),
        script("a script by env with an argument", Shell, "#!/usr/bin/env sh -e\necho started\n").refused("`sh -e`"),
        script("a script by env, without env", Glibc, "#!/usr/bin/env sh\necho started\n").refused("/usr/bin/env"),
        script("Windows line ends", Shell, "#!/bin/sh\r\necho started\r\n").refused("carriage return"),
        script("Windows line ends, by env", Shell, "#!/usr/bin/env sh\r\necho started\r\n").refused("carriage return"),
        script("blanks around the interpreter", Shell, "#! \t/bin/sh \t-e\necho started\n"),
        script("no #! line", Shell, "echo started\n").refused("begin it with a line such as #!/bin/sh"),
        script("a #! line without a name", Shell, "#!\necho started\n").refused("neither"),
        script("a #! line without an end", Shell, "#!/bin/echo started"),
        script("a script for a script", Shell, "#!/inner\nx\n").text("/inner", "#!/bin/cat\nstarted\n"),
        script("a script for itself", Shell, "#!/app\nx\n").refused("too deep"),
        script("a relative interpreter", Shell, "#!bin/sh\necho started\n").dir("/"),
        script("an interpreter that is not executable", Shell, "#!/inner\n")
            .text("/inner", shell)
            .with(0o644, (0, 0))
            .refused("/inner, which may not be executed by user 0 (mode 0644, owner 0:0): give it mode 0755"),
        script("a script that may not be read", Shell, shell)
            .with(0o711, (0, 0))
            .user("65532")
            .refused("may not be read"),
        script("a script that may not be read, run by root", Shell, shell).with(0o111, (7, 7)),
        script("an interpreter of a long name", Shell, &format!("#!/{}sh\necho started\n", "./".repeat(140)))
            .refused("more than 255 bytes"),
        script("an interpreter for musl", Glibc, "#!/inner\n")
            .program("/inner", "hello-musl")
            .refused("/inner is linked against musl"),
    ]
}

fn java() -> Vec<Case> {
    use Base::Java;
    let jar = |name, jar| case(name, Java).program("/app.jar", jar).run(&["java", "-jar", "/app.jar"]);
    vec![
        jar("a jar", "app.jar"),
        jar("a jar for a newer Java", "newer.jar")
            .refused("/app.jar was compiled for Java 21, but the base java has Java 17"),
        jar("a jar without a main class", "no-main.jar").refused("Main-Class"),
        jar("a jar that lacks its main class", "empty.jar").refused("app.Main"),
        jar("a text as a jar", "main.go").refused("/app.jar is not a jar"),
        case("no jar there", Java).run(&["java", "-Xmx64m", "-jar", "app.jar"]).refused("/app.jar is not in the image"),
        case("a class on the class path", Java).program("/classes/app/Main.class", "app/Main.class").run(&[
            "/usr/bin/java",
            "-cp",
            "/nowhere:/classes",
            "app.Main",
        ]),
        case("a class for a newer Java", Java)
            .program("/classes/app/Main.class", "newer/app/Main.class")
            .run(&["java", "-cp", "/classes", "app.Main"])
            .refused("Java 21"),
        jar("a jar, without Java", "app.jar")
            .run(&["/opt/java/bin/java", "-jar", "/app.jar"])
            .refused("/opt/java/bin/java"),
    ]
}

fn python() -> Vec<Case> {
    use Base::Python;
    let module = |name, file| {
        case(name, Python)
            .program(file, "fast.so")
            .text("/app.py", "import fast\nprint('started')\n")
            .env("PYTHONPATH", "/modules")
            .run(&["python3", "/app.py"])
    };
    let strict = |case: Case| Case { mode: Preflight::Strict, ..case };
    vec![
        script("a Python script", Python, "#!/usr/bin/env python3\nprint('started')\n"),
        script("a Python script by env -S", Python, "#!/usr/bin/env -S python3 -u\nprint('started')\n"),
        case("no script there", Python).run(&["python3", "-u", "/app.py"]).refused("/app.py is not in the image"),
        module("a module for this Python", "/modules/fast.cpython-311-x86_64-linux-gnu.so"),
        module("a module for every Python 3", "/modules/fast.abi3.so"),
        strict(module("a module for another Python", "/modules/fast.cpython-312-x86_64-linux-gnu.so"))
            .refused("was compiled for Python 3.12, but the base python has Python 3.11"),
        module("a module for another Python that is not used", "/modules/fast.cpython-312-x86_64-linux-gnu.so")
            .text("/app.py", "print('started')\n")
            .warned("Python 3.12"),
    ]
}
