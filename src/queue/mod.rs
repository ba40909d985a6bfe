//! The job engine: durable jobs on Postgres, run by apalis workers. This is its face: enqueue, look, cancel, retry, wait.
//! Refuses to know what jobs are about, and has never heard of HTTP or of apps.

mod backend;
mod claims;
pub mod complete;
mod ends;
mod enqueue;
mod execute;
mod feed;
mod fit;
mod floor;
mod flow;
pub mod fsck;
mod gather;
mod inbox;
mod kept;
pub mod kinds;
pub mod lease;
mod look;
pub mod metrics;
mod notify;
mod outlook;
mod pace;
mod place;
mod promoter;
pub mod reaper;
pub mod registry;
pub mod report;
mod shelf;
mod standing;
pub mod stopper;
mod turns;
mod waiters;
pub mod worker;

use std::{sync::Arc, time::Duration};

use sqlx::{PgConnection, PgPool};
use tokio::time::Instant;

pub use self::enqueue::{ARGS_MAX_BYTES, INSERT_MAX, KEY_MAX_BYTES, PERIOD_MIN, Uncommitted, WAIT_LONGEST};
pub use self::flow::{QueueView, WORKER_SILENT};
pub use self::outlook::Outlook;
use self::{enqueue::Enqueuer, look::Lookout, metrics::Metrics, notify::Notices, outlook::Outlooks, waiters::Waiters};
pub use crate::store::{
    dead::{Redrive, Which},
    history::Filter,
    jobs::{Depth, Tally},
    reports::Batch,
};
use crate::{
    model::{
        clock::Clock,
        error::{Code, CtxError},
        id::{JobId, UserId},
        job::{Enqueued, JobView, NewJob, State},
        policy::Policies,
    },
    store::{
        self, Stack, dead, history, jobs, reports,
        stops::{self, Asked},
    },
};

/// The most jobs one page of a listing has.
pub const PAGE_MAX: u32 = 200;
/// The most dead letters one call takes up again.
pub const REDRIVE_MAX: u32 = 1_000;
/// Dead letters are counted up to here.
pub const DEAD_COUNT_MAX: i64 = 100_000;
/// The longest [`Queue::wait`].
pub const WAIT_MAX: Duration = Duration::from_secs(30);
/// How often a cancel is tried that meets the job in the moment in which it begins or is put back.
const CANCEL_TRIES: usize = 8;
/// How often a waiter looks for itself.
const LOOK_INTERVAL: Duration = Duration::from_millis(700);

/// Why the queue did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such kind.
    #[error("there is no kind of job named `{0}`")]
    UnknownKind(String),
    /// There is no such queue; in words, with what may be meant.
    #[error("{0}")]
    UnknownQueue(String),
    /// The job cannot be taken as it is.
    #[error("the job is refused: {0}")]
    Unfit(String),
    /// More jobs than one call takes.
    #[error("{0} jobs in one call; {INSERT_MAX} are allowed")]
    TooMany(usize),
    /// The idempotency key stands for another request.
    #[error("this idempotency key was used for another request")]
    KeyReused,
    /// A request with this idempotency key is being answered.
    #[error("a request with this idempotency key is being answered")]
    KeyInFlight,
    /// Too many callers wait already.
    #[error("too many jobs wait to be stored")]
    Busy,
    /// There is no such job, or it is somebody else's.
    #[error("there is no such job")]
    NotFound,
    /// The job is in a state in which that cannot be done.
    #[error("{0}")]
    State(&'static str),
    /// The database.
    #[error(transparent)]
    Store(store::Error),
}

/// SQLSTATE class 22, "data exception": what came in is not to Postgres' liking, such as a NUL in JSON text.
const DATA_EXCEPTION: &str = "22";

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match &error {
            store::Error::Database(sqlx::Error::Database(cause))
                if cause.code().is_some_and(|code| code.starts_with(DATA_EXCEPTION)) =>
            {
                Self::Unfit(cause.message().to_owned())
            }
            _ => Self::Store(error),
        }
    }
}

