//! Schemas of inputs, results, outputs and events: flat maps written out as JSON Schema, compiled, and values checked
//! against them.
//!
//! A flat map, `{"habit_id": "string", "weeks": "integer"}`, is a record with these fields. In an input every field is
//! required and no other is allowed; in a result every field is there and may be null, and others may come with it.
//! An author who wants something else writes JSON Schema. `$ref` may point inside the schema only, patterns are regular
//! expressions without look-around (so that no input can make one slow), and `format: time` is `20:30` or `20:30:05`.

use std::{fmt, sync::Arc};

use jsonschema::{Draft, PatternOptions};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    complaint,
    position::join,
    problem::{Problem, ProblemCode},
    table::ScalarType,
};
use crate::model::near::hint;

/// The most errors that [`Validator::validate`] lists.
pub const FIELD_ERRORS_MAX: usize = 50;

/// The names of JSON Schema's types.
const TYPES: [&str; 7] = ["string", "number", "integer", "boolean", "object", "array", "null"];

/// The keywords of JSON Schema, draft 2020-12.
const KEYWORDS: [&str; 58] = [
    "$anchor",
    "$comment",
    "$defs",
    "$dynamicAnchor",
    "$dynamicRef",
    "$id",
    "$ref",
    "$schema",
    "$vocabulary",
    "additionalProperties",
    "allOf",
    "anyOf",
    "const",
    "contains",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "default",
    "definitions",
    "dependentRequired",
    "dependentSchemas",
    "deprecated",
    "description",
    "else",
    "enum",
    "examples",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "if",
    "items",
    "maxContains",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minContains",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "not",
    "oneOf",
    "pattern",
    "patternProperties",
    "prefixItems",
    "properties",
    "propertyNames",
    "readOnly",
    "required",
    "then",
    "title",
    "type",
    "unevaluatedItems",
    "unevaluatedProperties",
    "uniqueItems",
    "writeOnly",
];

/// Which way a record goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Into the app: fields of a flat map are required and closed.
    Input,
    /// Out of the app: fields of a flat map are there, may be null, and more may come.
    Output,
}

/// What does not fit in one field of a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// JSON pointer into the value; empty for the whole.
    pub pointer: String,
    /// For a person.
    pub message: String,
}

/// A compiled schema. Cheap to clone.
#[derive(Clone)]
pub struct Validator {
    schema: Arc<Value>,
    inner: Arc<jsonschema::Validator>,
}

impl fmt::Debug for Validator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Validator({})", self.schema)
    }
}

/// Why a schema does not compile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SchemaError {
    /// Where in the schema, as a JSON pointer.
    pub pointer: String,
    /// For the author.
    pub message: String,
}

/// Compiles a schema, in the long form or as a flat map.
pub fn compile(schema: &Value, role: Role) -> Result<Validator, SchemaError> {
    let mut schema = schema.clone();
    let mut problems = Vec::new();
    normalise(&mut schema, "", role, &mut problems);
    if let Some(Problem { pointer, message, .. }) = problems.into_iter().find(|problem| !problem.code.is_warning()) {
        return Err(SchemaError { pointer, message });
    }
    refuse_outside_references(&schema, "")?;
    let inner = jsonschema::options()
        .with_draft(Draft::Draft202012)
        .with_pattern_options(PatternOptions::regex())
        .should_validate_formats(true)
        .should_ignore_unknown_formats(true)
        .with_format("time", is_time)
        .build(&schema)
        .map_err(|error| does_not_compile(&error))?;
    Ok(Validator { schema: Arc::new(schema), inner: Arc::new(inner) })
}

fn does_not_compile(error: &jsonschema::ValidationError<'_>) -> SchemaError {
    let mut complaints = Vec::new();
    complaint::gather(error, &Value::Null, "the schema", &mut complaints);
    let first = complaints.into_iter().next();
    let (pointer, message) = first.map_or_else(|| (String::new(), error.to_string()), |c| (c.pointer, c.message));
    SchemaError { pointer, message }
}

impl Validator {
    /// Everything in `value` that does not fit, at most [`FIELD_ERRORS_MAX`], sorted by pointer; nothing when it fits. `whole` names the
    /// value in messages: `the input`.
    pub fn validate(&self, value: &Value, whole: &str) -> Vec<FieldError> {
        let mut complaints = Vec::new();
        for error in self.inner.iter_errors(value).take(FIELD_ERRORS_MAX) {
            complaint::gather(&error, &self.schema, whole, &mut complaints);
        }
        complaint::one_for_each_value(&mut complaints);
        complaints.sort_by(|a, b| a.pointer.cmp(&b.pointer));
        complaints.truncate(FIELD_ERRORS_MAX);
        complaints.into_iter().map(|c| FieldError { pointer: c.pointer, message: c.message }).collect()
    }

