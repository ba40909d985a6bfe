//! What one feeder remembers between its claims: whether its queue must be claimed from by turns, whose turn it is, and its
//! share of a rate that each worker keeps by itself. Refuses to judge limits: the claim does that, on live leases.

use std::time::Duration;

use tokio::time::Instant;

use crate::store::leases::{Claimed, Turn};

/// A queue that had users, keys or limits is claimed from by turns for this long after the last were seen: going back and
/// forth would cost a statement each time.
const KEPT: Duration = Duration::from_mins(1);
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

    /// Learns from a claim of at most `limit` jobs; says whether the next may find some at once.
    pub(super) fn learn(&mut self, claimed: &Claimed, limit: usize) -> bool {
        let now = Instant::now();
        let was_plain = self.until.is_none();
        if claimed.lanes {
            self.until = Some(now + KEPT);
        } else if self.until.is_some_and(|until| until < now) {
            self.until = None;
        }
        let Some(flow) = &claimed.flow else {
            return claimed.jobs.len() >= limit || claimed.lanes && was_plain;
        };
        self.turn = flow.turn;
        self.held = flow.held;
        let first_share = self.share.is_none() && flow.share.is_some();
        self.learn_share(flow.share, flow.spent);
        let nothing = flow.picked == 0;
        self.empty = if nothing { self.empty + 1 } else { 0 };
        first_share || (flow.more || flow.picked > claimed.jobs.len()) && self.empty < EMPTY_MAX
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
