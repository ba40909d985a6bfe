//! Problems: how this server says that something did not work (RFC 9457, `application/problem+json`).
//!
//! A handler returns a [`Problem`]; the outermost layer ([`super::trace`]) writes it, because only it knows the trace.
//! Refuses to show causes: what went wrong inside is logged once, with the trace id the client also gets.

use std::time::Duration;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    model::{
        error::{Again, Code, CtxError},
        id::JobId,
    },
    queue, store,
};

/// The most single errors one problem lists; the rest are counted in `detail`.
pub const ERRORS_MAX: usize = 100;
/// When a request may come again whose idempotency key is in another one's hands.
pub const IN_FLIGHT_RETRY_AFTER: Duration = Duration::from_secs(1);
/// What the path of every problem type begins with.
pub const TYPE_PREFIX: &str = "/problems/";

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident $status:literal $again:literal $slug:literal $title:literal;)+) => {
        /// The sorts of problem that arise before any app code or job is involved. Their slugs are stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Kind {
            $($(#[doc = $doc])+ $kind,)+
            /// One that app code or a job ended with.
            Code(Code),
        }

        impl Kind {
            /// Every kind that is no [`Code`], in the order of the reference.
            pub const OWN: &[Self] = &[$(Self::$kind,)+];

            /// The last segment of `type`.
            pub fn slug(self) -> String {
                match self {
                    $(Self::$kind => $slug.to_owned(),)+
                    Self::Code(code) => words(code).join("-"),
                }
            }

            /// The same words every time.
            pub fn title(self) -> String {
                match self {
                    $(Self::$kind => $title.to_owned(),)+
                    Self::Code(code) => sentence(code),
                }
            }

            /// The status of the answer.
            pub fn status(self) -> u16 {
                match self {
                    $(Self::$kind => $status,)+
                    Self::Code(code) => code.http_status(),
                }
            }

            /// Whether the same request may succeed later.
            pub fn retryable(self) -> bool {
                match self {
                    $(Self::$kind => $again,)+
                    Self::Code(code) => code.again() != Again::Never,
                }
            }

            fn code(self) -> &'static str {
                match self {
                    $(Self::$kind => stringify!($kind),)+
                    Self::Code(code) => code.as_str(),
                }
            }
        }
    };
}

kinds! {
    /// The body cannot be read as JSON; `detail` names line and column.
    MalformedJson 400 false "malformed-json" "The body is not JSON";
    /// A header, a path segment or a query parameter does not hold what it should.
    BadRequest 400 false "bad-request" "The request is not understood";
    /// There is no `Authorization: Bearer` header.
    TokenMissing 401 false "token-missing" "A token is needed";
    /// No such token, or its secret is another.
    TokenInvalid 401 false "token-invalid" "The token is not valid";
    /// The token's time is over.
    TokenExpired 401 false "token-expired" "The token has expired";
    /// Somebody revoked the token.
    TokenRevoked 401 false "token-revoked" "The token was revoked";
    /// The token may not do this; `detail` names the scope it lacks.
    ScopeMissing 403 false "scope-missing" "The token lacks a scope";
    /// The path exists, but not with this method.
    MethodNotAllowed 405 false "method-not-allowed" "The method is not allowed here";
    /// The body did not arrive in time.
    RequestTimeout 408 true "request-timeout" "The request did not arrive in time";
    /// The body is over the limit.
    BodyTooLarge 413 false "body-too-large" "The body is too large";
    /// The body is of another content type.
    UnsupportedMediaType 415 false "unsupported-media-type" "The content type is not supported";
    /// A request with this `Idempotency-Key` is being answered.
    IdempotencyKeyInFlight 409 true "idempotency-key-in-flight" "A request with this idempotency key is being answered";
    /// An `Idempotency-Key` came again with another payload.
    IdempotencyKeyReused 422 false "idempotency-key-reused" "The idempotency key belongs to another request";
    /// The server has as many requests in its hands as it will take.
    Overloaded 503 true "overloaded" "The server is busy";
    /// The answer took longer than the server waits.
    AnswerTimeout 504 true "answer-timeout" "The answer took too long";
}

/// `ValidationFailed` as `["validation", "failed"]`.
fn words(code: Code) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for letter in code.as_str().chars() {
        if letter.is_ascii_uppercase() || words.is_empty() {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.push(letter.to_ascii_lowercase());
        }
    }
    words
}

/// `ValidationFailed` as `Validation failed`.
fn sentence(code: Code) -> String {
    let mut text = words(code).join(" ");
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text
}

/// One thing that is wrong in a body, and where.
#[derive(Debug, Clone, Serialize, PartialEq, Eq, utoipa::ToSchema)]
pub struct FieldError {
    /// A JSON Pointer (RFC 6901) into the body; empty means the whole.
    pub pointer: String,
    /// What is wrong there.
    pub message: String,
}

/// Something that did not work, as the client is told.
#[derive(Debug, Clone)]
pub struct Problem(Box<Parts>);

#[derive(Debug, Clone)]
struct Parts {
    kind: Kind,
    detail: String,
    errors: Vec<FieldError>,
    details: Option<Value>,
    job_id: Option<JobId>,
    retry_after: Option<Duration>,
    allow: Option<HeaderValue>,
}