    /// The schema in the long form.
    pub fn schema(&self) -> &Value {
        &self.schema
    }
}

/// Adds to the object `value` the members that it lacks and for which `schema` (long form) has a `default`. Only the
/// outermost level; a value that is no object stays as it is.
pub fn apply_defaults(schema: &Value, value: &mut Value) {
    let (Some(fields), Some(map)) = (schema.get("properties").and_then(Value::as_object), value.as_object_mut()) else {
        return;
    };
    for (name, field) in fields {
        if let Some(default) = field.get("default").filter(|_| !map.contains_key(name)) {
            map.insert(name.clone(), default.clone());
        }
    }
}

/// How a map is to be read.
enum Reading {
    /// As JSON Schema; with whether it could be a flat map too.
    Schema { ambiguous: bool },
    /// As a record with these fields.
    Flat,
}

/// The rule of the manifest's form: a map is JSON Schema if its `type` is one of JSON Schema's and no key is outside its
/// vocabulary. Without a `type` it is JSON Schema too if its keys are and its values could not be fields.
fn reading(map: &Map<String, Value>) -> Reading {
    let known = map.keys().all(|key| is_keyword(key));
    let all_texts = !map.is_empty() && map.values().all(Value::is_string);
    let all_scalars = all_texts && map.values().all(|value| scalar(value).is_some());
    let typed = map.get("type").is_some_and(is_type);
    if typed && known {
        return Reading::Schema { ambiguous: all_scalars };
    }
    let untyped_schema = known && !map.contains_key("type") && !all_scalars;
    if untyped_schema
        || (typed && !all_texts)
        || ["properties", "items"].iter().any(|key| map.get(*key).is_some_and(Value::is_object))
    {
        return Reading::Schema { ambiguous: false };
    }
    Reading::Flat
}

fn is_keyword(key: &str) -> bool {
    KEYWORDS.contains(&key) || key.starts_with("x-")
}

fn is_type(value: &Value) -> bool {
    let named = |value: &Value| value.as_str().is_some_and(|name| TYPES.contains(&name));
    named(value) || value.as_array().is_some_and(|names| names.iter().all(named))
}

fn scalar(value: &Value) -> Option<ScalarType> {
    value.as_str().and_then(ScalarType::from_name)
}

/// Writes out the flat maps in a schema, the whole or inside `items` and `properties`. Gives back whether the whole was
/// one. What is neither a flat map nor JSON Schema becomes a problem.
pub(super) fn normalise(schema: &mut Value, pointer: &str, role: Role, problems: &mut Vec<Problem>) -> bool {
    let Value::Object(map) = schema else { return false };
    match reading(map) {
        Reading::Flat => {
            *schema = record(map, pointer, role, problems);
            true
        }
        Reading::Schema { ambiguous } => {
            if ambiguous {
                let words = "this can be a JSON Schema and a record with these fields; it is read as JSON Schema";
                problems.push(Problem::new(ProblemCode::AmbiguousSchema, pointer, words));
            }
            keywords(map, pointer, role, problems);
            false
        }
    }
}

/// The same inside a JSON Schema.
fn keywords(map: &mut Map<String, Value>, pointer: &str, role: Role, problems: &mut Vec<Problem>) {
    for key in map.keys().filter(|key| !is_keyword(key)) {
        let words = format!("`{key}` is not a keyword of JSON Schema{}", hint(key, KEYWORDS));
        problems.push(Problem::new(ProblemCode::UnknownKey, join(pointer, key), words));
    }
    if let Some(items) = map.get_mut("items") {
        inner(items, &join(pointer, "items"), role, problems);
    }
    if let Some(Value::Object(fields)) = map.get_mut("properties") {
        let pointer = join(pointer, "properties");
        for (name, field) in fields {
            inner(field, &join(&pointer, name), role, problems);
        }
    }
}

fn inner(schema: &mut Value, pointer: &str, role: Role, problems: &mut Vec<Problem>) {
    if let Value::Object(map) = schema {
        match reading(map) {
            Reading::Flat => *schema = record(map, pointer, role, problems),
            Reading::Schema { .. } => keywords(map, pointer, role, problems),
        }
    } else if schema.is_string() {
        *schema = field(schema, pointer, role, problems);
    }
}

