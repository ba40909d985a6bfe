//! Lets SQL know the kinds, so that `krilin.enqueue` takes their jobs. Refuses to be read back: policies come from files.

use sqlx::PgExecutor;

use super::Error;
use crate::{
    model::policy::{Asker, KeyOf, Policies},
    store::enqueue::{self, KindRow},
};

/// Writes down what `policies` say of an enqueue, where it is new or has changed; gives how many rows it changed. `only`
/// also forgets all other kinds: for who migrates, since that is the newest krilin of a fleet.
pub async fn publish(db: impl PgExecutor<'_>, policies: &Policies, only: bool) -> Result<i64, Error> {
    let kinds = policies.iter().map(|(kind, policy)| KindRow {
        kind,
        queue: &policy.queue,
        priority: policy.priority,
        max_attempts: i32::try_from(policy.max_attempts).unwrap_or(i32::MAX),
        asked_by: match policy.asked_by {
            Asker::User => "user",
            Asker::System => "system",
        },
        deadline: policy.deadline.map(|deadline| deadline.0),
        concurrency_key: policy.concurrency_key.map(KeyOf::as_str),
        cost: i32::try_from(policy.cost).unwrap_or(i32::MAX),
    });
    Ok(enqueue::keep_kinds(db, &kinds.collect::<Vec<_>>(), only).await?)
}
