//! Reads the YAML that is JSON in other clothes (YAML 1.2, core schema), with the place of every value. Refuses anchors,
//! aliases, tags, several documents, keys that are no text and keys that are there twice: each lets a manifest mean
//! something else than it seems to.

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError};
use serde_json::{Map, Number, Value};

use super::{
    Source,
    position::{Mark, Positions, join},
    problem::{Problem, ProblemCode},
};

/// The deepest nesting; that of serde_json.
const MAX_DEPTH: usize = 128;

/// Reads `text`. What YAML itself refuses stops it; what only we refuse is gathered.
pub(super) fn read(text: &str) -> Result<Source, Vec<Problem>> {
    let mut build = Build::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| build.stopped_by(&error))?;
        build.take(event, mark(&span.start)).map_err(|problem| build.stopped_with(problem))?;
    }
    if build.problems.iter().any(|problem| problem.code == ProblemCode::YamlFeature) {
        return Err(build.problems);
    }
    let (value, positions) = build.root.unwrap_or((Value::Null, Positions::at(Mark { line: 1, column: 1 })));
    Ok(Source { value, positions, problems: build.problems })
}

fn mark(marker: &Marker) -> Mark {
    let bounded = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Mark { line: bounded(marker.line()).max(1), column: bounded(marker.col() + 1) }
}

fn problem_at(code: ProblemCode, pointer: &str, mark: Mark, message: impl Into<String>) -> Problem {
    Problem { line: mark.line, column: Some(mark.column), ..Problem::new(code, pointer, message) }
}

/// A list or map that is not closed yet.
struct Open {
    value: Value,
    place: Positions,
    pointer: String,
    /// The key whose value comes next, and its place.
    key: Option<(String, Mark)>,
}

/// The value so far.
#[derive(Default)]
struct Build {
    open: Vec<Open>,
    root: Option<(Value, Positions)>,
    documents: usize,
    problems: Vec<Problem>,
}

impl Build {
    fn stopped_by(&mut self, error: &ScanError) -> Vec<Problem> {
        let words = format!("this is not YAML: {}", error.info());
        self.stopped_with(problem_at(ProblemCode::Syntax, "", mark(error.marker()), words))
    }

    fn stopped_with(&mut self, problem: Problem) -> Vec<Problem> {
        self.problems.push(problem);
        std::mem::take(&mut self.problems)
    }

    /// Takes the next event; an error is one that leaves no sense in going on.
    fn take(&mut self, event: Event<'_>, mark: Mark) -> Result<(), Problem> {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents == 2 {
                    self.refuse(mark, "a second document (`---`); a manifest is one document");
                }
            }
            Event::Alias(_) => {
                self.refuse(mark, "an alias (`*name`); write the value out");
                self.scalar(Value::Null, None, mark);
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_marks(anchor, tag.is_some(), mark);
                let value = if style == ScalarStyle::Plain { self.plain(&text, mark) } else { text.as_ref().into() };
                self.scalar(value, Some(text.into_owned()), mark);
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_marks(anchor, tag.is_some(), mark);
                self.begin(Value::Array(Vec::new()), mark)?;
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_marks(anchor, tag.is_some(), mark);
                self.begin(Value::Object(Map::new()), mark)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(done) = self.open.pop() {
                    self.put(done.value, done.place);
                }
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn refuse(&mut self, mark: Mark, what: &str) {
        let pointer = self.pointer();
        let words = format!("this YAML has {what}");
        self.problems.push(problem_at(ProblemCode::YamlFeature, &pointer, mark, words));
    }

    fn refuse_marks(&mut self, anchor: usize, tagged: bool, mark: Mark) {
        if anchor > 0 {
            self.refuse(mark, "an anchor (`&name`); write the value where it is needed");
        }
        if tagged {
            self.refuse(mark, "a tag (`!name`); write the plain value, in quotes if it is a text");
        }
    }

    /// Where the next value goes.
    fn pointer(&self) -> String {
        let Some(open) = self.open.last() else { return String::new() };
        match (&open.key, &open.value) {
            (Some((key, _)), _) => join(&open.pointer, key),
            (None, Value::Array(items)) => join(&open.pointer, items.len()),
            (None, _) => open.pointer.clone(),
        }
    }

    fn begin(&mut self, value: Value, mark: Mark) -> Result<(), Problem> {
        let pointer = self.pointer();
        if self.open.len() >= MAX_DEPTH {
            return Err(problem_at(ProblemCode::Syntax, "", mark, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        if self.wants_key() {
            return Err(problem_at(ProblemCode::Syntax, &pointer, mark, "a key must be a text, not a list or a map"));
        }
        self.open.push(Open { value, place: Positions::at(mark), pointer, key: None });
        Ok(())
    }

    fn wants_key(&self) -> bool {
        self.open.last().is_some_and(|open| open.value.is_object() && open.key.is_none())
    }

    /// Takes a scalar: as a key where one is due (then `text` is what was written), else as a value.
    fn scalar(&mut self, value: Value, text: Option<String>, mark: Mark) {
        if !self.wants_key() {
            self.put(value, Positions::at(mark));
            return;
        }
        let key = text.unwrap_or_default();
        let Some(open) = self.open.last_mut() else { return };
        if let Some(first) = open.place.fields.get(&key) {
            let words = format!("the key `{key}` is there twice; the first is on line {}", first.key.line);
            let pointer = join(&open.pointer, &key);
            self.problems.push(problem_at(ProblemCode::DuplicateKey, &pointer, mark, words));
        }
        open.key = Some((key, mark));
    }

    fn put(&mut self, value: Value, mut place: Positions) {
        let Some(open) = self.open.last_mut() else {
            if self.root.is_none() {
                self.root = Some((value, place));
            }
            return;
        };
        match &mut open.value {
            Value::Array(items) => {
                items.push(value);
                open.place.items.push(place);
            }
            Value::Object(map) => {
                let (key, mark) = open.key.take().unwrap_or_else(|| (String::new(), place.value));
                place.key = mark;
                map.insert(key.clone(), value);
                open.place.fields.insert(key, place);
            }
            _ => {}
        }
    }

    /// A scalar without quotes, by YAML's core schema.
    fn plain(&mut self, text: &str, mark: Mark) -> Value {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => Value::Null,
            "true" | "True" | "TRUE" => Value::Bool(true),
            "false" | "False" | "FALSE" => Value::Bool(false),
            ".nan" | ".NaN" | ".NAN" => self.not_a_number(mark),
            _ if text.trim_start_matches(['+', '-']).eq_ignore_ascii_case(".inf") => self.not_a_number(mark),
            _ => number(text).map_or_else(|| text.into(), Value::Number),
        }
    }

    fn not_a_number(&mut self, mark: Mark) -> Value {
        self.refuse(mark, "a number that JSON does not have; write a finite one");
        Value::Null
    }
}

/// A number of the core schema: decimal, `0o17`, `0x1f`, or with a point or exponent.
fn number(text: &str) -> Option<Number> {
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok().map(Number::from);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return u64::from_str_radix(digits, 8).ok().map(Number::from);
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let starts_like_one = unsigned.trim_start_matches('.').starts_with(|c: char| c.is_ascii_digit());
    if !starts_like_one || !unsigned.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b)) {
        return None;
    }
    let whole = text.strip_prefix('+').unwrap_or(text);
    whole
        .parse::<i64>()
        .map(Number::from)
        .or_else(|_| whole.parse::<u64>().map(Number::from))
        .ok()
        .or_else(|| whole.parse::<f64>().ok().and_then(Number::from_f64))
}
