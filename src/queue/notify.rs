//! Tells workers that jobs are ready and waiters that jobs have ended: after commit, many in one NOTIFY, from one
//! connection. Refuses to be more than a hint: a notice that is lost costs the time to the next poll, nothing else.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{BuildHasher, RandomState},
    mem,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::PgPool;
use tokio::sync::Notify;

use super::{metrics::Metrics, waiters::Waiters};
use crate::{
    model::id::JobId,
    store::{
        self, Stack,
        notices::{self, FINISHED_CHANNEL, Listener},
    },
};

/// The most finished jobs that wait to be announced; what comes on top is found by polling.
const FINISHED_MAX: usize = 10_000;
/// Ids in one payload: 36 bytes and a comma each, under Postgres' 8,000.
const FINISHED_PER_NOTICE: usize = 200;
/// Queue names in one payload: at most 63 bytes and a comma each.
const QUEUES_PER_NOTICE: usize = 100;
/// The least time between two notices: the first goes out at once. In a flood it grows up to the longest, for a notice costs
/// work in every process that listens, and what is announced together is looked at together.
const NOTICE_GAP: Duration = Duration::from_millis(4);
const NOTICE_GAP_LONGEST: Duration = Duration::from_millis(16);
/// It is a flood when news comes oftener than this.
const FLOOD: Duration = Duration::from_millis(2);
/// The longest silence before the listening connection is tried.
const QUIET: Duration = Duration::from_secs(20);
/// Waits between attempts to listen again.
const RECONNECT_FIRST: Duration = Duration::from_millis(100);
const RECONNECT_LONGEST: Duration = Duration::from_secs(3);

#[derive(Default)]
struct Unsent {
    queues: BTreeSet<String>,
    finished: Vec<JobId>,
    /// Of how many jobs there is news.
    jobs: u32,
}

/// Sends and receives the notices of one process. Cheap to clone.
#[derive(Clone)]
pub(super) struct Notices(Arc<Inner>);

struct Inner {
    /// Marks our own notices: we have acted on them before they were sent.
    origin: String,
    unsent: Mutex<Unsent>,
    pending: Notify,
    sender: OnceLock<()>,
    listens: AtomicBool,
    lanes: Mutex<HashMap<String, Vec<Arc<Notify>>>>,
    waiters: Waiters,
    metrics: Metrics,
    stack: Stack,
}

impl Notices {
    pub(super) fn new(pool: &PgPool, waiters: Waiters, metrics: Metrics) -> Self {
        let origin = format!("{:016x}", RandomState::new().hash_one(std::process::id()));
        // Losing a notice's commit is harmless, so it need not wait for the disk.
        let pool = store::beside(pool, 2, &store::RELAXED);
        let stack = Stack::over(&pool);
        metrics.watch_pool("notices", &stack);
        Self(Arc::new(Inner {
            origin,
            unsent: Mutex::default(),
            pending: Notify::new(),
            sender: OnceLock::new(),
            listens: AtomicBool::new(false),
            lanes: Mutex::default(),
            waiters,
            metrics,
            stack,
        }))
    }

    /// Jobs of `queues` were committed as ready.
    pub(super) fn ready<'a>(&self, queues: impl IntoIterator<Item = &'a str>) {
        let mut unsent = self.0.unsent();
        for queue in queues {
            unsent.jobs = unsent.jobs.saturating_add(1);
            self.0.wake_lanes(Some(queue));
            if !unsent.queues.contains(queue) {
                unsent.queues.insert(queue.to_owned());
            }
        }
        drop(unsent);
        self.send();
    }

    /// The end of awaited jobs was committed.
    pub(super) fn finished(&self, ids: impl IntoIterator<Item = JobId>) {
        let mut unsent = self.0.unsent();
        for id in ids {
            unsent.jobs = unsent.jobs.saturating_add(1);
            self.0.waiters.finished(id);
            if unsent.finished.len() < FINISHED_MAX {
                unsent.finished.push(id);
            }
        }
        drop(unsent);
        self.send();
    }

    fn send(&self) {
        self.0.sender.get_or_init(|| {
            let inner = Arc::downgrade(&self.0);
            tokio::spawn(async move {
                let mut gap = NOTICE_GAP;
                while let Some(inner) = inner.upgrade() {
                    gap = inner.send_next(gap).await;
                }
            });
        });
        self.0.pending.notify_one();
    }

    /// What rings when a job of `queue` may be ready.
    pub(super) fn lane(&self, queue: &str) -> Arc<Notify> {
        let bell = Arc::new(Notify::new());
        let mut lanes = self.0.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.entry(queue.to_owned()).or_default().push(bell.clone());
        bell
    }

    /// Begins to listen, once per process.
    pub(super) fn listen(&self) {
        if !self.0.listens.swap(true, Ordering::AcqRel) {
            let (inner, pool) = (Arc::downgrade(&self.0), self.0.stack.pool().clone());
            tokio::spawn(async move {
                let mut wait = RECONNECT_FIRST;
                loop {
                    let heard = hear(&inner, &pool, &mut wait).await;
                    let Some(inner) = inner.upgrade() else { return };
                    inner.metrics.listening(false);
                    if let Err(error) = heard {
                        tracing::debug!(error = %error, "not listening for notices; polling goes on");
                    }
                    inner.wake_lanes(None);
                    inner.waiters.look_again();
                    drop(inner);
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(RECONNECT_LONGEST);
                }
            });
        }
    }
}

