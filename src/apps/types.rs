//! An app's own TypeScript types, `krilin.gen.d.ts`: tables, settings and actions as its manifest declares them, for the
//! editor and for `tsc --checkJs`. What ctx itself can do is in `apps/krilin.d.ts`, which this refers to.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::model::manifest::{Action, Column, Manifest, ScalarType, Setting, SettingKind, Table};

/// The name of the file, beside the manifest.
pub const TYPES_FILE: &str = "krilin.gen.d.ts";

/// How deep a schema is followed; below it is any JSON.
const DEPTH_MAX: usize = 16;

/// The types of an app as the text of [`TYPES_FILE`].
pub fn typescript(manifest: &Manifest) -> String {
    let metadata = &manifest.metadata;
    let mut out = format!(
        "// Types of {} {}, written by `krilin app types` from its manifest. Change the manifest, then write them again.\n\
         /// <reference path=\"../krilin.d.ts\" />\n",
        metadata.id, metadata.version
    );
    section(&mut out, "Tables", "The rows of each table.", manifest.database.tables.iter().map(table));
    section(
        &mut out,
        "Settings",
        "What the user has set: `ctx.settings`.",
        manifest.ui_components.settings.iter().map(setting),
    );
    section(&mut out, "Actions", "What each action is given and gives back.", manifest.actions.iter().map(action));
    out
}

/// A type alias, since an interface is no `Record<string, …>`.
fn section(out: &mut String, name: &str, about: &str, members: impl Iterator<Item = String>) {
    let body: String = members.collect();
    let body = if body.is_empty() { "{}".to_owned() } else { format!("{{\n{body}}}") };
    let _ = write!(out, "\n/** {about} */\ntype {name} = {body};\n");
}

fn comment(indent: &str, text: Option<&str>) -> String {
    text.map(|text| format!("{indent}/** {} */\n", text.replace("*/", "*\\/").replace(['\n', '\r'], " ")))
        .unwrap_or_default()
}

fn table(table: &Table) -> String {
    let mut out = comment("  ", table.description.as_deref());
    let _ = writeln!(out, "  {}: krilin.Row & {{", key(&table.name));
    for (name, column) in &table.columns {
        let empty = if column.nullable { " | null" } else { "" };
        out += &comment("    ", column.description.as_deref());
        let _ = writeln!(out, "    {}: {}{empty};", key(name), column_type(column));
    }
    out += "  };\n";
    out
}

fn column_type(column: &Column) -> String {
    if column.one_of.is_empty() {
        scalar(column.kind).to_owned()
    } else {
        union(column.one_of.iter().map(|text| quoted(text)))
    }
}

fn scalar(kind: ScalarType) -> &'static str {
    match kind {
        ScalarType::String | ScalarType::Text | ScalarType::Decimal | ScalarType::Uuid | ScalarType::File => "string",
        ScalarType::Integer | ScalarType::Number => "number",
        ScalarType::Boolean => "boolean",
        ScalarType::Date => "krilin.IsoDate",
        ScalarType::Time => "krilin.IsoTime",
        ScalarType::Datetime => "krilin.IsoInstant",
        ScalarType::Json => "krilin.Json",
        ScalarType::Strings => "string[]",
        ScalarType::Integers => "number[]",
    }
}

fn setting(setting: &Setting) -> String {
    let options = || union(setting.options.iter().map(|option| option.value.to_string()));
    let kind = match setting.kind {
        SettingKind::Text | SettingKind::Color | SettingKind::Secret => "string".to_owned(),
        SettingKind::Number => "number".to_owned(),
        SettingKind::Boolean => "boolean".to_owned(),
        SettingKind::Time => "krilin.IsoTime".to_owned(),
        SettingKind::Date => "krilin.IsoDate".to_owned(),
        SettingKind::Select => options(),
        SettingKind::Multiselect => list(&options()),
    };
    // What has no default is null until the user sets it.
    let empty = if setting.default.is_some() { "" } else { " | null" };
    format!("{}  {}: {kind}{empty};\n", comment("  ", Some(&setting.label)), key(&setting.key))
}

