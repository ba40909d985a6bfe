//! Who in this process waits for which job to end. Refuses nothing; a waiter that is never told looks for itself.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;

use crate::model::id::JobId;

/// The ends that are remembered though nobody waited for them. A job may end before the caller who has just enqueued it
/// begins to wait: some milliseconds, in which far fewer jobs end than this.
const REMEMBERED: usize = 1_024;

#[derive(Default)]
struct Watched {
    /// How many wait for each job, and what rings for all of them.
    jobs: HashMap<JobId, (usize, Arc<Notify>)>,
    /// The latest ends that nobody waited for, newest last.
    ended: VecDeque<JobId>,
}

/// The waiters of one process. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Waiters(Arc<Mutex<Watched>>);

impl Waiters {
    fn all(&self) -> std::sync::MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to wait for `id`, until the guard is dropped.
    pub(super) fn watch(&self, id: JobId) -> Waiting {
        let mut all = self.all();
        let missed = all.ended.contains(&id);
        let entry = all.jobs.entry(id).or_default();
        entry.0 += 1;
        if missed {
            entry.1.notify_one();
        }
        Waiting { id, ended: entry.1.clone(), waiters: self.clone() }
    }

    /// `id` has ended.
    pub(super) fn finished(&self, id: JobId) {
        let mut all = self.all();
        if let Some((_, ended)) = all.jobs.get(&id) {
            ended.notify_waiters();
            ended.notify_one();
            return;
        }
        if all.ended.len() == REMEMBERED {
            all.ended.pop_front();
        }
        all.ended.push_back(id);
    }

    /// Notices may have been missed.
    pub(super) fn look_again(&self) {
        self.all().jobs.values().for_each(|(_, ended)| {
            ended.notify_waiters();
            ended.notify_one();
        });
    }
}

/// One who waits.
pub(super) struct Waiting {
    id: JobId,
    /// Rings when the job may have ended.
    pub(super) ended: Arc<Notify>,
    waiters: Waiters,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut all = self.waiters.all();
        if let Some(entry) = all.jobs.get_mut(&self.id) {
            entry.0 -= 1;
            if entry.0 == 0 {
                all.jobs.remove(&self.id);
            }
        }
    }
}
