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
        error::{Code, CtxError},
        id::JobId,
        job::{ClaimedJob, Lease, State},
    },
    store::{
        Error, Stack, children,
        leases::{self, Claim, Claimed, Ending, Place, PutBack, Turn},
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
            let claims = !draining && (more || !self.kept.endings.is_empty());
            let limit = if claims { self.room() } else { 0 };
            if limit > 0 || self.is_due(draining) {
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
        let until = match self.kept.since {
            Some(since) => since + ENDING_WAIT,
            // The window is full: what ends rings, and the poll comes after.
            None if more => Instant::now() + self.poll,
            None => next_poll,
        };
        // The first ending sets the clock for those that share its commit; they need wake nobody.
        let acks = match self.kept.since {
            Some(_) => self.lane.batch.saturating_sub(self.kept.endings.len()),
            None => 1,
        };
        tokio::select! {
            biased;
            () = self.inbox.holds(acks) => false,
            () = self.drain.bell.notified() => false,
            () = self.bell.notified() => { self.turns.look_again(); true }
            () = self.shelf.is_low(), if more => false,
            () = tokio::time::sleep_until(until) => false,
        }
    }

    /// How many to claim: nothing while the shelf is well filled, so that claims come in batches.
    fn room(&self) -> usize {
        let window = self.lane.concurrency + self.pace.ahead(&self.lane);
        let ending = self.kept.endings.len() + self.kept.backs.len();
        if self.shelf.len() > self.lane.low() {
            return 0;
        }
        window.saturating_sub(self.kept.outstanding - ending).min(self.lane.batch)
    }

    fn is_due(&self, draining: bool) -> bool {
        let kept = &self.kept;
        let full = kept.endings.len() >= self.lane.batch;
        !kept.backs.is_empty()
            || full
            || !kept.bereft.is_empty()
            || !kept.endings.is_empty() && (draining || self.shelf.len() <= self.lane.low())
            || kept.since.is_some_and(|since| since.elapsed() >= ENDING_WAIT)
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
        if !self.kept.backs.is_empty() {
            self.put_back().await?;
        }
        let (claimed, more) = match self.claim(limit).await {
            Err(error) if error.is_of_the_row() && !self.kept.endings.is_empty() => {
                self.end_one_by_one().await?;
                (Vec::new(), true)
            }
            claimed => claimed?,
        };
        self.kept.since = None;
        self.hold(claimed);
        self.wake_parents().await;
        Ok(more)
    }

    /// Puts what was claimed on the shelf.
    fn hold(&mut self, claimed: Vec<(ClaimedJob, Lease)>) {
        let signals = self.ground.leases.hold(claimed.iter().map(|(_, lease)| lease));
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

    /// Ends what is kept and claims up to `limit`; gives what was claimed, and whether there may be more.
    async fn claim(&mut self, limit: usize) -> Result<(Vec<(ClaimedJob, Lease)>, bool), Error> {
        self.kept.order();
        if limit > 0 && !self.kept.endings.is_empty() && self.turns.is_held() {
            return self.end_and_claim(limit).await;
        }
        let turn = if limit > 0 { self.turns.next() } else { None };
        // Two statements side by side, on two of Postgres' processes: neither needs what the other comes to.
        let (begun, look) = (Instant::now(), self.floor.next());
        let both = Box::pin(futures::future::join(self.end(), self.take(limit, turn, look.after())));
        let (found, claimed) = both.await;
        let ended = found.map(|found| {
            let endings = mem::take(&mut self.kept.endings);
            self.ended(&endings, found);
        });
        let (jobs, more) = match claimed? {
            Some(claimed) => {
                self.floor.learn(look, begun, &claimed);
                self.learn(claimed, limit)
            }
            None => (Vec::new(), false),
        };
        if let Err(error) = ended {
            self.hold(jobs);
            return Err(error);
        }
        Ok((jobs, more))
    }

    async fn end(&self) -> Result<Option<Vec<JobId>>, Error> {
        let endings = &self.kept.endings;
        if endings.is_empty() {
            return Ok(None);
        }
        let mut db = self.ground.durable.take().await?;
        let found = leases::end(&mut *db, endings).await;
        db.after(found)
    }

    async fn take(&self, limit: usize, turn: Option<Turn>, after: Option<Place>) -> Result<Option<Claimed>, Error> {
        if limit == 0 {
            return Ok(None);
        }
        let (claim, mut db) = (self.claim_of(limit), self.ground.relaxed.take().await?);
        let claimed = match turn {
            None => leases::claim(&mut *db, claim, after).await,
            Some(turn) => leases::claim_in_turn(&mut *db, &[], claim, turn).await,
        };
        db.after(claimed).map(Some)
    }

    /// In one statement: what ends lets in what waits for a limit.
    async fn end_and_claim(&mut self, limit: usize) -> Result<(Vec<(ClaimedJob, Lease)>, bool), Error> {
        let turn = self.turns.next().unwrap_or_default();
        let mut db = self.ground.durable.take().await?;
        let claimed = leases::claim_in_turn(&mut *db, &self.kept.endings, self.claim_of(limit), turn).await;
        let mut claimed = db.after(claimed)?;
        let endings = mem::take(&mut self.kept.endings);
        self.ended(&endings, claimed.ended.take());
        Ok(self.learn(claimed, limit))
    }

    fn learn(&mut self, claimed: Claimed, limit: usize) -> (Vec<(ClaimedJob, Lease)>, bool) {
        let more = self.turns.learn(&claimed, limit);
        self.ground.metrics.claimed(&self.lane.queue, &claimed.waited);
        (claimed.jobs, more)
    }

    fn claim_of(&self, limit: usize) -> Claim<'_> {
        let leases = &self.ground.leases;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        Claim { queue: &self.lane.queue, limit, worker_id: leases.worker_id, lease: leases.length }
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

    /// One of the endings cannot be stored (a result that is no JSON to Postgres): the others are, and that one is dead.
    async fn end_one_by_one(&mut self) -> Result<(), Error> {
        while let Some(ending) = self.kept.endings.last().cloned() {
            let found = match leases::end(self.ground.durable.pool(), std::slice::from_ref(&ending)).await {
                Err(error) if error.is_of_the_row() => {
                    tracing::error!(job.id = %ending.lease.job_id, error = %error, "the end of a job cannot be stored");
                    let error = CtxError::new(Code::Internal, "what the job came to cannot be stored");
                    let error = Some(super::execute::json(&error));
                    let dead = Ending { state: State::Dead, result: None, error, ..ending.clone() };
                    match leases::end(self.ground.durable.pool(), &[dead]).await {
                        // Not even that: its lease runs out, and the reaper decides.
                        Err(error) if error.is_of_the_row() => Some(Vec::new()),
                        found => found?,
                    }
                }
                found => found?,
            };
            self.kept.endings.pop();
            self.ended(&[ending], found);
        }
        Ok(())
    }

    async fn put_back(&mut self) -> Result<(), Error> {
        let found = match leases::put_back(self.ground.durable.pool(), &self.kept.backs).await {
            Err(error) if error.is_of_the_row() && self.kept.backs.len() > 1 => {
                // One at a time; what cannot be stored is left to its lease and the reaper.
                for back in &self.kept.backs {
                    match leases::put_back(self.ground.durable.pool(), std::slice::from_ref(back)).await {
                        Err(error) if error.is_of_the_row() => {
                            tracing::error!(job.id = %back.lease.job_id, error = %error, "a job cannot be put back");
                        }
                        found => _ = found?,
                    }
                }
                Vec::new()
            }
            found => found?,
        };
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
