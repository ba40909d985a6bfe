//! The figures of this process and of the queue, written as Prometheus reads them (OpenMetrics 1.0 text).
//!
//! Refuses unbounded labels: a route is its pattern, an unknown method is `other`. `config/metrics.md` lists all.

use std::{fmt, time::Duration};

use axum::http::{Method, StatusCode};
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::Histogram,
        info::Info,
    },
    registry::Registry,
};

use crate::{
    queue::{self, Tally, metrics::Metrics},
    sandbox,
};

/// The content type of the OpenMetrics text format, which Prometheus reads.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
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
    state: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    queue: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PassLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChildLabels {
    state: &'static str,
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

/// What is asked just now, beside what was counted since the start.
pub struct Moment<'a> {
    /// What the queue counts; its pools are looked at.
    pub queue: &'a Metrics,
    /// Requests that are being answered, where there is a server.
    pub requests: Option<usize>,
    /// The children for app code, where there are any.
    pub sandbox: Option<sandbox::Tally>,
    /// The live jobs of the whole queue, where they were asked for; an error when the database did not answer.
    pub jobs: Option<Result<Vec<Tally>, queue::Error>>,
}

impl<'a> Moment<'a> {
    /// Of a process that only has a queue.
    pub fn of(queue: &'a Metrics) -> Self {
        Self { queue, requests: None, sandbox: None, jobs: None }
    }
}

impl Figures {
    /// Figures of this process, together with what its queue counts.
    pub fn new(queue: &Metrics) -> Self {
        let requests = Family::new_with_constructor(RequestHistogram);
        let mut process = Registry::with_prefix(PREFIX);
        process.register("http_request_seconds", "From the head of a request to its answer", requests.clone());
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        process.register("build", "The version that runs", build);
        queue.register(&mut process);
        Self { process, requests }
    }

    /// Notes one answered request.
    pub fn observe_request(&self, method: &Method, route: &str, status: StatusCode, elapsed: Duration) {
        let labels = RequestLabels { method: known(method), route: route.to_owned(), status: status.as_u16() };
        self.requests.get_or_create(&labels).observe(elapsed.as_secs_f64());
    }

    /// Writes all figures: those of the process, and those of this moment.
    pub fn write(&self, moment: &Moment<'_>) -> Result<String, fmt::Error> {
        let mut written = String::new();
        text::encode_registry(&mut written, &self.process)?;
        let mut registry = Registry::with_prefix(PREFIX);
        moment.queue.register_pools(&mut registry);
        if let Some(requests) = moment.requests {
            let in_flight = <Gauge>::default();
            in_flight.set(i64::try_from(requests).unwrap_or(i64::MAX));
            registry.register("http_requests_in_flight", "Requests being answered", in_flight);
        }
        if let Some(tally) = &moment.sandbox {
            register_sandbox(&mut registry, tally);
        }
        if let Some(jobs) = &moment.jobs {
            let up = <Gauge>::default();
            up.set(i64::from(jobs.is_ok()));
            registry.register("database_up", "1 when Postgres answered this scrape", up);
            register_jobs(&mut registry, jobs.as_deref().unwrap_or_default());
        }
        text::encode_registry(&mut written, &registry)?;
        text::encode_eof(&mut written)?;
        Ok(written)
    }
}

/// The queue as all processes see it.
fn register_jobs(registry: &mut Registry, tallies: &[Tally]) {
    let (jobs, depth) = (Family::<JobLabels, Gauge>::default(), Family::<QueueLabels, Gauge>::default());
    let overdue = Family::<QueueLabels, Seconds>::default();
    for tally in tallies {
        let (kind, queue, state) = (tally.kind.clone(), tally.queue.clone(), tally.state.clone());
        jobs.get_or_create(&JobLabels { kind, queue: queue.clone(), state }).inc_by(tally.count);
        if tally.state == "ready" {
            depth.get_or_create(&QueueLabels { queue: queue.clone() }).inc_by(tally.count);
            let oldest = overdue.get_or_create_owned(&QueueLabels { queue });
            #[expect(clippy::cast_precision_loss, reason = "a wait in milliseconds is far below 2^52")]
            oldest.set(oldest.get().max(tally.overdue_ms as f64 / MILLIS));
        }
    }
    registry.register("jobs", "Live jobs", jobs);
    registry.register("queue_depth", "Jobs that are due and wait for a worker", depth);
    registry.register("queue_oldest_due_seconds", "How long the job that waits longest has been due", overdue);
}

/// The children for app code.
fn register_sandbox(registry: &mut Registry, tally: &sandbox::Tally) {
    let (passes, children) = (Family::<PassLabels, Counter>::default(), Family::<ChildLabels, Gauge>::default());
    let ended =
        [("returned", tally.returned), ("thrown", tally.thrown), ("broken", tally.broken), ("refused", tally.refused)];
    for (outcome, count) in ended {
        passes.get_or_create(&PassLabels { outcome }).inc_by(count);
    }
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    for (state, number) in [("idle", tally.idle), ("busy", tally.size.saturating_sub(tally.idle))] {
        children.get_or_create(&ChildLabels { state }).set(count(number));
    }
    let (started, replaced, waiting) = (<Counter>::default(), <Counter>::default(), <Gauge>::default());
    started.inc_by(tally.started);
    replaced.inc_by(tally.replaced);
    waiting.set(count(tally.waiting));
    registry.register("sandbox_passes", "Passes of app code, by how they ended", passes);
    registry.register("sandbox_children", "Children for app code", children);
    registry.register("sandbox_children_started", "Children that became warm", started);
    registry.register("sandbox_children_replaced", "Children that were ended and replaced", replaced);
    registry.register("sandbox_waiting", "Passes that wait for a child", waiting);
}

type Seconds = Gauge<f64, std::sync::atomic::AtomicU64>;

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
