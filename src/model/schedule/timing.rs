//! When a schedule fires: its clockwork, its zone, its bounds, its jitter. Pure.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use sha2::{Digest, Sha256};

use super::line::Line;
use crate::model::id::ScheduleId;

/// The shortest time between two fires of a period; a cron line cannot name less than a minute.
pub const EVERY_SHORTEST: Duration = Duration::from_secs(1);

/// The clockwork.
#[derive(Debug, Clone)]
pub enum When {
    /// At the times that a cron line names.
    Cron(Box<Line>),
    /// Every so long, counted in real time from an instant.
    Every {
        /// How long; at least [`EVERY_SHORTEST`].
        period: Duration,
        /// From when on; itself no fire.
        anchor: DateTime<Utc>,
    },
    /// At one instant.
    Once(DateTime<Utc>),
}

/// The clockwork in its zone and bounds.
#[derive(Debug, Clone)]
pub struct Timing {
    /// Whose jitter.
    pub id: ScheduleId,
    /// The clockwork.
    pub when: When,
    /// Where the clock hangs that a cron line means.
    pub zone: Tz,
    /// No fire before this.
    pub starts_at: Option<DateTime<Utc>>,
    /// No fire after this.
    pub ends_at: Option<DateTime<Utc>>,
    /// The longest delay of a fire.
    pub jitter: Duration,
}

impl Timing {
    /// The first nominal fire after `after`; none when there is none any more.
    pub fn next(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let just_before = |start: DateTime<Utc>| start - TimeDelta::microseconds(1);
        let after = self.starts_at.map(just_before).filter(|start| *start > after).unwrap_or(after);
        let next = match &self.when {
            When::Cron(line) => line.next(after, self.zone),
            When::Every { period, anchor } => next_period(after, *period, *anchor),
            When::Once(at) => Some(*at).filter(|at| *at > after),
        };
        next.filter(|next| self.ends_at.is_none_or(|end| *next <= end))
    }

    /// When the nominal fire `nominal` is let go: with a delay that is always the same for this schedule and never reaches
    /// the fire after it.
    pub fn due(&self, nominal: DateTime<Utc>) -> DateTime<Utc> {
        let longest = i64::try_from(self.jitter.as_millis()).unwrap_or(i64::MAX);
        if longest == 0 {
            return nominal;
        }
        let gap = self.next(nominal).map_or(longest, |next| (next - nominal).num_milliseconds());
        let room = u64::try_from(longest.min(gap)).unwrap_or(0).max(1);
        nominal + TimeDelta::milliseconds(i64::try_from(hash(self.id) % room).unwrap_or(0))
    }
}

fn next_period(after: DateTime<Utc>, period: Duration, anchor: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let period = i64::try_from(period.as_millis()).ok().filter(|period| *period > 0)?;
    let passed = (after - anchor).num_milliseconds().max(0) / period;
    let at = |count: i64| anchor.checked_add_signed(TimeDelta::try_milliseconds(period.checked_mul(count)?)?);
    // Instants are finer than milliseconds: the one just reckoned may lie before `after` still.
    at(passed + 1).filter(|next| *next > after).or_else(|| at(passed + 2))
}

/// The same number for the same schedule for ever.
fn hash(id: ScheduleId) -> u64 {
    let digest = Sha256::digest(id.0.as_bytes());
    u64::from_be_bytes(std::array::from_fn(|index| digest[index]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn timing(when: When) -> Timing {
        let id = ScheduleId("018f0000-0000-7000-8000-000000000001".parse().unwrap());
        Timing { id, when, zone: Tz::UTC, starts_at: None, ends_at: None, jitter: Duration::ZERO }
    }

    #[test]
    fn a_period_counts_from_its_anchor_in_real_time() {
        let anchor = at("2026-01-01T00:00:10.0005Z");
        let timing = timing(When::Every { period: Duration::from_mins(15), anchor });
        assert_eq!(timing.next(anchor - TimeDelta::days(9)), Some(anchor + TimeDelta::minutes(15)));
        assert_eq!(timing.next(anchor), Some(anchor + TimeDelta::minutes(15)));
        let third = anchor + TimeDelta::minutes(45);
        assert_eq!(timing.next(third - TimeDelta::microseconds(1)), Some(third));
        assert_eq!(timing.next(third), Some(third + TimeDelta::minutes(15)));
    }

    #[test]
    fn a_start_and_an_end_belong_to_the_time_between_them() {
        let mut timing = timing(When::Cron(Box::new(Line::parse("0 9 * * *").unwrap())));
        timing.starts_at = Some(at("2026-03-03T09:00:00Z"));
        timing.ends_at = Some(at("2026-03-04T09:00:00Z"));
        assert_eq!(timing.next(at("2026-01-01T00:00:00Z")), Some(at("2026-03-03T09:00:00Z")));
        assert_eq!(timing.next(at("2026-03-03T09:00:00Z")), Some(at("2026-03-04T09:00:00Z")));
        assert_eq!(timing.next(at("2026-03-04T09:00:00Z")), None);
    }

    #[test]
    fn jitter_is_stable_and_never_reaches_the_next_fire() {
        let mut timing = timing(When::Cron(Box::new(Line::parse("* * * * *").unwrap())));
        timing.jitter = Duration::from_hours(1);
        let nominal = at("2026-03-03T09:00:00Z");
        let due = timing.due(nominal);
        assert_eq!(due, timing.due(nominal));
        assert!(due >= nominal && due < nominal + TimeDelta::minutes(1), "{due}");
        let mut seen = std::collections::BTreeSet::new();
        for last in 0..20 {
            timing.id = ScheduleId(format!("018f0000-0000-7000-8000-0000000000{last:02x}").parse().unwrap());
            seen.insert(timing.due(nominal));
        }
        assert!(seen.len() > 15, "jitter spreads: {seen:?}");
    }
}
