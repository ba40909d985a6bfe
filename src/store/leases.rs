//! Statements about claimed jobs: taking them, ending them, giving them back, keeping and freeing their leases.
//! Refuses to touch a row under any token but its present one.

use std::{mem, time::Duration};

use chrono::{DateTime, Utc};
use futures::{Stream, TryStreamExt};
use serde_json::value::RawValue;
use sqlx::{
    PgConnection, PgExecutor, Row,
    postgres::{PgArguments, PgRow, types::PgInterval},
};
use uuid::Uuid;

use super::{Error, eventually, within};
use crate::model::{
    error::{Code, CtxError},
    id::{AppId, JobId, LeaseToken, WorkerId},
    job::{ClaimedJob, Lease, State, Stop, StopReason, Ties, Tries, When},
};

/// How a job ends: done, dead or cancelled, with what it leaves behind as JSON text.
#[derive(Debug, Clone)]
pub struct Ending {
    /// Whose job.
    pub lease: Lease,
    /// One of the final states.
    pub state: State,
    /// The result.
    pub result: Option<String>,
    /// The error.
    pub error: Option<String>,
}

/// How a job becomes pending again.
#[derive(Debug, Clone)]
pub struct PutBack {
    /// Whose job.
    pub lease: Lease,
    /// The time until it is ready; none for "as if never claimed".
    pub wait: Option<Duration>,
    /// Whether the attempt counts.
    pub spent: bool,
    /// `failed` or `snoozed` for the attempts table; none writes no row.
    pub outcome: Option<&'static str>,
    /// The error as JSON text.
    pub error: Option<String>,
}

/// For whom and how much to claim.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The lane.
    pub queue: &'a str,
    /// At most so many.
    pub limit: i64,
    /// Who holds the leases.
    pub worker_id: WorkerId,
    /// How long they last unrenewed.
    pub lease: Duration,
}

/// Whose turn it is in a queue with users, concurrency keys or limits, as the claim before told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Turn {
    /// The user; nil stands for jobs without one.
    pub line: Uuid,
    /// How many places they have left of their turn.
    pub left: i32,
    /// What a rate that this worker keeps by itself allows just now, in units.
    pub allowed: Option<i64>,
}

/// What a claim by turns learned.
#[derive(Debug, Clone, Default)]
pub struct Flow {
    /// For the next claim.
    pub turn: Turn,
    /// How many jobs were picked; one that changed in the same moment is left for the next claim.
    pub picked: usize,
    /// Whether there may be more to take.
    pub more: bool,
    /// Whether something ready waits for a limit.
    pub held: bool,
    /// What was taken of a rate that this worker keeps by itself, in units.
    pub spent: i64,
    /// This worker's share of that rate: units, and the seconds of its period.
    pub share: Option<(f64, f64)>,
}

/// Where a job stands in its queue: rank and seq.
pub type Place = (i64, i64);

/// What a claim came to.
#[derive(Debug, Default)]
pub struct Claimed {
    /// The jobs taken, in their order.
    pub jobs: Vec<(ClaimedJob, Lease)>,
    /// Where the last of them stood, at most where a job without a priority stands that was asked for just then.
    pub last: Option<Place>,
    /// The endings that found their job, where some did not; `None` when all did.
    pub ended: Option<Vec<JobId>>,
    /// Whether the queue has users, keys or limits, and must be claimed from by turns; none where nobody looked.
    pub lanes: Option<bool>,
    /// What a claim by turns learned.
    pub flow: Option<Flow>,
    /// How long after its time each of the jobs was claimed, in no order.
    pub waited: Vec<Duration>,
}

fn interval(duration: Duration) -> PgInterval {
    PgInterval { months: 0, days: 0, microseconds: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX) }
}

/// Ends the jobs of `endings`; gives the ids of those that were found, where some were not, and `None` when all were.
pub async fn end(db: impl PgExecutor<'_>, endings: &[Ending]) -> Result<Option<Vec<JobId>>, Error> {
    let statement = with_endings(sqlx::query(include_str!("sql/end.sql")), endings);
    let row = within(statement.fetch_one(db)).await?;
    Ok(row.try_get(0)?)
}

