//! Queues: what waits and runs, and what an operator sets: pauses, limits, rates, shares. Refuses tokens without an
//! operator's scope, for what is set here holds for everybody.

use axum::{
    extract::{Path, State},
    http::header,
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{
    model::{flow::Change, token::Scope},
    queue::QueueView,
    web::{
        Web,
        auth::Caller,
        body::{self, JsonBytes, json},
        error::{Document, FieldError, Problem},
    },
};

/// One queue as an answer.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct QueueAnswer {
    /// The queue.
    pub queue: QueueView,
}

/// The queues as an answer.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct QueuesAnswer {
    /// Every queue, and `all`, which sums them up.
    pub queues: Vec<QueueView>,
}

/// Lists the queues with their depths and what is set for them.
#[utoipa::path(get, path = "/api/v1/queues", tag = "queues", operation_id = "list_queues",
    responses((status = 200, description = "Every queue", body = QueuesAnswer),
        (status = "4XX", description = "A problem", body = Document, content_type = "application/problem+json")))]
pub async fn list(State(web): State<Web>, caller: Caller) -> Result<Response, Problem> {
    caller.may(Scope::QueuesRead)?;
    answer(&QueuesAnswer { queues: web.queue().queues().await? })
}

/// Looks at one queue.
#[utoipa::path(get, path = "/api/v1/queues/{queue}", tag = "queues", operation_id = "read_queue",
    params(("queue" = String, Path, description = "The queue, or `all`")),
    responses((status = 200, description = "The queue", body = QueueAnswer),
        (status = "4XX", description = "A problem", body = Document, content_type = "application/problem+json")))]
pub async fn read(State(web): State<Web>, caller: Caller, Path(name): Path<String>) -> Result<Response, Problem> {
    caller.may(Scope::QueuesRead)?;
    answer(&QueueAnswer { queue: web.queue().one_queue(&name).await? })
}

/// Pauses or resumes a queue and sets its limits; every claim that begins afterwards obeys, on all workers.
///
/// A field that is not named stays as it is; one that is null is lifted. What runs may end.
#[utoipa::path(patch, path = "/api/v1/queues/{queue}", tag = "queues", operation_id = "change_queue", request_body = Change,
    params(("queue" = String, Path, description = "The queue, or `all`")),
    responses((status = 200, description = "The queue as it is now", body = QueueAnswer),
        (status = "4XX", description = "A problem", body = Document, content_type = "application/problem+json")))]
pub async fn change(
    State(web): State<Web>,
    caller: Caller,
    Path(name): Path<String>,
    JsonBytes(bytes): JsonBytes,
) -> Result<Response, Problem> {
    caller.may(Scope::QueuesWrite)?;
    let change: Change = body::parse(&bytes, "")?;
    change.check(&name).map_err(|unfit| {
        let (pointer, message) = (format!("/{}", unfit.field), unfit.to_string());
        Problem::invalid(vec![FieldError { pointer, message }])
    })?;
    let by = format!("user {}", caller.user_id());
    answer(&QueueAnswer { queue: web.queue().change_queue(&name, &change, &by).await? })
}

fn answer<T: Serialize>(answer: &T) -> Result<Response, Problem> {
    Ok(([(header::CONTENT_TYPE, "application/json")], json(answer)?).into_response())
}
