//! A table of the app, opened for one call: what the parts of `ctx.storage` share.

use std::sync::Arc;

use serde_json::{Map, Value, value::RawValue};

use super::{
    pass::{Pass, World},
    refusal::{invalid, of_store, over},
};
use crate::{
    model::{error::CtxError, near, shape::Shape},
    store::{
        self,
        columns::Columns,
        rows::{Arg, Read, Statement, quoted},
    },
};

/// The most bytes of rows that one call gives back: what the sandbox takes as one answer, less the words around it.
pub(super) const RESULT_BYTES_MAX: usize = (1 << 20) - 4096;

/// One table, one call.
pub(super) struct Table<'a> {
    /// Who, which app, when.
    pub(super) world: &'a World,
    /// The open transaction.
    pub(super) pass: &'a mut Pass,
    /// The table.
    pub(super) shape: Arc<Shape>,
    /// The call, for messages: `storage.query of habits`.
    pub(super) about: String,
}

impl Table<'_> {
    /// The table's name in a statement, as `t`.
    pub(super) fn source(&self) -> String {
        format!("{} t", quoted(&self.shape.physical))
    }

    /// The first argument of every statement.
    pub(super) fn user(&self) -> Arg {
        Arg::Uuid(Some(self.world.user.0))
    }

    /// The second argument of every statement that writes.
    pub(super) fn now(&self) -> Arg {
        Arg::Instant(Some(self.world.now))
    }

    /// A statement that selects whole rows of the user. Conditions may follow.
    pub(super) fn rows(&self) -> Statement {
        let mut statement = Statement::new("select ", Vec::new());
        statement.give(whole_row(&self.shape, false)).push(" from ").push(&self.source()).push(" where t.user_id = ");
        statement.bind(self.user());
        statement
    }

    /// `t.deleted_at is null`, where that means something and deleted rows are not asked for.
    pub(super) fn alive(&self, include_deleted: bool) -> &'static str {
        if self.shape.soft_delete && !include_deleted { " and t.deleted_at is null" } else { "" }
    }

    /// Reads rows; they count towards the pass.
    pub(super) async fn read(&mut self, statement: Statement) -> Result<Read, CtxError> {
        let result = store::rows::read(&mut self.pass.transaction, statement, RESULT_BYTES_MAX).await;
        let read = self.unbroken(result)?;
        self.counted(read)
    }

    /// The same behind a savepoint, so that a refused constraint leaves the transaction usable.
    pub(super) async fn read_guarded(&mut self, statement: Statement) -> Result<Read, CtxError> {
        let result = store::rows::read_guarded(&mut self.pass.transaction, statement, RESULT_BYTES_MAX).await;
        match result {
            Err(error) if error.constraint().is_some() || error.is_data_exception() => {
                Err(of_store(&self.shape, error))
            }
            other => self.unbroken(other),
        }
    }

    /// Reads one number.
    pub(super) async fn number(&mut self, statement: Statement) -> Result<i64, CtxError> {
        let result = store::rows::number(&mut self.pass.transaction, statement).await;
        self.unbroken(result)
    }

    /// Reads one number that may be missing.
    pub(super) async fn find_number(&mut self, statement: Statement) -> Result<Option<i64>, CtxError> {
        let result = store::rows::find_number(&mut self.pass.transaction, statement).await;
        self.unbroken(result)
    }

    /// A statement that failed without a savepoint has ended the transaction: from here on every call of the pass gives the
    /// same error, and nothing of it can be committed.
    pub(super) fn unbroken<T>(&mut self, result: Result<T, store::Error>) -> Result<T, CtxError> {
        result.map_err(|error| {
            let error = of_store(&self.shape, error);
            self.pass.broken = Some(error.clone());
            error
        })
    }

    fn counted(&mut self, read: Read) -> Result<Read, CtxError> {
        if read.cut {
            return Err(over(format!(
                "{}: the rows are over {RESULT_BYTES_MAX} bytes; select fewer columns or set a lower limit",
                self.about
            )));
        }
        self.pass.count_rows(read.rows.len())?;
        Ok(read)
    }
}

/// The row as an author sees it when they do not choose columns.
pub(super) fn whole_row(shape: &Shape, include_deleted: bool) -> Columns {
    Columns::of(shape.fields.iter().filter(|field| include_deleted || field.name != "deleted_at"))
}

/// The options of a call: an object with known keys, or nothing.
pub(super) fn options<'v>(
    about: &str,
    value: Option<&'v Value>,
    known: &[&str],
) -> Result<std::borrow::Cow<'v, Map<String, Value>>, CtxError> {
    match value {
        None | Some(Value::Null) => Ok(std::borrow::Cow::Owned(Map::new())),
        Some(Value::Object(options)) => match options.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(std::borrow::Cow::Borrowed(options)),
            Some(key) => {
                let hint = near::hint(key, known.iter().copied());
                let known = known.join(", ");
                Err(invalid(about, &format!("/{key}"), format!("`{key}` is no option{hint}; there are {known}")))
            }
        },
        Some(_) => Err(invalid(about, "", "the options must be an object")),
    }
}

/// JSON text as a result. The store wrote it, or Postgres.
pub(super) fn raw(text: String) -> Box<RawValue> {
    RawValue::from_string(text).expect("what is written is JSON")
}
