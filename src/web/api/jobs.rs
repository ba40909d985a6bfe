//! Jobs: enqueue one or many, look, list, cancel, retry. Refuses to show one user another's job: it is not found.

use axum::{
    extract::{FromRequest, Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    model::{
        id::JobId,
        job::{JobView, State as JobState},
        token::Scope,
        why::Why,
    },
    queue::Filter,
    web::{
        Web,
        auth::Caller,
        body::{JsonBytes, json},
        error::{Document, Problem},
        lines::{self, Lines},
        order::{self, Order},
        page,
        trace::Trace,
        wish::Wishes,
    },
};

/// One job as an answer.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct JobAnswer {
    /// The job.
    pub job: JobView,
}

/// A page of jobs, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct JobsAnswer {
    /// The jobs.
    pub jobs: Vec<JobView>,
    /// What to send as `cursor` for the page after this one; none after the last.
    #[schema(value_type = Option<uuid::Uuid>)]
    pub next_cursor: Option<JobId>,
}

/// Enqueues one job, or up to 1,000 as a list, all or none; or many lines as `application/x-ndjson`.
///
/// Lines are read and committed in chunks. Each is answered by a line: `{"line": 1, "job": {…}}` when it was taken,
/// `{"line": 2, "errors": […]}` when it was not; the last is `{"end": {…}}` and says whether everything was read.
#[utoipa::path(post, path = "/api/v1/jobs", tag = "jobs", operation_id = "enqueue_jobs",
    request_body(content((order::Body = "application/json"), (String = "application/x-ndjson"))),
    params(("Prefer" = Option<String>, Header, description = "`wait=N`: answer when the job has ended, after N seconds at most (30); for one job"),
        ("Idempotency-Key" = Option<String>, Header, description = "A repeated request with this key enqueues nothing and is answered as the first was; remembered for 48 hours")),
    responses((status = 202, description = "Enqueued; `Location` says where to look", body = inline(order::Answer)),
        (status = 200, description = "Ended well while waited for", body = JobAnswer),
        (status = "4XX", description = "A problem", body = Document, content_type = "application/problem+json"),
        (status = "5XX", description = "A problem", body = Document, content_type = "application/problem+json")))]
pub async fn enqueue(
    State(web): State<Web>,
    caller: Caller,
    wishes: Wishes,
    trace: Trace,
    request: Request,
) -> Result<Response, Problem> {
    caller.may(Scope::JobsWrite)?;
    if lines::are_declared(request.headers()) {
        return Lines::new(web, caller, wishes, trace)?.accept(request.into_body());
    }
    let JsonBytes(body) = JsonBytes::from_request(request, &web).await?;
    Order { web: &web, caller: &caller, wishes: &wishes, trace, body: &body }.jobs().await
}

/// Looks at a job.
#[utoipa::path(get, path = "/api/v1/jobs/{id}", tag = "jobs", operation_id = "read_job",
    params(("id" = uuid::Uuid, Path, description = "The job"),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of the answer before")),
    responses((status = 200, description = "The job", body = JobAnswer),
        (status = 304, description = "Nothing has changed"),
        (status = "4XX", description = "A problem", body = Document, content_type = "application/problem+json")))]
pub async fn read(
    State(web): State<Web>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.may(Scope::JobsRead)?;
    let job = web.queue().get(parse(&id)?, Some(caller.user_id())).await?.ok_or_else(|| unknown(&id))?;
    let body = json(&JobAnswer { job })?;
    let tag = format!("\"{:.16}\"", format!("{:x}", Sha256::digest(&body)));
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let unchanged = known.is_some_and(|known| known == "*" || known.split(',').any(|known| known.trim() == tag));
    let tag = [(header::ETAG, tag)];
    Ok(if unchanged {
        (StatusCode::NOT_MODIFIED, tag).into_response()
    } else {
        (tag, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
    })
}

/// Why a job does not run yet, as an answer.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct WhyAnswer {
    /// Why.
    pub why: Why,
}

/// Says why a job does not run yet: everything that stands in its way now, and when it should start.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/why", tag = "jobs", operation_id = "why_job",
    params(("id" = uuid::Uuid, Path, description = "The job")),
    responses((status = 200, description = "Why", body = WhyAnswer),
        (status = "4XX", description = "A problem", body = Document, content_type = "application/problem+json")))]
