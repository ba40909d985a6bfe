//! `storage.update` and `delete`, with the version the author expects where they name one.
//!
//! A statement that Postgres could refuse (a column of a unique key or of a pointer, a row that others hold on to) runs
//! behind a savepoint; all others cannot be refused and need none.

use serde_json::{Value, json, value::RawValue};

use super::{
    insert::ROW_BYTES_MAX,
    refusal::{Problems, invalid, over},
    table::{Table, options, raw, whole_row},
    value,
};
use crate::{
    model::error::{Code, CtxError},
    store::rows::{Arg, Statement, quoted},
};

impl Table<'_> {
    /// `update(table, id, data, {expected_version})` gives the row as it is then.
    pub(super) async fn update(
        &mut self,
        id: Option<&Value>,
        data: Option<&Value>,
        given: Option<&Value>,
    ) -> Result<Box<RawValue>, CtxError> {
        let expected = self.expected(given)?;
        let mut problems = Problems::default();
        let changes = self.changes(id, data.unwrap_or(&Value::Null), &mut problems);
        problems.check(&self.about)?;
        let Some(id) = self.id(id)? else { return Err(self.missing()) };
        let text = format!("update {} as t set updated_at = $2, version = t.version + 1", quoted(&self.shape.physical));
        let mut statement = Statement::new(text, vec![self.user(), self.now()]);
        let shape = self.shape.clone();
        let constrained = changes.iter().any(|(name, _)| shape.is_constrained(name));
        for (name, arg) in changes {
            let Some(field) = shape.field(&name) else { continue };
            statement.push(&format!(", {} = ", quoted(&name))).bind_as(arg, field.ty);
        }
        self.this_row(&mut statement, &id, expected);
        statement.push(" returning ").give(whole_row(&shape, false));
        let read = if constrained { self.read_guarded(statement).await? } else { self.read(statement).await? };
        let Some(row) = read.rows.into_iter().next() else { return Err(self.why_not(&id, expected).await) };
        if row.len() > ROW_BYTES_MAX * 2 {
            // Many updates of single columns could pile up a row that no insert could make. What is written is written, so
            // the whole pass has to go.
            let error = over(format!("{}: a row may have at most {ROW_BYTES_MAX} bytes", self.about));
            self.pass.broken = Some(error.clone());
            return Err(error);
        }
        Ok(raw(row))
    }

    /// `delete(table, id, {expected_version})` says whether there was such a row. In a table with `soft_delete` it stays,
    /// marked.
    pub(super) async fn delete(
        &mut self,
        id: Option<&Value>,
        given: Option<&Value>,
    ) -> Result<Box<RawValue>, CtxError> {
        let expected = self.expected(given)?;
        let Some(id) = self.id(id)? else { return Ok(raw("false".to_owned())) };
        let physical = quoted(&self.shape.physical);
        let (text, args) = if self.shape.soft_delete {
            let text = format!("update {physical} as t set deleted_at = $2, updated_at = $2, version = t.version + 1");
            (text, vec![self.user(), self.now()])
        } else {
            (format!("delete from {physical} as t"), vec![self.user()])
        };
        let mut statement = Statement::new(text, args);
        self.this_row(&mut statement, &id, expected);
        statement.push(" returning 'true'");
        let held = self.shape.held && !self.shape.soft_delete;
        let read = if held { self.read_guarded(statement).await? } else { self.read(statement).await? };
        if read.rows.is_empty() && expected.is_some() {
            let error = self.why_not(&id, expected).await;
            return if error.code == Code::NotFound { Ok(raw("false".to_owned())) } else { Err(error) };
        }
        Ok(raw((!read.rows.is_empty()).to_string()))
    }

    fn changes(&self, id: Option<&Value>, data: &Value, problems: &mut Problems) -> Vec<(String, Arg)> {
        let Some(data) = data.as_object() else {
            problems.add("", "the changes must be an object of columns");
            return Vec::new();
        };
        for (name, given) in data {
            let pointer = format!("/{name}");
            match self.shape.field(name) {
                None => problems.add(pointer, self.shape.no_such_column(name)),
                Some(_) if name == "id" && Some(given) != id => problems.add(pointer, "a row keeps its `id`"),
                Some(field) if field.platform => problems.add(pointer, format!("`{name}` is set by the platform")),
                Some(_) => {}
            }
        }
        // In the table's order, so that the same columns make the same statement.
        let given = self.shape.writable().filter(|field| field.name != "id" && data.contains_key(&field.name));
        let changes: Vec<(String, Arg)> = given
            .filter_map(|field| {
                let accepted = value::accept(field, &data[&field.name]);
                problems.take(&format!("/{}", field.name), accepted).map(|arg| (field.name.clone(), arg))
            })
            .collect();
        if data.values().map(|value| value.to_string().len()).sum::<usize>() > ROW_BYTES_MAX {
            problems.add("", format!("a row may have at most {ROW_BYTES_MAX} bytes"));
        }
        changes
    }

    /// Adds the `where` that finds one row of the user.
    fn this_row(&self, statement: &mut Statement, id: &Arg, expected: Option<i64>) {
        statement.push(" where t.user_id = $1 and t.id = ").bind(id.clone()).push(self.alive(false));
        if let Some(expected) = expected {
            statement.push(" and t.version = ").bind(Arg::Int(Some(expected)));
        }
    }

    /// The id, or none if the text cannot be one.
    fn id(&self, given: Option<&Value>) -> Result<Option<Arg>, CtxError> {
        let Some(text @ Value::String(_)) = given else {
            return Err(invalid(&self.about, "", "the id must be a string"));
        };
        Ok(self.shape.field("id").and_then(|field| value::read(field, text).ok()))
    }

    fn expected(&self, given: Option<&Value>) -> Result<Option<i64>, CtxError> {
        let given = options(&self.about, given, &["expected_version"])?;
        match given.get("expected_version") {
            None | Some(Value::Null) => Ok(None),
            Some(version) => version.as_i64().map(Some).ok_or_else(|| {
                invalid(&self.about, "/expected_version", "`expected_version` must be the `version` of a row")
            }),
        }
    }

    /// Why no row was changed: it is not there, or in another version.
    async fn why_not(&mut self, id: &Arg, expected: Option<i64>) -> CtxError {
        let Some(expected) = expected else { return self.missing() };
        let mut statement = Statement::new(format!("select t.version from {}", self.source()), vec![self.user()]);
        self.this_row(&mut statement, id, None);
        match self.find_number(statement).await {
            Err(error) => error,
            Ok(None) => self.missing(),
            Ok(Some(version)) => {
                let message = format!("{}: the row is at version {version}, not {expected}", self.about);
                CtxError::new(Code::Conflict, message)
                    .with_details(json!({"expected_version": expected, "version": version}))
            }
        }
    }

    fn missing(&self) -> CtxError {
        CtxError::new(Code::NotFound, format!("{}: there is no such row", self.about))
    }
}
