//! What may be told to somebody who enqueues: how long the queue is, and when a job should start. An estimate that is kept
//! beside the work. Refuses to make an enqueue wait for it: what is not known yet is not told.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;
use tokio::time::Instant;

use super::flow::{WORKER_SILENT, WORKERS_MAX};
use crate::{
    model::id::WorkerId,
    store::{self, jobs, workers},
};

/// How often it is taken at most, and only while somebody asks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Taking it counts all that waits. It is taken again after this many times as long as that took, so that a long queue costs
/// one connection two percent of its time.
const COST_FACTOR: u32 = 50;
/// An estimate older than this is not told.
const OLDEST: Duration = Duration::from_mins(1);
/// A start further ahead is not told: nobody knows.
const FURTHEST: f64 = 30.0 * 86_400.0;

/// How a queue stood a moment ago.
#[derive(Debug, Clone, PartialEq)]
pub struct Outlook {
    /// Jobs whose time had come and that waited.
    pub depth: u64,
    /// When that was, by the database's clock.
    pub as_of: DateTime<Utc>,
    /// Jobs that were started each second, by all workers together; none where nobody can say, as when no worker is there
    /// or the queue is paused.
    pub pace_per_s: Option<f64>,
    /// Of those that waited, how many stood at each step of the line: their rank in [`jobs::RANK_STEP_MS`].
    line: Arc<[(i64, u64)]>,
    taken: Instant,
}

impl Outlook {
    /// When a job of this `priority` starts that comes `behind` others, and not before `due`; none where that cannot be
    /// said. Those wait before it whose rank is lower: of a higher priority, or of a lower one and here for long enough.
    /// An estimate: what waits within ten minutes of its place counts as before it, turns of users and limits are left
    /// aside, and so is what comes later and overtakes it.
    pub fn start(
        &self,
        now: DateTime<Utc>,
        (behind, priority): (u64, i16),
        due: Option<DateTime<Utc>>,
    ) -> Option<DateTime<Utc>> {
        let pace = self.pace_per_s?;
        let line = self.before(now, priority) + behind;
        #[expect(clippy::cast_precision_loss, reason = "it is an estimate")]
        let wait = match line {
            0 => 0.0,
            line if pace > 0.0 => line as f64 / pace,
            _ => return None,
        };
        #[expect(clippy::cast_possible_truncation, reason = "it is bounded just before")]
        let start = (wait <= FURTHEST).then(|| now + TimeDelta::milliseconds((wait * 1_000.0) as i64))?;
        Some(due.map_or(start, |due| due.max(start)))
    }

    /// How many wait before a job of this priority that comes now.
    fn before(&self, now: DateTime<Utc>, priority: i16) -> u64 {
        let own = now.timestamp_millis() / jobs::RANK_STEP_MS - i64::from(priority);
        self.line.iter().filter(|(step, _)| *step <= own).map(|(_, count)| count).sum()
    }
}

/// The outlooks of all queues. Cheap to clone.
#[derive(Clone)]
pub(super) struct Outlooks(Arc<Inner>);

struct Inner {
    pool: PgPool,
    queues: Vec<String>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: HashMap<String, Outlook>,
    /// What each worker had claimed when it was last heard of: per queue, with the pace since the time before.
    workers: HashMap<(WorkerId, String), Beat>,
    refreshing: bool,
    next: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Beat {
    claimed: i64,
    at: DateTime<Utc>,
    pace_per_s: f64,
}

impl Outlooks {
    pub(super) fn new(pool: &PgPool, queues: Vec<String>) -> Self {
        Self(Arc::new(Inner { pool: pool.clone(), queues, state: Mutex::default() }))
    }

    /// How `queue` stood when it was last looked at. Has it looked at again where that is some time ago, beside.
    pub(super) fn of(&self, queue: &str) -> Option<Outlook> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.refreshing && state.next.is_none_or(|next| next <= Instant::now()) {
            state.refreshing = true;
            let inner = self.0.clone();
            tokio::spawn(async move { inner.refresh().await });
        }
        state.known.get(queue).filter(|outlook| outlook.taken.elapsed() <= OLDEST).cloned()
    }
}

impl Inner {
    async fn refresh(&self) {
        let began = Instant::now();
        let seen = async {
            let lines = jobs::lines(&self.pool, &self.queues).await?;
            Ok::<_, store::Error>((lines, workers::list(&self.pool, WORKER_SILENT, WORKERS_MAX).await?))
        };
        let seen = seen.await;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match seen {
            Ok((lines, workers)) => state.learn(&lines, &workers),
            Err(error) => tracing::debug!(error = %error, "how long the queues are is not known just now"),
        }
        state.next = Some(Instant::now() + INTERVAL.max(began.elapsed() * COST_FACTOR));
        state.refreshing = false;
    }
}

