//! The door through which time comes in. [`crate::clock::SystemClock`] is the real one; tests bring their own.

use chrono::{DateTime, Utc};

/// Tells the time. Everything that needs "now" takes one of these, so that a test can set it.
pub trait Clock: Send + Sync {
    /// The present instant.
    fn now(&self) -> DateTime<Utc>;
}
