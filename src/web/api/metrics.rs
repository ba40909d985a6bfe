//! Figures for Prometheus, with a token that has `metrics:read`: they tell about the whole server.

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};

use crate::{
    model::{error::Code, token::Scope},
    web::{
        Web,
        auth::Caller,
        error::{Document, Kind, Problem},
        figures::CONTENT_TYPE,
    },
};

/// Writes all figures; `config/metrics.md` lists them. While Postgres is away, those that need it are left out.
#[utoipa::path(get, path = "/metrics", tag = "operation", operation_id = "read_metrics",
    responses((status = 200, description = "Figures in OpenMetrics text", body = String, content_type = CONTENT_TYPE),
        (status = "4XX", description = "A problem", body = Document, content_type = "application/problem+json")))]
pub async fn read(State(web): State<Web>, caller: Caller) -> Result<Response, Problem> {
    caller.may(Scope::MetricsRead)?;
    let written = web.figures().write(&web.moment().await);
    let text = written.map_err(|_| Problem::new(Kind::Code(Code::Internal), "writing the figures"))?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}