impl From<Error> for CtxError {
    fn from(error: Error) -> Self {
        let code = match error {
            Error::Store(cause) => return cause.into(),
            Error::UnknownKind(_) | Error::Unfit(_) | Error::KeyReused => Code::ValidationFailed,
            Error::TooMany(_) => Code::QuotaExceeded,
            Error::Busy => Code::Unavailable,
            Error::NotFound | Error::UnknownQueue(_) => Code::NotFound,
            Error::KeyInFlight | Error::State(_) => Code::Conflict,
        };
        let told = Self::new(code, error.to_string());
        if code == Code::Unavailable { told.with_retry_after(Duration::from_secs(1)) } else { told }
    }
}

/// The queue. Cheap to clone.
#[derive(Clone)]
pub struct Queue(Arc<Inner>);

struct Inner {
    stack: Stack,
    clock: Arc<dyn Clock>,
    policies: Policies,
    enqueuer: Enqueuer,
    notices: Notices,
    waiters: Waiters,
    lookout: Lookout,
    outlooks: Outlooks,
    metrics: Metrics,
}

impl Queue {
    /// A queue over `pool` that knows the kinds of `policies`. Must be called on a tokio runtime.
    pub fn new(pool: &PgPool, clock: Arc<dyn Clock>, policies: Policies) -> Self {
        let (waiters, metrics) = (Waiters::default(), Metrics::default());
        let stack = Stack::over(pool);
        metrics.watch_pool("main", &stack);
        let notices = Notices::new(pool, waiters.clone(), metrics.clone());
        let enqueuer = Enqueuer::new(&stack, clock.clone(), policies.clone(), (notices.clone(), metrics.clone()));
        let lookout = Lookout::new(&stack);
        let outlooks = Outlooks::new(pool, flow::known_queues(&policies));
        Self(Arc::new(Inner { stack, clock, policies, enqueuer, notices, waiters, lookout, outlooks, metrics }))
    }

    /// Makes a job durable; returns after its commit. Callers at the same time share one. An `awaited` job is durable once
    /// it has ended; who does not wait so long and promises it to somebody calls [`Self::sync`] first.
    pub async fn enqueue(&self, job: NewJob) -> Result<Enqueued, Error> {
        self.0.enqueuer.one(job).await
    }

    /// Makes up to [`INSERT_MAX`] jobs durable, all or none, in the order given.
    pub async fn enqueue_many(&self, jobs: Vec<NewJob>) -> Result<Vec<Enqueued>, Error> {
        self.0.enqueuer.many(jobs).await
    }

    /// Makes up to [`INSERT_MAX`] jobs durable in one commit, each with an answer of its own. An error of the whole is the
    /// database's, and then none is there.
    pub async fn enqueue_each(&self, jobs: Vec<NewJob>) -> Result<Vec<Result<Enqueued, Error>>, Error> {
        self.0.enqueuer.each(jobs).await
    }

    /// How `queue` stood a moment ago, where anybody has looked. Never waits; an old look has another one taken beside.
    pub fn outlook(&self, queue: &str) -> Option<Outlook> {
        self.0.outlooks.of(queue)
    }

    /// Enqueues up to [`INSERT_MAX`] jobs in the transaction that is open on `db`: they are there if and only if it
    /// commits. Must be rolled back when this fails. See [`Uncommitted`] for what to do after the commit.
    ///
    /// A key that another open transaction has taken is waited for, as long as the connection's `statement_timeout`.
    pub async fn enqueue_in(&self, db: &mut PgConnection, jobs: Vec<NewJob>) -> Result<Uncommitted, Error> {
        self.0.enqueuer.within(db, jobs).await
    }

    /// The job `id`; only if it is `user_id`'s, where one is given.
    pub async fn get(&self, id: JobId, user_id: Option<UserId>) -> Result<Option<JobView>, Error> {
        let found = history::find(self.0.stack.pool(), id, user_id).await?;
        look::wait_for_disk(self.0.stack.pool(), found.as_slice()).await?;
        Ok(found)
    }

