//! What stands between a feeder and the apalis worker it feeds: the shelf of claimed jobs, and the word to stop.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::task::AtomicWaker;
use tokio::sync::Notify;

use super::execute::Work;

/// Claimed jobs that nobody has begun. Bounded by the lane's window.
#[derive(Default)]
pub(super) struct Shelf {
    works: Mutex<VecDeque<Work>>,
    /// The apalis worker that looks for the next one.
    pub(super) taker: AtomicWaker,
    pub(super) closed: AtomicBool,
    /// Rings when the shelf runs low.
    pub(super) low: Notify,
}

impl Shelf {
    pub(super) fn works(&self) -> std::sync::MutexGuard<'_, VecDeque<Work>> {
        self.works.lock().unwrap_or_else(PoisonError::into_inner)
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

    pub(super) fn len(&self) -> usize {
        self.works().len()
    }
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
