//! An app's manifest: read from JSON or YAML, checked, normalised.
//!
//! [`load`] finds every problem it can in one go, each with a pointer, a code and a line. What it gives back is the long
//! form: short forms are written out, flat maps are JSON Schema, defaults are there. Only that form is stored.
//! Refuses anything it does not know, except keys that begin with `x-`.

mod action;
mod agent;
mod check;
mod complaint;
pub mod cron;
mod document;
mod interface;
mod json;
mod period;
mod position;
mod problem;
pub mod record;
mod schema;
mod short_form;
mod table;
mod view;
mod yaml;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

pub use self::{
    action::{
        Action, ActionKind, Backoff, CatchUp, Concurrency, Hooks, IdempotencyRule, Overlap, Retries, Schedule, Stream,
        Subscription,
    },
    agent::{AgentConfig, Confirm, Shortcut, Tool},
    check::{check_exports, dependency_cycles},
    document::{
        Access, AiPermission, AppDependency, Cardinality, Consistency, DataOutput, Dependencies, FilePermission,
        IntegrationAccess, IntegrationDependency, MANIFEST_VERSION, Manifest, Metadata, ModelClass,
        NotificationPermission, Output, OutputKind, Permissions,
    },
    interface::{Binding, Page, Refresh, Setting, SettingKind, SettingOption, UiComponents, Widget},
    period::{Period, PeriodError},
    position::Positions,
    problem::{Problem, ProblemCode},
    schema::schema_text,
    table::{
        Column, ColumnDefault, Database, ForeignKey, Index, Migration, OnDelete, PHYSICAL_NAME_MAX_BYTES,
        PLATFORM_COLUMNS, Reference, Retention, ScalarType, Table,
    },
};

/// The longest manifest text.
pub const MANIFEST_MAX_BYTES: usize = 256 * 1024;

/// The most problems that are reported of one manifest.
pub const PROBLEMS_MAX: usize = 500;

/// How a manifest is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `manifest.json`
    Json,
    /// `manifest.yaml`, `manifest.yml`
    Yaml,
}

/// A manifest without errors.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The long form.
    pub manifest: Manifest,
    /// Advice, in the order of the text.
    pub warnings: Vec<Problem>,
    /// Where things stand in the text, to locate problems that are found later.
    pub positions: Positions,
}

/// A text that was read: its value, where everything stands, and what was wrong on the way.
struct Source {
    value: Value,
    positions: Positions,
    problems: Vec<Problem>,
}

/// Reads and checks a manifest. In: its text, of at most [`MANIFEST_MAX_BYTES`]. Out: the long form with advice, or every
/// problem found (at most [`PROBLEMS_MAX`]), in the order of the text. Exported functions are not known here; see [`check_exports`].
pub fn load(text: &str, format: Format) -> Result<Loaded, Vec<Problem>> {
    if text.len() > MANIFEST_MAX_BYTES {
        let words = format!("the manifest is {} bytes long; it may have {MANIFEST_MAX_BYTES}", text.len());
        return Err(vec![Problem { line: 1, ..Problem::new(ProblemCode::Syntax, "", words) }]);
    }
    let Source { mut value, positions, mut problems } = match format {
        Format::Json => json::read(text).map_err(|problem| vec![problem])?,
        Format::Yaml => yaml::read(text)?,
    };
    if value.is_null() {
        let empty = Problem { line: 1, ..Problem::new(ProblemCode::Syntax, "", "there is nothing in the manifest") };
        return Err(vec![empty]);
    }
    short_form::normalise(&mut value, &mut problems);
    problems.extend(schema::problems(&value));
    let errors = problems.iter().filter(|problem| !problem.code.is_warning());
    let broken: BTreeMap<String, ProblemCode> = errors.map(|problem| (problem.pointer.clone(), problem.code)).collect();
    let is_overlong = |(pointer, code): (&String, &ProblemCode)| {
        let part = value.pointer(pointer);
        let items = part.and_then(Value::as_array).map(Vec::len).or(part.and_then(Value::as_object).map(Map::len));
        *code == ProblemCode::OutOfBounds && items.is_some_and(|items| items > 0)
    };
    // A list or map over its limit is not looked into: what the checks compare with each other stays small. And what is of
    // the wrong form may mean anything: one problem for one place.
    if !broken.iter().any(is_overlong) {
        problems.extend(check::problems(&value).into_iter().filter(|problem| !broken.contains_key(&problem.pointer)));
    }
    let (warnings, mut errors): (Vec<_>, Vec<_>) = problems.into_iter().partition(|p| p.code.is_warning());
    if errors.is_empty() {
        match serde_json::from_value(value) {
            Ok(manifest) => return Ok(Loaded { manifest, warnings: positions.locate(warnings), positions }),
            Err(error) => errors.push(Problem::new(ProblemCode::WrongType, "", error.to_string())),
        }
    }
    let mut errors = positions.locate(errors);
    errors.truncate(PROBLEMS_MAX);
    Err(errors)
}
