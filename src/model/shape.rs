//! What an app's table is, resolved from the manifest: every column with its type, every key with its name.
//!
//! Publishing builds tables by it and `ctx.storage` reads and writes by it, so the two cannot disagree. Knows no SQL.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::near;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Type {
    /// `string`, `text`, `file`: any text without NUL.
    Text,
    /// `integer`: a whole number that JavaScript can hold exactly.
    Integer,
    /// `number`: a double.
    Number,
    /// `decimal`: an exact number, written as text.
    Decimal,
    /// `boolean`
    Boolean,
    /// `date`: a calendar day.
    Date,
    /// `time`: a time of day without a day.
    Time,
    /// `datetime`: an instant, to the millisecond.
    Instant,
    /// `json`: any JSON value.
    Json,
    /// `uuid`, and every column that points at an `id`.
    Uuid,
    /// `string[]`
    Texts,
    /// `integer[]`
    Integers,
}

impl Type {
    /// What an author writes into such a column, to end "must be …" with.
    pub fn expectation(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Integer => "a whole number between -2^53 and 2^53",
            Self::Number => "a number",
            Self::Decimal => "a decimal number as a string, such as \"12.50\"",
            Self::Boolean => "true or false",
            Self::Date => "a date, such as \"2026-11-22\"",
            Self::Time => "a time of day, such as \"20:30\"",
            Self::Instant => "an instant in RFC 3339, such as \"2026-11-22T17:13:20Z\"",
            Self::Json => "a JSON value",
            Self::Uuid => "an id (a UUID)",
            Self::Texts => "a list of strings",
            Self::Integers => "a list of whole numbers",
        }
    }
}

/// What a column holds when the author gives nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum Fill {
    /// Null.
    Nothing,
    /// This value.
    Constant(Value),
    /// `{"$now": true}`: the job's instant.
    Now,
    /// `{"$today": true}`: the job's day in the user's zone.
    Today,
    /// `{"$uuid": true}`: a fresh id.
    Uuid,
}

/// One column.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Its name, in the manifest and in Postgres alike.
    pub name: String,
    /// What it holds.
    pub ty: Type,
    /// Whether null is allowed.
    pub nullable: bool,
    /// What it holds when nothing is given.
    pub fill: Fill,
    /// The only texts allowed, if there is a choice.
    pub allowed: Option<Vec<String>>,
    /// The least number allowed.
    pub min: Option<f64>,
    /// The greatest number allowed.
    pub max: Option<f64>,
    /// The greatest length in characters.
    pub max_length: Option<u64>,
    /// Whether full-text search looks here.
    pub search: bool,
    /// Whether the platform sets it, not the author.
    pub platform: bool,
}

/// An equality that a unique key is limited to: `{"active": true}`.
pub type Only = BTreeMap<String, Value>;

/// Columns that no two rows of a user may share.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// The index's name in Postgres.
    pub name: String,
    /// The columns, without `user_id`.
    pub columns: Vec<String>,
    /// Applies to rows with these values only.
    pub only: Only,
}

/// Columns that point at another row of the same user.
#[derive(Debug, Clone, PartialEq)]
pub struct Parent {
    /// The constraint's name in Postgres.
    pub name: String,
    /// The columns here.
    pub columns: Vec<String>,
    /// The table pointed at, as the manifest names it.
    pub table: String,
    /// The same as Postgres names it.
    pub physical: String,
    /// The columns there.
    pub references: Vec<String>,
    /// What becomes of this row when that one goes.
    pub on_delete: OnDelete,
}

/// What becomes of a row when the one it points at is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDelete {
    /// The other row cannot be deleted.
    Restrict,
    /// It goes too.
    Cascade,
    /// It points at nothing.
    SetNull,
}

/// A table of an app.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// Its name in the manifest.
    pub table: String,
    /// Its name in Postgres: `app_{app_id}_{table}`.
    pub physical: String,
    /// `id` first, then the author's columns in the manifest's order, then the platform's.
    pub fields: Vec<Field>,
    /// Whether deleting only marks rows.
    pub soft_delete: bool,
    /// The most rows a user may have here.
    pub max_rows: u64,
    /// Unique keys, the one over `id` not among them.
    pub keys: Vec<Key>,
    /// Where rows point at.
    pub parents: Vec<Parent>,
    /// Whether another table's rows hold these rows back from deletion.
    pub held: bool,
}

impl Shape {
    /// The column of this name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The columns that an author writes: everything but the platform's, and `id`.
    pub fn writable(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|field| !field.platform)
    }

    /// Whether full-text search has anything to look at.
    pub fn searchable(&self) -> bool {
        self.fields.iter().any(|field| field.search)
    }

    /// "`x` is no column of `habits`", with a guess at what was meant.
    pub fn no_such_column(&self, name: &str) -> String {
        let hint = near::hint(name, self.fields.iter().map(|field| field.name.as_str()));
        format!("`{name}` is no column of `{}`{hint}", self.table)
    }

    /// Whether writing this column could meet a unique key or a pointer, so that Postgres may refuse it.
    pub fn is_constrained(&self, column: &str) -> bool {
        self.keys.iter().any(|key| key.columns.iter().any(|c| c == column) || key.only.contains_key(column))
            || self.parents.iter().any(|parent| parent.columns.iter().any(|c| c == column))
    }
}

impl Shape {
    /// The name of the primary key, which is over `user_id` and `id`.
    pub fn primary_key(&self) -> String {
        object_name(&self.physical, &["id".to_owned()], "", "pkey")
    }
}

/// The longest name Postgres keeps whole, in bytes (`NAMEDATALEN` less one).
pub const NAME_MAX_LENGTH: usize = 63;
/// How many hex digits tell two cut names apart.
const DIGEST_LENGTH: usize = 8;

/// The name of a constraint or index on `columns` of a table: readable as far as it fits, with a digest of all of it, since
/// names that are joined with underscores could meet (`a_b` + `c`, `a` + `b_c`) and index names share one space. `detail`
/// tells two objects on the same columns apart.
pub fn object_name(physical: &str, columns: &[String], detail: &str, suffix: &str) -> String {
    let digest = Sha256::digest(format!("{physical}\n{}\n{detail}\n{suffix}", columns.join("\n")));
    let digest = &format!("{digest:x}")[..DIGEST_LENGTH];
    let mut name = format!("{physical}_{}", columns.join("_").replace('-', ""));
    name.truncate(NAME_MAX_LENGTH - DIGEST_LENGTH - suffix.len() - 2);
    format!("{name}_{digest}_{suffix}")
}

/// The tables of an app, by the manifest's names.
pub type Shapes = BTreeMap<String, Arc<Shape>>;
