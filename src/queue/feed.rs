//! Feeds one lane: ends what was run, claims what comes next, both in batches, and puts it on the shelf from which apalis
//! takes. Refuses to end on a database error: endings are kept, it waits, it goes on.

use std::{
    mem,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use super::{
    claims::{Claims, With},
    ends::Ends,
    execute::{Ack, Verdict, Work},
    floor::Floor,
    inbox::Inbox,
    kept::Kept,
    lease::Leases,
    metrics::Metrics,
    notify::Notices,
    pace::Pace,
    shelf::{Drain, Shelf},
    turns::Turns,
    worker::Lane,
};
use crate::{
    clock::jittered,
    model::{
        id::JobId,
        job::{ClaimedJob, Lease},
    },
    store::{
        Error, Stack, children,
        leases::{Claimed, Ending, PutBack},
    },
    supervisor::Part,
};

/// Waits after a statement that failed.
const ERROR_WAIT_FIRST: Duration = Duration::from_millis(100);
const ERROR_WAIT_LONGEST: Duration = Duration::from_secs(2);
/// The longest an ending waits for others to share its commit while the shelf is well filled.
const ENDING_WAIT: Duration = Duration::from_millis(5);

/// What feeders of one process share.
#[derive(Clone)]
pub(super) struct Ground {
    /// Commits wait for the disk: endings.
    pub(super) durable: Stack,
    /// They do not: a claim that is lost is claimed again.
    pub(super) relaxed: Stack,
    pub(super) leases: Arc<Leases>,
    pub(super) notices: Notices,
    pub(super) metrics: Metrics,
    /// Rings when a scheduled job was written, so that its time is not slept through.
    pub(super) scheduled: Arc<Notify>,
}

pub(super) struct Feeder {
    pub(super) lane: Lane,
    pub(super) poll: Duration,
    pub(super) ground: Ground,
    pub(super) shelf: Arc<Shelf>,
    pub(super) drain: Arc<Drain>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) bell: Arc<Notify>,
    pub(super) kept: Kept,
    pub(super) claims: Claims,
    pub(super) ends: Ends,
    pub(super) turns: Turns,
    pub(super) pace: Pace,
    pub(super) floor: Floor,
    /// The watchdog lives by this loop.
    pub(super) part: Part,
}

impl Feeder {
    /// Feeds until drained, then says so.
    pub(super) async fn run(mut self, drained: oneshot::Sender<()>) {
        let (mut more, mut error_wait, mut next_poll) = (true, ERROR_WAIT_FIRST, Instant::now());
        loop {
            for ack in self.inbox.take() {
                more |= self.turns.is_held();
                self.keep(ack);
            }
            let draining = self.drain.begun.load(Ordering::Acquire);
            if draining {
                self.give_back();
            }
            if draining && self.kept.outstanding == 0 {
                let _ = drained.send(());
                self.part.end();
                return;
            }
            if Instant::now() >= next_poll {
                self.turns.look_again();
                more = true;
            }
            // What has ended may let in what waits for a limit.
            more |= self.ends.is_answered() && self.turns.is_held();
            let limit = if more && !draining { self.room() } else { 0 };
            if limit > 0 || self.is_due() {
                match self.round(limit).await {
                    Ok(left) => {
                        self.part.beat();
                        error_wait = ERROR_WAIT_FIRST;
                        if limit > 0 {
                            (more, next_poll) = (left, Instant::now() + jittered(self.poll));
                        }
                    }
                    Err(error) => {
                        self.part.turn();
                        self.ground.metrics.database_error();
                        tracing::warn!(error = %error, queue = self.lane.queue, "claiming failed; trying again");
                        tokio::time::sleep(error_wait).await;
                        (error_wait, more) = ((error_wait * 2).min(ERROR_WAIT_LONGEST), true);
                    }
                }
            } else {
                more |= self.rest(more, next_poll).await;
                self.part.turn();
            }
        }
    }

    /// Waits for something to do; true when there may be jobs to claim.
    async fn rest(&mut self, more: bool, next_poll: Instant) -> bool {
        let since = self.kept.since.filter(|_| self.ends.count() == 0);
        let until = match since {
            Some(since) => since + ENDING_WAIT,
            // The window is full: what ends rings, and the poll comes after.
            None if more => Instant::now() + self.poll,
            None => next_poll,
        };
        // The first ending sets the clock for those that share its commit; they need wake nobody. Nor do those that wait for
        // the batch before theirs.
        let acks = match since {
            _ if self.ends.count() > 0 => usize::MAX,
            Some(_) => self.lane.batch.saturating_sub(self.kept.endings.len()),
            None => 1,
        };
        tokio::select! {
            biased;
            () = self.bell.notified() => { self.turns.look_again(); true }
            () = self.ends.answered() => false,
            () = self.inbox.holds(acks) => false,
            () = self.drain.bell.notified() => false,
            () = self.shelf.is_low(), if more => false,
            () = tokio::time::sleep_until(until) => false,
        }
    }

