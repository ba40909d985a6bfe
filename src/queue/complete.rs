//! Ends a job inside its handler's own transaction. Refuses when the lease is no longer the job's: then nothing that the
//! transaction did may stay.

use serde_json::value::RawValue;
use sqlx::PgConnection;

use crate::{
    model::job::Lease,
    store::{Error, leases},
};

/// The largest result that is kept with a job, in bytes of JSON.
pub const RESULT_MAX_BYTES: usize = 256 * 1024;

/// Ends the job of `lease` as done with `result`, in the transaction open on `db`. The caller commits, and only then is
/// the job done. [`Error::StaleLease`] means that the job is somebody else's by now: roll back. `?` in a handler does what
/// is right with any of its errors: the attempt ends, and the fence keeps a job that is not ours untouched.
pub async fn in_transaction(db: &mut PgConnection, lease: &Lease, result: Option<&RawValue>) -> Result<(), Error> {
    leases::complete(db, lease, result).await
}