/// Claims the next jobs: only those with neither user nor concurrency key, and of a queue with limits none. Looks
/// only at what stands behind `after`. Like all claims it waits for its answer as long as it takes, for jobs may be its
/// holder's by then; whoever waits less for it must keep it going.
pub async fn claim(db: impl PgExecutor<'_>, claim: Claim<'_>, after: Option<Place>) -> Result<Claimed, Error> {
    const STATEMENT: &str = concat!(
        "-- claim, with a look at what it leaves\nwith claimed as (\n",
        include_str!("sql/claim.sql"),
        ")\n",
        include_str!("sql/claim_look.sql")
    );
    plain(db, STATEMENT, claim, after).await
}

/// The same without a look at whether the queue must be claimed from by turns: cheaper where many are taken.
pub async fn claim_on(db: impl PgExecutor<'_>, claim: Claim<'_>, after: Option<Place>) -> Result<Claimed, Error> {
    plain(db, include_str!("sql/claim.sql"), claim, after).await
}

async fn plain(
    db: impl PgExecutor<'_>,
    statement: &'static str,
    claim: Claim<'_>,
    after: Option<Place>,
) -> Result<Claimed, Error> {
    let (rank, seq) = after.unwrap_or((i64::MIN, i64::MIN));
    let statement = with_claim(sqlx::query(statement), claim).bind(rank).bind(seq);
    eventually(gather(statement.fetch(db))).await
}

/// Ends the jobs of `endings`, then claims the next ones by turns, with all limits, in one statement.
pub async fn claim_in_turn(
    db: impl PgExecutor<'_>,
    endings: &[Ending],
    claim: Claim<'_>,
    turn: Turn,
) -> Result<Claimed, Error> {
    let statement = with_claim(sqlx::query(include_str!("sql/claim_in_turn.sql")), claim);
    let statement = with_endings(statement, endings).bind(turn.line).bind(turn.left).bind(turn.allowed);
    eventually(gather(statement.fetch(db))).await
}

type Statement<'q> = sqlx::query::Query<'q, sqlx::Postgres, PgArguments>;

fn with_claim<'q>(statement: Statement<'q>, claim: Claim<'q>) -> Statement<'q> {
    statement.bind(claim.queue).bind(claim.limit).bind(claim.worker_id).bind(interval(claim.lease))
}

/// The lists that `end.sql` takes. Most batches are done without results: what is alike in all of them stays empty.
fn with_endings<'q>(statement: Statement<'q>, endings: &'q [Ending]) -> Statement<'q> {
    fn unless_alike<T: PartialEq>(alike: &T, all: Vec<T>) -> Vec<T> {
        if all.iter().all(|one| one == alike) { Vec::new() } else { all }
    }
    let texts = |part: fn(&Ending) -> Option<&str>| unless_alike(&None, endings.iter().map(part).collect());
    statement
        .bind(endings.iter().map(|ending| ending.lease.job_id).collect::<Vec<_>>())
        .bind(endings.iter().map(|ending| ending.lease.token).collect::<Vec<_>>())
        .bind(unless_alike(&State::Done.as_str(), endings.iter().map(|ending| ending.state.as_str()).collect()))
        .bind(texts(|ending| ending.result.as_deref()))
        .bind(texts(|ending| ending.error.as_deref()))
}

/// Reads what a claim came to. What is not of a single job stands in every row alike.
async fn gather(mut rows: impl Stream<Item = Result<PgRow, sqlx::Error>> + Unpin) -> Result<Claimed, sqlx::Error> {
    let mut claimed = Claimed::default();
    let mut jobs = Vec::new();
    let mut first = true;
    while let Some(row) = rows.try_next().await? {
        if mem::take(&mut first) && row.len() > LANES {
            claimed.lanes = row.try_get(LANES)?;
            if row.len() > LANES + 1 {
                claimed.ended = row.try_get(LANES + 1)?;
                claimed.flow = flow(&row)?;
            }
        }
        if row.try_get::<Option<Uuid>, _>(0)?.is_some() {
            let (due, begun): (DateTime<Utc>, DateTime<Utc>) = (row.try_get(16)?, row.try_get(17)?);
            claimed.waited.push((begun - due).to_std().unwrap_or_default());
            let job = job(&row)?;
            claimed.last = claimed.last.max(Some(job.0.min((begun.timestamp_millis(), i64::MIN))));
            jobs.push(job);
        }
    }
    jobs.sort_unstable_by_key(|(order, ..)| *order);
    claimed.jobs = jobs.into_iter().map(|(_, job, lease)| (job, lease)).collect();
    Ok(claimed)
}

