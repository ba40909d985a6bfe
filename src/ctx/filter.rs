//! `where` becomes a condition with bound values. Column names are looked up in the table's shape; a name that is not there
//! never reaches the statement.

use serde_json::{Map, Value};

use super::{refusal::Problems, value};
use crate::{
    model::{
        near,
        shape::{Field, Shape, Type},
    },
    store::rows::{Arg, Statement, quoted},
};

/// The most levels of `any`, `all` and `not` inside each other.
const DEPTH_MAX: usize = 8;
/// The most comparisons in one `where`.
const COMPARISONS_MAX: usize = 100;
/// The most values in one `in`.
const IN_MAX: usize = 1_000;

const OPERATORS: [&str; 10] = ["eq", "ne", "lt", "lte", "gt", "gte", "in", "like", "is_null", "contains"];

/// Writes conditions into a statement and notes what is wrong with them.
pub(super) struct Filter<'a> {
    /// The table.
    pub(super) shape: &'a Shape,
    /// Where the condition goes.
    pub(super) statement: &'a mut Statement,
    /// Where complaints go.
    pub(super) problems: &'a mut Problems,
    comparisons: usize,
}

impl<'a> Filter<'a> {
    /// A filter over `shape`'s rows, which the statement calls `t`.
    pub(super) fn new(shape: &'a Shape, statement: &'a mut Statement, problems: &'a mut Problems) -> Self {
        Self { shape, statement, problems, comparisons: 0 }
    }

    /// Adds ` and (…)` for a `where` at `pointer`; nothing for an absent one.
    pub(super) fn and(&mut self, condition: Option<&Value>, pointer: &str) {
        match condition {
            None | Some(Value::Null) => {}
            Some(Value::Object(members)) if members.is_empty() => {}
            Some(condition) => {
                self.statement.push(" and ");
                self.condition(condition, pointer, 0);
            }
        }
    }

    fn condition(&mut self, condition: &Value, pointer: &str, depth: usize) {
        let Some(members) = condition.as_object() else {
            return self.problems.add(pointer, "a condition is an object of columns, such as { active: true }");
        };
        if depth > DEPTH_MAX {
            return self.problems.add(pointer, format!("conditions are nested deeper than {DEPTH_MAX}"));
        }
        self.statement.push("(true");
        for (name, wanted) in members {
            let pointer = format!("{pointer}/{name}");
            self.statement.push(" and ");
            match name.as_str() {
                "any" => self.several(wanted, &pointer, depth, (" or ", "false")),
                "all" => self.several(wanted, &pointer, depth, (" and ", "true")),
                "not" => {
                    // Rows for which the condition is unknown, because of a null, do not fulfil it either.
                    self.condition(wanted, &pointer, depth + 1);
                    self.statement.push(" is not true");
                }
                _ => match self.shape.field(name) {
                    Some(field) => self.comparisons(field, wanted, &pointer),
                    None => self.problems.add(pointer, self.shape.no_such_column(name)),
                },
            }
        }
        self.statement.push(")");
    }

    fn several(&mut self, list: &Value, pointer: &str, depth: usize, (word, empty): (&str, &str)) {
        let Some(conditions) = list.as_array() else {
            return self.problems.add(pointer, "must be a list of conditions");
        };
        self.statement.push("(");
        for (index, condition) in conditions.iter().enumerate() {
            if index > 0 {
                self.statement.push(word);
            }
            self.condition(condition, &format!("{pointer}/{index}"), depth + 1);
        }
        if conditions.is_empty() {
            self.statement.push(empty);
        }
        self.statement.push(")");
    }

    fn comparisons(&mut self, field: &Field, wanted: &Value, pointer: &str) {
        let single = Map::from_iter([("eq".to_owned(), wanted.clone())]);
        let operators = wanted.as_object().unwrap_or(&single);
        self.statement.push("(true");
        for (operator, value) in operators {
            self.comparisons += 1;
            if self.comparisons > COMPARISONS_MAX {
                return self.problems.add(pointer, format!("more than {COMPARISONS_MAX} comparisons"));
            }
            self.statement.push(" and ");
            let place = if wanted.is_object() { format!("{pointer}/{operator}") } else { pointer.to_owned() };
            if let Err(message) = self.comparison(field, operator, value) {
                self.problems.add(place, message);
            }
        }
        self.statement.push(")");
    }