    /// How many to claim: nothing while the shelf is well filled, so that claims come in batches.
    fn room(&self) -> usize {
        let window = self.lane.concurrency + self.pace.ahead(&self.lane);
        let ending = self.kept.endings.len() + self.kept.backs.len() + self.ends.count();
        let behind = self.ends.count() > 0 && self.kept.endings.len() >= self.lane.batch;
        if behind || self.shelf.len() > self.lane.low() {
            return 0;
        }
        window.saturating_sub(self.kept.outstanding - ending).min(self.lane.batch)
    }

    fn is_due(&self) -> bool {
        let Kept { backs, bereft, .. } = &self.kept;
        !backs.is_empty() || !bereft.is_empty() || self.ends.is_answered() || self.ends_are_due()
    }

    /// There is something to end, none is under way, and no more shall share the commit.
    fn ends_are_due(&self) -> bool {
        let Kept { endings, since, .. } = &self.kept;
        !endings.is_empty()
            && self.ends.count() == 0
            && (endings.len() >= self.lane.batch
                || self.drain.begun.load(Ordering::Acquire)
                || self.shelf.len() <= self.lane.low()
                || since.is_some_and(|since| since.elapsed() >= ENDING_WAIT))
    }

    fn keep(&mut self, ack: Ack) {
        let Ack { lease, awaited, parent_id, verdict } = ack;
        if let Some(parent_id) = parent_id {
            self.kept.parents.insert(lease.job_id, parent_id);
        }
        if awaited {
            self.kept.awaited.insert(lease.job_id);
        }
        match verdict {
            Verdict::End { state, result, error } => self.kept.endings.push(Ending { lease, state, result, error }),
            Verdict::Later { wait, spent, error } => {
                let outcome = Some(if error.is_some() { "failed" } else { "snoozed" });
                self.kept.backs.push(PutBack { lease, wait: Some(wait), spent, outcome, error });
            }
            Verdict::GiveBack => self.kept.give_back([lease]),
            Verdict::Committed => {
                self.settle(&[lease]);
                self.announce([lease.job_id]);
            }
            Verdict::Lost => {
                self.settle(&[lease]);
                self.kept.forget(&[lease]);
            }
        }
        if self.kept.since.is_none() && self.kept.endings.len() + self.kept.backs.len() > 0 {
            self.kept.since = Some(Instant::now());
        }
    }

    /// Unstarted jobs go back without having cost an attempt.
    fn give_back(&mut self) {
        let works = self.shelf.close();
        self.kept.give_back(works.iter().map(|work| work.lease));
    }

    fn settle(&mut self, leases: &[Lease]) {
        self.ground.leases.release(leases.iter());
        self.pace.ended(leases.len(), Instant::now());
        self.kept.outstanding = self.kept.outstanding.saturating_sub(leases.len());
    }

    fn announce(&mut self, ids: impl IntoIterator<Item = JobId>) {
        let awaited = self.kept.ended(ids);
        if !awaited.is_empty() {
            self.ground.notices.finished(awaited);
        }
    }

    /// Records what is kept and claims up to `limit`; says whether there may be more to claim.
    async fn round(&mut self, limit: usize) -> Result<bool, Error> {
        if self.ends.is_answered() {
            self.learn_ends().await?;
        }
        if !self.kept.backs.is_empty() {
            self.put_back().await?;
        }
        let asked = Instant::now();
        let (claimed, more) = match self.claim(limit).await {
            Err(error) if error.is_of_the_row() && !self.kept.endings.is_empty() => {
                self.end_one_by_one().await?;
                (Vec::new(), true)
            }
            claimed => claimed?,
        };
        if self.kept.endings.is_empty() {
            self.kept.since = None;
        }
        self.hold(claimed, asked);
        self.wake_parents().await;
        Ok(more)
    }

    /// Puts on the shelf what was claimed, of which it is known that it was not claimed before `asked`.
    fn hold(&mut self, claimed: Vec<(ClaimedJob, Lease)>, asked: Instant) {
        let signals = self.ground.leases.hold(claimed.iter().map(|(_, lease)| lease), asked);
        self.ground.metrics.held(self.ground.leases.count());
        self.kept.outstanding += claimed.len();
        let now = Instant::now();
        let works = claimed.into_iter().zip(signals).map(|((job, lease), cancelled)| {
            let stop = job.ties.stop.map(|stop| (now + stop.left, stop.reason));
            Work { job: Box::new(job), lease, cancelled, stop }
        });
        self.shelf.put(works);
    }