/// What the claim says of its turns.
fn flow(row: &PgRow) -> Result<Option<Flow>, sqlx::Error> {
    let Some(picked) = row.try_get::<Option<i32>, _>("picked")? else { return Ok(None) };
    let share: Option<f64> = row.try_get("share")?;
    let period: Option<PgInterval> = row.try_get("share_period")?;
    #[expect(clippy::cast_precision_loss, reason = "microseconds of at most a month")]
    let seconds = period.map(|period| period.microseconds as f64 / 1e6);
    Ok(Some(Flow {
        turn: Turn { line: row.try_get("next_turn")?, left: row.try_get("next_left")?, allowed: None },
        picked: usize::try_from(picked).unwrap_or(0),
        more: row.try_get("more")?,
        held: row.try_get("held")?,
        spent: row.try_get("units_taken")?,
        share: share.zip(seconds),
    }))
}

/// What few jobs have, as the claim packs it.
#[derive(Default, serde::Deserialize)]
struct Packed {
    snoozes: u32,
    stop_reason: Option<StopReason>,
    stop_ms: Option<i64>,
    parent_id: Option<JobId>,
    children: Option<When>,
}

impl Packed {
    fn ties(&self) -> Ties {
        let left = Duration::from_millis(u64::try_from(self.stop_ms.unwrap_or(0)).unwrap_or(0));
        let stop = self.stop_reason.map(|reason| Stop { reason, left });
        Ties { stop, parent_id: self.parent_id, children: self.children }
    }
}

/// The first column of a claim that is not of its row's job.
const LANES: usize = 19;

/// Its place in the order, the job, and its lease. Columns by position: this runs for every job there is.
fn job(row: &PgRow) -> Result<(Place, ClaimedJob, Lease), sqlx::Error> {
    let id: JobId = row.try_get(0)?;
    let args: String = row.try_get(5)?;
    let count = |n: i32| u32::try_from(n).unwrap_or(0);
    let last_code: Option<String> = row.try_get(8)?;
    let packed = match row.try_get::<Option<&str>, _>(18)? {
        Some(text) => serde_json::from_str(text).map_err(|cause| sqlx::Error::Decode(cause.into()))?,
        None => Packed::default(),
    };
    let job = ClaimedJob {
        id,
        kind: row.try_get(2)?,
        user_id: row.try_get(3)?,
        app_id: row.try_get::<Option<&str>, _>(4)?.and_then(|app_id| app_id.parse::<AppId>().ok()),
        args: RawValue::from_string(args).map_err(|cause| sqlx::Error::Decode(cause.into()))?,
        tries: Tries {
            attempt: count(row.try_get(6)?),
            max_attempts: count(row.try_get(7)?),
            last_code: last_code.and_then(|code| Code::ALL.iter().copied().find(|known| known.as_str() == code)),
            snoozes: packed.snoozes,
        },
        created_at: row.try_get(9)?,
        due_at: row.try_get(10)?,
        trace_parent: row.try_get(11)?,
        cause: row.try_get(12)?,
        awaited: row.try_get(13)?,
        ties: packed.ties(),
    };
    let order = (row.try_get(14)?, row.try_get(15)?);
    Ok((order, job, Lease { job_id: id, token: row.try_get(1)? }))
}

/// Makes the jobs pending again; gives the ids of those that still were under their lease.
pub async fn put_back(db: impl PgExecutor<'_>, jobs: &[PutBack]) -> Result<Vec<JobId>, Error> {
    let millis = |wait: Duration| i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
    let statement = sqlx::query_scalar(include_str!("sql/put_back.sql"))
        .bind(jobs.iter().map(|job| job.lease.job_id).collect::<Vec<_>>())
        .bind(jobs.iter().map(|job| job.lease.token).collect::<Vec<_>>())
        .bind(jobs.iter().map(|job| job.wait.map(millis)).collect::<Vec<_>>())
        .bind(jobs.iter().map(|job| job.spent).collect::<Vec<_>>())
        .bind(jobs.iter().map(|job| job.outcome).collect::<Vec<_>>())
        .bind(jobs.iter().map(|job| job.error.as_deref()).collect::<Vec<_>>());
    within(statement.fetch_all(db)).await
}

