//! A worker process: an apalis worker per lane under one monitor, and the loops they share: heartbeats, reaper, promoter,
//! the day's retention. Refuses to drop work when it stops: what runs may end until the deadline, the rest is given back.

use std::{sync::Arc, time::Duration};

use apalis_core::{
    monitor::{Monitor, context::MonitorContext},
    worker::builder::WorkerBuilder,
};
use sqlx::PgPool;
use tokio::{
    sync::{Notify, oneshot},
    task::JoinHandle,
};
use tower::limit::ConcurrencyLimitLayer;

use super::{
    Queue,
    backend::LaneBackend,
    claims::Claims,
    ends::Ends,
    execute::Execute,
    feed::{Feeder, Ground},
    floor::Floor,
    inbox::Inbox,
    kept::Kept,
    lease::Leases,
    metrics::{Loop, Metrics, WORKER_POOLS},
    pace::Pace,
    promoter,
    reaper::Reaper,
    registry::Registry,
    shelf::{Drain, Shelf},
    standing, stopper,
    turns::Turns,
};
use crate::{
    model::{
        id::WorkerId,
        job::{NewJob, Unique},
    },
    store::{self, Stack, workers},
    supervisor::{Part, Supervisor},
};

/// How long a lease lasts unrenewed. A worker that vanishes is noticed after this long.
pub const LEASE: Duration = Duration::from_secs(10);
/// The longest time between two looks for jobs that no notice announced.
pub const POLL: Duration = Duration::from_millis(950);
/// How long what runs may go on when the worker is asked to stop.
pub const DRAIN: Duration = Duration::from_secs(20);
/// What recording the last endings may take after that.
const FLUSH: Duration = Duration::from_secs(5);
/// The loops that lanes share begin so long after these: a worker that starts in front of a backlog begins with that, and not
/// with half a dozen connections at once.
const LOOPS_BEGIN: Duration = Duration::from_millis(300);
/// How often a worker says that it is there, and after how many such times of silence it is forgotten.
const PRESENCE_INTERVAL: Duration = Duration::from_secs(3);
const PRESENCE_FORGOTTEN: u32 = 20;
/// How often to see whether the day's retention job is there.
const RETENTION_INTERVAL: Duration = Duration::from_mins(10);
/// The period in which there is one.
const RETENTION_PERIOD: Duration = Duration::from_hours(24);
/// The kind of the day's retention job, where its policy exists.
const RETENTION_KIND: &str = "retention";

/// One lane: a queue and how much of it to take on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane {
    /// The queue.
    pub queue: String,
    /// Jobs that run at once.
    pub concurrency: usize,
    /// Jobs claimed ahead of those; more while they end fast, at most a batch. Little: what is claimed waits for this
    /// worker alone.
    pub prefetch: usize,
    /// The most jobs one statement claims. About as many may have run and wait for their end to be stored, beside those of which
    /// it is being stored: they run again when the worker dies before.
    pub batch: usize,
}

impl Lane {
    /// A lane that runs `concurrency` jobs at once, with as many claimed ahead.
    pub fn new(queue: &str, concurrency: usize) -> Self {
        Self { queue: queue.to_owned(), concurrency, prefetch: concurrency, batch: 4 * concurrency }
    }

    /// At this many unstarted jobs the next are claimed.
    pub(super) fn low(&self) -> usize {
        self.prefetch / 2
    }
}

/// How a worker works.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// Its lanes.
    pub lanes: Vec<Lane>,
    /// See [`LEASE`].
    pub lease: Duration,
    /// See [`POLL`].
    pub poll: Duration,
    /// See [`DRAIN`].
    pub drain: Duration,
    /// Who is told of its health.
    pub supervisor: Supervisor,
}

impl WorkerOptions {
    /// The defaults over `lanes`.
    pub fn new(lanes: Vec<Lane>) -> Self {
        Self { lanes, lease: LEASE, poll: POLL, drain: DRAIN, supervisor: Supervisor::default() }
    }
}

/// A worker that runs.
pub struct Worker {
    /// This start of it.
    pub id: WorkerId,
    monitor: MonitorContext,
    running: JoinHandle<()>,
    loops: Vec<JoinHandle<()>>,
    drains: Vec<Arc<Drain>>,
    leases: Arc<Leases>,
    metrics: Metrics,
    drain: Duration,
    pool: PgPool,
    /// Over the connections of the loops; kept to be watched.
    _beside: Stack,
}

