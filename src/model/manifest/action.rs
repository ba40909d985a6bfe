//! What an app does: actions, and what sets them off.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{document::Access, period::Period};

/// Something the app can do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// Its name within the app.
    pub id: String,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// In a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether it changes anything, and how long it may last.
    #[serde(default)]
    pub kind: ActionKind,
    /// The exported function, if it is not named as the action. See [`Action::handler`].
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "handler")]
    pub handler_name: Option<String>,
    /// JSON Schema of the input; without one any JSON goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_schema: Option<Value>,
    /// JSON Schema of the result; without one any JSON goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Value>,
    /// Which other apps may call it.
    #[serde(default = "private")]
    pub access: Access,
    /// Whether it takes something away that a user may miss.
    #[serde(default)]
    pub destructive: bool,
    /// The wall clock for all passes together.
    #[serde(default = "timeout")]
    pub timeout: Period,
    /// The most memory of a pass.
    #[serde(default = "memory_mb")]
    pub memory_mb: u32,
    /// How hard to try; the job's policy where it says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
    /// How many at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
    /// What makes two calls the same call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<IdempotencyRule>,
    /// Whether the command palette offers it.
    #[serde(default)]
    pub palette: bool,
}

fn private() -> Access {
    Access::Private
}

fn timeout() -> Period {
    Period::from_secs(30)
}

fn memory_mb() -> u32 {
    64
}

impl Action {
    /// The action that an exported function becomes when a tool names it and `actions` does not: a mutation with an
    /// open input and thirty seconds.
    pub fn implicit(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            title: None,
            description: None,
            kind: ActionKind::Mutation,
            handler_name: None,
            input_schema: None,
            output_schema: None,
            access: private(),
            destructive: false,
            timeout: timeout(),
            memory_mb: memory_mb(),
            retries: None,
            concurrency: None,
            idempotency: None,
            palette: false,
        }
    }

    /// The name of the exported function that runs.
    pub fn handler(&self) -> &str {
        self.handler_name.as_deref().unwrap_or(&self.id)
    }
}

/// What an action may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionKind {
    /// Reads; runs at once, without a job.
    Query,
    /// Changes; runs as a job.
    #[default]
    Mutation,
    /// Changes and may sleep; runs as a job.
    Workflow,
}

/// How hard to try.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Retries {
    /// At most so often.
    #[serde(default = "max_attempts")]
    pub max_attempts: u32,
    /// How the wait grows.
    #[serde(default)]
    pub backoff: Backoff,
    /// The first wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial: Option<Period>,
    /// The longest wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Period>,
}

fn max_attempts() -> u32 {
    5
}

/// How a wait grows from one attempt to the next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backoff {
    /// It does not.
    Fixed,
    /// It doubles.
    #[default]
    Exponential,
}

/// How many of an action at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Concurrency {
    /// At most so many.
    #[serde(default = "one")]
    pub limit: u32,
    /// `input.<field>`: counted for each of its values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

fn one() -> u32 {
    1
}

/// What makes two calls the same call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IdempotencyRule {
    /// `input.<field>`: the same value is the same call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// For how long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Period>,
}

/// Runs an action by the clock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Its name within the app.
    pub id: String,
    /// What runs.
    pub action: String,
    /// Five fields; see [`super::cron::parse`]. One of `cron`, `every` and `at_setting` is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// Every so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Period>,
    /// Daily at the time that this setting holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_setting: Option<String>,
    /// `user`, or an IANA zone.
    #[serde(default = "user_zone")]
    pub timezone: String,
    /// What the action is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Map<String, Value>>,
    /// A random delay of at most this long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Period>,
    /// What becomes of missed runs.
    #[serde(default)]
    pub catch_up: CatchUp,
    /// What happens when the run before is not done.
    #[serde(default)]
    pub overlap: Overlap,
    /// The boolean setting that switches it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled_by: Option<String>,
}

fn user_zone() -> String {
    "user".to_owned()
}

/// What becomes of missed runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CatchUp {
    /// Nothing.
    None,
    /// One run for all of them.
    #[default]
    One,
    /// One run for each.
    All,
}

/// What happens when the run before is not done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// This one is left out.
    #[default]
    Skip,
    /// This one waits.
    Queue,
}

impl CatchUp {
    /// The name in JSON, SQL and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::One => "one",
            Self::All => "all",
        }
    }
}

impl std::str::FromStr for CatchUp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = [Self::None, Self::One, Self::All].into_iter().find(|known| known.as_str() == text);
        known.ok_or_else(|| format!("`{text}` is none of none, one, all"))
    }
}

impl Overlap {
    /// The name in JSON, SQL and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Queue => "queue",
        }
    }
}

impl std::str::FromStr for Overlap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = [Self::Skip, Self::Queue].into_iter().find(|known| known.as_str() == text);
        known.ok_or_else(|| format!("`{text}` is none of skip, queue"))
    }
}

/// Events that the app publishes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stream {
    /// Its name within the app.
    pub id: String,
    /// In a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON Schema of an event; without one any JSON goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// How long an event can be read again.
    #[serde(default = "stream_retention")]
    pub retention: Period,
}

fn stream_retention() -> Period {
    Period::from_secs(24 * 60 * 60)
}

/// Runs an action for each event of another app's stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subscription {
    /// Whose stream.
    pub app_id: crate::model::id::AppId,
    /// Which.
    pub stream: String,
    /// What runs.
    pub action: String,
    /// Events this close together count as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debounce: Option<Period>,
}

/// Actions that the platform calls by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hooks {
    /// In the job that installs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_install: Option<String>,
    /// In the job that upgrades.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_upgrade: Option<String>,
    /// In the job that removes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_uninstall: Option<String>,
    /// After the user changed the app's settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_settings_changed: Option<String>,
}
