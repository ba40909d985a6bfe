//! The queue as apalis sees it: a backend that hands out claimed jobs and takes back what became of them. Refuses to
//! end: it has no error to give, for the feeder behind it goes on after every one.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use apalis_core::{
    backend::{Backend, BackendConfig, finalize::Ephemeral},
    error::BoxDynError,
    task::{Task, builder::TaskBuilder},
    worker::context::WorkerContext,
};
use futures::{FutureExt, future::BoxFuture};
use tokio::sync::oneshot;

use super::{
    execute::{Ack, Verdict, Work},
    inbox::Inbox,
    shelf::{Drain, Shelf},
    worker::Lane,
};
use crate::model::{
    error::{Code, CtxError},
    job::{Lease, State},
};

/// One lane's source of jobs.
pub(super) struct LaneBackend {
    pub(super) lane: Lane,
    pub(super) shelf: Arc<Shelf>,
    pub(super) drain: Arc<Drain>,
    pub(super) inbox: Arc<Inbox>,
    /// The feeder has recorded everything and is gone.
    pub(super) drained: oneshot::Receiver<()>,
}

impl Backend for LaneBackend {
    type Task = Task<Work>;
    type Error = Infallible;

    fn poll_ready(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, _: &WorkerContext) -> Poll<Option<Result<Task<Work>, Infallible>>> {
        for _ in 0..2 {
            match self.shelf.take(self.lane.low()) {
                Ok(Some(work)) => {
                    let attempt = usize::try_from(work.job.tries.attempt.saturating_sub(1)).unwrap_or(0);
                    return Poll::Ready(Some(Ok(TaskBuilder::new(work).attempt(attempt).build())));
                }
                // Registered before the second look, so that nothing comes between.
                Ok(None) => self.shelf.taker.register(cx.waker()),
                Err(()) => return Poll::Ready(None),
            }
        }
        Poll::Pending
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        self.drain.begin();
        self.drained.poll_unpin(cx).map(|_| Ok(()))
    }
}

impl BackendConfig for LaneBackend {
    type Args = Work;
    type Id = uuid::Uuid;
    type Kind = Ephemeral;
    type Config = Lane;
    type Layer = AckLayer;

    fn config(&self) -> &Lane {
        &self.lane
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> AckLayer {
        AckLayer(self.inbox.clone())
    }
}

/// Brings every attempt's verdict to the feeder, even that of an attempt that was dropped.
#[derive(Clone)]
pub(super) struct AckLayer(Arc<Inbox>);

impl<S> tower::Layer<S> for AckLayer {
    type Service = AckService<S>;

    fn layer(&self, inner: S) -> AckService<S> {
        AckService { inner, inbox: self.0.clone() }
    }
}

#[derive(Clone)]
pub(super) struct AckService<S> {
    inner: S,
    inbox: Arc<Inbox>,
}

impl<S> tower::Service<Task<Work>> for AckService<S>
where
    S: tower::Service<Task<Work>, Response = Ack>,
    S::Future: Send + 'static,
    S::Error: Into<BoxDynError>,
{
    type Response = ();
    type Error = BoxDynError;
    type Future = BoxFuture<'static, Result<(), BoxDynError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxDynError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, task: Task<Work>) -> Self::Future {
        let (tries, mut owed) = (task.args.job.tries, Owed { lease: Some(task.args.lease), inbox: self.inbox.clone() });
        let running = self.inner.call(task);
        Box::pin(async move {
            let ended = running.await.map_err(Into::into);
            if let Some(lease) = owed.lease.take() {
                let ack = ended.unwrap_or_else(|error| {
                    tracing::error!(error, "a layer around a job failed");
                    let error = CtxError::new(Code::Internal, "something went wrong on our side");
                    let error = Some(super::execute::json(&error));
                    let verdict = if tries.spent() {
                        Verdict::End { state: State::Dead, result: None, error }
                    } else {
                        Verdict::Later { wait: std::time::Duration::from_secs(1), spent: true, error }
                    };
                    Ack { lease, awaited: false, parent_id: None, verdict }
                });
                owed.inbox.put(ack);
            }
            Ok(())
        })
    }
}

struct Owed {
    lease: Option<Lease>,
    inbox: Arc<Inbox>,
}

impl Drop for Owed {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.inbox.put(Ack { lease, awaited: false, parent_id: None, verdict: Verdict::GiveBack });
        }
    }
}
