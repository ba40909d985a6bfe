//! Which global names an app may use, by its text. What a text does not name is not made for its passes.
//!
//! A module is strict and has no `eval`, so it can use a global only by its name or through `globalThis`, both written in its
//! text, perhaps with an escape. Who gets at the global object by a trick finds names missing, the same ones in every pass:
//! this decides what is made, not what is allowed.

/// Names of `late.js`.
const LATE: [&str; 4] = ["Date", "Intl", "KrilinError", "console"];
/// Names of `web.js`, and the ways to names that are not in the text.
const WEB: [&str; 6] = ["URL", "TextDecoder", "TextEncoder", "globalThis", "structuredClone", "\\u"];
/// What the names of collections have in common.
const COLLECTIONS: [&str; 2] = ["Map", "Set"];
/// Names of what makes a pattern of a text. A pattern that is written as one has no name: the compiler finds it.
const PATTERNS: [&str; 3] = ["RegExp", "match", "search"];
/// What the names of typed arrays and of what is under them have in common.
const TYPED_ARRAYS: [&str; 7] = ["ArrayBuffer", "DataView", "8Array", "8ClampedArray", "16Array", "32Array", "64Array"];

/// Builtins that are made only for apps that name them: each is dear to make and to free, in every pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Builtins {
    /// Typed arrays and what is under them.
    pub(super) typed_arrays: bool,
    /// `Map`, `Set` and their weak sisters.
    pub(super) collections: bool,
    /// `RegExp`.
    pub(super) patterns: bool,
}

impl Builtins {
    /// All there are: `web.js` needs them.
    pub(super) const ALL: Self = Self { typed_arrays: true, collections: true, patterns: true };
}

/// What an app's text asks of a context: too much when a name stands in a string or a comment, never too little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Names {
    /// What the prelude's `begin` installs: nothing, the names of `late.js`, or those of `web.js` too.
    pub(super) install: u8,
    /// What the context has.
    pub(super) builtins: Builtins,
}

impl Names {
    /// All there is to install.
    pub(super) const MOST: u8 = 2;

    /// What `source` asks for by name.
    pub(super) fn of(source: &str) -> Self {
        let any = |names: &[&str]| names.iter().any(|name| source.contains(name));
        if any(&WEB) {
            return Self { install: Self::MOST, builtins: Builtins::ALL };
        }
        let builtins =
            Builtins { typed_arrays: any(&TYPED_ARRAYS), collections: any(&COLLECTIONS), patterns: any(&PATTERNS) };
        Self { install: u8::from(any(&LATE)), builtins }
    }
}
