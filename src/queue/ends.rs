//! Brings the ends of a lane's jobs to the database, one batch after the other, while its feeder claims: an end waits for
//! the disk, and what is claimed need not. Jobs that are to run again go the same way, without the company of the claim.
//! Refuses to lose any: what was not stored comes back.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::execute::json;
use crate::{
    model::{
        error::{Code, CtxError},
        id::JobId,
        job::State,
    },
    store::{
        Error, Stack,
        leases::{self, Ending, PutBack},
    },
};

/// As [`leases::end`] says it.
type Found = Result<Option<Vec<JobId>>, Error>;

/// At most one batch is under way.
pub(super) struct Ends {
    stack: Stack,
    underway: Option<Underway>,
}

struct Underway {
    endings: Arc<[Ending]>,
    asking: JoinHandle<Found>,
    found: Option<Found>,
}

impl Ends {
    /// Over connections whose commits wait for the disk.
    pub(super) fn new(stack: &Stack) -> Self {
        Self { stack: stack.clone(), underway: None }
    }

    /// How many are under way.
    pub(super) fn count(&self) -> usize {
        self.underway.as_ref().map_or(0, |underway| underway.endings.len())
    }

    /// The batch under way has an answer.
    pub(super) fn is_answered(&self) -> bool {
        self.underway.as_ref().is_some_and(|underway| underway.found.is_some() || underway.asking.is_finished())
    }

    /// Sends a batch. None may be under way.
    pub(super) fn begin(&mut self, endings: Vec<Ending>) {
        debug_assert!(self.underway.is_none(), "one batch at a time");
        let endings: Arc<[Ending]> = endings.into();
        let (stack, batch) = (self.stack.clone(), endings.clone());
        let asking = tokio::spawn(async move {
            let mut db = stack.take().await?;
            let found = leases::end(&mut *db, &batch).await;
            db.after(found)
        });
        self.underway = Some(Underway { endings, asking, found: None });
    }

    /// Waits until [`Self::is_answered`]; for ever where nothing is under way.
    pub(super) async fn answered(&mut self) {
        match &mut self.underway {
            Some(Underway { asking, found, .. }) => {
                if found.is_none() {
                    let answer = asking.await;
                    *found = Some(answer.unwrap_or_else(|cause| Err(Error::Unavailable(cause.to_string()))));
                }
            }
            None => std::future::pending().await,
        }
    }

    /// The batch under way and what became of it, once that is known; none where nothing is under way.
    pub(super) async fn next(&mut self) -> Option<(Vec<Ending>, Found)> {
        if self.underway.is_some() {
            self.answered().await;
        }
        let Underway { endings, found, .. } = self.underway.take()?;
        Some((endings.to_vec(), found?))
    }

    /// Puts jobs back: at once, or where one of them cannot be stored each alone, and that one is left to its lease and the
    /// reaper. Gives those that were put back at once and are ready.
    pub(super) async fn put_back(&self, backs: &[PutBack]) -> Result<Vec<JobId>, Error> {
        match leases::put_back(self.stack.pool(), backs).await {
            Err(error) if error.is_of_the_row() && backs.len() > 1 => {
                for back in backs {
                    match leases::put_back(self.stack.pool(), std::slice::from_ref(back)).await {
                        Err(error) if error.is_of_the_row() => {
                            tracing::error!(job.id = %back.lease.job_id, error = %error, "a job cannot be put back");
                        }
                        found => _ = found?,
                    }
                }
                Ok(Vec::new())
            }
            found => found,
        }
    }

    /// Stores one alone. One that cannot be stored (a result that is no JSON to Postgres) is dead.
    pub(super) async fn alone(&self, ending: &Ending) -> Found {
        match leases::end(self.stack.pool(), std::slice::from_ref(ending)).await {
            Err(error) if error.is_of_the_row() => {
                tracing::error!(job.id = %ending.lease.job_id, error = %error, "the end of a job cannot be stored");
                let error = CtxError::new(Code::Internal, "what the job came to cannot be stored");
                let dead = Ending { state: State::Dead, result: None, error: Some(json(&error)), ..ending.clone() };
                match leases::end(self.stack.pool(), &[dead]).await {
                    // Not even that: its lease runs out, and the reaper decides.
                    Err(error) if error.is_of_the_row() => Ok(Some(Vec::new())),
                    found => found,
                }
            }
            found => found,
        }
    }
}
