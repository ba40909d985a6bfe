//! Callers at the same time share one trip to the database. While one is under way the next waits for it, with whoever comes
//! meanwhile: a busy machine makes few large trips, an idle one goes at once. Refuses to wait for a slow one: after
//! [`PATIENCE`] the next goes beside it.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Mutex, OwnedMutexGuard, mpsc};

/// The longest that a trip waits for the one before it. A commit takes some ten milliseconds on a slow disk.
const PATIENCE: Duration = Duration::from_millis(3);
/// How often a trip lets others run before it goes, while more callers come of it.
const YIELDS_MAX: usize = 4;
/// Trips at once: those beside a slow one.
pub(super) const TRIPS: usize = 2;

/// Who has come, and who is under way. Cheap to clone.
pub(super) struct Gather<T> {
    inbox: Arc<Mutex<mpsc::Receiver<T>>>,
    way: Arc<Mutex<()>>,
}

/// A trip is under way until this is dropped.
pub(super) struct Trip(#[expect(dead_code, reason = "it is held, not read")] Option<OwnedMutexGuard<()>>);

impl<T> Clone for Gather<T> {
    fn clone(&self) -> Self {
        Self { inbox: self.inbox.clone(), way: self.way.clone() }
    }
}

impl<T> Gather<T> {
    pub(super) fn new(inbox: mpsc::Receiver<T>) -> Self {
        Self { inbox: Arc::new(Mutex::new(inbox)), way: Arc::default() }
    }

    /// Waits for callers and then for the way to be free; puts at most `most` of them into `callers`. None when no caller
    /// can come any more.
    pub(super) async fn next(&self, callers: &mut Vec<T>, most: usize) -> Option<Trip> {
        let mut inbox = self.inbox.lock().await;
        if inbox.recv_many(callers, most).await == 0 {
            return None;
        }
        let way = tokio::time::timeout(PATIENCE, self.way.clone().lock_owned()).await.ok();
        // Whoever was just answered may come again at once, and others with them: they run before this goes on.
        for _ in 0..YIELDS_MAX {
            let before = callers.len();
            tokio::task::yield_now().await;
            while callers.len() < most
                && let Ok(caller) = inbox.try_recv()
            {
                callers.push(caller);
            }
            if callers.len() == before {
                break;
            }
        }
        Some(Trip(way))
    }
}
