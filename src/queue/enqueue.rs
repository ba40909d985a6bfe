//! Makes jobs durable. Callers that enqueue at the same time share one insert and one commit, and each waits for it.
//! Refuses an unknown kind, arguments that are too large, a key that stands for another request, and more waiting callers
//! than [`BACKLOG`].

use std::{collections::BTreeSet, mem, sync::Arc, time::Duration};

use sqlx::PgConnection;
use tokio::sync::{mpsc, oneshot};

use super::{
    Error,
    fit::wrong,
    gather::{Gather, TRIPS},
    metrics::Metrics,
    notify::Notices,
    place::{due, place_all, tie_all, with_all_below},
};
use crate::{
    model::{
        clock::Clock,
        duration,
        id::JobId,
        job::{Deadline, Enqueued, NewJob},
        policy::{Policies, Policy},
    },
    store::{
        self, Stack,
        copy::copy,
        enqueue::{self, NewRow, Refused, RowTies},
    },
    telemetry,
};

/// The most callers that wait for the insert before theirs.
const BACKLOG: usize = 10_000;
/// The most jobs one insert takes, from many callers or from one.
pub const INSERT_MAX: usize = 10_000;
/// The most single enqueues that share one insert.
const COALESCE_MAX: usize = 1_000;
/// The largest arguments, in bytes of JSON.
pub const ARGS_MAX_BYTES: usize = 256 * 1024;
/// The longest unique or idempotency key, in bytes.
pub const KEY_MAX_BYTES: usize = 255;
/// How deep children of children go.
const CHILDREN_DEPTH_MAX: usize = 4;
/// How often a batch is tried that met another one over the same keys.
const MEETINGS_MAX: usize = 3;
/// The shortest period of a unique key.
pub const PERIOD_MIN: Duration = Duration::from_secs(1);
/// The longest period, delay or `max_wait`.
pub const WAIT_LONGEST: Duration = duration::LONGEST;

struct Caller {
    row: NewRow,
    answer: oneshot::Sender<Result<Enqueued, Error>>,
}

/// Turns what callers want into rows, and rows into commits. Cheap to clone.
#[derive(Clone)]
pub(super) struct Enqueuer {
    clock: Arc<dyn Clock>,
    policies: Policies,
    callers: mpsc::Sender<Caller>,
    inserter: Inserter,
}

#[derive(Clone)]
struct Inserter {
    stack: Stack,
    /// Commits here do not wait for the disk.
    relaxed: Stack,
    notices: Notices,
    metrics: Metrics,
}

impl Enqueuer {
    pub(super) fn new(stack: &Stack, clock: Arc<dyn Clock>, policies: Policies, parts: (Notices, Metrics)) -> Self {
        let (callers, inbox) = mpsc::channel(BACKLOG);
        let gather = Gather::new(inbox);
        let trips = u32::try_from(TRIPS).expect("a few");
        let relaxed = Stack::over(&store::beside(stack.pool(), trips, &store::RELAXED));
        parts.1.watch_pool("awaited", &relaxed);
        let inserter = Inserter { stack: stack.clone(), relaxed, notices: parts.0, metrics: parts.1 };
        for _ in 0..TRIPS {
            tokio::spawn(coalesce(gather.clone(), inserter.clone()));
        }
        Self { clock, policies, callers, inserter }
    }

    /// One job; the insert may be shared with other callers'.
    pub(super) async fn one(&self, job: NewJob) -> Result<Enqueued, Error> {
        if self.is_tied(&job) {
            let mut done = self.many(vec![job]).await?;
            return Ok(done.remove(0));
        }
        let row = self.row(job)?;
        let (answer, answered) = oneshot::channel();
        self.callers.try_send(Caller { row, answer }).map_err(|_| Error::Busy)?;
        answered.await.map_err(|_| Error::Busy)?
    }

    /// Many jobs, all or none.
    pub(super) async fn many(&self, jobs: Vec<NewJob>) -> Result<Vec<Enqueued>, Error> {
        if (enqueue::COPY_MIN..=INSERT_MAX).contains(&jobs.len()) && jobs.iter().all(|job| self.is_alone(job)) {
            return self.stream(jobs).await;
        }
        let rows = self.rows(jobs)?;
        let done = self.inserter.all(&rows).await?;
        self.inserter.announce(&rows, &done);
        Ok(done)
    }

