//! Ends what must end before its end: pending jobs past their deadline, and jobs that were cancelled while they ran. Refuses
//! to rely on notices: it looks once in a while, and a notice only makes it look at once.

use std::{sync::Arc, time::Duration};

use sqlx::PgPool;

use super::{lease::Leases, notify::Notices};
use crate::{
    clock::jittered,
    store::{Error, stops},
};

/// The longest time between two looks, and so the longest until a handler knows that its job was cancelled.
pub const STOP_INTERVAL: Duration = Duration::from_millis(900);
/// The bell that a cancel rings, as if it were a lane. No queue can have this name.
pub(super) const BELL: &str = "!stop";
/// The most jobs that one statement ends or asks for.
const STOP_PAGE: i64 = 1_000;
/// The most pages of one look; the next look goes on.
const PAGES_PER_LOOK: usize = 100;

/// One look: ends pending jobs whose time is over and tells the handlers of `leases` whose jobs were cancelled.
async fn look(pool: &PgPool, leases: &Leases, notices: &Notices) -> Result<(), Error> {
    for _ in 0..PAGES_PER_LOOK {
        let (awaited, ended) = stops::end_pending(pool, STOP_PAGE).await?;
        if !awaited.is_empty() {
            notices.finished(awaited);
        }
        if ended < usize::try_from(STOP_PAGE).unwrap_or(usize::MAX) {
            break;
        }
    }
    if leases.count() > 0 {
        leases.cancel(&stops::cancelled(pool, leases.worker_id, STOP_PAGE).await?);
    }
    Ok(())
}

/// Looks again and again, until dropped.
pub(super) async fn keep(pool: PgPool, leases: Arc<Leases>, notices: Notices) {
    let bell = notices.lane(BELL);
    loop {
        if let Err(error) = look(&pool, &leases, &notices).await {
            tracing::warn!(error = %error, "looking for jobs to stop failed; trying again");
        }
        let _ = tokio::time::timeout(jittered(STOP_INTERVAL), bell.notified()).await;
    }
}
