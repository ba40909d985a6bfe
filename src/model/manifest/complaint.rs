//! What a JSON Schema validator finds, in words for the person who wrote the value: one complaint per mistake. Alternatives
//! (`oneOf`, `anyOf`) are reduced to the branch that the author meant. Rules that only a pattern states are told by the
//! `description` beside the pattern.

use std::collections::HashMap;

use jsonschema::{
    ValidationError,
    error::{TypeKind, ValidationErrorKind as Kind},
};
use serde_json::Value;

use super::{
    position::{join, unescape},
    problem::ProblemCode,
};
use crate::model::near::hint;

/// How much of a value is repeated in a message, in characters.
const SHOWN_CHARS_MAX: usize = 60;

/// How many allowed keys a message lists.
const LISTED_KEYS_MAX: usize = 16;

/// How many names a message lists.
const NAMES_MAX: usize = 40;

/// One mistake.
pub(super) struct Complaint {
    pub(super) code: ProblemCode,
    pub(super) pointer: String,
    pub(super) message: String,
}

/// Appends what `error` comes to. `schema` is the schema that found it; `whole` names the outermost value.
pub(super) fn gather(error: &ValidationError<'_>, schema: &Value, whole: &str, out: &mut Vec<Complaint>) {
    let pointer = error.instance_path().as_str();
    let report = Report { error, schema, whole, subject: subject(pointer, whole) };
    match error.kind() {
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            out.extend(unexpected.iter().map(|key| report.unknown_key(key)));
        }
        Kind::OneOfNotValid { context } | Kind::AnyOf { context } => report.alternatives(context, out),
        Kind::PropertyNames { error } => out.push(report.property_name(error)),
        _ => {
            let (code, message) = report.plain();
            out.push(Complaint { code, pointer: pointer.to_owned(), message });
        }
    }
}

/// Keeps one complaint of several about the form of one value, the most telling: its type before its wording before its
/// length.
pub(super) fn one_for_each_value(complaints: &mut Vec<Complaint>) {
    use ProblemCode::{NotAllowed, OutOfBounds, WrongForm, WrongType};
    let of_form = |code| matches!(code, WrongType | NotAllowed | WrongForm | OutOfBounds);
    let best: HashMap<String, ProblemCode> =
        complaints.iter().filter(|c| of_form(c.code)).fold(HashMap::new(), |mut best, c| {
            let code = best.entry(c.pointer.clone()).or_insert(c.code);
            *code = c.code.min(*code);
            best
        });
    complaints.retain(|c| !of_form(c.code) || best.get(&c.pointer) == Some(&c.code));
}

/// Names in a row: `a`, `b`, `c`. Of many the first [`NAMES_MAX`].
pub(super) fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names: Vec<String> = names.into_iter().take(NAMES_MAX + 1).map(|name| format!("`{name}`")).collect();
    if names.len() > NAMES_MAX {
        "…".clone_into(&mut names[NAMES_MAX]);
    }
    names.join(", ")
}

/// A value as a message shows it.
pub(super) fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(_) => return "a list".to_owned(),
        Value::Object(_) => return "an object".to_owned(),
        other => other.to_string(),
    };
    let mut short: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("`{short}`")
}

/// How a message names the value at `pointer`.
pub(super) fn subject(pointer: &str, whole: &str) -> String {
    let mut tokens = pointer.rsplit('/');
    let last = tokens.next().filter(|_| !pointer.is_empty());
    match last.map(|token| (token, token.parse::<usize>())) {
        None => whole.to_owned(),
        Some((_, Ok(index))) => {
            let parent = tokens
                .next()
                .filter(|name| !name.is_empty())
                .map_or(whole.to_owned(), |name| format!("`{}`", unescape(name)));
            format!("item {} of {parent}", index + 1)
        }
        Some((token, Err(_))) => format!("`{}`", unescape(token)),
    }
}

/// One error with what is around it.
struct Report<'a> {
    error: &'a ValidationError<'a>,
    schema: &'a Value,
    whole: &'a str,
    subject: String,
}

