//! An app's tables: what the author declares. The platform's own columns (`user_id`, `id`, `created_at`, `updated_at`,
//! `version`, `deleted_at`) are on every table and never in here.

use std::collections::BTreeMap;

use semver::Version;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::period::Period;
use crate::model::id::AppId;

/// The columns that every row has and that an author may name in indexes, keys and conditions, with their types.
pub const PLATFORM_COLUMNS: [(&str, ScalarType); 3] =
    [("id", ScalarType::String), ("created_at", ScalarType::Datetime), ("updated_at", ScalarType::Datetime)];

/// The longest name Postgres keeps whole, in bytes.
pub const PHYSICAL_NAME_MAX_BYTES: usize = 63;

/// Everything an app stores.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Database {
    /// The tables.
    pub tables: Vec<Table>,
    /// Steps between versions that cannot be derived.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub migrations: Vec<Migration>,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Its name within the app.
    pub name: String,
    /// In a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The author's columns by name. Platform columns that the author repeated are already taken out.
    #[serde(rename = "schema")]
    pub columns: BTreeMap<String, Column>,
    /// Indexes over several columns, or with a condition. See [`Table::all_indexes`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub indexes: Vec<Index>,
    /// Keys over several columns. See [`Table::all_foreign_keys`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign_keys: Vec<ForeignKey>,
    /// Whether a deleted row stays, marked.
    #[serde(default)]
    pub soft_delete: bool,
    /// At most so many rows per user.
    #[serde(default = "max_rows")]
    pub max_rows: u32,
    /// When old rows go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
}

fn max_rows() -> u32 {
    100_000
}

impl Table {
    /// The table's name in Postgres: `app_{app_id}_{table}`, hyphens kept. It must be quoted.
    pub fn physical_name(&self, app: &AppId) -> String {
        physical_name(app.as_str(), &self.name)
    }

