//! What a storage call says when it does not work: the author's own names, never Postgres' words.

use serde_json::{Value, json};

use crate::{
    model::{
        error::{Code, CtxError},
        shape::Shape,
    },
    store,
};

/// The most problems listed at once; the rest is counted.
const PROBLEMS_MAX: usize = 50;

/// What is wrong with an argument, place by place.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<(String, String)>);

impl Problems {
    /// Adds one: the JSON pointer of the place, and a sentence.
    pub(super) fn add(&mut self, pointer: impl Into<String>, message: impl Into<String>) {
        self.0.push((pointer.into(), message.into()));
    }

    /// Keeps the value, or notes why there is none.
    pub(super) fn take<T>(&mut self, pointer: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|message| self.add(pointer, message)).ok()
    }

    /// An error if anything was noted. `about` names the call, such as `storage.insert into habits`.
    pub(super) fn check(self, about: &str) -> Result<(), CtxError> {
        let Some((_, first)) = self.0.first() else { return Ok(()) };
        let more = match self.0.len() - 1 {
            0 => String::new(),
            n => format!(" (and {n} more)"),
        };
        let list: Vec<Value> = self.0.iter().take(PROBLEMS_MAX).map(listed).collect();
        Err(CtxError::new(Code::ValidationFailed, format!("{about}: {first}{more}")).with_details(json!(list)))
    }
}

fn listed((pointer, message): &(String, String)) -> Value {
    json!({"pointer": pointer, "message": message})
}

/// One problem as an error of its own.
pub(super) fn invalid(about: &str, pointer: &str, message: impl Into<String>) -> CtxError {
    let message = message.into();
    let details = json!([{"pointer": pointer, "message": message}]);
    CtxError::new(Code::ValidationFailed, format!("{about}: {message}")).with_details(details)
}

/// A limit that is reached; `message` names it.
pub(super) fn over(message: impl Into<String>) -> CtxError {
    CtxError::new(Code::QuotaExceeded, message)
}

/// What a refused constraint means in the author's words: a key that is taken, a row that is missing or still needed.
pub(super) fn of_constraint(shape: &Shape, name: &str) -> CtxError {
    let table = &shape.table;
    if let Some(key) = shape.keys.iter().find(|key| key.name == name) {
        return taken(table, &key.columns);
    }
    if name == shape.primary_key() {
        return taken(table, &["id".to_owned()]);
    }
    if let Some(parent) = shape.parents.iter().find(|parent| parent.name == name) {
        let columns = parent.columns.join(", ");
        let message = format!("`{columns}` of `{table}` points at a row of `{}` that does not exist", parent.table);
        return CtxError::new(Code::ForeignKeyViolation, message)
            .with_details(json!({"table": table, "columns": parent.columns, "references": parent.table}));
    }
    if name.ends_with("_fkey") {
        let message = format!("a row of `{table}` is still needed by rows that point at it");
        return CtxError::new(Code::ForeignKeyViolation, message).with_details(json!({"table": table}));
    }
    CtxError::new(Code::ValidationFailed, format!("the row does not fit `{table}`"))
}

fn taken(table: &str, columns: &[String]) -> CtxError {
    let names = columns.join(", ");
    CtxError::new(Code::UniqueViolation, format!("a row of `{table}` with this `{names}` is already there"))
        .with_details(json!({"table": table, "columns": columns}))
}

/// An error of the store, seen from a table of the app.
pub(super) fn of_store(shape: &Shape, error: store::Error) -> CtxError {
    match error {
        store::Error::Constraint(name) => of_constraint(shape, &name),
        error if error.is_data_exception() => {
            CtxError::new(Code::ValidationFailed, format!("a value is out of range for `{}`", shape.table))
        }
        other => other.into(),
    }
}
