//! What the queue counts for `/metrics`. Numbers only; refuses labels whose values users choose.

use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: String,
    queue: String,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Ended {
    Done,
    Dead,
    Cancelled,
    Failed,
    Snoozed,
    GivenBack,
    Lost,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    kind: String,
    queue: String,
    outcome: Ended,
}

/// The queue's counters. Cheap to clone; all clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    enqueued: Counter,
    started: Family<KindLabels, Counter>,
    finished: Family<EndLabels, Counter>,
    seconds: Family<KindLabels, Histogram, fn() -> Histogram>,
    held: Gauge,
    rescued: Counter,
    database_errors: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        // From a millisecond, doubling, to about half a minute.
        fn histogram() -> Histogram {
            Histogram::new(exponential_buckets(0.001, 2.0, 16))
        }
        Self {
            enqueued: Counter::default(),
            started: Family::default(),
            finished: Family::default(),
            seconds: Family::new_with_constructor(histogram),
            held: Gauge::default(),
            rescued: Counter::default(),
            database_errors: Counter::default(),
        }
    }
}

impl Metrics {
    /// Enters them into `registry`, whose prefix is `krilin`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("jobs_enqueued", "Jobs enqueued by this process", self.enqueued.clone());
        registry.register("jobs_started", "Attempts begun", self.started.clone());
        registry.register("jobs_finished", "Attempts ended, by how", self.finished.clone());
        registry.register("job_seconds", "How long attempts ran", self.seconds.clone());
        registry.register("jobs_held", "Leases held by this process", self.held.clone());
        registry.register("jobs_rescued", "Jobs freed from workers that vanished", self.rescued.clone());
        registry.register("queue_database_errors", "Statements of the queue that failed", self.database_errors.clone());
    }

    pub(super) fn enqueued(&self, count: usize) {
        self.enqueued.inc_by(count as u64);
    }

    pub(super) fn started(&self, kind: &str, queue: &str) {
        self.started.get_or_create(&KindLabels { kind: kind.to_owned(), queue: queue.to_owned() }).inc();
    }

    pub(super) fn ended(&self, kind: &str, queue: &str, outcome: Ended, elapsed: Duration) {
        let labels = KindLabels { kind: kind.to_owned(), queue: queue.to_owned() };
        self.seconds.get_or_create(&labels).observe(elapsed.as_secs_f64());
        self.finished.get_or_create(&EndLabels { kind: labels.kind, queue: labels.queue, outcome }).inc();
    }

    pub(super) fn held(&self, count: usize) {
        self.held.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(super) fn rescued(&self, count: usize) {
        self.rescued.inc_by(count as u64);
    }

    pub(super) fn database_error(&self) {
        self.database_errors.inc();
    }

    /// Jobs freed from workers that vanished, so far.
    pub fn rescued_count(&self) -> u64 {
        self.rescued.get()
    }
}
