//! The scheduler: looks when the earliest schedule is due, and makes its jobs.
//!
//! The fire's row in the ledger, its job and the schedule's next fire commit together, so any number of schedulers is
//! safe and one that is killed loses nothing. A one-row lease says who fires first; the others fire what is [`STANDBY`]
//! overdue. Refuses to rely on notices, and to let one schedule stand in the way of the others: one that cannot be written is
//! parked alone.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::PgPool;
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
        fires::{self, Ahead, Due, Take},
        notices::{Listener, SCHEDULES_CHANNEL},
    },
    supervisor::Part,
};

/// The longest sleep while it listens. What it was not told of, or a jump of the database's clock, makes a fire late by no
/// more.
pub const POLL: Duration = Duration::from_secs(10);
/// The longest sleep while it does not, or while Postgres is away.
pub const DEAF_POLL: Duration = Duration::from_secs(1);
/// What is overdue by this is anybody's: whoever fires first is dead or has too much to do.
pub const STANDBY: Duration = Duration::from_secs(1);
/// How long the right to fire first lasts unrenewed. It is taken when something is due, so an idle scheduler writes nothing.
const LEASE: Duration = Duration::from_secs(4);
/// Schedules looked at in one transaction.
const BATCH: i64 = 1_000;
/// Transactions at once when many are due: one waits for the disk while the next is prepared.
const BATCHES_AT_ONCE: usize = 2;
/// Schedules reckoned anew at a time after a new release of the zone data: few, so that fires go first.
const RECKON_PAGE: i64 = 500;
/// The shortest sleep, against spinning on what is due this instant.
const SHORTEST_SLEEP: Duration = Duration::from_millis(2);
/// The wait before listening again.
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

/// The connection that hears of schedules that were made, while there is one. The looks are made on it, too: each proves
/// that it is alive, and an idle scheduler keeps no other busy.
#[derive(Default)]
struct Ear {
    listener: Option<Listener>,
    /// When it was lost, or could not be had.
    deaf_since: Option<Instant>,
}

impl Scheduler {
    /// A scheduler over `pool` that makes jobs of the kinds of `policies` and rings `bell` for them.
    pub fn new(pool: &PgPool, clock: Arc<dyn Clock>, policies: Policies, bell: Bell) -> Self {
        let holder = WorkerId::new(clock.as_ref()).0;
        Self { pool: pool.clone(), clock, policies, bell, holder }
    }

    /// Fires what is due until `stop`; `part` hears of each look. A database that is away is waited for.
    pub async fn run(self, stop: impl Future<Output = ()>, part: Part) {
        let mut ear = Ear::default();
        let mut stop = pin!(stop);
        loop {
            let looked = match ear.ahead(&self.pool).await {
                Ok(ahead) => self.answer(ahead, ear.longest_sleep()).await,
                Err(error) => Err(error),
            };
            let sleep = match looked {
                Ok(sleep) => {
                    part.beat();
                    sleep
                }
                Err(error) => {
                    part.turn();
                    tracing::warn!(%error, "looking at schedules failed; trying again");
                    jittered(DEAF_POLL)
                }
            };
            tokio::select! {
                () = &mut stop => break,
                () = ear.hear(sleep) => {}
            }
        }
        part.end();
        if let Err(error) = fires::release(&self.pool, self.holder).await {
            tracing::debug!(%error, "the right to fire first was not given back; it ends by itself");
        }
    }

    /// One look at everything; gives how long to sleep.
    pub async fn tick(&self) -> Result<Duration, Error> {
        self.answer(fires::ahead(&self.pool).await?, DEAF_POLL).await
    }

    /// Does what `ahead` calls for; gives how long to sleep, at most `longest`. While nothing is due it writes nothing.
    async fn answer(&self, ahead: Ahead, longest: Duration) -> Result<Duration, Error> {
        let stale = ahead.tzdata.as_str() < TZDATA;
        let due = ahead.next_ms.is_some_and(|next| next <= 0);
        if !due && !stale {
            return Ok(sleep_until(ahead.next_ms, longest));
        }
        let first = fires::lead(&self.pool, self.holder, LEASE).await?;
        let patience_ms = if first { 0 } else { i64::try_from(STANDBY.as_millis()).unwrap_or(i64::MAX) };
        if ahead.next_ms.is_some_and(|next| next <= -patience_ms) {
            let looked = self.fire(patience_ms).await?;
            // What is due and cannot be had is in another scheduler's hands.
            return Ok(if looked > 0 { SHORTEST_SLEEP } else { jittered(STANDBY) });
        }
        if first && stale {
            if fires::reckon_anew(&self.pool, TZDATA, RECKON_PAGE).await? == 0 {
                fires::reckoned(&self.pool, TZDATA).await?;
            }
            return Ok(SHORTEST_SLEEP);
        }
        Ok(sleep_until(ahead.next_ms.map(|next| next + patience_ms), longest))
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

/// How long to sleep, at most `longest`, when the next schedule is due in so many milliseconds.
fn sleep_until(next_ms: Option<i64>, longest: Duration) -> Duration {
    let until = next_ms.map_or(longest, |next| Duration::from_millis(u64::try_from(next).unwrap_or(0)));
    until.clamp(SHORTEST_SLEEP, jittered(longest))
}

impl Ear {
    /// What lies ahead, as it is after it has begun to listen; over another connection of `pool` while it cannot.
    async fn ahead(&mut self, pool: &PgPool) -> Result<Ahead, Error> {
        if self.listener.is_none() && self.deaf_since.is_none_or(|since| since.elapsed() >= LISTEN_AGAIN) {
            match Listener::on(pool, &[SCHEDULES_CHANNEL]).await {
                Ok(listener) => self.listener = Some(listener),
                Err(error) => self.lose(&error),
            }
        }
        let Some(listener) = &mut self.listener else { return fires::ahead(pool).await };
        let looked = fires::ahead(listener.connection()).await;
        looked.inspect_err(|error| self.lose(error))
    }

    /// Waits until somebody has made what may be due sooner, or it ceases to listen; at most for `longest`.
    async fn hear(&mut self, longest: Duration) {
        let Some(listener) = &mut self.listener else { return tokio::time::sleep(longest).await };
        if let Err(error) = listener.heard(longest).await {
            self.lose(&error);
        }
    }

    fn longest_sleep(&self) -> Duration {
        if self.listener.is_some() { POLL } else { DEAF_POLL }
    }

    fn lose(&mut self, error: &Error) {
        tracing::debug!(%error, "not listening for schedules; looking oftener");
        *self = Self { listener: None, deaf_since: Some(Instant::now()) };
    }
}
