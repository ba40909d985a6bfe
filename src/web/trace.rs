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
use tracing::{Instrument, field};

use super::{
    Web,
    error::{Kind, Problem, Unwritten},
    limit,
};
use crate::{
    model::trace::TraceParent,
    telemetry::{self, trace::Sort},
};

/// The header by which a trace continues from one service to the next (W3C Trace Context, level 1).
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Paths that operators and supervisors ask; they are answered however busy the server is.
const ALWAYS_ANSWERED: [&str; 2] = ["/healthz", "/readyz"];

/// One request's place in a trace.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Trace(TraceParent);

impl Trace {
    /// A span of our own, below the caller's when one was sent that is well formed.
    fn begin(headers: &HeaderMap) -> (Option<TraceParent>, TraceParent) {
        let caller: Option<TraceParent> =
            headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
        let own = match caller {
            Some(caller) => caller.child(random()),
            None => TraceParent::new(u128::from(random()) << 64 | u128::from(random()), random(), false),
        };
        (caller, own)
    }

    /// A number that differs from request to request.
    pub fn seed(&self) -> u64 {
        self.0.span_id()
    }

    /// The trace id as 32 hex digits.
    pub fn id(&self) -> String {
        self.0.trace()
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Random bits, never all zero: the standard calls such an id invalid. A system without randomness gets the same id for
/// each request, since a trace is not worth an error.
fn random() -> u64 {
    getrandom::u64().unwrap_or_default() | 1
}

impl<S: Sync> FromRequestParts<S> for Trace {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().copied().unwrap_or_else(|| Self(Self::begin(&parts.headers).1)))
    }
}

/// The layer around every route.
pub(super) async fn around(State(web): State<Web>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let (caller, own) = Trace::begin(request.headers());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("none", MatchedPath::as_str);

    let span = tracing::info_span!(
        "http.request",
        http.request.method = %method,
        http.route = route,
        http.response.status_code = field::Empty,
        otel.kind = field::Empty,
        trace.id = field::Empty
    );
    let trace = Trace(telemetry::trace::place(&span, Sort::Server, caller, own));
    request.extensions_mut().insert(trace);
    let answered = bounded(&web, request, next).instrument(span.clone());
    let mut response = telemetry::trace::scope(trace.0, answered).await;

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
    span.record("http.response.status_code", response.status().as_u16());
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
