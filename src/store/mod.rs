//! All SQL, one file per noun, one function per statement.
//!
//! Functions take a connection or pool (`impl PgExecutor<'_>` where one statement suffices) and give typed rows or a
//! [`Error`]. Transactions are opened by `queue`, `apps` and `ctx`, on a [`Stack`], never here. Every wait has a deadline:
//! the pool's for a connection, Postgres' own `statement_timeout` for a statement, and [`within`] for the case that Postgres
//! no longer answers.

pub mod apps;
pub mod children;
pub mod columns;
pub mod copy;
pub mod dead;
pub mod enqueue;
pub mod fires;
pub mod flow;
pub mod fsck;
pub mod health;
pub mod history;
pub mod installations;
pub mod jobs;
pub mod leases;
pub mod notices;
pub mod reports;
pub mod rows;
pub mod schedules;
pub mod schema;
pub mod stack;
pub mod stops;
pub mod tables;
pub mod tokens;
pub mod transaction;
pub mod users;
pub mod why;
pub mod workers;

use std::{future::Future, str::FromStr, time::Duration};

use sqlx::{
    ConnectOptions, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use tracing::Instrument;

pub use self::{stack::Stack, transaction::Transaction};
use crate::model::{
    error::{Code, CtxError},
    job::Failure,
    secret::Secret,
};

/// The longest one statement may run, in Postgres' words. Migrations and plans lift it for their own connection.
pub const STATEMENT_TIMEOUT: &str = "10s";
/// The longest to wait for a free connection.
pub const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest to wait for an answer when even `statement_timeout` did not end the wait (a dead network, a stopped server).
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// The longest to wait for what must be known however late it comes.
pub const LATE_ANSWER_TIMEOUT: Duration = Duration::from_mins(10);

/// How many prepared statements a connection keeps: the queue's, and some twenty for each app in use.
pub const STATEMENTS_KEPT: usize = 256;

/// What can go wrong in the store, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such row.
    #[error("not found")]
    NotFound,
    /// A constraint refused the row; the name is the constraint's.
    #[error("constraint {0} does not hold")]
    Constraint(String),
    /// The lease is somebody else's by now; whatever was done under it must be rolled back.
    #[error("the lease is no longer held")]
    StaleLease,
    /// Postgres cannot be reached, is starting or stopping, or did not answer in time. Worth another try.
    #[error("Postgres cannot be reached just now: {0}")]
    Unavailable(String),
    /// Two transactions met; a fresh one may succeed.
    #[error("two transactions met: {0}")]
    Serialization(String),
    /// Anything else.
    #[error(transparent)]
    Database(sqlx::Error),
}

impl Error {
    /// There was no answer within `time`.
    pub fn unanswered(time: Duration) -> Self {
        Self::Unavailable(format!("no answer within {} s", time.as_secs()))
    }

    /// The name of the violated constraint, where that is what happened.
    pub fn constraint(&self) -> Option<&str> {
        match self {
            Self::Constraint(name) => Some(name),
            _ => None,
        }
    }

    /// Whether the statement failed for what is in one of its rows: the others may do alone, and that one never will.
    pub fn is_of_the_row(&self) -> bool {
        match self {
            Self::Constraint(_) => true,
            Self::Database(sqlx::Error::Database(cause)) => {
                cause.code().is_some_and(|code| OF_THE_ROW.iter().any(|class| code.starts_with(class)))
            }
            _ => false,
        }
    }

    /// Whether a value did not fit: SQLSTATE class 22.
    pub fn is_data_exception(&self) -> bool {
        match self {
            Self::Database(sqlx::Error::Database(cause)) => cause.code().is_some_and(|code| code.starts_with("22")),
            _ => false,
        }
    }
}

/// SQLSTATE classes that speak of a row, not of the statement or the server: data exception, raised by a trigger.
const OF_THE_ROW: [&str; 2] = ["22", "P0"];

/// SQLSTATE classes and codes (PostgreSQL manual, appendix A) that mean "the server is away", not "the statement is wrong":
/// connection exceptions, insufficient resources, operator intervention.
const AWAY: [&str; 3] = ["08", "53", "57"];

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::RowNotFound => Self::NotFound,
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::WorkerCrashed => Self::Unavailable(error.to_string()),
            sqlx::Error::Database(database) => {
                let code = database.code().unwrap_or_default();
                if code.starts_with("23") {
                    Self::Constraint(database.constraint().unwrap_or("unnamed").to_owned())
                } else if code.starts_with("40") || code == "55P03" {
                    Self::Serialization(error.to_string())
                } else if AWAY.iter().any(|class| code.starts_with(class)) {
                    Self::Unavailable(error.to_string())
                } else {
                    Self::Database(error)
                }
            }
            _ => Self::Database(error),
        }
    }
}

