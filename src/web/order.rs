//! What a caller orders: from a body to checked jobs, from jobs to an answer.
//!
//! Refuses an order with anything wrong in it, all faults at once, before anything is enqueued: a kind that is unknown or
//! not for users, an app that is not there, an action that does not exist, an input that does not fit.

use std::collections::BTreeMap;

use axum::{
    http::{HeaderName, StatusCode, header},
    response::{AppendHeaders, IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

use super::{
    Web,
    api::jobs::JobAnswer,
    auth::Caller,
    body,
    call::{self, Refusal, Sort},
    error::{FieldError, Problem},
    limit,
    receipt::{ReceiptAnswer, ReceiptsAnswer, Slip},
    trace::Trace,
    wanted::Wanted,
    wish::{self, Wishes},
};
use crate::model::{
    error::{Code, CtxError},
    id::AppId,
    job::{NewJob, State},
    token::Scope,
};

/// The kind that runs an action of an app.
pub const APP_ACTION: &str = "app_action";
/// What asked for a job that came this way.
const CAUSE: &str = "http";
/// One job or many.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum Body {
    /// One.
    One(Box<Wanted>),
    /// Many, all or none; 1,000 at most.
    List(Vec<Wanted>),
    /// The same under a name.
    Many {
        /// The jobs; 1,000 at most.
        jobs: Vec<Wanted>,
    },
}

/// What an order comes to.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum Answer {
    /// For one job.
    One(ReceiptAnswer),
    /// For many.
    Many(ReceiptsAnswer),
}

/// The arguments of an action's job.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ActionArgs {
    action: String,
    #[serde(default = "empty")]
    input: Value,
}

fn empty() -> Value {
    json!({})
}

/// An order as it came in.
pub struct Order<'a> {
    /// The server.
    pub web: &'a Web,
    /// Who orders.
    pub caller: &'a Caller,
    /// What they ask for beside.
    pub wishes: &'a Wishes,
    /// The request's place in its trace.
    pub trace: Trace,
    /// The body.
    pub body: &'a [u8],
}

