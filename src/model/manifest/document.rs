//! The manifest as a whole and the parts that say what an app is, needs, shows and may do. All in the long form.

use std::collections::BTreeMap;

use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    action::{Action, Hooks, Schedule, Stream, Subscription},
    agent::AgentConfig,
    interface::UiComponents,
    table::Database,
};
use crate::model::id::AppId;

/// The version of the manifest's own form that this Krilin reads.
pub const MANIFEST_VERSION: u32 = 1;

/// An app's manifest, normalised: short forms are written out and defaults are filled in. Serialising it gives the
/// form that is stored, and reading that again gives an equal value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always [`MANIFEST_VERSION`].
    #[serde(default = "manifest_version")]
    pub manifest_version: u32,
    /// Who the app is.
    pub metadata: Metadata,
    /// What it needs.
    #[serde(default)]
    pub dependencies: Dependencies,
    /// What it shows to other apps.
    #[serde(default)]
    pub outputs: Vec<Output>,
    /// What it may do.
    #[serde(default)]
    pub permissions: Permissions,
    /// Its agent, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_config: Option<AgentConfig>,
    /// Its tables.
    #[serde(default)]
    pub database: Database,
    /// Its actions.
    #[serde(default)]
    pub actions: Vec<Action>,
    /// What runs by the clock.
    #[serde(default)]
    pub schedules: Vec<Schedule>,
    /// What it publishes.
    #[serde(default)]
    pub streams: Vec<Stream>,
    /// What it follows.
    #[serde(default)]
    pub subscriptions: Vec<Subscription>,
    /// What the user sees.
    #[serde(default)]
    pub ui_components: UiComponents,
    /// Actions the platform calls by itself.
    #[serde(default)]
    pub hooks: Hooks,
    /// The author's own keys, `x-…`: kept, never read.
    #[serde(flatten)]
    pub extensions: BTreeMap<String, Value>,
}

fn manifest_version() -> u32 {
    MANIFEST_VERSION
}

impl Manifest {
    /// The declared action with this id.
    pub fn action(&self, id: &str) -> Option<&Action> {
        self.actions.iter().find(|action| action.id == id)
    }

    /// The table with this name, as the manifest writes it.
    pub fn table(&self, name: &str) -> Option<&super::Table> {
        self.database.tables.iter().find(|table| table.name == name)
    }
}

/// Who the app is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// The app's id: directory, URL segment and table prefix.
    pub id: AppId,
    /// The name people see.
    pub name: String,
    /// The app's version.
    pub version: Version,
    /// Who made it.
    pub author: String,
    /// One or two sentences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// An icon of the platform's set, or `assets/<file>.svg`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icon: Option<String>,
    /// The name of an accent colour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accent: Option<String>,
    /// Where a list of apps puts it.
    #[serde(default = "category")]
    pub category: String,
    /// Words to find it by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The licence's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// Where to read more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub homepage: Option<String>,
    /// The versions of Krilin it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub krilin: Option<VersionReq>,
}

fn category() -> String {
    "general".to_owned()
}

/// What the app needs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dependencies {
    /// Without these it cannot be installed.
    pub required_apps: Vec<AppDependency>,
    /// With these it does more.
    pub optional_apps: Vec<AppDependency>,
    /// Without these accounts it cannot be installed.
    pub required_integrations: Vec<IntegrationDependency>,
    /// With these accounts it does more.
    pub optional_integrations: Vec<IntegrationDependency>,
}

impl Dependencies {
    /// All apps, required ones first.
    pub fn apps(&self) -> impl Iterator<Item = &AppDependency> {
        self.required_apps.iter().chain(&self.optional_apps)
    }
}

/// Another app.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppDependency {
    /// Which.
    pub app_id: AppId,
    /// Of which versions.
    #[serde(default = "any_version")]
    pub version: VersionReq,
    /// What of it: `output:x`, `action:x`, `stream:x`, `agent`, or a bare name whose sort the provider's manifest tells.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uses: Vec<String>,
    /// Why, in the author's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// What an optional app adds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enhancement: Option<String>,
}

fn any_version() -> VersionReq {
    VersionReq::STAR
}

