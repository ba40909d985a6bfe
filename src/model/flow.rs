//! Flow control: what an operator may set for a queue, and how a change to it is judged. Refuses what cannot be meant: a
//! limit of nothing (that is a pause), a rate without an end, a share of nothing.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize};

use super::{
    duration::HumanDuration,
    error::{Code, CtxError},
    id::UserId,
};

/// The name under which a setting holds for all queues together; no queue may have it.
pub const ALL: &str = "all";
/// The largest limit on running jobs.
pub const RUNNING_MAX: u32 = 1_000_000;
/// The most units of a rate.
pub const UNITS_MAX: u32 = 1_000_000_000;
/// The shortest and the longest period of a rate. The claim sums what was started in it.
pub const PERIOD_MIN: Duration = Duration::from_secs(1);
/// See [`PERIOD_MIN`].
pub const PERIOD_MAX: Duration = Duration::from_hours(31 * 24);
/// The largest weight of a user.
pub const WEIGHT_MAX: u32 = 1_000;
/// The longest concurrency key, in bytes.
pub const KEY_MAX_BYTES: usize = 255;
/// The longest reason of a pause, in characters.
pub const REASON_MAX_LENGTH: usize = 500;
/// The most users and keys one change names.
pub const CHANGE_MAX: usize = 1_000;

/// So many units in any window of this length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// What may start; a job costs one unit unless its kind or its caller says otherwise.
    pub units: u32,
    /// The length of the window, such as `1m`.
    #[schema(value_type = String, example = "1m")]
    pub period: HumanDuration,
    /// Whether the total of all workers is kept exactly, in Postgres. If not, each worker keeps to its share by itself,
    /// which costs nothing and is as exact as the work is evenly spread. Limits per user and key are always exact.
    #[serde(default = "yes")]
    pub exact: bool,
}

fn yes() -> bool {
    true
}

/// Why a queue rests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Pause {
    /// Since when.
    pub at: DateTime<Utc>,
    /// Who paused it.
    pub by: String,
    /// Why, in their words.
    pub reason: Option<String>,
}

/// How much of a queue may run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Limits {
    /// Jobs of the queue that run at once, on all workers together.
    pub max_running: Option<u32>,
    /// Jobs of one user.
    pub max_running_per_user: Option<u32>,
    /// Jobs with the same concurrency key; one unless set.
    pub max_running_per_key: Option<u32>,
    /// What may start in a window.
    pub rate: Option<Rate>,
    /// What one user may start in a window.
    pub rate_per_user: Option<Rate>,
    /// What may start in a window with the same concurrency key.
    pub rate_per_key: Option<Rate>,
}

/// A user's part of a queue, where it is not like the others'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// Places for each one that a user with weight 1 gets, while both wait.
    #[serde(default = "one")]
    pub weight: u32,
    /// Jobs of this user that run at once, in place of the queue's limit per user.
    #[serde(default)]
    pub max_running: Option<u32>,
}

fn one() -> u32 {
    1
}

/// All that is set for a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Settings {
    /// The queue, or `all`.
    pub name: String,
    /// Set while it rests: nothing is claimed, what runs may end.
    pub paused: Option<Pause>,
    /// How much may run.
    #[serde(flatten)]
    pub limits: Limits,
    /// Users with a share of their own.
    #[schema(value_type = BTreeMap<String, Share>)]
    pub users: BTreeMap<UserId, Share>,
    /// Concurrency keys with a limit of their own.
    pub keys: BTreeMap<String, u32>,
    /// When something was last set.
    pub updated_at: Option<DateTime<Utc>>,
    /// By whom.
    pub updated_by: Option<String>,
}

impl Settings {
    /// Those of a queue for which nothing was set.
    pub fn unset(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            paused: None,
            limits: Limits::default(),
            users: BTreeMap::new(),
            keys: BTreeMap::new(),
            updated_at: None,
            updated_by: None,
        }
    }
}

/// What to change. A field that is not named stays as it is; one that is null is lifted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Whether the queue is to rest.
    #[serde(default)]
    pub paused: Option<bool>,
    /// Why it is to rest.
    #[serde(default)]
    pub reason: Option<String>,
    /// See [`Limits::max_running`].
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<u32>)]
    pub max_running: Option<Option<u32>>,
    /// See [`Limits::max_running_per_user`].
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<u32>)]
    pub max_running_per_user: Option<Option<u32>>,
    /// See [`Limits::max_running_per_key`].
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<u32>)]
    pub max_running_per_key: Option<Option<u32>>,
    /// See [`Limits::rate`].
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Rate>)]
    pub rate: Option<Option<Rate>>,
    /// See [`Limits::rate_per_user`].
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Rate>)]
    pub rate_per_user: Option<Option<Rate>>,
    /// See [`Limits::rate_per_key`].
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Rate>)]
    pub rate_per_key: Option<Option<Rate>>,
    /// Shares of users by their id; null takes one back.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, Share>)]
    pub users: BTreeMap<UserId, Option<Share>>,
    /// Limits of concurrency keys; null takes one back.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, u32>)]
    pub keys: BTreeMap<String, Option<u32>>,
}

/// A field that is there, be it null.
#[expect(clippy::option_option, reason = "null takes a limit back, and a field that is not there leaves it")]
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A field that cannot be meant as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {rule}")]
pub struct Unfit {
    /// Its name.
    pub field: &'static str,
    /// What must hold.
    pub rule: String,
}

