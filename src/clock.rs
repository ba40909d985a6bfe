//! The machine's clock: the only place that asks the operating system for the time.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

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

/// Between three quarters and the whole of `longest`, so that many processes do not look in step.
pub fn jittered(longest: Duration) -> Duration {
    let chance = RandomState::new().hash_one(0_u8) % 1_000;
    longest * 3 / 4 + longest * u32::try_from(chance).unwrap_or(0) / 4_000
}
