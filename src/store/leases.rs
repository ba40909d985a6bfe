//! Statements about claimed jobs: taking them, ending them, giving them back, keeping and freeing their leases.
//! Refuses to touch a row under any token but its present one.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use sqlx::{
    PgConnection, PgExecutor, Row,
    postgres::{PgRow, types::PgInterval},
};
use uuid::Uuid;

use super::{Error, within};
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

/// What a claim came to.
#[derive(Debug, Default)]
pub struct Claimed {
    /// The jobs taken, in their order.
    pub jobs: Vec<(ClaimedJob, Lease)>,
    /// The endings that found their job, where some did not; `None` when all did.
    pub ended: Option<Vec<JobId>>,
    /// Whether the queue has users, keys or limits, and must be claimed from by turns.
    pub lanes: bool,
    /// What a claim by turns learned.
    pub flow: Option<Flow>,
    /// How long after its time each of the jobs was claimed, in no order.
    pub waited: Vec<Duration>,
}

fn interval(duration: Duration) -> PgInterval {
    PgInterval { months: 0, days: 0, microseconds: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX) }
}

/// Ends the jobs of `endings`, then claims the next ones, in one statement; only those with neither user nor concurrency
/// key, and of a queue with limits none.
pub async fn claim(db: impl PgExecutor<'_>, endings: &[Ending], claim: Claim<'_>) -> Result<Claimed, Error> {
    claim_by(db, endings, claim, None).await
}

/// The same by turns, with all limits.
pub async fn claim_in_turn(
    db: impl PgExecutor<'_>,
    endings: &[Ending],
    claim: Claim<'_>,
    turn: Turn,
) -> Result<Claimed, Error> {
    claim_by(db, endings, claim, Some(turn)).await
}

async fn claim_by(
    db: impl PgExecutor<'_>,
    endings: &[Ending],
    claim: Claim<'_>,
    turn: Option<Turn>,
) -> Result<Claimed, Error> {
    let statement = sqlx::query(include_str!("sql/claim.sql"))
        .bind(claim.queue)
        .bind(claim.limit)
        .bind(claim.worker_id)
        .bind(interval(claim.lease))
        .bind(endings.iter().map(|ending| ending.lease.job_id).collect::<Vec<_>>())
        .bind(endings.iter().map(|ending| ending.lease.token).collect::<Vec<_>>())
        .bind(endings.iter().map(|ending| ending.state.as_str()).collect::<Vec<_>>())
        .bind(endings.iter().map(|ending| ending.result.as_deref()).collect::<Vec<_>>())
        .bind(endings.iter().map(|ending| ending.error.as_deref()).collect::<Vec<_>>())
        .bind(turn.is_some())
        .bind(turn.unwrap_or_default().line)
        .bind(turn.unwrap_or_default().left)
        .bind(turn.unwrap_or_default().allowed);
    let rows = within(statement.fetch_all(db)).await?;
    let ended = rows.first().map(|row| row.try_get("ended")).transpose()?.flatten();
    let lanes = rows.first().map(|row| row.try_get("lanes")).transpose()?.unwrap_or(false);
    let flow = rows.first().map(flow).transpose()?.flatten();
    let (mut jobs, mut waited) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
    for row in &rows {
        if row.try_get::<Option<Uuid>, _>(0)?.is_some() {
            jobs.push(claimed(row)?);
            let (due, begun): (DateTime<Utc>, DateTime<Utc>) = (row.try_get("run_at")?, row.try_get("started_at")?);
            waited.push((begun - due).to_std().unwrap_or_default());
        }
    }
    jobs.sort_unstable_by_key(|(order, ..)| *order);
    let jobs = jobs.into_iter().map(|(_, job, lease)| (job, lease)).collect();
    Ok(Claimed { jobs, ended, lanes, flow, waited })
}

/// What the claim says of its turns; none for a plain claim.
fn flow(row: &PgRow) -> Result<Option<Flow>, Error> {
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

/// Its place in the order, the job, and its lease. Columns by position: this runs for every job there is.
fn claimed(row: &PgRow) -> Result<((i64, i64), ClaimedJob, Lease), Error> {
    let id: JobId = row.try_get(0)?;
    let args: String = row.try_get(5)?;
    let count = |n: i32| u32::try_from(n).unwrap_or(0);
    let last_code: Option<String> = row.try_get(8)?;
    let packed = match row.try_get::<Option<&str>, _>("ties")? {
        Some(text) => serde_json::from_str(text).map_err(|cause| Error::Database(sqlx::Error::Decode(cause.into())))?,
        None => Packed::default(),
    };
    let job = ClaimedJob {
        id,
        kind: row.try_get(2)?,
        user_id: row.try_get(3)?,
        app_id: row.try_get::<Option<&str>, _>(4)?.and_then(|app_id| app_id.parse::<AppId>().ok()),
        args: RawValue::from_string(args).map_err(|cause| Error::Database(sqlx::Error::Decode(cause.into())))?,
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

/// Renews the leases; gives the ids of the jobs whose lease still held.
pub async fn renew(db: impl PgExecutor<'_>, leases: &[Lease], length: Duration) -> Result<Vec<JobId>, Error> {
    let statement = sqlx::query_scalar(include_str!("sql/renew.sql"))
        .bind(leases.iter().map(|lease| lease.job_id).collect::<Vec<_>>())
        .bind(leases.iter().map(|lease| lease.token).collect::<Vec<_>>())
        .bind(interval(length));
    within(statement.fetch_all(db)).await
}

/// The server's real time and when it started: by these the reaper knows that Postgres was away.
pub async fn pulse(db: impl PgExecutor<'_>) -> Result<(DateTime<Utc>, DateTime<Utc>), Error> {
    let statement = sqlx::query_as("select clock_timestamp(), pg_postmaster_start_time()");
    within(statement.fetch_one(db)).await
}

/// At most `limit` leases that have run out, longest ago first, each with its order. Nothing when more than `patience` has
/// passed on the server since `pulse`: then the answer would come out of a stall, ahead of the holders' renewals.
/// Rides on `jobs_running_idx`.
pub async fn expired(
    db: impl PgExecutor<'_>,
    pulse: DateTime<Utc>,
    patience: Duration,
    limit: i64,
) -> Result<Vec<Lease>, Error> {
    let statement = sqlx::query_as::<_, (JobId, LeaseToken)>(
        "select id, lease_token from krilin.jobs
         where state = 'running' and lease_until < krilin.now() and clock_timestamp() < $1 + $2
         order by lease_until
         limit $3",
    );
    let rows = within(statement.bind(pulse).bind(interval(patience)).bind(limit).fetch_all(db)).await?;
    Ok(rows.into_iter().map(|(job_id, token)| Lease { job_id, token }).collect())
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
