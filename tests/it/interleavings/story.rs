//! The model: every job there is, and what each step makes of it, beside what the database makes of it.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use krilin::{
    clock::SystemClock,
    model::{
        clock::Clock,
        error::{Code, CtxError},
        flow::Change,
        id::{JobId, LeaseToken, WorkerId},
        job::{Lease, NewJob, State as Final},
    },
    store::{
        Error, jobs,
        leases::{self, Claim, Ending, PutBack},
        stops,
    },
};
use proptest::sample::Index;
use serde_json::json;

use super::Step;
use crate::kinds::{BATCH, Kit};

/// How long a lease lasts, in seconds of the test's clock.
const LEASE_S: i64 = 10;
/// Two workers, of whom either may hold what the other lost.
pub const WORKERS: usize = 2;

/// Where a job stands, as anybody may see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    Scheduled,
    Ready,
    Running,
    Done,
    Dead,
    Cancelled,
}

/// A job in the model.
#[derive(Debug, Clone)]
struct Job {
    stand: Stand,
    /// Its place: the second from which it waits, ten minutes earlier for each point of priority; then the arrival.
    place: (i64, u64),
    attempt: u32,
    max_attempts: u32,
    /// When it is due; seconds of the test's clock.
    due: i64,
    worker: usize,
    lease_until: i64,
    token: Option<LeaseToken>,
    /// Somebody cancelled it while it ran.
    cancelling: bool,
    /// The token of an earlier claim, which must open nothing any more.
    stale: Option<LeaseToken>,
}

/// The model, and the world it is held against.
pub struct Story<'a> {
    kit: &'a Kit,
    jobs: BTreeMap<JobId, Job>,
    /// In the order of their arrival, so that an [`Index`] means the same job when a failure is replayed.
    ids: Vec<JobId>,
    workers: [WorkerId; WORKERS],
    arrivals: u64,
    now: i64,
    paused: bool,
    /// The database's clock at second 0.
    epoch: DateTime<Utc>,
    /// The ending that travels with the next claim.
    ending: Option<(JobId, Ending)>,
}

impl<'a> Story<'a> {
    pub async fn new(kit: &'a Kit) -> Self {
        let empty = "truncate krilin.jobs, krilin.job_history, krilin.attempts, krilin.queues";
        sqlx::raw_sql(empty).execute(&kit.world.owner).await.unwrap();
        let epoch = SystemClock.now();
        let workers = [WorkerId::new(&SystemClock), WorkerId::new(&SystemClock)];
        let story = Self {
            kit,
            jobs: BTreeMap::new(),
            ids: Vec::new(),
            workers,
            arrivals: 0,
            now: 0,
            paused: false,
            epoch,
            ending: None,
        };
        kit.world.freeze(epoch).await;
        story
    }

    pub async fn step(&mut self, step: &Step) {
        match step {
            Step::Enqueue { priority, delay_s, attempts } => self.enqueue(*priority, *delay_s, *attempts).await,
            Step::Claim { worker, limit } => self.claim(*worker, *limit).await,
            Step::Renew { worker } => self.renew(*worker).await,
            Step::Complete { job, own, stale } => self.complete(*job, *own, *stale).await,
            Step::Fail { job, wait_s, stale } => self.fail(*job, *wait_s, *stale).await,
            Step::GiveBack { job } => self.give_back(*job).await,
            Step::Cancel { job } => self.cancel(*job).await,
            Step::Retry { job } => self.retry(*job).await,
            Step::Reap => self.reap().await,
            Step::Sweep => self.sweep().await,
            Step::Promote { limit } => self.promote(*limit).await,
            Step::Pause => self.pause(true).await,
            Step::Resume => self.pause(false).await,
            Step::Pass { seconds } => {
                self.now += seconds;
                self.kit.world.freeze(self.epoch + TimeDelta::seconds(self.now)).await;
            }
        }
    }

