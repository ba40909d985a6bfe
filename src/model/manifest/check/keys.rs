//! Foreign keys: they point at something of the same type that is unique, and no chain of cascades comes back to where it
//! began (E103). A row may cascade to rows of its own table: that is a tree.

use std::collections::{BTreeMap, BTreeSet};

use super::names::Names;
use crate::model::manifest::{
    complaint::list,
    problem::{Problem, ProblemCode},
    table::ScalarType,
    view::View,
};

/// A foreign key as declared at a column or for the table.
struct Key<'a> {
    place: View<'a>,
    table: &'a str,
    columns: Vec<&'a str>,
    target: &'a str,
    target_columns: Vec<&'a str>,
    on_delete: &'a str,
    nullable: bool,
}

pub(super) fn check(root: &View<'_>, names: &Names<'_>, problems: &mut Vec<Problem>) {
    let tables: Vec<View<'_>> = root.items("database/tables").collect();
    let keys: Vec<Key<'_>> = tables.iter().flat_map(keys_of).collect();
    for key in &keys {
        let at = key.place.at("references").unwrap_or_else(|| key.place.clone());
        if !names.table(key.target, &at, problems) {
            continue;
        }
        let before = problems.len();
        for column in &key.target_columns {
            names.column(key.target, column, &at, problems);
        }
        if problems.len() == before {
            fits(key, &at, names, problems);
            let unique = tables
                .iter()
                .filter(|table| table.text("name") == Some(key.target))
                .any(|t| is_unique(t, &key.target_columns));
            if !unique {
                let words = format!(
                    "a key must point at `id` or at columns that are unique together; {} of `{}` is not",
                    list(key.target_columns.iter().copied()),
                    key.target
                );
                problems.push(at.problem(ProblemCode::ForeignKey, words));
            }
        }
        if key.on_delete == "set_null" && !key.nullable {
            let at = key.place.at("on_delete").unwrap_or(at);
            let words = "`set_null` needs a column that may be null; this one has `nullable: false`";
            problems.push(at.problem(ProblemCode::ForeignKey, words));
        }
    }
    cascades(&keys, problems);
}

fn keys_of<'a>(table: &View<'a>) -> Vec<Key<'a>> {
    let Some(name) = table.text("name") else { return Vec::new() };
    let is_nullable = |column: &str| {
        !table.members("schema").any(|(other, view)| {
            other == column
                && view.at("nullable").is_some_and(|nullable| nullable.value == &serde_json::Value::Bool(false))
        })
    };
    let inline = table.members("schema").filter_map(|(column, place)| {
        let reference = place.text("references")?;
        let (target, key) = reference.split_once('.').unwrap_or((reference, "id"));
        let on_delete = place.text("on_delete").unwrap_or("restrict");
        let nullable = is_nullable(column);
        Some(Key { place, table: name, columns: vec![column], target, target_columns: vec![key], on_delete, nullable })
    });
    let declared = table.items("foreign_keys").filter_map(|place| {
        let columns: Vec<&str> = place.items("columns").filter_map(|column| column.as_text()).collect();
        let mut target_columns: Vec<&str> = place.items("references/columns").filter_map(|c| c.as_text()).collect();
        if target_columns.is_empty() {
            target_columns.push("id");
        }
        let target = place.text("references/table")?;
        let on_delete = place.text("on_delete").unwrap_or("restrict");
        let nullable = columns.iter().all(|column| is_nullable(column));
        Some(Key { place, table: name, columns, target, target_columns, on_delete, nullable })
    });
    inline.chain(declared).collect()
}

/// As many columns here as there, each of the type of its counterpart.
fn fits(key: &Key<'_>, at: &View<'_>, names: &Names<'_>, problems: &mut Vec<Problem>) {
    if key.columns.len() != key.target_columns.len() {
        let words = format!("the key has {} columns and points at {}", key.columns.len(), key.target_columns.len());
        problems.push(at.problem(ProblemCode::ForeignKey, words));
        return;
    }
    let kind = |table: &str, column: &str| names.tables.get(table)?.get(column).copied().flatten();
    for (column, target) in key.columns.iter().zip(&key.target_columns) {
        let (Some(here), Some(there)) = (kind(key.table, column), kind(key.target, target)) else { continue };
        if here != there {
            let words = format!(
                "`{column}` is of type `{}` and `{}.{target}` of type `{}`; a key needs the same type on both sides",
                here.as_str(),
                key.target,
                ScalarType::as_str(there)
            );
            problems.push(at.problem(ProblemCode::ForeignKey, words));
        }
    }
}

fn is_unique(table: &View<'_>, columns: &[&str]) -> bool {
    let wanted: BTreeSet<&str> = columns.iter().copied().collect();
    let single = |name: &&str| {
        *name == "id" || table.members("schema").any(|(column, view)| column == *name && view.flag("unique"))
    };
    let indexed =
        table.items("indexes").filter(|index| index.flag("unique") && index.at("where").is_none()).any(|index| {
            index
                .items("columns")
                .filter_map(|c| c.as_text())
                .map(|c| c.trim_start_matches('-'))
                .collect::<BTreeSet<_>>()
                == wanted
        });
    indexed || (columns.len() == 1 && columns.iter().any(single))
}

/// Deleting a row must not come back to its own table by way of another.
fn cascades(keys: &[Key<'_>], problems: &mut Vec<Problem>) {
    let mut edges: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for key in keys.iter().filter(|key| key.on_delete == "cascade" && key.table != key.target) {
        edges.entry(key.table).or_default().insert(key.target);
    }
    for key in keys.iter().filter(|key| key.on_delete == "cascade" && key.table != key.target) {
        if let Some(chain) = path(&edges, key.target, key.table) {
            let tables: Vec<&str> = std::iter::once(key.table).chain(chain).collect();
            if tables.iter().min() == Some(&key.table) {
                let at = key.place.at("on_delete").unwrap_or_else(|| key.place.clone());
                let words = format!("`cascade` goes round in a circle: {}", tables.join(" → "));
                problems.push(at.problem(ProblemCode::ForeignKey, words));
            }
        }
    }
}

/// The way from one node to another along `edges`, both ends included.
pub(super) fn path<'a>(edges: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &'a str, to: &str) -> Option<Vec<&'a str>> {
    let mut seen = BTreeSet::from([from]);
    let mut ways = vec![vec![from]];
    while let Some(way) = ways.pop() {
        let last = way.last().copied().unwrap_or(from);
        if last == to {
            return Some(way);
        }
        for next in edges.get(last).into_iter().flatten().filter(|next| seen.insert(**next)) {
            ways.push(way.iter().copied().chain([*next]).collect());
        }
    }
    None
}
