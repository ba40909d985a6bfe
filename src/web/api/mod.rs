//! The endpoints, a file per noun. The table here is the router, and what the OpenAPI document is tested against.

pub mod actions;
pub mod dead;
pub mod health;
pub mod jobs;
pub mod logs;
pub mod metrics;
pub mod openapi;
pub mod queries;
pub mod queues;
pub mod schedules;

use axum::routing::{MethodRouter, get, post};

use super::Web;

/// One path and what answers there.
pub struct Route {
    /// The path, with `{placeholders}`.
    pub path: &'static str,
    /// Its methods in lowercase, as OpenAPI writes them.
    pub names: &'static [&'static str],
    /// What answers.
    pub methods: MethodRouter<Web>,
}

impl Route {
    fn new(path: &'static str, names: &'static [&'static str], methods: MethodRouter<Web>) -> Self {
        Self { path, names, methods }
    }
}

/// Every route of the server.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new("/healthz", &["get"], get(health::alive)),
        Route::new("/readyz", &["get"], get(health::ready)),
        Route::new("/api/v1/jobs", &["get", "post"], get(jobs::list).post(jobs::enqueue)),
        Route::new("/api/v1/jobs/dead", &["get"], get(dead::list)),
        Route::new("/api/v1/jobs/redrive", &["post"], post(dead::redrive)),
        Route::new("/api/v1/jobs/{id}", &["get"], get(jobs::read)),
        Route::new("/api/v1/jobs/{id}/logs", &["get"], get(logs::list)),
        Route::new("/api/v1/jobs/{id}/why", &["get"], get(jobs::why)),
        Route::new("/api/v1/jobs/{id}/cancel", &["post"], post(jobs::cancel)),
        Route::new("/api/v1/jobs/{id}/retry", &["post"], post(jobs::retry)),
        Route::new("/api/v1/apps/{app_id}/actions/{action}", &["post"], post(actions::run)),
        Route::new("/api/v1/apps/{app_id}/queries/{action}", &["post"], post(queries::run)),
        Route::new("/api/v1/queues", &["get"], get(queues::list)),
        Route::new("/api/v1/queues/{queue}", &["get", "patch"], get(queues::read).patch(queues::change)),
        Route::new("/api/v1/schedules", &["get", "post"], get(schedules::list).post(schedules::create)),
        Route::new("/api/v1/schedules/{id}", &["get"], get(schedules::read)),
        Route::new("/api/v1/schedules/{id}/next", &["get"], get(schedules::next)),
        Route::new("/api/v1/schedules/{id}/occurrences", &["get"], get(schedules::occurrences)),
        Route::new("/api/v1/schedules/{id}/pause", &["post"], post(schedules::pause)),
        Route::new("/api/v1/schedules/{id}/resume", &["post"], post(schedules::resume)),
        Route::new("/api/v1/schedules/{id}/trigger", &["post"], post(schedules::trigger)),
        Route::new("/api/v1/schedules/{id}/cancel", &["post"], post(schedules::cancel)),
        Route::new("/metrics", &["get"], get(metrics::read)),
        Route::new("/openapi.json", &["get"], get(openapi::read)),
    ]
}
