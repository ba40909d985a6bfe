//! What a caller orders: from a body to checked jobs, from jobs to an answer.
//!
//! Refuses an order with anything wrong in it, all faults at once, before anything is enqueued: a kind that is unknown or
//! not for users, an app that is not there, an action that does not exist, an input that does not fit.

use std::collections::BTreeMap;

use axum::{
    http::{HeaderName, StatusCode, header},
    response::{AppendHeaders, IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

use super::{
    Web,
    api::jobs::{JobAnswer, Receipt, ReceiptAnswer, ReceiptsAnswer},
    auth::Caller,
    body,
    call::{self, Refusal, Sort},
    error::{FieldError, Problem},
    limit,
    trace::Trace,
    wish::{self, Wishes},
};
use crate::model::{
    error::{Code, CtxError},
    id::AppId,
    job::{Enqueued, NewJob, State, Unique},
    near,
    policy::Asker,
    token::Scope,
};

/// The kind that runs an action of an app.
pub const APP_ACTION: &str = "app_action";
/// What asked for a job that came this way.
const CAUSE: &str = "http";
/// The longest unique key, in bytes: the queue's, less the user's id before it.
const UNIQUE_KEY_MAX: usize = 200;
/// The furthest a caller may move a job before or behind others of its queue.
const PRIORITY_MAX: i16 = 100;

/// A job as a caller wants it.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The kind, such as `app_action`.
    pub kind: String,
    /// The app it works for.
    pub app_id: Option<String>,
    /// What it is given; for `app_action` an object of `action` and `input`.
    pub args: Option<Value>,
    /// Not before this instant.
    pub run_at: Option<DateTime<Utc>>,
    /// Higher runs sooner; from -100 to 100.
    pub priority: Option<i16>,
    /// Attempts before it is dead; as its kind says unless given.
    pub max_attempts: Option<u32>,
    /// While a live job of this user has this key, that one is the answer.
    pub unique_key: Option<String>,
}

/// One job or many.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum Body {
    /// One.
    One(Wanted),
    /// Many, all or none.
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
    /// Carries out an order of jobs.
    pub async fn jobs(&self) -> Result<Response, Problem> {
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
        let list: Vec<&RawValue> = body::parse(list.get().as_bytes(), "/jobs")?;
        if list.is_empty() || list.len() > limit::BATCH_MAX {
            let message = format!("a batch has 1 to {} jobs, not {}", limit::BATCH_MAX, list.len());
            return Err(Problem::invalid(vec![FieldError { pointer: "/jobs".to_owned(), message }]));
        }
        let mut jobs = Vec::with_capacity(list.len());
        let mut errors = Vec::new();
        for (index, text) in list.into_iter().enumerate() {
            let base = format!("/jobs/{index}");
            let checked = match body::parse(text.get().as_bytes(), &base) {
                Ok(wanted) => self.check(wanted, &base, index).await?,
                Err(body::ParseError::Shape(field)) => Err(vec![field]),
                Err(body::ParseError::Malformed(problem)) => return Err(problem),
            };
            match checked {
                Ok(job) => jobs.push(job),
                Err(more) => errors.extend(more),
            }
        }
        if errors.is_empty() { self.submit_all(jobs).await } else { Err(Problem::invalid(errors)) }
    }

    /// A job as the queue takes it, or everything that is wrong with it. The outer error ends the whole order.
    pub async fn check(
        &self,
        wanted: Wanted,
        base: &str,
        index: usize,
    ) -> Result<Result<NewJob, Vec<FieldError>>, Problem> {
        let mut errors = self.plain_errors(&wanted, base);
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
        let user = self.caller.user_id();
        Ok(Ok(NewJob {
            kind: wanted.kind,
            app_id,
            args,
            run_at: wanted.run_at,
            priority: wanted.priority,
            max_attempts: wanted.max_attempts,
            unique: wanted.unique_key.map(|key| Unique::new(format!("{user}:{key}"))),
            ..self.new_job(index)
        }))
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

    /// What is wrong apart from the arguments.
    fn plain_errors(&self, wanted: &Wanted, base: &str) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut wrong =
            |field: &str, message: String| errors.push(FieldError { pointer: format!("{base}/{field}"), message });
        let policies = self.web.queue().policies();
        let callable = || policies.iter().filter(|(_, policy)| policy.asked_by == Asker::User).map(|(kind, _)| kind);
        match policies.get(&wanted.kind) {
            Some(policy) if policy.asked_by == Asker::User => {}
            Some(_) => wrong("kind", format!("jobs of the kind `{}` are enqueued by Krilin itself", wanted.kind)),
            None => {
                let hint = near::hint(&wanted.kind, callable());
                wrong("kind", format!("there is no kind of job named `{}`{hint}", wanted.kind));
            }
        }
        if wanted.priority.is_some_and(|priority| priority.unsigned_abs() > PRIORITY_MAX.unsigned_abs()) {
            wrong("priority", format!("a priority is from -{PRIORITY_MAX} to {PRIORITY_MAX}"));
        }
        if wanted.unique_key.as_ref().is_some_and(|key| key.is_empty() || key.len() > UNIQUE_KEY_MAX) {
            wrong("unique_key", format!("a unique key has 1 to {UNIQUE_KEY_MAX} bytes"));
        }
        errors
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

    async fn submit(&self, job: NewJob) -> Result<Response, Problem> {
        let (kind, app_id) = named(&job);
        let enqueued = self.web.queue().enqueue(job).await?;
        let (job_id, created) = (enqueued.job_id, enqueued.created());
        // From here on the job is committed: an error while looking at it must not look like a refusal.
        let view = match self.wishes.wait {
            Some(wait) => tokio::select! {
                view = self.web.queue().wait_for(enqueued, wait) => view.ok().flatten(),
                // The job goes on without this server; its address is the answer.
                () = self.web.stopping() => None,
            },
            None if created => None,
            None => self.web.queue().get(job_id, Some(self.caller.user_id())).await.ok().flatten(),
        };
        let state = view.as_ref().map_or(State::Pending, |view| view.state);
        let response = match view {
            Some(view) if self.wishes.wait.is_some() && view.state == State::Done => {
                answer(StatusCode::OK, &JobAnswer { job: view })?
            }
            Some(view) if self.wishes.wait.is_some() && view.state.is_final() => {
                let error =
                    view.error.unwrap_or_else(|| CtxError::new(Code::Internal, "the job failed without a word"));
                Problem::from(error).with_job(job_id).into_response()
            }
            _ => {
                let location = [(header::LOCATION, format!("/api/v1/jobs/{job_id}"))];
                let job = Receipt { id: job_id, kind, app_id, state };
                (location, answer(StatusCode::ACCEPTED, &ReceiptAnswer { job })?).into_response()
            }
        };
        Ok((self.marks(created), response).into_response())
    }

    async fn submit_all(&self, jobs: Vec<NewJob>) -> Result<Response, Problem> {
        let names: Vec<_> = jobs.iter().map(named).collect();
        let enqueued = self.web.queue().enqueue_many(jobs).await?;
        let created = enqueued.iter().any(Enqueued::created);
        let receipt = |((kind, app_id), job): ((String, Option<String>), Enqueued)| Receipt {
            id: job.job_id,
            kind,
            app_id,
            state: State::Pending,
        };
        let jobs = names.into_iter().zip(enqueued).map(receipt).collect();
        let response = answer(StatusCode::ACCEPTED, &ReceiptsAnswer { jobs })?;
        Ok((self.marks(created), response).into_response())
    }

    /// The headers that say which wishes were granted.
    fn marks(&self, created: bool) -> AppendHeaders<impl Iterator<Item = (HeaderName, String)>> {
        let applied = self.wishes.wait.map(|wait| (wish::PREFERENCE_APPLIED, format!("wait={}", wait.as_secs())));
        let replayed = (self.wishes.keyed() && !created).then(|| (wish::IDEMPOTENCY_REPLAYED, "true".to_owned()));
        AppendHeaders(applied.into_iter().chain(replayed))
    }
}

/// What is told of a job that nobody has looked at yet.
fn named(job: &NewJob) -> (String, Option<String>) {
    (job.kind.clone(), job.app_id.as_ref().map(ToString::to_string))
}

fn answer<T: Serialize>(status: StatusCode, body: &T) -> Result<Response, Problem> {
    Ok((status, [(header::CONTENT_TYPE, "application/json")], body::json(body)?).into_response())
}