impl From<Unfit> for CtxError {
    fn from(unfit: Unfit) -> Self {
        Self::new(Code::ValidationFailed, unfit.to_string())
    }
}

impl Change {
    /// Whether this may be set for `queue`; else the first field that may not.
    pub fn check(&self, queue: &str) -> Result<(), Unfit> {
        let unfit = |field, rule: String| Err(Unfit { field, rule });
        if queue == ALL
            && let Some(field) = self.of_one_queue()
        {
            return unfit(field, "belongs to one queue: set it there".to_owned());
        }
        if self.reason.is_some() && self.paused != Some(true) {
            return unfit("reason", "goes with `paused: true`".to_owned());
        }
        if self.reason.as_ref().is_some_and(|reason| reason.chars().count() > REASON_MAX_LENGTH) {
            return unfit("reason", format!("has at most {REASON_MAX_LENGTH} characters"));
        }
        for (field, limit) in [
            ("max_running", self.max_running),
            ("max_running_per_user", self.max_running_per_user),
            ("max_running_per_key", self.max_running_per_key),
        ] {
            if limit.flatten().is_some_and(|limit| !(1..=RUNNING_MAX).contains(&limit)) {
                return unfit(field, format!("is from 1 to {RUNNING_MAX}; to run nothing, pause"));
            }
        }
        for (field, rate) in
            [("rate", self.rate), ("rate_per_user", self.rate_per_user), ("rate_per_key", self.rate_per_key)]
        {
            let Some(rate) = rate.flatten() else { continue };
            if !(1..=UNITS_MAX).contains(&rate.units) || !(PERIOD_MIN..=PERIOD_MAX).contains(&rate.period.0) {
                return unfit(field, format!("is of 1 to {UNITS_MAX} units in 1s to 31d"));
            }
            if !rate.exact && field != "rate" {
                return unfit(field, "is always exact".to_owned());
            }
        }
        self.check_parts()
    }

    fn check_parts(&self) -> Result<(), Unfit> {
        let unfit = |field, rule: String| Err(Unfit { field, rule });
        if self.users.len() + self.keys.len() > CHANGE_MAX {
            return unfit("users", format!("and keys: at most {CHANGE_MAX} in one change"));
        }
        let shares = || self.users.values().flatten();
        if shares().any(|share| !(1..=WEIGHT_MAX).contains(&share.weight)) {
            return unfit("users", format!("have weights from 1 to {WEIGHT_MAX}"));
        }
        let limits = shares().filter_map(|share| share.max_running);
        if limits.chain(self.keys.values().copied().flatten()).any(|limit| !(1..=RUNNING_MAX).contains(&limit)) {
            return unfit("max_running", format!("is from 1 to {RUNNING_MAX}"));
        }
        if self.keys.keys().any(|key| key.is_empty() || key.len() > KEY_MAX_BYTES) {
            return unfit("keys", format!("have 1 to {KEY_MAX_BYTES} bytes"));
        }
        Ok(())
    }

    /// The first field that has no meaning for all queues together.
    fn of_one_queue(&self) -> Option<&'static str> {
        [
            ("max_running_per_user", self.max_running_per_user.is_some()),
            ("max_running_per_key", self.max_running_per_key.is_some()),
            ("rate", self.rate.is_some()),
            ("rate_per_user", self.rate_per_user.is_some()),
            ("rate_per_key", self.rate_per_key.is_some()),
            ("users", !self.users.is_empty()),
            ("keys", !self.keys.is_empty()),
        ]
        .into_iter()
        .find_map(|(field, named)| named.then_some(field))
    }

    /// `limits` with this change.
    pub fn over(&self, limits: Limits) -> Limits {
        Limits {
            max_running: self.max_running.unwrap_or(limits.max_running),
            max_running_per_user: self.max_running_per_user.unwrap_or(limits.max_running_per_user),
            max_running_per_key: self.max_running_per_key.unwrap_or(limits.max_running_per_key),
            rate: self.rate.unwrap_or(limits.rate),
            rate_per_user: self.rate_per_user.unwrap_or(limits.rate_per_user),
            rate_per_key: self.rate_per_key.unwrap_or(limits.rate_per_key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ALL, Change, Limits};

    #[test]
    fn what_is_null_is_lifted_and_what_is_not_named_stays() {
        let change: Change = serde_json::from_str(r#"{"max_running": null, "max_running_per_key": 3}"#).unwrap();
        let limits = Limits { max_running: Some(5), max_running_per_user: Some(7), ..Limits::default() };
        let expected = Limits { max_running_per_user: Some(7), max_running_per_key: Some(3), ..Limits::default() };
        assert_eq!(change.over(limits), expected);
    }

    #[test]
    fn a_change_that_cannot_be_meant_names_its_field() {
        for (queue, text, field) in [
            ("default", r#"{"max_running": 0}"#, "max_running"),
            ("default", r#"{"rate": {"units": 5, "period": "1ms"}}"#, "rate"),
            ("default", r#"{"rate_per_key": {"units": 5, "period": "1m", "exact": false}}"#, "rate_per_key"),
            ("default", r#"{"reason": "because"}"#, "reason"),
            ("default", r#"{"keys": {"": 1}}"#, "keys"),
            (ALL, r#"{"max_running_per_user": 4}"#, "max_running_per_user"),
        ] {
            let change: Change = serde_json::from_str(text).unwrap();
            assert_eq!(change.check(queue).unwrap_err().field, field, "{text}");
        }
    }
}
