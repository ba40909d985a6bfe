//! Where a plain claim begins to look. While somebody holds an old snapshot no dead row can be removed, and whoever looks from
//! the beginning walks over all jobs that have ended since: then most claims begin where the ones before came to. Refuses to
//! overlook anything for long: what stands further in front (a late commit, a priority, a job that was given back) is found
//! by a look at everything, and those come the more often the cheaper they are.

use std::time::Duration;

use tokio::time::Instant;

use crate::store::leases::Claimed;

/// A look at everything that took longer than this, and than so much for each job it took, walked over something.
const SLOW: Duration = Duration::from_millis(20);
const SLOW_PER_JOB: Duration = Duration::from_micros(30);
/// How far below the last rank claimed to begin, in milliseconds: commits take a while to be seen.
const SLACK_MS: i64 = 100;
/// The least time between two looks at everything, and the share of the time that they may take: a fiftieth.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_PER_LOOK: u32 = 50;

/// See above.
#[derive(Debug, Default)]
pub(super) struct Floor {
    /// The highest rank that was claimed.
    last: Option<i64>,
    /// Until then it is not looked below that.
    until: Option<Instant>,
    /// How long the last look at everything took.
    whole: Duration,
}

impl Floor {
    /// The rank at which the next claim begins; none for a look at everything.
    pub(super) fn next(&self) -> Option<i64> {
        self.until.filter(|until| Instant::now() < *until)?;
        self.last.map(|rank| rank - SLACK_MS)
    }

    /// Learns from a claim that looked from `floor` on, and was `begun` then. One by turns teaches nothing.
    pub(super) fn learn(&mut self, floor: Option<i64>, begun: Instant, claimed: &Claimed) {
        if claimed.flow.is_some() {
            return;
        }
        self.last = self.last.max(claimed.rank);
        let took = begun.elapsed();
        if floor.is_none() {
            let count = u32::try_from(claimed.jobs.len()).unwrap_or(u32::MAX);
            let is_slow = took > SLOW + SLOW_PER_JOB.saturating_mul(count);
            self.whole = took;
            self.until = is_slow.then(|| Instant::now() + PAUSE.max(took * PAUSE_PER_LOOK));
        } else if took * 2 > self.whole {
            // It was not the way to the first job that took so long.
            self.until = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A claim that began `millis` ago and took one job of `rank`.
    fn learn(place: &mut Floor, floor: Option<i64>, millis: u64, rank: i64) {
        let begun = Instant::now().checked_sub(Duration::from_millis(millis)).expect("the machine runs for longer");
        place.learn(floor, begun, &Claimed { rank: Some(rank), ..Claimed::default() });
    }

    #[test]
    fn fast_looks_are_always_at_everything() {
        let mut place = Floor::default();
        learn(&mut place, None, 5, 1_000);
        assert_eq!(place.next(), None);
    }

    #[test]
    fn after_a_slow_look_claims_begin_near_the_last_one() {
        let mut place = Floor::default();
        learn(&mut place, None, 500, 1_000);
        assert_eq!(place.next(), Some(1_000 - SLACK_MS));
        let floor = place.next();
        learn(&mut place, floor, 5, 1_500);
        assert_eq!(place.next(), Some(1_500 - SLACK_MS));
        let floor = place.next();
        learn(&mut place, floor, 5, 1_200);
        assert_eq!(place.next(), Some(1_500 - SLACK_MS), "it never goes back");
    }

    #[test]
    fn where_beginning_later_does_not_help_everything_is_looked_at() {
        let mut place = Floor::default();
        learn(&mut place, None, 500, 1_000);
        let floor = place.next();
        learn(&mut place, floor, 400, 1_500);
        assert_eq!(place.next(), None);
    }
}
