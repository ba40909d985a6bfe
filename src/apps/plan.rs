//! From the tables as they are to the tables as a new version wants them. Pure: two designs in, steps or refusals out.
//!
//! What loses nothing is derived. What loses data must be named in `database.migrations[].drops`; everything else is
//! refused with the table, the column and what to write in the manifest.

use std::collections::BTreeMap;

use super::design::{ColumnDesign, Design, Piece, SEARCH_COLUMN, TableDesign, literal};
use crate::{
    model::{id::AppId, shape::Type},
    store::rows::{quoted, sql_type},
};

/// One statement of a migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What it does, in words, naming table and column.
    pub words: String,
    /// The statement.
    pub sql: String,
    /// Counts the rows it rewrites, fills or removes; run before it.
    pub counted_by: Option<String>,
    /// What to tell the author when the rows that are there do not allow it.
    pub if_refused: Option<String>,
}

impl Step {
    fn new(words: impl Into<String>, sql: impl Into<String>) -> Self {
        Self { words: words.into(), sql: sql.into(), counted_by: None, if_refused: None }
    }

    fn counting(mut self, physical: &str, condition: &str) -> Self {
        self.counted_by = Some(format!("select count(*) from {physical}{condition}"));
        self
    }

    fn or(mut self, refusal: impl Into<String>) -> Self {
        self.if_refused = Some(refusal.into());
        self
    }
}

/// The steps from `old` to `new`, in an order in which they can run; or every reason why there is no way. `drops` are the
/// tables (`habits`) and columns (`habits.cue`) whose data the author gives up.
pub fn plan(app: &AppId, old: &Design, new: &Design, drops: &[String]) -> Result<Vec<Step>, Vec<String>> {
    let old = &without_replaced(old, new);
    let mut planning = Planning { app, drops, refusals: Vec::new(), steps: Vec::new() };
    planning.detach(old, new);
    for table in old.values().filter(|table| !new.contains_key(&table.table)) {
        planning.drop_table(table);
    }
    for table in new.values() {
        match old.get(&table.table) {
            None => planning.create_table(table),
            Some(before) => planning.alter_table(before, table),
        }
    }
    planning.attach(old, new);
    if planning.refusals.is_empty() { Ok(planning.steps) } else { Err(planning.refusals) }
}

struct Planning<'a> {
    app: &'a AppId,
    drops: &'a [String],
    refusals: Vec<String>,
    steps: Vec<Step>,
}

