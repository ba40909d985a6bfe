//! Statements that make jobs, and the kinds as SQL knows them. Refuses nothing about the jobs themselves: the queue has
//! checked them against the policy.

use std::{convert::Infallible, time::Duration};

use chrono::{DateTime, Utc};
use sqlx::{
    PgConnection, PgExecutor, Row,
    postgres::{PgArguments, types::PgInterval},
};

use super::{Error, copy, within};
use crate::model::{
    error::CtxError,
    id::{AppId, JobId, UserId},
    job::{Deadline, Enqueued, Idempotency, OnConflict, Unique, When},
};

/// A job as it is inserted, everything decided. What few have is boxed: ten thousand may lie in a list.
#[derive(Debug, Clone)]
pub struct NewRow {
    /// Its id.
    pub id: JobId,
    /// For whom.
    pub user_id: Option<UserId>,
    /// For which app.
    pub app_id: Option<AppId>,
    /// Its kind.
    pub kind: String,
    /// Its lane.
    pub queue: String,
    /// Its arguments as JSON text.
    pub args: String,
    /// Higher runs sooner.
    pub priority: i16,
    /// Attempts it may have.
    pub max_attempts: i32,
    /// Not before; now where none.
    pub run_at: Option<DateTime<Utc>>,
    /// Not before this long has passed.
    pub delay: Option<Duration>,
    /// What asks.
    pub cause: Option<String>,
    /// W3C traceparent.
    pub trace_parent: Option<String>,
    /// Whether somebody waits for its end.
    pub awaited: bool,
    /// Jobs of its queue with this key run one at a time, unless the queue is set otherwise.
    pub concurrency_key: Option<String>,
    /// Units of a rate, where it is not one.
    pub cost: Option<i32>,
    /// See [`crate::model::job::NewJob::unique`].
    pub unique: Option<Box<Unique>>,
    /// See [`crate::model::job::NewJob::idempotency`].
    pub idempotency: Option<Box<Idempotency>>,
    /// What ties it to a time and to other jobs.
    pub ties: RowTies,
}

/// What ties a new job to a time and to other jobs; nothing for most.
#[derive(Debug, Clone, Default)]
pub struct RowTies {
    /// When it must have ended.
    pub deadline: Option<Deadline>,
    /// The job that waits for it.
    pub parent_id: Option<JobId>,
    /// It waits for children, and this is what it expects of them.
    pub children: Option<When>,
    /// Its children, and theirs.
    pub below: Vec<NewRow>,
}

impl NewRow {
    /// Whether it needs [`place`].
    pub fn is_keyed(&self) -> bool {
        self.unique.is_some() || self.idempotency.is_some()
    }

    /// Whether it has a deadline, a parent or children.
    pub fn is_tied(&self) -> bool {
        self.ties.deadline.is_some() || self.ties.parent_id.is_some() || self.ties.children.is_some()
    }

    /// Whether it differs from `other`, which is plain as it is, in nothing but id and arguments.
    fn is_like(&self, other: &Self) -> bool {
        let Self { user_id, app_id, kind, queue, priority, max_attempts, run_at, delay, .. } = other;
        (&self.kind, &self.queue, self.priority, self.max_attempts) == (kind, queue, *priority, *max_attempts)
            && (&self.user_id, &self.app_id, &self.run_at, &self.delay) == (user_id, app_id, run_at, delay)
            && (&self.cause, &self.trace_parent, self.awaited) == (&other.cause, &other.trace_parent, other.awaited)
            && (&self.concurrency_key, self.cost) == (&other.concurrency_key, other.cost)
    }

    fn stop_at(&self) -> Option<DateTime<Utc>> {
        match self.ties.deadline {
            Some(Deadline::At(at)) => Some(at),
            _ => None,
        }
    }

    fn stop_after(&self) -> Option<PgInterval> {
        match self.ties.deadline {
            Some(Deadline::Within(length)) => Some(interval(length)),
            _ => None,
        }
    }

    /// Whether it may run at once.
    pub fn is_due(&self) -> bool {
        self.run_at.is_none() && self.delay.is_none()
    }
}

/// One part of every row, as an array for `unnest`.
fn all<'r, T>(rows: &[&'r NewRow], part: impl Fn(&'r NewRow) -> T) -> Vec<T> {
    rows.iter().map(|row| part(row)).collect()
}

fn interval(length: Duration) -> PgInterval {
    PgInterval { months: 0, days: 0, microseconds: i64::try_from(length.as_micros()).unwrap_or(i64::MAX) }
}

type Statement<'q> = sqlx::query::Query<'q, sqlx::Postgres, PgArguments>;