    /// The declared indexes and one for each column with `index` or `unique`.
    pub fn all_indexes(&self) -> Vec<Index> {
        let flagged = self
            .columns
            .iter()
            .filter(|(_, column)| column.index || column.unique)
            .map(|(name, column)| Index { columns: vec![name.clone()], unique: column.unique, r#where: None });
        self.indexes.iter().cloned().chain(flagged).collect()
    }

    /// The declared foreign keys and one for each column with `references`.
    pub fn all_foreign_keys(&self) -> Vec<ForeignKey> {
        let inline = self.columns.iter().filter_map(|(name, column)| {
            let target = column.references.as_deref()?;
            let (table, key) = target.split_once('.').unwrap_or((target, "id"));
            Some(ForeignKey {
                columns: vec![name.clone()],
                references: Reference { table: table.to_owned(), columns: vec![key.to_owned()] },
                on_delete: column.on_delete,
            })
        });
        self.foreign_keys.iter().cloned().chain(inline).collect()
    }

    /// The type of a column, the author's or the platform's.
    pub fn column_type(&self, name: &str) -> Option<ScalarType> {
        self.columns
            .get(name)
            .map(|column| column.kind)
            .or_else(|| PLATFORM_COLUMNS.iter().find(|(platform, _)| *platform == name).map(|(_, kind)| *kind))
    }
}

/// The name in Postgres of a table of an app.
pub(super) fn physical_name(app: &str, table: &str) -> String {
    format!("app_{app}_{table}")
}

/// One column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of the manifest")]
pub struct Column {
    /// What it holds.
    #[serde(rename = "type")]
    pub kind: ScalarType,
    /// Whether it may be empty.
    #[serde(default = "nullable")]
    pub nullable: bool,
    /// What a new row has when nothing is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<ColumnDefault>,
    /// Whether to index it alone.
    #[serde(default, skip_serializing_if = "is_false")]
    pub index: bool,
    /// Whether two rows of one user may not share a value.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unique: bool,
    /// `table` or `table.column` that it points at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub references: Option<String>,
    /// What happens to this row when that one goes.
    #[serde(default, skip_serializing_if = "OnDelete::is_default")]
    pub on_delete: OnDelete,
    /// The values a text may have.
    #[serde(rename = "enum", default, skip_serializing_if = "Vec::is_empty")]
    pub one_of: Vec<String>,
    /// The least number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<serde_json::Number>,
    /// The greatest number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<serde_json::Number>,
    /// The most characters of a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u32>,
    /// Whether full-text search looks at it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub search: bool,
    /// Whether it is kept from models and logs.
    #[serde(default, skip_serializing_if = "is_false")]
    pub sensitive: bool,
    /// Its name in the version before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renamed_from: Option<String>,
    /// In a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

fn nullable() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_false(flag: &bool) -> bool {
    !flag
}

macro_rules! scalar_types {
    ($($(#[doc = $doc:literal])+ $name:ident $text:literal,)+) => {
        /// What a column or a field of a flat map can hold.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum ScalarType { $($(#[doc = $doc])+ #[serde(rename = $text)] $name,)+ }

        impl ScalarType {
            /// Every type, in the order of the schema.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The type's name in a manifest.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// The type of this name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$name),)+ _ => None }
            }
        }
    };
}

scalar_types! {
    /// A short text.
    String "string",
    /// A long text.
    Text "text",
    /// A whole number of 64 bits.
    Integer "integer",
    /// A floating-point number.
    Number "number",
    /// A number with exact digits; text in JSON.
    Decimal "decimal",
    /// True or false.
    Boolean "boolean",
    /// A calendar day, `2026-11-22`.
    Date "date",
    /// A time of day, `20:30`.
    Time "time",
    /// An instant, `2026-11-22T17:13:20Z`.
    Datetime "datetime",
    /// Any JSON.
    Json "json",
    /// A UUID.
    Uuid "uuid",
    /// The id of a file.
    File "file",
    /// A list of texts.
    Strings "string[]",
    /// A list of whole numbers.
    Integers "integer[]",
}

impl ScalarType {
    /// Whether it is a text that can be searched and measured.
    pub fn is_text(self) -> bool {
        matches!(self, Self::String | Self::Text)
    }

    /// Whether it is a number.
    pub fn is_number(self) -> bool {
        matches!(self, Self::Integer | Self::Number | Self::Decimal)
    }
}

/// What a column has when nothing is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Value", into = "Value")]
pub enum ColumnDefault {
    /// This value.
    Constant(Value),
    /// `{"$now": true}`: the instant of the job.
    Now,
    /// `{"$today": true}`: the day in the user's zone.
    Today,
    /// `{"$uuid": true}`: a fresh UUID.
    Uuid,
}

impl ColumnDefault {
    /// The keys that stand for a value made at insertion.
    const MADE: [(&str, Self); 3] = [("$now", Self::Now), ("$today", Self::Today), ("$uuid", Self::Uuid)];
}

impl From<Value> for ColumnDefault {
    fn from(value: Value) -> Self {
        let made = Self::MADE.into_iter().find(|(key, _)| {
            value.as_object().is_some_and(|map| map.len() == 1 && map.get(*key) == Some(&Value::Bool(true)))
        });
        made.map_or(Self::Constant(value), |(_, made)| made)
    }
}

impl From<ColumnDefault> for Value {
    fn from(default: ColumnDefault) -> Self {
        let made = ColumnDefault::MADE.into_iter().find(|(_, made)| *made == default);
        match (made, default) {
            (Some((key, _)), _) => Self::Object(Map::from_iter([(key.to_owned(), Self::Bool(true))])),
            (None, ColumnDefault::Constant(value)) => value,
            (None, _) => Self::Null,
        }
    }
}

/// An index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Index {
    /// The columns in order; `-name` is descending. See [`Index::parts`].
    pub columns: Vec<String>,
    /// Whether two rows of one user may not share these values.
    #[serde(default)]
    pub unique: bool,
    /// Only rows where these columns have these values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#where: Option<Map<String, Value>>,
}

impl Index {
    /// Each column with whether it is descending.
    pub fn parts(&self) -> impl Iterator<Item = (&str, bool)> {
        self.columns.iter().map(|name| name.strip_prefix('-').map_or((name.as_str(), false), |bare| (bare, true)))
    }
}

/// A key into another table of the same app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignKey {
    /// The columns here.
    pub columns: Vec<String>,
    /// The columns there.
    pub references: Reference,
    /// What happens to this row when that one goes.
    #[serde(default)]
    pub on_delete: OnDelete,
}

/// Where a foreign key points.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// The table.
    pub table: String,
    /// Its columns.
    #[serde(default = "key_column")]
    pub columns: Vec<String>,
}

fn key_column() -> Vec<String> {
    vec!["id".to_owned()]
}

/// What happens to a row when the one it points at goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDelete {
    /// That one may not go.
    #[default]
    Restrict,
    /// This one goes too.
    Cascade,
    /// This one forgets.
    SetNull,
}

impl OnDelete {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
    fn is_default(&self) -> bool {
        *self == Self::Restrict
    }
}

/// When old rows go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// The column that tells the age.
    pub column: String,
    /// How long a row stays.
    pub keep: Period,
}

/// A step between versions that cannot be derived from two manifests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Migration {
    /// The version it leads to.
    pub to: Version,
    /// An action to run after the structure has changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// `table` or `table.column` whose data may go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drops: Vec<String>,
}
