//! Runs statements over the tables of apps. Their text is put together in `ctx` and `apps` from looked-up names; every
//! value of an author is bound, none is part of the text.

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use futures::TryStreamExt;
use serde_json::Value;
use sqlx::{
    AssertSqlSafe, PgConnection, Postgres, Row,
    postgres::{PgArguments, PgRow},
    query::Query,
};
use uuid::Uuid;

use super::{Error, columns::Columns, within};
use crate::model::shape::Type;

/// A value to bind.
#[derive(Debug, Clone, PartialEq)]
pub enum Arg {
    /// Text; also decimals, which the statement casts.
    Text(Option<String>),
    /// A whole number.
    Int(Option<i64>),
    /// A double.
    Float(Option<f64>),
    /// A truth value.
    Bool(Option<bool>),
    /// An id.
    Uuid(Option<Uuid>),
    /// A day.
    Date(Option<NaiveDate>),
    /// A time of day.
    Time(Option<NaiveTime>),
    /// An instant.
    Instant(Option<DateTime<Utc>>),
    /// Any JSON.
    Json(Option<Value>),
    /// Texts, for `text[]` and for lists of texts or decimals.
    Texts(Option<Vec<String>>),
    /// Whole numbers.
    Ints(Option<Vec<i64>>),
    /// A list of doubles.
    Floats(Vec<f64>),
    /// A list of truth values.
    Bools(Vec<bool>),
    /// A list of ids.
    Uuids(Vec<Uuid>),
    /// A list of days.
    Dates(Vec<NaiveDate>),
    /// A list of times.
    Times(Vec<NaiveTime>),
    /// A list of instants.
    Instants(Vec<DateTime<Utc>>),
}

impl Arg {
    fn is_list(&self) -> bool {
        let some = matches!(self, Self::Texts(_) | Self::Ints(_) | Self::Floats(_) | Self::Bools(_) | Self::Uuids(_));
        some || matches!(self, Self::Dates(_) | Self::Times(_) | Self::Instants(_))
    }
}

/// The name of a column type in Postgres.
pub fn sql_type(ty: Type) -> &'static str {
    match ty {
        Type::Text => "text",
        Type::Integer => "bigint",
        Type::Number => "double precision",
        Type::Decimal => "numeric",
        Type::Boolean => "boolean",
        Type::Date => "date",
        Type::Time => "time(0)",
        Type::Instant => "timestamptz(3)",
        Type::Json => "jsonb",
        Type::Uuid => "uuid",
        Type::Texts => "text[]",
        Type::Integers => "bigint[]",
    }
}

/// A statement that grows: its text, what is bound to it, and what it gives back.
#[derive(Debug, Clone, Default)]
pub struct Statement {
    text: String,
    args: Vec<Arg>,
    columns: Option<Columns>,
}

impl Statement {
    /// A statement that begins with `text` and has `args` bound as `$1`, `$2`, …
    pub fn new(text: impl Into<String>, args: Vec<Arg>) -> Self {
        Self { text: text.into(), args, columns: None }
    }

    /// Adds text. Must not hold anything an author typed.
    pub fn push(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// Adds the list of `columns`: they make the rows. Without it, the rows are JSON text that the statement gives.
    pub fn give(&mut self, columns: Columns) -> &mut Self {
        self.text.push_str(&columns.sql());
        self.columns = Some(columns);
        self
    }

    /// Adds a placeholder for `arg`.
    pub fn bind(&mut self, arg: Arg) -> &mut Self {
        use std::fmt::Write as _;
        self.args.push(arg);
        write!(self.text, "${}", self.args.len()).expect("writing to a string does not fail");
        self
    }

    /// Adds a placeholder for `arg` where a value of `ty` is wanted, or a list of such. It names the type: a decimal is
    /// bound as text, and any column may change its type with a new version of the app. A connection that has the statement
    /// prepared from before would take the bytes for the old type's; with the type in it, it is another statement.
    pub fn bind_as(&mut self, arg: Arg, ty: Type) -> &mut Self {
        let list = arg.is_list() && !matches!(ty, Type::Texts | Type::Integers);
        self.bind(arg).push("::").push(sql_type(ty)).push(if list { "[]" } else { "" })
    }

    /// The text so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn query(self) -> Query<'static, Postgres, PgArguments> {
        let query = sqlx::query(AssertSqlSafe(self.text));
        self.args.into_iter().fold(query, bound)
    }
}

