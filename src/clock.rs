//! The machine's clock: the only place that asks the operating system for the time.

use chrono::{DateTime, Utc};

use crate::model::clock::Clock;

/// The real time.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one door for the real time")]
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}
