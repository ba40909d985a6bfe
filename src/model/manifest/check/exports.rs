//! A manifest against the functions that its bundle exports: every handler is there (E104), and tools without a declared
//! action use the function of that name (W101).

use super::handlers::WRITE_SCOPE;
use crate::model::{
    manifest::{
        Manifest, OutputKind,
        action::Action,
        position::join,
        problem::{Problem, ProblemCode},
    },
    near::hint,
};

/// What does not fit between a manifest and the names that its module exports, in order of the manifest. Not located in
/// a text: use [`Positions::locate`](crate::model::manifest::Positions::locate).
pub fn check_exports(manifest: &Manifest, exports: &[String]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let is_exported = |name: &str| exports.iter().any(|export| export == name);
    let near = |name: &str| hint(name, exports.iter().map(String::as_str));
    for (i, action) in manifest.actions.iter().enumerate() {
        let handler = action.handler();
        if !is_exported(handler) {
            let key = if action.handler_name.is_some() { "handler" } else { "id" };
            let words = format!("the bundle exports no function `{handler}`{}", near(handler));
            problems.push(Problem::new(ProblemCode::UnknownAction, join(&join("/actions", i), key), words));
        }
    }
    for (i, output) in manifest.outputs.iter().enumerate() {
        let handler = format!("output_{}", output.id);
        if matches!(&output.kind, OutputKind::Data(data) if data.action.is_none()) && !is_exported(&handler) {
            let words = format!(
                "the bundle exports no function `{handler}`{}; export it, or name a query with `action`",
                near(&handler)
            );
            problems.push(Problem::new(ProblemCode::UnknownAction, join("/outputs", i), words));
        }
    }
    let may_write = manifest.permissions.data_scopes.iter().any(|scope| scope == WRITE_SCOPE);
    for (pointer, name) in undeclared(manifest) {
        if !is_exported(name) {
            let words = format!("`{name}` is neither an action nor a function of the bundle{}", near(name));
            problems.push(Problem::new(ProblemCode::UnknownAction, pointer, words));
            continue;
        }
        if !may_write {
            let words = format!(
                "`{name}` is not declared and so counts as a mutation, and the app may not write: declare it with \
                 `kind: query`, or add `{WRITE_SCOPE}` to permissions.data_scopes"
            );
            problems.push(Problem::new(ProblemCode::ToolNeedsWrite, pointer.clone(), words));
        }
        let words = format!(
            "`{name}` is not among `actions`; the exported function is used, as a mutation with an open input and 30 s"
        );
        problems.push(Problem::new(ProblemCode::ImplicitAction, pointer, words));
    }
    problems
}

/// The tools' actions that are not declared, each once, with the first place that names it.
fn undeclared(manifest: &Manifest) -> Vec<(String, &str)> {
    let mut found: Vec<(String, &str)> = Vec::new();
    let tools = manifest.agent_config.iter().flat_map(|agent| agent.tools.iter().enumerate());
    for (i, tool) in tools {
        let is_new = manifest.action(&tool.action).is_none() && !found.iter().any(|(_, name)| *name == tool.action);
        if is_new {
            found.push((join("/agent_config/tools", i), &tool.action));
        }
    }
    found
}

impl Manifest {
    /// Adds the actions that tools name, that are not declared, and whose function is exported. To be done before a
    /// manifest is stored with its bundle.
    pub fn add_implicit_actions(&mut self, exports: &[String]) {
        let names: Vec<String> = undeclared(self).into_iter().map(|(_, name)| name.to_owned()).collect();
        let exported = names.iter().filter(|name| exports.contains(name));
        self.actions.extend(exported.map(|name| Action::implicit(name)));
    }
}
