//! What a handler says while it runs: how far it is, and what it logs. Written beside the handler's transaction, so that it
//! is seen before the commit and outlives a rollback; in batches, at most one a second; under the job's lease alone.
//! Refuses to hold more than its limits: what is over them is dropped, and one line says so.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use sqlx::{PgExecutor, PgPool};
use tokio::{sync::Notify, time::Instant};

use crate::{
    model::{
        error::{Code, CtxError},
        host::{LogLevel, LogLine},
        job::Lease,
    },
    store::{Error, reports},
};

/// The most lines of one attempt.
pub const LINES_MAX: usize = 1_000;
/// The most bytes of one attempt's lines, as JSON text.
pub const BYTES_MAX: usize = 64 << 10;
/// The most bytes of a job's lines, all attempts together.
pub const BYTES_PER_JOB: i64 = 256 << 10;
/// The least time between two reports of one attempt.
pub const REPORT_GAP: Duration = Duration::from_secs(1);
/// The largest progress, as JSON text.
pub const PROGRESS_BYTES: usize = 1 << 10;
/// The longest that the last report may hold up an attempt's end.
const LAST_WAIT: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
struct Unwritten {
    progress: Option<String>,
    lines: Vec<String>,
    /// Lines and bytes of this attempt so far, written or not.
    count: usize,
    bytes: usize,
    cut: bool,
    /// The handler's own transaction is about to write it.
    held_back: bool,
}

#[derive(Debug, Default)]
struct Inner {
    unwritten: Mutex<Unwritten>,
    news: Notify,
}

/// One attempt's report. Cheap to clone; all clones write the same one.
#[derive(Debug, Clone, Default)]
pub struct Report(Arc<Inner>);

impl Report {
    fn unwritten(&self) -> std::sync::MutexGuard<'_, Unwritten> {
        self.0.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says how far the job is: `value` from 0 to 1 or an object, with words for a person. The latest one counts.
    pub fn progress(&self, value: &Value, message: Option<&str>) -> Result<(), CtxError> {
        let share = value.as_f64().is_some_and(|share| (0.0..=1.0).contains(&share));
        let refused = |words: String| Err(CtxError::new(Code::ValidationFailed, words));
        if !share && !value.is_object() {
            return refused(format!("a progress is a number from 0 to 1 or an object, not {value}"));
        }
        let text = without_nul(json!({ "value": value, "message": message }).to_string());
        if text.len() > PROGRESS_BYTES {
            return refused(format!("a progress has {PROGRESS_BYTES} bytes at most, not {}", text.len()));
        }
        self.unwritten().progress = Some(text);
        self.0.news.notify_one();
        Ok(())
    }

    /// Logs a line.
    pub fn log(&self, line: &LogLine) {
        let Ok(text) = serde_json::to_string(line).map(without_nul) else { return };
        let mut unwritten = self.unwritten();
        if unwritten.cut {
            return;
        }
        if unwritten.count == LINES_MAX || unwritten.bytes + text.len() > BYTES_MAX {
            unwritten.cut = true;
            let message = format!("the log ends here: an attempt has {LINES_MAX} lines and {BYTES_MAX} bytes at most");
            let last = LogLine { level: LogLevel::Warn, message, fields: Value::Null };
            unwritten.lines.extend(serde_json::to_string(&last));
        } else {
            unwritten.count += 1;
            unwritten.bytes += text.len();
            unwritten.lines.push(text);
        }
        drop(unwritten);
        self.0.news.notify_one();
    }

    /// What is unwritten, which then counts as written.
    fn take(&self) -> Option<reports::Report> {
        let mut unwritten = self.unwritten();
        let report = unwritten.report();
        (unwritten.progress, unwritten.lines) = (None, Vec::new());
        report
    }

    /// Writes what is unwritten in the handler's own transaction, before that ends the job. It still counts as unwritten: if
    /// the transaction does not commit, the attempt's end writes it.
    pub async fn write_with(&self, db: impl PgExecutor<'_>, lease: &Lease) -> Result<(), Error> {
        let report = {
            let mut unwritten = self.unwritten();
            unwritten.held_back = true;
            unwritten.report()
        };
        match report {
            Some(report) => reports::write(db, lease, &report, BYTES_PER_JOB).await,
            None => Ok(()),
        }
    }

    /// Writes again and again while the handler runs.
    pub(super) async fn keep(&self, pool: &PgPool, lease: &Lease) -> Infallible {
        let mut next = Instant::now() + REPORT_GAP;
        loop {
            self.0.news.notified().await;
            tokio::time::sleep_until(next).await;
            if !self.unwritten().held_back {
                self.attempt(pool, lease).await;
            }
            next = Instant::now() + REPORT_GAP;
        }
    }

    /// The last report of an attempt that committed nothing, before its lease ends.
    pub(super) async fn finish(&self, pool: &PgPool, lease: &Lease) {
        if self.unwritten().report().is_some() {
            let _ = tokio::time::timeout(LAST_WAIT, self.attempt(pool, lease)).await;
        }
    }

    async fn attempt(&self, pool: &PgPool, lease: &Lease) {
        let Some(report) = self.take() else { return };
        if let Err(error) = reports::write(pool, lease, &report, BYTES_PER_JOB).await {
            tracing::warn!(job.id = %lease.job_id, error = %error, "a report of job {} was not written", lease.job_id);
        }
    }
}

impl Unwritten {
    fn report(&self) -> Option<reports::Report> {
        let lines = (!self.lines.is_empty()).then(|| format!("[{}]", self.lines.join(",")));
        let progress = self.progress.clone();
        (progress.is_some() || lines.is_some()).then_some(reports::Report { progress, lines })
    }
}

/// Postgres has no NUL in text: such a one becomes U+FFFD.
fn without_nul(text: String) -> String {
    if text.contains("\\u0000") { text.replace("\\u0000", "\\ufffd") } else { text }
}