/// An account with a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IntegrationDependency {
    /// Which service.
    pub integration_id: String,
    /// The service's own scopes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// Whether the app also acts there.
    #[serde(default)]
    pub access: IntegrationAccess,
    /// Why, in the author's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
}

/// What an app does with a service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntegrationAccess {
    /// Reads what was synced.
    #[default]
    Read,
    /// Reads and acts.
    ReadWrite,
}

/// Who may use an output or call an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Only the app itself. Actions only.
    Private,
    /// Apps that declare it and that the user has granted it.
    RequiresPermission,
    /// Apps that declare it.
    AnyApp,
}

/// Something the app shows to others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// Its name within the app.
    pub id: String,
    /// In a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Who may use it.
    #[serde(default = "requires_permission")]
    pub access: Access,
    /// The version of its schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// Versions that are still served and will go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deprecated_versions: Vec<Version>,
    /// What a user of an older version must change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaking_changes: Option<String>,
    /// What sort of thing it is.
    #[serde(flatten)]
    pub kind: OutputKind,
}

fn requires_permission() -> Access {
    Access::RequiresPermission
}

/// The sorts of outputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OutputKind {
    /// A value that fits a schema.
    Data(Box<DataOutput>),
    /// Questions to the app's agent.
    Agent {
        /// What it can be asked.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        capabilities: Vec<String>,
    },
    /// Events.
    Stream {
        /// Which of the app's streams.
        stream: String,
    },
}

/// A value that fits a schema.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataOutput {
    /// JSON Schema of the whole value; of a list when the author wrote a flat map and `cardinality` is `many`.
    pub schema: Value,
    /// Whether the value is a list.
    pub cardinality: Cardinality,
    /// The query action that computes it; without one the exported function `output_<id>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// `real-time`, `hourly`, `daily`, `manual` or a period.
    #[serde(default = "daily")]
    pub update_frequency: String,
    /// Whether a stale value may be served.
    #[serde(default)]
    pub consistency: Consistency,
    /// How old a served value may be, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staleness_tolerance: Option<u32>,
    /// The tables whose change makes it stale.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub invalidated_by: Vec<String>,
}

fn daily() -> String {
    "daily".to_owned()
}

/// One record or a list of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cardinality {
    /// One value.
    One,
    /// A list.
    Many,
}

/// Whether a stale value may be served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// Computed in the reader's snapshot.
    Strong,
    /// A stored value will do.
    #[default]
    Eventual,
}

/// What the app asks to be allowed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Permissions {
    /// Scopes: `read:own_data`, `read:output:<app>.<output>`, …
    pub data_scopes: Vec<String>,
    /// The `https://` prefixes it may fetch. `true` in the text means "no host yet" and comes out empty.
    pub api_access: Vec<String>,
    /// Whether and how it may notify; none is no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notifications: Option<NotificationPermission>,
    /// Whether it may keep files; none is no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<FilePermission>,
    /// Whether it may make schedules at run time.
    pub schedule: bool,
    /// Whether it may call a model by itself; none is no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ai: Option<AiPermission>,
}

/// How an app may notify.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotificationPermission {
    /// At most so many a day.
    #[serde(default = "notifications_per_day")]
    pub max_per_day: u32,
    /// By which ways: `in_app`, `email`, `push`.
    #[serde(default = "notification_channels")]
    pub channels: Vec<String>,
}

fn notifications_per_day() -> u32 {
    NotificationPermission::default().max_per_day
}

fn notification_channels() -> Vec<String> {
    NotificationPermission::default().channels
}

impl Default for NotificationPermission {
    /// Twenty a day, in the app: what `notifications: true` means.
    fn default() -> Self {
        Self { max_per_day: 20, channels: vec!["in_app".to_owned()] }
    }
}

/// What files an app may keep. None means the platform's limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePermission {
    /// The largest file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// The content types; none listed means any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub content_types: Vec<String>,
}

/// How an app may call a model. None means the platform's limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AiPermission {
    /// At most so many calls a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_calls_per_day: Option<u32>,
    /// Which class of model.
    #[serde(default)]
    pub model: ModelClass,
}

/// The classes of models.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelClass {
    /// Cheap and quick.
    #[default]
    Fast,
    /// In between.
    Balanced,
    /// The best.
    Deep,
}
