//! `app_action`: runs an action of an installed app for its user. What the action wrote and the job's end are one commit;
//! whoever comes back after losing the lease changes nothing.
//!
//! The instant that the app sees as now is the job's: when it was asked for, or the time it was asked for. So a habit checked
//! off just before midnight counts for that day, however long the queue was and however often the job was tried.

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    apps::loaded::Apps,
    ctx::{Ctx, Ended, Opening, Running, facts},
    model::{
        error::{Code, CtxError},
        host::LogLine,
        id::{AppId, JobId, UserId},
        job::{Failure, Outcome},
        manifest::ActionKind,
        schedule::Fire,
    },
    queue::{
        complete::{self, RESULT_MAX_BYTES},
        registry::{Attempt, Handler},
    },
    sandbox::{self, JobFacts, Run},
    store::Stack,
};

/// What a job of this kind is given.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Args<'a> {
    action: String,
    #[serde(borrow)]
    input: &'a RawValue,
    /// The fire that made the job, where a schedule did.
    schedule: Option<Fire>,
}

/// One pass to run.
#[derive(Debug)]
pub struct Request<'a> {
    /// On whose behalf.
    pub user: UserId,
    /// Of which app.
    pub app: AppId,
    /// Which action; a `mutation`.
    pub action: &'a str,
    /// Its input, which fits its schema.
    pub input: &'a RawValue,
    /// The job, as the app sees it.
    pub job: JobFacts,
    /// The instant, the same for every pass of the job.
    pub now: DateTime<Utc>,
    /// Where chance begins, likewise.
    pub seed: u64,
    /// The job itself; none where a trial stands for it.
    pub running: Option<Running>,
}

/// The handler: runs actions of loaded apps in a pool of sandboxes.
#[derive(Debug, Clone)]
pub struct AppAction {
    /// The apps.
    pub apps: Apps,
    /// Where their code runs.
    pub sandbox: sandbox::Pool,
}

impl AppAction {
    /// Runs one pass over a transaction from `stack`. Gives what the action returned and the transaction, still open: the
    /// caller commits it with whatever completes the work, or drops it, and then nothing has happened.
    pub async fn pass(&self, stack: &Stack, request: &Request<'_>) -> Result<(Box<RawValue>, Ended), CtxError> {
        let mut opening = Opening::new(request.user, request.app.clone(), request.now, request.seed);
        opening.running.clone_from(&request.running);
        let ctx = Ctx::open(stack, &self.apps, opening).await?;
        let app = ctx.app().clone();
        let action = app.action(request.action)?;
        if action.kind == ActionKind::Query {
            let hint = format!("`{}` only reads: it is a query of `{}`, and no job runs it", action.id, app.id);
            return Err(CtxError::new(Code::ValidationFailed, hint));
        }
        let run = Run {
            bundle: &app.code,
            entry: action.handler(),
            input: request.input,
            facts: &ctx.facts(Some(request.job.clone())),
            limits: facts::limits(action),
            seed: request.seed,
            now: request.now,
        };
        let ended = self.sandbox.run(run, &ctx).await;
        let passed = ended.map_err(|error| tell(error, &ctx))?;
        if passed.value.get().len() > RESULT_MAX_BYTES {
            let words =
                format!("`{}` returned {} bytes, {RESULT_MAX_BYTES} are allowed", action.id, passed.value.get().len());
            return Err(CtxError::new(Code::QuotaExceeded, words));
        }
        Ok((passed.value, ctx.end()?))
    }

    async fn attempt(&self, attempt: Attempt) -> Result<Outcome, Failure> {
        let job = &attempt.job;
        let (Some(user), Some(app)) = (job.user_id, job.app_id.clone()) else {
            return Err(invalid("an `app_action` needs a user and an app"));
        };
        let args: Args<'_> = serde_json::from_str(job.args.get())
            .map_err(|cause| invalid(&format!("an `app_action` needs {{\"action\", \"input\"}}: {cause}")))?;
        let trigger = if args.schedule.is_some() { "schedule" } else { "user" };
        let request = Request {
            user,
            app: app.clone(),
            action: &args.action,
            input: args.input,
            job: JobFacts {
                id: job.id.to_string(),
                attempt: job.tries.attempt,
                trigger: trigger.to_owned(),
                caller_app: None,
                schedule: args.schedule,
            },
            now: job.due_at.unwrap_or(job.created_at),
            seed: seed(job.id),
            running: Some(Running {
                job_id: job.id,
                report: attempt.report.clone(),
                cancelled: attempt.cancelled.clone(),
            }),
        };
        let (value, ended) = self.pass(&attempt.relaxed, &request).await?;
        let mut transaction = ended.transaction;
        attempt.report.write_with(&mut *transaction, &attempt.lease).await?;
        complete::in_transaction(&mut transaction, &attempt.lease, Some(&value)).await?;
        transaction.commit().await?;
        write_log(&app, job.id, &ended.log);
        Ok(Outcome::Done(Some(value)))
    }
}

impl Handler for AppAction {
    fn run(&self, attempt: Attempt) -> BoxFuture<'_, Result<Outcome, Failure>> {
        Box::pin(self.attempt(attempt))
    }
}

/// A job's seed: the random half of its id.
fn seed(id: JobId) -> u64 {
    id.0.as_u64_pair().1
}

fn invalid(message: &str) -> Failure {
    Failure::fatal(CtxError::new(Code::ValidationFailed, message))
}

/// The error for the job, after its place in the app's code and what the app had logged went to our own log: the author
/// looks for both.
fn tell(error: sandbox::Error, ctx: &Ctx) -> CtxError {
    tracing::debug!(app.id = %ctx.app().id, stack = error.stack, "an action failed");
    for line in ctx.log_lines() {
        tracing::debug!(app.id = %ctx.app().id, level = ?line.level, fields = %line.fields, "{}", line.message);
    }
    error.into()
}

fn write_log(app: &AppId, job: JobId, lines: &[LogLine]) {
    for line in lines {
        tracing::debug!(app.id = %app, job.id = %job, level = ?line.level, fields = %line.fields, "{}", line.message);
    }
}
