//! An image that could not start is not made, unless that is asked for; the layers of its base are read once.

use std::{
    fs,
    path::{Path, PathBuf},
};

use minimalimage::domain::preflight::LayerIndex;

use crate::{
    distribution::Distribution,
    support::{Machine, users},
};

/// A script on the base `base`; its interpreter is a link of a lower layer of the builder image.
fn script_on(machine: &Machine, base: &str, text: &str) {
    machine.resource(&format!(
        "  stages:\n  - name: build\n    image: {{registry}}/builder:1\n    run: |\n      echo '#!/bin/sh' >out\n      echo 'echo {text}' >>out\n      \
         chmod 755 out\n  image:\n    base: {base}\n    command: [/out]\n    copy: [{{from: build, source: /workspace/out, \
         destination: /out}}]\n  destination: {{repository: {{registry}}/app}}\n"
    ));
}

/// The store's blobs that are indexes of layers.
fn indexes(store: &Path) -> Vec<PathBuf> {
    let blobs = fs::read_dir(store.join("blobs")).unwrap().map(|entry| entry.unwrap().path());
    blobs.filter(|path| LayerIndex::parse(&fs::read(path).unwrap()).is_some()).collect()
}

#[tokio::test]
async fn a_script_without_its_interpreter_is_refused_before_anything_is_written() {
    let machine = Machine::new(users()[0]).await;
    script_on(&machine, "{scratch: {}}", "one");
    let refusal = machine.refusal(&["--output", "oci:layout"]);
    let expected = "the image could not start: /out is a script for /bin/sh, which an image from scratch does not have";
    assert!(refusal.contains(expected) && refusal.contains("--preflight warn"), "{refusal}");
    assert!(!machine.path("work/layout").exists());
    assert!(!String::from_utf8(machine.run(&["images"]).stdout).unwrap().contains("/app"));

    // What was noted of the layer's files is broken, then lost: the layer itself tells the same.
    let noted = indexes(&machine.store());
    assert!(!noted.is_empty());
    for path in &noted {
        fs::write(path, "other").unwrap();
    }
    assert!(machine.refusal(&[]).contains(expected));
    for path in &noted {
        fs::remove_file(path).unwrap();
    }
    assert!(machine.refusal(&[]).contains(expected));

    let warned = machine.run(&["build", ".", "--quiet", "--preflight", "Warn"]);
    let said = String::from_utf8(warned.stderr).unwrap();
    assert!(warned.status.success() && said.contains("/out is a script for /bin/sh"), "{said}");
    let off = machine.run(&["build", ".", "--quiet", "--preflight", "off"]);
    assert!(off.status.success() && off.stderr.is_empty(), "{off:?}");
    assert_eq!(off.stdout, warned.stdout, "the image is the same");
    let wrong = machine.run(&["build", ".", "--preflight", "sometimes"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8(wrong.stderr).unwrap().contains("expected enforce, strict, warn or off"));
}

#[tokio::test]
async fn the_files_of_a_base_are_looked_at_once() {
    let mut machine = Machine::new(users()[0]).await;
    let base = format!("{{image: {{reference: {}/builder:1}}}}", machine.registry.host);
    script_on(&machine, &base, "one");
    machine.build(&[]);
    script_on(&machine, &base, "two");
    // The registry is gone, and another one is at another address: nothing of the base can be read again.
    machine.registry = Distribution::start(false);
    machine.build(&[]);
}
