//! What the queue counts for `/metrics`. Numbers only; refuses labels whose values users choose.

use std::{
    collections::HashMap,
    fmt::Debug,
    hash::Hash,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use crate::store::{Stack, stack::Watched};
use prometheus_client::{
    encoding::EncodeLabelSet,
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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    queue: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    kind: String,
    queue: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LoopLabels {
    name: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    pool: &'static str,
    state: &'static str,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

impl Ended {
    fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
            Self::Snoozed => "snoozed",
            Self::GivenBack => "given_back",
            Self::Lost => "lost",
        }
    }
}

/// What a process does again and again for as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Loop {
    /// Renews the leases that are held.
    Heartbeat,
    /// Frees the leases of workers that vanished.
    Reaper,
    /// Makes scheduled jobs ready.
    Promoter,
    /// Sees to it that the day has its retention job.
    Retention,
    /// Enqueues what is due by a schedule.
    Scheduler,
}

impl Loop {
    /// The longest time between two rounds of a loop that is well: its own pause and the longest wait for the database.
    pub fn patience(self) -> Duration {
        match self {
            Self::Heartbeat | Self::Reaper | Self::Promoter | Self::Scheduler => Duration::from_mins(1),
            Self::Retention => Duration::from_mins(15),
        }
    }

    /// Its name in labels and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Heartbeat => "heartbeat",
            Self::Reaper => "reaper",
            Self::Promoter => "promoter",
            Self::Retention => "retention",
            Self::Scheduler => "scheduler",
        }
    }
}

/// The pools of a worker: the connections that end jobs, those that claim, those of actions, those of the loops beside.
pub(super) const WORKER_POOLS: [&str; 4] = ["endings", "claims", "actions", "loops"];

/// A sort of histogram with its constructor.
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// The queue's counters. Cheap to clone; all clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    enqueued: Counter,
    claimed: Family<QueueLabels, Counter>,
    pickup: Histograms<QueueLabels>,
    started: Family<KindLabels, Counter>,
    finished: Family<EndLabels, Counter>,
    seconds: Histograms<KindLabels>,
    held: Gauge,
    leases_lost: Counter,
    promoted: Counter,
    rescued: Counter,
    loops: Family<LoopLabels, Counter>,
    listening: Gauge,
    notices_sent: Counter,
    notices_received: Counter,
    database_errors: Counter,
    pools: Arc<Mutex<Vec<(&'static str, Watched)>>>,
    alive: Arc<Mutex<HashMap<Loop, Instant>>>,
}

impl Default for Metrics {
    fn default() -> Self {
        // From a millisecond, doubling, to about half a minute.
        fn run() -> Histogram {
            Histogram::new(exponential_buckets(0.001, 2.0, 16))
        }
        // From half a millisecond, doubling, to about four minutes: a queue that is behind is late by that much.
        fn wait() -> Histogram {
            Histogram::new(exponential_buckets(0.0005, 2.0, 20))
        }
        Self {
            enqueued: Counter::default(),
            claimed: Family::default(),
            pickup: Family::new_with_constructor(wait),
            started: Family::default(),
            finished: Family::default(),
            seconds: Family::new_with_constructor(run),
            held: Gauge::default(),
            leases_lost: Counter::default(),
            promoted: Counter::default(),
            rescued: Counter::default(),
            loops: Family::default(),
            listening: Gauge::default(),
            notices_sent: Counter::default(),
            notices_received: Counter::default(),
            database_errors: Counter::default(),
            pools: Arc::default(),
            alive: Arc::default(),
        }
    }
}

/// What counts the attempts of one kind: each series is looked up once, and is there from its first count on.
#[derive(Debug)]
pub(super) struct Meters {
    labels: KindLabels,
    metrics: Metrics,
    run: OnceLock<(Counter, Histogram)>,
    ends: [OnceLock<Counter>; 7],
}

impl Meters {
    fn run(&self) -> &(Counter, Histogram) {
        let Metrics { started, seconds, .. } = &self.metrics;
        let series = || (started.get_or_create(&self.labels).clone(), seconds.get_or_create(&self.labels).clone());
        self.run.get_or_init(series)
    }

    pub(super) fn started(&self) {
        self.run().0.inc();
    }

    pub(super) fn ended(&self, outcome: Ended, elapsed: Duration) {
        self.run().1.observe(elapsed.as_secs_f64());
        let series = || {
            let KindLabels { kind, queue } = self.labels.clone();
            self.metrics.finished.get_or_create(&EndLabels { kind, queue, outcome: outcome.as_str() }).clone()
        };
        self.ends[outcome as usize].get_or_init(series).inc();
    }
}

