//! The next fires as a person wants to see them: on the wall clock, with the jumps of that clock marked. Pure.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::{line::offset, timing::Timing};

/// How many fires are shown.
pub const UPCOMING: usize = 10;

/// A fire to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Upcoming {
    /// When it is meant to fire.
    pub nominal_at: DateTime<Utc>,
    /// When it will, jitter included.
    pub due_at: DateTime<Utc>,
    /// The nominal instant on the schedule's clock, with that clock's offset.
    pub local: String,
    /// What the clock does between the fire before (for the first, now) and this one, where it jumps: `+60` minutes when
    /// it goes ahead, `-60` when it goes back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_moves_minutes: Option<i64>,
}

/// The next [`UPCOMING`] fires, the first being `next` where one is known.
pub fn upcoming(timing: &Timing, now: DateTime<Utc>, next: Option<DateTime<Utc>>) -> Vec<Upcoming> {
    let mut before = now;
    let mut nominal = next.or_else(|| timing.next(now));
    let mut list = Vec::with_capacity(UPCOMING);
    while let Some(at) = nominal.filter(|_| list.len() < UPCOMING) {
        let moved = offset(at, timing.zone) - offset(before, timing.zone);
        list.push(Upcoming {
            nominal_at: at,
            due_at: timing.due(at),
            local: at.with_timezone(&timing.zone).to_rfc3339_opts(chrono::SecondsFormat::Secs, false),
            clock_moves_minutes: Some(moved.num_minutes()).filter(|minutes| *minutes != 0),
        });
        before = at;
        nominal = timing.next(at);
    }
    list
}

/// A length of time as the difference of instants; the longest where it does not fit.
pub(super) fn delta(length: Duration) -> TimeDelta {
    TimeDelta::from_std(length).unwrap_or(TimeDelta::MAX)
}
