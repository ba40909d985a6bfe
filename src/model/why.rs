//! Why a job does not run yet, and when it should. Decides from facts of one moment, by the rules of the claim; refuses to
//! guess a time where somebody must act first.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::job::State;

/// What stands between a job and its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Block {
    /// Nothing any more: it has ended.
    Ended,
    /// Nothing: it runs.
    Running,
    /// Its time has not come.
    Time,
    /// It failed and waits for its next attempt.
    Retry,
    /// It waits for jobs of its own.
    Children,
    /// Its queue is paused.
    Paused,
    /// All queues are paused.
    AllPaused,
    /// No worker is there for its queue.
    NoWorker,
    /// Workers are there for its queue, but none that knows its kind.
    NoAbleWorker,
    /// The limit over all queues is reached.
    AllLimit,
    /// The queue's limit is reached.
    QueueLimit,
    /// The limit per user is reached.
    UserLimit,
    /// The limit of its concurrency key is reached.
    KeyLimit,
    /// The queue's rate is spent.
    Rate,
    /// The rate per user is spent.
    UserRate,
    /// The rate of its concurrency key is spent.
    KeyRate,
    /// Others are before it.
    Behind,
    /// Nothing: the next claim takes it.
    Next,
}

/// One thing that stands between a job and its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Reason {
    /// Which.
    pub code: Block,
    /// In words.
    pub message: String,
    /// Until when, where that is known.
    pub until: Option<DateTime<Utc>>,
}

/// Why a job does not run yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Why {
    /// Where it stands.
    pub state: State,
    /// Everything that stands in its way, what matters most first; never empty.
    pub reasons: Vec<Reason>,
    /// When it should start; none when somebody must act first, or when nobody can know.
    pub starts_at: Option<DateTime<Utc>>,
    /// The moment of which this is true.
    pub looked_at: DateTime<Utc>,
}

/// Who paused, and why.
#[derive(Debug, Clone, Deserialize)]
pub struct PausedBy {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
}

/// A limit on what runs, and what runs.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Bound {
    /// The limit.
    pub max: Option<i64>,
    /// What counts towards it.
    pub running: i64,
}

/// A rate and what is left of it.
#[derive(Debug, Clone, Deserialize)]
pub struct Spent {
    /// `queue`, `user` or `key`.
    pub of: String,
    /// Units of the window.
    pub units: i64,
    /// Units left of it.
    pub left: i64,
    /// When the next come free.
    pub free_at: Option<DateTime<Utc>>,
}

/// What is known of a live job at one moment.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "the statement that reads them says it")]
pub struct Facts {
    pub now: DateTime<Utc>,
    pub state: String,
    pub kind: String,
    pub queue: String,
    pub run_at: DateTime<Utc>,
    pub key: Option<String>,
    pub attempt: i64,
    pub error: Option<String>,
    pub started_at: Option<DateTime<Utc>>,
    pub worker_id: Option<String>,
    pub cost: i64,
    pub paused: Option<PausedBy>,
    pub all_paused: Option<PausedBy>,
    pub all_limit: Bound,
    pub queue_limit: Bound,
    pub user_limit: Bound,
    pub key_limit: Bound,
    pub rates: Vec<Spent>,
    pub ahead: i64,
    pub head_at: Option<DateTime<Utc>>,
    pub users: i64,
    pub workers: i64,
    pub able: i64,
    pub children: Option<i64>,
}

impl Facts {
    /// Why the job does not run.
    pub fn why(&self) -> Why {
        let state = if self.state == "running" { State::Running } else { State::Pending };
        let mut reasons = Vec::new();
        if state == State::Running {
            let worker = self.worker_id.as_deref().unwrap_or("a worker");
            reasons.push(reason(Block::Running, format!("worker {worker} runs it"), None));
            return Why { state, reasons, starts_at: self.started_at, looked_at: self.now };
        }
        self.waits(&mut reasons);
        let at_front = reasons.is_empty();
        self.must_act(&mut reasons);
        self.limits(&mut reasons);
        let free = reasons.is_empty();
        if at_front && self.ahead > 0 {
            let words = format!("{} jobs of the same lane are before it{}", self.ahead, self.turns());
            reasons.push(reason(Block::Behind, words, None));
        } else if free {
            reasons.push(reason(Block::Next, format!("the next claim takes it{}", self.turns()), None));
        }
        Why { state, starts_at: self.starts_at(&reasons), reasons, looked_at: self.now }
    }

