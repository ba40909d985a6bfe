//! Actions that are named exist and are of the right kind (E104); what an agent may run fits what the app may do (E110)
//! and asks before it destroys (E112). A tool may name an action that is not declared: an exported function of that name
//! will do, and [`super::check_exports`] looks for it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::names::Names;
use crate::model::{
    manifest::{
        complaint::list,
        problem::{Problem, ProblemCode},
        view::View,
    },
    near::hint,
};

/// The scope without which every write is refused.
pub(super) const WRITE_SCOPE: &str = "write:own_data";

/// The keys of `hooks`.
const HOOKS: [&str; 4] = ["on_install", "on_upgrade", "on_uninstall", "on_settings_changed"];

pub(super) fn check(root: &View<'_>, names: &Names<'_>, problems: &mut Vec<Problem>) {
    let lists = ["schedules", "subscriptions", "agent_config/shortcuts", "database/migrations"];
    let listed = lists.iter().flat_map(|list| root.items(list)).filter_map(|item| item.at("action"));
    let hooks = root.at("hooks");
    let hooked = HOOKS.iter().filter_map(|hook| hooks.as_ref()?.at(hook));
    for used in listed.chain(hooked) {
        known(&used, names, problems);
    }
    for output in root.items("outputs").filter_map(|output| output.at("action")) {
        query(&output, names, problems);
    }
    for view in root.items("ui_components/widgets").chain(root.items("ui_components/pages")) {
        for (_, binding) in view.members("data") {
            if let Some(used) = binding.at("query") {
                query(&used, names, problems);
            }
        }
        if let Some(tree) = view.at("view") {
            components(&tree, names, problems);
        }
    }
    tools(root, names, problems);
}

/// Whether the action exists, declared or as a tool's.
fn known(used: &View<'_>, names: &Names<'_>, problems: &mut Vec<Problem>) -> bool {
    let Some(id) = used.as_text() else { return false };
    let known = names.actions.contains_key(id) || names.tool_actions.contains(id);
    if !known {
        let all: BTreeSet<&str> = names.actions.keys().copied().chain(names.tool_actions.iter().copied()).collect();
        let tail = match hint(id, all.iter().copied()) {
            near if !near.is_empty() => near,
            _ if all.is_empty() => "; none is declared".to_owned(),
            _ => format!("; there is {}", list(all)),
        };
        problems.push(used.problem(ProblemCode::UnknownAction, format!("`{id}` is not an action{tail}")));
    }
    known
}

fn query(used: &View<'_>, names: &Names<'_>, problems: &mut Vec<Problem>) {
    if !known(used, names, problems) {
        return;
    }
    let id = used.as_text().unwrap_or_default();
    let Some(kind) = names.actions.get(id).map(|action| action.text("kind").unwrap_or("mutation")) else { return };
    if kind != "query" {
        let words = format!("`{id}` is a {kind}; outputs and views only read, and need an action of kind `query`");
        problems.push(used.problem(ProblemCode::UnknownAction, words));
    }
}

/// Every `action` in a tree of components.
fn components(part: &View<'_>, names: &Names<'_>, problems: &mut Vec<Problem>) {
    let inner: Vec<View<'_>> = match part.value {
        Value::Object(map) => map.keys().filter_map(|key| part.at(key)).collect(),
        Value::Array(items) => {
            let place = |(i, value)| View { pointer: format!("{}/{i}", part.pointer), value };
            items.iter().enumerate().map(place).collect()
        }
        _ => return,
    };
    if let Some(action) = part.at("action") {
        known(&action, names, problems);
    }
    for inner in inner {
        components(&inner, names, problems);
    }
}

fn tools(root: &View<'_>, names: &Names<'_>, problems: &mut Vec<Problem>) {
    let may_write = names.scopes.contains(WRITE_SCOPE);
    let shortcuts = root.items("agent_config/shortcuts").map(|shortcut| (shortcut, "a shortcut"));
    let tools = root.items("agent_config/tools").map(|tool| (tool, "a tool"));
    for (tool, what) in tools.chain(shortcuts) {
        let Some((id, action)) = tool.text("action").and_then(|id| Some((id, names.actions.get(id)?))) else {
            continue;
        };
        let kind = action.text("kind").unwrap_or("mutation");
        if kind != "query" && !may_write {
            let words = format!(
                "`{id}` is a {kind}, and the app may not write: add `{WRITE_SCOPE}` to permissions.data_scopes, or make \
                 the action a query"
            );
            problems.push(tool.problem(ProblemCode::ToolNeedsWrite, words));
        }
        let unasked = what == "a shortcut" || tool.text("confirm") == Some("never");
        if action.flag("destructive") && unasked {
            let words = format!(
                "{what} runs `{id}`, which is destructive, without asking; give it to a tool whose `confirm` is not `never`"
            );
            problems.push(tool.at("confirm").unwrap_or(tool).problem(ProblemCode::Unconfirmed, words));
        }
    }
}
