//! Where in which trace this process is just now: from a request or a job's row to the spans, the log lines, the jobs that
//! are enqueued meanwhile, and Postgres, which sees the trace as part of a session's name.
//!
//! A statement does not carry the trace in a comment: each text would be another prepared statement. It is a span beside
//! its place in the source, and the name of the session for as long as a transaction that acts for somebody.

use std::future::Future;

use tracing::Span;

use crate::model::trace::TraceParent;

tokio::task_local! {
    static CURRENT: TraceParent;
}

/// The span that this task is in, if it is in a trace.
pub fn current() -> Option<TraceParent> {
    CURRENT.try_with(|trace| *trace).ok()
}

/// Runs `work` in `trace`.
pub async fn scope<T>(trace: TraceParent, work: impl Future<Output = T>) -> T {
    CURRENT.scope(trace, work).await
}

/// Takes the trace that this task is in along to another task, which `work` is for.
pub fn carried<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    let trace = current();
    async move {
        match trace {
            Some(trace) => scope(trace, work).await,
            None => work.await,
        }
    }
}

/// Which end of a call a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// It answers a request.
    Server,
    /// It does what was asked for before, by a job.
    Consumer,
    /// It asks another program.
    Client,
}

/// Puts `span` below `parent`, or at the beginning of a trace, and gives its place: the exporter's where spans are
/// exported, else `own`. The span's fields `trace.id` and `otel.kind`, which must be declared, are filled in as far as they are wanted.
pub fn place(span: &Span, sort: Sort, parent: Option<TraceParent>, own: TraceParent) -> TraceParent {
    #[cfg(feature = "otel")]
    let own = super::otel::place(span, sort, parent).unwrap_or(own);
    #[cfg(not(feature = "otel"))]
    let _ = (sort, parent);
    span.record("trace.id", own.trace());
    own
}
