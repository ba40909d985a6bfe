//! Where a plain claim begins to look. While somebody holds an old snapshot no dead row can be removed, and whoever looks from
//! the beginning walks over all jobs that have ended since: then most claims begin where the ones before came to. Refuses to
//! overlook anything for long: what stands further in front is found by looks that begin a little earlier (a late commit) and
//! by looks at everything (a priority, a job that was given back). Those come the more often the cheaper they are.

use std::time::Duration;

use tokio::time::Instant;

use crate::store::leases::{Claimed, Place};

/// A look at everything that took longer than this, and than so much for each job it took, walked over something.
const SLOW: Duration = Duration::from_millis(20);
const SLOW_PER_JOB: Duration = Duration::from_micros(30);
/// How far in front of the last job claimed a late commit is looked for, in milliseconds of rank.
const LATE_MS: i64 = 100;
/// The share of the time that looks for late commits may take: a tenth.
const PAUSE_PER_LATE_LOOK: u32 = 10;
/// The least time between two looks at everything, and the share of the time that they may take: a fiftieth.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_PER_LOOK: u32 = 50;

/// How far a claim looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// At everything.
    Whole,
    /// From a little in front of the last job claimed.
    Late(Place),
    /// From there on.
    Last(Place),
}

impl Look {
    /// Only what stands behind this is looked at.
    pub(super) fn after(self) -> Option<Place> {
        match self {
            Self::Whole => None,
            Self::Late((rank, _)) => Some((rank - LATE_MS, i64::MIN)),
            Self::Last(place) => Some(place),
        }
    }
}

/// See above.
#[derive(Debug, Default)]
pub(super) struct Floor {
    /// The last place that was claimed.
    last: Option<Place>,
    /// Until then not everything is looked at.
    until: Option<Instant>,
    /// Until then no late commit is looked for.
    late_until: Option<Instant>,
    /// How long the last look at everything took.
    whole: Duration,
}

impl Floor {
    /// How the next claim looks.
    pub(super) fn next(&self) -> Look {
        let now = Instant::now();
        let is_before = |until: Option<Instant>| until.is_some_and(|until| now < until);
        match self.last {
            Some(place) if is_before(self.until) && is_before(self.late_until) => Look::Last(place),
            Some(place) if is_before(self.until) => Look::Late(place),
            _ => Look::Whole,
        }
    }

    /// Learns from a claim that looked so, and was `begun` then. One by turns teaches nothing.
    pub(super) fn learn(&mut self, look: Look, begun: Instant, claimed: &Claimed) {
        if claimed.flow.is_some() {
            return;
        }
        self.last = self.last.max(claimed.last);
        let (now, took) = (Instant::now(), begun.elapsed());
        if look == Look::Whole {
            let count = u32::try_from(claimed.jobs.len()).unwrap_or(u32::MAX);
            let is_slow = took > SLOW + SLOW_PER_JOB.saturating_mul(count);
            self.whole = took;
            self.until = is_slow.then(|| now + PAUSE.max(took * PAUSE_PER_LOOK));
        } else if took * 2 > self.whole {
            // It was not the way to the first job that took so long.
            self.until = None;
        }
        if matches!(look, Look::Late(_)) {
            self.late_until = Some(now + took * PAUSE_PER_LATE_LOOK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A claim that began `millis` ago and came to `place`.
    fn learn(floor: &mut Floor, look: Look, millis: u64, place: Place) {
        let begun = Instant::now().checked_sub(Duration::from_millis(millis)).expect("the machine runs for longer");
        floor.learn(look, begun, &Claimed { last: Some(place), ..Claimed::default() });
    }

    #[test]
    fn fast_looks_are_always_at_everything() {
        let mut floor = Floor::default();
        learn(&mut floor, Look::Whole, 5, (1_000, 1));
        assert_eq!((floor.next(), Look::Whole.after()), (Look::Whole, None));
    }

    #[test]
    fn after_a_slow_look_claims_begin_at_the_last_one_and_at_times_a_little_earlier() {
        let mut floor = Floor::default();
        learn(&mut floor, Look::Whole, 500, (1_000, 1));
        assert_eq!(floor.next(), Look::Late((1_000, 1)));
        assert_eq!(floor.next().after(), Some((1_000 - LATE_MS, i64::MIN)));
        let look = floor.next();
        learn(&mut floor, look, 60, (1_500, 7));
        assert_eq!(floor.next(), Look::Last((1_500, 7)), "for ten times as long");
        assert_eq!(floor.next().after(), Some((1_500, 7)));
        let look = floor.next();
        learn(&mut floor, look, 60, (1_200, 9));
        assert_eq!(floor.next().after(), Some((1_500, 7)), "it never goes back");
        floor.late_until = Some(Instant::now());
        assert_eq!(floor.next(), Look::Late((1_500, 7)));
    }

    #[test]
    fn where_beginning_later_does_not_help_everything_is_looked_at() {
        let mut floor = Floor::default();
        learn(&mut floor, Look::Whole, 500, (1_000, 1));
        let look = floor.next();
        learn(&mut floor, look, 400, (1_500, 2));
        assert_eq!(floor.next(), Look::Whole);
    }
}
