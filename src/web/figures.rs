//! The figures of this process and of the queue, written as Prometheus reads them (OpenMetrics 1.0 text).
//!
//! Refuses unbounded labels: a route is its pattern, an unknown method is `other`. `README.md` beside this file lists all.

use std::{fmt, time::Duration};

use axum::http::{Method, StatusCode};
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::Histogram,
    },
    registry::Registry,
};

use crate::queue::{Tally, metrics::Metrics};

/// What every figure's name begins with.
pub const PREFIX: &str = "krilin";
/// Upper bounds of the buckets for the time of a request, in seconds: fine where the goals are (15, 50, 100 ms), wide up
/// to the request deadline.
const REQUEST_SECONDS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 40.0];
/// Milliseconds of a second.
const MILLIS: f64 = 1_000.0;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JobLabels {
    kind: String,
    queue: String,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    queue: String,
}

/// Makes histograms with our buckets.
#[derive(Clone)]
struct RequestHistogram;

impl MetricConstructor<Histogram> for RequestHistogram {
    fn new_metric(&self) -> Histogram {
        Histogram::new(REQUEST_SECONDS)
    }
}

/// The figures.
pub struct Figures {
    process: Registry,
    requests: Family<RequestLabels, Histogram, RequestHistogram>,
}

impl Figures {
    /// Figures of this process, together with what its queue counts.
    pub fn new(queue: &Metrics) -> Self {
        let requests = Family::new_with_constructor(RequestHistogram);
        let mut process = Registry::with_prefix(PREFIX);
        process.register("http_request_seconds", "From the head of a request to its answer", requests.clone());
        queue.register(&mut process);
        Self { process, requests }
    }

    /// Notes one answered request.
    pub fn observe_request(&self, method: &Method, route: &str, status: StatusCode, elapsed: Duration) {
        let labels = RequestLabels { method: known(method), route: route.to_owned(), status: status.as_u16() };
        self.requests.get_or_create(&labels).observe(elapsed.as_secs_f64());
    }

    /// Writes all figures: those of the process, and those of this moment.
    pub fn write(&self, in_flight: usize, tallies: &[Tally]) -> Result<String, fmt::Error> {
        let mut written = String::new();
        text::encode_registry(&mut written, &self.process)?;
        text::encode_registry(&mut written, &moment(in_flight, tallies))?;
        text::encode_eof(&mut written)?;
        Ok(written)
    }
}

/// The figures that were asked for just now.
fn moment(in_flight: usize, tallies: &[Tally]) -> Registry {
    let (requests, jobs, depth, overdue) =
        (<Gauge>::default(), Family::<JobLabels, Gauge>::default(), Family::<QueueLabels, Gauge>::default(), overdue());
    requests.set(i64::try_from(in_flight).unwrap_or(i64::MAX));
    for tally in tallies {
        let (kind, queue) = (tally.kind.clone(), tally.queue.clone());
        let state = if tally.state == "running" { "running" } else { "pending" };
        jobs.get_or_create(&JobLabels { kind, queue: queue.clone(), state }).inc_by(tally.count);
        if tally.state == "ready" {
            depth.get_or_create(&QueueLabels { queue: queue.clone() }).inc_by(tally.count);
            let oldest = overdue.get_or_create_owned(&QueueLabels { queue });
            #[expect(clippy::cast_precision_loss, reason = "a wait in milliseconds is far below 2^52")]
            oldest.set(oldest.get().max(tally.overdue_ms as f64 / MILLIS));
        }
    }
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register("http_requests_in_flight", "Requests being answered", requests);
    registry.register("jobs", "Live jobs", jobs);
    registry.register("queue_depth", "Jobs that are due and wait for a worker", depth);
    registry.register("queue_oldest_due_seconds", "How long the job that waits longest has been due", overdue);
    registry
}

type Seconds = Gauge<f64, std::sync::atomic::AtomicU64>;

fn overdue() -> Family<QueueLabels, Seconds> {
    Family::default()
}

fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
