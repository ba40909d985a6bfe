//! Runs one attempt: the handler under its span, its timeout and its cancellation, panics caught, and its end turned into
//! what becomes of the row. Refuses to decide what follows a failure: that is `model::job::next`.

use std::{
    any::Any,
    collections::BTreeMap,
    convert::Infallible,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use apalis_core::task::Task;
use futures::{
    FutureExt,
    future::{BoxFuture, Either},
};
use sqlx::PgPool;
use tokio::time::Instant;
use tracing::{Instrument, field};

use super::{
    complete::RESULT_MAX_BYTES,
    lease::{Cancelled, Reason},
    metrics::{Ended, Meters, Metrics},
    registry::{Attempt, Kind, Registry},
    report::Report,
};
use crate::{
    model::{
        error::{Code, CtxError},
        id::JobId,
        job::{ClaimedJob, Failure, Lease, Next, Outcome, State, StopReason, When, next},
        policy::{Completion, SNOOZES_DEFAULT},
        trace::TraceParent,
    },
    store::{Stack, children},
    telemetry::{self, trace::Sort},
};

/// How long a job waits whose kind this worker does not know: an older worker beside a newer one.
const UNKNOWN_KIND_WAIT: Duration = Duration::from_secs(30);
/// How often it waits so before that costs attempts.
const UNKNOWN_KIND_WAITS: u32 = SNOOZES_DEFAULT;

/// A claimed job on its way to its handler.
#[derive(Debug, Clone)]
pub(super) struct Work {
    pub(super) job: Box<ClaimedJob>,
    pub(super) lease: Lease,
    pub(super) cancelled: Cancelled,
    /// When it must have ended, and why.
    pub(super) stop: Option<(Instant, StopReason)>,
}

/// What is to become of the row.
#[derive(Debug, Clone)]
pub(super) enum Verdict {
    /// To the history, with a result or an error as JSON text.
    End { state: State, result: Option<String>, error: Option<String> },
    /// Pending again.
    Later { wait: Duration, spent: bool, error: Option<String> },
    /// Pending again as if never claimed.
    GiveBack,
    /// Nothing: its handler has committed the end.
    Committed,
    /// Nothing: it is no longer ours.
    Lost,
}

/// A verdict with whose it is.
#[derive(Debug, Clone)]
pub(super) struct Ack {
    pub(super) lease: Lease,
    pub(super) awaited: bool,
    /// The job that waits for this one.
    pub(super) parent_id: Option<JobId>,
    pub(super) verdict: Verdict,
}

/// The service that apalis calls with each job. Cheap to clone, for it is cloned for each.
#[derive(Clone)]
pub(super) struct Execute(Arc<Inner>);

struct Inner {
    registry: Registry,
    stack: Stack,
    relaxed: Stack,
    meters: BTreeMap<String, Meters>,
    /// Writes reports beside the handlers' transactions, even when these hold every connection of `stack`.
    reports: PgPool,
}

impl tower::Service<Task<Work>> for Execute {
    type Response = Ack;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Ack, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, task: Task<Work>) -> Self::Future {
        let (inner, work) = (self.0.clone(), task.args);
        Box::pin(async move {
            let (lease, awaited, parent_id) = (work.lease, work.job.awaited, work.job.ties.parent_id);
            Ok(Ack { lease, awaited, parent_id, verdict: inner.attempt(work).await })
        })
    }
}

impl Execute {
    /// Runs the kinds of `registry`, whose handlers get `stack` and `relaxed`; reports go through `reports`.
    pub(super) fn new(
        registry: &Registry,
        (stack, relaxed): (&Stack, &Stack),
        reports: &PgPool,
        metrics: &Metrics,
    ) -> Self {
        let meters = registry.iter().map(|(name, kind)| (name.to_owned(), metrics.of_kind(name, &kind.policy.queue)));
        let meters = meters.collect();
        let (registry, stack, relaxed, reports) = (registry.clone(), stack.clone(), relaxed.clone(), reports.clone());
        Self(Arc::new(Inner { registry, stack, relaxed, meters, reports }))
    }
}

