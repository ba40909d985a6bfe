//! The claims of one lane. Refuses to leave jobs to nobody: a claim that was not answered in time may still be done, now or
//! when a server that stood still goes on, and its worker would not know of the jobs until their leases run out. So its
//! answer is waited for, and what it took goes back.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::{feed::Ground, kept::untouched};
use crate::store::{
    ANSWER_TIMEOUT, Error,
    leases::{self, Claim, Claimed, Ending, Place, Turn},
};

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Claims {
    queue: Arc<str>,
    ground: Ground,
}

/// What a claim is to do beside.
pub(super) enum With {
    /// It takes what has neither user nor key, and looks whether that is right; only behind this place.
    Look(Option<Place>),
    /// It does not even look.
    Nothing(Option<Place>),
    /// It takes by turns.
    Turn(Turn),
    /// It ends jobs first: that lets in what waits for a limit.
    Endings(Arc<[Ending]>, Turn),
}

impl Claims {
    /// Of the lane of `queue`.
    pub(super) fn new(queue: &str, ground: &Ground) -> Self {
        Self { queue: queue.into(), ground: ground.clone() }
    }

    /// Claims up to `limit` jobs. Without an answer within [`ANSWER_TIMEOUT`] it is an error, and what was taken goes back later.
    pub(super) async fn take(&self, limit: usize, with: With) -> Result<Claimed, Error> {
        let durable = matches!(with, With::Endings(..));
        let mut db = if durable { &self.ground.durable } else { &self.ground.relaxed }.take().await?;
        let this = self.clone();
        let mut answer: BoxFuture<'static, _> = Box::pin(async move {
            let claim = this.claim(limit);
            let claimed = match with {
                With::Look(after) => leases::claim(&mut *db, claim, after).await,
                With::Nothing(after) => leases::claim_on(&mut *db, claim, after).await,
                With::Turn(turn) => leases::claim_in_turn(&mut *db, &[], claim, turn).await,
                With::Endings(endings, turn) => leases::claim_in_turn(&mut *db, &endings, claim, turn).await,
            };
            db.after(claimed)
        });
        if let Ok(answer) = tokio::time::timeout(ANSWER_TIMEOUT, &mut answer).await {
            return answer;
        }
        tokio::spawn(self.clone().regret(answer));
        Err(Error::unanswered(ANSWER_TIMEOUT))
    }

    fn claim(&self, limit: usize) -> Claim<'_> {
        let leases = &self.ground.leases;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        Claim { queue: &self.queue, limit, worker_id: leases.worker_id, lease: leases.length }
    }

    /// Gives back what is claimed after nobody waited for it any more. Where the connection was lost with the answer, and
    /// where the database does not take it back at once, the leases run out.
    async fn regret(self, answer: BoxFuture<'static, Result<Claimed, Error>>) {
        let Ok(Claimed { jobs, .. }) = answer.await else { return };
        if jobs.is_empty() {
            return;
        }
        let mut backs: Vec<_> = jobs.into_iter().map(|(_, lease)| untouched(lease)).collect();
        backs.sort_by_key(|back| back.lease.job_id);
        match leases::put_back(self.ground.relaxed.pool(), &backs).await {
            Ok(found) => {
                tracing::warn!(queue = %self.queue, "a claim was answered too late; its {} jobs went back", found.len());
                self.ground.notices.ready([&*self.queue]);
            }
            Err(error) => {
                tracing::warn!(
                    %error, queue = %self.queue,
                    "a claim was answered too late; its {} jobs wait for the reaper", backs.len()
                );
            }
        }
    }
}
