//! What a kind of job is: a policy and a handler under one name. Refuses a handler without a policy and a policy without
//! a handler.
//!
//! A handler is written like this:
//!
//! ```
//! use futures::future::BoxFuture;
//! use krilin::{
//!     model::job::{Failure, Outcome},
//!     queue::{complete, registry::{Attempt, Handler}},
//! };
//!
//! struct Greet;
//!
//! impl Handler for Greet {
//!     // Its policy says `completion = "transaction"`: the handler ends the job itself, with its effects.
//!     fn run(&self, attempt: Attempt) -> BoxFuture<'_, Result<Outcome, Failure>> {
//!         Box::pin(async move {
//!             let mut tx = attempt.begin().await?;
//!             // … statements of `store`, on `&mut tx` …
//!             complete::in_transaction(&mut tx, &attempt.lease, None).await?;
//!             tx.commit().await?;
//!             Ok(Outcome::Done(None))
//!         })
//!     }
//! }
//! ```

use std::{collections::BTreeMap, sync::Arc};

use futures::future::BoxFuture;

use super::{lease::Cancelled, report::Report};
use crate::{
    model::{
        job::{ClaimedJob, Failure, Lease, Outcome},
        policy::{Policies, Policy},
    },
    store::{Stack, Transaction},
};

/// One try at a job, as its handler gets it.
#[derive(Debug)]
pub struct Attempt {
    /// The job: for whom, of which app, with which arguments, the how-many-eth try, from which request.
    pub job: Box<ClaimedJob>,
    /// The right to finish it; [`super::complete::in_transaction`] takes it.
    pub lease: Lease,
    /// Connections to Postgres as `krilin_runtime`.
    pub stack: Stack,
    /// The same, but their commits do not wait for the disk: for an end that is committed with what it did. A power cut takes
    /// back both or neither, and the job runs again; the queue tells nobody of it before it is on the disk.
    pub relaxed: Stack,
    /// Raised when the work is for nothing. When the lease is lost or the worker must stop now, the handler is dropped at
    /// its next await, and only work outside this task (a child, a thread) need listen. When the job was cancelled, the
    /// handler may go on for its policy's `grace`, so one that has to leave something in order should listen.
    pub cancelled: Cancelled,
    /// Takes progress and log lines; seen before the commit, kept after a rollback.
    pub report: Report,
}

impl Attempt {
    /// Opens a transaction. A database that is away is worth another attempt.
    pub async fn begin(&self) -> Result<Transaction, Failure> {
        Ok(self.stack.begin().await?)
    }
}

/// The code of a kind.
pub trait Handler: Send + Sync + 'static {
    /// Runs one attempt. It may be dropped at any await; what was not committed is then as if it never happened.
    ///
    /// With `completion = "transaction"`, [`Outcome::Done`] means that the handler has committed a transaction in which
    /// [`super::complete::in_transaction`] succeeded. With `"batch"` it means that the queue may end the job.
    fn run(&self, attempt: Attempt) -> BoxFuture<'_, Result<Outcome, Failure>>;
}

/// A kind: its policy and its handler.
#[derive(Clone)]
pub struct Kind {
    /// How hard to try.
    pub policy: Arc<Policy>,
    /// What to do.
    pub handler: Arc<dyn Handler>,
}

/// All kinds, by name. Cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<BTreeMap<String, Kind>>);

/// Why policies and handlers do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// A policy nobody implements.
    #[error("there is a policy for the kind `{0}` but no handler")]
    NoHandler(String),
    /// A handler nobody described.
    #[error("there is a handler for the kind `{0}` but no policy")]
    NoPolicy(String),
}

impl Registry {
    /// Joins `policies` and `handlers`; each must have its counterpart.
    pub fn new(
        policies: &Policies,
        handlers: impl IntoIterator<Item = (&'static str, Arc<dyn Handler>)>,
    ) -> Result<Self, RegistryError> {
        let mut kinds = BTreeMap::new();
        for (name, handler) in handlers {
            let policy = policies.get(name).ok_or_else(|| RegistryError::NoPolicy(name.to_owned()))?.clone();
            kinds.insert(name.to_owned(), Kind { policy, handler });
        }
        match policies.iter().find(|(name, _)| !kinds.contains_key(*name)) {
            Some((name, _)) => Err(RegistryError::NoHandler(name.to_owned())),
            None => Ok(Self(Arc::new(kinds))),
        }
    }

    /// The kind of that name.
    pub fn get(&self, name: &str) -> Option<&Kind> {
        self.0.get(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Kind)> {
        self.0.iter().map(|(name, kind)| (name.as_str(), kind))
    }

    /// The kinds, in the order of their names.
    pub fn kinds(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// The lanes that the kinds' jobs wait in, each once.
    pub fn queues(&self) -> Vec<String> {
        let mut queues: Vec<_> = self.0.values().map(|kind| kind.policy.queue.clone()).collect();
        queues.sort_unstable();
        queues.dedup();
        queues
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
