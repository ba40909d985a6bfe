//! Sends spans to a collector by OTLP over HTTP (the cargo feature `otel`). Refuses to hold anybody up: what the collector
//! does not take in time is dropped.
//!
//! The SDK itself reads the standard variables for what is not ours to choose:
//! `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER`, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_BSP_…`.

use std::sync::OnceLock;

use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider as _},
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing::{Span, Subscriber};
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt};
use tracing_subscriber::registry::LookupSpan;

use super::{Error, Export, trace::Sort};
use crate::model::trace::TraceParent;

/// Where in a collector spans go (OTLP 1.0, "OTLP/HTTP Request").
const PATH: &str = "v1/traces";

static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// A layer that sends spans as `export` says. Must be called on a runtime.
pub(super) fn layer<S>(export: &Export<'_>) -> Result<OpenTelemetryLayer<S, opentelemetry_sdk::trace::Tracer>, Error>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let endpoint = export.endpoint;
    let refused = |reason: &dyn std::fmt::Display| Error::Export(endpoint.to_owned(), reason.to_string());
    let exporter = SpanExporter::builder()
        .with_http()
        .with_shared_http_client(export.sender.clone())
        .with_endpoint(format!("{}/{PATH}", endpoint.trim_end_matches('/')))
        .build()
        .map_err(|error| refused(&error))?;
    let resource = Resource::builder().with_service_name(export.service.to_owned()).build();
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
    let tracer = provider.tracer("krilin");
    PROVIDER.set(provider).map_err(|_| Error::Started)?;
    Ok(tracing_opentelemetry::layer().with_tracer(tracer))
}

/// Sends what is left. Waits for it, as long as the SDK does.
pub(super) fn stop() {
    if let Some(provider) = PROVIDER.get()
        && let Err(error) = provider.shutdown()
    {
        tracing::warn!(%error, "the last spans were not sent");
    }
}

/// Puts `span` below `parent` and gives its place; none when it is not exported.
pub(super) fn place(span: &Span, sort: Sort, parent: Option<TraceParent>) -> Option<TraceParent> {
    let kind = match sort {
        Sort::Server => "server",
        Sort::Consumer => "consumer",
        Sort::Client => "client",
    };
    span.record("otel.kind", kind);
    if let Some(parent) = parent {
        let flags = if parent.sampled() { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
        let (trace_id, span_id) = (TraceId::from(parent.trace_id()), SpanId::from(parent.span_id()));
        let remote = SpanContext::new(trace_id, span_id, flags, true, TraceState::NONE);
        // Without a layer there is nothing to put it below, and nothing to give.
        span.set_parent(Context::new().with_remote_span_context(remote)).ok()?;
    }
    let context = span.context();
    let own = context.span().span_context().clone();
    own.is_valid().then(|| {
        let trace_id = u128::from_be_bytes(own.trace_id().to_bytes());
        TraceParent::new(trace_id, u64::from_be_bytes(own.span_id().to_bytes()), own.is_sampled())
    })
}
