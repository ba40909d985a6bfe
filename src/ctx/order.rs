//! `order_by` and `after`: a total order over the rows, and cursors that mark a place in it.
//!
//! A cursor holds the values of the order's columns in the last row of a page. It is bound to its table and order: with
//! another order it is refused, not misread. Nulls stand last when ascending and first when descending, as in Postgres.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{refusal::Problems, value};
use crate::{
    model::shape::{Field, Shape, Type},
    store::rows::{Statement, quoted},
};

/// The most columns to order by.
const COLUMNS_MAX: usize = 4;
/// The longest cursor: the values of four columns of text in hex.
const CURSOR_MAX_LENGTH: usize = 64 * 1024;

/// A total order over a table's rows.
#[derive(Debug)]
pub(super) struct Order<'a> {
    shape: &'a Shape,
    columns: Vec<(&'a Field, bool)>,
}

impl<'a> Order<'a> {
    /// Reads `order_by`. `id` is added at the end, so that no two rows share a place.
    pub(super) fn parse(shape: &'a Shape, order_by: Option<&Value>, problems: &mut Problems) -> Self {
        let mut columns = Vec::new();
        let empty = serde_json::Map::new();
        let given = match order_by {
            None | Some(Value::Null) => &empty,
            Some(Value::Object(given)) => given,
            Some(_) => {
                problems.add("/order_by", "must be an object, such as { created_at: \"desc\" }");
                &empty
            }
        };
        if given.len() > COLUMNS_MAX {
            problems.add("/order_by", format!("takes at most {COLUMNS_MAX} columns"));
        }
        for (name, direction) in given {
            let pointer = format!("/order_by/{name}");
            let Some(field) = shape.field(name) else {
                problems.add(pointer, shape.no_such_column(name));
                continue;
            };
            if matches!(field.ty, Type::Json | Type::Texts | Type::Integers) {
                problems.add(pointer.as_str(), format!("`{name}` has no order"));
            }
            match direction.as_str() {
                Some("asc") => columns.push((field, false)),
                Some("desc") => columns.push((field, true)),
                _ => problems.add(pointer, "must be \"asc\" or \"desc\""),
            }
        }
        if let (Some(id), false) = (shape.field("id"), given.contains_key("id")) {
            columns.push((id, false));
        }
        Self { shape, columns }
    }

    /// The `order by` clause.
    pub(super) fn clause(&self) -> String {
        let terms = self
            .columns
            .iter()
            .map(|(field, descending)| format!("t.{}{}", quoted(&field.name), if *descending { " desc" } else { "" }));
        format!(" order by {}", terms.collect::<Vec<_>>().join(", "))
    }

    /// The columns whose values are a row's place.
    pub(super) fn fields(&self) -> impl Iterator<Item = &'a Field> {
        self.columns.iter().map(|(field, _)| *field)
    }

    /// The cursor of a row at `place`, which is a JSON list of texts.
    pub(super) fn cursor(&self, place: &str) -> String {
        let values: Value = serde_json::from_str(place).unwrap_or(Value::Null);
        hex(&json!({"o": self.signature(), "v": values}).to_string())
    }

    /// Adds the condition "after the row that `cursor` marks".
    pub(super) fn and_after(&self, cursor: &Value, statement: &mut Statement, problems: &mut Problems) {
        let Some(values) = self.read(cursor) else {
            let message = "is no cursor of this query; pass `page.next` of the same table and order_by";
            return problems.add("/after", message);
        };
        // (a after x) or (a is x and b after y) or …
        statement.push(" and (");
        for last in 0..self.columns.len() {
            if last > 0 {
                statement.push(" or ");
            }
            statement.push("(");
            for (index, (field, descending)) in self.columns.iter().enumerate().take(last + 1) {
                if index > 0 {
                    statement.push(" and ");
                }
                let bound = Bound { field, value: &values[index], descending: *descending };
                if index < last { bound.same(statement) } else { bound.after(statement) }
            }
            statement.push(")");
        }
        statement.push(")");
    }

    fn signature(&self) -> String {
        let mut text = self.shape.table.clone();
        for (field, descending) in &self.columns {
            write!(text, " {}{}", if *descending { "-" } else { "+" }, field.name).expect("a string takes it");
        }
        text
    }

    fn read(&self, cursor: &Value) -> Option<Vec<Value>> {
        let text = cursor.as_str().filter(|text| text.len() <= CURSOR_MAX_LENGTH)?;
        let mut parsed: Value = serde_json::from_str(&unhex(text)?).ok()?;
        if parsed["o"].as_str() != Some(&self.signature()) {
            return None;
        }
        let Value::Array(values) = parsed["v"].take() else { return None };
        let fits = |((field, _), value): (&(&Field, bool), &Value)| from_text(field, value).is_some();
        (values.len() == self.columns.len() && self.columns.iter().zip(&values).all(fits))
            .then(|| self.columns.iter().zip(&values).filter_map(|((field, _), v)| from_text(field, v)).collect())
    }
}

/// One column of the order and where the cursor stands in it.
struct Bound<'a> {
    field: &'a Field,
    value: &'a Value,
    descending: bool,
}

impl Bound<'_> {
    fn same(&self, statement: &mut Statement) {
        self.compare(" = ", " is null", statement);
    }

    fn after(&self, statement: &mut Statement) {
        match (self.descending, self.value.is_null()) {
            (false, true) => {
                statement.push("false");
            }
            (true, true) => self.compare("", " is not null", statement),
            (true, false) => self.compare(" < ", "", statement),
            (false, false) if self.field.nullable => {
                statement.push("(");
                self.compare(" > ", "", statement);
                statement.push(&format!(" or t.{} is null)", quoted(&self.field.name)));
            }
            (false, false) => self.compare(" > ", "", statement),
        }
    }

    fn compare(&self, operator: &str, with_null: &str, statement: &mut Statement) {
        let column = format!("t.{}", quoted(&self.field.name));
        match value::read(self.field, self.value) {
            Ok(arg) if !self.value.is_null() => statement.push(&column).push(operator).bind_as(arg, self.field.ty),
            _ => statement.push(&column).push(with_null),
        };
    }
}

/// A value of a cursor, which are texts all, in the spelling that [`value::read`] takes.
fn from_text(field: &Field, text: &Value) -> Option<Value> {
    let Some(text) = text.as_str() else { return text.is_null().then_some(Value::Null) };
    let value = match field.ty {
        Type::Integer => text.parse::<i64>().ok()?.into(),
        // Exactly: JSON's parser may miss the double by its last bit, and the page would begin at the wrong row.
        Type::Number => text.parse::<f64>().ok().filter(|number| number.is_finite())?.into(),
        Type::Boolean => Value::Bool(text == "true"),
        _ => Value::String(text.to_owned()),
    };
    value::read(field, &value).is_ok().then_some(value)
}

fn hex(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len() * 2), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a string takes it");
        hex
    })
}

fn unhex(hex: &str) -> Option<String> {
    let digits = hex.as_bytes();
    let pairs =
        digits.chunks(2).map(|pair| std::str::from_utf8(pair).ok().and_then(|p| u8::from_str_radix(p, 16).ok()));
    String::from_utf8(pairs.collect::<Option<Vec<u8>>>()?).ok()
}