    fn turns(&self) -> String {
        match self.users {
            0 => String::new(),
            1 => "; one more user takes turns with its own".to_owned(),
            users => format!("; {users} more users take turns with its own"),
        }
    }

    /// What passes by itself.
    fn waits(&self, reasons: &mut Vec<Reason>) {
        if let Some(children) = self.children {
            reasons.push(reason(Block::Children, format!("{children} jobs that it waits for have not ended"), None));
        }
        if self.run_at > self.now {
            let until = self.run_at.format("%Y-%m-%d %H:%M:%S UTC");
            let (code, words) = match (&self.error, self.attempt) {
                (Some(error), 1..) => {
                    (Block::Retry, format!("its latest attempt failed ({error}); the next is at {until}"))
                }
                _ => (Block::Time, format!("its time comes at {until}")),
            };
            reasons.push(reason(code, words, Some(self.run_at)));
        }
    }

    /// What lasts until somebody acts.
    fn must_act(&self, reasons: &mut Vec<Reason>) {
        let words = |paused: &PausedBy, what: &str| match &paused.reason {
            Some(why) => format!("{} paused {what}: {why}", paused.by),
            None => format!("{} paused {what}", paused.by),
        };
        if let Some(paused) = &self.all_paused {
            reasons.push(reason(Block::AllPaused, words(paused, "all queues"), None));
        }
        if let Some(paused) = &self.paused {
            reasons.push(reason(Block::Paused, words(paused, &format!("the queue `{}`", self.queue)), None));
        }
        if self.workers == 0 {
            let words = format!("no worker is there for the queue `{}`; `krilin work {0}` starts one", self.queue);
            reasons.push(reason(Block::NoWorker, words, None));
        } else if self.able == 0 {
            let words = format!("of {} workers none knows the kind `{}`", self.workers, self.kind);
            reasons.push(reason(Block::NoAbleWorker, words, None));
        }
    }

    fn limits(&self, reasons: &mut Vec<Reason>) {
        let key = self.key.as_deref().unwrap_or_default();
        for (code, bound, of) in [
            (Block::AllLimit, self.all_limit, "in all queues together".to_owned()),
            (Block::QueueLimit, self.queue_limit, format!("in the queue `{}`", self.queue)),
            (Block::UserLimit, self.user_limit, "of its user".to_owned()),
            (Block::KeyLimit, self.key_limit, format!("with its concurrency key `{key}`")),
        ] {
            if let Some(max) = bound.max.filter(|max| bound.running >= *max) {
                let words = format!("{} jobs run {of}, and {max} may", bound.running);
                reasons.push(reason(code, words, None));
            }
        }
        for rate in &self.rates {
            // A job that costs more than all units takes all.
            if rate.left >= self.cost.min(rate.units) {
                continue;
            }
            let (code, of) = match rate.of.as_str() {
                "user" => (Block::UserRate, "of its user"),
                "key" => (Block::KeyRate, "of its concurrency key"),
                _ => (Block::Rate, "of its queue"),
            };
            let words = format!(
                "the rate {of} is spent: {} of {} units are left and it costs {}",
                rate.left, rate.units, self.cost
            );
            reasons.push(reason(code, words, rate.free_at));
        }
    }

    /// The latest of what is known; none while something of unknown length stands in the way. Behind others a job should
    /// wait as long as the one in front has.
    fn starts_at(&self, reasons: &[Reason]) -> Option<DateTime<Utc>> {
        let mut latest = self.now;
        for reason in reasons {
            latest = match (reason.code, reason.until) {
                (_, Some(until)) => latest.max(until),
                (Block::Next, None) => latest,
                (Block::Behind, None) => latest.max(self.run_at + (self.now - self.head_at?)),
                _ => return None,
            };
        }
        Some(latest)
    }
}

fn reason(code: Block, message: String, until: Option<DateTime<Utc>>) -> Reason {
    Reason { code, message, until }
}

/// Of a job that has ended.
pub fn ended(state: State, now: DateTime<Utc>) -> Why {
    let reasons = vec![reason(Block::Ended, format!("it is {state}"), None)];
    Why { state, reasons, starts_at: None, looked_at: now }
}
