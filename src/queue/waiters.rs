//! Who in this process waits for which job to end. Refuses nothing; a waiter that is never told looks for itself.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;

use crate::model::id::JobId;

/// How many wait for each job, and what rings for all of them.
type Watched = HashMap<JobId, (usize, Arc<Notify>)>;

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
        let entry = all.entry(id).or_default();
        entry.0 += 1;
        Waiting { id, ended: entry.1.clone(), waiters: self.clone() }
    }

    /// `id` has ended.
    pub(super) fn finished(&self, id: JobId) {
        if let Some((_, ended)) = self.all().get(&id) {
            ended.notify_waiters();
            ended.notify_one();
        }
    }

    /// Notices may have been missed.
    pub(super) fn look_again(&self) {
        self.all().values().for_each(|(_, ended)| {
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
        if let Some(entry) = all.get_mut(&self.id) {
            entry.0 -= 1;
            if entry.0 == 0 {
                all.remove(&self.id);
            }
        }
    }
}
