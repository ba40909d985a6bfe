//! Makes jobs durable. Callers that enqueue at the same time share one insert and one commit, and each waits for it.
//! Refuses an unknown kind, arguments that are too large, a key that stands for another request, and more waiting callers
//! than [`BACKLOG`].

use std::sync::Arc;

use sqlx::{PgConnection, PgPool};
use tokio::sync::{mpsc, oneshot};

use super::{Error, metrics::Metrics, notify::Notices};
use crate::{
    model::{
        clock::Clock,
        id::JobId,
        job::{Enqueued, NewJob},
        policy::{MAX_ATTEMPTS_LIMIT, Policies},
    },
    store::{
        self,
        enqueue::{self, NewRow},
    },
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
/// Inserts in flight at once. Two: one waits for the disk while the next is prepared.
const INSERTS_AT_ONCE: usize = 2;
/// How often a unique key is looked up whose job ends at the same moment.
const UNIQUE_TRIES: usize = 5;

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
    pool: PgPool,
    notices: Notices,
    metrics: Metrics,
}

impl Enqueuer {
    pub(super) fn new(pool: &PgPool, clock: Arc<dyn Clock>, policies: Policies, parts: (Notices, Metrics)) -> Self {
        let (callers, inbox) = mpsc::channel(BACKLOG);
        let inbox = Arc::new(tokio::sync::Mutex::new(inbox));
        let inserter = Inserter { pool: pool.clone(), notices: parts.0, metrics: parts.1 };
        for _ in 0..INSERTS_AT_ONCE {
            tokio::spawn(coalesce(inbox.clone(), inserter.clone()));
        }
        Self { clock, policies, callers, inserter }
    }

    /// One job; the insert may be shared with other callers'.
    pub(super) async fn one(&self, job: NewJob) -> Result<Enqueued, Error> {
        let row = self.row(job)?;
        let (answer, answered) = oneshot::channel();
        self.callers.try_send(Caller { row, answer }).map_err(|_| Error::Busy)?;
        answered.await.map_err(|_| Error::Busy)?
    }

    /// Many jobs, all or none.
    pub(super) async fn many(&self, jobs: Vec<NewJob>) -> Result<Vec<Enqueued>, Error> {
        if jobs.len() > INSERT_MAX {
            return Err(Error::TooMany(jobs.len()));
        }
        let rows: Vec<_> = jobs.into_iter().map(|job| self.row(job)).collect::<Result<_, _>>()?;
        let done = self.inserter.all(&rows).await?;
        self.inserter.announce(&rows, &done);
        Ok(done)
    }

    fn row(&self, job: NewJob) -> Result<NewRow, Error> {
        let Some(policy) = self.policies.get(&job.kind) else { return Err(Error::UnknownKind(job.kind)) };
        let args = serde_json::to_string(&job.args).map_err(|cause| Error::Unfit(cause.to_string()))?;
        if args.len() > ARGS_MAX_BYTES {
            return Err(Error::Unfit(format!("the arguments have {} bytes; {ARGS_MAX_BYTES} are allowed", args.len())));
        }
        let key_lengths = [job.unique_key.as_deref(), job.idempotency.as_ref().map(|given| given.key.as_str())];
        if key_lengths.into_iter().flatten().any(|key| key.is_empty() || key.len() > KEY_MAX_BYTES) {
            return Err(Error::Unfit(format!("a key has 1 to {KEY_MAX_BYTES} bytes")));
        }
        let max_attempts = job.max_attempts.unwrap_or(policy.max_attempts);
        if !(1..=MAX_ATTEMPTS_LIMIT).contains(&max_attempts) {
            return Err(Error::Unfit(format!("max_attempts is from 1 to {MAX_ATTEMPTS_LIMIT}, not {max_attempts}")));
        }
        Ok(NewRow {
            id: JobId::new(self.clock.as_ref()),
            user_id: job.user_id,
            app_id: job.app_id,
            queue: policy.queue.clone(),
            kind: job.kind,
            args,
            priority: job.priority.unwrap_or(policy.priority),
            max_attempts: i32::try_from(max_attempts).expect("at most a hundred"),
            run_at: job.run_at,
            cause: job.cause,
            trace_parent: job.trace_parent,
            awaited: job.awaited,
            unique_key: job.unique_key,
            idempotency: job.idempotency,
        })
    }
}

/// Takes what waits, inserts it, answers; until the last [`Enqueuer`] is gone.
async fn coalesce(inbox: Arc<tokio::sync::Mutex<mpsc::Receiver<Caller>>>, inserter: Inserter) {
    let mut callers = Vec::with_capacity(COALESCE_MAX);
    loop {
        if inbox.lock().await.recv_many(&mut callers, COALESCE_MAX).await == 0 {
            return;
        }
        let (keyed, plain): (Vec<_>, Vec<_>) = callers.drain(..).partition(|caller| caller.row.is_keyed());
        Box::pin(futures::future::join(inserter.plain(plain), inserter.keyed(keyed))).await;
    }
}

