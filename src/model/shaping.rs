//! From a manifest's tables to [`Shape`]s. Refuses what the manifest's own checks refuse too: a pointer at a table, column
//! or key that is not there.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    id::AppId,
    manifest::{Column, ColumnDefault, ForeignKey, Index, OnDelete as Declared, ScalarType, Table},
    shape::{Field, Fill, Key, OnDelete, Only, Parent, Shape, Shapes, Type, object_name},
};

/// The longest chain of columns that point at columns that point at columns.
const CHAIN_MAX: usize = 16;

/// The shapes of an app's tables, or a sentence for each thing that does not fit together.
pub fn shapes(app: &AppId, tables: &[Table]) -> Result<Shapes, Vec<String>> {
    let mut problems = Vec::new();
    let mut shapes = BTreeMap::new();
    for table in tables {
        let shape = Shaping { app, tables, table, problems: &mut problems }.shape();
        shapes.insert(table.name.clone(), Arc::new(shape));
    }
    if problems.is_empty() { Ok(shapes) } else { Err(problems) }
}

struct Shaping<'a> {
    app: &'a AppId,
    tables: &'a [Table],
    table: &'a Table,
    problems: &'a mut Vec<String>,
}

impl Shaping<'_> {
    fn shape(mut self) -> Shape {
        let table = self.table;
        let physical = table.physical_name(self.app);
        let keys = table.all_indexes().iter().filter(|index| index.unique).map(|index| key(&physical, index)).collect();
        let parents = table.all_foreign_keys().iter().filter_map(|key| self.parent(&physical, key)).collect();
        let mut fields = vec![platform("id", Type::Uuid, false)];
        // The author writes the id too, if only seldom.
        fields[0].platform = false;
        for (name, column) in &table.columns {
            fields.push(self.field(name, column));
        }
        fields.extend(platform_fields(table.soft_delete));
        let held = self
            .tables
            .iter()
            .flat_map(Table::all_foreign_keys)
            .any(|foreign| foreign.references.table == table.name && foreign.on_delete == Declared::Restrict);
        Shape {
            table: table.name.clone(),
            physical,
            fields,
            soft_delete: table.soft_delete,
            max_rows: u64::from(table.max_rows),
            keys,
            parents,
            held,
        }
    }

    fn field(&mut self, name: &str, column: &Column) -> Field {
        Field {
            name: name.to_owned(),
            ty: type_of(self.tables, self.table, name, CHAIN_MAX).unwrap_or(Type::Text),
            nullable: column.nullable,
            fill: match &column.default {
                None => Fill::Nothing,
                Some(ColumnDefault::Constant(value)) => Fill::Constant(value.clone()),
                Some(ColumnDefault::Now) => Fill::Now,
                Some(ColumnDefault::Today) => Fill::Today,
                Some(ColumnDefault::Uuid) => Fill::Uuid,
            },
            allowed: (!column.one_of.is_empty()).then(|| column.one_of.clone()),
            min: column.min.as_ref().and_then(serde_json::Number::as_f64),
            max: column.max.as_ref().and_then(serde_json::Number::as_f64),
            max_length: column.max_length.map(u64::from),
            search: column.search,
            platform: false,
        }
    }

    fn parent(&mut self, physical: &str, foreign: &ForeignKey) -> Option<Parent> {
        let here = &self.table.name;
        let columns = foreign.columns.join(", ");
        let target = &foreign.references.table;
        let Some(parent) = self.tables.iter().find(|table| &table.name == target) else {
            self.problems.push(format!("`{here}.{columns}` points at `{target}`, which is no table of this app"));
            return None;
        };
        let references = &foreign.references.columns;
        let unique = *references == ["id"]
            || parent.all_indexes().iter().any(|index| {
                index.unique && index.r#where.is_none() && &bare_columns(index) == references && !parent.soft_delete
            });
        if references.len() != foreign.columns.len() || !unique {
            self.problems.push(format!(
                "`{here}.{columns}` points at `{target}.{}`, which is neither its id nor a unique key",
                references.join(", ")
            ));
            return None;
        }
        for (column, reference) in foreign.columns.iter().zip(references) {
            let (mine, theirs) = (
                type_of(self.tables, self.table, column, CHAIN_MAX),
                type_of(self.tables, parent, reference, CHAIN_MAX),
            );
            if mine.is_none() || mine != theirs {
                self.problems.push(format!("`{here}.{column}` and `{target}.{reference}` are of different types"));
            }
        }
        Some(Parent {
            name: object_name(physical, &foreign.columns, target, "fkey"),
            columns: foreign.columns.clone(),
            table: target.clone(),
            physical: parent.physical_name(self.app),
            references: references.clone(),
            on_delete: match foreign.on_delete {
                Declared::Restrict => OnDelete::Restrict,
                Declared::Cascade => OnDelete::Cascade,
                Declared::SetNull => OnDelete::SetNull,
            },
        })
    }
}

/// The type of a column; one that points at another has that one's type, so `string` becomes an id where it points at one.
fn type_of(tables: &[Table], table: &Table, name: &str, chain: usize) -> Option<Type> {
    if name == "id" {
        return Some(Type::Uuid);
    }
    let declared = table.column_type(name)?;
    let pointer = table.all_foreign_keys().into_iter().find_map(|foreign| {
        let position = foreign.columns.iter().position(|column| column == name)?;
        Some((foreign.references.table, foreign.references.columns.get(position)?.clone()))
    });
    let textual = matches!(declared, ScalarType::String | ScalarType::Text | ScalarType::Uuid);
    match pointer {
        Some((target, column)) if textual && chain > 0 && (target != table.name || column != name) => {
            let parent = tables.iter().find(|table| table.name == target)?;
            type_of(tables, parent, &column, chain - 1)
        }
        _ => Some(scalar(declared)),
    }
}

fn scalar(kind: ScalarType) -> Type {
    match kind {
        ScalarType::String | ScalarType::Text | ScalarType::File => Type::Text,
        ScalarType::Integer => Type::Integer,
        ScalarType::Number => Type::Number,
        ScalarType::Decimal => Type::Decimal,
        ScalarType::Boolean => Type::Boolean,
        ScalarType::Date => Type::Date,
        ScalarType::Time => Type::Time,
        ScalarType::Datetime => Type::Instant,
        ScalarType::Json => Type::Json,
        ScalarType::Uuid => Type::Uuid,
        ScalarType::Strings => Type::Texts,
        ScalarType::Integers => Type::Integers,
    }
}

fn key(physical: &str, index: &Index) -> Key {
    let columns = bare_columns(index);
    let only: Only = index.r#where.iter().flatten().map(|(name, value)| (name.clone(), value.clone())).collect();
    let detail = if only.is_empty() { String::new() } else { format!("{only:?}") };
    Key { name: object_name(physical, &columns, &detail, "key"), columns, only }
}

/// The index's columns without their directions.
pub fn bare_columns(index: &Index) -> Vec<String> {
    index.parts().map(|(name, _)| name.to_owned()).collect()
}

fn platform_fields(soft_delete: bool) -> Vec<Field> {
    let mut fields = vec![
        platform("created_at", Type::Instant, false),
        platform("updated_at", Type::Instant, false),
        platform("version", Type::Integer, false),
    ];
    if soft_delete {
        fields.push(platform("deleted_at", Type::Instant, true));
    }
    fields
}

fn platform(name: &str, ty: Type, nullable: bool) -> Field {
    Field {
        name: name.to_owned(),
        ty,
        nullable,
        fill: Fill::Nothing,
        allowed: None,
        min: None,
        max: None,
        max_length: None,
        search: false,
        platform: true,
    }
}