impl Report<'_> {
    /// The schema that holds the keyword which failed.
    fn rule(&self) -> Option<&Value> {
        let path = self.error.schema_path().as_str();
        self.schema.pointer(path.rsplit_once('/').map_or("", |(parent, _)| parent))
    }

    fn rule_text(&self, key: &str) -> Option<&str> {
        self.rule()?.get(key)?.as_str()
    }

    fn unknown_key(&self, key: &str) -> Complaint {
        let known: Vec<&str> = self
            .rule()
            .and_then(|rule| rule.get("properties")?.as_object())
            .map(|fields| fields.keys().map(String::as_str).collect())
            .unwrap_or_default();
        let mut tail = hint(key, known.iter().copied());
        if tail.is_empty() && !known.is_empty() && known.len() <= LISTED_KEYS_MAX {
            tail = format!("; it can have {}", list(known));
        }
        Complaint {
            code: ProblemCode::UnknownKey,
            pointer: join(self.error.instance_path().as_str(), key),
            message: format!("`{key}` is not a key of {}{tail}", self.subject),
        }
    }

    /// A key that may not be called so.
    fn property_name(&self, inner: &ValidationError<'_>) -> Complaint {
        let name = inner.instance().as_str().unwrap_or_default().to_owned();
        let inside =
            Report { error: inner, schema: self.schema, whole: self.whole, subject: format!("the name `{name}`") };
        let (code, message) = match inner.kind() {
            Kind::Not { .. } => {
                let words = format!("`{name}` belongs to the platform; every row has it by itself, under its rules");
                (ProblemCode::Reserved, words)
            }
            _ => inside.plain(),
        };
        Complaint { code, pointer: join(self.error.instance_path().as_str(), &name), message }
    }

    /// None of several alternatives fits: tells what is wrong with the one that was meant.
    fn alternatives(&self, branches: &[Vec<ValidationError<'static>>], out: &mut Vec<Complaint>) {
        let here = self.error.instance_path().as_str();
        let pointer = here.to_owned();
        let missing: Vec<&str> = branches
            .iter()
            .filter_map(|errors| match errors.as_slice() {
                [only] => match only.kind() {
                    Kind::Required { property } => property.as_str(),
                    _ => None,
                },
                _ => None,
            })
            .collect();
        if missing.len() == branches.len() {
            let message = format!("{} needs one of {}", self.subject, list(missing));
            out.push(Complaint { code: ProblemCode::WrongChoice, pointer, message });
            return;
        }
        let of_wrong_type = |error: &ValidationError<'_>| {
            error.instance_path().as_str() == here && matches!(error.kind(), Kind::Type { .. })
        };
        let meant =
            branches.iter().filter(|errors| !errors.iter().any(of_wrong_type)).min_by_key(|errors| errors.len());
        if let Some(errors) = meant {
            for error in errors {
                gather(error, self.schema, self.whole, out);
            }
            return;
        }
        let types: Vec<String> = branches.iter().flatten().filter_map(|error| type_words(error.kind())).collect();
        let message =
            format!("{} must be {}; this is {}", self.subject, types.join(" or "), with_article(self.error.instance()));
        out.push(Complaint { code: ProblemCode::WrongType, pointer, message });
    }

    /// The errors that are one complaint each.
    fn plain(&self) -> (ProblemCode, String) {
        let subject = &self.subject;
        let value = shown(self.error.instance());
        match self.error.kind() {
            Kind::Required { property } => (ProblemCode::Missing, self.missing(property.as_str().unwrap_or_default())),
            Kind::Type { .. } => (ProblemCode::WrongType, self.wrong_type()),
            Kind::Enum { options } => (ProblemCode::NotAllowed, self.not_allowed(options)),
            Kind::Constant { expected_value } => self.not_constant(expected_value),
            Kind::Pattern { pattern } => {
                let must = self
                    .rule_text("description")
                    .map_or_else(|| format!("a text that matches `{pattern}`"), ToOwned::to_owned);
                (ProblemCode::WrongForm, format!("{subject} must be {must}; this is {value}"))
            }
            Kind::Format { format } => {
                (ProblemCode::WrongForm, format!("{subject} must be {}; this is {value}", format_words(format)))
            }
            Kind::Referencing(error) => (ProblemCode::BadSchema, format!("a `$ref` points at nothing: {error}")),
            Kind::UniqueItems => (ProblemCode::DuplicateId, format!("{subject} has the same item twice")),
            Kind::FalseSchema => {
                let path = self.error.schema_path().as_str();
                let around = path.rsplit_once("/properties/").and_then(|(around, _)| self.schema.pointer(around));
                let what = around.and_then(|rule| rule.get("description")?.as_str()).unwrap_or("what else is there");
                (ProblemCode::WrongChoice, format!("{subject} does not go with {what}"))
            }
            Kind::OneOfMultipleValid { .. } => {
                let names = self.exclusive_keys();
                let words = if names.is_empty() { "one of the alternatives".to_owned() } else { list(names) };
                (ProblemCode::WrongChoice, format!("{subject} can have only one of {words}"))
            }
            _ => self.bounds().unwrap_or_else(|| (ProblemCode::WrongForm, format!("{subject}: {}", self.error))),
        }
    }

    fn missing(&self, key: &str) -> String {
        let about = self.rule().and_then(|rule| rule.get("properties")?.get(key)?.get("description")?.as_str());
        about.map_or_else(
            || format!("{} needs `{key}`", self.subject),
            |about| format!("{} needs `{key}`: {about}", self.subject),
        )
    }

    fn wrong_type(&self) -> String {
        let must = type_words(self.error.kind()).unwrap_or_default();
        let value = self.error.instance();
        let quotes =
            if must == "a text" && (value.is_number() || value.is_boolean()) { "; put it in quotes" } else { "" };
        format!("{} must be {must}; this is {}{quotes}", self.subject, with_article(value))
    }

    fn not_allowed(&self, options: &Value) -> String {
        let names: Vec<&str> = options.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let value = self.error.instance();
        let near = value.as_str().map(|text| hint(text, names.iter().copied())).unwrap_or_default();
        let allowed = if names.is_empty() { options.to_string() } else { list(names) };
        format!("{} must be one of {allowed}; this is {}{near}", self.subject, shown(value))
    }

    fn not_constant(&self, expected: &Value) -> (ProblemCode, String) {
        let value = self.error.instance();
        if self.error.instance_path().as_str() == "/manifest_version" && value.as_u64() > expected.as_u64() {
            let words = format!(
                "this manifest is of version {value}; this Krilin reads version {expected}, and a newer Krilin is needed"
            );
            return (ProblemCode::NewerVersion, words);
        }
        (
            ProblemCode::NotAllowed,
            format!("{} must be {}; this is {}", self.subject, shown(expected), with_article(value)),
        )
    }

    /// The keys of alternatives that each only require one.
    fn exclusive_keys(&self) -> Vec<&str> {
        let branches = self.rule().and_then(|rule| rule.get("oneOf")?.as_array());
        branches.into_iter().flatten().filter_map(|branch| branch.get("required")?.get(0)?.as_str()).collect()
    }

    fn bounds(&self) -> Option<(ProblemCode, String)> {
        let value = self.error.instance();
        let words = match self.error.kind() {
            Kind::Minimum { limit } => format!("must be at least {limit}; this is {value}"),
            Kind::Maximum { limit } => format!("must be at most {limit}; this is {value}"),
            Kind::ExclusiveMinimum { limit } => format!("must be more than {limit}; this is {value}"),
            Kind::ExclusiveMaximum { limit } => format!("must be less than {limit}; this is {value}"),
            Kind::MultipleOf { multiple_of } => format!("must be a multiple of {multiple_of}; this is {value}"),
            Kind::MinLength { limit: 1 } => "must not be empty".to_owned(),
            Kind::MinLength { limit } => format!("must have at least {limit} characters; this has {}", length(value)),
            Kind::MaxLength { limit } => format!("may have at most {limit} characters; this has {}", length(value)),
            Kind::MinItems { limit } => format!("must have at least {limit} items; this has {}", length(value)),
            Kind::MaxItems { limit } => format!("may have at most {limit} items; this has {}", length(value)),
            Kind::MinProperties { limit } => format!("must have at least {limit} keys; this has {}", length(value)),
            Kind::MaxProperties { limit } => format!("may have at most {limit} keys; this has {}", length(value)),
            _ => return None,
        };
        let words = words.replace(" 1 items", " one item").replace(" 1 keys", " one key");
        Some((ProblemCode::OutOfBounds, format!("{} {words}", self.subject)))
    }
}

