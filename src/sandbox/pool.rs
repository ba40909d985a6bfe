//! A warm pool of children. Lends one for a pass, takes it back if it is sound, kills and replaces it if it is not.

use std::{
    io,
    path::PathBuf,
    process::Child,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use tokio::{
    sync::{Mutex, Semaphore},
    time::{Instant, timeout, timeout_at},
};

use super::{
    error::Error,
    facts::Facts,
    limits::{FRAME_BYTES, Limits, SOURCE_BYTES},
    protocol::Kind,
    spawner::{Spawner, Started},
    tally::{Counters, Tally},
    turn::{Line, Turn},
};
use crate::model::{bundle::Bundle, error::Code, host::Host};

/// How long a new child may take until it is locked down and warm.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait before another try when a child could not be started.
const RESTART_PAUSE: Duration = Duration::from_millis(200);

/// How a pool is set up.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// The program whose verb `sandbox` is the child: this very binary, except in tests.
    pub program: PathBuf,
    /// Children kept warm.
    pub size: usize,
    /// Callers that may wait for a child at once; the next one is refused.
    pub waiters: usize,
    /// How long a caller waits for a child.
    pub wait: Duration,
    /// Passes after which a child is replaced.
    pub passes: u32,
    /// Whether to count the heap at the end of a pass, which costs time: [`Pass::memory_bytes`].
    pub weigh: bool,
}

impl Default for PoolOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            program: "/proc/self/exe".into(),
            size: cores * 2,
            waiters: 1_024,
            wait: Duration::from_secs(10),
            passes: 20_000,
            weigh: false,
        }
    }
}

impl PoolOptions {
    /// The defaults with children of `program`.
    pub fn of(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), ..Self::default() }
    }
}

/// One pass to run.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// The app's code.
    pub bundle: &'a Bundle,
    /// The exported function to call.
    pub entry: &'a str,
    /// Its second argument.
    pub input: &'a RawValue,
    /// Its first argument's fixed part.
    pub facts: &'a Facts,
    /// What it may use.
    pub limits: Limits,
    /// Where its randomness begins: the same for every pass of a job.
    pub seed: u64,
    /// Its instant: the same for every pass of a job.
    pub now: DateTime<Utc>,
}

/// A pass that returned.
#[derive(Debug)]
pub struct Pass {
    /// What the handler returned; `null` for undefined.
    pub value: Box<RawValue>,
    /// CPU time in the child.
    pub cpu: Duration,
    /// The part of `cpu` that made the context as new.
    pub prepared: Duration,
    /// Wall time, the host's answers included, the wait for a child not.
    pub wall: Duration,
    /// JavaScript heap in use at the end, when the pool weighs.
    pub memory_bytes: Option<u64>,
    /// Calls that the host answered.
    pub calls: u32,
}

/// A pool of children. Cheap to clone; the children end with the last clone.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    options: PoolOptions,
    /// The children that are free, the one used last on top: its caches are warm.
    idle: Mutex<Vec<Worker>>,
    /// One permit for each child in `idle`.
    free: Semaphore,
    waiting: AtomicUsize,
    counters: Counters,
    spawner: Spawner,
    runtime: tokio::runtime::Handle,
}

/// A child at the parent's end.
pub(super) struct Worker {
    pub(super) line: Line,
    process: Option<Child>,
    passes: u32,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({})", self.0.options.size)
    }
}

impl Pool {
    /// Starts the children, in the background: the first pass waits until one is ready. Must be called within a tokio
    /// runtime. Fails when no thread can be started.
    pub fn start(options: PoolOptions) -> io::Result<Self> {
        let spawner = Spawner::start(options.program.clone())?;
        let size = options.size.max(1);
        let pool = Self(Arc::new(Inner {
            idle: Mutex::new(Vec::with_capacity(size)),
            free: Semaphore::new(0),
            waiting: AtomicUsize::new(0),
            counters: Counters::default(),
            spawner,
            runtime: tokio::runtime::Handle::current(),
            options,
        }));
        for _ in 0..size {
            pool.0.clone().add();
        }
        Ok(pool)
    }

    /// Runs one pass. `host` answers its calls; the pass has no other way out.
    pub async fn run(&self, run: Run<'_>, host: &dyn Host) -> Result<Pass, Error> {
        if run.input.get().len() > FRAME_BYTES {
            let message = format!("the input is {} bytes long, the most is {FRAME_BYTES}", run.input.get().len());
            return Err(Error::new(Code::QuotaExceeded, message));
        }
        self.turn(Turn { run, entry: Some(run.entry), weigh: self.0.options.weigh }, host).await
    }

    /// The names of the functions that `bundle` exports, in alphabetical order. Runs the module's top level.
    pub async fn exports(&self, bundle: &Bundle) -> Result<Vec<String>, Error> {
        let facts = Facts::nobody();
        let run = Run {
            bundle,
            entry: "",
            input: RawValue::NULL,
            facts: &facts,
            limits: Limits::default(),
            seed: 0,
            now: DateTime::UNIX_EPOCH,
        };
        let pass = self.turn(Turn { run, entry: None, weigh: false }, &Nobody).await?;
        serde_json::from_str(pass.value.get()).map_err(|_| Error::new(Code::Internal, "the child names no exports"))
    }

    /// How many children are warm and free just now.
    pub fn idle(&self) -> usize {
        self.0.free.available_permits()
    }