impl Inserter {
    /// All of them in one insert; when that fails for what is in it, each alone, so that one bad row spoils no other's.
    async fn plain(&self, callers: Vec<Caller>) {
        let rows: Vec<&NewRow> = callers.iter().map(|caller| &caller.row).collect();
        if rows.is_empty() {
            return;
        }
        match enqueue::insert(&self.pool, &rows).await {
            Ok(()) => {
                self.metrics.enqueued(rows.len());
                let due_now = rows.iter().filter(|row| row.run_at.is_none());
                self.notices.ready(due_now.map(|row| row.queue.as_str()));
                for caller in callers {
                    let job_id = caller.row.id;
                    let _ = caller.answer.send(Ok(Enqueued { job_id, created: true }));
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

    /// In one transaction; when that fails, each in one of its own. A key that stands for another request is the error of
    /// its caller alone.
    async fn keyed(&self, callers: Vec<Caller>) {
        if callers.is_empty() {
            return;
        }
        let (rows, answers): (Vec<_>, Vec<_>) = callers.into_iter().map(|caller| (caller.row, caller.answer)).unzip();
        let answered = match self.each(&rows).await {
            Err(error) if error.is_of_the_row() => {
                let mut alone = Vec::with_capacity(rows.len());
                for row in &rows {
                    alone.push(match self.each(std::slice::from_ref(row)).await {
                        Ok(mut one) => one.remove(0),
                        Err(error) => Err(error.into()),
                    });
                }
                alone
            }
            Err(error) => rows.iter().map(|_| Err(shared(&error))).collect(),
            Ok(each) => each,
        };
        for ((row, answer), done) in rows.iter().zip(answers).zip(answered) {
            if let Ok(done) = done {
                self.announce(std::slice::from_ref(row), &[done]);
            }
            let _ = answer.send(done);
        }
    }

    /// Each with a result of its own, in one transaction. An error is the database's, and then none is inserted.
    async fn each(&self, rows: &[NewRow]) -> Result<Vec<Result<Enqueued, Error>>, store::Error> {
        let mut tx = store::within(self.pool.begin()).await?;
        let mut each = Vec::with_capacity(rows.len());
        for row in rows {
            each.push(insert_one(&mut tx, row).await?.ok_or(Error::KeyReused));
        }
        store::within(tx.commit()).await?;
        Ok(each)
    }

    /// All or none.
    async fn all(&self, rows: &[NewRow]) -> Result<Vec<Enqueued>, Error> {
        if rows.iter().all(|row| !row.is_keyed()) {
            enqueue::insert(&self.pool, &rows.iter().collect::<Vec<_>>()).await?;
            return Ok(rows.iter().map(|row| Enqueued { job_id: row.id, created: true }).collect());
        }
        let mut tx = store::within(self.pool.begin()).await?;
        let mut done = Vec::with_capacity(rows.len());
        for row in rows {
            done.push(insert_one(&mut tx, row).await?.ok_or(Error::KeyReused)?);
        }
        store::within(tx.commit()).await?;
        Ok(done)
    }

    fn announce(&self, rows: &[NewRow], done: &[Enqueued]) {
        let made = rows.iter().zip(done).filter(|(_, done)| done.created);
        self.metrics.enqueued(made.clone().count());
        let due_now = made.filter(|(row, _)| row.run_at.is_none());
        self.notices.ready(due_now.map(|(row, _)| row.queue.as_str()));
    }
}

/// What each of the callers is told whose insert failed as one.
fn shared(error: &store::Error) -> Error {
    store::Error::Unavailable(error.to_string()).into()
}

/// One row in the transaction open on `db`: the new job, or the one that has its key; none when the idempotency key stands
/// for another request.
async fn insert_one(db: &mut PgConnection, row: &NewRow) -> Result<Option<Enqueued>, store::Error> {
    if !row.is_keyed() {
        enqueue::insert(&mut *db, &[row]).await?;
        return Ok(Some(Enqueued { job_id: row.id, created: true }));
    }
    for _ in 0..UNIQUE_TRIES {
        if enqueue::insert_keyed(&mut *db, row).await? {
            return Ok(Some(Enqueued { job_id: row.id, created: true }));
        }
        if let Some(given) = &row.idempotency
            && let Some((hash, job_id)) = enqueue::find_record(&mut *db, row.user_id, &given.key).await?
        {
            if hash != given.request_hash {
                return Ok(None);
            }
            // Our own record: only the unique key was taken.
            if job_id != row.id {
                return Ok(Some(Enqueued { job_id, created: false }));
            }
        }
        let Some(unique_key) = &row.unique_key else { continue };
        if let Some(job_id) = enqueue::find_unique(&mut *db, unique_key).await? {
            if let Some(given) = &row.idempotency {
                enqueue::point_record(&mut *db, row.user_id, &given.key, job_id).await?;
            }
            return Ok(Some(Enqueued { job_id, created: false }));
        }
        // The job that had the key ended in between.
        if let Some(given) = &row.idempotency {
            enqueue::drop_record(&mut *db, row.user_id, &given.key, row.id).await?;
        }
    }
    Err(store::Error::Serialization("the job with this unique key came and went".to_owned()))
}
