//! Dead letters: look at them, take many up again. Refuses to touch another user's, and more than a page of them at once.

use axum::{
    extract::State,
    http::{Uri, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    model::{id::JobId, job::JobView, token::Scope},
    queue::{REDRIVE_MAX, Which},
    web::{
        Web,
        auth::Caller,
        body::{self, JsonBytes, json},
        error::{Document, FieldError, Problem},
        page,
    },
};

/// Which dead letters to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// Only of this kind.
    kind: Option<String>,
    /// Only of this app.
    app_id: Option<String>,
    /// Only those that died of an error with this code.
    code: Option<String>,
    /// Only those that died since then.
    since: Option<DateTime<Utc>>,
    /// How many at most; 50 unless said, 100 at most.
    limit: Option<u32>,
}

/// Which dead letters to take up again; all where nothing is said.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Only of this kind.
    kind: Option<String>,
    /// Only of this app.
    app_id: Option<String>,
    /// Only those that died of an error with this code.
    code: Option<String>,
    /// Only those that died since then.
    since: Option<DateTime<Utc>>,
    /// How many at most; 1,000 unless said, and at most.
    limit: Option<u32>,
    /// Whether only to say what would be done.
    #[serde(default)]
    dry_run: bool,
}

/// Dead letters.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct DeadAnswer {
    /// How many there are, counted up to 100,000.
    count: i64,
    /// The oldest of them.
    jobs: Vec<JobView>,
}

/// What a redrive did, or would do.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct RedriveAnswer {
    /// Whether nothing was done.
    dry_run: bool,
    /// How many fitted before, counted up to 100,000.
    matched: i64,
    /// The jobs that are pending again; in a dry run the first of those that would be.
    #[schema(value_type = Vec<uuid::Uuid>)]
    ids: Vec<JobId>,
}

/// Lists one's dead letters, oldest first.
#[utoipa::path(get, path = "/api/v1/jobs/dead", tag = "jobs", operation_id = "list_dead_jobs", params(Page),
    responses((status = 200, description = "Dead letters", body = DeadAnswer),
        (status = "4XX", description = "A problem", body = Document, content_type = "application/problem+json")))]
pub async fn list(State(web): State<Web>, caller: Caller, uri: Uri) -> Result<Response, Problem> {
    caller.may(Scope::JobsRead)?;
    let page: Page = page::asked(&uri)?;
    let limit = page::length(page.limit)?;
    let Page { kind, app_id, code, since, .. } = page;
    let which = Which { user_id: Some(caller.user_id()), kind, app_id, code, since };
    let answer =
        DeadAnswer { count: web.queue().count_dead(&which).await?, jobs: web.queue().dead(&which, limit).await? };
    Ok(([(header::CONTENT_TYPE, "application/json")], json(&answer)?).into_response())
}

/// Takes one's dead letters up again, oldest first: each keeps its id and has all its attempts before it.
#[utoipa::path(post, path = "/api/v1/jobs/redrive", tag = "jobs", operation_id = "redrive_jobs", request_body = Wanted,
    responses((status = 200, description = "What was done, or would be", body = RedriveAnswer),
        (status = "4XX", description = "A problem", body = Document, content_type = "application/problem+json")))]
pub async fn redrive(State(web): State<Web>, caller: Caller, JsonBytes(bytes): JsonBytes) -> Result<Response, Problem> {
    caller.may(Scope::JobsWrite)?;
    let Wanted { kind, app_id, code, since, limit, dry_run } = body::parse(&bytes, "")?;
    let limit = limit.unwrap_or(REDRIVE_MAX);
    if !(1..=REDRIVE_MAX).contains(&limit) {
        let message = format!("`limit` is from 1 to {REDRIVE_MAX}, not {limit}");
        return Err(Problem::invalid(vec![FieldError { pointer: "/limit".to_owned(), message }]));
    }
    let user = caller.user_id();
    let which = Which { user_id: Some(user), kind, app_id, code, since };
    let matched = web.queue().count_dead(&which).await?;
    let ids = if dry_run {
        web.queue().dead(&which, limit).await?.into_iter().map(|job| job.id).collect()
    } else {
        web.queue().redrive(&which, limit, &user.to_string()).await?
    };
    let answer = RedriveAnswer { dry_run, matched, ids };
    Ok(([(header::CONTENT_TYPE, "application/json")], json(&answer)?).into_response())
}
