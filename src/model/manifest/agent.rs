//! An app's agent: prompt, tools and limits. Read and checked; run by a later part of the platform.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::document::ModelClass;

/// An app's agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentConfig {
    /// Whether users can talk to it.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// What the model is told first.
    pub system_prompt: String,
    /// What the model may call.
    #[serde(default)]
    pub tools: Vec<Tool>,
    /// What the user is told it can do.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Questions to begin with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suggestions: Vec<String>,
    /// Which class of model.
    #[serde(default)]
    pub model: ModelClass,
    /// At most so many rounds of tools a turn.
    #[serde(default = "max_tool_rounds")]
    pub max_tool_rounds: u32,
    /// How many messages the model sees.
    #[serde(default = "history_messages")]
    pub history_messages: u32,
    /// The longest answer, in tokens.
    #[serde(default = "max_response_tokens")]
    pub max_response_tokens: u32,
    /// Sentences that are answered without a model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shortcuts: Vec<Shortcut>,
}

fn yes() -> bool {
    true
}

fn max_tool_rounds() -> u32 {
    5
}

fn history_messages() -> u32 {
    5
}

fn max_response_tokens() -> u32 {
    1_000
}

/// An action the model may call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    /// Its name for the model.
    pub name: String,
    /// The action it runs; the loader fills in the tool's name.
    pub action: String,
    /// What the model reads about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON Schema of what the model may give; the action's own where it says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_schema: Option<Value>,
    /// Whether the user is asked first.
    #[serde(default)]
    pub confirm: Confirm,
}

/// Whether the user is asked before a tool runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confirm {
    /// No.
    Never,
    /// Yes.
    Always,
    /// When the action is destructive.
    #[default]
    IfDestructive,
}

/// A sentence that is answered by an action, without a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shortcut {
    /// Patterns; `{name}` stands for a field of the input.
    pub r#match: Vec<String>,
    /// What runs.
    pub action: String,
    /// Fixed fields of the input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Map<String, Value>>,
    /// The answer; `{{name}}` stands for a field of the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub say: Option<String>,
}
