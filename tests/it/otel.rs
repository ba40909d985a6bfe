//! Spans arrive at a collector: `cargo test --features otel otel`.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, routing::post};
use krilin::model::{job::NewJob, trace::TraceParent};
use serde_json::json;
use tokio::net::TcpListener;

use crate::{
    cli,
    cluster::Directory,
    kinds::{job, until},
    server,
    world::World,
};

const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A collector that keeps what it is sent.
async fn collector() -> (String, Arc<Mutex<Vec<u8>>>) {
    let kept: Arc<Mutex<Vec<u8>>> = Arc::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let to = kept.clone();
    let keep = move |body: Bytes| {
        to.lock().unwrap().extend_from_slice(&body);
        std::future::ready("")
    };
    let router = Router::new().route("/v1/traces", post(keep));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper_util::service::TowerToHyperService::new(router.clone());
            let stream = hyper_util::rt::TokioIo::new(stream);
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(stream, service));
        }
    });
    (endpoint, kept)
}

fn has(kept: &[u8], wanted: &[u8]) -> bool {
    kept.windows(wanted.len()).any(|window| window == wanted)
}

#[tokio::test]
async fn a_job_and_its_statements_are_sent_to_a_collector_below_who_asked() {
    let (endpoint, kept) = collector().await;
    let world = World::new().await;
    let directory = Directory::new("otel");
    cli::give_credentials(&directory.0, &world);
    let queue = server::queue(&world.pool);
    let asked: TraceParent = CALLER.parse().unwrap();
    let daily = NewJob { trace_parent: Some(CALLER.to_owned()), ..job("retention", json!({})) };
    let id = queue.enqueue(daily).await.unwrap().job_id;
    let mut worker = cli::krilin(&directory.0)
        .args(["work", "system", "--json", "--set", "sandbox.children=1"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)
        .env("OTEL_SERVICE_NAME", "krilin-under-test")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    BufReader::new(worker.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    until(async || queue.get(id, None).await.unwrap().filter(|job| job.state.is_final())).await;
    let pid = rustix::process::Pid::from_child(&worker);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let ended = tokio::task::spawn_blocking(move || worker.wait().unwrap()).await.unwrap();
    assert!(ended.success(), "the last spans are sent before the end");
    let kept = kept.lock().unwrap();
    for words in ["krilin-under-test", "job.run", "db.statement", "src/store/leases.rs"] {
        assert!(has(&kept, words.as_bytes()), "{words} in {} bytes", kept.len());
    }
    assert!(has(&kept, &asked.trace_id().to_be_bytes()) && has(&kept, &asked.span_id().to_be_bytes()));
}