/// The statement with rows that differ in nothing but id and arguments, as the first of them has the rest.
fn alike<'q>(rows: &[&'q NewRow], first: &'q NewRow) -> Statement<'q> {
    sqlx::query(include_str!("sql/enqueue_alike.sql"))
        .bind(all(rows, |row| row.id))
        .bind(all(rows, |row| row.args.as_str()))
        .bind(first.user_id)
        .bind(first.app_id.as_ref().map(AppId::as_str))
        .bind(&first.kind)
        .bind(&first.queue)
        .bind(first.priority)
        .bind(first.max_attempts)
        .bind(first.run_at)
        .bind(first.delay.map(interval))
        .bind(&first.cause)
        .bind(&first.trace_parent)
        .bind(first.awaited)
        .bind(&first.concurrency_key)
        .bind(first.cost)
}

/// The statement with what every row has, in the order of the others of `enqueue*.sql`.
fn bound<'q>(sql: &'static str, rows: &[&'q NewRow]) -> Statement<'q> {
    sqlx::query(sql)
        .bind(all(rows, |row| row.id))
        .bind(all(rows, |row| row.user_id))
        .bind(all(rows, |row| row.app_id.as_ref().map(AppId::as_str)))
        .bind(all(rows, |row| row.kind.as_str()))
        .bind(all(rows, |row| row.queue.as_str()))
        .bind(all(rows, |row| row.args.as_str()))
        .bind(all(rows, |row| row.priority))
        .bind(all(rows, |row| row.max_attempts))
        .bind(all(rows, |row| row.run_at))
        .bind(all(rows, |row| row.delay.map(interval)))
        .bind(all(rows, |row| row.cause.as_deref()))
        .bind(all(rows, |row| row.trace_parent.as_deref()))
        .bind(all(rows, |row| row.awaited))
        .bind(all(rows, |row| row.concurrency_key.as_deref()))
        .bind(all(rows, |row| row.cost))
}

/// From this many jobs on a `copy` is less work than an insert, though it asks for the time first and is planned anew: with
/// 500 they are even, with 10,000 it takes a tenth less.
pub const COPY_MIN: usize = 1_000;

/// Inserts `rows`, all or none, without what is below them. None of them may have a key.
pub async fn insert(db: &mut PgConnection, rows: &[&NewRow]) -> Result<(), Error> {
    if rows.iter().any(|row| row.is_tied()) {
        let statement = bound(include_str!("sql/enqueue_tied.sql"), rows)
            .bind(all(rows, |row| row.ties.parent_id))
            .bind(all(rows, |row| row.ties.children.map(When::as_str)))
            .bind(all(rows, NewRow::stop_at))
            .bind(all(rows, NewRow::stop_after));
        within(statement.execute(db)).await?;
        return Ok(());
    }
    if rows.len() >= COPY_MIN {
        let Ok(()) = copy::copy(db, rows.iter().map(|row| Ok::<&NewRow, Infallible>(row))).await?;
        return Ok(());
    }
    let Some(first) = rows.first() else { return Ok(()) };
    let statement = if rows.iter().all(|row| row.is_like(first)) {
        alike(rows, first)
    } else {
        bound(include_str!("sql/enqueue.sql"), rows)
    };
    within(statement.execute(db)).await?;
    Ok(())
}

/// Gives `rows`, placed in the transaction open on `db`, what ties them.
pub async fn tie(db: &mut PgConnection, rows: &[&NewRow]) -> Result<(), Error> {
    let statement = sqlx::query(include_str!("sql/tie.sql"))
        .bind(all(rows, |row| row.id))
        .bind(all(rows, |row| row.ties.parent_id))
        .bind(all(rows, |row| row.ties.children.map(When::as_str)))
        .bind(all(rows, NewRow::stop_at))
        .bind(all(rows, NewRow::stop_after));
    within(statement.execute(db)).await?;
    Ok(())
}

/// Why a job with a key was not placed; nothing was done for it then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The idempotency key stands for another request.
    KeyReused,
    /// Another transaction has the idempotency key in its hands.
    InFlight,
    /// The unique key belongs to a waiting job of another kind, user or app.
    KeyElsewhere,
}

/// Places `rows`, which may have keys, one after the other; gives what became of each, in order. An error is the
/// database's, and then nothing was done.
pub async fn place(db: impl PgExecutor<'_>, rows: &[&NewRow]) -> Result<Vec<Result<Enqueued, Refused>>, Error> {
    let of = |row: &NewRow, part: fn(&Unique) -> Option<PgInterval>| row.unique.as_deref().and_then(part);
    let statement = bound(include_str!("sql/enqueue_keyed.sql"), rows)
        .bind(all(rows, |row| row.unique.as_ref().map(|unique| unique.key.as_str())))
        .bind(all(rows, |row| of(row, |unique| unique.period.map(interval))))
        .bind(all(rows, |row| row.unique.as_ref().map_or("keep", |unique| unique.on_conflict.as_str())))
        .bind(all(rows, |row| of(row, |unique| max_wait(unique).map(interval))))
        .bind(all(rows, |row| row.idempotency.as_ref().map(|given| given.key.as_str())))
        .bind(all(rows, |row| row.idempotency.as_ref().map(|given| given.request_hash.as_slice())))
        .bind(all(rows, |row| row.idempotency.as_ref().and_then(|given| given.told.as_ref())));
    let unfit = |cause: CtxError| Error::Database(sqlx::Error::Decode(Box::new(cause)));
    let placed = within(statement.fetch_all(db)).await?;
    let placed = placed.iter().map(|row| {
        let outcome: &str = row.try_get(1)?;
        Ok(match outcome {
            "key_reused" => Err(Refused::KeyReused),
            "in_flight" => Err(Refused::InFlight),
            "key_elsewhere" => Err(Refused::KeyElsewhere),
            outcome => Ok(Enqueued {
                job_id: row.try_get(0)?,
                outcome: outcome.parse().map_err(unfit)?,
                state: row.try_get::<&str, _>(2)?.parse().map_err(unfit)?,
                replayed: row.try_get(3)?,
                told: row.try_get(4)?,
            }),
        })
    });
    placed.collect()
}

