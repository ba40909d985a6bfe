//! Jobs over HTTP: sixty-four connections that are never idle, each a keep-alive HTTP/1.1 client of the simplest kind, so
//! that the client's own work stays small beside the server's.

use std::time::Instant;

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::Command,
    task::JoinSet,
};

const CONNECTIONS: usize = 64;
const BODY: &str = r#"{"kind":"noop","args":{"habit":"read","day":"2026-01-01"}}"#;

/// Starts the server, posts `jobs` jobs, ends the server; gives jobs per second.
pub async fn measure(server: &mut Command, jobs: usize) -> f64 {
    let mut server = server.spawn().expect("the server starts");
    let mut line = String::new();
    BufReader::new(server.stdout.as_mut().expect("it is piped")).read_line(&mut line).await.expect("it says where");
    let said: Value = serde_json::from_str(&line).expect("a line of JSON");
    let (address, token) = (said["address"].as_str().expect("where"), said["token"].as_str().expect("a token"));
    let request = format!(
        "POST /api/v1/jobs HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    post(address, &request).await;
    let begun = Instant::now();
    let mut connections = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (address, request, share) = (address.to_owned(), request.clone(), jobs / CONNECTIONS);
        connections.spawn(async move {
            let mut stream = BufReader::new(TcpStream::connect(address).await.expect("it listens"));
            for _ in 0..share {
                exchange(&mut stream, &request).await;
            }
        });
    }
    while let Some(ended) = connections.join_next().await {
        ended.expect("every answer is 202");
    }
    let rate = (jobs / CONNECTIONS * CONNECTIONS) as f64 / begun.elapsed().as_secs_f64();
    server.kill().await.expect("it is ours");
    rate
}

async fn post(address: &str, request: &str) {
    let mut stream = BufReader::new(TcpStream::connect(address).await.expect("it listens"));
    exchange(&mut stream, request).await;
}

async fn exchange(stream: &mut BufReader<TcpStream>, request: &str) {
    stream.get_mut().write_all(request.as_bytes()).await.expect("it reads");
    let (mut line, mut length, mut first) = (String::new(), 0, true);
    loop {
        line.clear();
        stream.read_line(&mut line).await.expect("it answers");
        if std::mem::take(&mut first) {
            assert!(line.starts_with("HTTP/1.1 202"), "{line}");
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.expect("the whole body");
}