impl Problem {
    /// A problem of this kind, with words for a person.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            kind,
            detail: detail.into(),
            errors: Vec::new(),
            details: None,
            job_id: None,
            retry_after: None,
            allow: None,
        }))
    }

    /// There is no such thing, or it belongs to somebody else.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(Kind::Code(Code::NotFound), detail)
    }

    /// A body that does not fit, with everything that is wrong in it. At most [`ERRORS_MAX`] are listed.
    pub fn invalid(mut errors: Vec<FieldError>) -> Self {
        let count = errors.len();
        errors.truncate(ERRORS_MAX);
        let detail = match errors.as_slice() {
            [only] => format!("{}: {}", if only.pointer.is_empty() { "the body" } else { &only.pointer }, only.message),
            _ if count > ERRORS_MAX => {
                format!("{count} things are wrong in the body; the first {ERRORS_MAX} are listed")
            }
            _ => format!("{count} things are wrong in the body"),
        };
        let mut problem = Self::new(Kind::Code(Code::ValidationFailed), detail);
        problem.0.errors = errors;
        problem
    }

    /// The same with a time to wait before another try.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// The same with the job it happened in.
    #[must_use]
    pub fn with_job(mut self, id: JobId) -> Self {
        self.0.job_id = Some(id);
        self
    }

    /// The same with the methods that are allowed.
    #[must_use]
    pub fn with_allow(mut self, methods: Option<HeaderValue>) -> Self {
        self.0.allow = methods;
        self
    }

    /// What is wrong in the body, and where.
    pub fn into_errors(self) -> Vec<FieldError> {
        self.0.errors
    }

    /// What happened, for a person.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The kind of problem.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The answer, with the trace id by which its cause is found in the log.
    pub fn write(self, trace_id: &str) -> Response {
        let Parts { kind, detail, errors, details, job_id, retry_after, allow } = *self.0;
        let document = Document {
            r#type: format!("{TYPE_PREFIX}{}", kind.slug()),
            title: kind.title(),
            status: kind.status(),
            detail,
            code: kind.code().to_owned(),
            retryable: kind.retryable(),
            errors,
            details,
            job_id,
            trace_id: trace_id.to_owned(),
        };
        let status = StatusCode::from_u16(kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        let headers = response.headers_mut();
        if let Some(wait) = retry_after {
            headers.insert(header::RETRY_AFTER, whole_seconds(wait).into());
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(methods) = allow {
            headers.insert(header::ALLOW, methods);
        }
        response
    }
}

/// Rounded up, and at least one: `Retry-After: 0` would invite a storm.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

/// The document itself (RFC 9457, with extension members).
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Problem)]
pub struct Document {
    /// Which sort of problem: a stable path under `/problems/`.
    pub r#type: String,
    /// The sort in words; always the same.
    pub title: String,
    /// The status of the answer.
    pub status: u16,
    /// What happened this time, for a person.
    pub detail: String,
    /// The sort as a name to branch on.
    pub code: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// What is wrong in the body, and where.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// What the app's own code added to its error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
    /// The job that ended this way.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<uuid::Uuid>)]
    pub job_id: Option<JobId>,
    /// By which the server's log finds the request.
    pub trace_id: String,
}

/// A problem on its way to the outermost layer, which writes it.
#[derive(Clone)]
pub(super) struct Unwritten(pub(super) Problem);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response =
            StatusCode::from_u16(self.kind().status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR).into_response();
        response.extensions_mut().insert(Unwritten(self));
        response
    }
}

impl From<CtxError> for Problem {
    fn from(error: CtxError) -> Self {
        let mut problem = Self::new(Kind::Code(error.code), error.message);
        problem.0.retry_after = error.retry_after_ms.map(Duration::from_millis);
        match error.details {
            Some(Value::Array(list)) if error.code == Code::ValidationFailed => problem.0.errors = field_errors(&list),
            other => problem.0.details = other,
        }
        problem
    }
}

fn field_errors(list: &[Value]) -> Vec<FieldError> {
    let text = |item: &Value, key: &str| item.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    list.iter()
        .take(ERRORS_MAX)
        .map(|item| FieldError { pointer: text(item, "pointer"), message: text(item, "message") })
        .collect()
}

impl From<queue::Error> for Problem {
    fn from(error: queue::Error) -> Self {
        match error {
            queue::Error::KeyReused => {
                Self::new(Kind::IdempotencyKeyReused, "this key came before with another request; use a fresh one")
            }
            queue::Error::KeyInFlight => Self::new(
                Kind::IdempotencyKeyInFlight,
                "a request with this key is being answered; ask again in a moment",
            )
            .with_retry_after(IN_FLIGHT_RETRY_AFTER),
            queue::Error::Unfit(message) => Self::invalid(vec![FieldError { pointer: String::new(), message }]),
            other => CtxError::from(other).into(),
        }
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        CtxError::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::Kind;
    use crate::model::error::Code;

    #[test]
    fn a_code_has_a_slug_and_a_title() {
        let kind = Kind::Code(Code::ForeignKeyViolation);
        assert_eq!((kind.slug().as_str(), kind.title().as_str()), ("foreign-key-violation", "Foreign key violation"));
    }
}