/// Connections of the loops that lanes share, and of reports.
const LOOPS_CONNECTIONS: u32 = 4;

/// Session settings of the queue's own connections. Its statements ride on indexes whose rows come and go by the
/// thousand; a plan cached while the table was empty must not be a scan of the whole, nor sort what an index has in order.
pub const KERNEL: [(&str, &str); 6] = [
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("enable_bitmapscan", "off"),
    ("jit", "off"),
    ("plan_cache_mode", "force_generic_plan"),
];

/// Starts a worker for the kinds of `registry` over `queue`, whose handlers get `pool`. Runs until [`Worker::stop`].
pub fn start(queue: &Queue, registry: &Registry, pool: &PgPool, options: &WorkerOptions) -> Worker {
    let id = WorkerId::new(queue.clock());
    // One for each lane, and one more, so that a pool of which all are busy is a sign of trouble.
    let connections = u32::try_from(options.lanes.len()).unwrap_or(u32::MAX).saturating_add(1);
    let durable = store::beside(pool, connections, &KERNEL);
    let settings = [KERNEL.as_slice(), &store::RELAXED].concat();
    // A pool hands out its open connections in turn. Claims share theirs with nothing else, and so find it warm.
    let claims = store::beside(pool, connections, &settings);
    let relaxed = store::beside(pool, LOOPS_CONNECTIONS, &settings);
    // An action's statements are not the queue's: they are planned as everywhere else.
    let at_once = options.lanes.iter().map(|lane| lane.concurrency).sum::<usize>().saturating_add(1);
    let at_once = u32::try_from(at_once).unwrap_or(u32::MAX).min(pool.options().get_max_connections());
    let actions = store::beside(pool, at_once, &store::RELAXED);
    let stacks = [&durable, &claims, &actions, &relaxed].map(Stack::over);
    for (name, stack) in WORKER_POOLS.into_iter().zip(&stacks) {
        queue.metrics().watch_pool(name, stack);
    }
    let [durable, claims, actions, beside] = stacks;
    let ground = Ground {
        durable,
        relaxed: claims,
        leases: Arc::new(Leases::new(id, options.lease)),
        notices: queue.notices().clone(),
        metrics: queue.metrics().clone(),
        scheduled: Arc::new(Notify::new()),
    };
    queue.notices().listen();
    let execute = Execute::new(registry, (queue.stack(), &actions), &relaxed, queue.metrics());
    let (mut monitor, mut drains) = (Monitor::new(), Vec::new());
    // All parts are there before the first begins.
    let (pulse, parts) = (options.supervisor.part(), options.lanes.iter().map(|_| options.supervisor.part()));
    for (lane, part) in options.lanes.iter().zip(parts.collect::<Vec<_>>()) {
        let (drain, backend) = lane_backend(lane, options.poll, &ground, part);
        drains.push(drain);
        monitor = register(monitor, id, backend, execute.clone());
    }
    let context = monitor.context();
    let reaper = Reaper::new(relaxed.clone(), options.lease).announcing(ground.notices.clone(), ground.metrics.clone());
    let lanes = options.lanes.iter().map(|lane| lane.queue.clone()).collect::<Vec<_>>();
    let (leases, beats, metrics) = (ground.leases.clone(), relaxed.clone(), ground.metrics.clone());
    let promoting =
        promoter::keep(relaxed.clone(), ground.notices.clone(), ground.metrics.clone(), ground.scheduled.clone());
    let standing = standing::keep(options.supervisor.clone(), relaxed.clone(), ground.leases.clone(), lanes.clone());
    let presence = be_present(relaxed.clone(), id, (lanes, registry.kinds()), ground.metrics.clone());
    let stopping = stopper::keep(relaxed, ground.leases.clone(), ground.notices.clone());
    let loops = vec![
        tokio::spawn(async move { leases.keep(&beats, &metrics, &pulse).await }),
        soon(promoting),
        soon(presence),
        soon(stopping),
        soon(reaper.keep()),
        soon(standing),
        soon(retain(queue.clone())),
    ];
    let running = tokio::spawn(async move {
        if let Err(error) = monitor.run().await {
            tracing::error!(error = %error, "the worker ended with an error");
        }
    });
    tracing::info!(worker.id = %id, "worker {id} started");
    Worker {
        id,
        monitor: context,
        running,
        loops,
        drains,
        leases: ground.leases,
        metrics: ground.metrics,
        drain: options.drain,
        pool: pool.clone(),
        _beside: beside,
    }
}

