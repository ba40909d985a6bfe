//! What a manifest means: names that are used exist, keys fit, permissions cover what is used. Each file is one sort of
//! question; each works on a manifest whose form may still be wrong.

mod advice;
mod columns;
mod cycle;
mod exports;
mod grants;
mod handlers;
mod identity;
mod keys;
mod names;
mod schedules;
mod schemas;

use serde_json::Value;

pub use self::{cycle::dependency_cycles, exports::check_exports};
use super::{problem::Problem, view::View};

/// Everything that is wrong or worth advice in a manifest with short forms written out.
pub(super) fn problems(value: &Value) -> Vec<Problem> {
    let root = View::of(value);
    let checks: [fn(&View<'_>, &names::Names<'_>, &mut Vec<Problem>); 10] = [
        identity::check,
        names::check,
        keys::check,
        columns::check,
        handlers::check,
        grants::check,
        schemas::check,
        schedules::check,
        cycle::check,
        advice::check,
    ];
    let names = names::Names::of(&root);
    let mut problems = Vec::new();
    for check in checks {
        check(&root, &names, &mut problems);
    }
    problems
}
