//! Ids: each is there once (E101), versions are versions (E006), table names fit into Postgres (E107).

use std::collections::HashMap;

use semver::{Version, VersionReq};

use super::names::Names;
use crate::model::manifest::{
    PHYSICAL_NAME_MAX_BYTES,
    problem::{Problem, ProblemCode},
    table::physical_name,
    view::View,
};

/// Lists whose items have an id: which lists share one space of names, the id's key, the noun.
const SPACES: [(&[&str], &str, &str); 12] = [
    (&["outputs"], "id", "outputs"),
    (&["actions"], "id", "actions"),
    (&["schedules"], "id", "schedules"),
    (&["streams"], "id", "streams"),
    (&["database/tables"], "name", "tables"),
    (&["agent_config/tools"], "name", "tools"),
    (&["ui_components/widgets"], "id", "widgets"),
    (&["ui_components/pages"], "id", "pages"),
    (&["ui_components/pages"], "path", "pages"),
    (&["ui_components/settings"], "key", "settings"),
    (&["dependencies/required_apps", "dependencies/optional_apps"], "app_id", "dependencies"),
    (&["dependencies/required_integrations", "dependencies/optional_integrations"], "integration_id", "dependencies"),
];

pub(super) fn check(root: &View<'_>, names: &Names<'_>, problems: &mut Vec<Problem>) {
    for (lists, key, noun) in SPACES {
        let mut seen: HashMap<&str, String> = HashMap::new();
        for id in lists.iter().flat_map(|list| root.items(list)).filter_map(|item| item.at(key)) {
            let Some(text) = id.as_text() else { continue };
            if let Some(first) = seen.get(text) {
                let words = format!("two {noun} have the {key} `{text}`; the first is `{first}`");
                problems.push(id.problem(ProblemCode::DuplicateId, words));
            } else {
                seen.insert(text, id.pointer.clone());
            }
        }
    }
    versions(root, problems);
    for table in root.items("database/tables").filter_map(|table| table.at("name")) {
        let Some(name) = table.as_text() else { continue };
        let physical = physical_name(names.app_id, name);
        if physical.len() > PHYSICAL_NAME_MAX_BYTES {
            let words = format!(
                "the table would be called `{physical}` in Postgres, which is {} bytes long; {PHYSICAL_NAME_MAX_BYTES} \
                 are allowed, so shorten it by {}",
                physical.len(),
                physical.len() - PHYSICAL_NAME_MAX_BYTES
            );
            problems.push(table.problem(ProblemCode::LongTableName, words));
        }
    }
}

/// The schema's patterns let a few texts through that are no versions (`1.0.0-01`, `==1`).
fn versions(root: &View<'_>, problems: &mut Vec<Problem>) {
    let outputs = root
        .items("outputs")
        .flat_map(|output| output.at("version").into_iter().chain(output.items("deprecated_versions")));
    let migrations = root.items("database/migrations").filter_map(|migration| migration.at("to"));
    for version in root.at("metadata/version").into_iter().chain(outputs).chain(migrations) {
        if let Some(Err(error)) = version.as_text().map(Version::parse) {
            problems.push(
                version.problem(
                    ProblemCode::WrongForm,
                    format!("this is not a semantic version such as `1.0.0`: {error}"),
                ),
            );
        }
    }
    let dependencies = ["dependencies/required_apps", "dependencies/optional_apps"];
    let ranges = dependencies.iter().flat_map(|list| root.items(list)).filter_map(|app| app.at("version"));
    for range in root.at("metadata/krilin").into_iter().chain(ranges) {
        if let Some(Err(error)) = range.as_text().map(VersionReq::parse) {
            let words = format!("this is not a range of versions such as `^1.2` or `>=1.2, <2`: {error}");
            problems.push(range.problem(ProblemCode::WrongForm, words));
        }
    }
}