/// Begins a loop, after [`LOOPS_BEGIN`].
fn soon(work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(async move {
        tokio::time::sleep(LOOPS_BEGIN).await;
        work.await;
    })
}

fn lane_backend(lane: &Lane, poll: Duration, ground: &Ground, part: Part) -> (Arc<Drain>, LaneBackend) {
    let inbox = Arc::new(Inbox::default());
    let (done, drained) = oneshot::channel();
    let (shelf, drain) = (Arc::new(Shelf::default()), Arc::new(Drain::default()));
    let feeder = Feeder {
        lane: lane.clone(),
        poll,
        ground: ground.clone(),
        shelf: shelf.clone(),
        drain: drain.clone(),
        inbox: inbox.clone(),
        bell: ground.notices.lane(&lane.queue),
        kept: Kept::default(),
        claims: Claims::new(&lane.queue, ground),
        ends: Ends::new(&ground.durable),
        turns: Turns::default(),
        pace: Pace::default(),
        floor: Floor::default(),
        part,
    };
    tokio::spawn(feeder.run(done));
    (drain.clone(), LaneBackend { lane: lane.clone(), shelf, drain, inbox, drained })
}

fn register(monitor: Monitor, id: WorkerId, backend: LaneBackend, execute: Execute) -> Monitor {
    let name = format!("{}@{id}", backend.lane.queue);
    let concurrency = backend.lane.concurrency;
    // A monitor may ask for the worker again after it failed; ours cannot fail, and its backend exists once.
    let backend = std::sync::Mutex::new(Some(backend));
    monitor.register(move |_| {
        let mut backend = backend.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let backend = backend.take().expect("a lane's backend has no error, so its worker is built once");
        WorkerBuilder::new(name.clone())
            .backend(backend)
            .layer(ConcurrencyLimitLayer::new(concurrency))
            .build(execute.clone())
    })
}

impl Worker {
    /// Stops: claims nothing more, gives back what has not begun, lets the rest end until the deadline, then gives that
    /// back too. No attempt is spent by it. True when everything was recorded.
    pub async fn stop(self) -> bool {
        self.drains.iter().for_each(|drain| drain.begin());
        let _ = self.monitor.shutdown();
        let mut running = self.running;
        let mut ended = tokio::time::timeout(self.drain, &mut running).await.is_ok();
        if !ended {
            self.leases.stop_all();
            ended = tokio::time::timeout(FLUSH, &mut running).await.is_ok();
        }
        if !ended {
            running.abort();
        }
        self.loops.iter().for_each(JoinHandle::abort);
        if let Err(error) = workers::leave(&self.pool, self.id).await {
            tracing::debug!(error = %error, "the leave was not noted; silence tells it, too");
        }
        self.metrics.worker_stopped();
        tracing::info!(worker.id = %self.id, "worker {} stopped", self.id);
        ended
    }

    /// Leases held at this moment.
    pub fn in_flight(&self) -> usize {
        self.leases.count()
    }
}

/// Says again and again that the worker is there, and for what.
async fn be_present(pool: PgPool, id: WorkerId, (queues, kinds): (Vec<String>, Vec<String>), metrics: Metrics) {
    loop {
        let forget = PRESENCE_INTERVAL * PRESENCE_FORGOTTEN;
        let claimed: Vec<_> = queues.iter().map(|queue| metrics.claimed_count(queue)).collect();
        if let Err(error) = workers::beat(&pool, id, (&queues, &claimed, &kinds), forget).await {
            tracing::debug!(error = %error, "being there was not noted; trying again");
        }
        tokio::time::sleep(PRESENCE_INTERVAL).await;
    }
}

/// Sees to it that each day has its retention job: of all that are asked for in a day, the unique key lets one through.
async fn retain(queue: Queue) {
    if queue.policies().get(RETENTION_KIND).is_none() {
        return;
    }
    loop {
        let job = NewJob {
            kind: RETENTION_KIND.to_owned(),
            cause: Some("daily".to_owned()),
            unique: Some(Unique { period: Some(RETENTION_PERIOD), ..Unique::new(RETENTION_KIND) }),
            ..NewJob::default()
        };
        let enqueued = queue.enqueue(job).await;
        queue.metrics().ticked(Loop::Retention, enqueued.is_ok());
        if let Err(error) = enqueued {
            tracing::warn!(error = %error, "the day's retention job could not be enqueued; trying again later");
        }
        tokio::time::sleep(RETENTION_INTERVAL).await;
    }
}