impl State {
    fn learn(&mut self, lines: &[jobs::Line], workers: &[workers::Seen]) {
        let mut beats = HashMap::new();
        let mut paces: HashMap<&str, f64> = HashMap::new();
        for worker in workers {
            for (queue, claimed) in worker.queues.iter().zip(&worker.claimed) {
                let key = (worker.id, queue.clone());
                let before = self.workers.get(&key).copied();
                let beat = beat(before, *claimed, worker.started_at, worker.seen_at);
                *paces.entry(queue).or_default() += beat.pace_per_s;
                beats.insert(key, beat);
            }
        }
        let known = lines.iter().map(|line| {
            let pace_per_s = paces.get(line.queue.as_str()).copied().filter(|_| !line.paused);
            let (depth, steps) = (line.ready.iter().map(|(_, count)| count).sum(), line.ready.as_slice().into());
            (line.queue.clone(), Outlook { depth, as_of: line.as_of, pace_per_s, line: steps, taken: Instant::now() })
        });
        self.known = known.collect();
        self.workers = beats;
    }
}

/// What a worker claims per second: since it was heard of before, or since it started.
fn beat(before: Option<Beat>, claimed: i64, started_at: DateTime<Utc>, at: DateTime<Utc>) -> Beat {
    let (since, had) = before.map_or((started_at, 0), |before| (before.at, before.claimed));
    let seconds = (at - since).as_seconds_f64();
    if seconds <= 0.0 {
        return before.unwrap_or(Beat { claimed, at, pace_per_s: 0.0 });
    }
    #[expect(clippy::cast_precision_loss, reason = "it is an estimate")]
    let pace_per_s = (claimed - had).max(0) as f64 / seconds;
    Beat { claimed, at, pace_per_s }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outlook(depth: u64, pace_per_s: Option<f64>) -> Outlook {
        let line = [(0, depth)].into();
        Outlook { depth, as_of: DateTime::UNIX_EPOCH, pace_per_s, line, taken: Instant::now() }
    }

    #[test]
    fn a_start_is_told_only_where_depth_and_pace_say_it() {
        let now = DateTime::UNIX_EPOCH;
        let at = |seconds| Some(now + TimeDelta::seconds(seconds));
        let first = (0, 0);
        assert_eq!(outlook(100, Some(10.0)).start(now, first, None), at(10));
        assert_eq!(outlook(100, Some(10.0)).start(now, (50, 0), None), at(15));
        assert_eq!(outlook(100, Some(10.0)).start(now, first, at(60)), at(60));
        assert_eq!(outlook(0, Some(0.0)).start(now, first, None), at(0), "an idle worker takes it at once");
        assert_eq!(outlook(1, Some(0.0)).start(now, first, None), None, "nothing moves");
        assert_eq!(outlook(0, None).start(now, first, None), None, "nobody is there");
        assert_eq!(outlook(u64::MAX / 2, Some(1.0)).start(now, first, None), None);
    }

    #[test]
    fn a_start_heeds_priority_and_how_long_the_others_have_waited() {
        let now = DateTime::UNIX_EPOCH + TimeDelta::hours(100);
        let step = |priority: i64, waited: i64| 600 - waited - priority;
        // So many wait: of priority 0 since just now, of priority 5, and of priority 0 since over an hour.
        let line = [(step(0, 0), 100), (step(5, 0), 10), (step(0, 7), 1)].into();
        let outlook = Outlook { depth: 111, as_of: now, pace_per_s: Some(1.0), line, taken: Instant::now() };
        let wait = |priority| (outlook.start(now, (0, priority), None).unwrap() - now).num_seconds();
        assert_eq!([0, -3, 1, 5, 6, 8].map(wait), [111, 111, 11, 11, 1, 0]);
    }

    #[test]
    fn a_workers_pace_is_what_it_claimed_since_it_was_heard_of() {
        let at = |seconds| DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds);
        let first = beat(None, 30, at(0), at(3));
        let second = beat(Some(first), 90, at(0), at(6));
        let silent = beat(Some(second), 90, at(0), at(6));
        let shown = [first, second, silent].map(|beat| format!("{:.1}", beat.pace_per_s));
        assert_eq!(shown, ["10.0", "20.0", "20.0"]);
    }
}
