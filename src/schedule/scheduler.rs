//! The scheduler: looks when the earliest schedule is due, and makes its jobs.
//!
//! The fire's row in the ledger, its job and the schedule's next fire commit together, so any number of schedulers is
//! safe and one that is killed loses nothing. A one-row lease says who looks first; the others look at what is
//! [`STANDBY`] overdue. Refuses to rely on notices, and to let one schedule stand in the way of the others: one that
//! cannot be written is parked alone.

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use sqlx::PgPool;
use tokio::sync::Notify;
use uuid::Uuid;

use super::{
    Bell,
    look::{Look, Means},
};
use crate::{
    clock::jittered,
    model::{clock::Clock, id::WorkerId, policy::Policies, schedule::TZDATA},
    store::{
        self, Error, enqueue,
        fires::{self, Due, Take},
        notices::{Listener, SCHEDULES_CHANNEL},
    },
    supervisor::Part,
};

/// The longest sleep: a schedule that was made meanwhile, unheard, is late by no more.
pub const POLL: Duration = Duration::from_secs(1);
/// What is overdue by this is anybody's: whoever looks first is dead or has too much to do.
pub const STANDBY: Duration = Duration::from_secs(1);
/// How long the right to look first lasts unrenewed.
const LEASE: Duration = Duration::from_secs(4);
/// Schedules looked at in one transaction.
const BATCH: i64 = 1_000;
/// Transactions at once when many are due: one waits for the disk while the next is prepared.
const BATCHES_AT_ONCE: usize = 2;
/// Schedules reckoned anew at a time after a new release of the zone data: few, so that fires go first.
const RECKON_PAGE: i64 = 500;
/// The shortest sleep, against spinning on what is due this instant.
const SHORTEST_SLEEP: Duration = Duration::from_millis(2);
/// The longest silence before the listening connection is tried, and the wait before listening again.
const QUIET: Duration = Duration::from_secs(20);
const LISTEN_AGAIN: Duration = Duration::from_secs(3);

/// Why a schedule is parked whose row, ledger or job Postgres refuses.
const UNWRITABLE: &str = "its fire cannot be written; the scheduler's log says why";

/// One scheduler of however many.
pub struct Scheduler {
    pool: PgPool,
    clock: Arc<dyn Clock>,
    policies: Policies,
    bell: Bell,
    /// Fresh with each start.
    holder: Uuid,
}

impl Scheduler {
    /// A scheduler over `pool` that makes jobs of the kinds of `policies` and rings `bell` for them.
    pub fn new(pool: &PgPool, clock: Arc<dyn Clock>, policies: Policies, bell: Bell) -> Self {
        let holder = WorkerId::new(clock.as_ref()).0;
        Self { pool: pool.clone(), clock, policies, bell, holder }
    }

    /// Fires what is due until `stop`; `part` hears of each look. A database that is away is waited for.
    pub async fn run(self, stop: impl Future<Output = ()>, part: Part) {
        let bell = Arc::new(Notify::new());
        let hearing = tokio::spawn(hear(self.pool.clone(), bell.clone()));
        let mut stop = pin!(stop);
        loop {
            let sleep = match self.tick().await {
                Ok(sleep) => {
                    part.beat();
                    sleep
                }
                Err(error) => {
                    part.turn();
                    tracing::warn!(%error, "looking at schedules failed; trying again");
                    jittered(POLL)
                }
            };
            tokio::select! {
                () = &mut stop => break,
                () = tokio::time::sleep(sleep) => {}
                () = bell.notified() => {}
            }
        }
        hearing.abort();
        part.end();
        if let Err(error) = fires::release(&self.pool, self.holder).await {
            tracing::debug!(%error, "the right to look first was not given back; it ends by itself");
        }
    }

