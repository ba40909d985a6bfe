//! Frees jobs whose worker vanished: a bounded page of expired leases at a time, longest ago first, each fenced by its
//! token. Refuses to free what could not be renewed because Postgres itself was away, and to let one row that cannot be
//! written stop the others.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;
use tokio::time::Instant;

use super::{
    metrics::{Loop, Metrics},
    notify::Notices,
};
use crate::{
    model::{
        error::{Code, CtxError},
        job::Lease,
    },
    store::{
        Error,
        leases::{self, Reaped},
    },
};

/// How long a fresh reaper frees nothing. Short, for a worker that was killed is often replaced by one that must do the
/// rescue; long enough for the others' heartbeats if it began in the moment in which Postgres came back.
pub const START_HOLD_OFF: Duration = Duration::from_millis(700);
/// How often to look.
pub const REAP_INTERVAL: Duration = Duration::from_secs(1);
/// The most leases freed by one statement.
pub const REAP_PAGE: i64 = 1_000;
/// The most pages of one look; the next look goes on.
const PAGES_PER_TICK: usize = 100;
/// A look at all leases that took longer than this walked over dead rows; they stay while somebody holds an old snapshot.
const SLOW: Duration = Duration::from_millis(20);
/// The share of the time that looks at all leases may take then: a fiftieth.
const PAUSE_PER_LOOK: u32 = 50;
/// A time between two looks that is longer than this means that Postgres (or this process) was away in between.
const PATIENCE: Duration = Duration::from_secs(4);

/// Looks for leases that nobody renewed.
pub struct Reaper {
    pool: PgPool,
    notices: Option<Notices>,
    metrics: Metrics,
    /// After an outage nothing is freed for a quarter of a lease: workers try a failed heartbeat again twice a second. Not
    /// longer, for an orphan whose lease runs out during an outage waits for this, too.
    hold_off: TimeDelta,
    was_away: bool,
    seen: Option<DateTime<Utc>>,
    hold_until: Option<DateTime<Utc>>,
    cleared: Cleared,
}

/// From where on there may be leases that have run out. A look at all finds, later, what became visible in front of that
/// meanwhile: a commit that took longer than its lease lasts.
#[derive(Default)]
struct Cleared {
    /// None was left that had run out before, by the server's clock.
    at: Option<DateTime<Utc>>,
    /// Until then it is not looked at all.
    until: Option<Instant>,
}

impl Cleared {
    /// Where the next look begins; none for a look at all.
    fn next(&self) -> Option<DateTime<Utc>> {
        self.at.filter(|_| self.until.is_some_and(|until| Instant::now() < until))
    }

    /// Learns how long a look took that began at `from`.
    fn learn(&mut self, from: Option<DateTime<Utc>>, took: Duration) {
        if from.is_none() {
            self.until = (took > SLOW).then(|| Instant::now() + took * PAUSE_PER_LOOK);
        }
    }
}

impl Reaper {
    /// A reaper of leases that last `lease`, over `pool`. It begins to free after [`START_HOLD_OFF`].
    pub fn new(pool: PgPool, lease: Duration) -> Self {
        let hold_off = TimeDelta::from_std(lease / 4).unwrap_or(TimeDelta::MAX);
        Self {
            pool,
            notices: None,
            metrics: Metrics::default(),
            hold_off,
            was_away: false,
            seen: None,
            hold_until: None,
            cleared: Cleared::default(),
        }
    }

    pub(super) fn announcing(self, notices: Notices, metrics: Metrics) -> Self {
        Self { notices: Some(notices), metrics, ..self }
    }

