//! `storage.aggregate`: count, sum, average, least and greatest, by column or by day, week or month in the user's zone.
//!
//! Days are the user's: an instant is put into their zone first, so a day of 23 or 25 hours is one day. A week begins on the
//! day on which the user's week begins. A bucket is shown as its first day, under its own name: `{ week: "2026-11-16" }`.

use serde_json::{Value, value::RawValue};

use super::{
    filter::Filter,
    read::{LIMIT_MAX, limit},
    refusal::Problems,
    table::{Table, options, raw},
};
use crate::{
    model::{
        error::CtxError,
        shape::{Field, Type},
        user::WeekStart,
    },
    store::rows::{Arg, Statement, quoted},
};

/// The most columns and buckets to group by.
const GROUPS_MAX: usize = 4;
/// The most sums, averages and so on in one call.
const MEASURES_MAX: usize = 20;

const OPTIONS: [&str; 8] = ["where", "group_by", "count", "sum", "avg", "min", "max", "limit"];

impl Table<'_> {
    /// `aggregate(table, {where, group_by, count, sum, avg, min, max, limit})` gives one object per group, in the order of
    /// the groups: the grouping columns, then `count`, `sum_x`, `avg_x`, `min_x`, `max_x`.
    pub(super) async fn aggregate(&mut self, given: Option<&Value>) -> Result<Box<RawValue>, CtxError> {
        let given = options(&self.about, given, &OPTIONS)?;
        let limit = limit(&self.about, given.get("limit"), LIMIT_MAX)?;
        let shape = self.shape.clone();
        let mut problems = Problems::default();
        let mut statement = Statement::new("select row_to_json(r)::text from (select ", Vec::new());
        let mut columns = Columns { statement: &mut statement, names: Vec::new() };
        let groups = self.groups(given.get("group_by"), &mut columns, &mut problems);
        for measure in ["sum", "avg", "min", "max"] {
            self.measures(measure, given.get(measure), &mut columns, &mut problems);
        }
        match given.get("count") {
            None | Some(Value::Null) if columns.names.len() == groups => columns.add("count", "count(*)"),
            Some(Value::Bool(false)) if columns.names.len() == groups => {
                problems.add("/count", "then there is nothing to compute");
            }
            None | Some(Value::Null | Value::Bool(false)) => {}
            Some(Value::Bool(true)) => columns.add("count", "count(*)"),
            Some(_) => problems.add("/count", "must be true or false"),
        }
        let names = columns.names;
        if let Some(twice) = names.iter().enumerate().find(|(index, name)| names[..*index].contains(name)) {
            problems.add("", format!("two columns of the result would be called `{}`", twice.1));
        }
        statement.push(" from ").push(&self.source()).push(" where t.user_id = ").bind(self.user());
        statement.push(self.alive(false));
        Filter::new(&shape, &mut statement, &mut problems).and(given.get("where"), "/where");
        problems.check(&self.about)?;
        if groups > 0 {
            let ordinals: Vec<String> = (1..=groups).map(|ordinal| ordinal.to_string()).collect();
            statement.push(&format!(" group by {0} order by {0}", ordinals.join(", ")));
        }
        let limit = i64::try_from(limit).expect("limits are small");
        statement.push(" limit ").bind(Arg::Int(Some(limit))).push(") r");
        let read = self.read(statement).await?;
        Ok(raw(format!("[{}]", read.rows.join(","))))
    }

    fn groups(&self, given: Option<&Value>, columns: &mut Columns<'_>, problems: &mut Problems) -> usize {
        let list = match given {
            None | Some(Value::Null) => return 0,
            Some(Value::Array(list)) if list.len() <= GROUPS_MAX => list,
            Some(_) => {
                problems.add("/group_by", format!("must be a list of at most {GROUPS_MAX} columns or buckets"));
                return 0;
            }
        };
        for (index, group) in list.iter().enumerate() {
            let pointer = format!("/group_by/{index}");
            match group {
                Value::String(name) => match self.shape.field(name) {
                    Some(field) if field.ty == Type::Json => {
                        problems.add(pointer, format!("`{name}` cannot be grouped by"));
                    }
                    Some(field) => columns.add(name, &expression(field)),
                    None => problems.add(pointer, self.shape.no_such_column(name)),
                },
                Value::Object(_) => {
                    if let Some((name, field)) = problems.take(&pointer, self.bucket(group)) {
                        self.add_bucket(name, field, columns);
                    }
                }
                _ => problems.add(pointer, "must be a column or { bucket, of }"),
            }
        }
        list.len()
    }

    fn bucket<'v>(&self, group: &'v Value) -> Result<(&'v str, &Field), String> {
        let name = group["bucket"].as_str().filter(|name| ["day", "week", "month"].contains(name));
        let name = name.ok_or("`bucket` must be \"day\", \"week\" or \"month\"")?;
        let of = group["of"].as_str().ok_or("`of` must name a column")?;
        let field = self.shape.field(of).ok_or_else(|| self.shape.no_such_column(of))?;
        match field.ty {
            Type::Date | Type::Instant => Ok((name, field)),
            _ => Err(format!("`{of}` is neither date nor datetime")),
        }
    }

    fn add_bucket(&self, name: &str, field: &Field, columns: &mut Columns<'_>) {
        columns.begin();
        let column = format!("t.{}", quoted(&field.name));
        // Weeks of `date_trunc` begin on Monday.
        let (before, after) = match (name, self.world.week_start) {
            ("week", WeekStart::Sunday) => (" + interval '1 day'", " - interval '1 day'"),
            _ => ("", ""),
        };
        columns.statement.push(&format!("(date_trunc('{name}', {column}"));
        if field.ty == Type::Instant {
            columns.statement.push(" at time zone ").bind(Arg::Text(Some(self.world.zone.name().to_owned())));
        } else {
            columns.statement.push("::timestamp");
        }
        columns.statement.push(&format!("{before}){after})::date as {}", quoted(name)));
        columns.names.push(name.to_owned());
    }

    fn measures(&self, measure: &str, given: Option<&Value>, columns: &mut Columns<'_>, problems: &mut Problems) {
        let list = match given {
            None | Some(Value::Null) => return,
            Some(Value::Array(list)) if list.len() <= MEASURES_MAX => list,
            Some(_) => return problems.add(format!("/{measure}"), "must be a list of columns"),
        };
        for (index, name) in list.iter().enumerate() {
            let pointer = format!("/{measure}/{index}");
            let Some(field) = name.as_str().and_then(|name| self.shape.field(name)) else {
                let shown = name.as_str().map_or_else(|| name.to_string(), str::to_owned);
                problems.add(pointer, self.shape.no_such_column(&shown));
                continue;
            };
            if let Some(sql) = problems.take(&pointer, measured(measure, field)) {
                columns.add(&format!("{measure}_{}", field.name), &sql);
            }
        }
    }
}

