//! Whether the queue's invariants hold after a run: what `krilin queue fsck` looks at.

use std::time::Duration;

use krilin::{
    jobs::retention::{HISTORY_KEPT, KEYS_KEPT},
    model::secret::Secret,
    queue::fsck,
};
use sqlx::{Connection, PgConnection};

use crate::report::{Goal, Report};

/// The longest one statement may run.
const TIMEOUT: Duration = Duration::from_mins(5);

/// How many invariants do not hold in the database of `db`; each is told.
pub async fn count(db: &mut PgConnection) -> usize {
    let bounds = fsck::bounds(KEYS_KEPT, HISTORY_KEPT, TIMEOUT);
    let findings = fsck::check(db, &bounds).await.expect("Postgres is there");
    let broken: Vec<_> = findings.iter().filter(|finding| !finding.holds()).collect();
    for finding in &broken {
        eprintln!("fsck: {finding:?}");
    }
    broken.len()
}

/// The same in the database at this address.
pub async fn count_at(superuser: &Secret) -> usize {
    let mut db = PgConnection::connect(superuser.expose()).await.expect("the cluster is there");
    count(&mut db).await
}

/// The figure: none is to be found.
#[expect(clippy::cast_precision_loss, reason = "a handful")]
pub fn tell(report: &mut Report, count: usize) {
    report.figure("fsck_findings", count as f64, "", Goal::Is(0.0));
}
