//! `retention`: keeps the queue's own tables in bounds, once a day. Refuses nothing; run twice, the second finds nothing
//! to do.

use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::value::to_raw_value;
use sqlx::PgPool;

use crate::{
    model::{
        error::{Code, CtxError},
        job::{Failure, Outcome},
    },
    queue::registry::{Attempt, Handler},
    store::{Error, enqueue, fires, flow, history, reports},
};

/// Partitions that exist before their day comes.
pub const PARTITIONS_AHEAD: i32 = 7;
/// How long ended jobs, their attempts, the ledger of fires and schedules that ended are kept.
pub const HISTORY_KEPT: Duration = Duration::from_hours(30 * 24);
/// How long an idempotency key is remembered.
pub const KEYS_KEPT: Duration = Duration::from_hours(48);
/// Rows deleted by one statement.
const PAGE: i64 = 10_000;
/// Statements per table and run; what is left waits for tomorrow.
const PAGES: usize = 1_000;

/// The handler.
pub struct Retention;

impl Handler for Retention {
    fn run(&self, attempt: Attempt) -> BoxFuture<'_, Result<Outcome, Failure>> {
        Box::pin(async move {
            let pool = attempt.stack.pool();
            let created = history::create_partitions(pool, PARTITIONS_AHEAD).await?;
            let dropped = history::drop_partitions(pool, HISTORY_KEPT).await?;
            let (mut keys, mut attempts, mut periods, mut logs) = (0, 0, 0, 0);
            for _ in 0..PAGES {
                let (old_keys, old_attempts, old_periods, old_logs) = (
                    history::prune_idempotency_keys(pool, KEYS_KEPT, PAGE).await?,
                    history::prune_attempts(pool, HISTORY_KEPT, PAGE).await?,
                    enqueue::prune_unique_periods(pool, PAGE).await?,
                    reports::prune(pool, HISTORY_KEPT, PAGE).await?,
                );
                (keys, attempts) = (keys + old_keys, attempts + old_attempts);
                (periods, logs) = (periods + old_periods, logs + old_logs);
                if old_keys + old_attempts + old_periods + old_logs == 0 {
                    break;
                }
            }
            let (fires, spent) = (forget_fires(pool).await?, forget_spent(pool).await?);
            history::analyze(pool).await?;
            tracing::info!(created, dropped, keys, attempts, "retention: {created} partitions made, {dropped} dropped");
            let result = serde_json::json!({
                "partitions_created": created, "partitions_dropped": dropped,
                "idempotency_keys_forgotten": keys, "attempts_forgotten": attempts,
                "unique_periods_forgotten": periods, "logs_forgotten": logs, "fires_forgotten": fires,
                "spent_forgotten": spent,
            });
            let result = to_raw_value(&result).map_err(|cause| CtxError::new(Code::Internal, cause.to_string()))?;
            Ok(Outcome::Done(Some(result)))
        })
    }
}

/// What nobody's rate reaches any more.
async fn forget_spent(pool: &PgPool) -> Result<u64, Error> {
    let mut forgotten = 0;
    for _ in 0..PAGES {
        let page = flow::prune_spent(pool, PAGE).await?;
        forgotten += page;
        if page == 0 {
            break;
        }
    }
    Ok(forgotten)
}

/// Old rows of the ledger, and schedules that ended long ago.
async fn forget_fires(pool: &PgPool) -> Result<u64, Error> {
    let mut forgotten = 0;
    for _ in 0..PAGES {
        let page = fires::prune(pool, HISTORY_KEPT, PAGE).await? + fires::prune_ended(pool, HISTORY_KEPT, PAGE).await?;
        forgotten += page;
        if page == 0 {
            break;
        }
    }
    Ok(forgotten)
}