    /// What it has done so far, and how it stands.
    pub fn tally(&self) -> Tally {
        let Inner { counters, options, waiting, .. } = self.0.as_ref();
        Tally {
            returned: counters.returned.get(),
            thrown: counters.thrown.get(),
            broken: counters.broken.get(),
            refused: counters.refused.get(),
            started: counters.started.get(),
            replaced: counters.replaced.get(),
            idle: self.idle(),
            size: options.size,
            waiting: waiting.load(Ordering::Relaxed),
        }
    }

    async fn turn(&self, turn: Turn<'_>, host: &dyn Host) -> Result<Pass, Error> {
        if turn.run.bundle.source.len() > SOURCE_BYTES {
            let message = format!("the bundle is over {SOURCE_BYTES} bytes long");
            return Err(Error::new(Code::QuotaExceeded, message));
        }
        let counters = &self.0.counters;
        let mut lent = self.lend().await.inspect_err(|_| counters.refused.add())?;
        let worker = lent.worker.as_mut().expect("lent with a child");
        worker.passes += 1;
        let ended = turn.drive(&mut worker.line, host).await;
        // Dropped before this line, a child is in the middle of a pass and is killed.
        lent.sound = match &ended {
            Ok(_) => worker.passes < self.0.options.passes && !worker.line.full,
            Err(error) => !error.faulty(),
        };
        match &ended {
            Ok(_) => counters.returned.add(),
            Err(error) if error.faulty() => counters.broken.add(),
            Err(_) => counters.thrown.add(),
        }
        lent.give_back().await;
        ended
    }

    async fn lend(&self) -> Result<Lent, Error> {
        let busy = || {
            let error = crate::model::error::CtxError::new(Code::Unavailable, "all sandboxes are busy");
            Error::from(error.with_retry_after(Duration::from_secs(1)))
        };
        let inner = &self.0;
        if inner.free.available_permits() == 0 && inner.waiting.load(Ordering::Relaxed) >= inner.options.waiters {
            return Err(busy());
        }
        let deadline = Instant::now() + inner.options.wait;
        loop {
            inner.waiting.fetch_add(1, Ordering::Relaxed);
            let permit = timeout_at(deadline, inner.free.acquire()).await;
            inner.waiting.fetch_sub(1, Ordering::Relaxed);
            permit.map_err(|_| busy())?.expect("the semaphore is never closed").forget();
            let worker = inner.idle.lock().await.pop().expect("a permit stands for a child");
            let lent = Lent { inner: Arc::clone(inner), worker: Some(worker), sound: false };
            if lent.worker.as_ref().is_some_and(|worker| worker.line.alive()) {
                return Ok(lent);
            }
        }
    }
}

impl Inner {
    /// Adds one child to the pool, in the background.
    fn add(self: Arc<Self>) {
        let inner = Arc::downgrade(&self);
        let runtime = self.runtime.clone();
        let ready = move |started: io::Result<Started>| {
            let Some(inner) = inner.upgrade() else { return };
            runtime.spawn(async move { inner.welcome(started).await });
        };
        self.spawner.spawn(Box::new(ready));
    }

    /// Waits until a new child is warm and puts it into the pool; starts another if it never is.
    async fn welcome(self: Arc<Self>, started: io::Result<Started>) {
        let mut process = None;
        let warm = async {
            let Started { process: child, orders, reports } = started?;
            let pid = child.id();
            process = Some(child);
            let mut line = Line::new(orders, reports, pid)?;
            match timeout(START_TIMEOUT, line.receive()).await {
                Ok(Ok(Kind::Ready)) => Ok(line),
                Ok(Ok(_)) => Err(io::Error::other("its first word is not that it is ready")),
                Ok(Err(error)) => Err(error),
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
            }
        };
        match warm.await {
            Ok(line) => {
                self.counters.started.add();
                self.idle.lock().await.push(Worker { line, process, passes: 0 });
                self.free.add_permits(1);
            }
            Err(error) => {
                tracing::error!(%error, "a sandbox child did not start; trying again");
                if let Some(process) = process {
                    self.spawner.bury(process);
                }
                tokio::time::sleep(RESTART_PAUSE).await;
                self.add();
            }
        }
    }
}

/// A child on loan. Unless given back sound, it is killed and replaced, also when the caller went away in mid-pass.
struct Lent {
    inner: Arc<Inner>,
    worker: Option<Worker>,
    sound: bool,
}

impl Lent {
    async fn give_back(mut self) {
        if self.sound
            && let Some(worker) = self.worker.take()
        {
            self.inner.idle.lock().await.push(worker);
            self.inner.free.add_permits(1);
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(mut worker) = self.worker.take() {
            self.inner.counters.replaced.add();
            if let Some(process) = worker.process.take() {
                self.inner.spawner.bury(process);
            }
            Arc::clone(&self.inner).add();
        }
    }
}

/// Answers nothing: a module's top level has no `ctx`.
struct Nobody;

impl Host for Nobody {
    fn settle(
        &self,
        calls: Vec<crate::model::host::Call>,
    ) -> futures::future::BoxFuture<'_, Vec<crate::model::host::Settled>> {
        let refusal = crate::model::error::CtxError::new(Code::PermissionDenied, "no calls here");
        Box::pin(std::future::ready(calls.iter().map(|_| Err(refusal.clone())).collect()))
    }

    fn log(&self, _line: crate::model::host::LogLine) {}
}
