//! The world of one pass: `ctx`, as app code and later agents see it, over one open transaction.
//!
//! A [`Ctx`] is opened for a user and an app and answers calls until the pass ends. A changing pass holds the lock of its
//! installation, so that two actions of one installation never interleave, and hands its transaction back for the job's
//! completion to join; [`query`] opens one that only reads. Refuses everything that [`dispatch`] does not know.

pub mod dispatch;
pub mod facts;
pub mod pass;
pub mod query;

mod aggregate;
mod change;
mod filter;
mod insert;
mod job;
mod log;
mod order;
mod read;
mod refusal;
mod schedule;
mod table;
mod value;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use futures::future::BoxFuture;
use serde_json::Value;
use tokio::sync::Mutex;

use self::{
    dispatch::{CALLS_DEFAULT, CALLS_MAX},
    log::Lines,
    pass::{Chance, Pass, World},
};
use crate::{
    apps::loaded::{Apps, LoadedApp},
    model::{
        error::{Code, CtxError},
        host::{Call, Host, LogLine, Settled},
        id::{AppId, JobId, UserId},
        user::WeekStart,
    },
    queue::{lease::Cancelled, report::Report},
    store::{
        Stack, Transaction,
        installations::{self, Opened},
    },
};

/// The job that a pass belongs to.
#[derive(Debug, Clone)]
pub struct Running {
    /// Which.
    pub job_id: JobId,
    /// Takes what the app says of its progress, and what it logs.
    pub report: Report,
    /// Raised when the job was cancelled: every call is refused then, for nothing would be kept.
    pub cancelled: Cancelled,
}

/// Who, which app and when: what a pass is opened for.
#[derive(Debug, Clone)]
pub struct Opening {
    /// On whose behalf.
    pub user: UserId,
    /// Which app.
    pub app: AppId,
    /// The job's instant; the same for every pass of the job.
    pub now: DateTime<Utc>,
    /// The job's seed; likewise.
    pub seed: u64,
    /// The most calls; at most [`CALLS_MAX`].
    pub calls_max: u32,
    /// The job; none where none runs.
    pub running: Option<Running>,
}

impl Opening {
    /// An opening with the default limits.
    pub fn new(user: UserId, app: AppId, now: DateTime<Utc>, seed: u64) -> Self {
        Self { user, app, now, seed, calls_max: CALLS_DEFAULT, running: None }
    }
}

/// The user as app code sees them.
#[derive(Debug, Clone)]
pub struct Person {
    /// Who.
    pub id: UserId,
    /// What they are called.
    pub name: String,
    /// Their address.
    pub email: Option<String>,
    /// Their zone.
    pub timezone: Tz,
    /// Their language.
    pub locale: String,
    /// The day on which their week begins.
    pub week_start: WeekStart,
}

/// One pass over one open transaction.
#[derive(Debug)]
pub struct Ctx {
    world: World,
    person: Person,
    settings: Value,
    pass: Mutex<Pass>,
    lines: Lines,
}

/// A pass that has ended well: its transaction, uncommitted, and its log.
#[derive(Debug)]
pub struct Ended {
    /// To be committed with whatever completes the work, or dropped.
    pub transaction: Transaction,
    /// What the app logged.
    pub log: Vec<LogLine>,
}

impl Ctx {
    /// Opens a changing pass: begins a transaction, locks the installation, learns everything about it in one statement.
    pub async fn open(stack: &Stack, apps: &Apps, opening: Opening) -> Result<Self, CtxError> {
        let mut transaction = stack.begin().await?;
        let opened = installations::open_locked(&mut *transaction, opening.user, &opening.app).await?;
        Self::assemble(transaction, apps, opening, (opened, false)).await
    }

    async fn assemble(
        mut transaction: Transaction,
        apps: &Apps,
        opening: Opening,
        (opened, read_only): (Option<Opened>, bool),
    ) -> Result<Self, CtxError> {
        let Opening { user, app, now, seed, calls_max, running } = opening;
        let not_installed = || CtxError::new(Code::NotInstalled, format!("`{app}` is not installed"));
        let opened = opened.ok_or_else(not_installed)?;
        if opened.state != "active" {
            let message = format!("`{app}` is {} for this user", opened.state);
            return Err(CtxError::new(Code::PermissionDenied, message));
        }
        let loaded = apps.at(&mut transaction, &app, opened.revision).await?;
        let person = person(user, opened.user);
        let world = World {
            user,
            app: loaded,
            grants: opened.grants,
            now,
            zone: person.timezone,
            week_start: person.week_start,
            read_only,
            calls_max: calls_max.min(CALLS_MAX),
            running,
        };
        let pass = Pass {
            transaction,
            calls: 0,
            rows: 0,
            near_limit: opened.near_limit,
            broken: None,
            chance: Chance::new(seed),
        };
        let settings = serde_json::from_str(&opened.settings).unwrap_or_else(|_| Value::Object(serde_json::Map::new()));
        Ok(Self { world, person, settings, pass: Mutex::new(pass), lines: Lines::default() })
    }

    /// The app that runs.
    pub fn app(&self) -> &Arc<LoadedApp> {
        &self.world.app
    }

    /// The user for whom it runs.
    pub fn person(&self) -> &Person {
        &self.person
    }

    /// The installation's settings; an object.
    pub fn settings(&self) -> &Value {
        &self.settings
    }

    /// Ends the pass and hands its transaction over. Fails if a call has made the transaction unusable: then there is
    /// nothing to commit, whatever the handler made of the error. Dropping a [`Ctx`] rolls back.
    pub fn end(self) -> Result<Ended, CtxError> {
        let pass = self.pass.into_inner();
        match pass.broken {
            Some(error) => Err(error),
            None => Ok(Ended { transaction: pass.transaction, log: self.lines.take() }),
        }
    }

    /// What the app has logged so far.
    pub fn log_lines(&self) -> Vec<LogLine> {
        self.lines.take()
    }
}

impl Host for Ctx {
    fn settle(&self, calls: Vec<Call>) -> BoxFuture<'_, Vec<Settled>> {
        Box::pin(async move {
            let mut pass = self.pass.lock().await;
            let mut settled = Vec::with_capacity(calls.len());
            // In order and one after the other: there is one connection, and an author reads their calls from top to bottom.
            for call in calls {
                settled.push(dispatch::dispatch(&self.world, &mut pass, call).await);
            }
            settled
        })
    }

    fn log(&self, line: LogLine) {
        if let Some(running) = &self.world.running {
            running.report.log(&line);
        }
        self.lines.add(line);
    }
}

/// A zone or weekday that this binary does not know falls back to the plainest one: a wrong row of `users` must not keep
/// anybody from their data.
fn person(id: UserId, (name, email, timezone, locale, week_start): Parts) -> Person {
    let timezone = timezone.parse().unwrap_or(Tz::UTC);
    let week_start = week_start.parse().unwrap_or(WeekStart::Monday);
    Person { id, name, email, timezone, locale, week_start }
}

type Parts = (String, Option<String>, String, String, String);
