//! A look at a part of a manifest that may be broken: whatever is not of the expected shape is simply not there. So the
//! checks of meaning run beside those of form, and one mistake does not hide another.

use serde_json::{Map, Value};

use super::{
    position::join,
    problem::{Problem, ProblemCode},
};

/// A value with its pointer.
#[derive(Debug, Clone)]
pub(super) struct View<'a> {
    pub(super) pointer: String,
    pub(super) value: &'a Value,
}

impl<'a> View<'a> {
    /// The whole.
    pub(super) fn of(value: &'a Value) -> Self {
        Self { pointer: String::new(), value }
    }

    /// What is at a path of keys such as `database/tables`.
    pub(super) fn at(&self, path: &str) -> Option<View<'a>> {
        let mut found = self.clone();
        for key in path.split('/') {
            found = View { pointer: join(&found.pointer, key), value: found.value.as_object()?.get(key)? };
        }
        Some(found)
    }

    /// The items of the list at a path.
    pub(super) fn items(&self, path: &str) -> impl Iterator<Item = View<'a>> + use<'a> {
        let list = self.at(path);
        let items = list.as_ref().and_then(|list| list.value.as_array());
        let pointer = list.as_ref().map(|list| list.pointer.clone()).unwrap_or_default();
        items.into_iter().flatten().enumerate().map(move |(i, value)| View { pointer: join(&pointer, i), value })
    }

    /// The members of the object at a path.
    pub(super) fn members(&self, path: &str) -> impl Iterator<Item = (&'a str, View<'a>)> + use<'a> {
        let object = self.at(path);
        let members: Option<&'a Map<String, Value>> = object.as_ref().and_then(|object| object.value.as_object());
        let pointer = object.as_ref().map(|object| object.pointer.clone()).unwrap_or_default();
        members
            .into_iter()
            .flatten()
            .map(move |(name, value)| (name.as_str(), View { pointer: join(&pointer, name), value }))
    }

    /// The value as a text.
    pub(super) fn as_text(&self) -> Option<&'a str> {
        self.value.as_str()
    }

    /// The text at a path.
    pub(super) fn text(&self, path: &str) -> Option<&'a str> {
        self.at(path)?.value.as_str()
    }

    /// Whether `true` is at a path.
    pub(super) fn flag(&self, path: &str) -> bool {
        self.at(path).is_some_and(|flag| flag.value == &Value::Bool(true))
    }

    /// A problem with this value.
    pub(super) fn problem(&self, code: ProblemCode, message: impl Into<String>) -> Problem {
        Problem::new(code, self.pointer.clone(), message)
    }
}
