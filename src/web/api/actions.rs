//! Actions of apps: each becomes a job, and the caller may wait for its end.

use axum::{
    extract::{Path, State},
    response::Response,
};

use crate::{
    model::token::Scope,
    web::{
        Web,
        api::jobs::JobAnswer,
        auth::Caller,
        body::JsonBytes,
        error::{Document, Problem},
        order::Order,
        receipt::ReceiptAnswer,
        trace::Trace,
        wish::Wishes,
    },
};

/// Runs an action of an installed app as a job. The body is its input.
#[utoipa::path(post, path = "/api/v1/apps/{app_id}/actions/{action}", tag = "apps", operation_id = "run_action",
    request_body(content = Object, description = "The action's input"),
    params(("app_id" = String, Path, description = "The app"), ("action" = String, Path, description = "The action"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: answer when the job has ended, after N seconds at most (30)"),
        ("Idempotency-Key" = Option<String>, Header, description = "A repeated request with this key runs nothing")),
    responses((status = 200, description = "Ended well while waited for; `job.result` is what the action returned", body = JobAnswer),
        (status = 202, description = "Enqueued; `Location` says where to look", body = ReceiptAnswer),
        (status = "4XX", description = "A problem", body = Document, content_type = "application/problem+json"),
        (status = "5XX", description = "A problem", body = Document, content_type = "application/problem+json")))]
pub async fn run(
    State(web): State<Web>,
    caller: Caller,
    Path((app_id, action)): Path<(String, String)>,
    (wishes, trace): (Wishes, Trace),
    JsonBytes(body): JsonBytes,
) -> Result<Response, Problem> {
    caller.may(Scope::AppsCall)?;
    let order = Order { web: &web, caller: &caller, wishes: &wishes, trace, body: &body };
    order.action(&app_id, &action).await
}
