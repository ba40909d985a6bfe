//! The endpoints, a file per noun. The table here is the router, and what the OpenAPI document is tested against.

pub mod actions;
pub mod health;
pub mod jobs;
pub mod metrics;
pub mod openapi;
pub mod queries;
pub mod queues;

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
        Route::new("/api/v1/jobs/{id}", &["get"], get(jobs::read)),
        Route::new("/api/v1/jobs/{id}/cancel", &["post"], post(jobs::cancel)),
        Route::new("/api/v1/jobs/{id}/retry", &["post"], post(jobs::retry)),
        Route::new("/api/v1/apps/{app_id}/actions/{action}", &["post"], post(actions::run)),
        Route::new("/api/v1/apps/{app_id}/queries/{action}", &["post"], post(queries::run)),
        Route::new("/api/v1/queues", &["get"], get(queues::list)),
        Route::new("/api/v1/queues/{queue}", &["get", "patch"], get(queues::read).patch(queues::change)),
        Route::new("/metrics", &["get"], get(metrics::read)),
        Route::new("/openapi.json", &["get"], get(openapi::read)),
    ]
}
