//! A small HTTP/1.1 server on loopback: files, redirects, and git's http-backend as CGI. One request per connection.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    dead_code,
    reason = "what fails here fails the test that uses it, and no test uses all of it"
)]

use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    process::Command,
};

/// How the server behaves.
#[derive(Debug, Clone, Default)]
pub(crate) struct Behaviour {
    /// Below it are the files and repositories served.
    pub(crate) root: PathBuf,
    /// The `Authorization` header that everything wants.
    pub(crate) authorization: Option<String>,
    /// Pass `Git-Protocol` on to git, which makes it speak version 2.
    pub(crate) version_2: bool,
    /// Paths that begin with the first are redirected to the second.
    pub(crate) redirect: Option<(String, String)>,
    /// Answer the first requests with these statuses instead.
    pub(crate) statuses: Vec<u16>,
    /// Posted requests are answered only up to this many bytes.
    pub(crate) cut: Option<usize>,
    /// Never answer.
    pub(crate) stall: bool,
}

/// A running server; it ends with the test's runtime.
pub(crate) struct Server {
    pub(crate) url: String,
    /// `METHOD path authorization` of every request.
    pub(crate) requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(crate) async fn start(behaviour: Behaviour) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), behaviour).await
    }

    /// At another address of this machine.
    pub(crate) async fn start_at(address: IpAddr, behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, behaviour) = (requests.clone(), Arc::new(Mutex::new(behaviour)));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (seen, behaviour) = (seen.clone(), behaviour.clone());
                tokio::spawn(async move { serve(stream, &seen, &behaviour).await });
            }
        });
        Self { url, requests }
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve(stream: TcpStream, seen: &Mutex<Vec<String>>, behaviour: &Mutex<Behaviour>) {
    let mut stream = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or_default() == 0 {
            return;
        }
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let header = |name: &str| {
        let find = |line: &String| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        };
        lines.iter().skip(1).find_map(find)
    };
    let mut words = lines[0].split(' ');
    let (method, target) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
    let mut body = vec![0; header("content-length").map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.unwrap();
    let authorization = header("authorization");
    seen.lock().unwrap().push(format!("{method} {target} {}", authorization.as_deref().unwrap_or("-")));
    let (status, mode) = {
        let mut behaviour = behaviour.lock().unwrap();
        let status = (!behaviour.statuses.is_empty()).then(|| behaviour.statuses.remove(0));
        (status, behaviour.clone())
    };
    if mode.stall {
        std::future::pending::<()>().await;
    }
    let answer = if let Some(status) = status {
        plain(status, "", b"")
    } else if let Some((from, to)) = mode.redirect.as_ref().filter(|(from, _)| target.starts_with(from)) {
        plain(302, &format!("Location: {}\r\n", target.replacen(from, to, 1)), b"")
    } else if mode.authorization.is_some() && authorization != mode.authorization {
        plain(401, "WWW-Authenticate: Basic\r\n", b"<script>no</script>")
    } else if target.contains("/info/refs?") || target.ends_with("/git-upload-pack") {
        let protocol = header("git-protocol").filter(|_| mode.version_2);
        let mut answer = git(&mode.root, &method, &target, header("content-type"), protocol, &body).await;
        answer.truncate(mode.cut.filter(|_| method == "POST").unwrap_or(answer.len()));
        answer
    } else {
        match std::fs::read(mode.root.join(target.trim_start_matches('/').split('?').next().unwrap())) {
            Ok(content) => plain(200, "Content-Type: application/octet-stream\r\n", &content),
            Err(_) => plain(404, "", b""),
        }
    };
    let _closed_early = stream.get_mut().write_all(&answer).await;
    let _closed_early = stream.get_mut().shutdown().await;
}

fn plain(status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

async fn git(
    root: &Path,
    method: &str,
    target: &str,
    content_type: Option<String>,
    protocol: Option<String>,
    body: &[u8],
) -> Vec<u8> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut command = Command::new("git");
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .envs([("REQUEST_METHOD", method), ("PATH_INFO", path), ("QUERY_STRING", query)])
        .env("CONTENT_TYPE", content_type.unwrap_or_default())
        .env("CONTENT_LENGTH", body.len().to_string())
        .env_remove("GIT_PROTOCOL")
        .envs(protocol.map(|protocol| ("GIT_PROTOCOL", protocol)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().expect("these tests need git with http-backend (Debian: package git)");
    let mut stdin = child.stdin.take().unwrap();
    let body = body.to_vec();
    let feed = tokio::spawn(async move {
        let _ended_early = stdin.write_all(&body).await;
    });
    let output = child.wait_with_output().await.unwrap().stdout;
    feed.await.unwrap();
    let split = output.windows(4).position(|window| window == b"\r\n\r\n").expect("git http-backend gave no headers");
    let headers = String::from_utf8_lossy(&output[..split]).into_owned();
    let status = headers.lines().find_map(|line| line.strip_prefix("Status: ")?.get(..3)?.parse().ok()).unwrap_or(200);
    plain(status, &format!("{headers}\r\n"), &output[split + 4..])
}
