//! Which global names an app may use, by its text. What a text does not name is not made for its passes.
//!
//! A module is strict and has no `eval`, so it can use a global only by its name or through `globalThis`, both written in its
//! text, perhaps with an escape. Who gets at the global object by a trick finds names missing, the same ones in every pass:
//! this decides what is made, not what is allowed.

/// Names of `late.js`.
const LATE: [&str; 4] = ["Date", "Intl", "KrilinError", "console"];
/// Names of `web.js`, and the ways to names that are not in the text.
const WEB: [&str; 6] = ["URL", "TextDecoder", "TextEncoder", "globalThis", "structuredClone", "\\u"];
/// What the names of typed arrays and of what is under them have in common.
const TYPED_ARRAYS: [&str; 7] = ["ArrayBuffer", "DataView", "8Array", "8ClampedArray", "16Array", "32Array", "64Array"];

/// What an app's text asks of a context: too much when a name stands in a string or a comment, never too little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Names {
    /// What the prelude's `begin` installs: nothing, the names of `late.js`, or those of `web.js` too.
    pub(super) install: u8,
    /// Whether typed arrays are there. `web.js` needs them.
    pub(super) typed_arrays: bool,
}

impl Names {
    /// All there is to install.
    pub(super) const MOST: u8 = 2;

    /// What `source` asks for.
    pub(super) fn of(source: &str) -> Self {
        let any = |names: &[&str]| names.iter().any(|name| source.contains(name));
        let install = match (any(&WEB), any(&LATE)) {
            (true, _) => Self::MOST,
            (false, true) => 1,
            (false, false) => 0,
        };
        Self { install, typed_arrays: install == Self::MOST || any(&TYPED_ARRAYS) }
    }
}
