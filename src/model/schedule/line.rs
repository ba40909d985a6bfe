//! A cron line on a wall clock: which instants it means in a zone whose clock jumps. Pure.
//!
//! A line whose hours are named (`0 2 * * *`, `30 8-18 * * *`) is meant for the clock on the wall. A time that the clock
//! skips fires once, at the first instant after the gap; a time that it shows twice fires once, the first. A line with a
//! wildcard or a step in its hours (`0 * * * *`, `30 */2 * * *`) follows real time: it fires whenever the clock shows a
//! time that it names, in both passes of a fold, and not for times that were never shown.

use ::cron::Schedule;
use chrono::{DateTime, MappedLocalTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

use crate::model::{manifest::cron, zone};

/// Longer than any stretch of local time that a clock shows twice: a whole calendar day, and some room.
const FOLD_LONGEST: TimeDelta = TimeDelta::hours(26);

/// A cron line, ready to be asked.
#[derive(Debug, Clone)]
pub struct Line {
    schedule: Schedule,
    follows_real_time: bool,
}

impl Line {
    /// Reads a line; see [`cron::parse`].
    pub fn parse(text: &str) -> Result<Self, String> {
        let schedule = cron::parse(text)?;
        let hours = text.split_whitespace().nth(1).unwrap_or_default();
        Ok(Self { schedule, follows_real_time: hours.contains(['*', '/', '?']) })
    }

    /// The first instant after `after` that the line means in `zone`; none when it never fires again.
    pub fn next(&self, after: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
        if self.follows_real_time { self.next_real(after, zone) } else { self.next_fixed(after, zone) }
    }

    /// The instant of a local time never falls when that time rises, so the first one that lies after `after` is it.
    fn next_fixed(&self, after: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
        let shown = zone::local(after, zone).and_utc();
        let mut instants = self.schedule.after(&shown).map(|at| zone::at(at.date_naive(), at.time(), zone).ok());
        instants.find(|at| at.is_none_or(|at| at > after)).flatten()
    }

    fn next_real(&self, after: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
        // With a fold right ahead, times that the clock has shown already come again.
        let back = (offset(after, zone) - offset(after + FOLD_LONGEST, zone)).max(TimeDelta::zero());
        let from = (zone::local(after, zone) - back).and_utc();
        let mut found: Option<DateTime<Utc>> = None;
        for shown in self.schedule.after(&from) {
            let (first, last) = match zone.from_local_datetime(&shown.naive_utc()) {
                MappedLocalTime::None => continue,
                MappedLocalTime::Single(at) => (at.to_utc(), at.to_utc()),
                MappedLocalTime::Ambiguous(first, last) => (first.to_utc(), last.to_utc()),
            };
            let sooner = [first, last].into_iter().find(|at| *at > after);
            found = found.into_iter().chain(sooner).min();
            // Times that the clock shows later have their first pass later, too: nothing sooner can come.
            if first > after {
                break;
            }
        }
        found
    }
}

/// How far the clock of `zone` is ahead of UTC.
pub(super) fn offset(at: DateTime<Utc>, zone: Tz) -> TimeDelta {
    zone::local(at, zone) - at.naive_utc()
}

#[cfg(test)]
mod tests {
    use super::Line;

    /// The first fires after an instant, as texts in UTC without the date.
    fn fires(line: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let (line, zone) = (Line::parse(line).unwrap(), zone.parse().unwrap());
        let mut at = after.parse().unwrap();
        let next = || {
            at = line.next(at, zone).unwrap();
            at.format("%d %H:%M").to_string()
        };
        std::iter::repeat_with(next).take(count).collect()
    }

    #[test]
    fn a_named_hour_fires_once_in_the_gap_and_once_in_the_fold() {
        // Berlin skips 02:00 to 03:00 on 29 March 2026 (01:00 UTC) and shows it twice on 25 October (01:00 UTC).
        let gap = "2026-03-28T02:00:00Z";
        assert_eq!(fires("30 2 * * *", "Europe/Berlin", gap, 2), ["29 01:00", "30 00:30"]);
        assert_eq!(
            fires("*/20 2,3 * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 4),
            ["29 01:00", "29 01:20", "29 01:40", "30 00:00"]
        );
        let fold = "2026-10-24T12:00:00Z";
        assert_eq!(fires("30 2 * * *", "Europe/Berlin", fold, 2), ["25 00:30", "26 01:30"]);
        assert_eq!(fires("*/30 2 * * *", "Europe/Berlin", fold, 3), ["25 00:00", "25 00:30", "26 01:00"]);
        // Asked from within the second pass.
        assert_eq!(fires("45 2 * * *", "Europe/Berlin", "2026-10-25T01:15:00Z", 1), ["26 01:45"]);
    }

    #[test]
    fn a_wildcard_or_step_in_the_hours_follows_real_time() {
        let fold = "2026-10-24T23:30:00Z";
        assert_eq!(fires("0 * * * *", "Europe/Berlin", fold, 4), ["25 00:00", "25 01:00", "25 02:00", "25 03:00"]);
        assert_eq!(fires("30 */2 * * *", "Europe/Berlin", fold, 3), ["25 00:30", "25 01:30", "25 03:30"]);
        let gap = "2026-03-29T00:10:00Z";
        assert_eq!(fires("0 * * * *", "Europe/Berlin", gap, 2), ["29 01:00", "29 02:00"]);
        assert_eq!(fires("30 */2 * * *", "Europe/Berlin", gap, 2), ["29 02:30", "29 04:30"]);
        // Half an hour in Lord Howe: the clock goes back from 02:00 to 01:30 on 5 April 2026 (15:00 UTC on the 4th).
        assert_eq!(
            fires("*/15 */1 * * *", "Australia/Lord_Howe", "2026-04-04T14:30:00Z", 4),
            ["04 14:45", "04 15:00", "04 15:15", "04 15:30"]
        );
    }
}