fn measured(measure: &str, field: &Field) -> Result<String, String> {
    let column = format!("t.{}", quoted(&field.name));
    let number = matches!(field.ty, Type::Integer | Type::Number | Type::Decimal);
    match measure {
        "sum" | "avg" if !number => Err(format!("`{}` is no number", field.name)),
        "avg" if field.ty == Type::Integer => Ok(format!("avg({column})::double precision")),
        "sum" | "avg" => Ok(rendered(field.ty, &format!("{measure}({column})"))),
        _ if number || matches!(field.ty, Type::Text | Type::Date | Type::Time | Type::Instant) => {
            Ok(rendered(field.ty, &format!("{measure}({column})")))
        }
        _ => Err(format!("`{}` has no order", field.name)),
    }
}

/// A column as a value that becomes the JSON of `krilin.d.ts`.
fn expression(field: &Field) -> String {
    rendered(field.ty, &format!("t.{}", quoted(&field.name)))
}

/// A value of `ty` as one that becomes the JSON of `krilin.d.ts`.
fn rendered(ty: Type, value: &str) -> String {
    match ty {
        Type::Instant => format!("to_char({value} at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')"),
        Type::Time => {
            format!("case when extract(second from {value}) = 0 then left({value}::text, 5) else {value}::text end")
        }
        Type::Decimal => format!("{value}::text"),
        _ => value.to_owned(),
    }
}

/// The columns of the result so far.
struct Columns<'s> {
    statement: &'s mut Statement,
    names: Vec<String>,
}

impl Columns<'_> {
    fn begin(&mut self) {
        if !self.names.is_empty() {
            self.statement.push(", ");
        }
    }

    fn add(&mut self, name: &str, sql: &str) {
        self.begin();
        self.statement.push(sql).push(" as ").push(&quoted(name));
        self.names.push(name.to_owned());
    }
}