    fn comparison(&mut self, field: &Field, operator: &str, value: &Value) -> Result<(), String> {
        let column = format!("t.{}", quoted(&field.name));
        match operator {
            "eq" | "ne" => self.equality(field, &column, operator == "eq", value),
            "lt" => self.range(field, &column, " < ", value),
            "lte" => self.range(field, &column, " <= ", value),
            "gt" => self.range(field, &column, " > ", value),
            "gte" => self.range(field, &column, " >= ", value),
            "in" => self.membership(field, &column, value),
            "like" => self.like(field, &column, value),
            "is_null" => {
                let null = value.as_bool().ok_or("`is_null` must be true or false")?;
                self.statement.push(&column).push(if null { " is null" } else { " is not null" });
                Ok(())
            }
            "contains" => self.contains(field, &column, value),
            other => {
                let known = OPERATORS.join(", ");
                Err(format!("`{other}` is no comparison{}; there are {known}", near::hint(other, OPERATORS)))
            }
        }
    }

    fn equality(&mut self, field: &Field, column: &str, equal: bool, value: &Value) -> Result<(), String> {
        if value.is_null() {
            self.statement.push(column).push(if equal { " is null" } else { " is not null" });
        } else if is_no_id(field, value) {
            self.statement.push(if equal { "false" } else { "true" });
        } else {
            let arg = value::read(field, value)?;
            self.statement.push(column).push(if equal { " = " } else { " is distinct from " }).bind_as(arg, field.ty);
        }
        Ok(())
    }

    fn range(&mut self, field: &Field, column: &str, operator: &str, value: &Value) -> Result<(), String> {
        if matches!(field.ty, Type::Json | Type::Texts | Type::Integers | Type::Boolean) {
            return Err(format!("`{}` has no order to compare by", field.name));
        }
        if value.is_null() {
            return Err(format!("`{}` cannot be compared with null; use is_null", field.name));
        }
        let arg = value::read(field, value)?;
        self.statement.push(column).push(operator).bind_as(arg, field.ty);
        Ok(())
    }

    fn membership(&mut self, field: &Field, column: &str, value: &Value) -> Result<(), String> {
        let values = value.as_array().ok_or("`in` must be a list")?;
        if values.len() > IN_MAX {
            return Err(format!("`in` takes at most {IN_MAX} values"));
        }
        if values.iter().any(Value::is_null) {
            return Err("`in` takes no null; use is_null".to_owned());
        }
        let values: Vec<Value> = values.iter().filter(|value| !is_no_id(field, value)).cloned().collect();
        let arg = value::read_list(field, &values)?;
        self.statement.push(column).push(" = any(").bind_as(arg, field.ty).push(")");
        Ok(())
    }

    fn like(&mut self, field: &Field, column: &str, value: &Value) -> Result<(), String> {
        if field.ty != Type::Text {
            return Err(format!("`{}` is no text, so `like` does not apply", field.name));
        }
        let arg = value::read(field, value)?;
        let Arg::Text(Some(pattern)) = &arg else { return Err("`like` must be a string".to_owned()) };
        if pattern.bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1 {
            return Err("a `like` pattern must not end with a single backslash".to_owned());
        }
        self.statement.push(column).push(" like ").bind(arg);
        Ok(())
    }

    /// In a text: that text somewhere in it. In a list: that element, or all of these. In JSON: Postgres' containment.
    fn contains(&mut self, field: &Field, column: &str, value: &Value) -> Result<(), String> {
        if value.is_null() {
            return Err("`contains` must not be null".to_owned());
        }
        let elements = if value.is_array() { value.clone() } else { Value::Array(vec![value.clone()]) };
        match field.ty {
            Type::Text => {
                let arg = value::read(field, value)?;
                self.statement.push("strpos(").push(column).push(", ").bind(arg).push(") > 0");
            }
            Type::Texts | Type::Integers => {
                let arg = value::read(field, &elements)?;
                self.statement.push(column).push(" @> ").bind_as(arg, field.ty);
            }
            Type::Json => {
                let arg = value::read(field, value)?;
                self.statement.push(column).push(" @> ").bind_as(arg, field.ty);
            }
            _ => return Err(format!("`{}` is neither text, list nor JSON, so `contains` does not apply", field.name)),
        }
        Ok(())
    }
}

/// A text that is no UUID equals no id: a question with the answer "none", not a mistake.
fn is_no_id(field: &Field, value: &Value) -> bool {
    field.ty == Type::Uuid && value.is_string() && value::read(field, value).is_err()
}