    /// One look; gives how many jobs were freed or found dead. An error means that Postgres is away; the look after it
    /// holds off.
    pub async fn tick(&mut self) -> Result<usize, Error> {
        let begun = Instant::now();
        let (now, started) = match leases::pulse(&self.pool).await {
            Ok(pulse) => pulse,
            Err(error) => {
                self.outage();
                return Err(error);
            }
        };
        self.judge(now, started);
        if self.hold_until.is_some_and(|until| now < until) {
            return Ok(0);
        }
        self.hold_until = None;
        let mut freed = 0;
        for _ in 0..PAGES_PER_TICK {
            let page = self.expired(now).await?;
            if page.is_empty() {
                // Else it may be empty because it came too late.
                if begun.elapsed() < PATIENCE {
                    self.cleared.at = Some(now);
                }
                break;
            }
            let reaped = self.free(&page).await?;
            let stuck = reaped.is_empty();
            freed += reaped.len();
            self.announce(&reaped);
            if stuck {
                break;
            }
        }
        Ok(freed)
    }

    /// A page of leases that have run out.
    async fn expired(&mut self, now: DateTime<Utc>) -> Result<Vec<Lease>, Error> {
        let (begun, from) = (Instant::now(), self.cleared.next());
        let page = leases::expired(&self.pool, from, (now, PATIENCE), REAP_PAGE).await;
        self.cleared.learn(from, begun.elapsed());
        page
    }

    /// Takes note that Postgres was away: nobody could renew a lease.
    pub fn outage(&mut self) {
        self.was_away = true;
    }

    /// Whether and until when nothing may be freed, all by the server's clock.
    fn judge(&mut self, now: DateTime<Utc>, started: DateTime<Utc>) {
        let delta = |duration| TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX);
        let hold_until = match self.seen {
            _ if now - started < self.hold_off => Some(started + self.hold_off),
            Some(seen) if self.was_away || now - seen > delta(PATIENCE) => Some(now + self.hold_off),
            Some(_) => None,
            None => Some(now + self.hold_off.min(delta(START_HOLD_OFF))),
        };
        self.hold_until = self.hold_until.max(hold_until);
        (self.seen, self.was_away) = (Some(now), false);
    }

    async fn free(&self, page: &[Lease]) -> Result<Vec<Reaped>, Error> {
        let lost = CtxError::new(Code::Internal, "the worker that ran this job vanished, and no attempt is left");
        match leases::reap(&self.pool, page, &lost).await {
            Err(error) if error.is_of_the_row() => {
                let mut freed = Vec::new();
                for lease in page {
                    match leases::reap(&self.pool, std::slice::from_ref(lease), &lost).await {
                        Err(error) if error.is_of_the_row() => {
                            tracing::error!(job.id = %lease.job_id, error = %error, "job {} cannot be freed", lease.job_id);
                        }
                        one => freed.extend(one?),
                    }
                }
                Ok(freed)
            }
            freed => freed,
        }
    }

    fn announce(&self, reaped: &[Reaped]) {
        if reaped.is_empty() {
            return;
        }
        self.metrics.rescued(reaped.len());
        tracing::warn!(count = reaped.len(), "{} jobs of vanished workers were freed", reaped.len());
        if let Some(notices) = &self.notices {
            notices.ready(reaped.iter().filter(|job| !job.dead).map(|job| job.queue.as_str()));
            notices.finished(reaped.iter().filter(|job| job.awaited).map(|job| job.id));
        }
    }

    /// Looks again and again, until dropped.
    pub(super) async fn keep(mut self) {
        let _ = self.tick().await;
        tokio::time::sleep(START_HOLD_OFF).await;
        loop {
            let ticked = self.tick().await;
            self.metrics.ticked(Loop::Reaper, ticked.is_ok());
            if let Err(error) = ticked {
                tracing::warn!(error = %error, "looking for expired leases failed; trying again");
            }
            tokio::time::sleep(REAP_INTERVAL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_slow_look_at_all_leases_the_next_begin_where_none_was_left() {
        let mut cleared = Cleared::default();
        cleared.learn(None, SLOW * 2);
        assert_eq!(cleared.next(), None, "it was not seen to the end yet");
        let now = DateTime::<Utc>::UNIX_EPOCH;
        cleared.at = Some(now);
        assert_eq!(cleared.next(), Some(now));
        cleared.learn(Some(now), SLOW * 2);
        assert_eq!(cleared.next(), Some(now), "only a look at all says what one costs");
        cleared.learn(None, SLOW / 2);
        assert_eq!(cleared.next(), None, "a fast look is always at all");
    }
}