/// An identifier in quotes, so that hyphens and reserved words are plain names.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn bound(query: Query<'static, Postgres, PgArguments>, arg: Arg) -> Query<'static, Postgres, PgArguments> {
    match arg {
        Arg::Text(value) => query.bind(value),
        Arg::Int(value) => query.bind(value),
        Arg::Float(value) => query.bind(value),
        Arg::Bool(value) => query.bind(value),
        Arg::Uuid(value) => query.bind(value),
        Arg::Date(value) => query.bind(value),
        Arg::Time(value) => query.bind(value),
        Arg::Instant(value) => query.bind(value),
        Arg::Json(value) => query.bind(value),
        Arg::Texts(value) => query.bind(value),
        Arg::Ints(value) => query.bind(value),
        Arg::Floats(value) => query.bind(value),
        Arg::Bools(value) => query.bind(value),
        Arg::Uuids(value) => query.bind(value),
        Arg::Dates(value) => query.bind(value),
        Arg::Times(value) => query.bind(value),
        Arg::Instants(value) => query.bind(value),
    }
}

/// What a statement that reads rows came to.
#[derive(Debug, Default)]
pub struct Read {
    /// The rows as JSON text.
    pub rows: Vec<String>,
    /// Where the row stands whose place was wanted, if there was such a row: a JSON list of texts.
    pub place: Option<String>,
    /// Whether `rows` stops early because the bytes allowed were used up.
    pub cut: bool,
}

/// Runs a statement and stops past `bytes_max` bytes of JSON text.
pub async fn read(db: &mut PgConnection, mut statement: Statement, bytes_max: usize) -> Result<Read, Error> {
    within(async {
        let mut read = Read::default();
        let mut bytes = 0;
        let columns = statement.columns.take();
        let mut rows = statement.query().fetch(db);
        while let Some(row) = rows.try_next().await? {
            let text: String = match &columns {
                Some(columns) => columns.json(&row)?,
                None => row.try_get(0)?,
            };
            bytes += text.len();
            if bytes > bytes_max {
                read.cut = true;
                break;
            }
            if let Some(columns) = &columns
                && let Some(place) = columns.place(read.rows.len(), &row)?
            {
                read.place = Some(place);
            }
            read.rows.push(text);
        }
        Ok(read)
    })
    .await
}

/// Runs a statement that gives one number.
pub async fn number(db: &mut PgConnection, statement: Statement) -> Result<i64, Error> {
    let row: PgRow = within(statement.query().fetch_one(db)).await?;
    Ok(row.try_get(0)?)
}

/// Runs a statement that gives one number or no row.
pub async fn find_number(db: &mut PgConnection, statement: Statement) -> Result<Option<i64>, Error> {
    let row: Option<PgRow> = within(statement.query().fetch_optional(db)).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// Sets a savepoint, runs the statement, and goes back to the savepoint if Postgres refused it, so that the transaction
/// stays usable.
pub async fn read_guarded(db: &mut PgConnection, statement: Statement, bytes_max: usize) -> Result<Read, Error> {
    within(sqlx::raw_sql("savepoint guarded").execute(&mut *db)).await?;
    let read = read(db, statement, bytes_max).await;
    let end = match read {
        Ok(_) => "release savepoint guarded",
        Err(_) => "rollback to savepoint guarded; release savepoint guarded",
    };
    within(sqlx::raw_sql(end).execute(db)).await?;
    read
}