    /// Many jobs with neither keys nor ties, all or none; each is made a row while Postgres takes in those before it.
    async fn stream(&self, jobs: Vec<NewJob>) -> Result<Vec<Enqueued>, Error> {
        jobs.iter().try_for_each(|job| self.policy_for(job).map(drop))?;
        let (mut done, mut queues) = (Vec::with_capacity(jobs.len()), BTreeSet::new());
        let rows = jobs.into_iter().map(|job| {
            let row = self.row(job)?;
            done.push(Enqueued::new(row.id));
            if row.is_due() && !queues.contains(&row.queue) {
                queues.insert(row.queue.clone());
            }
            Ok::<_, Error>(row)
        });
        let mut db = self.inserter.stack.take().await?;
        let copied = copy(&mut db, rows).await;
        db.after(copied)??;
        self.inserter.metrics.enqueued(done.len());
        self.inserter.notices.ready(queues.iter().map(String::as_str));
        Ok(done)
    }

    /// Many jobs in one commit, each with an answer of its own.
    pub(super) async fn each(&self, jobs: Vec<NewJob>) -> Result<Vec<Result<Enqueued, Error>>, Error> {
        let checked: Vec<Result<NewRow, Error>> = jobs.into_iter().map(|job| self.tree(job, 0)).collect();
        let count = checked.iter().flatten().map(|row| 1 + row.ties.below.len()).sum();
        if count > INSERT_MAX {
            return Err(Error::TooMany(count));
        }
        let fit: Vec<&NewRow> = checked.iter().flatten().collect();
        let mut placed = self.inserter.place(&fit).await?.into_iter();
        let answers = checked.into_iter().map(|row| {
            let row = row?;
            let done = placed.next().expect("each row has an answer")?;
            self.inserter.announce(std::slice::from_ref(&row), std::slice::from_ref(&done));
            Ok(done)
        });
        Ok(answers.collect())
    }

    /// Many jobs in the caller's transaction on `db`.
    pub(super) async fn within(&self, db: &mut PgConnection, jobs: Vec<NewJob>) -> Result<Uncommitted, Error> {
        let rows = self.rows(jobs)?;
        let jobs = place_all(db, &rows).await?;
        let queues = due(&rows, &jobs).map(ToOwned::to_owned).collect();
        Ok(Uncommitted { queues, jobs, inserter: self.inserter.clone() })
    }

    fn rows(&self, jobs: Vec<NewJob>) -> Result<Vec<NewRow>, Error> {
        let rows = jobs.into_iter().map(|job| self.tree(job, 0)).collect::<Result<Vec<_>, _>>()?;
        let count = rows.iter().map(|row| 1 + row.ties.below.len()).sum();
        if count > INSERT_MAX { Err(Error::TooMany(count)) } else { Ok(rows) }
    }

    fn is_tied(&self, job: &NewJob) -> bool {
        !job.children.is_empty() || job.deadline.is_some() || self.deadline_of(&job.kind).is_some()
    }

    /// Whether it has neither a key nor ties.
    fn is_alone(&self, job: &NewJob) -> bool {
        job.unique.is_none() && job.idempotency.is_none() && !self.is_tied(job)
    }

    fn deadline_of(&self, kind: &str) -> Option<Deadline> {
        self.policies.get(kind)?.deadline.map(|length| Deadline::Within(length.0))
    }

    /// A job with everything below it.
    fn tree(&self, mut job: NewJob, depth: usize) -> Result<NewRow, Error> {
        let (children, when) = (mem::take(&mut job.children), job.when);
        if depth > 0 && (job.unique.is_some() || job.idempotency.is_some()) {
            return Err(Error::Unfit("a child has neither a unique nor an idempotency key".to_owned()));
        }
        if depth == CHILDREN_DEPTH_MAX && !children.is_empty() {
            return Err(Error::Unfit(format!("children of children go {CHILDREN_DEPTH_MAX} deep at most")));
        }
        let mut row = self.row(job)?;
        row.ties.children = (!children.is_empty()).then_some(when);
        for child in children {
            let mut child = self.tree(child, depth + 1)?;
            child.ties.parent_id = Some(row.id);
            let below = mem::take(&mut child.ties.below);
            row.ties.below.push(child);
            row.ties.below.extend(below);
        }
        Ok(row)
    }

