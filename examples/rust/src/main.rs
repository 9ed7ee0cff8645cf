//! Answers every request on port 8080 with a greeting.

use std::io::{BufRead, BufReader, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

fn main() -> Result<()> {
    for connection in TcpListener::bind("0.0.0.0:8080")?.incoming() {
        let connection = connection?;
        thread::spawn(|| answer(connection).unwrap_or_else(|error| eprintln!("{error}")));
    }
    Ok(())
}

fn answer(connection: TcpStream) -> Result<()> {
    // Up to the empty line: to close while something is unread would take the answer back.
    for line in BufReader::new(&connection).lines() {
        if line?.is_empty() {
            break;
        }
    }
    let linked = if cfg!(target_feature = "crt-static") { "statically" } else { "dynamically" };
    let greeting = format!("hello from Rust, {linked} linked\n");
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n";
    write!(&connection, "{head}Content-Length: {}\r\n\r\n{greeting}", greeting.len())
}
