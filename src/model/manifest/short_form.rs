//! Writes short forms out: bare strings become objects, switches become what they switch on, flat maps become JSON Schema.
//! Works on anything: what is of the wrong shape stays for the schema to refuse. Doing it twice changes nothing.

use serde_json::{Map, Value, json};

use super::{
    position::join,
    problem::{Problem, ProblemCode},
    record::{self, Role},
    table::PLATFORM_COLUMNS,
};

/// Turns a manifest into its long form.
pub(super) fn normalise(manifest: &mut Value, problems: &mut Vec<Problem>) {
    let Some(root) = manifest.as_object_mut() else { return };
    root.shift_remove("$schema");
    dependencies(root);
    permissions(root);
    each(root, "/agent_config/tools", |tool, pointer| {
        expand(tool, |name| json!({"name": name, "action": name}));
        if let Some(name) = tool.get("name").cloned() {
            tool.as_object_mut().map(|tool| tool.entry("action").or_insert(name));
        }
        schema(tool, "input_schema", pointer, Role::Input, problems);
    });
    each(root, "/outputs", |output, pointer| output_schema(output, pointer, problems));
    each(root, "/actions", |action, pointer| {
        schema(action, "input_schema", pointer, Role::Input, problems);
        schema(action, "output_schema", pointer, Role::Output, problems);
    });
    each(root, "/streams", |stream, pointer| {
        schema(stream, "schema", pointer, Role::Output, problems);
    });
    each(root, "/database/tables", |table, pointer| self::table(table, pointer, problems));
    each(root, "/ui_components/settings", |setting, _| {
        for option in setting.get_mut("options").and_then(Value::as_array_mut).into_iter().flatten() {
            expand(option, |text| json!({"value": text, "label": text}));
        }
    });
}

/// Does something with each item of the list at `path`, if there is one.
fn each(root: &mut Map<String, Value>, path: &str, mut visit: impl FnMut(&mut Value, &str)) {
    let mut tokens = path.split('/').skip(1);
    let mut found = tokens.next().and_then(|token| root.get_mut(token));
    for token in tokens {
        found = found.and_then(|value| value.get_mut(token));
    }
    for (i, item) in found.and_then(Value::as_array_mut).into_iter().flatten().enumerate() {
        visit(item, &join(path, i));
    }
}

/// Replaces a bare string.
fn expand(value: &mut Value, long: impl FnOnce(&str) -> Value) {
    if let Value::String(text) = value {
        *value = long(text);
    }
}

fn dependencies(root: &mut Map<String, Value>) {
    for path in ["/dependencies/required_apps", "/dependencies/optional_apps"] {
        each(root, path, |app, _| {
            expand(app, |text| match text.split_once('@') {
                Some((app_id, version)) => json!({"app_id": app_id, "version": version}),
                None => json!({"app_id": text, "version": "*"}),
            });
        });
    }
    for path in ["/dependencies/required_integrations", "/dependencies/optional_integrations"] {
        each(root, path, |integration, _| expand(integration, |id| json!({"integration_id": id, "access": "read"})));
    }
}

/// `true` is the permission with its defaults, `false` is none. `api_access: true` reaches nothing: it needs hosts.
fn permissions(root: &mut Map<String, Value>) {
    let Some(permissions) = root.get_mut("permissions").and_then(Value::as_object_mut) else { return };
    if let Some(hosts @ Value::Bool(_)) = permissions.get_mut("api_access") {
        *hosts = json!([]);
    }
    for switch in ["notifications", "files", "ai"] {
        match permissions.get_mut(switch) {
            Some(Value::Bool(false)) => drop(permissions.shift_remove(switch)),
            Some(on @ Value::Bool(true)) => *on = json!({}),
            _ => {}
        }
    }
}

fn schema(holder: &mut Value, key: &str, pointer: &str, role: Role, problems: &mut Vec<Problem>) -> bool {
    holder.get_mut(key).is_some_and(|schema| record::normalise(schema, &join(pointer, key), role, problems))
}

/// A flat map is the record of a list, unless `cardinality` is `one`. With JSON Schema its type tells.
fn output_schema(output: &mut Value, pointer: &str, problems: &mut Vec<Problem>) {
    let is_flat = schema(output, "schema", pointer, Role::Output, problems);
    let Some(output) = output.as_object_mut().filter(|output| output.get("type") == Some(&"data".into())) else {
        return;
    };
    let one = output.get("cardinality") == Some(&"one".into());
    let Some(schema) = output.get_mut("schema") else { return };
    if is_flat && !one {
        *schema = json!({"type": "array", "items": schema.take()});
    }
    let cardinality = if schema.get("type") == Some(&"array".into()) { "many" } else { "one" };
    let given = output.get("cardinality").and_then(Value::as_str);
    if matches!(given, None | Some("one" | "many")) {
        output.insert("cardinality".to_owned(), cardinality.into());
    }
}

/// Columns and indexes in the long form, without the columns that the platform adds by itself.
fn table(table: &mut Value, pointer: &str, problems: &mut Vec<Problem>) {
    for index in table.get_mut("indexes").and_then(Value::as_array_mut).into_iter().flatten() {
        expand(index, |column| json!({"columns": [column]}));
    }
    let Some(columns) = table.get_mut("schema").and_then(Value::as_object_mut) else { return };
    for column in columns.values_mut() {
        expand(column, |kind| json!({"type": kind, "nullable": true}));
    }
    let declared = columns.len();
    let pointer = join(pointer, "schema");
    for (name, kind) in PLATFORM_COLUMNS {
        let Some(column) = columns.shift_remove(name) else { continue };
        if column.get("type").and_then(Value::as_str) != Some(kind.as_str()) {
            let words = format!("every row has `{name}` by itself; declare it as `{}` or leave it out", kind.as_str());
            problems.push(Problem::new(ProblemCode::Reserved, join(&pointer, name), words));
        }
    }
    if declared > 0 && columns.is_empty() {
        // A column that stands for the missing one, so that the schema does not say the same again.
        columns.insert("placeholder".to_owned(), json!({"type": "string"}));
        let words = "the table needs a column of its own beside those that every row has";
        problems.push(Problem::new(ProblemCode::Missing, pointer, words));
    }
}