    /// The policy of the job's kind; an error where the job cannot be taken, whatever its arguments.
    fn policy_for(&self, job: &NewJob) -> Result<&Policy, Error> {
        let policy = self.policies.get(&job.kind).ok_or_else(|| Error::UnknownKind(job.kind.clone()))?;
        wrong(job, policy).map_or(Ok(policy), |wrong| Err(Error::Unfit(wrong)))
    }

    fn row(&self, job: NewJob) -> Result<NewRow, Error> {
        let policy = self.policy_for(&job)?;
        let args = serde_json::to_string(&job.args).map_err(|cause| Error::Unfit(cause.to_string()))?;
        if args.len() > ARGS_MAX_BYTES {
            return Err(Error::Unfit(format!("the arguments have {} bytes; {ARGS_MAX_BYTES} are allowed", args.len())));
        }
        let deadline = job.deadline.or_else(|| self.deadline_of(&job.kind));
        let key = || policy.key(&job.kind, job.user_id, job.app_id.as_ref());
        let concurrency_key = job.concurrency_key.clone().or_else(key);
        let cost = job.cost.map_or(policy.own_cost(), |cost| i32::try_from(cost).ok());
        Ok(NewRow {
            id: JobId::new(self.clock.as_ref()),
            user_id: job.user_id,
            app_id: job.app_id,
            queue: policy.queue.clone(),
            kind: job.kind,
            args,
            priority: job.priority.unwrap_or(policy.priority),
            max_attempts: i32::try_from(job.max_attempts.unwrap_or(policy.max_attempts)).expect("at most a hundred"),
            run_at: job.run_at,
            delay: job.delay,
            cause: job.cause,
            // What is enqueued in the course of a request or a job belongs to its trace.
            trace_parent: job.trace_parent.or_else(|| telemetry::trace::current().map(|trace| trace.to_string())),
            awaited: job.awaited,
            concurrency_key,
            cost,
            unique: job.unique.map(Box::new),
            idempotency: job.idempotency.map(Box::new),
            ties: RowTies { deadline, ..RowTies::default() },
        })
    }
}

/// Jobs in a transaction that is still open. They are there when it commits; [`Self::committed`] then wakes the workers.
/// Where nobody says so, the next poll finds them, within a second.
#[must_use = "call `committed` after the commit, so that the jobs need not wait for the next poll"]
pub struct Uncommitted {
    /// What became of each, in the order given.
    pub jobs: Vec<Enqueued>,
    queues: Vec<String>,
    inserter: Inserter,
}

impl Uncommitted {
    /// The transaction has committed.
    pub fn committed(self) -> Vec<Enqueued> {
        self.inserter.metrics.enqueued(self.jobs.iter().filter(|done| done.created()).count());
        self.inserter.notices.ready(self.queues.iter().map(String::as_str));
        self.jobs
    }
}

/// Takes what waits, inserts it, answers; until the last [`Enqueuer`] is gone.
async fn coalesce(gather: Gather<Caller>, inserter: Inserter) {
    let mut callers = Vec::new();
    while let Some(_trip) = gather.next(&mut callers, COALESCE_MAX).await {
        let (keyed, plain): (Vec<_>, Vec<_>) = callers.drain(..).partition(|caller| caller.row.is_keyed());
        if keyed.is_empty() {
            inserter.plain(plain).await;
        } else {
            Box::pin(futures::future::join(inserter.plain(plain), inserter.keyed(keyed))).await;
        }
    }
}

impl Inserter {
    /// All of them in one insert; when that fails for what is in it, each alone, so that one bad row spoils no other's.
    async fn plain(&self, callers: Vec<Caller>) {
        let rows: Vec<&NewRow> = callers.iter().map(|caller| &caller.row).collect();
        if rows.is_empty() {
            return;
        }
        // Who waits for the end has nothing of the enqueue before it, and what comes later in Postgres' log is on the disk no
        // sooner than what came first.
        let stack = if rows.iter().all(|row| row.awaited) { &self.relaxed } else { &self.stack };
        match insert(stack, &rows).await {
            Ok(()) => {
                self.metrics.enqueued(rows.len());
                let due_now = rows.iter().filter(|row| row.is_due());
                self.notices.ready(due_now.map(|row| row.queue.as_str()));
                for caller in callers {
                    let _ = caller.answer.send(Ok(Enqueued::new(caller.row.id)));
                }
            }
            Err(error) if error.is_of_the_row() => self.keyed(callers).await,
            Err(error) => {
                for caller in callers {
                    let _ = caller.answer.send(Err(shared(&error)));
                }
            }
        }
    }