/// Renews the leases; gives those that still held.
pub async fn renew(db: impl PgExecutor<'_>, leases: &[Lease], length: Duration) -> Result<Vec<Lease>, Error> {
    let statement = sqlx::query_as::<_, (JobId, LeaseToken)>(include_str!("sql/renew.sql"))
        .bind(leases.iter().map(|lease| lease.job_id).collect::<Vec<_>>())
        .bind(leases.iter().map(|lease| lease.token).collect::<Vec<_>>())
        .bind(interval(length));
    let rows = within(statement.fetch_all(db)).await?;
    Ok(rows.into_iter().map(Lease::from).collect())
}

/// The server's real time and when it started: by these the reaper knows that Postgres was away.
pub async fn pulse(db: impl PgExecutor<'_>) -> Result<(DateTime<Utc>, DateTime<Utc>), Error> {
    let statement = sqlx::query_as("select clock_timestamp(), pg_postmaster_start_time()");
    within(statement.fetch_one(db)).await
}

/// At most `limit` leases that have run out, since `from` where that is given, longest ago first. Nothing when more than
/// `patience` has passed on the server since `pulse`: then the answer would come out of a stall, ahead of the holders'
/// renewals.
/// Rides on `jobs_running_idx`.
pub async fn expired(
    db: impl PgExecutor<'_>,
    from: Option<DateTime<Utc>>,
    (pulse, patience): (DateTime<Utc>, Duration),
    limit: i64,
) -> Result<Vec<Lease>, Error> {
    let statement = sqlx::query_as::<_, (JobId, LeaseToken)>(
        "select id, lease_token from krilin.jobs
         where state = 'running' and lease_until < krilin.now() and lease_until >= coalesce($4, '-infinity')
             and clock_timestamp() < $1 + $2
         order by lease_until
         limit $3",
    );
    let rows = within(statement.bind(pulse).bind(interval(patience)).bind(limit).bind(from).fetch_all(db)).await?;
    Ok(rows.into_iter().map(Lease::from).collect())
}

/// A job that the reaper freed.
#[derive(Debug, Clone)]
pub struct Reaped {
    /// The job.
    pub id: JobId,
    /// Its lane.
    pub queue: String,
    /// Whether it had no attempt left.
    pub dead: bool,
    /// Whether somebody must be told that it is dead.
    pub awaited: bool,
}

/// Frees those of `leases` that are still expired. `error` is what a job that is dead by this leaves behind.
pub async fn reap(db: impl PgExecutor<'_>, leases: &[Lease], error: &CtxError) -> Result<Vec<Reaped>, Error> {
    let statement = sqlx::query_as::<_, (JobId, String, bool, bool)>(include_str!("sql/reap.sql"))
        .bind(leases.iter().map(|lease| lease.job_id).collect::<Vec<_>>())
        .bind(leases.iter().map(|lease| lease.token).collect::<Vec<_>>())
        .bind(sqlx::types::Json(error));
    let rows = within(statement.fetch_all(db)).await?;
    Ok(rows.into_iter().map(|(id, queue, dead, awaited)| Reaped { id, queue, dead, awaited }).collect())
}

/// Ends the job of `lease` as done, in the transaction open on `db`. [`Error::StaleLease`] when the lease is not the
/// job's present one: roll back.
pub async fn complete(db: &mut PgConnection, lease: &Lease, result: Option<&RawValue>) -> Result<(), Error> {
    let statement = sqlx::query(include_str!("sql/complete.sql"))
        .bind(lease.job_id)
        .bind(lease.token)
        .bind(result.map(RawValue::get));
    match within(statement.execute(db)).await?.rows_affected() {
        0 => Err(Error::StaleLease),
        _ => Ok(()),
    }
}
