//! Names that are used: tables, columns, settings, pages, outputs, streams, fields (E102).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::model::{
    manifest::{
        complaint::list,
        problem::{Problem, ProblemCode},
        table::{PLATFORM_COLUMNS, ScalarType},
        view::View,
    },
    near::hint,
};

/// The keys of a condition that join conditions rather than name a column.
const JOINING_KEYS: [&str; 3] = ["any", "all", "not"];

/// What a manifest declares.
#[derive(Default)]
pub(super) struct Names<'a> {
    /// The app's id, or nothing.
    pub(super) app_id: &'a str,
    /// Actions by id.
    pub(super) actions: BTreeMap<&'a str, View<'a>>,
    /// The actions that tools name, declared or not.
    pub(super) tool_actions: BTreeSet<&'a str>,
    /// The columns of each table with their types, where those are known; the platform's are among them.
    pub(super) tables: BTreeMap<&'a str, BTreeMap<&'a str, Option<ScalarType>>>,
    /// Settings with their types.
    pub(super) settings: BTreeMap<&'a str, &'a str>,
    /// Data scopes.
    pub(super) scopes: BTreeSet<&'a str>,
    /// Apps that are depended on.
    pub(super) apps: BTreeSet<&'a str>,
    /// Integrations that are depended on, with the access asked for.
    pub(super) integrations: BTreeMap<&'a str, &'a str>,
    outputs: BTreeSet<&'a str>,
    streams: BTreeSet<&'a str>,
    pages: BTreeSet<&'a str>,
}

impl<'a> Names<'a> {
    pub(super) fn of(root: &View<'a>) -> Self {
        let ids = |list: &str, key: &str| root.items(list).filter_map(|item| item.text(key)).collect::<BTreeSet<_>>();
        let both = |sort: &str| {
            let lists = [format!("dependencies/required_{sort}"), format!("dependencies/optional_{sort}")];
            lists.into_iter().flat_map(|list| root.items(&list)).collect::<Vec<_>>()
        };
        Self {
            app_id: root.text("metadata/id").unwrap_or_default(),
            actions: root.items("actions").filter_map(|action| Some((action.text("id")?, action))).collect(),
            tool_actions: ids("agent_config/tools", "action"),
            tables: root
                .items("database/tables")
                .filter_map(|table| Some((table.text("name")?, columns(&table))))
                .collect(),
            settings: root
                .items("ui_components/settings")
                .filter_map(|setting| Some((setting.text("key")?, setting.text("type")?)))
                .collect(),
            scopes: root.items("permissions/data_scopes").filter_map(|scope| scope.as_text()).collect(),
            apps: both("apps").iter().filter_map(|app| app.text("app_id")).collect(),
            integrations: both("integrations")
                .iter()
                .filter_map(|one| Some((one.text("integration_id")?, one.text("access").unwrap_or("read"))))
                .collect(),
            outputs: ids("outputs", "id"),
            streams: ids("streams", "id"),
            pages: ids("ui_components/pages", "id"),
        }
    }

    /// Whether `table` exists; if not, that is a problem with `used`.
    pub(super) fn table(&self, table: &str, used: &View<'_>, problems: &mut Vec<Problem>) -> bool {
        let known = self.tables.contains_key(table);
        if !known {
            problems.push(unknown(used, table, "a table", self.tables.keys().copied()));
        }
        known
    }

    /// The same of a column of a table; a table that is not known says nothing about its columns.
    pub(super) fn column(&self, table: &str, column: &str, used: &View<'_>, problems: &mut Vec<Problem>) {
        if let Some(columns) = self.tables.get(table).filter(|columns| !columns.contains_key(column)) {
            let what = format!("a column of `{table}`");
            problems.push(unknown(used, column, &what, columns.keys().copied()));
        }
    }

    fn setting(&self, used: &View<'_>, kind: &str, problems: &mut Vec<Problem>) {
        let Some(key) = used.as_text() else { return };
        match self.settings.get(key) {
            None => problems.push(unknown(used, key, "a setting", self.settings.keys().copied())),
            Some(other) if *other != kind => {
                let words = format!("this must be a setting of type `{kind}`; `{key}` is of type `{other}`");
                problems.push(used.problem(ProblemCode::UnknownName, words));
            }
            Some(_) => {}
        }
    }

    /// A name of this app, or `app.name` of an app that is depended on.
    fn own_or_foreign(&self, used: &View<'_>, what: &str, own: &BTreeSet<&str>, problems: &mut Vec<Problem>) {
        let Some(name) = used.as_text() else { return };
        match name.split_once('.') {
            Some((app, name)) if app == self.app_id && own.contains(name) => {}
            Some((app, _)) if app != self.app_id => {
                if !self.apps.contains(app) {
                    problems.push(unknown(used, app, "an app among the dependencies", self.apps.iter().copied()));
                }
            }
            _ if own.contains(name) => {}
            _ => problems.push(unknown(used, name, what, own.iter().copied())),
        }
    }
}

