//! What an app's tables look like in Postgres: every column, check, index, key and policy as SQL, under names that depend
//! on nothing but the manifest. Two designs can be compared piece by piece; that comparison is [`super::plan`].

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    model::{
        id::AppId,
        manifest::{Index, Table},
        shape::{Field, Fill, OnDelete, Only, Shape, Shapes, Type, object_name},
        shaping::{self, bare_columns},
    },
    store::rows::{quoted, sql_type},
};

/// The column that holds the search vector. An author's column cannot begin with an underscore.
pub const SEARCH_COLUMN: &str = "_search";

/// A column as SQL.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnDesign {
    /// The type.
    pub ty: Type,
    /// Whether null is allowed.
    pub nullable: bool,
    /// The default as an expression.
    pub default: Option<String>,
    /// The column's name in the version before.
    pub renamed_from: Option<String>,
}

/// Something with a name that hangs on columns: a check, an index, a foreign key.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// The columns it is about, for messages.
    pub columns: Vec<String>,
    /// The SQL after `add constraint NAME` or after `create index NAME`.
    pub sql: String,
    /// Whether it is a unique index.
    pub unique: bool,
}

/// A table as SQL.
#[derive(Debug, Clone, PartialEq)]
pub struct TableDesign {
    /// Its name in the manifest.
    pub table: String,
    /// Its name in Postgres, in quotes.
    pub physical: String,
    /// What the manifest says of it, for `\d+`.
    pub description: Option<String>,
    /// The author's columns, and `deleted_at`.
    pub columns: BTreeMap<String, ColumnDesign>,
    /// The expression of the search vector.
    pub search: Option<String>,
    /// Checks by name.
    pub checks: BTreeMap<String, Piece>,
    /// Indexes by name, unique ones included.
    pub indexes: BTreeMap<String, Piece>,
    /// Foreign keys by name.
    pub foreign_keys: BTreeMap<String, Piece>,
    /// The primary key's name.
    pub primary_key: String,
}

/// An app's tables by their name in the manifest.
pub type Design = BTreeMap<String, TableDesign>;

/// The design of `tables`, or a sentence for each thing that does not fit together.
pub fn design(app: &AppId, tables: &[Table]) -> Result<Design, Vec<String>> {
    let shapes = shaping::shapes(app, tables)?;
    let mut problems = Vec::new();
    let designs = tables.iter().map(|table| {
        let shape = &shapes[&table.name];
        (table.name.clone(), table_design(table, shape, &shapes, &mut problems))
    });
    let designs: Design = designs.collect();
    if problems.is_empty() { Ok(designs) } else { Err(problems) }
}

fn table_design(table: &Table, shape: &Shape, shapes: &Shapes, problems: &mut Vec<String>) -> TableDesign {
    let own = shape.fields.iter().filter(|field| field.name != "id" && (!field.platform || field.name == "deleted_at"));
    let columns = own.clone().map(|field| {
        let renamed_from = table.columns.get(&field.name).and_then(|column| column.renamed_from.clone());
        (field.name.clone(), column_design(field, renamed_from))
    });
    let checks = own.filter_map(|field| check(shape, field));
    TableDesign {
        table: table.name.clone(),
        physical: quoted(&shape.physical),
        description: table.description.clone(),
        columns: columns.collect(),
        search: search(shape),
        checks: checks.collect(),
        indexes: indexes(table, shape, problems),
        foreign_keys: foreign_keys(shape, shapes),
        primary_key: shape.primary_key(),
    }
}

fn column_design(field: &Field, renamed_from: Option<String>) -> ColumnDesign {
    let default = match &field.fill {
        Fill::Nothing => None,
        Fill::Constant(value) => Some(constant(field.ty, value)),
        Fill::Now => Some("now()".to_owned()),
        // Rows that are there when the column is added; new rows get the user's day from the storage layer.
        Fill::Today => Some("current_date".to_owned()),
        Fill::Uuid => Some("gen_random_uuid()".to_owned()),
    };
    ColumnDesign { ty: field.ty, nullable: field.nullable, default, renamed_from }
}

/// A constant of the manifest as SQL. It is DDL, so it cannot be bound; the quoting is Postgres' standard one.
fn constant(ty: Type, value: &Value) -> String {
    let text = match (ty, value) {
        (_, Value::Null) => return "null".to_owned(),
        (Type::Texts | Type::Integers, Value::Array(elements)) => {
            let elements: Vec<String> = elements.iter().map(element).collect();
            return format!("array[{}]::{}", elements.join(", "), sql_type(ty));
        }
        (Type::Json, value) => value.to_string(),
        (_, Value::String(text)) => text.clone(),
        (_, other) => other.to_string(),
    };
    format!("{}::{}", literal(&text), sql_type(ty))
}

fn element(value: &Value) -> String {
    match value {
        Value::String(text) => literal(text),
        other => other.to_string(),
    }
}

/// A string literal that reads the same whatever `standard_conforming_strings` says.
pub fn literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') { format!("e'{}'", doubled.replace('\\', "\\\\")) } else { format!("'{doubled}'") }
}