    /// One look at everything; gives how long to sleep.
    pub async fn tick(&self) -> Result<Duration, Error> {
        let watch = fires::watch(&self.pool, self.holder, LEASE).await?;
        let patience = if watch.mine { Duration::ZERO } else { STANDBY };
        let overdue_ms = i64::try_from(patience.as_millis()).unwrap_or(i64::MAX);
        if watch.next_ms.is_some_and(|next| next <= -overdue_ms) {
            let looked = self.fire(overdue_ms).await?;
            // What is due and cannot be had is in another scheduler's hands.
            return Ok(if looked > 0 { SHORTEST_SLEEP } else { jittered(POLL) });
        }
        if watch.mine && watch.tzdata.as_str() < TZDATA {
            if fires::reckon_anew(&self.pool, TZDATA, RECKON_PAGE).await? == 0 {
                fires::reckoned(&self.pool, TZDATA).await?;
            }
            return Ok(SHORTEST_SLEEP);
        }
        let until =
            watch.next_ms.filter(|_| watch.mine).map(|next| Duration::from_millis(u64::try_from(next).unwrap_or(0)));
        Ok(until.unwrap_or(POLL).clamp(SHORTEST_SLEEP, jittered(POLL)))
    }

    /// Looks at everything that is due and overdue by `overdue_ms`; gives how many schedules that were.
    async fn fire(&self, overdue_ms: i64) -> Result<usize, Error> {
        let lanes = (0..BATCHES_AT_ONCE).map(|_| async {
            let mut looked = 0;
            loop {
                let count = self.batch(Take { limit: BATCH, overdue_ms, only: None }).await?;
                looked += count;
                if count < usize::try_from(BATCH).unwrap_or(usize::MAX) {
                    return Ok::<usize, Error>(looked);
                }
            }
        });
        let looked = futures::future::join_all(lanes).await;
        looked.into_iter().sum()
    }

    /// One transaction's worth; when it fails for what is in one of its rows, each schedule alone.
    async fn batch(&self, take: Take<'_>) -> Result<usize, Error> {
        let mut tx = store::within(self.pool.begin()).await?;
        let due = fires::take(&mut tx, take).await?;
        if due.is_empty() {
            return Ok(0);
        }
        match self.write(tx, &due).await {
            Err(error) if error.is_of_the_row() => {
                for one in &due {
                    self.alone(one).await?;
                }
                Ok(due.len())
            }
            written => written,
        }
    }

    /// One schedule by itself; it is parked when it cannot be written.
    async fn alone(&self, due: &Due) -> Result<(), Error> {
        let only = [due.id];
        let mut tx = store::within(self.pool.begin()).await?;
        let again = fires::take(&mut tx, Take { limit: 1, overdue_ms: 0, only: Some(&only) }).await?;
        match self.write(tx, &again).await {
            Err(error) if error.is_of_the_row() => {
                tracing::error!(schedule.id = %due.id, %error, "schedule {} cannot fire; it is parked", due.id);
                fires::park(&self.pool, due.id, UNWRITABLE).await
            }
            written => written.map(drop),
        }
    }

    async fn write(&self, mut tx: sqlx::Transaction<'_, sqlx::Postgres>, due: &[Due]) -> Result<usize, Error> {
        let mut look = Look::at(due, Means { policies: &self.policies, clock: self.clock.as_ref() });
        if !look.occurrences.is_empty() {
            let recorded = fires::record(&mut *tx, &look.occurrences).await?;
            look.keep_jobs(&recorded);
        }
        if !look.jobs.is_empty() {
            enqueue::insert(&mut tx, &look.jobs.iter().collect::<Vec<_>>()).await?;
        }
        fires::advance(&mut *tx, &look.advances, TZDATA).await?;
        store::within(tx.commit()).await?;
        (self.bell)(&look.queues());
        Ok(look.advances.len())
    }
}

/// Rings when another process has made something that may be due sooner; until dropped.
async fn hear(pool: PgPool, bell: Arc<Notify>) {
    loop {
        let heard: Result<(), Error> = async {
            let mut listener = Listener::on(&pool, &[SCHEDULES_CHANNEL]).await?;
            loop {
                if listener.next(QUIET).await?.is_some() {
                    bell.notify_one();
                }
            }
        }
        .await;
        if let Err(error) = heard {
            tracing::debug!(%error, "not listening for schedules; polling goes on");
        }
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
}
