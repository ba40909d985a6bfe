//! How fast a lane's jobs end, and so how many of them are worth claiming ahead. Refuses to claim ahead what will not be
//! begun soon: what is claimed waits for this worker alone.

use std::time::Duration;

use tokio::time::Instant;

use super::worker::Lane;

/// What is claimed beyond a lane's prefetch is about to begin within this time. A claim finds several jobs at little more
/// than the cost of one.
const AHEAD: Duration = Duration::from_millis(40);
/// The rate is reckoned anew after so long.
const WINDOW: Duration = Duration::from_millis(100);

/// Jobs per second, of late.
#[derive(Debug)]
pub(super) struct Pace {
    per_second: f64,
    ended: usize,
    since: Instant,
}

impl Default for Pace {
    fn default() -> Self {
        Self { per_second: 0.0, ended: 0, since: Instant::now() }
    }
}

impl Pace {
    /// So many have ended, as of `now`.
    #[expect(clippy::cast_precision_loss, reason = "a count far below 2^52")]
    pub(super) fn ended(&mut self, count: usize, now: Instant) {
        self.ended += count;
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= WINDOW {
            self.per_second = self.ended as f64 / elapsed.as_secs_f64();
            (self.ended, self.since) = (0, now);
        }
    }

    /// How many to claim ahead of those that run: the lane's prefetch, or as many as end within [`AHEAD`], at most a batch.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and cut to a batch")]
    pub(super) fn ahead(&self, lane: &Lane) -> usize {
        let soon = (self.per_second * AHEAD.as_secs_f64()) as usize;
        soon.min(lane.batch).max(lane.prefetch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_claims_further_ahead_while_its_jobs_are_short() {
        let (lane, mut pace) = (Lane::new("test", 8), Pace::default());
        let mut now = pace.since;
        assert_eq!(pace.ahead(&lane), 8);
        for (ended_in_window, ahead) in [(50, 20), (1_000, 32), (10, 8), (0, 8)] {
            now += WINDOW;
            pace.ended(ended_in_window, now);
            assert_eq!(pace.ahead(&lane), ahead, "{ended_in_window} jobs in {WINDOW:?}");
        }
    }
}