impl Planning<'_> {
    /// Takes away what hangs on columns and changes or goes. Foreign keys first: they hold on to unique keys.
    fn detach(&mut self, old: &Design, new: &Design) {
        for table in old.values() {
            for name in gone(&table.foreign_keys, new.get(&table.table).map(|table| &table.foreign_keys)) {
                self.drop_constraint(table, name);
            }
        }
        for table in old.values().filter(|table| new.contains_key(&table.table)) {
            for name in gone(&table.indexes, new.get(&table.table).map(|table| &table.indexes)) {
                let words = format!("drop index {name} of {}", table.table);
                self.steps.push(Step::new(words, format!("drop index {}", quoted(name))));
            }
            for name in gone(&table.checks, new.get(&table.table).map(|table| &table.checks)) {
                self.drop_constraint(table, name);
            }
        }
    }

    fn drop_constraint(&mut self, table: &TableDesign, name: &str) {
        let words = format!("drop constraint {name} of {}", table.table);
        self.steps.push(Step::new(words, format!("alter table {} drop constraint {}", table.physical, quoted(name))));
    }

    fn drop_table(&mut self, table: &TableDesign) {
        if !self.drops.contains(&table.table) {
            let name = &table.table;
            return self.refusals.push(format!(
                "table `{name}` is gone, and with it its rows; if that is meant, add `\"drops\": [\"{name}\"]` to an entry \
                 of database.migrations for this version"
            ));
        }
        let step = Step::new(format!("drop table {}", table.table), format!("drop table {}", table.physical));
        self.steps.push(step.counting(&table.physical, ""));
    }

    fn create_table(&mut self, table: &TableDesign) {
        let mut lines = vec![
            "user_id uuid not null".to_owned(),
            "id uuid not null".to_owned(),
            "created_at timestamptz(3) not null".to_owned(),
            "updated_at timestamptz(3) not null".to_owned(),
            "version bigint not null".to_owned(),
        ];
        lines.extend(table.columns.iter().map(|(name, column)| column_sql(name, column)));
        lines.extend(table.search.as_deref().map(search_sql));
        lines.push(format!("constraint {} primary key (user_id, id)", quoted(&table.primary_key)));
        let physical = &table.physical;
        self.steps.push(Step::new(
            format!("create table {} ({} columns)", table.table, table.columns.len()),
            format!("create table {physical} (\n    {}\n)", lines.join(",\n    ")),
        ));
        // Whoever forgets to say on whose behalf, or for which app, sees nothing: an unset setting is null, and null is no
        // match. `force` holds the owner to it as well.
        let app = literal(self.app.as_str());
        let mine = format!(
            "user_id = nullif(current_setting('krilin.user_id', true), '')::uuid \
             and current_setting('krilin.app_id', true) = {app}"
        );
        self.steps.push(Step::new(
            format!("fence {} by user and app", table.table),
            format!(
                "alter table {physical} enable row level security, force row level security; \
                 create policy own_rows on {physical} using ({mine}) with check ({mine}); \
                 grant select, insert, update, delete on {physical} to krilin_runtime; \
                 comment on table {physical} is {}",
                literal(table.description.as_deref().unwrap_or("An app's table.")),
            ),
        ));
    }

    fn alter_table(&mut self, before: &TableDesign, after: &TableDesign) {
        let renamed = renames(before, after);
        if before.search != after.search && before.search.is_some() {
            self.alter(after, "drop the search vector", &format!("drop column {}", quoted(SEARCH_COLUMN)));
        }
        for (from, to) in &renamed {
            let sql = format!("rename column {} to {}", quoted(from), quoted(to));
            self.alter(after, &format!("rename {from} to {to}"), &sql);
        }
        for (name, column) in &before.columns {
            if !after.columns.contains_key(name) && !renamed.contains_key(name.as_str()) {
                self.drop_column(after, name, column);
            }
        }
        for (name, column) in &after.columns {
            let former = renamed.iter().find(|(_, to)| *to == name).map_or(name.as_str(), |(from, _)| from);
            match before.columns.get(former) {
                Some(old) => self.alter_column(after, name, old, column),
                None => self.add_column(after, name, column),
            }
        }
        if before.search != after.search
            && let Some(search) = &after.search
        {
            let sql = format!("add column {}", search_sql(search));
            let step = Step::new(format!("search vector of {}", after.table), alter_sql(after, &sql));
            self.steps.push(step.counting(&after.physical, ""));
        }
    }

    fn alter(&mut self, table: &TableDesign, words: &str, sql: &str) {
        self.steps.push(Step::new(format!("{}: {words}", table.table), alter_sql(table, sql)));
    }

    fn drop_column(&mut self, table: &TableDesign, name: &str, column: &ColumnDesign) {
        let place = format!("{}.{name}", table.table);
        if !self.drops.contains(&place) {
            return self.refusals.push(if name == "deleted_at" {
                format!(
                    "`{}` no longer has soft_delete, so rows deleted by their users would be gone for good; if that is \
                     meant, add `\"drops\": [\"{place}\"]` to an entry of database.migrations for this version",
                    table.table
                )
            } else {
                format!(
                    "column `{place}` is gone, and with it what is in it; if it has a new name, give the new column \
                     `\"renamed_from\": \"{name}\"`; if it is to go, add `\"drops\": [\"{place}\"]` to an entry of \
                     database.migrations for this version"
                )
            });
        }
        if name == "deleted_at" {
            let sql = format!("delete from {} where deleted_at is not null", table.physical);
            let step = Step::new(format!("remove the deleted rows of {}", table.table), sql);
            self.steps.push(step.counting(&table.physical, " where deleted_at is not null"));
        }
        let sql = alter_sql(table, &format!("drop column {}", quoted(name)));
        let step = Step::new(format!("drop column {place} ({})", sql_type(column.ty)), sql);
        self.steps.push(step.counting(&table.physical, &format!(" where {} is not null", quoted(name))));
    }

    fn add_column(&mut self, table: &TableDesign, name: &str, column: &ColumnDesign) {
        let place = format!("{}.{name}", table.table);
        let sql = alter_sql(table, &format!("add column {}", column_sql(name, column)));
        let mut step = Step::new(format!("add column {place} ({})", sql_type(column.ty)), sql);
        if !column.nullable && column.default.is_none() {
            step = step.or(format!(
                "column `{place}` is new and not nullable, but there are rows; give it a `default` or make it nullable"
            ));
        }
        if column.default.is_some() {
            step = step.counting(&table.physical, "");
        }
        self.steps.push(step);
    }

    fn alter_column(&mut self, table: &TableDesign, name: &str, old: &ColumnDesign, new: &ColumnDesign) {
        let place = format!("{}.{name}", table.table);
        let column = quoted(name);
        if old.ty != new.ty {
            if !widens(old.ty, new.ty) {
                return self.replace_column(table, name, (old, new));
            }
            // The old default may not fit the new type; the new one is set below.
            let ty = sql_type(new.ty);
            let sql =
                format!("alter column {column} drop default, alter column {column} type {ty} using {column}::{ty}");
            let words = format!("change {place} from {} to {ty}", sql_type(old.ty));
            self.steps.push(Step::new(words, alter_sql(table, &sql)).counting(&table.physical, ""));
        }
        if old.default != new.default || (old.ty != new.ty && new.default.is_some()) {
            let sql = match &new.default {
                Some(default) => format!("alter column {column} set default {default}"),
                None => format!("alter column {column} drop default"),
            };
            self.alter(table, &format!("default of {name}"), &sql);
        }
        if old.nullable && !new.nullable {
            let sql = alter_sql(table, &format!("alter column {column} set not null"));
            self.steps.push(Step::new(format!("{place} may no longer be null"), sql).or(format!(
                "column `{place}` is no longer nullable, but there are rows without it; fill them first (an action of the \
                 version before), or leave it nullable"
            )));
        } else if !old.nullable && new.nullable {
            self.alter(table, &format!("{name} may be null"), &format!("alter column {column} drop not null"));
        }
    }

    fn replace_column(&mut self, table: &TableDesign, name: &str, (old, new): (&ColumnDesign, &ColumnDesign)) {
        let place = format!("{}.{name}", table.table);
        if self.drops.contains(&place) {
            self.drop_column(table, name, old);
            return self.add_column(table, name, new);
        }
        self.refusals.push(format!(
            "column `{place}` changes from {} to {}, and not every value can follow; add a column of another name, or, if \
             what is in it may go, add `\"drops\": [\"{place}\"]` to an entry of database.migrations for this version",
            sql_type(old.ty),
            sql_type(new.ty)
        ));
    }

    /// Adds what hangs on columns and is new or changed: checks, then indexes, then the foreign keys that need them.
    fn attach(&mut self, old: &Design, new: &Design) {
        for table in new.values() {
            let before = old.get(&table.table);
            for (name, piece) in fresh(&table.checks, before.map(|table| &table.checks)) {
                let columns = piece.columns.join(", ");
                let sql = alter_sql(table, &format!("add constraint {} {}", quoted(name), piece.sql));
                self.steps.push(Step::new(format!("limit {}.{columns}", table.table), sql).or(format!(
                    "column `{}.{columns}` holds values that its new limits (enum, min, max, max_length) refuse; widen the \
                     limits, or change the rows first with an action of the version before",
                    table.table
                )));
            }
        }
        for table in new.values() {
            let before = old.get(&table.table);
            for (name, piece) in fresh(&table.indexes, before.map(|table| &table.indexes)) {
                let columns = piece.columns.join(", ");
                let unique = if piece.unique { "unique " } else { "" };
                let sql = format!("create {unique}index {} {}", quoted(name), piece.sql);
                let step = Step::new(format!("{unique}index on {} ({columns})", table.table), sql);
                self.steps.push(step.or(format!(
                    "`{columns}` of `{}` is to be unique, but a user has two rows with the same; make them different first",
                    table.table
                )));
            }
        }
        for table in new.values() {
            let before = old.get(&table.table);
            for (name, piece) in fresh(&table.foreign_keys, before.map(|table| &table.foreign_keys)) {
                let columns = piece.columns.join(", ");
                let sql = alter_sql(table, &format!("add constraint {} {}", quoted(name), piece.sql));
                self.steps.push(Step::new(format!("foreign key on {} ({columns})", table.table), sql).or(format!(
                    "`{}.{columns}` is to point at rows that are not there; clear or correct them first",
                    table.table
                )));
            }
        }
    }
}

