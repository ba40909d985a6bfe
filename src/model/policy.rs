//! A kind's policy: how hard to try, from `jobs/<kind>.toml`. Data only; it has no conditions and no expressions.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use figment::{
    Figment,
    providers::{Format, Toml},
};
use serde::{Deserialize, Serialize};

use super::{
    duration::HumanDuration,
    error::{Again, Code},
    flow::{ALL, UNITS_MAX},
    id::{AppId, UserId},
};

/// The most attempts a policy or a caller may ask for.
pub const MAX_ATTEMPTS_LIMIT: u32 = 100;
/// The waits that cost no attempt which a job may have, unless its policy says otherwise.
pub const SNOOZES_DEFAULT: u32 = 100;
/// The most such waits a policy may allow: nothing is put off for ever.
pub const SNOOZES_LIMIT: u32 = 10_000;
/// The longest one wait may be, whoever asks for it.
pub const WAIT_LONGEST: Duration = Duration::from_hours(24);
/// How long a handler may go on after its job was cancelled, unless its policy says otherwise.
pub const GRACE_DEFAULT: HumanDuration = HumanDuration(Duration::from_secs(5));
/// The longest grace a policy may give.
pub const GRACE_LONGEST: Duration = Duration::from_mins(5);
/// The furthest a job may be moved before or behind others of its queue.
pub const PRIORITY_MAX: i16 = 100;
/// The longest name of a kind or queue, in bytes.
pub const NAME_MAX_LENGTH: usize = 63;

/// How a kind's success is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Completion {
    /// The handler completes the job inside its own transaction, together with its effects.
    Transaction,
    /// The queue completes the jobs of many handlers in one commit. An attempt whose worker dies before that commit runs
    /// again, so the handler must stand being run twice; it must not compute for long, for it shares its thread.
    Batch,
}

/// Who may ask for a job of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asker {
    /// Any user with the scope for it, over HTTP.
    User,
    /// Only Krilin itself and its operator.
    System,
}

/// Which jobs of a kind share a concurrency key, and so run one at a time unless their queue is set otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyOf {
    /// All of them.
    Kind,
    /// Those of one user.
    User,
    /// Those of one app.
    App,
    /// Those of one app in one user's hands.
    Installation,
}

impl KeyOf {
    /// The name in TOML and SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kind => "kind",
            Self::User => "user",
            Self::App => "app",
            Self::Installation => "installation",
        }
    }
}

/// How long to wait between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backoff {
    /// After the first failed attempt.
    pub first: HumanDuration,
    /// Each wait is this many times the one before.
    pub factor: f64,
    /// No wait is longer, jitter aside.
    pub longest: HumanDuration,
    /// The share of the wait that chance may add or take, 0 to 1, so that what failed together does not return together.
    pub jitter: f64,
}

impl Backoff {
    /// The wait after `failures` failed attempts (at least one). `chance` is uniform in 0..1.
    pub fn wait(&self, failures: u32, chance: f64) -> Duration {
        let grown = self.first.0.as_secs_f64() * self.factor.powf(f64::from(failures.saturating_sub(1)));
        let bounded = grown.min(self.longest.0.as_secs_f64());
        Duration::from_secs_f64((bounded * (1.0 + self.jitter * (2.0 * chance - 1.0))).max(0.0))
    }
}

/// What follows an attempt that ended with an error of one code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Another attempt after the policy's backoff, as long as there are attempts left.
    Retry,
    /// Another attempt after this long, as long as there are attempts left.
    RetryAfter(HumanDuration),
    /// One more attempt; the same code twice in a row is final.
    Once,
    /// Not now: again after this long. Costs no attempt, as long as there are such waits left.
    Snooze(HumanDuration),
    /// The job ends as cancelled: nobody need look at it.
    Cancel,
    /// The job is dead at once: a dead letter.
    Discard,
}