fn action(action: &Action) -> String {
    let side = |schema: Option<&Value>, given: Side| {
        schema.map_or_else(|| "krilin.Json".to_owned(), |schema| typed(schema, given, 0))
    };
    format!(
        "{}  {}: {{ input: {}; output: {} }};\n",
        comment("  ", action.description.as_deref().or(action.title.as_deref())),
        key(&action.id),
        side(action.input_schema.as_ref(), Side::Input),
        side(action.output_schema.as_ref(), Side::Output)
    )
}

/// Which way a value goes. Of an input the platform fills in the outermost defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Input,
    Output,
}

/// A JSON Schema as a TypeScript type. What TypeScript cannot say becomes wider, never narrower.
fn typed(schema: &Value, side: Side, depth: usize) -> String {
    let Some(map) = schema.as_object().filter(|_| depth < DEPTH_MAX) else {
        return if schema == &Value::Bool(false) { "never" } else { "krilin.Json" }.to_owned();
    };
    if let Some(values) = map.get("enum").and_then(Value::as_array) {
        return union(values.iter().map(literal));
    }
    if let Some(value) = map.get("const") {
        return literal(value);
    }
    for (keyword, joint) in [("anyOf", " | "), ("oneOf", " | "), ("allOf", " & ")] {
        if let Some(parts) = map.get(keyword).and_then(Value::as_array).filter(|_| !map.contains_key("properties")) {
            let parts: Vec<String> = parts.iter().map(|part| typed(part, side, depth + 1)).collect();
            return format!("({})", parts.join(joint));
        }
    }
    match map.get("type") {
        Some(Value::String(name)) => of_type(name, map, side, depth),
        Some(Value::Array(names)) => {
            union(names.iter().filter_map(Value::as_str).map(|name| of_type(name, map, side, depth)))
        }
        _ if map.contains_key("properties") => of_type("object", map, side, depth),
        _ => "krilin.Json".to_owned(),
    }
}

fn of_type(name: &str, map: &Map<String, Value>, side: Side, depth: usize) -> String {
    match name {
        "string" => match map.get("format").and_then(Value::as_str) {
            Some("date") => "krilin.IsoDate",
            Some("time") => "krilin.IsoTime",
            Some("date-time") => "krilin.IsoInstant",
            _ => "string",
        }
        .to_owned(),
        "integer" | "number" => "number".to_owned(),
        "boolean" | "null" => name.to_owned(),
        "array" => match map.get("items") {
            Some(items) => list(&typed(items, side, depth + 1)),
            None => "krilin.Json[]".to_owned(),
        },
        _ => object(map, side, depth),
    }
}

fn object(map: &Map<String, Value>, side: Side, depth: usize) -> String {
    let Some(fields) = map.get("properties").and_then(Value::as_object) else {
        return "Record<string, krilin.Json>".to_owned();
    };
    let required = map.get("required").and_then(Value::as_array);
    let members = fields.iter().map(|(name, schema)| {
        let filled_in = side == Side::Input && depth == 0 && schema.get("default").is_some();
        let is_there = filled_in || required.is_some_and(|names| names.iter().any(|one| one == name));
        format!("{}{}: {}", key(name), if is_there { "" } else { "?" }, typed(schema, side, depth + 1))
    });
    let members: Vec<String> = members.collect();
    if members.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", members.join("; ")) }
}

fn union(parts: impl Iterator<Item = String>) -> String {
    let mut distinct: Vec<String> = Vec::new();
    for part in parts {
        if !distinct.contains(&part) {
            distinct.push(part);
        }
    }
    if distinct.is_empty() { "never".to_owned() } else { distinct.join(" | ") }
}

fn list(item: &str) -> String {
    if item.contains(' ') { format!("({item})[]") } else { format!("{item}[]") }
}

/// A value as a type of its own; lists and objects are any JSON.
fn literal(value: &Value) -> String {
    if value.is_array() || value.is_object() { "krilin.Json".to_owned() } else { value.to_string() }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A member's name, in quotes unless it is an identifier.
fn key(name: &str) -> String {
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let plain = starts && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if plain { name.to_owned() } else { quoted(name) }
}
