//! What a feeder still has to record: the ends of attempts, and of which jobs somebody must be told. Refuses to drop any of
//! it before the database has it.

use std::collections::{HashMap, HashSet};

use tokio::time::Instant;

use crate::{
    model::{id::JobId, job::Lease},
    store::leases::{Ending, PutBack},
};

/// What was run and is not yet recorded.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) endings: Vec<Ending>,
    pub(super) backs: Vec<PutBack>,
    pub(super) awaited: HashSet<JobId>,
    /// Of the jobs that end, those for which another one waits, and that one.
    pub(super) parents: HashMap<JobId, JobId>,
    /// Jobs of whose children some have ended.
    pub(super) bereft: Vec<JobId>,
    pub(super) since: Option<Instant>,
    /// Leases taken and not settled.
    pub(super) outstanding: usize,
}

/// A job goes back as if it had never been claimed.
pub(super) fn untouched(lease: Lease) -> PutBack {
    PutBack { lease, wait: None, spent: false, outcome: None, error: None }
}

impl Kept {
    /// Jobs that were not begun: they go back without having cost an attempt.
    pub(super) fn give_back(&mut self, leases: impl IntoIterator<Item = Lease>) {
        self.backs.extend(leases.into_iter().map(untouched));
    }

    /// Nobody is to be told of these.
    pub(super) fn forget(&mut self, leases: &[Lease]) {
        for lease in leases {
            self.awaited.remove(&lease.job_id);
            self.parents.remove(&lease.job_id);
        }
    }

    /// Two batches that free the same parents lock them in the same order; without parents, jobs are locked in the order in
    /// which a heartbeat does it.
    pub(super) fn order(&mut self) {
        let Self { endings, parents, .. } = self;
        if parents.is_empty() {
            endings.sort_by_key(|ending| ending.lease.job_id);
        } else {
            endings.sort_by_key(|ending| (parents.get(&ending.lease.job_id).copied(), ending.lease.job_id));
        }
    }

    /// The end of `ids` is committed; gives those of which somebody must be told.
    pub(super) fn ended(&mut self, ids: impl IntoIterator<Item = JobId>) -> Vec<JobId> {
        let Self { awaited, parents, bereft, .. } = self;
        if awaited.is_empty() && parents.is_empty() {
            return Vec::new();
        }
        let ended = ids.into_iter().inspect(|id| bereft.extend(parents.remove(id)));
        ended.filter(|id| awaited.remove(id)).collect()
    }
}