impl Inner {
    async fn attempt(&self, work: Work) -> Verdict {
        let job = &work.job;
        let (Some(kind), Some(meters)) = (self.registry.get(&job.kind), self.meters.get(&job.kind)) else {
            return unknown(job);
        };
        let span = tracing::info_span!(
            "job.run",
            job.id = %job.id,
            job.kind = job.kind,
            job.attempt = job.tries.attempt,
            otel.kind = field::Empty,
            trace.id = field::Empty
        );
        let asked: Option<TraceParent> = job.trace_parent.as_deref().and_then(|text| text.parse().ok());
        let trace = telemetry::trace::place(&span, Sort::Consumer, asked, place(asked, &work.lease));
        let (started, id) = (Instant::now(), job.id);
        meters.started();
        let verdict = telemetry::trace::scope(trace, self.run(kind, work).instrument(span.clone())).await;
        meters.ended(outcome(&verdict), started.elapsed());
        span.in_scope(|| match &verdict {
            Verdict::Later { error: Some(error), .. } => {
                tracing::warn!(error, "job {id} failed and will be tried again");
            }
            Verdict::End { state: State::Dead, error: Some(error), .. } => tracing::error!(error, "job {id} is dead"),
            _ => tracing::debug!(elapsed_ms = started.elapsed().as_millis(), "job {id} ended"),
        });
        verdict
    }

    /// The attempt until the handler ends, is stopped, or its job's time is over.
    async fn run(&self, kind: &Kind, work: Work) -> Verdict {
        let Work { job, lease, cancelled, stop } = work;
        if let Some((_, reason)) = stop.filter(|(at, _)| *at <= Instant::now()) {
            return stopped(reason);
        }
        if job.ties.children == Some(When::AllDone)
            && let Some(verdict) = self.judge_children(kind, &job, &lease).await
        {
            return verdict;
        }
        let report = Report::default();
        let (stack, relaxed, told) = (self.stack.clone(), self.relaxed.clone(), report.clone());
        let attempt = Attempt { job, lease, stack, relaxed, cancelled: cancelled.clone(), report: told };
        let verdict = self.watch(kind, attempt, stop).await;
        if !matches!(verdict, Verdict::Committed | Verdict::Lost) {
            report.finish(&self.reports, &lease).await;
        }
        verdict
    }

    /// Whether a job need not begin, for one that it waited for did not end well.
    async fn judge_children(&self, kind: &Kind, job: &ClaimedJob, lease: &Lease) -> Option<Verdict> {
        let failure = match children::failed(self.stack.pool(), job.id).await {
            Ok((0, 0)) => return None,
            Ok((dead, cancelled)) => {
                let words = format!("of the jobs that this one waited for, {dead} are dead and {cancelled} cancelled");
                let details = serde_json::json!({ "dead": dead, "cancelled": cancelled });
                Failure::fatal(CtxError::new(Code::ChildFailed, words).with_details(details))
            }
            Err(error) => error.into(),
        };
        Some(verdict(next(Err(failure), job.tries, &kind.policy, chance(lease)), kind.policy.completion))
    }

