//! The description of this API (OpenAPI 3.1), made from the types that serve it.

use std::sync::LazyLock;

use axum::{
    body::Bytes,
    http::header,
    response::{IntoResponse, Response},
};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};

use super::{actions, dead, health, jobs, logs, metrics, queries, queues, schedules};

/// The document.
#[derive(OpenApi)]
#[openapi(
    info(title = "Krilin", description = "A personal cloud: apps in a sandbox, work as durable jobs."),
    paths(
        actions::run, queries::run, jobs::enqueue, jobs::list, jobs::read, jobs::why, jobs::cancel, jobs::retry,
        dead::list, dead::redrive, logs::list,
        queues::list, queues::read, queues::change,
        schedules::list, schedules::create, schedules::read, schedules::next, schedules::occurrences,
        schedules::pause, schedules::resume, schedules::trigger, schedules::cancel,
        health::alive, health::ready, metrics::read, read
    ),
    modifiers(&Bearer),
    security(("token" = []))
)]
pub struct Description;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.description = Some("A token from `krilin token create`.".to_owned());
        openapi.components.get_or_insert_default().add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

static TEXT: LazyLock<Bytes> =
    LazyLock::new(|| Description::openapi().to_json().expect("the description is plain data").into());

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "operation", operation_id = "read_openapi", security(()),
    responses((status = 200, description = "This document", body = serde_json::Value)))]
pub async fn read() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], TEXT.clone()).into_response()
}