impl From<Again> for Rule {
    fn from(again: Again) -> Self {
        match again {
            Again::Never => Self::Discard,
            Again::Once => Self::Once,
            Again::Policy => Self::Retry,
        }
    }
}

/// What `jobs/<kind>.toml` says. `jobs/README.md` is the field reference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// One sentence for the operator.
    pub description: String,
    /// The lane its jobs wait in.
    pub queue: String,
    /// Higher runs sooner within the queue.
    pub priority: i16,
    /// Who may ask for it.
    pub asked_by: Asker,
    /// Which of its jobs run one at a time.
    #[serde(default)]
    pub concurrency_key: Option<KeyOf>,
    /// What a job takes of a rate, in units.
    #[serde(default = "one_unit")]
    pub cost: u32,
    /// How success is recorded.
    pub completion: Completion,
    /// The longest one attempt may run.
    pub timeout: HumanDuration,
    /// How long a handler may go on after its job was cancelled.
    #[serde(default = "grace_default")]
    pub grace: HumanDuration,
    /// How long after it is due a job may begin and run at all; for ever where none. A job's own wins.
    #[serde(default)]
    pub deadline: Option<HumanDuration>,
    /// Attempts before a job is dead.
    pub max_attempts: u32,
    /// Waits that cost no attempt; each one after these costs one.
    #[serde(default = "snoozes_default")]
    pub max_snoozes: u32,
    /// The wait between attempts.
    pub backoff: Backoff,
    /// What follows an error, where it is not what the code itself says.
    #[serde(default)]
    pub errors: BTreeMap<Code, Rule>,
}

fn grace_default() -> HumanDuration {
    GRACE_DEFAULT
}

fn snoozes_default() -> u32 {
    SNOOZES_DEFAULT
}

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Not TOML, a field missing, unknown or of the wrong type.
    #[error("reading the policy of `{kind}`: {cause}")]
    Unreadable {
        /// The kind's name.
        kind: String,
        /// The parser's words.
        cause: Box<figment::Error>,
    },
    /// A value that cannot be meant.
    #[error("the policy of `{kind}`: {field} {rule}")]
    Unfit {
        /// The kind's name.
        kind: String,
        /// The field.
        field: &'static str,
        /// What must hold.
        rule: &'static str,
    },
}

impl Policy {
    /// The concurrency key of a job of `kind`; none when its jobs may run beside each other. The function
    /// `krilin.concurrency_key` says the same in SQL.
    pub fn key(&self, kind: &str, user: Option<UserId>, app: Option<&AppId>) -> Option<String> {
        let user = || user.map(|user| user.to_string()).unwrap_or_default();
        let app = || app.map(AppId::as_str).unwrap_or_default();
        self.concurrency_key.map(|of| match of {
            KeyOf::Kind => kind.to_owned(),
            KeyOf::User => format!("{kind} {}", user()),
            KeyOf::App => format!("{kind} {}", app()),
            KeyOf::Installation => format!("{kind} {} {}", app(), user()),
        })
    }

    /// What a job takes of a rate, where it is not one unit.
    pub fn own_cost(&self) -> Option<i32> {
        (self.cost > 1).then(|| i32::try_from(self.cost).unwrap_or(i32::MAX))
    }

    /// The policy of `kind` from `text`, over which each of `overlays` may lay single fields.
    pub fn parse(kind: &str, text: &str, overlays: &[&str]) -> Result<Self, PolicyError> {
        let figment = overlays
            .iter()
            .fold(Figment::from(Toml::string(text)), |figment, overlay| figment.merge(Toml::string(overlay)));
        let policy: Self = figment
            .extract()
            .map_err(|cause| PolicyError::Unreadable { kind: kind.to_owned(), cause: Box::new(cause) })?;
        policy.check(kind)?;
        Ok(policy)
    }

    /// What follows an error of `code`.
    pub fn rule(&self, code: Code) -> Rule {
        self.errors.get(&code).copied().unwrap_or_else(|| code.again().into())
    }

