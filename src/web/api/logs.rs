//! What a job has logged. Refuses to show one user another's job: it is not found.

use axum::{
    extract::{Path, State},
    http::{Uri, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use super::jobs::{parse, unknown};
use crate::{
    model::token::Scope,
    queue::Batch,
    web::{
        Web,
        auth::Caller,
        body::json,
        error::{Document, Problem},
        page,
    },
};

/// Which lines.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// The `next_cursor` of the page before.
    cursor: Option<i64>,
    /// How many batches at most; 50 unless said, 100 at most.
    limit: Option<u32>,
}

/// A page of a job's log.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct LogAnswer {
    /// The lines in batches, oldest first.
    batches: Vec<Batch>,
    /// For the next page; none on the last. Where the job still runs, ask again with the last batch's `id`.
    next_cursor: Option<i64>,
}

/// Shows what a job has logged, also while it runs and after it failed.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/logs", tag = "jobs", operation_id = "read_job_logs",
    params(("id" = uuid::Uuid, Path, description = "The job"), Page),
    responses((status = 200, description = "A page of the log", body = LogAnswer),
        (status = "4XX", description = "A problem", body = Document, content_type = "application/problem+json")))]
pub async fn list(
    State(web): State<Web>,
    caller: Caller,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    caller.may(Scope::JobsRead)?;
    let page: Page = page::asked(&uri)?;
    let limit = page::length(page.limit)?;
    let job = web.queue().get(parse(&id)?, Some(caller.user_id())).await?.ok_or_else(|| unknown(&id))?;
    let mut batches = web.queue().log(job.id, page.cursor.unwrap_or(0), limit + 1).await?;
    let more = batches.len() > limit as usize;
    batches.truncate(limit as usize);
    let next_cursor = batches.last().filter(|_| more).map(|batch| batch.id);
    let answer = LogAnswer { batches, next_cursor };
    Ok(([(header::CONTENT_TYPE, "application/json")], json(&answer)?).into_response())
}
