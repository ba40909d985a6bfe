//! Schemas of outputs, actions, tools and streams compile (E108).

use super::names::Names;
use crate::model::manifest::{
    problem::{Problem, ProblemCode},
    record::{self, Role},
    view::View,
};

/// The lists whose items hold schemas, under which key.
const HOLDERS: [(&str, &str); 5] = [
    ("outputs", "schema"),
    ("actions", "input_schema"),
    ("actions", "output_schema"),
    ("agent_config/tools", "input_schema"),
    ("streams", "schema"),
];

pub(super) fn check(root: &View<'_>, _: &Names<'_>, problems: &mut Vec<Problem>) {
    for (list, key) in HOLDERS {
        for schema in root.items(list).filter_map(|holder| holder.at(key)) {
            if !schema.value.is_object() && !schema.value.is_boolean() {
                continue; // The manifest's schema has said so.
            }
            // Short forms are written out already, and so is what was wrong with them. The role no longer matters.
            if let Err(error) = record::compile(schema.value, Role::Output) {
                let pointer = format!("{}{}", schema.pointer, error.pointer);
                problems.push(Problem::new(ProblemCode::BadSchema, pointer, error.message));
            }
        }
    }
}