impl Metrics {
    /// Enters them into `registry`, whose prefix is `krilin`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("jobs_enqueued", "Jobs enqueued by this process", self.enqueued.clone());
        registry.register("jobs_claimed", "Jobs claimed by this process", self.claimed.clone());
        registry.register("job_pickup_seconds", "From a job's time to its claim", self.pickup.clone());
        registry.register("jobs_started", "Attempts begun", self.started.clone());
        registry.register("jobs_finished", "Attempts ended, by how", self.finished.clone());
        registry.register("job_seconds", "How long attempts ran", self.seconds.clone());
        registry.register("jobs_held", "Leases held by this process", self.held.clone());
        registry.register("leases_lost", "Leases that this process held and lost", self.leases_lost.clone());
        registry.register("jobs_promoted", "Scheduled jobs made ready", self.promoted.clone());
        registry.register("jobs_rescued", "Jobs freed from workers that vanished", self.rescued.clone());
        registry.register("loop_ticks", "Rounds of the loops that keep the queue", self.loops.clone());
        registry.register("notices_listening", "1 while notices are heard", self.listening.clone());
        registry.register("notices_sent", "Notices sent to other processes", self.notices_sent.clone());
        registry.register("notices_received", "Notices heard from other processes", self.notices_received.clone());
        registry.register("queue_database_errors", "Statements of the queue that failed", self.database_errors.clone());
    }

    /// Enters what the pools are like at this moment.
    pub fn register_pools(&self, registry: &mut Registry) {
        let connections = Family::<PoolLabels, Gauge>::default();
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |pool, state, count: u32| {
            connections.get_or_create(&PoolLabels { pool, state }).inc_by(i64::from(count));
        };
        for (name, stack) in pools.iter().filter_map(|(name, stack)| Some((*name, stack.get()?))) {
            let pool = stack.pool();
            let (open, idle) = (pool.size(), u32::try_from(pool.num_idle() + stack.at_hand()).unwrap_or(u32::MAX));
            let most = pool.options().get_max_connections();
            count(name, "idle", idle);
            count(name, "busy", open.saturating_sub(idle));
            count(name, "free", most.saturating_sub(open));
        }
        registry.register("pool_connections", "Connections to Postgres: idle, busy, and yet to open", connections);
    }

    /// Watches the connections of `stack` and its pool under `name`, as long as somebody uses it.
    pub fn watch_pool(&self, name: &'static str, stack: &Stack) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|(_, stack)| stack.get().is_some());
        pools.push((name, stack.watched()));
    }

    /// Notes a round of a loop, and whether it did what it should.
    pub fn ticked(&self, name: Loop, well: bool) {
        let labels = |outcome| LoopLabels { name: name.as_str(), outcome };
        // Both are there from the first round on, so that a rate over failures begins at zero.
        self.loops.get_or_create(&labels("failed")).inc_by(u64::from(!well));
        self.loops.get_or_create(&labels("ok")).inc_by(u64::from(well));
        self.alive.lock().unwrap_or_else(PoisonError::into_inner).insert(name, Instant::now());
    }

    /// A loop of this process that has made no round for longer than [`Loop::patience`], whether rounds fail or not.
    pub fn stalled(&self) -> Option<Loop> {
        let alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        alive.iter().find(|(name, at)| at.elapsed() > name.patience()).map(|(name, _)| *name)
    }

    /// Forgets a worker's pools and its loops.
    pub(super) fn worker_stopped(&self) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|(name, _)| !WORKER_POOLS.contains(name));
        self.alive.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) fn enqueued(&self, count: usize) {
        self.enqueued.inc_by(count as u64);
    }

    /// Jobs of `queue` were claimed, each so long after its time.
    pub(super) fn claimed(&self, queue: &str, waited: &[Duration]) {
        if waited.is_empty() {
            return;
        }
        let labels = QueueLabels { queue: queue.to_owned() };
        self.claimed.get_or_create(&labels).inc_by(waited.len() as u64);
        let pickup = self.pickup.get_or_create(&labels);
        for waited in waited {
            pickup.observe(waited.as_secs_f64());
        }
    }

    /// How many jobs of `queue` were claimed so far.
    pub(super) fn claimed_count(&self, queue: &str) -> i64 {
        let claimed = self.claimed.get_or_create(&QueueLabels { queue: queue.to_owned() }).get();
        i64::try_from(claimed).unwrap_or(i64::MAX)
    }

    /// What counts the attempts of a kind.
    pub(super) fn of_kind(&self, kind: &str, queue: &str) -> Meters {
        let labels = KindLabels { kind: kind.to_owned(), queue: queue.to_owned() };
        Meters { labels, metrics: self.clone(), run: OnceLock::new(), ends: Default::default() }
    }

    pub(super) fn held(&self, count: usize) {
        self.held.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(super) fn leases_lost(&self, count: usize) {
        self.leases_lost.inc_by(count as u64);
    }

    pub(super) fn promoted(&self, count: usize) {
        self.promoted.inc_by(count as u64);
    }

    pub(super) fn rescued(&self, count: usize) {
        self.rescued.inc_by(count as u64);
    }

    pub(super) fn listening(&self, listening: bool) {
        self.listening.set(i64::from(listening));
    }

    pub(super) fn notice_sent(&self) {
        self.notices_sent.inc();
    }

    pub(super) fn notice_received(&self) {
        self.notices_received.inc();
    }

    pub(super) fn database_error(&self) {
        self.database_errors.inc();
    }

    /// Jobs freed from workers that vanished, so far.
    pub fn rescued_count(&self) -> u64 {
        self.rescued.get()
    }
}
