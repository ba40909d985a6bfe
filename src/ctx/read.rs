//! `storage.query`, `find_one` and `count`. One statement each; rows come as plain columns and go on as JSON text.

use serde_json::{Value, value::RawValue};

use super::{
    filter::Filter,
    order::Order,
    refusal::{Problems, invalid, over},
    table::{Table, options, raw, whole_row},
};
use crate::{
    model::{error::CtxError, shape::Field},
    store::{
        columns::Columns,
        rows::{Arg, Statement},
    },
};

/// The rows of a query that names no limit.
pub(super) const LIMIT_DEFAULT: usize = 100;
/// The most rows of a query.
pub(super) const LIMIT_MAX: usize = 1_000;
/// The longest text to search for, in bytes.
const SEARCH_MAX_LENGTH: usize = 1_000;

const QUERY_OPTIONS: [&str; 7] = ["where", "order_by", "limit", "after", "select", "search", "include_deleted"];

impl Table<'_> {
    /// `query(table, {where, order_by, limit, after, select, search, include_deleted})` gives `{rows, next}`.
    pub(super) async fn query(&mut self, given: Option<&Value>) -> Result<Box<RawValue>, CtxError> {
        let given = options(&self.about, given, &QUERY_OPTIONS)?;
        let limit = limit(&self.about, given.get("limit"), LIMIT_DEFAULT)?;
        let shape = self.shape.clone();
        let mut problems = Problems::default();
        let include_deleted = problems.take("/include_deleted", flag(given.get("include_deleted"))).unwrap_or(false);
        let order = Order::parse(&shape, given.get("order_by"), &mut problems);
        let columns = match given.get("select") {
            None | Some(Value::Null) => whole_row(&shape, include_deleted),
            Some(select) => Columns::of(self.selected(select, &mut problems).into_iter()),
        };
        let columns = columns.with_place_of(limit - 1, order.fields());
        // What is computed is computed around the choice: Postgres would otherwise do so for all rows before it sorts them.
        let (begin, end) = if columns.computed() { ("(select t.* from ", ") t") } else { ("", "") };
        let mut statement = Statement::new("select ", Vec::new());
        statement.give(columns).push(" from ").push(begin).push(&self.source()).push(" where t.user_id = ");
        statement.bind(self.user()).push(self.alive(include_deleted));
        Filter::new(&shape, &mut statement, &mut problems).and(given.get("where"), "/where");
        self.search(given.get("search"), &mut statement, &mut problems);
        if let Some(cursor) = given.get("after").filter(|cursor| !cursor.is_null()) {
            order.and_after(cursor, &mut statement, &mut problems);
        }
        problems.check(&self.about)?;
        // One more than asked for tells whether there is a next page.
        let one_more = i64::try_from(limit + 1).expect("limits are small");
        statement.push(&order.clause()).push(" limit ").bind(Arg::Int(Some(one_more))).push(end);
        let mut read = self.read(statement).await?;
        let next = match read.place {
            Some(place) if read.rows.len() > limit => Value::String(order.cursor(&place)),
            _ => Value::Null,
        };
        read.rows.truncate(limit);
        Ok(raw(format!("{{\"rows\":[{}],\"next\":{next}}}", read.rows.join(","))))
    }

    /// `find_one(table, where)` gives a row or null.
    pub(super) async fn find_one(&mut self, condition: Option<&Value>) -> Result<Box<RawValue>, CtxError> {
        if condition.and_then(Value::as_object).is_none_or(serde_json::Map::is_empty) {
            let message = "needs a condition, such as { id }; a member that is undefined counts as absent";
            return Err(invalid(&self.about, "", message));
        }
        let mut statement = self.rows();
        self.filter(&mut statement, condition)?;
        statement.push(" limit 1");
        let read = self.read(statement).await?;
        Ok(raw(read.rows.into_iter().next().unwrap_or_else(|| "null".to_owned())))
    }

    /// `count(table, where)` gives a number.
    pub(super) async fn count(&mut self, condition: Option<&Value>) -> Result<Box<RawValue>, CtxError> {
        let text = format!("select count(*) from {} where t.user_id = ", self.source());
        let mut statement = Statement::new(text, Vec::new());
        statement.bind(self.user());
        self.filter(&mut statement, condition)?;
        Ok(raw(self.number(statement).await?.to_string()))
    }

    fn filter(&self, statement: &mut Statement, condition: Option<&Value>) -> Result<(), CtxError> {
        let mut problems = Problems::default();
        statement.push(self.alive(false));
        Filter::new(&self.shape, statement, &mut problems).and(condition, "");
        problems.check(&self.about)
    }

    fn selected(&self, select: &Value, problems: &mut Problems) -> Vec<&Field> {
        let Some(names) = select.as_array().filter(|names| !names.is_empty()) else {
            problems.add("/select", "must be a list of columns");
            return Vec::new();
        };
        let mut fields: Vec<&Field> = Vec::new();
        for (index, name) in names.iter().enumerate() {
            match name.as_str().and_then(|name| self.shape.field(name)) {
                Some(field) if fields.iter().any(|known| known.name == field.name) => {}
                Some(field) => fields.push(field),
                None => {
                    let shown = name.as_str().map_or_else(|| name.to_string(), str::to_owned);
                    problems.add(format!("/select/{index}"), self.shape.no_such_column(&shown));
                }
            }
        }
        fields
    }

    fn search(&self, text: Option<&Value>, statement: &mut Statement, problems: &mut Problems) {
        let text = match text {
            None | Some(Value::Null) => return,
            Some(Value::String(text)) if text.len() <= SEARCH_MAX_LENGTH && !text.contains('\0') => text,
            Some(_) => {
                return problems.add("/search", format!("must be a string of at most {SEARCH_MAX_LENGTH} bytes"));
            }
        };
        if !self.shape.searchable() {
            let message = format!("no column of `{}` has `search: true` in the manifest", self.shape.table);
            return problems.add("/search", message);
        }
        statement.push(" and t.\"_search\" @@ websearch_to_tsquery('simple', ").bind(Arg::Text(Some(text.clone())));
        statement.push(")");
    }
}

/// A limit between 1 and [`LIMIT_MAX`].
pub(super) fn limit(about: &str, given: Option<&Value>, default: usize) -> Result<usize, CtxError> {
    let Some(given) = given.filter(|given| !given.is_null()) else { return Ok(default) };
    match given.as_u64().and_then(|limit| usize::try_from(limit).ok()) {
        Some(limit) if limit > LIMIT_MAX => {
            Err(over(format!("{about}: at most {LIMIT_MAX} rows at once, not {limit}")))
        }
        Some(limit) if limit > 0 => Ok(limit),
        _ => Err(invalid(about, "/limit", format!("`limit` must be a whole number from 1 to {LIMIT_MAX}"))),
    }
}

fn flag(given: Option<&Value>) -> Result<bool, String> {
    match given {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err("must be true or false".to_owned()),
    }
}
