//! Looks at jobs for those who wait. Callers who look at the same time share one statement, and one wait for the disk: an
//! end is told once it is there. Refuses more of them than [`BACKLOG`].

use std::collections::HashMap;

use sqlx::PgExecutor;
use tokio::sync::{mpsc, oneshot};

use super::{
    Error,
    gather::{Gather, TRIPS},
};
use crate::{
    model::{
        id::JobId,
        job::{JobView, State},
    },
    store::{self, Stack, history, jobs},
};

/// The most callers that wait for the statement before theirs.
const BACKLOG: usize = 10_000;
/// The most jobs one statement looks at.
const JOBS_MAX: usize = 500;

struct Caller {
    id: JobId,
    answer: oneshot::Sender<Result<Option<JobView>, Error>>,
}

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Lookout(mpsc::Sender<Caller>);

impl Lookout {
    /// Must be called on a tokio runtime.
    pub(super) fn new(stack: &Stack) -> Self {
        let (callers, inbox) = mpsc::channel(BACKLOG);
        let gather = Gather::new(inbox);
        for _ in 0..TRIPS {
            tokio::spawn(share(gather.clone(), stack.clone()));
        }
        Self(callers)
    }

    /// The job, wherever it is.
    pub(super) async fn job(&self, id: JobId) -> Result<Option<JobView>, Error> {
        let (answer, answered) = oneshot::channel();
        self.0.try_send(Caller { id, answer }).map_err(|_| Error::Busy)?;
        answered.await.map_err(|_| Error::Busy)?
    }
}

/// Takes whoever waits, looks once, answers all; until no caller can come any more.
async fn share(gather: Gather<Caller>, stack: Stack) {
    let mut callers = Vec::new();
    while let Some(_trip) = gather.next(&mut callers, JOBS_MAX).await {
        let ids: Vec<JobId> = callers.iter().map(|caller| caller.id).collect();
        match find(&stack, &ids).await {
            Ok(found) => {
                let found: HashMap<JobId, JobView> = found.into_iter().map(|job| (job.id, job)).collect();
                for caller in callers.drain(..) {
                    let _ = caller.answer.send(Ok(found.get(&caller.id).cloned()));
                }
            }
            Err(cause) => {
                // Every caller gets the reason; they look again or give up, each for itself.
                let reason = cause.to_string();
                for caller in callers.drain(..) {
                    let error = store::Error::Unavailable(reason.clone());
                    let _ = caller.answer.send(Err(Error::Store(error)));
                }
            }
        }
    }
}

async fn find(stack: &Stack, ids: &[JobId]) -> Result<Vec<JobView>, store::Error> {
    let mut db = stack.take().await?;
    let found = async {
        let found = history::find_many(&mut *db, ids).await?;
        wait_for_disk(&mut *db, &found).await?;
        Ok(found)
    };
    let found = found.await;
    db.after(found)
}

/// Returns when the ends of `jobs` are on the disk: an action's commit does not wait for it, so whoever tells of it does.
pub(super) async fn wait_for_disk(db: impl PgExecutor<'_>, jobs: &[JobView]) -> Result<(), store::Error> {
    let ends = jobs.iter().filter(|job| job.state == State::Done).filter_map(|job| job.finished_at);
    match ends.max() {
        Some(latest) => jobs::sync_ends(db, latest).await,
        None => Ok(()),
    }
}