/// A flat map as JSON Schema.
fn record(map: &Map<String, Value>, pointer: &str, role: Role, problems: &mut Vec<Problem>) -> Value {
    let names: Vec<&String> = map.keys().collect();
    let mut whole = json!({"type": "object", "required": names});
    let fields: Map<String, Value> =
        map.iter().map(|(name, value)| (name.clone(), field(value, &join(pointer, name), role, problems))).collect();
    whole["properties"] = fields.into();
    if role == Role::Input {
        whole["additionalProperties"] = false.into();
    }
    whole
}

/// One field of a flat map as JSON Schema.
fn field(value: &Value, pointer: &str, role: Role, problems: &mut Vec<Problem>) -> Value {
    let Some(kind) = scalar(value) else {
        let names = ScalarType::ALL.iter().map(|kind| kind.as_str());
        let words = match value.as_str() {
            Some(text) => format!(
                "a field's type must be one of {}; this is `{text}`{}",
                complaint::list(names.clone()),
                hint(text, names)
            ),
            None => format!(
                "a field's type must be one of {}; for anything else write the whole as JSON Schema, with `type`",
                complaint::list(names)
            ),
        };
        problems.push(Problem::new(ProblemCode::NotAllowed, pointer, words));
        return Value::Bool(true);
    };
    let mut schema = scalar_schema(kind);
    if let (Role::Output, Some(name)) = (role, schema.get("type").cloned()) {
        let mut names = name.as_array().cloned().unwrap_or_else(|| vec![name]);
        names.push("null".into());
        schema["type"] = names.into();
    }
    schema
}

/// A column type as JSON Schema.
fn scalar_schema(kind: ScalarType) -> Value {
    match kind {
        ScalarType::String | ScalarType::Text | ScalarType::File => json!({"type": "string"}),
        ScalarType::Integer => json!({"type": "integer"}),
        ScalarType::Number => json!({"type": "number"}),
        ScalarType::Decimal => json!({"type": ["string", "number"], "pattern": r"^-?[0-9]+(\.[0-9]+)?$"}),
        ScalarType::Boolean => json!({"type": "boolean"}),
        ScalarType::Date => json!({"type": "string", "format": "date"}),
        ScalarType::Time => json!({"type": "string", "format": "time"}),
        ScalarType::Datetime => json!({"type": "string", "format": "date-time"}),
        ScalarType::Json => json!(true),
        ScalarType::Uuid => json!({"type": "string", "format": "uuid"}),
        ScalarType::Strings => json!({"type": "array", "items": {"type": "string"}}),
        ScalarType::Integers => json!({"type": "array", "items": {"type": "integer"}}),
    }
}

/// Whether a JSON value is one that a column of this type holds.
pub(super) fn is_of_type(value: &Value, kind: ScalarType) -> bool {
    compile(&scalar_schema(kind), Role::Input).is_ok_and(|validator| validator.inner.is_valid(value))
}

fn refuse_outside_references(schema: &Value, pointer: &str) -> Result<(), SchemaError> {
    match schema {
        Value::Object(map) => map.iter().try_for_each(|(key, value)| {
            let inner = join(pointer, key);
            let outside = value.as_str().is_some_and(|target| !target.starts_with('#'));
            if ["$ref", "$dynamicRef"].contains(&key.as_str()) && outside {
                let message = format!("`{key}` may only point inside this schema, as in `#/$defs/name`");
                return Err(SchemaError { pointer: inner, message });
            }
            refuse_outside_references(value, &inner)
        }),
        Value::Array(items) => {
            items.iter().enumerate().try_for_each(|(i, item)| refuse_outside_references(item, &join(pointer, i)))
        }
        _ => Ok(()),
    }
}

/// A local time of day: `20:30` or `20:30:05`.
fn is_time(text: &str) -> bool {
    let (bytes, digits) = (text.as_bytes(), text.replace(':', ""));
    let shaped = matches!(bytes.len(), 5 | 8) && bytes[2] == b':' && (bytes.len() == 5 || bytes[5] == b':');
    shaped
        && digits.len() == bytes.len() - bytes.len() / 3
        && digits.bytes().all(|b| b.is_ascii_digit())
        && &text[..2] < "24"
        && &text[3..5] < "60"
        && text.get(6..).is_none_or(|seconds| seconds < "60")
}
