//! What is told of a job at the moment it is enqueued. Refuses to ask the database for it: depth and pace are those of a
//! moment ago, and say when that was.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Web, auth::Caller};
use crate::model::{
    id::JobId,
    job::{Enqueued, NewJob, Placed, State},
};

/// What is known of a job at the moment it is enqueued; `GET /api/v1/jobs/{id}` knows the rest.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Receipt {
    /// Its id.
    #[schema(value_type = uuid::Uuid)]
    pub id: JobId,
    /// Its kind.
    pub kind: String,
    /// The app it works for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_id: Option<String>,
    /// Where it stands.
    pub state: State,
    /// Whether it is new, or what became of it where its unique key was taken.
    pub outcome: Placed,
    /// When it should start, from the queue's depth and what the workers started lately; null where that is not known.
    /// An estimate that heeds priority and age, and neither limits nor the turns of users.
    pub expected_start_at: Option<DateTime<Utc>>,
}

/// How long a queue was a moment ago.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct QueueDepth {
    /// The queue.
    pub name: String,
    /// Jobs whose time had come and that waited; null where nobody has counted yet.
    pub depth: Option<u64>,
    /// When they were counted: a second ago, more where counting takes long.
    pub as_of: Option<DateTime<Utc>>,
}

/// What the request cost its token, and what is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Budget {
    /// Requests that were counted: a batch is one.
    pub cost: u32,
    /// Requests that the token may make at this very moment before it is told to slow down.
    pub remaining: u32,
}

impl Budget {
    /// Of the request that is being answered.
    pub(super) fn of(caller: &Caller) -> Self {
        Self { cost: 1, remaining: caller.remaining() }
    }
}

/// An enqueued job as an answer.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ReceiptAnswer {
    /// The job.
    pub job: Receipt,
    /// Where it waits.
    pub queue: QueueDepth,
    /// What that cost.
    pub budget: Budget,
}

/// Enqueued jobs as an answer, in the order of the request.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ReceiptsAnswer {
    /// The jobs.
    pub jobs: Vec<Receipt>,
    /// Where they wait.
    pub queues: Vec<QueueDepth>,
    /// What that cost.
    pub budget: Budget,
}

/// What is told beside the job. It is kept with an `Idempotency-Key`, so that a repeated request is told the same.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Told {
    expected_start_at: Option<DateTime<Utc>>,
    queue: QueueDepth,
    budget: Budget,
}

/// What is told of a job that has no id yet.
pub(super) struct Slip {
    kind: String,
    app_id: Option<String>,
    told: Told,
}

impl Slip {
    /// For `job`, which comes behind so many others of its request. What it is told is put into its idempotency record.
    pub(super) fn of(web: &Web, caller: &Caller, job: &mut NewJob, behind: usize) -> Self {
        let policy = web.queue().policies().get(&job.kind);
        let queue = policy.map(|policy| policy.queue.clone()).unwrap_or_default();
        let priority = job.priority.or_else(|| policy.map(|policy| policy.priority)).unwrap_or_default();
        let outlook = web.queue().outlook(&queue);
        let now = web.clock().now();
        let due =
            job.run_at.or_else(|| job.delay.and_then(|delay| Some(now + chrono::TimeDelta::from_std(delay).ok()?)));
        let behind = u64::try_from(behind).unwrap_or(u64::MAX);
        let told = Told {
            expected_start_at: outlook.as_ref().and_then(|outlook| outlook.start(now, (behind, priority), due)),
            queue: QueueDepth {
                name: queue,
                depth: outlook.as_ref().map(|outlook| outlook.depth),
                as_of: outlook.as_ref().map(|outlook| outlook.as_of),
            },
            budget: Budget::of(caller),
        };
        if let Some(given) = &mut job.idempotency {
            given.told = serde_json::to_value(&told).ok();
        }
        Self { kind: job.kind.clone(), app_id: job.app_id.as_ref().map(ToString::to_string), told }
    }

    /// With what the enqueue came to; a repeated request gets what the first one was told.
    pub(super) fn with(self, enqueued: &Enqueued) -> ReceiptAnswer {
        let first = enqueued
            .told
            .clone()
            .filter(|_| enqueued.replayed)
            .and_then(|told: Value| serde_json::from_value(told).ok());
        let Told { expected_start_at, queue, budget } = first.unwrap_or(self.told);
        let job = Receipt {
            id: enqueued.job_id,
            kind: self.kind,
            app_id: self.app_id,
            state: enqueued.state,
            outcome: enqueued.outcome,
            expected_start_at: expected_start_at.filter(|_| enqueued.state == State::Pending),
        };
        ReceiptAnswer { job, queue, budget }
    }
}

impl ReceiptsAnswer {
    /// Of each job its own, of each queue one.
    pub(super) fn of(answers: Vec<ReceiptAnswer>, caller: &Caller) -> Self {
        let mut queues = BTreeMap::new();
        let budget = answers.first().map_or_else(|| Budget::of(caller), |answer| answer.budget);
        let jobs = answers.into_iter().map(|ReceiptAnswer { job, queue, .. }| {
            queues.entry(queue.name.clone()).or_insert(queue);
            job
        });
        let jobs = jobs.collect();
        Self { jobs, queues: queues.into_values().collect(), budget }
    }
}
