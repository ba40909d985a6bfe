//! What app code and API clients see when something does not work: one error with a code.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $code:ident $status:literal $again:ident;)+) => {
        /// The codes of [`CtxError`]: stable names that clients and app code may branch on.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Code { $($(#[doc = $doc])+ $code,)+ }

        impl Code {
            /// Every code, in the order of the reference.
            pub const ALL: &[Self] = &[$(Self::$code,)+];

            /// The code's name as it appears in problem documents and in JavaScript.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$code => stringify!($code),)+ }
            }

            /// The HTTP status a problem document with this code has.
            pub fn http_status(self) -> u16 {
                match self { $(Self::$code => $status,)+ }
            }

            /// Whether the job system tries again after this code.
            pub fn again(self) -> Again {
                match self { $(Self::$code => Again::$again,)+ }
            }
        }
    };
}

/// Whether an error is worth another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// The same would happen again.
    Never,
    /// Once more, then it is final.
    Once,
    /// As often as the job's policy allows.
    Policy,
}

codes! {
    /// Input or row does not fit its schema; `details` lists the fields.
    ValidationFailed 422 Never;
    /// `ctx.fail(message)`: a refusal that the user reads as written.
    Refused 409 Never;
    /// The user has not installed the app.
    NotInstalled 403 Never;
    /// A grant is missing; the message names it.
    PermissionDenied 403 Never;
    /// There is no such thing, or it belongs to somebody else.
    NotFound 404 Never;
    /// `expected_version` was stale, or two transactions met.
    Conflict 409 Once;
    /// A row with this key is already there.
    UniqueViolation 409 Never;
    /// The row points at, or is pointed at by, another.
    ForeignKeyViolation 409 Never;
    /// A limit on rows, bytes, calls or lines is reached; the message names it.
    QuotaExceeded 413 Never;
    /// Too many requests in a short time.
    RateLimited 429 Policy;
    /// The wall clock of the action ran out.
    Timeout 504 Policy;
    /// The CPU time of a pass ran out.
    CpuLimit 500 Once;
    /// The memory of a pass ran out.
    MemoryLimit 500 Once;
    /// A promise is pending and nothing can settle it.
    Stalled 500 Never;
    /// The app's code threw an error of its own, or does not compile.
    AppError 500 Never;
    /// The job was cancelled.
    Cancelled 499 Never;
    /// The job's deadline passed before it had ended.
    DeadlineExceeded 504 Never;
    /// A job that this one waited for did not end well; `details` counts them.
    ChildFailed 424 Never;
    /// Postgres cannot be reached just now.
    Unavailable 503 Policy;
    /// Anything else; the cause is logged, not shown.
    Internal 500 Policy;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error as app code catches it (`KrilinError`) and as a problem document carries it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error, utoipa::ToSchema)]
#[error("{code}: {message}")]
#[schema(as = JobError)]
pub struct CtxError {
    /// Which of the codes.
    #[schema(value_type = String)]
    pub code: Code,
    /// For a person: what happened and, where it helps, what to do. Never holds another user's data or an internal cause.
    pub message: String,
    /// For a program; with `ValidationFailed` a list of `{pointer, message}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
    /// How long to wait before another try is worth it, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl CtxError {
    /// An error with a code and words.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: None, retry_after_ms: None }
    }

    /// The same with details for programs.
    #[must_use]
    pub fn with_details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }

    /// The same with a time to wait.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after_ms = Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        self
    }
}