    async fn watch(&self, kind: &Kind, attempt: Attempt, stop: Option<(Instant, StopReason)>) -> Verdict {
        let (tries, lease) = (attempt.job.tries, attempt.lease);
        let (cancelled, report) = (attempt.cancelled.clone(), attempt.report.clone());
        let mut running = pin!(handle(kind, attempt));
        let over = async {
            match stop {
                Some((at, reason)) => {
                    tokio::time::sleep_until(at).await;
                    reason
                }
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            biased;
            reason = cancelled.wait() => Err(reason),
            ended = &mut running => Ok(ended),
            reason = over => return stopped(reason),
            never = report.keep(&self.reports, &lease) => match never {},
        };
        let ended = match ended {
            Err(Reason::Lost) => return Verdict::Lost,
            Err(Reason::Drain) => return Verdict::GiveBack,
            // A handler that has come to its end nevertheless has committed before the cancel, or commits with the queue.
            Err(Reason::Cancelled) => match tokio::time::timeout(kind.policy.grace.0, running).await {
                Ok(Ok(done @ Outcome::Done(_))) => Ok(done),
                _ => return stopped(StopReason::Cancelled),
            },
            Ok(ended) => ended,
        };
        verdict(next(ended, tries, &kind.policy, chance(&lease)), kind.policy.completion)
    }
}

fn stopped(reason: StopReason) -> Verdict {
    Verdict::End { state: reason.state(), result: None, error: Some(json(&reason.error())) }
}

/// A job of a kind that this worker does not know: it waits for a newer worker, not for ever.
fn unknown(job: &ClaimedJob) -> Verdict {
    tracing::warn!(job.id = %job.id, job.kind = job.kind, "job {} is of a kind this worker does not know", job.id);
    let free = job.tries.snoozes < UNKNOWN_KIND_WAITS;
    if free || !job.tries.spent() {
        return Verdict::Later { wait: UNKNOWN_KIND_WAIT, spent: !free, error: None };
    }
    let error = CtxError::new(Code::NotFound, format!("no worker knows jobs of the kind `{}`", job.kind));
    Verdict::End { state: State::Dead, result: None, error: Some(json(&error)) }
}

/// An attempt's own place: below whatever asked for the job, else in a trace that is named as the job is. Each
/// attempt is a span of its own.
fn place(asked: Option<TraceParent>, lease: &Lease) -> TraceParent {
    let span_id = lease.own_bits();
    asked.map_or_else(|| TraceParent::new(lease.job_id.0.as_u128(), span_id, false), |asked| asked.child(span_id))
}

/// The handler to its end, its timeout or its panic. A kind with a transaction of its own gets a task of its own, so that
/// it runs beside others on all cores; jobs ended in batches share the worker's, for they are many and short.
async fn handle(kind: &Kind, attempt: Attempt) -> Result<Outcome, Failure> {
    let (handler, limit) = (kind.handler.clone(), kind.policy.timeout);
    let running = async move { handler.run(attempt).await };
    let running = match kind.policy.completion {
        Completion::Batch => Either::Left(AssertUnwindSafe(running).catch_unwind()),
        Completion::Transaction => Either::Right(own_task(telemetry::trace::carried(running.in_current_span()))),
    };
    match tokio::time::timeout(limit.0, running).await {
        Ok(Ok(ended)) => ended,
        Ok(Err(panic)) => {
            tracing::error!(panic = words(panic.as_ref()), "a handler panicked");
            Err(CtxError::new(Code::Internal, "something went wrong on our side").into())
        }
        Err(_) => Err(CtxError::new(Code::Timeout, format!("the job did not end within {limit}")).into()),
    }
}

/// Runs `work` on its own task, which ends when this future is dropped.
async fn own_task<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T, Box<dyn Any + Send>> {
    struct AbortOnDrop(tokio::task::AbortHandle);
    impl Drop for AbortOnDrop {
        fn drop(&mut self) {
            self.0.abort();
        }
    }
    let task = tokio::spawn(work);
    let _abort = AbortOnDrop(task.abort_handle());
    task.await.map_err(|error| match error.try_into_panic() {
        Ok(panic) => panic,
        Err(error) => Box::new(error.to_string()),
    })
}

fn words(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words")
}

fn verdict(next: Next, completion: Completion) -> Verdict {
    let end = |state, result, error: Option<CtxError>| Verdict::End { state, result, error: error.as_ref().map(json) };
    match (next, completion) {
        (Next::Done(_), Completion::Transaction) => Verdict::Committed,
        (Next::Done(Some(result)), Completion::Batch) if result.get().len() > RESULT_MAX_BYTES => {
            let words = format!("the result has {} bytes; {RESULT_MAX_BYTES} are allowed", result.get().len());
            end(State::Dead, None, Some(CtxError::new(Code::QuotaExceeded, words)))
        }
        (Next::Done(result), Completion::Batch) => end(State::Done, result.map(|result| result.get().to_owned()), None),
        (Next::Dead(error), _) => end(State::Dead, None, Some(error)),
        (Next::Cancelled(reason), _) => end(State::Cancelled, None, Some(CtxError::new(Code::Cancelled, reason))),
        (Next::Later { wait, spent, error }, _) => Verdict::Later { wait, spent, error: error.as_ref().map(json) },
    }
}

/// An error as the JSON text that Postgres keeps. It has no NUL in text: such a one becomes U+FFFD.
pub(super) fn json(error: &CtxError) -> String {
    let text = serde_json::to_string(error).expect("an error with text, numbers and JSON serialises");
    if text.contains("\\u0000") { text.replace("\\u0000", "\\ufffd") } else { text }
}

fn outcome(verdict: &Verdict) -> Ended {
    match verdict {
        Verdict::End { state: State::Dead, .. } => Ended::Dead,
        Verdict::End { state: State::Cancelled, .. } => Ended::Cancelled,
        Verdict::End { .. } | Verdict::Committed => Ended::Done,
        Verdict::Later { error: Some(_), .. } => Ended::Failed,
        Verdict::Later { .. } => Ended::Snoozed,
        Verdict::GiveBack => Ended::GivenBack,
        Verdict::Lost => Ended::Lost,
    }
}

/// A number in 0..1 that is different for every attempt.
#[expect(clippy::cast_possible_truncation, reason = "the low half is wanted")]
fn chance(lease: &Lease) -> f64 {
    f64::from(lease.own_bits() as u32) / (f64::from(u32::MAX) + 1.0)
}
