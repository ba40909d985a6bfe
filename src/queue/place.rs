//! Places jobs and what is below them, in a transaction that is open. Refuses to enqueue what is below a job that was there
//! already.

use sqlx::PgConnection;

use super::Error;
use crate::{
    model::job::{Enqueued, Placed},
    store::{
        self,
        enqueue::{self, NewRow, Refused},
    },
};

/// The rows, each followed by what is below it.
pub(super) fn with_all_below(rows: &[NewRow]) -> Vec<&NewRow> {
    rows.iter().flat_map(|row| std::iter::once(row).chain(&row.ties.below)).collect()
}

/// Places `rows` and what is below them, in the transaction open on `db`. What is below a job that was there already is not
/// enqueued once more.
pub(super) async fn place_all(db: &mut PgConnection, rows: &[NewRow]) -> Result<Vec<Enqueued>, Error> {
    if rows.iter().all(|row| !row.is_keyed()) {
        enqueue::insert(db, &with_all_below(rows)).await?;
        return Ok(rows.iter().map(|row| Enqueued::new(row.id)).collect());
    }
    let placed = enqueue::place(&mut *db, &rows.iter().collect::<Vec<_>>()).await?;
    let done = placed.into_iter().collect::<Result<Vec<_>, _>>()?;
    let created = rows.iter().zip(&done).filter(|(_, done)| done.created());
    tie_all(db, &created.map(|(row, _)| row).collect::<Vec<_>>()).await?;
    Ok(done)
}

/// Ties `rows`, which were just placed in the transaction open on `db`, and inserts what is below them.
pub(super) async fn tie_all(db: &mut PgConnection, rows: &[&NewRow]) -> Result<(), store::Error> {
    let tied: Vec<_> = rows.iter().copied().filter(|row| row.is_tied()).collect();
    if !tied.is_empty() {
        enqueue::tie(db, &tied).await?;
    }
    let below: Vec<_> = rows.iter().flat_map(|row| &row.ties.below).collect();
    if !below.is_empty() {
        enqueue::insert(db, &below).await?;
    }
    Ok(())
}

/// The lanes in which workers have reason to look at once.
pub(super) fn due<'r>(rows: &'r [NewRow], done: &'r [Enqueued]) -> impl Iterator<Item = &'r str> {
    let waking = rows.iter().zip(done).filter(|(row, done)| wakes(row, done));
    let rows = waking.flat_map(|(row, _)| std::iter::once(row).chain(row.ties.below.iter().filter(|row| row.is_due())));
    rows.map(|row| row.queue.as_str())
}

/// Whether workers have reason to look at once.
fn wakes(row: &NewRow, done: &Enqueued) -> bool {
    row.is_due() && !done.replayed && done.outcome != Placed::Kept
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::KeyReused => Self::KeyReused,
            Refused::InFlight => Self::KeyInFlight,
            Refused::KeyElsewhere => Self::State("a waiting job of another kind, user or app has this unique key"),
        }
    }
}