fn max_wait(unique: &Unique) -> Option<Duration> {
    match unique.on_conflict {
        OnConflict::Debounce { max_wait } => Some(max_wait),
        OnConflict::Keep | OnConflict::Replace => None,
    }
}

/// A kind as `krilin.enqueue` knows it.
#[derive(Debug, Clone)]
pub struct KindRow<'a> {
    /// Its name.
    pub kind: &'a str,
    /// The lane its jobs wait in.
    pub queue: &'a str,
    /// Their priority.
    pub priority: i16,
    /// Their attempts.
    pub max_attempts: i32,
    /// `user` or `system`.
    pub asked_by: &'static str,
    /// How long after it is due a job must have ended.
    pub deadline: Option<Duration>,
    /// Which of its jobs run one at a time.
    pub concurrency_key: Option<&'static str>,
    /// What a job takes of a rate.
    pub cost: i32,
}

/// Writes down `kinds`, where they are new or changed; `only` also forgets all others. Gives how many rows it changed.
pub async fn keep_kinds(db: impl PgExecutor<'_>, kinds: &[KindRow<'_>], only: bool) -> Result<i64, Error> {
    let statement = sqlx::query_scalar(
        "with known as (
             select * from unnest($1::text[], $2::text[], $3::smallint[], $4::integer[], $5::text[], $7::interval[],
                                  $8::text[], $9::integer[])
             as k(kind, queue, priority, max_attempts, asked_by, deadline, concurrency_key, cost)
         ),
         forgotten as (
             delete from krilin.kinds k where $6 and k.kind not in (select kind from known) returning 1
         ),
         kept as (
             insert into krilin.kinds as k (kind, queue, priority, max_attempts, asked_by, deadline, concurrency_key, cost, updated_at)
             select known.*, krilin.now() from known order by kind
             on conflict (kind) do update
             set queue = excluded.queue, priority = excluded.priority, max_attempts = excluded.max_attempts,
                 asked_by = excluded.asked_by, deadline = excluded.deadline,
                 concurrency_key = excluded.concurrency_key, cost = excluded.cost, updated_at = excluded.updated_at
             where (k.queue, k.priority, k.max_attempts, k.asked_by, k.deadline, k.concurrency_key, k.cost) is distinct from
                 (excluded.queue, excluded.priority, excluded.max_attempts, excluded.asked_by, excluded.deadline,
                  excluded.concurrency_key, excluded.cost)
             returning 1
         )
         select (select count(*) from forgotten) + (select count(*) from kept)",
    );
    let statement = statement
        .bind(kinds.iter().map(|kind| kind.kind).collect::<Vec<_>>())
        .bind(kinds.iter().map(|kind| kind.queue).collect::<Vec<_>>())
        .bind(kinds.iter().map(|kind| kind.priority).collect::<Vec<_>>())
        .bind(kinds.iter().map(|kind| kind.max_attempts).collect::<Vec<_>>())
        .bind(kinds.iter().map(|kind| kind.asked_by).collect::<Vec<_>>())
        .bind(only)
        .bind(kinds.iter().map(|kind| kind.deadline.map(interval)).collect::<Vec<_>>())
        .bind(kinds.iter().map(|kind| kind.concurrency_key).collect::<Vec<_>>())
        .bind(kinds.iter().map(|kind| kind.cost).collect::<Vec<_>>());
    within(statement.fetch_one(db)).await
}

/// Forgets the periods of unique keys that are over, at most `limit`; gives how many. Rides on `unique_periods_until_idx`.
pub async fn prune_unique_periods(db: impl PgExecutor<'_>, limit: i64) -> Result<u64, Error> {
    let statement = sqlx::query(
        "delete from krilin.unique_periods where ctid = any (array(
             select ctid from krilin.unique_periods where until < krilin.now() order by until limit $1))",
    );
    Ok(within(statement.bind(limit).execute(db)).await?.rows_affected())
}
