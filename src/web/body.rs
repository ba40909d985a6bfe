//! Reads bodies: bounded in size and time, JSON only, and with an error that names the place.
//!
//! Refuses another content type (415), more than [`limit::BODY_MAX`] bytes (413), what is not JSON (400 with line and
//! column), and JSON of another shape (422 with a pointer).

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request},
    http::{HeaderMap, header},
};
use futures::StreamExt;
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::{Value, json};

use super::{
    Web,
    error::{FieldError, Kind, Problem},
    limit,
};
use crate::model::error::Code;

/// A body's bytes, known to be within the limit and declared as JSON.
pub struct JsonBytes(pub Bytes);

impl FromRequest<Web> for JsonBytes {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &Web) -> Result<Self, Problem> {
        let declared = is_json(request.headers());
        let bytes = tokio::time::timeout(limit::BODY_TIMEOUT, read(request.into_body())).await.map_err(|_| {
            let seconds = limit::BODY_TIMEOUT.as_secs();
            Problem::new(Kind::RequestTimeout, format!("the body did not arrive within {seconds} s"))
        })??;
        if declared == Some(false) || (declared.is_none() && !bytes.is_empty()) {
            return Err(Problem::new(Kind::UnsupportedMediaType, "send the body as `Content-Type: application/json`"));
        }
        Ok(Self(bytes))
    }
}

/// Whether the content type is JSON (`application/json` or one with the suffix `+json`); `None` when there is none.
fn is_json(headers: &HeaderMap) -> Option<bool> {
    let value = headers.get(header::CONTENT_TYPE)?;
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let subtype = essence.strip_prefix("application/").unwrap_or_default();
    Some(subtype == "json" || subtype.ends_with("+json"))
}

/// The whole body. One over the limit is read on for a while, else the client would see a broken connection instead of
/// the answer.
async fn read(body: Body) -> Result<Bytes, Problem> {
    let mut stream = body.into_data_stream();
    let mut first = Bytes::new();
    let mut rest = Vec::new();
    let mut size = 0;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| Problem::new(Kind::BadRequest, "the body broke off"))?;
        size += chunk.len();
        if size > limit::BODY_DRAIN_MAX {
            break;
        }
        if size > limit::BODY_MAX {
            continue;
        }
        if first.is_empty() {
            first = chunk;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&chunk);
        }
    }
    if size > limit::BODY_MAX {
        return Err(Problem::new(Kind::BodyTooLarge, format!("a body has at most {} bytes", limit::BODY_MAX)));
    }
    Ok(if rest.is_empty() { first } else { rest.into() })
}

/// Reads `text` as a `T`. What is no JSON is [`Kind::MalformedJson`]; what does not fit is a field error below `base`, a
/// JSON Pointer.
pub fn parse<'de, T: Deserialize<'de>>(text: &'de [u8], base: &str) -> Result<T, ParseError> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        // A value of the wrong shape may end before a text that is no JSON does.
        match serde_json::from_slice::<IgnoredAny>(text) {
            Err(malformed) => classify(&malformed, String::new()),
            Ok(IgnoredAny) => classify(error.inner(), pointer(base, error.path())),
        }
    })?;
    deserializer.end().map_err(|error| classify(&error, base.to_owned()))?;
    Ok(value)
}

/// The input of an action, whose shape the app knows. An empty body is an empty object.
pub fn input(text: &[u8]) -> Result<Value, Problem> {
    Ok(if text.is_empty() { json!({}) } else { parse(text, "")? })
}

/// An answer's JSON text.
pub fn json<T: Serialize>(answer: &T) -> Result<Vec<u8>, Problem> {
    serde_json::to_vec(answer).map_err(|cause| {
        tracing::error!(%cause, "writing an answer");
        Problem::new(Kind::Code(Code::Internal), "something went wrong on our side")
    })
}

/// Why a text is not the value that was asked for.
pub enum ParseError {
    /// It is no JSON at all.
    Malformed(Problem),
    /// It is JSON of another shape.
    Shape(FieldError),
}

impl From<ParseError> for Problem {
    fn from(error: ParseError) -> Self {
        match error {
            ParseError::Malformed(problem) => problem,
            ParseError::Shape(field) => Self::invalid(vec![field]),
        }
    }
}

fn classify(error: &serde_json::Error, pointer: String) -> ParseError {
    let text = error.to_string();
    // serde_json ends its messages with the place; a pointer says it better where there is one.
    let message = text.split(" at line ").next().unwrap_or(&text);
    if error.is_data() {
        return ParseError::Shape(FieldError { pointer, message: message.to_owned() });
    }
    let detail = format!("line {}, column {}: {message}", error.line(), error.column());
    ParseError::Malformed(Problem::new(Kind::MalformedJson, detail))
}

pub(super) fn pointer(base: &str, path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;

    path.iter().fold(base.to_owned(), |pointer, segment| match segment {
        Segment::Seq { index } => format!("{pointer}/{index}"),
        Segment::Map { key } => format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1")),
        Segment::Enum { .. } | Segment::Unknown => pointer,
    })
}
