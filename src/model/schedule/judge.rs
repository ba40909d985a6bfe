//! What becomes of a schedule that is due: which of its nominal fires make a job, which are coalesced or left out and why,
//! and when it is due again. Pure: one value in, one value out; the database does what it says, in one transaction.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::{CatchUp, Outcome, Overlap, State, timing::Timing, upcoming::delta};

/// The most missed fires that `catch_up: all` makes up for.
pub const ALL_MAX: usize = 100;
/// The most nominal fires judged at once. More are due only after a long absence; the next look goes on, so that one
/// schedule's year of missed minutes is neither lost nor in anybody's way.
pub const CHUNK: usize = 500;
/// A fire that is no later than this was not missed: it is what `catch_up: none` still runs.
const ON_TIME: Duration = Duration::from_mins(1);

/// What became of the job that the fire before made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// There is none, or it was judged already, or it was cancelled.
    Nothing,
    /// It waits or runs.
    Live,
    /// It ended well.
    Done,
    /// It ended badly.
    Dead,
}

/// How a schedule stands when it is looked at.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The nominal fire that comes next.
    pub next_at: DateTime<Utc>,
    /// The latest nominal fire with a row in the ledger.
    pub last_nominal_at: Option<DateTime<Utc>>,
    /// Nominal fires up to here fell into a pause.
    pub skip_until: Option<DateTime<Utc>>,
    /// Missed fires that the next job is told of.
    pub missed: u32,
    /// Jobs made so far.
    pub run_count: u32,
    /// The most jobs it may make.
    pub max_runs: Option<u32>,
    /// What becomes of missed fires.
    pub catch_up: CatchUp,
    /// What happens when the job before is not done.
    pub overlap: Overlap,
    /// The job before.
    pub before: Before,
    /// Jobs that ended badly, in a row.
    pub failures: u32,
    /// How many of these pause it.
    pub pause_after: Option<u32>,
    /// Why no job can be made just now, where that is so.
    pub hindrance: Option<String>,
}

/// A nominal fire with what it came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occurrence {
    /// When it was meant to fire.
    pub nominal_at: DateTime<Utc>,
    /// When it was due, jitter included.
    pub due_at: DateTime<Utc>,
    /// What it came to.
    pub outcome: Outcome,
    /// Why, where it did not fire.
    pub reason: Option<String>,
    /// With a job: the fires before it that were missed.
    pub missed: u32,
}

/// What is to be written.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Ledger rows in the order of their instants; those that fired want a job each.
    pub occurrences: Vec<Occurrence>,
    /// The nominal fire that comes next.
    pub next_at: Option<DateTime<Utc>>,
    /// When that is due.
    pub due_at: Option<DateTime<Utc>>,
    /// Where the schedule stands from now on.
    pub state: State,
    /// Why, where it no longer is active.
    pub reason: Option<String>,
    /// As in [`Standing`].
    pub missed: u32,
    /// As in [`Standing`].
    pub run_count: u32,
    /// As in [`Standing`].
    pub failures: u32,
}

/// Judges a schedule at `now`. One that is not due (its zone has changed, say) only gets a new next fire.
pub fn judge(timing: &Timing, standing: &Standing, now: DateTime<Utc>) -> Verdict {
    let (due, next_at) = due(timing, standing, now);
    let failures = match standing.before {
        Before::Dead => standing.failures + 1,
        Before::Done => 0,
        Before::Nothing | Before::Live => standing.failures,
    };
    let mut verdict = Verdict {
        occurrences: Vec::with_capacity(due.len()),
        due_at: None,
        next_at,
        state: State::Active,
        reason: None,
        missed: standing.missed,
        run_count: standing.run_count,
        failures,
    };
    let paused = |(nominal, _): &(DateTime<Utc>, _)| standing.skip_until.is_some_and(|until| *nominal <= until);
    let (in_pause, due): (Vec<_>, Vec<_>) = due.into_iter().partition(paused);
    verdict.leave_out(&in_pause, Outcome::Skipped, "it was paused");
    if standing.pause_after.is_some_and(|most| failures >= most) {
        let reason = format!("its last {failures} jobs failed, one after the other");
        verdict.leave_out(&due, Outcome::Skipped, &reason);
        (verdict.state, verdict.reason) = (State::Paused, Some(reason));
    } else if let Some(hindrance) = &standing.hindrance {
        verdict.leave_out(&due, Outcome::Skipped, hindrance);
    } else {
        let more = verdict.next_at.is_some_and(|next| next <= now && due.len() + in_pause.len() == CHUNK);
        verdict.catch_up(standing, &due, (now, more));
    }
    verdict.settle(timing, standing);
    verdict
}

type Due = (DateTime<Utc>, DateTime<Utc>);