    /// Tells the lanes of jobs that waited for children, of which the last may have ended just now. Polling finds what is
    /// missed here.
    async fn wake_parents(&mut self) {
        let bereft = mem::take(&mut self.kept.bereft);
        if !bereft.is_empty()
            && let Ok(queues) = children::freed(self.ground.relaxed.pool(), &bereft).await
        {
            self.ground.notices.ready(queues.iter().map(String::as_str));
        }
    }

    /// Sends what is kept to its end and claims up to `limit`; gives what was claimed, and whether there may be more.
    async fn claim(&mut self, limit: usize) -> Result<(Vec<(ClaimedJob, Lease)>, bool), Error> {
        let held = limit > 0 && self.turns.is_held();
        if held {
            self.learn_ends().await?;
        }
        if self.ends_are_due() {
            self.kept.order();
            if held {
                return self.end_and_claim(limit).await;
            }
            // Side by side with the claim, on another of Postgres' processes: neither needs what the other comes to.
            self.ends.begin(mem::take(&mut self.kept.endings));
        }
        if limit == 0 {
            return Ok((Vec::new(), false));
        }
        let (begun, look) = (Instant::now(), self.floor.next());
        let with = match self.turns.next() {
            Some(turn) => With::Turn(turn),
            None if self.turns.goes_on() => With::Nothing(look.after()),
            None => With::Look(look.after()),
        };
        let claimed = self.claims.take(limit, with).await?;
        self.floor.learn(look, begun, &claimed);
        Ok(self.learn(claimed, limit))
    }

    /// Learns what became of the ends under way, if there are any. Those that were not stored are kept.
    async fn learn_ends(&mut self) -> Result<(), Error> {
        let Some((mut endings, found)) = self.ends.next().await else { return Ok(()) };
        match found {
            Ok(found) => self.ended(&endings, found),
            Err(error) => {
                endings.append(&mut self.kept.endings);
                self.kept.endings = endings;
                self.kept.since.get_or_insert_with(Instant::now);
                if !error.is_of_the_row() {
                    return Err(error);
                }
                self.end_one_by_one().await?;
            }
        }
        Ok(())
    }

    /// In one statement: what ends lets in what waits for a limit.
    async fn end_and_claim(&mut self, limit: usize) -> Result<(Vec<(ClaimedJob, Lease)>, bool), Error> {
        let turn = self.turns.next().unwrap_or_default();
        let endings: Arc<[Ending]> = mem::take(&mut self.kept.endings).into();
        match self.claims.take(limit, With::Endings(endings.clone(), turn)).await {
            Ok(mut claimed) => {
                self.ended(&endings, claimed.ended.take());
                Ok(self.learn(claimed, limit))
            }
            Err(error) => {
                self.kept.endings = endings.to_vec();
                Err(error)
            }
        }
    }

    fn learn(&mut self, claimed: Claimed, limit: usize) -> (Vec<(ClaimedJob, Lease)>, bool) {
        let more = self.turns.learn(&claimed, limit);
        self.ground.metrics.claimed(&self.lane.queue, &claimed.waited);
        (claimed.jobs, more)
    }

    fn ended(&mut self, endings: &[Ending], found: Option<Vec<JobId>>) {
        let leases: Vec<_> = endings.iter().map(|ending| ending.lease).collect();
        self.settle(&leases);
        match found {
            None => self.announce(leases.into_iter().map(|lease| lease.job_id)),
            Some(found) => {
                tracing::info!(
                    count = leases.len() - found.len(),
                    "endings came too late: the jobs were no longer ours"
                );
                self.announce(found);
                self.kept.forget(&leases);
            }
        }
    }

    /// One of the endings cannot be stored: the others are.
    async fn end_one_by_one(&mut self) -> Result<(), Error> {
        while let Some(ending) = self.kept.endings.last().cloned() {
            let found = self.ends.alone(&ending).await?;
            self.kept.endings.pop();
            self.ended(&[ending], found);
        }
        Ok(())
    }

    async fn put_back(&mut self) -> Result<(), Error> {
        self.kept.backs.sort_by_key(|back| back.lease.job_id);
        let found = self.ends.put_back(&self.kept.backs).await?;
        let backs = mem::take(&mut self.kept.backs);
        if backs.iter().any(|back| back.wait.is_some()) {
            self.ground.scheduled.notify_one();
        }
        if backs.iter().any(|back| back.wait.is_none()) && !found.is_empty() {
            self.ground.notices.ready([self.lane.queue.as_str()]);
        }
        let leases: Vec<_> = backs.iter().map(|back| back.lease).collect();
        self.kept.forget(&leases);
        self.settle(&leases);
        Ok(())
    }
}