    fn pick(&self, index: Index) -> Option<JobId> {
        (!self.ids.is_empty()).then(|| self.ids[index.index(self.ids.len())])
    }

    /// A job and the lease that a worker would name for it: the present one, or an earlier one.
    fn leased(&self, index: Index, stale: bool) -> Option<(JobId, Lease, bool)> {
        let job_id = self.pick(index)?;
        let job = &self.jobs[&job_id];
        let token = if stale { job.stale } else { job.token }?;
        Some((job_id, Lease { job_id, token }, job.stand == Stand::Running && !stale))
    }

    async fn enqueue(&mut self, priority: i16, delay_s: i64, attempts: u32) {
        let run_at = (delay_s > 0).then(|| self.epoch + TimeDelta::seconds(self.now + delay_s));
        let new = NewJob {
            kind: BATCH.to_owned(),
            args: json!({}),
            priority: Some(priority),
            max_attempts: Some(attempts),
            run_at,
            ..NewJob::default()
        };
        let id = self.kit.queue.enqueue(new).await.unwrap().job_id;
        self.arrivals += 1;
        let job = Job {
            stand: if delay_s > 0 { Stand::Scheduled } else { Stand::Ready },
            place: (self.now + delay_s - i64::from(priority) * 600, self.arrivals),
            attempt: 0,
            max_attempts: attempts,
            due: self.now + delay_s,
            worker: 0,
            lease_until: 0,
            token: None,
            cancelling: false,
            stale: None,
        };
        self.jobs.insert(id, job);
        self.ids.push(id);
    }

    async fn claim(&mut self, worker: usize, limit: i64) {
        let endings: Vec<_> = self.ending.take().into_iter().collect();
        for (id, ending) in &endings {
            let job = self.jobs.get_mut(id).unwrap();
            if job.stand == Stand::Running && job.token == Some(ending.lease.token) {
                job.stand = Stand::Done;
            }
        }
        let mut expected: Vec<_> = self.jobs.iter().filter(|(_, job)| job.stand == Stand::Ready).collect();
        expected.sort_by_key(|(_, job)| job.place);
        let most = if self.paused { 0 } else { usize::try_from(limit).unwrap() };
        let expected: Vec<JobId> = expected.into_iter().take(most).map(|(id, _)| *id).collect();
        let claim = Claim {
            queue: "test",
            limit,
            worker_id: self.workers[worker],
            lease: Duration::from_secs(LEASE_S.unsigned_abs()),
        };
        let endings: Vec<_> = endings.into_iter().map(|(_, ending)| ending).collect();
        leases::end(&self.kit.world.pool, &endings).await.unwrap();
        let claimed = if limit % 2 == 0 {
            leases::claim(&self.kit.world.pool, claim, None).await.unwrap()
        } else {
            leases::claim_on(&self.kit.world.pool, claim, None).await.unwrap()
        };
        assert_eq!(claimed.jobs.iter().map(|(job, _)| job.id).collect::<Vec<_>>(), expected, "the claim, in its order");
        for (claimed, lease) in claimed.jobs {
            let job = self.jobs.get_mut(&claimed.id).unwrap();
            job.attempt += 1;
            assert_eq!(claimed.tries.attempt, job.attempt);
            job.stale = job.token.or(job.stale);
            assert_ne!(job.stale, Some(lease.token), "every claim has a token of its own");
            (job.stand, job.token) = (Stand::Running, Some(lease.token));
            (job.worker, job.lease_until) = (worker, self.now + LEASE_S);
        }
    }

