//! A job as a caller writes it in a body. Refuses what is wrong with it by itself, all faults at once, each with its place.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;

use super::error::FieldError;
use crate::model::{
    duration::HumanDuration,
    enqueue::{ConflictName, Keying},
    id::UserId,
    job::{Deadline, Unique, When},
    near,
    policy::{Asker, PRIORITY_MAX, Policies},
};

/// The longest unique key, in bytes: the queue's, less the user's id before it.
const UNIQUE_KEY_MAX: usize = 200;

/// A job as a caller wants it.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The kind, such as `app_action`.
    pub kind: String,
    /// The app it works for.
    pub app_id: Option<String>,
    /// What it is given; for `app_action` an object of `action` and `input`.
    pub args: Option<Value>,
    /// Not before this instant.
    pub run_at: Option<DateTime<Utc>>,
    /// Not before this long has passed, such as `5m` or `1h 30m`. Not together with `run_at`.
    #[schema(value_type = Option<String>)]
    pub delay: Option<HumanDuration>,
    /// Higher runs sooner; from -100 to 100.
    pub priority: Option<i16>,
    /// Attempts before it is dead; as its kind says unless given.
    pub max_attempts: Option<u32>,
    /// While a live job of this user has this key, that one is the answer.
    pub unique_key: Option<String>,
    /// Also in the rest of the period in which such a job was enqueued, unless that died or was cancelled; such as `1d`,
    /// counted in UTC.
    #[schema(value_type = Option<String>)]
    pub unique_period: Option<HumanDuration>,
    /// What becomes of this job when its key is taken; `keep` unless given.
    pub on_conflict: Option<ConflictName>,
    /// With `debounce`: the longest that new ones can put the job off.
    #[schema(value_type = Option<String>)]
    pub max_wait: Option<HumanDuration>,
    /// When it must have ended: an instant, or a duration from when it is due, such as `10m`. Past it the job is not begun,
    /// and stopped where it runs.
    pub deadline: Option<String>,
    /// Jobs that must end before this one begins: enqueued with it, all or none. They may have children of their own.
    #[serde(default)]
    #[schema(no_recursion)]
    pub children: Vec<Wanted>,
    /// What it expects of them: `all_done` (else it is dead with `ChildFailed`) or `all_ended`.
    #[serde(default)]
    pub when: When,
}

impl Wanted {
    /// Its unique key, which is its user's own.
    pub(super) fn unique(&self, user: UserId) -> Result<Option<Unique>, (&'static str, &'static str)> {
        let keying = Keying {
            key: self.unique_key.as_ref().map(|key| format!("{user}:{key}")),
            period: self.unique_period.map(|period| period.0),
            on_conflict: self.on_conflict,
            max_wait: self.max_wait.map(|wait| wait.0),
        };
        keying.unique(self.delay.map(|delay| delay.0))
    }

    /// When it must have ended.
    pub(super) fn deadline(&self) -> Result<Option<Deadline>, String> {
        let Some(text) = &self.deadline else { return Ok(None) };
        if let Ok(at) = DateTime::parse_from_rfc3339(text) {
            return Ok(Some(Deadline::At(at.to_utc())));
        }
        let within = text.parse::<HumanDuration>().ok().filter(|within| !within.0.is_zero());
        let within = within.ok_or_else(|| format!("`{text}` is neither an instant nor a duration such as `10m`"))?;
        Ok(Some(Deadline::Within(within.0)))
    }

    /// What is wrong apart from the arguments, below `base`.
    pub(super) fn errors(&self, policies: &Policies, user: UserId, base: &str) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut wrong =
            |field: &str, message: String| errors.push(FieldError { pointer: format!("{base}/{field}"), message });
        let callable = || policies.iter().filter(|(_, policy)| policy.asked_by == Asker::User).map(|(kind, _)| kind);
        match policies.get(&self.kind) {
            Some(policy) if policy.asked_by == Asker::User => {}
            Some(_) => wrong("kind", format!("jobs of the kind `{}` are enqueued by Krilin itself", self.kind)),
            None => {
                let hint = near::hint(&self.kind, callable());
                wrong("kind", format!("there is no kind of job named `{}`{hint}", self.kind));
            }
        }
        if self.run_at.is_some() && self.delay.is_some() {
            wrong("delay", "`run_at` and `delay` exclude each other".to_owned());
        }
        if self.priority.is_some_and(|priority| priority.unsigned_abs() > PRIORITY_MAX.unsigned_abs()) {
            wrong("priority", format!("a priority is from -{PRIORITY_MAX} to {PRIORITY_MAX}"));
        }
        if self.unique_key.as_ref().is_some_and(|key| key.is_empty() || key.len() > UNIQUE_KEY_MAX) {
            wrong("unique_key", format!("a unique key has 1 to {UNIQUE_KEY_MAX} bytes"));
        }
        if let Err(message) = self.deadline() {
            wrong("deadline", message);
        }
        if let Err((field, message)) = self.unique(user) {
            wrong(field, message.to_owned());
        }
        errors
    }
}