    /// Jobs, newest first, at most `limit` (and [`PAGE_MAX`]); with the last one's id as `before` the next page.
    pub async fn list(&self, filter: &Filter, before: Option<JobId>, limit: u32) -> Result<Vec<JobView>, Error> {
        let found = history::list(self.0.stack.pool(), filter, before, i64::from(limit.min(PAGE_MAX))).await?;
        look::wait_for_disk(self.0.stack.pool(), &found).await?;
        Ok(found)
    }

    /// Cancels a job that has not ended. One that waits ends at once. The handler of one that runs is told within
    /// [`stopper::STOP_INTERVAL`] and dropped after its policy's `grace`; from now on nothing it would commit with the job
    /// is kept. Gives where the job stands: `Cancelled` or `Cancelling`.
    pub async fn cancel(&self, id: JobId, user_id: Option<UserId>) -> Result<State, Error> {
        for _ in 0..CANCEL_TRIES {
            match stops::cancel(self.0.stack.pool(), id, user_id).await? {
                Some(Asked::Ended { awaited }) => {
                    if awaited {
                        self.0.notices.finished([id]);
                    }
                    return Ok(State::Cancelled);
                }
                Some(Asked::Running) => {
                    self.0.notices.ready([stopper::BELL]);
                    return Ok(State::Cancelling);
                }
                None => match self.get(id, user_id).await? {
                    None => return Err(Error::NotFound),
                    Some(job) if job.state.is_final() => return Err(Error::State("the job has ended already")),
                    // It began or was put back at this very moment.
                    Some(_) => {}
                },
            }
        }
        Err(Error::Busy)
    }

    /// Makes a dead or cancelled job ready again, all its attempts before it.
    pub async fn retry(&self, id: JobId, user_id: Option<UserId>) -> Result<(), Error> {
        let mut tx = self.0.stack.begin().await?;
        let queue = match jobs::revive(&mut tx, id, user_id).await {
            Err(store::Error::Constraint(name)) if name == "jobs_unique_key" => {
                return Err(Error::State("another job with the same unique key is live"));
            }
            queue => queue?,
        };
        tx.commit().await?;
        match queue {
            Some(queue) => {
                self.0.notices.ready([queue.as_str()]);
                Ok(())
            }
            None => Err(self.gone(id, user_id, "only a dead or cancelled job can be tried again").await),
        }
    }

    /// Dead letters, oldest first, at most `limit` (and [`PAGE_MAX`]).
    pub async fn dead(&self, which: &Which, limit: u32) -> Result<Vec<JobView>, Error> {
        Ok(dead::list(self.0.stack.pool(), which, i64::from(limit.min(PAGE_MAX))).await?)
    }

    /// How many dead letters there are, counted up to [`DEAD_COUNT_MAX`].
    pub async fn count_dead(&self, which: &Which) -> Result<i64, Error> {
        Ok(dead::count(self.0.stack.pool(), which, DEAD_COUNT_MAX).await?)
    }

    /// Takes up at most `limit` (and [`REDRIVE_MAX`]) dead letters again, oldest first, all their attempts before them; gives
    /// their ids. A dead letter is taken up by one caller alone; one whose unique key is taken stays where it is. `by` says
    /// who does it.
    pub async fn redrive(&self, which: &Which, limit: u32, by: &str) -> Result<Vec<JobId>, Error> {
        let limit = i64::from(limit.min(REDRIVE_MAX));
        let taken = match dead::redrive(self.0.stack.pool(), which, limit, by).await {
            Err(store::Error::Constraint(name)) if name == "jobs_unique_key" => {
                return Err(Error::State("a job with the unique key of one of them came just now; try again"));
            }
            taken => taken?,
        };
        self.0.notices.ready(taken.iter().map(|(_, queue)| queue.as_str()));
        Ok(taken.into_iter().map(|(id, _)| id).collect())
    }

