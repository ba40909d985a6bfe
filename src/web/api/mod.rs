//! The endpoints, a file per noun. The table here is the router, and what the OpenAPI document is tested against.

pub mod health;
pub mod metrics;
pub mod openapi;

use axum::routing::{MethodRouter, get};

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
        Route::new("/metrics", &["get"], get(metrics::read)),
        Route::new("/openapi.json", &["get"], get(openapi::read)),
    ]
}
