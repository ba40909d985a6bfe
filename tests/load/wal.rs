//! Postgres' log as a server has it that was busy before: its files are there, and written over. A new cluster fills one of
//! 16 MB with zeros whenever the last is full, in the middle of somebody's commit, and the others wait for it.

use sqlx::{PgExecutor, raw_sql};

/// Fills as many files as a private cluster keeps (its `min_wal_size`), and makes them ready to be written over.
pub async fn settle(superuser: impl PgExecutor<'_>) {
    let fill =
        "select count(pg_logical_emit_message(false, 'bench', repeat('x', 1000000))) from generate_series(1, 520);
                checkpoint";
    raw_sql(fill).execute(superuser).await.expect("the superuser may");
}
