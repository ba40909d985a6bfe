//! The leases a worker holds: renewed by one statement per heartbeat, and the signal that stops a handler whose lease is
//! lost. Refuses to guess: a lease is lost when the database says so, not when a heartbeat fails.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use sqlx::PgPool;
use tokio::{sync::Notify, time::Instant};

use super::metrics::{Loop, Metrics};
use crate::{
    model::{
        id::{JobId, WorkerId},
        job::Lease,
    },
    store::{Error, leases},
    supervisor::Part,
};

/// A lease is renewed when it is this share of its length old, and the heartbeat comes as often.
pub const HEARTBEATS_PER_LEASE: u32 = 3;
/// The wait after a heartbeat that failed: short, for every lease of the process hangs on it.
const RETRY_WAIT: Duration = Duration::from_millis(500);

/// Why a handler must stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The job is another worker's by now, or nobody's.
    Lost,
    /// The job was cancelled. The handler may go on for its policy's `grace`, to leave things in order; nothing that it
    /// would commit with the job is kept.
    Cancelled,
    /// The worker must end now; the job is given back.
    Drain,
}

#[derive(Debug, Default)]
struct Signal {
    reason: AtomicU8,
    raised: Notify,
}

/// Tells a handler that its work is for nothing. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Cancelled(Arc<Signal>);

impl Cancelled {
    /// Why to stop; none while all is well.
    pub fn reason(&self) -> Option<Reason> {
        match self.0.reason.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Reason::Lost),
            2 => Some(Reason::Cancelled),
            _ => Some(Reason::Drain),
        }
    }

    /// Waits until there is a reason to stop.
    pub async fn wait(&self) -> Reason {
        loop {
            let raised = self.0.raised.notified();
            if let Some(reason) = self.reason() {
                return reason;
            }
            raised.await;
        }
    }

    fn raise(&self, reason: Reason) {
        let code = match reason {
            Reason::Lost => 1,
            Reason::Cancelled => 2,
            Reason::Drain => 3,
        };
        // The first reason stays: a job that is lost is not given back afterwards.
        let _ = self.0.reason.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
        self.0.raised.notify_waiters();
    }
}

struct Held {
    since: Instant,
    cancelled: Cancelled,
}

/// All leases of one worker process.
pub(super) struct Leases {
    /// This start of the worker.
    pub(super) worker_id: WorkerId,
    /// How long a lease lasts unrenewed.
    pub(super) length: Duration,
    held: Mutex<HashMap<Lease, Held>>,
    /// Rings when some are as old as that when they are held: the answer to their claim took long.
    aged: Notify,
}

impl Leases {
    pub(super) fn new(worker_id: WorkerId, length: Duration) -> Self {
        Self { worker_id, length, held: Mutex::default(), aged: Notify::new() }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashMap<Lease, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of freshly claimed leases, which may be as old as `since`; gives their signals in the same order.
    pub(super) fn hold<'a>(&self, leases: impl Iterator<Item = &'a Lease>, since: Instant) -> Vec<Cancelled> {
        if since.elapsed() >= self.age() {
            self.aged.notify_one();
        }
        let mut held = self.held();
        leases
            .map(|lease| {
                let cancelled = Cancelled::default();
                held.insert(*lease, Held { since, cancelled: cancelled.clone() });
                cancelled
            })
            .collect()
    }

    /// Forgets leases whose job is settled.
    pub(super) fn release<'a>(&self, leases: impl Iterator<Item = &'a Lease>) {
        let mut held = self.held();
        for lease in leases {
            held.remove(lease);
        }
    }

    /// Stops every handler.
    pub(super) fn stop_all(&self) {
        self.held().values().for_each(|held| held.cancelled.raise(Reason::Drain));
    }

    /// Tells the handlers of `jobs` that their job was cancelled.
    pub(super) fn cancel(&self, jobs: &[JobId]) {
        if !jobs.is_empty() {
            let held = self.held();
            let theirs = held.iter().filter(|(lease, _)| jobs.contains(&lease.job_id));
            theirs.for_each(|(_, held)| held.cancelled.raise(Reason::Cancelled));
        }
    }

    /// How many are held.
    pub(super) fn count(&self) -> usize {
        self.held().len()
    }

    /// Younger ones wait for the next heartbeat.
    fn age(&self) -> Duration {
        self.length / HEARTBEATS_PER_LEASE / 2
    }

    /// Those old enough to be renewed. Two statements about the same jobs lock them in the same order, or Postgres finds the
    /// deadlock after a second and one of them fails.
    fn due(&self) -> Vec<Lease> {
        let age = self.age();
        let held = self.held();
        let due = held.iter().filter(|(_, held)| held.since.elapsed() >= age);
        let mut due: Vec<_> = due.map(|(lease, _)| *lease).collect();
        due.sort_unstable_by_key(|lease| lease.job_id);
        due
    }

    fn lose(&self, leases: impl Iterator<Item = Lease>) -> usize {
        let held = self.held();
        let lost = leases.filter_map(|lease| held.get(&lease).map(|held| (lease, held)));
        lost.map(|(lease, held)| {
            tracing::warn!(job.id = %lease.job_id, "the lease of job {} is lost; its handler is stopped", lease.job_id);
            held.cancelled.raise(Reason::Lost);
        })
        .count()
    }

    /// One heartbeat: renews what is due, stops the handlers of what is lost. Gives the count of both.
    pub(super) async fn beat(&self, db: &PgPool) -> Result<(usize, usize), Error> {
        let due = self.due();
        if due.is_empty() {
            return Ok((0, 0));
        }
        let kept: HashSet<Lease> = leases::renew(db, &due, self.length).await?.into_iter().collect();
        let (renewed, lost): (Vec<_>, Vec<_>) = due.into_iter().partition(|lease| kept.contains(lease));
        Ok((renewed.len(), self.lose(lost.into_iter())))
    }

    /// Heartbeats until dropped.
    pub(super) async fn keep(&self, db: &PgPool, metrics: &Metrics, part: &Part) {
        // There is nothing to renew yet.
        part.beat();
        let interval = self.length / HEARTBEATS_PER_LEASE;
        let mut wait = interval;
        loop {
            let _ = tokio::time::timeout(wait, self.aged.notified()).await;
            let beat = self.beat(db).await;
            metrics.ticked(Loop::Heartbeat, beat.is_ok());
            wait = match beat {
                Ok((_, lost)) => {
                    metrics.leases_lost(lost);
                    part.beat();
                    interval
                }
                Err(error) => {
                    part.turn();
                    tracing::warn!(error = %error, "a heartbeat failed; trying again");
                    RETRY_WAIT.min(interval)
                }
            };
        }
    }
}