fn check(shape: &Shape, field: &Field) -> Option<(String, Piece)> {
    let column = quoted(&field.name);
    let mut terms = Vec::new();
    if let Some(allowed) = &field.allowed {
        let values: Vec<String> = allowed.iter().map(|value| literal(value)).collect();
        terms.push(format!("{column} in ({})", values.join(", ")));
    }
    terms.extend(field.min.map(|min| format!("{column} >= {min}")));
    terms.extend(field.max.map(|max| format!("{column} <= {max}")));
    terms.extend(field.max_length.map(|length| format!("length({column}) <= {length}")));
    if terms.is_empty() {
        return None;
    }
    let columns = vec![field.name.clone()];
    let name = object_name(&shape.physical, &columns, "", "check");
    Some((name, Piece { columns, sql: format!("check ({})", terms.join(" and ")), unique: false }))
}

/// The search vector is a stored column without an index of its own: under row-level security Postgres does not use an
/// index whose operator is not leakproof (`@@` is not) before the policy has been checked, and one user's rows are few.
fn search(shape: &Shape) -> Option<String> {
    let columns: Vec<String> = shape
        .fields
        .iter()
        .filter(|field| field.search && field.ty == Type::Text)
        .map(|field| format!("coalesce({}, '')", quoted(&field.name)))
        .collect();
    (!columns.is_empty()).then(|| format!("to_tsvector('simple'::regconfig, {})", columns.join(" || ' ' || ")))
}

fn indexes(table: &Table, shape: &Shape, problems: &mut Vec<String>) -> BTreeMap<String, Piece> {
    let mut indexes = BTreeMap::new();
    for index in table.all_indexes() {
        let columns = bare_columns(&index);
        if let Some(unknown) = columns.iter().find(|column| shape.field(column).is_none()) {
            problems.push(shape.no_such_column(unknown));
            continue;
        }
        let (name, predicate) = index_name(shape, &index);
        let parts = index
            .parts()
            .map(|(name, descending)| format!("{}{}", quoted(name), if descending { " desc" } else { "" }));
        let parts: Vec<String> = std::iter::once("user_id".to_owned()).chain(parts).collect();
        let sql = format!("on {} ({}){predicate}", quoted(&shape.physical), parts.join(", "));
        indexes.insert(name, Piece { columns, sql, unique: index.unique });
    }
    for parent in &shape.parents {
        let served = table
            .all_indexes()
            .iter()
            .any(|index| index.r#where.is_none() && bare_columns(index).starts_with(&parent.columns));
        if !served && parent.columns != ["id"] {
            let columns: Vec<String> = parent.columns.iter().map(|column| quoted(column)).collect();
            let sql = format!("on {} (user_id, {})", quoted(&shape.physical), columns.join(", "));
            let name = object_name(&shape.physical, &parent.columns, "pointer", "idx");
            indexes.insert(name, Piece { columns: parent.columns.clone(), sql, unique: false });
        }
    }
    indexes
}

fn index_name(shape: &Shape, index: &Index) -> (String, String) {
    let columns = bare_columns(index);
    let only: Only = index.r#where.iter().flatten().map(|(name, value)| (name.clone(), value.clone())).collect();
    let key = shape.keys.iter().find(|key| index.unique && key.columns == columns && key.only == only);
    let predicate = predicate(shape, &only, index.unique);
    let name = match key {
        Some(key) => key.name.clone(),
        None => object_name(&shape.physical, &columns, &format!("{:?}{only:?}", index.columns), "idx"),
    };
    (name, predicate)
}

/// The condition of a partial index. A deleted row does not hold a unique key.
pub fn predicate(shape: &Shape, only: &Only, unique: bool) -> String {
    let mut terms: Vec<String> = only
        .iter()
        .map(|(name, value)| {
            let ty = shape.field(name).map_or(Type::Text, |field| field.ty);
            match value {
                Value::Null => format!("{} is null", quoted(name)),
                value => format!("{} = {}", quoted(name), constant(ty, value)),
            }
        })
        .collect();
    if unique && shape.soft_delete {
        terms.push("deleted_at is null".to_owned());
    }
    if terms.is_empty() { String::new() } else { format!(" where {}", terms.join(" and ")) }
}

fn foreign_keys(shape: &Shape, shapes: &Shapes) -> BTreeMap<String, Piece> {
    let keys = shape.parents.iter().filter(|parent| shapes.contains_key(&parent.table)).map(|parent| {
        let list = |names: &[String]| names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
        let on_delete = match parent.on_delete {
            OnDelete::Restrict => "restrict".to_owned(),
            OnDelete::Cascade => "cascade".to_owned(),
            OnDelete::SetNull => format!("set null ({})", list(&parent.columns)),
        };
        let sql = format!(
            "foreign key (user_id, {}) references {} (user_id, {}) on delete {on_delete}",
            list(&parent.columns),
            quoted(&parent.physical),
            list(&parent.references),
        );
        (parent.name.clone(), Piece { columns: parent.columns.clone(), sql, unique: false })
    });
    keys.collect()
}