    /// The times that the job was taken up again, latest first.
    pub async fn redrives(&self, id: JobId) -> Result<Vec<Redrive>, Error> {
        Ok(dead::redrives(self.0.stack.pool(), id, i64::from(PAGE_MAX)).await?)
    }

    /// What the job has logged: batches after the one `after`, at most `limit` (and [`PAGE_MAX`]). Whose it is, the caller
    /// has looked at.
    pub async fn log(&self, id: JobId, after: i64, limit: u32) -> Result<Vec<Batch>, Error> {
        Ok(reports::log(self.0.stack.pool(), id, after, i64::from(limit.min(PAGE_MAX))).await?)
    }

    async fn gone(&self, id: JobId, user_id: Option<UserId>, otherwise: &'static str) -> Error {
        match self.get(id, user_id).await {
            Ok(Some(_)) => Error::State(otherwise),
            Ok(None) => Error::NotFound,
            Err(error) => error,
        }
    }

    /// What this process has committed is on Postgres' disk when this returns.
    pub async fn sync(&self) -> Result<(), Error> {
        Ok(jobs::sync(self.0.stack.pool()).await?)
    }

    /// Waits until the job has ended, at most `timeout` (and [`WAIT_MAX`]); gives it as it then is. Quick only for jobs
    /// enqueued as `awaited`; for others it polls.
    pub async fn wait(&self, id: JobId, timeout: Duration) -> Result<Option<JobView>, Error> {
        self.look_until_ended(id, timeout, true).await
    }

    /// The same for a job that this process has just enqueued as `awaited`. If it is new, its end is announced here, and
    /// there is nothing to see before.
    pub async fn wait_for(&self, enqueued: &Enqueued, timeout: Duration) -> Result<Option<JobView>, Error> {
        self.look_until_ended(enqueued.job_id, timeout, !enqueued.created()).await
    }

    async fn look_until_ended(&self, id: JobId, timeout: Duration, now: bool) -> Result<Option<JobView>, Error> {
        let deadline = Instant::now() + timeout.min(WAIT_MAX);
        self.0.notices.listen();
        let waiting = self.0.waiters.watch(id);
        let mut look = now;
        loop {
            if look {
                let job = self.0.lookout.job(id).await?;
                if job.as_ref().is_none_or(|job| job.state.is_final()) || Instant::now() >= deadline {
                    return Ok(job);
                }
            }
            let look_at = deadline.min(Instant::now() + LOOK_INTERVAL);
            let _ = tokio::time::timeout_at(look_at, waiting.ended.notified()).await;
            look = true;
        }
    }

    /// Wakes the workers of queues in which somebody else has made jobs, so many each, and counts these. After the commit.
    pub fn ring(&self, queues: &std::collections::BTreeMap<String, usize>) {
        if !queues.is_empty() {
            self.0.metrics.enqueued(queues.values().sum());
            self.0.notices.ready(queues.keys().map(String::as_str));
        }
    }

    /// How many jobs wait and run, per queue.
    pub async fn depths(&self) -> Result<Vec<Depth>, Error> {
        Ok(jobs::depths(self.0.stack.pool()).await?)
    }

    /// How many jobs wait and run, by kind, queue and state.
    pub async fn tally(&self) -> Result<Vec<Tally>, Error> {
        Ok(jobs::tally(self.0.stack.pool()).await?)
    }

    /// The connections that it uses, for others of this process.
    pub fn stack(&self) -> &Stack {
        &self.0.stack
    }

    /// What this process has counted.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// The kinds it knows.
    pub fn policies(&self) -> &Policies {
        &self.0.policies
    }

    pub(in crate::queue) fn notices(&self) -> &Notices {
        &self.0.notices
    }

    pub(in crate::queue) fn clock(&self) -> &dyn Clock {
        self.0.clock.as_ref()
    }
}