impl From<Error> for CtxError {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound => Self::new(Code::NotFound, "there is no such thing"),
            Error::Constraint(name) => Self::new(Code::Conflict, format!("`{name}` does not hold")),
            Error::StaleLease => Self::new(Code::Conflict, "another worker has taken this job over"),
            Error::Unavailable(_) => Self::new(Code::Unavailable, "the database cannot be reached just now")
                .with_retry_after(Duration::from_secs(1)),
            Error::Serialization(_) => Self::new(Code::Conflict, "two changes met; try again"),
            Error::Database(cause) => {
                tracing::error!(error = %cause, "a statement failed");
                Self::new(Code::Internal, "something went wrong on our side")
            }
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        CtxError::from(error).into()
    }
}

/// Waits for `work`, at most [`ANSWER_TIMEOUT`]; past it the answer is [`Error::Unavailable`]. Its span says where in the
/// source the statement stands: one statement is one function, so that is its name.
#[track_caller]
pub fn within<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> impl Future<Output = Result<T, Error>> {
    within_time(ANSWER_TIMEOUT, work)
}

/// The same, at most [`LATE_ANSWER_TIMEOUT`]: for a caller who waits less and then leaves the wait to somebody else.
#[track_caller]
fn eventually<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> impl Future<Output = Result<T, Error>> {
    within_time(LATE_ANSWER_TIMEOUT, work)
}

#[track_caller]
fn within_time<T>(
    time: Duration,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> impl Future<Output = Result<T, Error>> {
    let caller = std::panic::Location::caller();
    let span = tracing::debug_span!(
        "db.statement",
        otel.kind = "client",
        db.system.name = "postgresql",
        code.file.path = caller.file(),
        code.line.number = caller.line()
    );
    let answered = async move {
        match tokio::time::timeout(time, work).await {
            Ok(result) => result.map_err(Error::from),
            Err(_) => Err(Error::unanswered(time)),
        }
    };
    answered.instrument(span)
}

/// Options for connections to `url`: our schema first in the search path, a statement timeout, and a name that operators
/// see in `pg_stat_activity`.
pub fn connect_options(url: &Secret, application_name: &str) -> Result<PgConnectOptions, Error> {
    let options = PgConnectOptions::from_str(url.expose())?
        .application_name(application_name)
        .statement_cache_capacity(STATEMENTS_KEPT);
    Ok(options.options([
        ("search_path", "krilin,public"),
        ("statement_timeout", STATEMENT_TIMEOUT),
        // "already exists, skipping" is what we asked for; nobody needs to read it.
        ("client_min_messages", "warning"),
        // Every statement begins at one job or one user and rides on an index; planning it anew for each value costs more
        // than running it.
        ("plan_cache_mode", "force_generic_plan"),
    ]))
}

/// The password in a connection string, with its `%XX` decoded.
pub fn password(url: &Secret) -> Option<Secret> {
    let (_, rest) = url.expose().split_once("://")?;
    let (user, _) = rest.split('/').next()?.rsplit_once('@')?;
    let (_, password) = user.split_once(':')?;
    String::from_utf8(percent_decoded(password)).ok().filter(|password| !password.is_empty()).map(Secret::new)
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let code = part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(code.unwrap_or(b'%'));
        bytes.extend(&part.as_bytes()[if code.is_some() { 2 } else { 0 }..]);
    }
    bytes
}

/// One connection to `url`, within [`ANSWER_TIMEOUT`].
pub async fn connect(url: &Secret, application_name: &str) -> Result<PgConnection, Error> {
    within(connect_options(url, application_name)?.connect()).await
}

/// A pool of at most `max_connections` to `url`. Connects lazily: a Postgres that is away is an error of the first
/// statement, not of the start.
pub fn pool(url: &Secret, application_name: &str, max_connections: u32) -> Result<PgPool, Error> {
    let options = connect_options(url, application_name)?;
    Ok(PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .connect_lazy_with(options))
}

/// A session whose commits do not wait for the disk.
pub const RELAXED: [(&str, &str); 1] = [("synchronous_commit", "off")];

/// A pool of its own beside `pool`: to the same place with the same rights, with `settings` in every session.
pub fn beside(pool: &PgPool, max_connections: u32, settings: &[(&str, &str)]) -> PgPool {
    PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .connect_lazy_with((*pool.connect_options()).clone().options(settings.iter().copied()))
}
