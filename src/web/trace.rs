//! What surrounds every request: its trace (W3C Trace Context), its span, its deadline, its place among the requests in
//! flight, its figures. Also writes problems, since only here the trace id is known.
//!
//! Refuses a request when [`super::limit::IN_FLIGHT_MAX`] others are being answered.

use std::{fmt, time::Instant};

use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, request::Parts},
    middleware::Next,
    response::Response,
};
use tracing::Instrument;

use super::{
    Web,
    error::{Kind, Problem, Unwritten},
    limit,
};

/// The header by which a trace continues from one service to the next (W3C Trace Context, level 1).
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Paths that operators and supervisors ask; they are answered however busy the server is.
const ALWAYS_ANSWERED: [&str; 2] = ["/healthz", "/readyz"];

/// One request's place in a trace.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    id: u128,
    span: u64,
    flags: u8,
}

impl Trace {
    /// Continues the caller's trace with a span of our own, or begins one when the caller sent none that is valid.
    pub fn follow(headers: &HeaderMap) -> Self {
        let caller = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()).and_then(parse);
        let (id, flags) = caller.unwrap_or_else(|| (u128::from(random()) << 64 | u128::from(random()), 0));
        Self { id, span: random(), flags }
    }

    /// A number that differs from request to request.
    pub fn seed(&self) -> u64 {
        self.span
    }

    /// The trace id as 32 hex digits.
    pub fn id(&self) -> String {
        format!("{:032x}", self.id)
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.id, self.span, self.flags)
    }
}

/// Random bits, never all zero: the standard calls such an id invalid. A system without randomness gets the same id for
/// each request, since a trace is not worth an error.
fn random() -> u64 {
    getrandom::u64().unwrap_or_default() | 1
}

/// The trace id and flags of a `traceparent`. A version above 00 may have more parts, which are ignored, as the standard
/// asks.
fn parse(text: &str) -> Option<(u128, u8)> {
    let mut parts = text.split('-');
    let (version, trace_id, span_id, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |part: &str, length| part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let shaped = hex(version, 2) && hex(trace_id, 32) && hex(span_id, 16) && hex(flags, 2);
    if !shaped || version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let trace_id = u128::from_str_radix(trace_id, 16).ok()?;
    let span_id = u64::from_str_radix(span_id, 16).ok()?;
    (trace_id != 0 && span_id != 0).then_some((trace_id, u8::from_str_radix(flags, 16).ok()? & 1))
}

impl<S: Sync> FromRequestParts<S> for Trace {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().copied().unwrap_or_else(|| Self::follow(&parts.headers)))
    }
}

/// The layer around every route.
pub(super) async fn around(State(web): State<Web>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let trace = Trace::follow(request.headers());
    request.extensions_mut().insert(trace);
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("none", MatchedPath::as_str);

    let span = tracing::info_span!("http.request", http.method = %method, http.route = route, trace.id = %trace.id());
    let mut response = bounded(&web, request, next).instrument(span.clone()).await;

    if let Some(Unwritten(problem)) = response.extensions_mut().remove::<Unwritten>() {
        let headers = std::mem::take(response.headers_mut());
        response = problem.write(&trace.id());
        response.headers_mut().extend(headers);
    }
    if let Ok(value) = HeaderValue::try_from(trace.to_string()) {
        response.headers_mut().insert(TRACEPARENT, value);
    }
    let elapsed = begun.elapsed();
    web.figures().observe_request(&method, route, response.status(), elapsed);
    span.in_scope(|| {
        tracing::debug!(http.status = response.status().as_u16(), elapsed_ms = elapsed.as_millis(), "answered");
    });
    response
}

/// Answers within the deadline and the bound on requests in flight.
async fn bounded(web: &Web, request: Request, next: Next) -> Response {
    use axum::response::IntoResponse;

    let _place = if ALWAYS_ANSWERED.contains(&request.uri().path()) {
        None
    } else {
        match web.in_flight().try_acquire() {
            Ok(place) => Some(place),
            Err(_) => {
                return Problem::new(Kind::Overloaded, "as many requests as the server takes are being answered")
                    .with_retry_after(limit::OVERLOADED_RETRY_AFTER)
                    .into_response();
            }
        }
    };
    match tokio::time::timeout(limit::REQUEST_DEADLINE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(
            Kind::AnswerTimeout,
            format!("no answer within {} s; what was begun may still end well", limit::REQUEST_DEADLINE.as_secs()),
        )
        .into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_trace_is_followed_only_when_it_is_well_formed() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(parse(good), Some((0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, 1)));
        assert!(parse("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more").is_some());
        for bad in [
            "",
            "00",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
