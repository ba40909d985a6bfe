//! The manifest's JSON Schema, and what it finds said in words for an author.

use std::sync::LazyLock;

use jsonschema::{Draft, Validator};
use serde_json::Value;

use super::{complaint, problem::Problem};

/// The schema as it is published.
const SCHEMA_TEXT: &str = include_str!("manifest-1.schema.json");

static SCHEMA: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(SCHEMA_TEXT).expect("the embedded schema is JSON"));

static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| {
    jsonschema::options().with_draft(Draft::Draft202012).build(&SCHEMA).expect("the embedded schema compiles")
});

/// The JSON Schema of manifests (draft 2020-12), as `krilin app schema` prints it.
pub fn schema_text() -> &'static str {
    SCHEMA_TEXT
}

/// Everything in a manifest, with short forms written out, that does not fit the schema.
pub(super) fn problems(value: &Value) -> Vec<Problem> {
    let mut complaints = Vec::new();
    for error in VALIDATOR.iter_errors(value) {
        complaint::gather(&error, &SCHEMA, "the manifest", &mut complaints);
    }
    complaint::one_for_each_value(&mut complaints);
    complaints.into_iter().map(|c| Problem::new(c.code, c.pointer, c.message)).collect()
}
