//! What is wrong with a manifest: a code, a place and a sentence for the author. The codes are a reference that tests
//! and documents may rely on; `E` stops an app, `W` does not.

use std::fmt;

use serde::{Serialize, Serializer};

macro_rules! problem_codes {
    ($($name:ident $text:literal $doc:literal;)+) => {
        /// The codes of [`Problem`]. `E0xx` is about form, `E1xx` about meaning, `E2xx` about the code
        /// beside the manifest, `W` is advice.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ProblemCode { $(#[doc = $doc] $name,)+ }

        impl ProblemCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The code as it is printed.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// What it stands for, in one sentence.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => $doc,)+ }
            }
        }
    };
}

problem_codes! {
    Syntax "E001" "The text cannot be read as JSON or YAML, is too long or is nested too deeply.";
    Missing "E002" "A key that must be there is not.";
    UnknownKey "E003" "A key is not part of the manifest; keys of your own begin with x-.";
    WrongType "E004" "A value is of the wrong JSON type.";
    NotAllowed "E005" "A value is not among those allowed.";
    WrongForm "E006" "A text does not have the form it must have.";
    OutOfBounds "E007" "A number, a length or a count is too small or too large.";
    WrongChoice "E008" "Keys exclude each other, or none of several is there.";
    Reserved "E009" "A name belongs to the platform.";
    NewerVersion "E010" "The manifest is written for a newer Krilin.";
    DuplicateKey "E011" "A key is there twice in one object.";
    YamlFeature "E012" "Anchors, aliases, tags and several documents are not allowed in a YAML manifest.";
    DuplicateId "E101" "Two things of one sort have the same id.";
    UnknownName "E102" "A table, column, setting, page, output or stream that is named does not exist.";
    ForeignKey "E103" "A foreign key does not fit what it points at, or keys with cascade form a cycle.";
    UnknownAction "E104" "An action or handler that is named does not exist, or is of the wrong kind.";
    MissingScope "E105" "A use of another app is not among the data scopes.";
    MissingDependency "E106" "A scope names an app or integration that is not a dependency.";
    LongTableName "E107" "A table's name in Postgres would be longer than 63 bytes.";
    BadSchema "E108" "A schema of an output, action, tool or stream does not compile.";
    BadSchedule "E109" "A schedule cannot be read, never fires, or fires more than once a minute.";
    ToolNeedsWrite "E110" "An agent's tool writes, and the app may not.";
    DependencyCycle "E111" "Apps require each other in a cycle.";
    Unconfirmed "E112" "An agent can run a destructive action without asking.";
    ColumnRules "E113" "A column's rules do not fit its type.";
    BadCode "E201" "The code of an app is missing, is too long or does not load.";
    ImplicitAction "W101" "A tool's action is not declared; the exported function of that name is used.";
    UndeclaredUse "W105" "A use does not say what sort of thing it names, so that no scope can be checked.";
    AmbiguousSchema "W201" "A schema can be read as JSON Schema and as a flat map; it is read as JSON Schema.";
    LongPrompt "W202" "A system prompt is longer than 1,500 characters, and each turn pays for it.";
    ShortPrefix "W203" "Prompt and tools are shorter than 512 tokens, so that the model's cache will not keep them.";
    UnusedIndex "W204" "None of the queries that the manifest declares on a table uses an index of it.";
}

impl ProblemCode {
    /// Whether it is advice: the app can be used all the same.
    pub fn is_warning(self) -> bool {
        self.as_str().starts_with('W')
    }

    /// Whether it is about how something is written, not about what it means.
    pub(super) fn is_about_form(self) -> bool {
        self.as_str().starts_with("E0")
    }

    /// Whether the place that matters is the key, not its value.
    pub(super) fn is_about_the_key(self) -> bool {
        matches!(self, Self::UnknownKey | Self::Reserved | Self::DuplicateKey)
    }
}

impl fmt::Display for ProblemCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ProblemCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One thing that is wrong, or could be better.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{}:{} {code} {pointer}: {message}", line, column.unwrap_or(1))]
pub struct Problem {
    /// JSON pointer (RFC 6901) into the author's text; empty for the whole.
    pub pointer: String,
    /// Which of the codes.
    pub code: ProblemCode,
    /// The line, from 1; 0 when there is no text to point into.
    pub line: u32,
    /// The character in the line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// For the author: what the field is, what it must be.
    pub message: String,
}

impl Problem {
    /// A problem that has not been located in a text yet.
    pub fn new(code: ProblemCode, pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), code, line: 0, column: None, message: message.into() }
    }
}
