//! What this process counts about its own requests, and how figures are written (Prometheus text, OpenMetrics 1.0).
//!
//! Refuses unbounded labels: a route is its pattern, an unknown method is `other`.

use std::{fmt, time::Duration};

use axum::http::{Method, StatusCode};
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::Histogram,
    },
    registry::Registry,
};

/// Upper bounds of the buckets for the time of a request, in seconds: fine where the goals are (15, 50, 100 ms), wide up
/// to the request deadline.
const REQUEST_SECONDS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 40.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: String,
    status: u16,
}

/// Makes histograms with our buckets.
#[derive(Clone)]
struct RequestHistogram;

impl MetricConstructor<Histogram> for RequestHistogram {
    fn new_metric(&self) -> Histogram {
        Histogram::new(REQUEST_SECONDS)
    }
}

/// The figures of this process.
pub struct Figures {
    registry: Registry,
    requests: Family<RequestLabels, Histogram, RequestHistogram>,
    in_flight: Gauge,
}

impl Default for Figures {
    fn default() -> Self {
        let requests = Family::new_with_constructor(RequestHistogram);
        let in_flight = Gauge::default();
        let mut registry = Registry::default();
        registry.register("krilin_http_request_seconds", "Time from head to answer", requests.clone());
        registry.register("krilin_http_requests_in_flight", "Requests being answered", in_flight.clone());
        Self { registry, requests, in_flight }
    }
}

impl Figures {
    /// Notes one answered request.
    pub fn observe_request(&self, method: &Method, route: &str, status: StatusCode, elapsed: Duration) {
        let labels = RequestLabels { method: known(method), route: route.to_owned(), status: status.as_u16() };
        self.requests.get_or_create(&labels).observe(elapsed.as_secs_f64());
    }

    /// Writes all figures; `in_flight` is how many requests are being answered just now.
    pub fn write(&self, in_flight: usize) -> Result<String, fmt::Error> {
        self.in_flight.set(i64::try_from(in_flight).unwrap_or(i64::MAX));
        encode(&self.registry)
    }
}

/// The text form of a registry, with its end mark.
pub fn encode(registry: &Registry) -> Result<String, fmt::Error> {
    let mut text = String::new();
    text::encode(&mut text, registry)?;
    Ok(text)
}

fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
