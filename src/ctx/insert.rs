//! `storage.insert` and `insert_many`.
//!
//! A refused statement ends a Postgres transaction, and an app may catch the error and go on. A savepoint around every
//! insert would cost two more round trips, so a single insert is written so that it cannot be refused: `on conflict do
//! nothing`, and only if every row it points at is there. Then no row back means "refused", and only then is it run again,
//! plainly, behind a savepoint, to learn which constraint it was. Everything rarer has its savepoint at once.

use std::fmt::Write as _;

use chrono::SubsecRound;
use serde_json::{Map, Value, json, value::RawValue};

use super::{
    refusal::{Problems, invalid, over},
    table::{Table, options, raw, whole_row},
    value,
};
use crate::{
    apps::design::predicate,
    model::{
        error::CtxError,
        shape::{Field, Fill, Key, Shape, Type},
    },
    store::{
        installations,
        rows::{Arg, Statement, quoted, sql_type},
    },
};

/// The most rows of one `insert_many`.
pub(super) const ROWS_MAX: usize = 1_000;
/// The largest row, as JSON.
pub(super) const ROW_BYTES_MAX: usize = 64 << 10;
/// How many exact counts are made, on average, while a table fills from empty to its limit. The nine tenths rule leaves
/// room for a tenth of them, 32; that all of those fall out has a chance of e^-32.
const COUNTS_PER_LIMIT: u64 = 320;

/// What to do when a key is taken.
enum OnConflict {
    Error,
    Ignore,
    Update { set: Vec<String>, by: Key },
}