fn length(value: &Value) -> usize {
    match value {
        Value::String(text) => text.chars().count(),
        Value::Array(items) => items.len(),
        Value::Object(map) => map.len(),
        _ => 0,
    }
}

fn with_article(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => format!("the boolean {}", shown(value)),
        Value::Number(_) => format!("the number {}", shown(value)),
        Value::String(_) => format!("the text {}", shown(value)),
        Value::Array(_) | Value::Object(_) => shown(value),
    }
}

/// The types that an error asks for, in words.
fn type_words(kind: &Kind) -> Option<String> {
    let Kind::Type { kind } = kind else { return None };
    let names: Vec<String> = match kind {
        TypeKind::Single(one) => vec![one.to_string()],
        TypeKind::Multiple(several) => several.iter().map(|one| one.to_string()).collect(),
    };
    let words: Vec<&str> = names
        .iter()
        .map(|name| match name.as_str() {
            "string" => "a text",
            "integer" => "a whole number",
            "number" => "a number",
            "boolean" => "true or false",
            "array" => "a list",
            "object" => "an object",
            _ => "null",
        })
        .collect();
    Some(words.join(" or "))
}

/// What a value of a format looks like.
fn format_words(format: &str) -> &str {
    match format {
        "date" => "a day such as `2026-11-22`",
        "time" => "a time of day such as `20:30`",
        "date-time" => "an instant such as `2026-11-22T17:13:20Z`",
        "uuid" => "a UUID",
        "email" => "an e-mail address",
        "regex" => "a regular expression without look-around",
        "uri" => "a URL such as `https://example.org`",
        other => other,
    }
}
