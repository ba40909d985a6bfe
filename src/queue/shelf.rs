//! What stands between a feeder and the apalis worker it feeds: the shelf of claimed jobs, and the word to stop. Refuses to
//! let one user's jobs stand in front of all of another's.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::task::AtomicWaker;
use tokio::sync::Notify;

use super::execute::Work;
use crate::model::id::UserId;

/// Claimed jobs that nobody has begun. Bounded by the lane's window.
#[derive(Default)]
pub(super) struct Shelf {
    works: Mutex<VecDeque<Work>>,
    /// The apalis worker that looks for the next one.
    pub(super) taker: AtomicWaker,
    closed: AtomicBool,
    /// Rings when the shelf runs low.
    low: Notify,
}

impl Shelf {
    fn works(&self) -> std::sync::MutexGuard<'_, VecDeque<Work>> {
        self.works.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts freshly claimed jobs on it and wakes who takes. Where they are of several users, one of each goes first, then
    /// the second of each, and so on.
    pub(super) fn put(&self, fresh: impl ExactSizeIterator<Item = Work>) {
        if fresh.len() == 0 {
            return;
        }
        let mut works = self.works();
        works.extend(fresh);
        let first = works.front().and_then(|work| work.job.user_id);
        if works.iter().any(|work| work.job.user_id != first) {
            *works = by_turns(mem::take(&mut works));
        }
        drop(works);
        self.taker.wake();
    }

    /// The next job; `Err` when there will be none any more.
    pub(super) fn take(&self, low: usize) -> Result<Option<Work>, ()> {
        let mut works = self.works();
        let work = works.pop_front();
        if work.is_some() && works.len() == low {
            self.low.notify_one();
        }
        if work.is_none() && self.closed.load(Ordering::Acquire) { Err(()) } else { Ok(work) }
    }

    /// Ends it; gives what was still there.
    pub(super) fn close(&self) -> VecDeque<Work> {
        self.closed.store(true, Ordering::Release);
        let works = mem::take(&mut *self.works());
        self.taker.wake();
        works
    }

    /// Waits until it runs low.
    pub(super) async fn is_low(&self) {
        self.low.notified().await;
    }

    pub(super) fn len(&self) -> usize {
        self.works().len()
    }
}

fn by_turns(works: VecDeque<Work>) -> VecDeque<Work> {
    let mut seen: HashMap<Option<UserId>, usize> = HashMap::new();
    let place = |work: Work| {
        let place = seen.entry(work.job.user_id).or_default();
        *place += 1;
        (*place, work)
    };
    let mut placed: Vec<_> = works.into_iter().map(place).collect();
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, work)| work).collect()
}

/// Stops a lane.
#[derive(Default)]
pub(super) struct Drain {
    pub(super) begun: AtomicBool,
    pub(super) bell: Notify,
}

impl Drain {
    pub(super) fn begin(&self) {
        self.begun.store(true, Ordering::Release);
        self.bell.notify_one();
    }
}
