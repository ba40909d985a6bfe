//! What a process answers to an operator's programs: `/healthz` and `/metrics`, on an address of its own.
//! Asks for no token and tells nothing of users; refuses every other path.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;

use super::{
    Web,
    api::health::Health,
    figures::{self, Figures, Moment},
    serve::listen,
};
use crate::{queue::Queue, sandbox, supervisor::Supervisor};

/// Whose figures are told.
pub struct Operated {
    queue: Queue,
    own: Own,
}

enum Own {
    /// A server has figures of its own, and tells those of the whole queue.
    Server(Web),
    /// A process that works or schedules.
    Other(Box<Figures>, Option<sandbox::Pool>),
}

impl Operated {
    /// A process whose queue this is, and whose children for app code, if it has any.
    pub fn new(queue: Queue, sandbox: Option<sandbox::Pool>) -> Self {
        let figures = Box::new(Figures::new(queue.metrics()));
        Self { own: Own::Other(figures, sandbox), queue }
    }

    /// A server.
    pub fn server(web: Web) -> Self {
        Self { queue: web.queue().clone(), own: Own::Server(web) }
    }
}

/// Answers on `listener` until `shutdown` is over.
pub async fn serve(listener: TcpListener, operated: Operated, shutdown: impl Future<Output = ()>) {
    let router = Router::new()
        .route("/healthz", get(alive))
        .route("/metrics", get(metrics))
        .fallback(|| async { (StatusCode::NOT_FOUND, "there is /healthz, and there is /metrics\n") })
        .with_state(Arc::new(operated));
    listen(listener, router, &Supervisor::default(), shutdown).await;
}

/// 200 while the loops that keep the queue go round; 503 when one has stopped.
async fn alive(State(operated): State<Arc<Operated>>) -> Response {
    match operated.queue.metrics().stalled() {
        None => Json(Health { status: "ok" }).into_response(),
        Some(stalled) => {
            let words = format!("the loop `{}` has stopped\n", stalled.as_str());
            (StatusCode::SERVICE_UNAVAILABLE, words).into_response()
        }
    }
}

/// The figures. Those of the whole queue come from servers alone, so that many workers do not each count all jobs.
async fn metrics(State(operated): State<Arc<Operated>>) -> Response {
    let written = match &operated.own {
        Own::Server(web) => web.figures().write(&web.moment().await),
        Own::Other(figures, sandbox) => {
            let sandbox = sandbox.as_ref().map(sandbox::Pool::tally);
            figures.write(&Moment { sandbox, ..Moment::of(operated.queue.metrics()) })
        }
    };
    match written {
        Ok(text) => ([(header::CONTENT_TYPE, figures::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "writing the figures");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
