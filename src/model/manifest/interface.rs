//! What the user sees: widgets, pages and settings. Views stay JSON here; the pages that draw them give them types.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::period::Period;

/// Everything the user sees.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UiComponents {
    /// For the dashboard.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub widgets: Vec<Widget>,
    /// Whole pages.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pages: Vec<Page>,
    /// What the user can set.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<Setting>,
}

/// A part of a dashboard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Widget {
    /// Its name within the app.
    pub id: String,
    /// Its heading.
    pub title: String,
    /// In a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// `small`, `medium`, `large`.
    #[serde(default = "sizes")]
    pub sizes: Vec<String>,
    /// The size it begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_size: Option<String>,
    /// The page it leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opens: Option<String>,
    /// What the view draws from, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, Binding>,
    /// When to draw again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<Refresh>,
    /// The tree of components.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<Value>,
}

fn sizes() -> Vec<String> {
    vec!["medium".to_owned()]
}

/// A whole page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// Its name within the app.
    pub id: String,
    /// Its heading.
    pub title: String,
    /// Its path below the app's; `/:name` is a parameter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// An icon's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icon: Option<String>,
    /// Whether the app's navigation lists it.
    #[serde(default = "yes")]
    pub nav: bool,
    /// What the view draws from, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, Binding>,
    /// When to draw again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<Refresh>,
    /// The tree of components.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<Value>,
}

fn yes() -> bool {
    true
}

/// Where a view's data comes from. One of `query`, `output` and `table` is there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Binding {
    /// A query action of this app.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// An output: `output`, or `app.output`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// A table of this app.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// What the query is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Map<String, Value>>,
    /// Which rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#where: Option<Map<String, Value>>,
    /// In which order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order_by: Option<Map<String, Value>>,
    /// How many rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Whether the view can do without.
    pub optional: bool,
}

/// When to draw again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refresh {
    /// After an event of one of these: `stream`, or `app.stream`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<String>,
    /// After a change of one of these tables.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<String>,
    /// Every so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<Period>,
}

/// Something the user can set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// Its name within the app: `ctx.settings.<key>`.
    pub key: String,
    /// What it holds.
    #[serde(rename = "type")]
    pub kind: SettingKind,
    /// Its name for people.
    pub label: String,
    /// A sentence more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// What it is until the user says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// The heading it stands under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section: Option<String>,
    /// The values of a select, in the long form `{value, label}`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<SettingOption>,
    /// The least number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<serde_json::Number>,
    /// The greatest number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<serde_json::Number>,
    /// Whether the app needs it.
    #[serde(default)]
    pub required: bool,
}

/// What a setting holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each is the form field of that name")]
pub enum SettingKind {
    Text,
    Number,
    Boolean,
    Select,
    Multiselect,
    Time,
    Date,
    Color,
    Secret,
}

/// One value of a select.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SettingOption {
    /// What is stored.
    pub value: Value,
    /// What is shown.
    pub label: String,
}
