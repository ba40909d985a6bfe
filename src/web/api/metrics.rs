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
        limit,
    },
};

/// The content type of the OpenMetrics text format, which Prometheus reads.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Writes all figures; the README beside `web` lists them.
#[utoipa::path(get, path = "/metrics", tag = "operation", operation_id = "read_metrics",
    responses((status = 200, description = "Figures in OpenMetrics text", body = String, content_type = CONTENT_TYPE),
        (status = "4XX", description = "A problem", body = Document, content_type = "application/problem+json")))]
pub async fn read(State(web): State<Web>, caller: Caller) -> Result<Response, Problem> {
    caller.may(Scope::MetricsRead)?;
    let in_flight = limit::IN_FLIGHT_MAX - web.in_flight().available_permits();
    let tallies = web.queue().tally().await?;
    let written = web.figures().write(in_flight, &tallies);
    let text = written.map_err(|_| Problem::new(Kind::Code(Code::Internal), "writing the figures"))?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}