    /// A worker renews what it believes to have: also what was taken from it meanwhile.
    async fn renew(&mut self, worker: usize) {
        let held = self.jobs.iter().filter(|(_, job)| job.worker == worker);
        let leases: Vec<_> = held
            .flat_map(|(id, job)| job.token.into_iter().chain(job.stale).map(|token| Lease { job_id: *id, token }))
            .collect();
        let length = Duration::from_secs(LEASE_S.unsigned_abs());
        let renewed = leases::renew(&self.kit.world.pool, &leases, length).await.unwrap();
        let mut renewed: Vec<_> = renewed.into_iter().map(|lease| lease.job_id).collect();
        let mut expected = Vec::new();
        for (id, job) in &mut self.jobs {
            if job.stand == Stand::Running && job.worker == worker {
                job.lease_until = self.now + LEASE_S;
                expected.push(*id);
            }
        }
        renewed.sort_unstable();
        assert_eq!(renewed, expected, "what still held");
    }

    async fn complete(&mut self, index: Index, own: bool, stale: bool) {
        let Some((id, lease, holds)) = self.leased(index, stale) else { return };
        if !own {
            let ending = Ending { lease, state: Final::Done, result: None, error: None };
            self.ending.get_or_insert((id, ending));
            return;
        }
        let mut tx = self.kit.world.pool.begin().await.unwrap();
        let ended = leases::complete(&mut tx, &lease, None).await;
        tx.commit().await.unwrap();
        if holds && !self.jobs[&id].cancelling {
            ended.unwrap();
            self.jobs.get_mut(&id).unwrap().stand = Stand::Done;
        } else {
            assert!(matches!(ended, Err(Error::StaleLease)), "{ended:?}");
        }
    }

    async fn fail(&mut self, index: Index, wait_s: u64, stale: bool) {
        let Some((id, lease, holds)) = self.leased(index, stale) else { return };
        let job = self.jobs.get_mut(&id).unwrap();
        let error = serde_json::to_string(&CtxError::new(Code::Unavailable, "as told")).unwrap();
        if job.attempt >= job.max_attempts {
            let ending = Ending { lease, state: Final::Dead, result: None, error: Some(error) };
            leases::end(&self.kit.world.pool, &[ending]).await.unwrap();
            job.stand = if holds { Stand::Dead } else { job.stand };
            return;
        }
        let back = PutBack {
            lease,
            wait: Some(Duration::from_secs(wait_s)),
            spent: true,
            outcome: Some("failed"),
            error: Some(error),
        };
        let back = leases::put_back(&self.kit.world.pool, &[back]).await.unwrap();
        assert_eq!(back, if holds { vec![id] } else { vec![] });
        if holds {
            job.due = self.now + i64::try_from(wait_s).unwrap();
            job.stand = if wait_s > 0 { Stand::Scheduled } else { Stand::Ready };
        }
    }

    async fn give_back(&mut self, index: Index) {
        let Some((id, lease, holds)) = self.leased(index, false) else { return };
        let back = PutBack { lease, wait: None, spent: false, outcome: None, error: None };
        let back = leases::put_back(&self.kit.world.pool, &[back]).await.unwrap();
        assert_eq!(back, if holds { vec![id] } else { vec![] });
        if holds {
            let job = self.jobs.get_mut(&id).unwrap();
            job.attempt -= 1;
            job.stand = Stand::Ready;
        }
    }

    async fn cancel(&mut self, index: Index) {
        let Some(id) = self.pick(index) else { return };
        let job = self.jobs.get_mut(&id).unwrap();
        let cancelled = self.kit.queue.cancel(id, None).await;
        match job.stand {
            Stand::Scheduled | Stand::Ready => {
                assert_eq!(cancelled.unwrap(), Final::Cancelled);
                job.stand = Stand::Cancelled;
            }
            Stand::Running => {
                assert_eq!(cancelled.unwrap(), Final::Cancelling);
                job.cancelling = true;
            }
            Stand::Done | Stand::Dead | Stand::Cancelled => {}
        }
    }

