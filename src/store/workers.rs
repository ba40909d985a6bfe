//! Statements over the workers that were heard of lately. Refuses to decide anything by it: leases do that.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgExecutor;

use super::{Error, within};
use crate::model::id::WorkerId;

/// A worker as it was last heard of.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Seen {
    /// This start of it.
    pub id: WorkerId,
    /// The queues it works on.
    pub queues: Vec<String>,
    /// The jobs it has claimed of each of these queues since it started.
    pub claimed: Vec<i64>,
    /// The kinds it knows.
    pub kinds: Vec<String>,
    /// When it started.
    pub started_at: DateTime<Utc>,
    /// When it was last heard of.
    pub seen_at: DateTime<Utc>,
}

/// Writes down that the worker is there, and forgets those that were not heard of for `forget`.
pub async fn beat(
    db: impl PgExecutor<'_>,
    id: WorkerId,
    (queues, claimed, kinds): (&[String], &[i64], &[String]),
    forget: Duration,
) -> Result<(), Error> {
    let statement = sqlx::query(
        "with gone as (
             delete from krilin.workers
             where seen_at < krilin.now() - $4::float8 * interval '1 second' and id <> $1
         )
         insert into krilin.workers (id, queues, kinds, started_at, seen_at, claimed)
         values ($1, $2, $3, krilin.now(), krilin.now(), $5)
         on conflict (id) do update set seen_at = excluded.seen_at, claimed = excluded.claimed",
    );
    within(statement.bind(id).bind(queues).bind(kinds).bind(forget.as_secs_f64()).bind(claimed).execute(db)).await?;
    Ok(())
}

/// Forgets a worker that stopped.
pub async fn leave(db: impl PgExecutor<'_>, id: WorkerId) -> Result<(), Error> {
    within(sqlx::query("delete from krilin.workers where id = $1").bind(id).execute(db)).await?;
    Ok(())
}

/// The workers heard of within `lately`, at most `limit`, oldest first.
pub async fn list(db: impl PgExecutor<'_>, lately: Duration, limit: i64) -> Result<Vec<Seen>, Error> {
    let statement = sqlx::query_as(
        "select id, queues, claimed, kinds, started_at, seen_at from krilin.workers
         where seen_at >= krilin.now() - $1::float8 * interval '1 second'
         order by id limit $2",
    );
    within(statement.bind(lately.as_secs_f64()).bind(limit).fetch_all(db)).await
}