/// The old design in which nothing hangs on a column that goes and comes back with another type: Postgres drops with a
/// column what hangs on it, so it must be made again even where its words are the same.
fn without_replaced(old: &Design, new: &Design) -> Design {
    let mut old = old.clone();
    for table in old.values_mut() {
        let Some(after) = new.get(&table.table) else { continue };
        let replaced = |name: &String| match (table.columns.get(name), after.columns.get(name)) {
            (Some(before), Some(after)) => before.ty != after.ty && !widens(before.ty, after.ty),
            _ => false,
        };
        for piece in table.checks.values_mut().chain(table.indexes.values_mut()).chain(table.foreign_keys.values_mut())
        {
            if piece.columns.iter().any(replaced) {
                piece.sql.clear();
            }
        }
    }
    old
}

/// Names in `old` that are not, or not the same, in `new`.
fn gone<'a>(old: &'a BTreeMap<String, Piece>, new: Option<&BTreeMap<String, Piece>>) -> Vec<&'a str> {
    let same = |name: &String, piece: &Piece| new.and_then(|new| new.get(name)) == Some(piece);
    old.iter().filter(|(name, piece)| !same(name, piece)).map(|(name, _)| name.as_str()).collect()
}

/// Pieces of `new` that are not, or not the same, in `old`.
fn fresh<'a>(new: &'a BTreeMap<String, Piece>, old: Option<&BTreeMap<String, Piece>>) -> Vec<(&'a String, &'a Piece)> {
    new.iter().filter(|(name, piece)| old.and_then(|old| old.get(*name)) != Some(*piece)).collect()
}

