//! Where in the author's text each value stands. A tree beside the value's own, so that its size is that of the text.

use std::collections::HashMap;

use super::{complaint::subject, problem::Problem};

/// A place in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// From 1.
    pub(super) line: u32,
    /// In characters, from 1.
    pub(super) column: u32,
}

/// The place of a value and of what is inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Positions {
    /// Where the key stands; of an item or the whole, where the value stands.
    pub(super) key: Mark,
    /// Where the value begins.
    pub(super) value: Mark,
    /// The places of an object's members.
    pub(super) fields: HashMap<String, Positions>,
    /// The places of an array's items.
    pub(super) items: Vec<Positions>,
}

impl Positions {
    /// A value at `mark` with nothing inside.
    pub(super) fn at(mark: Mark) -> Self {
        Self { key: mark, value: mark, fields: HashMap::new(), items: Vec::new() }
    }

    /// Gives each problem its line and column and sorts them by place. A pointer that leads into what the loader wrote
    /// out from a short form is cut back to what the author wrote.
    pub fn locate(&self, mut problems: Vec<Problem>) -> Vec<Problem> {
        for problem in problems.iter_mut().filter(|problem| problem.line == 0) {
            let (pointer, place) = self.nearest(&problem.pointer);
            let mark = if problem.code.is_about_the_key() { place.key } else { place.value };
            if problem.pointer != pointer && problem.code.is_about_form() {
                problem.message = format!("in {}: {}", subject(&pointer, "the manifest"), problem.message);
            }
            problem.pointer = pointer;
            problem.line = mark.line;
            problem.column = Some(mark.column);
        }
        problems.sort_by(|a, b| {
            (a.line, a.column, &a.pointer, a.code, &a.message).cmp(&(b.line, b.column, &b.pointer, b.code, &b.message))
        });
        problems.dedup();
        problems
    }

    /// The place of `pointer`, or of the nearest thing around it that is in the text.
    fn nearest(&self, pointer: &str) -> (String, &Self) {
        let mut found = (String::new(), self);
        for token in pointer.split('/').skip(1) {
            let place = found.1;
            let next = match token.parse::<usize>() {
                Ok(index) if !place.items.is_empty() => place.items.get(index),
                _ => place.fields.get(&unescape(token)),
            };
            let Some(next) = next else { break };
            found = (format!("{}/{token}", found.0), next);
        }
        found
    }
}

/// Appends a member's name to a pointer (RFC 6901).
pub(super) fn join(pointer: &str, token: impl std::fmt::Display) -> String {
    let token = token.to_string().replace('~', "~0").replace('/', "~1");
    format!("{pointer}/{token}")
}

/// A token of a pointer as the name it stands for.
pub(super) fn unescape(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}