    async fn retry(&mut self, index: Index) {
        let Some(id) = self.pick(index) else { return };
        let retried = self.kit.queue.retry(id, None).await;
        let job = self.jobs.get_mut(&id).unwrap();
        if matches!(job.stand, Stand::Dead | Stand::Cancelled) {
            retried.unwrap();
            self.arrivals += 1;
            (job.stand, job.attempt, job.place.1) = (Stand::Ready, 0, self.arrivals);
            (job.stale, job.cancelling) = (job.token.take().or(job.stale), false);
        }
    }

    async fn reap(&mut self) {
        let error = CtxError::new(Code::Unavailable, "as told");
        // All tokens there are, old and new: the fence decides.
        let leases: Vec<_> = self
            .jobs
            .iter()
            .flat_map(|(id, job)| job.token.into_iter().chain(job.stale).map(|token| Lease { job_id: *id, token }))
            .collect();
        let mut reaped: Vec<_> = leases::reap(&self.kit.world.pool, &leases, &error)
            .await
            .unwrap()
            .into_iter()
            .map(|job| (job.id, job.dead))
            .collect();
        let mut expected = Vec::new();
        for (id, job) in &mut self.jobs {
            if job.stand == Stand::Running && job.lease_until < self.now {
                let dead = job.attempt >= job.max_attempts && !job.cancelling;
                job.stand = if dead { Stand::Dead } else { Stand::Ready };
                job.attempt = if dead { job.attempt } else { job.attempt.min(job.max_attempts - 1) };
                expected.push((*id, dead));
            }
        }
        reaped.sort_unstable();
        assert_eq!(reaped, expected, "what the reaper took");
    }

    async fn sweep(&mut self) {
        let (_, ended) = stops::end_pending(&self.kit.world.pool, 1_000).await.unwrap();
        let mut expected = 0;
        for job in self.jobs.values_mut() {
            if job.cancelling && matches!(job.stand, Stand::Scheduled | Stand::Ready) {
                job.stand = Stand::Cancelled;
                expected += 1;
            }
        }
        assert_eq!(ended, expected, "what was cancelled and runs no more");
    }

    async fn promote(&mut self, limit: i64) {
        let promoted = jobs::promote(&self.kit.world.pool, limit).await.unwrap().len();
        let mut due: Vec<_> =
            self.jobs.iter_mut().filter(|(_, job)| job.stand == Stand::Scheduled && job.due <= self.now).collect();
        assert_eq!(promoted, due.len().min(usize::try_from(limit).unwrap()), "how many were due");
        if promoted < due.len() {
            // Among equals, which came first is not said: the database tells.
            let ready = "select id from krilin.jobs where state = 'ready'";
            let ready: Vec<JobId> = sqlx::query_scalar(ready).fetch_all(&self.kit.world.pool).await.unwrap();
            let latest = due.iter().filter(|(id, _)| ready.contains(id)).map(|(_, job)| job.due).max();
            for (id, job) in &mut due {
                if ready.contains(id) {
                    job.stand = Stand::Ready;
                } else {
                    assert!(Some(job.due) >= latest, "the longest overdue first");
                }
            }
            return;
        }
        for (_, job) in due {
            job.stand = Stand::Ready;
        }
    }

    async fn pause(&mut self, paused: bool) {
        let change = Change { paused: Some(paused), ..Change::default() };
        self.kit.queue.change_queue("test", &change, "the test").await.unwrap();
        self.paused = paused;
    }

    /// Every job is where the model has it, once, with as many attempts.
    pub async fn compare(&self, step: &Step) {
        let rows: Vec<(JobId, String, i32)> = sqlx::query_as(
            "select id, state, attempt from krilin.jobs union all select id, state, attempt from krilin.job_history order by id",
        )
        .fetch_all(&self.kit.world.pool)
        .await
        .unwrap();
        let said: Vec<_> = self
            .jobs
            .iter()
            .map(|(id, job)| (*id, format!("{:?}", job.stand).to_lowercase(), i32::try_from(job.attempt).unwrap()))
            .collect();
        assert_eq!(rows, said, "after {step:?}");
    }
}
