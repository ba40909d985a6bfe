//! Passes that only read, for the serving process: a read-only transaction of one snapshot, no lock, no job.

use super::{Ctx, Opening};
use crate::{
    apps::loaded::Apps,
    model::error::CtxError,
    store::{Stack, installations},
};

/// Opens a reading pass. Calls that change rows are refused with `PermissionDenied`; Postgres would refuse them too.
pub async fn open(stack: &Stack, apps: &Apps, opening: Opening) -> Result<Ctx, CtxError> {
    let begin = "begin transaction isolation level repeatable read, read only";
    let mut transaction = stack.begin_with(begin).await?;
    let opened = installations::open(&mut *transaction, opening.user, &opening.app).await?;
    Ctx::assemble(transaction, apps, opening, (opened, true)).await
}