    /// A key that stands for another request is the error of its caller alone.
    async fn keyed(&self, callers: Vec<Caller>) {
        if callers.is_empty() {
            return;
        }
        let (rows, answers): (Vec<_>, Vec<_>) = callers.into_iter().map(|caller| (caller.row, caller.answer)).unzip();
        let placed = match self.place(&rows.iter().collect::<Vec<_>>()).await {
            Ok(placed) => placed,
            Err(error) => rows.iter().map(|_| Err(shared(&error))).collect(),
        };
        for ((row, answer), placed) in rows.iter().zip(answers).zip(placed) {
            if let Ok(done) = &placed {
                self.announce(std::slice::from_ref(row), std::slice::from_ref(done));
            }
            let _ = answer.send(placed);
        }
    }

    /// In one commit; where Postgres takes one of them ill, each in one of its own. An error is the database's, and then
    /// none is there.
    async fn place(&self, rows: &[&NewRow]) -> Result<Vec<Result<Enqueued, Error>>, store::Error> {
        match self.place_together(rows).await {
            Ok(placed) => Ok(placed.into_iter().map(|placed| placed.map_err(Error::from)).collect()),
            Err(error) if error.is_of_the_row() || matches!(error, store::Error::Serialization(_)) => {
                let mut alone = Vec::with_capacity(rows.len());
                for row in rows {
                    alone.push(match self.place_together(&[row]).await {
                        Ok(mut one) => one.remove(0).map_err(Error::from),
                        Err(error) => Err(error.into()),
                    });
                }
                Ok(alone)
            }
            Err(error) => Err(error),
        }
    }

    async fn place_together(&self, rows: &[&NewRow]) -> Result<Vec<Result<Enqueued, Refused>>, store::Error> {
        if !rows.iter().any(|row| row.is_tied()) {
            let mut db = self.stack.take().await?;
            let placed = enqueue::place(&mut *db, rows).await;
            return db.after(placed);
        }
        let mut tx = self.stack.begin().await?;
        let placed = enqueue::place(&mut *tx, rows).await?;
        let created = rows.iter().zip(&placed).filter(|(_, placed)| placed.as_ref().is_ok_and(Enqueued::created));
        tie_all(&mut tx, &created.map(|(row, _)| *row).collect::<Vec<_>>()).await?;
        tx.commit().await?;
        Ok(placed)
    }

    /// All or none.
    async fn all(&self, rows: &[NewRow]) -> Result<Vec<Enqueued>, Error> {
        if rows.iter().all(|row| !row.is_keyed()) {
            insert(&self.stack, &with_all_below(rows)).await?;
            return Ok(rows.iter().map(|row| Enqueued::new(row.id)).collect());
        }
        let mut meetings = 0;
        loop {
            let mut tx = self.stack.begin().await?;
            match place_all(&mut tx, rows).await {
                Ok(done) => {
                    tx.commit().await?;
                    return Ok(done);
                }
                // Two batches took the same keys in another order, and Postgres let this one go.
                Err(Error::Store(store::Error::Serialization(_))) if meetings < MEETINGS_MAX => meetings += 1,
                Err(error) => return Err(error),
            }
        }
    }

    fn announce(&self, rows: &[NewRow], done: &[Enqueued]) {
        self.metrics.enqueued(done.iter().filter(|done| done.created()).count());
        self.notices.ready(due(rows, done));
    }
}

async fn insert(stack: &Stack, rows: &[&NewRow]) -> Result<(), store::Error> {
    let mut db = stack.take().await?;
    let inserted = enqueue::insert(&mut db, rows).await;
    db.after(inserted)
}

/// What each of the callers is told whose insert failed as one.
fn shared(error: &store::Error) -> Error {
    store::Error::Unavailable(error.to_string()).into()
}