pub async fn why(State(web): State<Web>, caller: Caller, Path(id): Path<String>) -> Result<Response, Problem> {
    caller.may(Scope::JobsRead)?;
    let why = web.queue().why(parse(&id)?, Some(caller.user_id())).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], json(&WhyAnswer { why })?).into_response())
}

/// Which jobs to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// Only in this state.
    state: Option<JobState>,
    /// Only of this kind.
    kind: Option<String>,
    /// Only those for which this job waits.
    #[param(value_type = Option<uuid::Uuid>)]
    parent_id: Option<JobId>,
    /// The `next_cursor` of the page before.
    #[param(value_type = Option<uuid::Uuid>)]
    cursor: Option<JobId>,
    /// How many at most; 50 unless said, 100 at most.
    limit: Option<u32>,
}

/// Lists one's jobs, newest first.
#[utoipa::path(get, path = "/api/v1/jobs", tag = "jobs", operation_id = "list_jobs", params(Page),
    responses((status = 200, description = "A page of jobs", body = JobsAnswer),
        (status = "4XX", description = "A problem", body = Document, content_type = "application/problem+json")))]
pub async fn list(State(web): State<Web>, caller: Caller, uri: Uri) -> Result<Response, Problem> {
    caller.may(Scope::JobsRead)?;
    let page: Page = page::asked(&uri)?;
    let limit = page::length(page.limit)?;
    let filter = Filter {
        user_id: Some(caller.user_id()),
        kind: page.kind,
        parent_id: page.parent_id,
        state: page.state,
        ..Filter::default()
    };
    let mut views = web.queue().list(&filter, page.cursor, limit + 1).await?;
    let more = views.len() > limit as usize;
    views.truncate(limit as usize);
    let next_cursor = views.last().filter(|_| more).map(|view| view.id);
    let answer = JobsAnswer { jobs: views, next_cursor };
    Ok(([(header::CONTENT_TYPE, "application/json")], json(&answer)?).into_response())
}

/// Cancels a job that has not ended. One that runs is stopped within about a second and its kind's grace.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/cancel", tag = "jobs", operation_id = "cancel_job",
    params(("id" = uuid::Uuid, Path, description = "The job")),
    responses((status = 200, description = "The job, cancelled", body = JobAnswer),
        (status = 202, description = "The job, cancelling: its worker was told, and nothing it does is kept", body = JobAnswer),
        (status = "4XX", description = "A problem", body = Document, content_type = "application/problem+json")))]
pub async fn cancel(State(web): State<Web>, caller: Caller, Path(id): Path<String>) -> Result<Response, Problem> {
    caller.may(Scope::JobsWrite)?;
    let state = web.queue().cancel(parse(&id)?, Some(caller.user_id())).await?;
    let status = if state == JobState::Cancelling { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok((status, after(&web, &caller, &id).await?).into_response())
}

/// Makes a dead or cancelled job pending again, all its attempts before it.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/retry", tag = "jobs", operation_id = "retry_job",
    params(("id" = uuid::Uuid, Path, description = "The job")),
    responses((status = 200, description = "The job, pending", body = JobAnswer),
        (status = "4XX", description = "A problem", body = Document, content_type = "application/problem+json")))]
pub async fn retry(State(web): State<Web>, caller: Caller, Path(id): Path<String>) -> Result<Response, Problem> {
    caller.may(Scope::JobsWrite)?;
    web.queue().retry(parse(&id)?, Some(caller.user_id())).await?;
    after(&web, &caller, &id).await
}

/// The job as it is after something was done to it.
async fn after(web: &Web, caller: &Caller, id: &str) -> Result<Response, Problem> {
    let view = web.queue().get(parse(id)?, Some(caller.user_id())).await?.ok_or_else(|| unknown(id))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], json(&JobAnswer { job: view })?).into_response())
}

pub(super) fn parse(id: &str) -> Result<JobId, Problem> {
    id.parse().map_err(|_| unknown(id))
}

pub(super) fn unknown(id: &str) -> Problem {
    Problem::not_found(format!("there is no job `{id}`"))
}
