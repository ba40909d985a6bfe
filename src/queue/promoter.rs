//! Makes scheduled jobs ready when their time comes. Refuses to poll faster than it must: it sleeps until the earliest
//! `run_at`, at most [`PROMOTE_INTERVAL`], less when a retry was just written.

use std::{sync::Arc, time::Duration};

use sqlx::PgPool;
use tokio::sync::Notify;

use super::{
    metrics::{Loop, Metrics},
    notify::Notices,
};
use crate::{
    clock::jittered,
    store::{Error, jobs},
};

/// The longest sleep between two looks; a job that another process schedules sooner is late by no more.
const PROMOTE_INTERVAL: Duration = Duration::from_secs(1);
/// The most jobs made ready by one statement.
const PROMOTE_PAGE: i64 = 1_000;
/// The shortest sleep, against spinning on a job that is due this instant.
const SHORTEST_SLEEP: Duration = Duration::from_millis(2);

/// One look: makes all due jobs ready and gives how many. `notices` wakes their lanes.
async fn promote(pool: &PgPool, notices: &Notices, metrics: &Metrics) -> Result<usize, Error> {
    let mut count = 0;
    loop {
        let mut queues = jobs::promote(pool, PROMOTE_PAGE).await?;
        let promoted = queues.len();
        count += promoted;
        metrics.promoted(promoted);
        queues.sort_unstable();
        queues.dedup();
        if promoted > 0 {
            notices.ready(queues.iter().map(String::as_str));
        }
        if promoted < usize::try_from(PROMOTE_PAGE).unwrap_or(usize::MAX) {
            return Ok(count);
        }
    }
}

/// Promotes until dropped. `scheduled` rings when this process has scheduled a job.
pub(super) async fn keep(pool: PgPool, notices: Notices, metrics: Metrics, scheduled: Arc<Notify>) {
    loop {
        let due = async {
            promote(&pool, &notices, &metrics).await?;
            jobs::next_due_ms(&pool).await
        };
        let due = due.await;
        metrics.ticked(Loop::Promoter, due.is_ok());
        let sleep = match due {
            Ok(Some(ms)) => Duration::from_millis(u64::try_from(ms).unwrap_or(0)).max(SHORTEST_SLEEP),
            Ok(None) => PROMOTE_INTERVAL,
            Err(error) => {
                tracing::warn!(error = %error, "promoting scheduled jobs failed; trying again");
                PROMOTE_INTERVAL
            }
        };
        tokio::select! {
            () = tokio::time::sleep(sleep.min(jittered(PROMOTE_INTERVAL))) => {}
            () = scheduled.notified() => {}
        }
    }
}
