//! Uses and scopes cover each other: what is used of another app is asked for (E105, W105), and what is asked for belongs
//! to something the app depends on (E106).

use super::names::Names;
use crate::model::{
    manifest::{
        complaint::list,
        problem::{Problem, ProblemCode},
        view::View,
    },
    near::hint,
};

pub(super) fn check(root: &View<'_>, names: &Names<'_>, problems: &mut Vec<Problem>) {
    for app in ["dependencies/required_apps", "dependencies/optional_apps"].iter().flat_map(|list| root.items(list)) {
        let Some(app_id) = app.text("app_id") else { continue };
        for used in app.items("uses") {
            uses(&used, app_id, names, problems);
        }
    }
    for scope in root.items("permissions/data_scopes") {
        self::scope(&scope, names, problems);
    }
}

fn uses(used: &View<'_>, app: &str, names: &Names<'_>, problems: &mut Vec<Problem>) {
    let Some(text) = used.as_text() else { return };
    let scope = match text.split_once(':') {
        Some(("output", name)) => format!("read:output:{app}.{name}"),
        Some(("stream", name)) => format!("read:stream:{app}.{name}"),
        Some(("action", name)) => format!("call:action:{app}.{name}"),
        Some(_) => return,
        None if text == "agent" => format!("ask:agent:{app}"),
        None => {
            let asked = names.scopes.iter().any(|scope| scope.ends_with(&format!(":{app}.{text}")));
            if !asked {
                let words = format!(
                    "`{text}` of `{app}` has no scope; say what it is, as in `output:{text}`, and ask for it, as in \
                     `read:output:{app}.{text}`"
                );
                problems.push(used.problem(ProblemCode::UndeclaredUse, words));
            }
            return;
        }
    };
    if !names.scopes.contains(scope.as_str()) {
        let words = format!("`{text}` of `{app}` needs the scope `{scope}`: add it to permissions.data_scopes");
        problems.push(used.problem(ProblemCode::MissingScope, words));
    }
}

fn scope(scope: &View<'_>, names: &Names<'_>, problems: &mut Vec<Problem>) {
    let Some(text) = scope.as_text() else { return };
    let parts: Vec<&str> = text.splitn(3, ':').collect();
    let [verb, sort, target] = parts[..] else { return };
    let words = if sort == "integration" {
        match names.integrations.get(target) {
            None => missing("an integration", target, names.integrations.keys().copied()),
            Some(access) if verb == "write" && *access != "read_write" => {
                format!("`{target}` is a dependency with `access: {access}`; this scope needs `access: read_write`")
            }
            Some(_) => return,
        }
    } else {
        let app = target.split('.').next().unwrap_or(target);
        match app {
            _ if app == names.app_id => format!("`{text}` names the app itself, which needs no scope for it"),
            _ if !names.apps.contains(app) => missing("an app", app, names.apps.iter().copied()),
            _ => return,
        }
    };
    problems.push(scope.problem(ProblemCode::MissingDependency, words));
}

fn missing<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let near = hint(name, known.clone());
    let tail = match known.clone().next() {
        Some(_) if near.is_empty() => format!("; there is {}", list(known)),
        _ => near,
    };
    format!("`{name}` is not {what} among the dependencies{tail}")
}
