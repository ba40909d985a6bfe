//! For supervisors: is the process alive, can it serve. Neither needs a token, neither tells anything else.

use axum::{Json, extract::State};
use serde::Serialize;

use crate::{
    model::error::Code,
    store::{self, schema},
    web::{
        Web,
        error::{Document, Kind, Problem},
        limit,
    },
};

/// An answer that says all is well.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Health {
    /// Always `ok`; anything else is a problem document.
    pub status: &'static str,
}

const OK: Json<Health> = Json(Health { status: "ok" });

/// Answers as long as the process does.
#[utoipa::path(get, path = "/healthz", tag = "operation", operation_id = "alive", security(()),
    responses((status = 200, description = "The process answers", body = Health)))]
pub async fn alive() -> Json<Health> {
    OK
}

/// Answers 200 when Postgres can be reached and has the schema this binary knows.
#[utoipa::path(get, path = "/readyz", tag = "operation", operation_id = "ready", security(()),
    responses((status = 200, description = "Requests can be served", body = Health),
        (status = 503, description = "Postgres is away or its schema is another", body = Document, content_type = "application/problem+json")))]
pub async fn ready(State(web): State<Web>) -> Result<Json<Health>, Problem> {
    let mut connection = web.pool().acquire().await.map_err(store::Error::from)?;
    let status = schema::status(&mut connection).await?;
    match schema::check(&status) {
        Ok(()) => Ok(OK),
        Err(mismatch) => Err(Problem::new(Kind::Code(Code::Unavailable), mismatch.to_string())
            .with_retry_after(limit::OVERLOADED_RETRY_AFTER)),
    }
}
