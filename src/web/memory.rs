//! Answers of the database that are believed for a moment, so that a busy client costs one statement a second instead of
//! one a request. Refuses to grow: past its bound everything is forgotten.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long an answer is believed: a revoked token and a removed app are noticed within this time.
pub const BELIEVED_FOR: Duration = Duration::from_secs(1);
/// How many answers of one sort are kept.
const KEPT_MAX: usize = 8_192;

/// Answers by key.
pub struct Memory<K, V>(Mutex<HashMap<K, (V, Instant)>>);

impl<K, V> Default for Memory<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq, V: Clone> Memory<K, V> {
    /// The answer for `key`, if there is one young enough.
    pub fn recall(&self, key: &K) -> Option<V> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(key).filter(|(_, at)| at.elapsed() < BELIEVED_FOR).map(|(value, _)| value.clone())
    }

    /// Keeps an answer.
    pub fn keep(&self, key: K, value: V) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX && !kept.contains_key(&key) {
            kept.clear();
        }
        kept.insert(key, (value, Instant::now()));
    }
}
