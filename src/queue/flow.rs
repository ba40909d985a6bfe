//! What an operator sees and sets of queues: pauses, limits, shares, and who is there to work. Refuses a queue that no kind
//! waits in. A change is obeyed by every claim that begins after its commit, on every worker, for the claim reads it.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{Error, Queue};
use crate::{
    model::{
        flow::{ALL, Change, Settings},
        id::{JobId, UserId},
        near,
        policy::Policies,
        why::{self as reasons, Why},
    },
    store::{self, flow, jobs, why, workers},
};

/// A worker that was not heard of for this long is not counted as there.
pub const WORKER_SILENT: Duration = Duration::from_secs(10);
/// The most jobs before another that are counted.
const AHEAD_MAX: i64 = 10_000;
/// The most workers that are looked at.
pub(super) const WORKERS_MAX: i64 = 10_000;
/// The most users and the most keys with limits of their own that are shown.
const PARTS_SHOWN: i64 = 1_000;

/// A queue as an operator sees it.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct QueueView {
    /// What is set.
    #[serde(flatten)]
    pub settings: Settings,
    /// Jobs whose time has come and that wait.
    pub ready: i64,
    /// Jobs whose time has not come.
    pub scheduled: i64,
    /// Jobs under a lease.
    pub running: i64,
    /// Since when the longest waiting job is due.
    pub oldest_due_at: Option<DateTime<Utc>>,
    /// Workers that are there for it.
    pub workers: usize,
}

impl Queue {
    /// Every queue: those that kinds wait in, those with jobs, those with settings, and `all`, which sums them up.
    pub async fn queues(&self) -> Result<Vec<QueueView>, Error> {
        self.look(None).await
    }

    /// Why the job `id` does not run yet and when it should; only if it is `user_id`'s, where one is given.
    pub async fn why(&self, id: JobId, user_id: Option<UserId>) -> Result<Why, Error> {
        let facts = why::facts(self.0.stack.pool(), id, user_id, AHEAD_MAX, WORKER_SILENT).await?;
        if let Some(facts) = facts {
            return Ok(facts.why());
        }
        let job = self.get(id, user_id).await?.ok_or(Error::NotFound)?;
        Ok(reasons::ended(job.state, self.clock().now()))
    }

    /// One queue, or `all`.
    pub async fn one_queue(&self, name: &str) -> Result<QueueView, Error> {
        self.look(Some(name)).await?.pop().ok_or_else(|| self.unknown_queue(name))
    }

    async fn look(&self, only: Option<&str>) -> Result<Vec<QueueView>, Error> {
        let mut db = store::within(self.0.stack.pool().acquire()).await?;
        let mut settings: BTreeMap<String, Settings> =
            flow::settings(&mut *db, None).await?.into_iter().map(|found| (found.name.clone(), found)).collect();
        let (mut users, mut keys) = flow::parts(&mut db, only, PARTS_SHOWN).await?;
        let depths = jobs::depths(&mut *db).await?;
        let workers = workers::list(&mut *db, WORKER_SILENT, WORKERS_MAX).await?;
        let known = self.known_queues().into_iter().chain(depths.iter().map(|depth| depth.queue.clone()));
        for name in known.chain([ALL.to_owned()]) {
            settings.entry(name.clone()).or_insert_with(|| Settings::unset(&name));
        }
        let view = |(name, mut settings): (String, Settings)| {
            settings.users = users.remove(&name).unwrap_or_default();
            settings.keys = keys.remove(&name).unwrap_or_default();
            let mine = || depths.iter().filter(|depth| name == ALL || depth.queue == name);
            QueueView {
                settings,
                ready: mine().map(|depth| depth.ready).sum(),
                scheduled: mine().map(|depth| depth.scheduled).sum(),
                running: mine().map(|depth| depth.running).sum(),
                oldest_due_at: mine().filter_map(|depth| depth.oldest_due_at).min(),
                workers: workers.iter().filter(|worker| name == ALL || worker.queues.contains(&name)).count(),
            }
        };
        let wanted = settings.into_iter().filter(|(name, _)| only.is_none_or(|only| only == name));
        Ok(wanted.map(view).collect())
    }

    /// Changes what is set for `name`, in the name of `by`; gives the queue as it is then. Workers that wait are woken.
    pub async fn change_queue(&self, name: &str, change: &Change, by: &str) -> Result<QueueView, Error> {
        change.check(name).map_err(|unfit| Error::Unfit(unfit.to_string()))?;
        if name != ALL && !self.known_queues().iter().any(|known| known == name) {
            // A queue of an older or newer version's kinds may still have jobs.
            self.one_queue(name).await?;
        }
        let mut tx = self.0.stack.begin().await?;
        let held = flow::hold(&mut tx, name, by).await?;
        let pause = (change.paused, change.reason.as_deref());
        flow::write(&mut tx, name, &change.over(held.limits), pause, by).await?;
        flow::write_parts(&mut tx, name, change).await.map_err(|error| match error.constraint() {
            Some("queue_users_user_id_fkey") => Error::Unfit("users names somebody who is not there".to_owned()),
            _ => error.into(),
        })?;
        tx.commit().await?;
        let woken = if name == ALL { self.known_queues() } else { vec![name.to_owned()] };
        self.notices().ready(woken.iter().map(String::as_str));
        self.one_queue(name).await
    }

    /// The queues that kinds wait in, each once.
    fn known_queues(&self) -> Vec<String> {
        known_queues(self.policies())
    }

    fn unknown_queue(&self, name: &str) -> Error {
        let known = self.known_queues();
        let hint = near::hint(name, known.iter().map(String::as_str).chain([ALL]));
        Error::UnknownQueue(format!("there is no queue `{name}`{hint}"))
    }
}

/// The queues that the kinds of `policies` wait in, each once.
pub(super) fn known_queues(policies: &Policies) -> Vec<String> {
    let mut names: Vec<_> = policies.iter().map(|(_, policy)| policy.queue.clone()).collect();
    names.sort_unstable();
    names.dedup();
    names
}