    fn check(&self, kind: &str) -> Result<(), PolicyError> {
        let waits = self.errors.values().filter_map(|rule| match rule {
            Rule::RetryAfter(wait) | Rule::Snooze(wait) => Some(wait.0),
            _ => None,
        });
        let waits_hold = waits.into_iter().all(|wait| (Duration::from_millis(1)..=WAIT_LONGEST).contains(&wait));
        let deadline_holds = self.deadline.is_none_or(|deadline| deadline.0 >= Duration::from_millis(1));
        let rules: [(bool, &'static str, &'static str); 14] = [
            (is_name(kind), "kind", "must be lowercase letters, digits and underscores"),
            (self.queue != ALL, "queue", "must not be `all`, which stands for all queues"),
            ((1..=UNITS_MAX).contains(&self.cost), "cost", "must be from 1 to 1000000000"),
            (is_name(&self.queue), "queue", "must be lowercase letters, digits and underscores"),
            ((-PRIORITY_MAX..=PRIORITY_MAX).contains(&self.priority), "priority", "must be from -100 to 100"),
            (self.timeout.0 >= Duration::from_millis(1), "timeout", "must be at least 1ms"),
            (self.grace.0 <= GRACE_LONGEST, "grace", "must not be longer than 5m"),
            (deadline_holds, "deadline", "must be at least 1ms"),
            ((1..=MAX_ATTEMPTS_LIMIT).contains(&self.max_attempts), "max_attempts", "must be from 1 to 100"),
            (self.max_snoozes <= SNOOZES_LIMIT, "max_snoozes", "must not be over 10000"),
            (waits_hold, "errors", "may wait from 1ms to 24h"),
            ((1.0..=100.0).contains(&self.backoff.factor), "backoff.factor", "must be from 1 to 100"),
            ((0.0..=1.0).contains(&self.backoff.jitter), "backoff.jitter", "must be from 0 to 1"),
            (self.backoff.longest >= self.backoff.first, "backoff.longest", "must not be shorter than backoff.first"),
        ];
        match rules.into_iter().find(|(holds, ..)| !holds) {
            Some((_, field, rule)) => Err(PolicyError::Unfit { kind: kind.to_owned(), field, rule }),
            None => Ok(()),
        }
    }
}

fn one_unit() -> u32 {
    1
}

fn is_name(text: &str) -> bool {
    (1..=NAME_MAX_LENGTH).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// The policies of all kinds, by kind. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Policies(Arc<BTreeMap<String, Arc<Policy>>>);

impl Policies {
    /// The policy of `kind`.
    pub fn get(&self, kind: &str) -> Option<&Arc<Policy>> {
        self.0.get(kind)
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Policy)> {
        self.0.iter().map(|(kind, policy)| (kind.as_str(), policy.as_ref()))
    }

    /// The same with one more, or another one for a kind that was there.
    #[must_use]
    pub fn with(self, kind: &str, policy: Policy) -> Self {
        let mut map = Arc::unwrap_or_clone(self.0);
        map.insert(kind.to_owned(), Arc::new(policy));
        Self(Arc::new(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        first: HumanDuration(Duration::from_secs(1)),
        factor: 2.0,
        longest: HumanDuration(Duration::from_mins(1)),
        jitter: 0.5,
    };

    #[test]
    fn waits_grow_to_the_longest_and_jitter_stays_in_its_share() {
        assert_eq!(BACKOFF.wait(1, 0.5), Duration::from_secs(1));
        assert_eq!(BACKOFF.wait(4, 0.5), Duration::from_secs(8));
        assert_eq!(BACKOFF.wait(99, 0.5), Duration::from_mins(1));
        assert_eq!((BACKOFF.wait(2, 0.0), BACKOFF.wait(2, 1.0)), (Duration::from_secs(1), Duration::from_secs(3)));
    }
}