/// Old name to new name, where the old one is there and neither version has both.
fn renames<'a>(before: &'a TableDesign, after: &'a TableDesign) -> BTreeMap<&'a str, &'a str> {
    let renamed = after.columns.iter().filter_map(|(name, column)| {
        let from = column.renamed_from.as_deref()?;
        let moves = before.columns.contains_key(from)
            && !before.columns.contains_key(name)
            && !after.columns.contains_key(from);
        moves.then_some((from, name.as_str()))
    });
    renamed.collect()
}

/// Whether every value of one type is a value of the other.
fn widens(from: Type, to: Type) -> bool {
    matches!(
        (from, to),
        (Type::Integer, Type::Number | Type::Decimal | Type::Text)
            | (Type::Uuid | Type::Decimal | Type::Boolean | Type::Date | Type::Time, Type::Text)
    )
}

fn column_sql(name: &str, column: &ColumnDesign) -> String {
    let default = column.default.as_ref().map(|default| format!(" default {default}")).unwrap_or_default();
    let null = if column.nullable { "" } else { " not null" };
    format!("{} {}{default}{null}", quoted(name), sql_type(column.ty))
}

fn search_sql(expression: &str) -> String {
    format!("{} tsvector generated always as ({expression}) stored", quoted(SEARCH_COLUMN))
}

fn alter_sql(table: &TableDesign, change: &str) -> String {
    format!("alter table {} {change}", table.physical)
}