impl Table<'_> {
    /// `insert(table, data, {on_conflict})` gives the row.
    pub(super) async fn insert(
        &mut self,
        data: Option<&Value>,
        given: Option<&Value>,
    ) -> Result<Box<RawValue>, CtxError> {
        let given = options(&self.about, given, &["on_conflict"])?;
        let mut problems = Problems::default();
        let on_conflict = problems.take("/on_conflict", self.on_conflict(given.get("on_conflict")));
        let row = self.row(data.unwrap_or(&Value::Null), "", &mut problems);
        problems.check(&self.about)?;
        self.demand_room(1).await?;
        if let Some(OnConflict::Update { set, by }) = &on_conflict {
            let clause = self.update_clause(set, by);
            let statement = self.insert_one(&row, "", &clause);
            return Ok(first(self.read_guarded(statement).await?.rows));
        }
        let statement = self.insert_one(&row, &self.parents_exist(), " on conflict do nothing");
        let read = self.read(statement).await?;
        if !read.rows.is_empty() {
            return Ok(first(read.rows));
        }
        if matches!(on_conflict, Some(OnConflict::Ignore))
            && let Some(holder) = self.holder(&Value::Object(self.to_json(row.clone()))).await?
        {
            return Ok(holder);
        }
        let plain = self.insert_one(&row, "", "");
        Ok(first(self.read_guarded(plain).await?.rows))
    }

    /// `insert_many(table, rows)` gives `{count, ids}`: all rows or none.
    pub(super) async fn insert_many(&mut self, rows: Option<&Value>) -> Result<Box<RawValue>, CtxError> {
        let Some(rows) = rows.and_then(Value::as_array) else {
            return Err(invalid(&self.about, "", "the rows must be a list"));
        };
        if rows.len() > ROWS_MAX {
            return Err(over(format!("{}: at most {ROWS_MAX} rows at once, not {}", self.about, rows.len())));
        }
        let mut problems = Problems::default();
        let rows: Vec<Vec<Arg>> =
            rows.iter().enumerate().map(|(index, row)| self.row(row, &format!("/{index}"), &mut problems)).collect();
        problems.check(&self.about)?;
        if rows.is_empty() {
            return Ok(raw(json!({"count": 0, "ids": []}).to_string()));
        }
        self.demand_room(rows.len() as u64).await?;
        let rows: Vec<Value> = rows.into_iter().map(|row| Value::Object(self.to_json(row))).collect();
        let ids: Vec<Value> = rows.iter().map(|row| row["id"].clone()).collect();
        self.read_guarded(self.insert_all(rows)).await?;
        Ok(raw(json!({"count": ids.len(), "ids": ids}).to_string()))
    }

    /// The row to write: what was given, checked, and what was not, filled in. One value for each writable column; fewer
    /// only if there is a problem.
    fn row(&mut self, data: &Value, pointer: &str, problems: &mut Problems) -> Vec<Arg> {
        let mut row = Vec::new();
        let Some(data) = data.as_object() else {
            problems.add(pointer, "the row must be an object of columns");
            return row;
        };
        let shape = self.shape.clone();
        for name in data.keys() {
            match shape.field(name) {
                None => problems.add(format!("{pointer}/{name}"), shape.no_such_column(name)),
                Some(field) if field.platform => {
                    problems.add(format!("{pointer}/{name}"), format!("`{name}` is set by the platform"));
                }
                Some(_) => {}
            }
        }
        for field in shape.writable() {
            let accepted = match data.get(&field.name) {
                Some(given) => value::accept(field, given),
                None => self.filled(field),
            };
            row.extend(problems.take(&format!("{pointer}/{}", field.name), accepted));
        }
        if row.iter().map(|arg| value::to_json(arg.clone()).to_string().len()).sum::<usize>() > ROW_BYTES_MAX {
            problems.add(pointer, format!("a row may have at most {ROW_BYTES_MAX} bytes"));
        }
        row
    }

    fn filled(&mut self, field: &Field) -> Result<Arg, String> {
        let now = self.world.now;
        Ok(match &field.fill {
            _ if field.name == "id" => Arg::Uuid(Some(self.pass.chance.id(now))),
            Fill::Constant(constant) => return value::accept(field, constant),
            // Cut, not rounded, as an instant that is given.
            Fill::Now => Arg::Instant(Some(now.trunc_subsecs(3))),
            Fill::Today => Arg::Date(Some(self.world.today())),
            Fill::Uuid if field.ty == Type::Text => Arg::Text(Some(self.pass.chance.id(now).to_string())),
            Fill::Uuid => Arg::Uuid(Some(self.pass.chance.id(now))),
            Fill::Nothing if field.nullable => return value::read(field, &Value::Null),
            Fill::Nothing => return Err(format!("`{}` is missing", field.name)),
        })
    }

    /// A row by the names of its columns, each value as JSON.
    fn to_json(&self, row: Vec<Arg>) -> Map<String, Value> {
        let names = self.shape.writable().map(|field| field.name.clone());
        names.zip(row.into_iter().map(value::to_json)).collect()
    }

    /// Inserts a row and gives it back. One text per table and kind of insert, whatever the row: `$1` the user, `$2` the
    /// instant, and then the columns, null among them with its type.
    fn insert_one(&self, row: &[Arg], condition: &str, on_conflict: &str) -> Statement {
        let mut text = format!("{} select $1, $2, $2, 1", self.insert_into());
        for index in 0..row.len() {
            write!(text, ", {}", self.placeholder(index)).expect("a string takes it");
        }
        write!(text, "{condition}{on_conflict} returning ").expect("a string takes it");
        let args = [self.user(), self.now()].into_iter().chain(row.iter().cloned());
        let mut statement = Statement::new(text, args.collect());
        statement.give(whole_row(&self.shape, false));
        statement
    }

    /// Inserts any number of rows, with one text per table: `$1` the user, `$2` the instant, `$3` the rows as JSON.
    fn insert_all(&self, rows: Vec<Value>) -> Statement {
        let list = |write: fn(&Field) -> String| self.shape.writable().map(write).collect::<Vec<_>>().join(", ");
        let text = format!(
            "{} select $1, $2, $2, 1, {} from jsonb_to_recordset($3) as x({})",
            self.insert_into(),
            list(|field| format!("x.{}", quoted(&field.name))),
            list(|field| format!("{} {}", quoted(&field.name), sql_type(field.ty))),
        );
        Statement::new(text, vec![self.user(), self.now(), Arg::Json(Some(Value::Array(rows)))])
    }

    /// An insert up to its source of rows.
    fn insert_into(&self) -> String {
        let names: Vec<String> = self.shape.writable().map(|field| quoted(&field.name)).collect();
        format!(
            "insert into {} as t (user_id, created_at, updated_at, version, {})",
            quoted(&self.shape.physical),
            names.join(", ")
        )
    }

    /// Where the writable column with this index stands in [`Self::insert_one`]. Its type makes it another statement when a
    /// new version of the app changes it: a connection may have this one prepared, and takes the bytes for the old type's.
    fn placeholder(&self, index: usize) -> String {
        let ty = self.shape.writable().nth(index).map_or("text", |field| sql_type(field.ty));
        format!("${}::{ty}", index + 3)
    }

    /// " where" every row that the inserted one points at is there, seen by this statement.
    fn parents_exist(&self) -> String {
        let here = |name: &String| {
            let index = self.shape.writable().position(|field| field.name == *name);
            index.map_or_else(|| "null".to_owned(), |index| self.placeholder(index))
        };
        let terms: Vec<String> = self
            .shape
            .parents
            .iter()
            .map(|parent| {
                let pairs: Vec<(String, String)> =
                    parent.columns.iter().zip(&parent.references).map(|(a, b)| (here(a), quoted(b))).collect();
                let unset: Vec<String> = pairs.iter().map(|(here, _)| format!("{here} is null")).collect();
                let same: Vec<String> = pairs.iter().map(|(here, there)| format!("p.{there} = {here}")).collect();
                format!(
                    "({} or exists (select 1 from {} p where p.user_id = $1 and {}))",
                    unset.join(" or "),
                    quoted(&parent.physical),
                    same.join(" and ")
                )
            })
            .collect();
        if terms.is_empty() { String::new() } else { format!(" where {}", terms.join(" and ")) }
    }

    fn on_conflict(&self, given: Option<&Value>) -> Result<OnConflict, String> {
        match given {
            None | Some(Value::Null) => Ok(OnConflict::Error),
            Some(Value::String(word)) if word == "error" => Ok(OnConflict::Error),
            Some(Value::String(word)) if word == "ignore" => Ok(OnConflict::Ignore),
            Some(Value::Object(given)) if given.len() == 2 => {
                let set = self.columns(given.get("update"), "update")?;
                let by = self.columns(given.get("by"), "by")?;
                if let Some(fixed) = set.iter().find(|name| *name == "id" || self.is_platform(name)) {
                    return Err(format!("`{fixed}` is set by the platform and cannot be updated"));
                }
                let by = key(&self.shape, &by).ok_or_else(|| {
                    format!(
                        "`by` must name the columns of a unique key of `{}`, not {}",
                        self.shape.table,
                        by.join(", ")
                    )
                })?;
                Ok(OnConflict::Update { set, by })
            }
            Some(_) => Err("must be \"error\", \"ignore\" or { update: [columns], by: [columns] }".to_owned()),
        }
    }

    fn is_platform(&self, name: &str) -> bool {
        self.shape.field(name).is_some_and(|field| field.platform)
    }

    fn columns(&self, given: Option<&Value>, what: &str) -> Result<Vec<String>, String> {
        let list = given.and_then(Value::as_array).filter(|list| !list.is_empty());
        let list = list.ok_or_else(|| format!("`{what}` must be a list of columns"))?;
        let column = |name: &Value| {
            let shown = name.as_str().map_or_else(|| name.to_string(), str::to_owned);
            let known = name.as_str().and_then(|name| self.shape.field(name));
            known.map(|field| field.name.clone()).ok_or_else(|| self.shape.no_such_column(&shown))
        };
        list.iter().map(column).collect()
    }

    fn update_clause(&self, set: &[String], by: &Key) -> String {
        let columns: Vec<String> = by.columns.iter().map(|name| quoted(name)).collect();
        let set: Vec<String> = set.iter().map(|name| format!("{0} = excluded.{0}", quoted(name))).collect();
        let only = if by.columns == ["id"] { String::new() } else { predicate(&self.shape, &by.only, true) };
        format!(
            " on conflict (user_id, {}){only} do update set {}, updated_at = $2, version = t.version + 1",
            columns.join(", "),
            set.join(", ")
        )
    }

    /// The row that holds a key that `row` wants.
    async fn holder(&mut self, row: &Value) -> Result<Option<Box<RawValue>>, CtxError> {
        let mut statement = self.rows();
        statement.push(" and (false");
        let id = Arg::Uuid(row["id"].as_str().and_then(|id| id.parse().ok()));
        statement.push(" or t.id = ").bind(id.clone());
        for key in &self.shape.keys {
            // A key over some rows only is none of this row's business if it is not one of them; and nulls are never alike.
            let concerned = key.only.iter().all(|(name, value)| row[name] == *value);
            if !concerned || key.columns.iter().any(|name| row[name].is_null()) {
                continue;
            }
            statement.push(" or (true");
            statement.push(&predicate(&self.shape, &key.only, true).replacen(" where ", " and ", 1));
            for field in key.columns.iter().filter_map(|name| self.shape.field(name)) {
                if let Ok(arg) = value::read(field, &row[&field.name]) {
                    statement.push(&format!(" and t.{} = ", quoted(&field.name))).bind_as(arg, field.ty);
                }
            }
            statement.push(")");
        }
        // Two rows may hold a key each; the one with the wanted id is the nearer.
        statement.push(") order by (t.id = ").bind(id).push(") desc, t.id limit 1");
        let rows = self.read(statement).await?.rows;
        Ok(rows.into_iter().next().map(raw))
    }

    /// Refuses what would put more than `max_rows` rows into the table.
    ///
    /// Counting before every insert would cost more than the insert. So: far from the limit a count is a matter of chance,
    /// [`COUNTS_PER_LIMIT`] of them on the way from empty to full; a count that finds nine tenths used marks the
    /// installation, and while the mark stands every insert counts.
    async fn demand_room(&mut self, rows: u64) -> Result<(), CtxError> {
        let (max, table) = (self.shape.max_rows, self.shape.table.clone());
        let marked = self.pass.near_limit.contains(&table);
        if !marked && !self.pass.chance.happens(rows.saturating_mul(COUNTS_PER_LIMIT), max) {
            return Ok(());
        }
        let physical = quoted(&self.shape.physical);
        let text = format!("select count(*) from (select from {physical} where user_id = $1 limit $2) r");
        let most = i64::try_from(max).unwrap_or(i64::MAX);
        let statement = Statement::new(text, vec![self.user(), Arg::Int(Some(most))]);
        let there = u64::try_from(self.number(statement).await?).unwrap_or(0);
        let near = there + rows > max / 10 * 9;
        if near != marked {
            if near {
                self.pass.near_limit.push(table.clone());
            } else {
                self.pass.near_limit.retain(|marked| *marked != table);
            }
            let (user, app) = (self.world.user, &self.world.app.id);
            let marks = self.pass.near_limit.clone();
            let result = installations::set_near_limit(&mut *self.pass.transaction, user, app, &marks).await;
            self.unbroken(result)?;
        }
        if there + rows > max {
            let message = format!("`{table}` may have {max} rows (max_rows in the manifest); there are {there}");
            return Err(over(message).with_details(json!({"table": table, "limit": max, "rows": there})));
        }
        Ok(())
    }
}

/// The unique key over exactly these columns.
fn key(shape: &Shape, columns: &[String]) -> Option<Key> {
    if columns == ["id"] {
        return Some(Key {
            name: shape.primary_key(),
            columns: columns.to_vec(),
            only: std::collections::BTreeMap::new(),
        });
    }
    let same = |key: &&Key| key.columns.len() == columns.len() && columns.iter().all(|c| key.columns.contains(c));
    shape.keys.iter().find(same).cloned()
}

fn first(rows: Vec<String>) -> Box<RawValue> {
    raw(rows.into_iter().next().unwrap_or_else(|| "null".to_owned()))
}