/// The gap after one in which there was news of so many jobs.
fn next_gap(gap: Duration, jobs: u32) -> Duration {
    if FLOOD.saturating_mul(jobs) > gap { (gap * 2).min(NOTICE_GAP_LONGEST) } else { NOTICE_GAP }
}

impl Inner {
    fn wake_lanes(&self, queue: Option<&str>) {
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let bells =
            lanes.iter().filter(|(name, _)| queue.is_none_or(|queue| *name == queue)).flat_map(|(_, bells)| bells);
        bells.for_each(|bell| bell.notify_one());
    }

    fn unsent(&self) -> MutexGuard<'_, Unsent> {
        self.unsent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what there is to send, and then waits for `gap`; gives the one after the next notice.
    async fn send_next(&self, gap: Duration) -> Duration {
        if tokio::time::timeout(QUIET, self.pending.notified()).await.is_err() {
            return NOTICE_GAP;
        }
        let unsent = mem::take(&mut *self.unsent());
        let queues: Vec<_> = unsent.queues.into_iter().collect();
        let ids: Vec<_> = unsent.finished.iter().map(ToString::to_string).collect();
        let notices = queues.len().div_ceil(QUEUES_PER_NOTICE).max(ids.len().div_ceil(FINISHED_PER_NOTICE));
        for index in 0..notices {
            let payload = |names: Option<&[String]>| {
                names.map(|names| format!("{} {}", self.origin, names.join(","))).unwrap_or_default()
            };
            let jobs = payload(queues.chunks(QUEUES_PER_NOTICE).nth(index));
            let finished = payload(ids.chunks(FINISHED_PER_NOTICE).nth(index));
            if let Err(error) = self.notify(&jobs, &finished).await {
                tracing::debug!(error = %error, "a notice was not sent; polling finds what it announced");
                return NOTICE_GAP;
            }
            self.metrics.notice_sent();
        }
        tokio::time::sleep(gap).await;
        next_gap(gap, self.unsent().jobs)
    }

    async fn notify(&self, jobs: &str, finished: &str) -> Result<(), store::Error> {
        let mut db = self.stack.take().await?;
        let sent = notices::notify(&mut *db, jobs, finished).await;
        db.after(sent)
    }

    /// Acts on a notice, unless it is one of our own.
    fn heard(&self, channel: &str, payload: &str) {
        let Some((_, names)) = payload.split_once(' ').filter(|(origin, _)| *origin != self.origin) else { return };
        self.metrics.notice_received();
        for name in names.split(',') {
            if channel == FINISHED_CHANNEL {
                if let Ok(id) = name.parse() {
                    self.waiters.finished(id);
                }
            } else {
                self.wake_lanes(Some(name));
            }
        }
    }
}

/// Listens until that fails, or until nobody is left who would hear: the last one may have gone up to [`QUIET`] ago.
async fn hear(inner: &Weak<Inner>, pool: &PgPool, wait: &mut Duration) -> Result<(), store::Error> {
    let mut listener = Listener::connect(pool).await?;
    *wait = RECONNECT_FIRST;
    if let Some(inner) = inner.upgrade() {
        inner.metrics.listening(true);
        inner.wake_lanes(None);
        inner.waiters.look_again();
    }
    loop {
        let notice = listener.next(QUIET).await?;
        let Some(inner) = inner.upgrade() else { return Ok(()) };
        if let Some((channel, payload)) = notice {
            inner.heard(&channel, &payload);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_between_notices_grows_in_a_flood_alone() {
        // Jobs in each gap one after the other, and the gap that follows.
        let mut gap = NOTICE_GAP;
        for (jobs, millis) in [(0, 4), (1, 4), (2, 4), (3, 8), (5, 16), (9, 16), (8, 4), (u32::MAX / 2, 8)] {
            gap = next_gap(gap, jobs);
            assert_eq!(gap, Duration::from_millis(millis), "{jobs} jobs");
        }
    }
}
