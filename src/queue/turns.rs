//! What one feeder remembers between its claims: whether its queue must be claimed from by turns, whose turn it is, and its
//! share of a rate that each worker keeps by itself. Refuses to judge limits: the claim does that, on live leases.

use std::time::Duration;

use tokio::time::Instant;

use crate::store::leases::{Claimed, Turn};

/// A queue that had users, keys or limits is claimed from by turns for this long after the last were seen: going back and
/// forth would cost a statement each time.
const KEPT: Duration = Duration::from_mins(1);
/// In front of a backlog only one claim in so long looks whether the queue has users, keys or limits.
const LOOK: Duration = Duration::from_millis(100);
/// A backlog: as much as one claim was allowed, and at least so much.
const MANY: usize = 64;
/// The most claims in a row that find nothing although there may be more, before the next waits for the poll.
const EMPTY_MAX: u32 = 16;

/// A share of a rate: a bucket that fills with time. (The crate `governor` cannot be asked how much is left, and what a
/// claim will cost is known only after it.) Any window of the period holds at most twice the share: what was saved up, and
/// what came in.
#[derive(Debug)]
struct Share {
    units: f64,
    most: f64,
    per_second: f64,
    at: Instant,
}

impl Share {
    fn fill(&mut self) {
        let now = Instant::now();
        let grown = self.units + (now - self.at).as_secs_f64() * self.per_second;
        (self.units, self.at) = (grown.min(self.most), now);
    }
}

/// See above.
#[derive(Debug, Default)]
pub(super) struct Turns {
    until: Option<Instant>,
    /// Nothing of the kind was seen, and there is a backlog: so it was found then.
    backlog: Option<Instant>,
    turn: Turn,
    empty: u32,
    held: bool,
    share: Option<Share>,
}

impl Turns {
    /// Whose turn it is, where the next claim is one by turns.
    pub(super) fn next(&mut self) -> Option<Turn> {
        self.until?;
        #[expect(clippy::cast_possible_truncation, reason = "units are at most a thousand million")]
        let allowed = self.share.as_mut().map(|share| {
            share.fill();
            share.units as i64
        });
        Some(Turn { allowed, ..self.turn })
    }

    /// Whether the next claim, which is not by turns, need not look for users, keys and limits.
    pub(super) fn goes_on(&self) -> bool {
        self.backlog.is_some_and(|at| at.elapsed() < LOOK)
    }

    /// Learns from a claim of at most `limit` jobs; says whether the next may find some at once.
    pub(super) fn learn(&mut self, claimed: &Claimed, limit: usize) -> bool {
        let now = Instant::now();
        let was_plain = self.until.is_none();
        if claimed.lanes == Some(true) {
            self.until = Some(now + KEPT);
        } else if self.until.is_some_and(|until| until < now) {
            self.until = None;
        }
        let full = claimed.jobs.len() >= limit;
        self.learn_backlog(claimed.lanes, full, limit);
        let Some(flow) = &claimed.flow else {
            return full || claimed.lanes.is_none_or(|lanes| lanes && was_plain);
        };
        self.turn = flow.turn;
        self.held = flow.held;
        let first_share = self.share.is_none() && flow.share.is_some();
        self.learn_share(flow.share, flow.spent);
        let nothing = flow.picked == 0;
        self.empty = if nothing { self.empty + 1 } else { 0 };
        first_share || (flow.more || flow.picked > claimed.jobs.len()) && self.empty < EMPTY_MAX
    }

    fn learn_backlog(&mut self, lanes: Option<bool>, full: bool, limit: usize) {
        match lanes {
            Some(lanes) => self.backlog = (!lanes && full && limit >= MANY).then(Instant::now),
            None if !full => self.backlog = None,
            None => {}
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "units are at most a thousand million")]
    fn learn_share(&mut self, share: Option<(f64, f64)>, spent: i64) {
        let Some((units, seconds)) = share else {
            self.share = None;
            return;
        };
        let most = units.max(1.0);
        let share = self.share.get_or_insert_with(|| Share { units: most, most, per_second: 0.0, at: Instant::now() });
        share.fill();
        (share.most, share.per_second) = (most, units / seconds.max(f64::EPSILON));
        share.units = share.units.min(most) - spent as f64;
    }

    /// Something ready waits for a limit: the end of a job may let it in.
    pub(super) fn is_held(&self) -> bool {
        self.held
    }

    /// The bell rang, or the poll is due: what was found empty may not be any more.
    pub(super) fn look_again(&mut self) {
        self.empty = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_in_front_of_a_backlog_and_only_for_a_while_nobody_looks_for_users() {
        let mut turns = Turns::default();
        let mut learn = |lanes, full, limit| {
            turns.learn_backlog(lanes, full, limit);
            turns.goes_on()
        };
        assert!(!learn(Some(false), false, MANY), "nothing more waits");
        assert!(!learn(Some(false), true, MANY - 1), "a few");
        assert!(!learn(Some(true), true, MANY), "users");
        assert!(learn(Some(false), true, MANY) && learn(None, true, MANY));
        assert!(!learn(None, false, MANY), "who did not look does not know what is left");
        turns.learn_backlog(Some(false), true, MANY);
        turns.backlog = Instant::now().checked_sub(LOOK);
        turns.learn_backlog(None, true, MANY);
        assert!(!turns.goes_on(), "for long enough");
    }

    #[test]
    fn who_did_not_look_claims_again() {
        let mut turns = Turns::default();
        assert!(turns.learn(&Claimed::default(), MANY));
        assert!(!turns.learn(&Claimed { lanes: Some(false), ..Claimed::default() }, MANY));
        assert!(turns.learn(&Claimed { lanes: Some(true), ..Claimed::default() }, MANY));
        assert!(turns.next().is_some());
    }
}