fn columns<'a>(table: &View<'a>) -> BTreeMap<&'a str, Option<ScalarType>> {
    let own = table.members("schema").map(|(name, column)| (name, column.text("type").and_then(ScalarType::from_name)));
    PLATFORM_COLUMNS.into_iter().map(|(name, kind)| (name, Some(kind))).chain(own).collect()
}

fn unknown<'a>(used: &View<'_>, name: &str, what: &str, known: impl Iterator<Item = &'a str> + Clone) -> Problem {
    let mut words = format!("`{name}` is not {what}{}", hint(name, known.clone()));
    if known.clone().next().is_none() {
        words.push_str("; none is declared");
    } else if !words.ends_with(')') {
        words.extend(["; there is ", &list(known)]);
    }
    used.problem(ProblemCode::UnknownName, words)
}

pub(super) fn check(root: &View<'_>, names: &Names<'_>, problems: &mut Vec<Problem>) {
    for table in root.items("database/tables") {
        columns_of_table(&table, names, problems);
    }
    for output in root.items("outputs") {
        tables_of(&output, "invalidated_by", names, problems);
        if let Some(stream) = output.at("stream") {
            names.own_or_foreign(&stream, "a stream", &names.streams, problems);
        }
    }
    for schedule in root.items("schedules") {
        if let Some(at) = schedule.at("at_setting") {
            names.setting(&at, "time", problems);
        }
        if let Some(switch) = schedule.at("enabled_by") {
            names.setting(&switch, "boolean", problems);
        }
    }
    for view in root.items("ui_components/widgets").chain(root.items("ui_components/pages")) {
        if let Some((page, id)) = view.at("opens").and_then(|page| Some((page.clone(), page.as_text()?)))
            && !names.pages.contains(id)
        {
            problems.push(unknown(&page, id, "a page", names.pages.iter().copied()));
        }
        tables_of(&view, "refresh/tables", names, problems);
        for stream in view.items("refresh/streams") {
            names.own_or_foreign(&stream, "a stream", &names.streams, problems);
        }
        for (_, binding) in view.members("data") {
            self::binding(&binding, names, problems);
        }
    }
    for action in root.items("actions") {
        for key in ["concurrency/key", "idempotency/key"] {
            input_field(&action, key, problems);
        }
    }
}

fn tables_of(holder: &View<'_>, list: &str, names: &Names<'_>, problems: &mut Vec<Problem>) {
    for table in holder.items(list) {
        if let Some(name) = table.as_text() {
            names.table(name, &table, problems);
        }
    }
}

fn columns_of_table(table: &View<'_>, names: &Names<'_>, problems: &mut Vec<Problem>) {
    let Some(name) = table.text("name") else { return };
    for index in table.items("indexes") {
        for column in index.items("columns") {
            if let Some(text) = column.as_text() {
                names.column(name, text.trim_start_matches('-'), &column, problems);
            }
        }
        for (column, condition) in index.members("where") {
            names.column(name, column, &condition, problems);
        }
    }
    for column in table.items("foreign_keys").flat_map(|key| key.items("columns")).chain(table.at("retention/column")) {
        if let Some(text) = column.as_text() {
            names.column(name, text, &column, problems);
        }
    }
}

fn binding(binding: &View<'_>, names: &Names<'_>, problems: &mut Vec<Problem>) {
    if let Some(output) = binding.at("output") {
        names.own_or_foreign(&output, "an output", &names.outputs, problems);
    }
    let Some((table, name)) = binding.at("table").and_then(|table| Some((table.clone(), table.as_text()?))) else {
        return;
    };
    if names.table(name, &table, problems) {
        for (column, used) in binding.members("where").chain(binding.members("order_by")) {
            if !JOINING_KEYS.contains(&column) {
                names.column(name, column, &used, problems);
            }
        }
    }
}

/// `input.<field>` must be a field of the input, where the input's schema names all of them.
fn input_field(action: &View<'_>, key: &str, problems: &mut Vec<Problem>) {
    let Some((used, text)) = action.at(key).and_then(|used| Some((used.clone(), used.as_text()?))) else { return };
    let closed = action.at("input_schema/additionalProperties").is_some_and(|rest| rest.value == &Value::Bool(false));
    let Some(field) = text.strip_prefix("input.").filter(|_| closed) else { return };
    let fields: BTreeSet<&str> = action.members("input_schema/properties").map(|(name, _)| name).collect();
    if !fields.contains(field) {
        problems.push(unknown(&used, field, "a field of the input", fields.iter().copied()));
    }
}
