//! What a pool of children counts. Numbers only; what they are shown as is somebody else's.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters that all clones of a pool share.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) returned: Counter,
    pub(super) thrown: Counter,
    pub(super) broken: Counter,
    pub(super) refused: Counter,
    pub(super) started: Counter,
    pub(super) replaced: Counter,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a pool has done so far, and how it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Passes that returned.
    pub returned: u64,
    /// Passes that ended with an error of the app's.
    pub thrown: u64,
    /// Passes after which the child was not to be trusted any more: it was over a limit, or it died.
    pub broken: u64,
    /// Passes that got no child.
    pub refused: u64,
    /// Children that became warm.
    pub started: u64,
    /// Children that were ended and replaced, whatever the reason.
    pub replaced: u64,
    /// Children that are warm and free.
    pub idle: usize,
    /// Children there should be.
    pub size: usize,
    /// Passes that wait for a child.
    pub waiting: usize,
}
