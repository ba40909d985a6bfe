//! Apps that require each other in a circle cannot be installed in any order (E111). Circles through an optional
//! dependency are no error: that edge is ignored when apps are put in order.

use std::collections::{BTreeMap, BTreeSet};

use super::{keys::path, names::Names};
use crate::model::manifest::{
    Manifest,
    problem::{Problem, ProblemCode},
    view::View,
};

/// An app that depends on itself is the circle that one manifest can show.
pub(super) fn check(root: &View<'_>, names: &Names<'_>, problems: &mut Vec<Problem>) {
    for list in ["dependencies/required_apps", "dependencies/optional_apps"] {
        for app in root.items(list).filter_map(|app| app.at("app_id")) {
            if app.as_text() == Some(names.app_id) {
                problems.push(app.problem(ProblemCode::DependencyCycle, "an app cannot depend on itself"));
            }
        }
    }
}

/// Every dependency by which `of` requires itself by way of other apps. In: its manifest and those of the apps it may
/// reach, in any order. Out: a problem for each, with a pointer into `of`.
pub fn dependency_cycles(of: &Manifest, others: &[&Manifest]) -> Vec<Problem> {
    let edges: BTreeMap<&str, BTreeSet<&str>> = others
        .iter()
        .chain([&of])
        .map(|manifest| {
            let required = manifest.dependencies.required_apps.iter().map(|app| app.app_id.as_str());
            (manifest.metadata.id.as_str(), required.collect())
        })
        .collect();
    let own = of.metadata.id.as_str();
    let required = of.dependencies.required_apps.iter().enumerate();
    required
        .filter_map(|(i, app)| {
            let way = path(&edges, app.app_id.as_str(), own)?;
            let words = format!(
                "these apps require each other, so that none can be installed first: {own} → {}",
                way.join(" → ")
            );
            Some(Problem::new(ProblemCode::DependencyCycle, format!("/dependencies/required_apps/{i}"), words))
        })
        .collect()
}