/// The nominal fires that are due, at most [`CHUNK`], each with the instant at which it was; and the one after them.
fn due(timing: &Timing, standing: &Standing, now: DateTime<Utc>) -> (Vec<Due>, Option<DateTime<Utc>>) {
    if standing.next_at > now {
        // Woken because its zone has changed. What was judged stays judged.
        return (Vec::new(), timing.next(standing.last_nominal_at.map_or(now, |last| last.max(now))));
    }
    let mut list = Vec::new();
    let mut next = Some(standing.next_at);
    while let Some(nominal) = next.filter(|nominal| *nominal <= now && list.len() < CHUNK) {
        let due_at = timing.due(nominal);
        if due_at > now {
            break;
        }
        list.push((nominal, due_at));
        next = timing.next(nominal);
    }
    (list, next)
}

impl Verdict {
    fn note(&mut self, (nominal_at, due_at): Due, outcome: Outcome, reason: Option<&str>) {
        let reason = reason.map(ToOwned::to_owned);
        self.occurrences.push(Occurrence { nominal_at, due_at, outcome, reason, missed: 0 });
    }

    fn leave_out(&mut self, due: &[Due], outcome: Outcome, reason: &str) {
        for one in due {
            self.note(*one, outcome, Some(reason));
        }
    }

    /// Left out because nobody was there to run it: the next job is told.
    fn miss(&mut self, due: &[Due], outcome: Outcome, reason: &str) {
        self.leave_out(due, outcome, reason);
        self.missed = self.missed.saturating_add(u32::try_from(due.len()).unwrap_or(u32::MAX));
    }

    fn fire(&mut self, one: Due, standing: &Standing) {
        if standing.max_runs.is_some_and(|most| self.run_count >= most) {
            return;
        }
        self.note(one, Outcome::Fired, None);
        self.run_count += 1;
        if let Some(fired) = self.occurrences.last_mut() {
            fired.missed = std::mem::take(&mut self.missed);
        }
    }

    /// `more`: the list was cut, and what is left of it is due as well.
    fn catch_up(&mut self, standing: &Standing, due: &[Due], (now, more): (DateTime<Utc>, bool)) {
        let Some((last, earlier)) = due.split_last() else { return };
        match standing.catch_up {
            CatchUp::All if more => {
                // The last hundred of all that is due are among those that are still to come and these.
                let (gone, kept) = due.split_at(due.len().saturating_sub(ALL_MAX));
                self.miss(gone, Outcome::Skipped, "missed, and more than a hundred fires were");
                self.next_at = kept.first().map(|(nominal, _)| *nominal);
            }
            CatchUp::One if more => self.miss(due, Outcome::Coalesced, "missed; a later fire stands for it"),
            CatchUp::None if more => self.miss(due, Outcome::Skipped, "missed"),
            CatchUp::All if due.len() > 1 => {
                let (gone, kept) = due.split_at(due.len().saturating_sub(ALL_MAX));
                self.miss(gone, Outcome::Skipped, "missed, and more than a hundred fires were");
                for one in kept {
                    self.fire(*one, standing);
                }
            }
            CatchUp::None if now - last.1 > delta(ON_TIME) => self.miss(due, Outcome::Skipped, "missed"),
            CatchUp::None => {
                self.miss(earlier, Outcome::Skipped, "missed");
                self.fire_unless_live(*last, standing);
            }
            CatchUp::One | CatchUp::All => {
                self.miss(earlier, Outcome::Coalesced, "missed; a later fire stands for it");
                self.fire_unless_live(*last, standing);
            }
        }
    }

    fn fire_unless_live(&mut self, one: Due, standing: &Standing) {
        if standing.before == Before::Live && standing.overlap == Overlap::Skip {
            self.note(one, Outcome::Skipped, Some("the job of the fire before it had not ended"));
        } else {
            self.fire(one, standing);
        }
    }

    /// When it is due again, and whether it is at all.
    fn settle(&mut self, timing: &Timing, standing: &Standing) {
        let spent = standing.max_runs.filter(|most| self.run_count >= *most);
        if let Some(most) = spent {
            (self.state, self.next_at) = (State::Ended, None);
            self.reason = Some(format!("it has run {most} times, which is all it was to"));
        } else if self.next_at.is_none() && self.state == State::Active {
            self.state = State::Ended;
            self.reason = Some("no further fire is to come".to_owned());
        }
        self.due_at = self.next_at.filter(|_| self.state == State::Active).map(|next| timing.due(next));
    }
}

impl Standing {
    /// The standing of a schedule that has done nothing yet, whose first fire is `next_at`.
    pub fn fresh(next_at: DateTime<Utc>, catch_up: CatchUp, overlap: Overlap) -> Self {
        Self {
            next_at,
            last_nominal_at: None,
            skip_until: None,
            missed: 0,
            run_count: 0,
            max_runs: None,
            catch_up,
            overlap,
            before: Before::Nothing,
            failures: 0,
            pause_after: None,
            hindrance: None,
        }
    }
}

impl Occurrence {
    /// How late it was judged.
    pub fn late(&self, now: DateTime<Utc>) -> TimeDelta {
        (now - self.due_at).max(TimeDelta::zero())
    }
}
