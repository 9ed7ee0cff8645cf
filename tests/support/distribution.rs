//! A real registry on loopback: Debian's `docker-registry` (the CNCF distribution).

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use minimalimage::domain::value::Repository;

/// `user:pass`, as `htpasswd -nbB -C 4` writes it.
const HTPASSWD: &str = "user:$2y$04$WDNi60cKc/d4QsBAI2n5he1xRdEkiFyiUO0zfxDsVa4BAp54ExAb2\n";

/// A running registry, which ends with the test.
pub struct Distribution {
    process: Child,
    /// `host:port`.
    pub host: String,
    _directory: tempfile::TempDir,
}

impl Distribution {
    pub fn start(with_password: bool) -> Self {
        Self::configured(with_password, true)
    }

    pub fn configured(with_password: bool, deletes: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let password = root.join("htpasswd");
        std::fs::write(&password, HTPASSWD).unwrap();
        let auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", password.display());
        let config = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: {deletes}\n\
             http:\n  addr: 127.0.0.1:0\n  secret: test\n{}",
            root.join("data").display(),
            if with_password { auth.as_str() } else { "" }
        );
        let path = root.join("config.yml");
        std::fs::write(&path, config).unwrap();
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("this test needs the registry of Debian: apt-get install docker-registry");
        // It chooses its port itself and logs it.
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let host = loop {
            let line = lines.next().expect("the registry ended before it listened").unwrap();
            if let Some((_, rest)) = line.split_once("listening on ") {
                break rest.split(['"', ' ', ',']).next().unwrap().to_owned();
            }
        };
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, host, _directory: directory }
    }

    pub fn repository(&self, path: &str) -> Repository {
        format!("{}/{path}", self.host).parse().unwrap()
    }
}

impl Drop for Distribution {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}
