//! NOTIFY and LISTEN: hints that something was committed. Refuses to be relied on: whoever listens polls as well.

use std::time::Duration;

use sqlx::{PgExecutor, PgPool, postgres::PgListener};

use super::{Error, within};

/// Jobs became ready: the sender's origin and the names of their queues.
pub const JOBS_CHANNEL: &str = "krilin_jobs";
/// Awaited jobs ended: the sender's origin and their ids.
pub const FINISHED_CHANNEL: &str = "krilin_finished";
/// A schedule may be due sooner than others: no payload. The transaction that makes one says so by itself.
pub const SCHEDULES_CHANNEL: &str = "krilin_schedules";

/// Sends one payload on each of the channels; an empty payload is left out. Postgres takes at most 8,000 bytes each.
pub async fn notify(db: impl PgExecutor<'_>, jobs: &str, finished: &str) -> Result<(), Error> {
    let statement = sqlx::query(
        "select pg_notify(channel, payload) from (values ($1, $2), ($3, $4)) as n(channel, payload) where payload <> ''",
    );
    within(statement.bind(JOBS_CHANNEL).bind(jobs).bind(FINISHED_CHANNEL).bind(finished).execute(db)).await?;
    Ok(())
}

/// Says that a schedule goes on.
pub async fn notify_schedules(db: impl PgExecutor<'_>) -> Result<(), Error> {
    within(sqlx::query("select pg_notify($1, '')").bind(SCHEDULES_CHANNEL).execute(db)).await?;
    Ok(())
}

/// A connection that listens.
pub struct Listener(PgListener);

impl Listener {
    /// Takes a connection out of `pool` and listens to what concerns jobs.
    pub async fn connect(pool: &PgPool) -> Result<Self, Error> {
        Self::on(pool, &[JOBS_CHANNEL, FINISHED_CHANNEL]).await
    }

    /// Takes a connection out of `pool` and listens on `channels`.
    pub async fn on(pool: &PgPool, channels: &[&str]) -> Result<Self, Error> {
        let mut listener = within(PgListener::connect_with(pool)).await?;
        listener.eager_reconnect(false);
        within(listener.listen_all(channels.iter().copied())).await?;
        Ok(Self(listener))
    }

    /// The next notice as channel and payload, or none when `quiet` has passed and the connection proved to be alive.
    /// An error means: the connection is gone, and notices may have been missed.
    pub async fn next(&mut self, quiet: Duration) -> Result<Option<(String, String)>, Error> {
        let Ok(received) = tokio::time::timeout(quiet, self.0.try_recv()).await else {
            within(sqlx::query("select 1").execute(&mut self.0)).await?;
            return Ok(None);
        };
        let notice = received?.ok_or_else(lost)?;
        Ok(Some((notice.channel().to_owned(), notice.payload().to_owned())))
    }

    /// Waits for a notice, at most for `longest`; takes those that came with it. Whether the connection is alive when none
    /// came shows at the next statement on it. An error as by [`Self::next`].
    pub async fn heard(&mut self, longest: Duration) -> Result<(), Error> {
        let Ok(received) = tokio::time::timeout(longest, self.0.try_recv()).await else { return Ok(()) };
        received?.ok_or_else(lost)?;
        while self.0.next_buffered().is_some() {}
        Ok(())
    }

    /// The connection, for statements of its own. Notices that come meanwhile are kept.
    pub fn connection(&mut self) -> impl PgExecutor<'_> {
        &mut self.0
    }
}

fn lost() -> Error {
    Error::Unavailable("the listening connection was lost".to_owned())
}