impl Order<'_> {
    /// Carries out an order of jobs: one, a list, or a list under the name `jobs`.
    pub async fn jobs(&self) -> Result<Response, Problem> {
        let _held = self.web.keys().hold(self.caller.user_id(), self.wishes.key())?;
        if self.body.trim_ascii_start().starts_with(b"[") {
            return self.list(body::parse(self.body, "")?, "").await;
        }
        let fields: BTreeMap<&str, &RawValue> = body::parse(self.body, "")?;
        let Some(list) = fields.get("jobs") else {
            let wanted = body::parse(self.body, "")?;
            let job = self.check(wanted, "", 0).await?.map_err(Problem::invalid)?;
            return self.submit(job).await;
        };
        if let Some(other) = fields.keys().find(|key| **key != "jobs") {
            let message = "a batch has `jobs` and nothing beside".to_owned();
            return Err(Problem::invalid(vec![FieldError { pointer: format!("/{other}"), message }]));
        }
        self.list(body::parse(list.get().as_bytes(), "/jobs")?, "/jobs").await
    }

    /// Carries out an order of many jobs, which stand at `place` in the body.
    async fn list(&self, list: Vec<&RawValue>, place: &str) -> Result<Response, Problem> {
        if list.is_empty() || list.len() > limit::BATCH_MAX {
            let message = format!("a batch has 1 to {} jobs, not {}", limit::BATCH_MAX, list.len());
            return Err(Problem::invalid(vec![FieldError { pointer: place.to_owned(), message }]));
        }
        let mut jobs = Vec::with_capacity(list.len());
        let mut errors = Vec::new();
        for (index, text) in list.into_iter().enumerate() {
            match self.read(text.get().as_bytes(), &format!("{place}/{index}"), index).await? {
                Ok(job) => jobs.push(job),
                Err(more) => errors.extend(more),
            }
        }
        if errors.is_empty() { self.submit_all(jobs).await } else { Err(Problem::invalid(errors)) }
    }

    /// The job that `text` describes, or everything that is wrong with it. The outer error ends the whole order.
    pub(super) async fn read(
        &self,
        text: &[u8],
        base: &str,
        index: usize,
    ) -> Result<Result<NewJob, Vec<FieldError>>, Problem> {
        match body::parse(text, base) {
            Ok(wanted) => self.check(wanted, base, index).await,
            Err(body::ParseError::Shape(field)) => Ok(Err(vec![field])),
            Err(body::ParseError::Malformed(problem)) => Err(problem),
        }
    }

    /// A job as the queue takes it, or everything that is wrong with it. The outer error ends the whole order.
    pub async fn check(
        &self,
        wanted: Wanted,
        base: &str,
        index: usize,
    ) -> Result<Result<NewJob, Vec<FieldError>>, Problem> {
        let user = self.caller.user_id();
        let mut errors = wanted.errors(self.web.queue().policies(), user, base);
        let unique = wanted.unique(user).unwrap_or_default();
        let deadline = wanted.deadline().unwrap_or_default();
        let children = match self.check_children(wanted.children, base).await? {
            Ok(children) => children,
            Err(more) => {
                errors.extend(more);
                Vec::new()
            }
        };
        let mut app_id = None;
        let mut args = wanted.args.unwrap_or_else(empty);
        if wanted.kind == APP_ACTION {
            self.caller.may(Scope::AppsCall)?;
            match self.check_action(wanted.app_id.as_deref(), args, base).await? {
                Ok((app, checked)) => (app_id, args) = (Some(app), checked),
                Err(more) => {
                    errors.extend(more);
                    args = Value::Null;
                }
            }
        }
        if !errors.is_empty() {
            return Ok(Err(errors));
        }
        Ok(Ok(NewJob {
            kind: wanted.kind,
            app_id,
            args,
            run_at: wanted.run_at,
            priority: wanted.priority,
            max_attempts: wanted.max_attempts,
            delay: wanted.delay.map(|delay| delay.0),
            deadline,
            children,
            when: wanted.when,
            unique,
            ..self.new_job(index)
        }))
    }

    /// The jobs below one, without an idempotency key of their own.
    async fn check_children(
        &self,
        wanted: Vec<Wanted>,
        base: &str,
    ) -> Result<Result<Vec<NewJob>, Vec<FieldError>>, Problem> {
        let (mut children, mut errors) = (Vec::with_capacity(wanted.len()), Vec::new());
        if wanted.len() > limit::BATCH_MAX {
            let message = format!("a job has {} children at most, not {}", limit::BATCH_MAX, wanted.len());
            return Ok(Err(vec![FieldError { pointer: format!("{base}/children"), message }]));
        }
        for (index, child) in wanted.into_iter().enumerate() {
            match Box::pin(self.check(child, &format!("{base}/children/{index}"), index)).await? {
                Ok(child) => children.push(NewJob { idempotency: None, awaited: false, ..child }),
                Err(more) => errors.extend(more),
            }
        }
        Ok(if errors.is_empty() { Ok(children) } else { Err(errors) })
    }

    /// What every job of this order has.
    fn new_job(&self, index: usize) -> NewJob {
        NewJob {
            user_id: Some(self.caller.user_id()),
            idempotency: self.wishes.idempotency(self.body, index),
            trace_parent: Some(self.trace.to_string()),
            cause: Some(CAUSE.to_owned()),
            awaited: self.wishes.wait.is_some(),
            ..NewJob::default()
        }
    }

    /// The app and the arguments of an action's job, defaults filled in.
    async fn check_action(
        &self,
        app_id: Option<&str>,
        args: Value,
        base: &str,
    ) -> Result<Result<(AppId, Value), Vec<FieldError>>, Problem> {
        let one =
            |field: &str, message: String| Ok(Err(vec![FieldError { pointer: format!("{base}/{field}"), message }]));
        let Some(app_id) = app_id else {
            return one("app_id", "an action's job needs the app".to_owned());
        };
        let app_id: AppId = match app_id.parse() {
            Ok(app_id) => app_id,
            Err(cause) => return one("app_id", format!("{cause}")),
        };
        let ActionArgs { action, mut input } = match serde_path_to_error::deserialize(args) {
            Ok(args) => args,
            Err(cause) => {
                let pointer = body::pointer(&format!("{base}/args"), cause.path());
                return Ok(Err(vec![FieldError { pointer, message: cause.inner().to_string() }]));
            }
        };
        match call::check(self.web, self.caller, &app_id, (Sort::Action, &action), &mut input).await {
            Ok(_) => Ok(Ok((app_id, json!({ "action": action, "input": input })))),
            Err(refusal) => Ok(Err(refusal.at(base)?)),
        }
    }

    /// Carries out an order of one action of an app.
    pub async fn action(&self, app_id: &str, action: &str) -> Result<Response, Problem> {
        let _held = self.web.keys().hold(self.caller.user_id(), self.wishes.key())?;
        let mut input = body::input(self.body)?;
        let app_id: AppId = app_id.parse().map_err(|_| Problem::not_found(format!("there is no app `{app_id}`")))?;
        call::check(self.web, self.caller, &app_id, (Sort::Action, action), &mut input)
            .await
            .map_err(Refusal::into_problem)?;
        self.submit(NewJob {
            kind: APP_ACTION.to_owned(),
            app_id: Some(app_id),
            args: json!({ "action": action, "input": input }),
            ..self.new_job(0)
        })
        .await
    }

    async fn submit(&self, mut job: NewJob) -> Result<Response, Problem> {
        let slip = Slip::of(self.web, self.caller, &mut job, 0);
        let enqueued = self.web.queue().enqueue(job).await?;
        let job_id = enqueued.job_id;
        // From here on the job is committed: an error while looking at it must not look like a refusal.
        let view = match self.wishes.wait {
            Some(wait) => tokio::select! {
                view = self.web.queue().wait_for(&enqueued, wait) => view.ok().flatten(),
                // The job goes on without this server; its address is the answer.
                () = self.web.stopping() => None,
            },
            None => None,
        };
        // A job that is done is durable, and so is one for whose end nobody waits. Any other answer promises that it is there.
        if self.wishes.wait.is_some() && view.as_ref().is_none_or(|job| job.state != State::Done) {
            self.web.queue().sync().await.map_err(|error| Problem::from(error).with_job(job_id))?;
        }
        let response = match view {
            Some(job) if job.state == State::Done => answer(StatusCode::OK, &JobAnswer { job })?,
            Some(job) if job.state.is_final() => {
                let error = job.error.unwrap_or_else(|| CtxError::new(Code::Internal, "the job failed without a word"));
                Problem::from(error).with_job(job_id).into_response()
            }
            view => {
                let location = [(header::LOCATION, format!("/api/v1/jobs/{job_id}"))];
                let mut receipt = slip.with(&enqueued);
                receipt.job.state = view.map_or(receipt.job.state, |job| job.state);
                (location, answer(StatusCode::ACCEPTED, &receipt)?).into_response()
            }
        };
        let waited = self.wishes.wait.map(|wait| (wish::PREFERENCE_APPLIED, format!("wait={}", wait.as_secs())));
        Ok((AppendHeaders(waited), mark(enqueued.replayed), response).into_response())
    }

    async fn submit_all(&self, mut jobs: Vec<NewJob>) -> Result<Response, Problem> {
        let slips = jobs.iter_mut().enumerate().map(|(index, job)| Slip::of(self.web, self.caller, job, index));
        let slips: Vec<_> = slips.collect();
        let enqueued = self.web.queue().enqueue_many(jobs).await?;
        let replayed = enqueued.iter().all(|enqueued| enqueued.replayed);
        let receipts = slips.into_iter().zip(&enqueued).map(|(slip, enqueued)| slip.with(enqueued));
        let response = answer(StatusCode::ACCEPTED, &ReceiptsAnswer::of(receipts.collect(), self.caller))?;
        Ok((mark(replayed), response).into_response())
    }
}

/// The header that says that this is the answer to an earlier request.
fn mark(replayed: bool) -> AppendHeaders<impl Iterator<Item = (HeaderName, String)>> {
    AppendHeaders(replayed.then(|| (wish::IDEMPOTENCY_REPLAYED, "true".to_owned())).into_iter())
}

fn answer<T: Serialize>(status: StatusCode, body: &T) -> Result<Response, Problem> {
    Ok((status, [(header::CONTENT_TYPE, "application/json")], body::json(body)?).into_response())
}
