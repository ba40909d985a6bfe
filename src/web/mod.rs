//! HTTP for programs: routes, who may use them, and how refusals look.
//!
//! Layer 6: it sees models, the store, the queue's face, apps and read-only ctx; never a job's code. It writes nothing
//! but jobs and what makes them: changing anything is a job, reading is not.

pub mod api;
pub mod auth;
pub mod body;
pub mod call;
pub mod error;
pub mod figures;
pub mod keys;
pub mod limit;
pub mod lines;
pub mod memory;
pub mod operator;
pub mod order;
mod page;
pub mod receipt;
pub mod schedule;
mod serve;
pub mod trace;
pub mod wanted;
pub mod wish;

use std::sync::Arc;

use axum::{Router, extract::Request, middleware};
use sqlx::PgPool;
use tokio::sync::{Semaphore, watch};

pub use self::serve::serve;
use self::{
    auth::Door,
    error::{Kind, Problem},
    figures::{Figures, Moment},
    keys::Keys,
    limit::Burst,
    memory::Memory,
};
use crate::{
    apps::loaded::Apps,
    model::{
        clock::Clock,
        id::{AppId, UserId},
    },
    queue::Queue,
    sandbox,
    schedule::{Bell, Schedules},
};

/// What the server is made of; see [`Web::new`].
pub struct Parts {
    /// As `krilin_runtime`.
    pub pool: PgPool,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where changes go.
    pub queue: Queue,
    /// What is published.
    pub apps: Apps,
    /// Where queries run.
    pub sandbox: sandbox::Pool,
}

/// What every handler can reach. Cheap to clone.
#[derive(Clone)]
pub struct Web(Arc<Inner>);

struct Inner {
    parts: Parts,
    door: Door,
    figures: Figures,
    in_flight: Semaphore,
    queries: Semaphore,
    line_readers: Arc<Semaphore>,
    keys: Keys,
    installed: Memory<(UserId, AppId), ()>,
    stop: watch::Sender<bool>,
    schedules: Schedules,
}

impl Web {
    /// A server made of `parts`, with the limits of [`limit`].
    pub fn new(parts: Parts) -> Self {
        Self::with_burst(parts, Burst::new(limit::TOKEN_RATE, limit::TOKEN_BURST))
    }

    /// The same with another limit of requests per token.
    pub fn with_burst(parts: Parts, burst: Burst) -> Self {
        let door = Door::new(parts.pool.clone(), parts.clock.clone(), burst);
        let figures = Figures::new(parts.queue.metrics());
        let queries = Semaphore::new(limit::QUERIES_MAX);
        let in_flight = Semaphore::new(limit::IN_FLIGHT_MAX);
        let line_readers = Arc::new(Semaphore::new(limit::LINE_READERS_MAX));
        let (keys, installed, stop) = (Keys::default(), Memory::default(), watch::Sender::new(false));
        let queue = parts.queue.clone();
        let bell: Bell = Arc::new(move |queues| queue.ring(queues));
        let schedules = Schedules::new(&parts.pool, parts.clock.clone(), parts.queue.policies().clone(), bell);
        Self(Arc::new(Inner {
            parts,
            door,
            figures,
            in_flight,
            queries,
            line_readers,
            keys,
            installed,
            stop,
            schedules,
        }))
    }

    /// The database, as `krilin_runtime`.
    pub(in crate::web) fn pool(&self) -> &PgPool {
        &self.0.parts.pool
    }

    pub(in crate::web) fn queue(&self) -> &Queue {
        &self.0.parts.queue
    }

    pub(in crate::web) fn schedules(&self) -> &Schedules {
        &self.0.schedules
    }

    pub(in crate::web) fn apps(&self) -> &Apps {
        &self.0.parts.apps
    }

    pub(in crate::web) fn sandbox(&self) -> &sandbox::Pool {
        &self.0.parts.sandbox
    }

    pub(in crate::web) fn clock(&self) -> &dyn Clock {
        self.0.parts.clock.as_ref()
    }

    pub(in crate::web) fn queries(&self) -> &Semaphore {
        &self.0.queries
    }

    pub(in crate::web) fn line_readers(&self) -> Arc<Semaphore> {
        self.0.line_readers.clone()
    }

    pub(in crate::web) fn keys(&self) -> &Keys {
        &self.0.keys
    }

    /// Who has which app, as far as that was asked a moment ago.
    pub(in crate::web) fn installed(&self) -> &Memory<(UserId, AppId), ()> {
        &self.0.installed
    }

    pub(in crate::web) fn door(&self) -> &Door {
        &self.0.door
    }

    pub(in crate::web) fn figures(&self) -> &Figures {
        &self.0.figures
    }

    /// What is asked for the figures, at this moment.
    pub(in crate::web) async fn moment(&self) -> Moment<'_> {
        Moment {
            requests: Some(limit::IN_FLIGHT_MAX - self.in_flight().available_permits()),
            sandbox: Some(self.sandbox().tally()),
            jobs: Some(self.queue().tally().await),
            ..Moment::of(self.queue().metrics())
        }
    }

    /// The server begins to stop.
    pub(in crate::web) fn stop(&self) {
        self.0.stop.send_replace(true);
    }

    /// Waits until the server begins to stop. Whoever answers slowly on purpose waits for this too.
    pub(in crate::web) async fn stopping(&self) {
        // The sender lives as long as `self`.
        let _ = self.0.stop.subscribe().wait_for(|stop| *stop).await;
    }

    pub(in crate::web) fn in_flight(&self) -> &Semaphore {
        &self.0.in_flight
    }
}

/// All routes over `web`, with what surrounds each request.
pub fn router(web: Web) -> Router {
    let routes = api::routes().into_iter().fold(Router::new(), |router, route| router.route(route.path, route.methods));
    routes
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(web.clone(), trace::around))
        .with_state(web)
}

async fn unknown_route(request: Request) -> Problem {
    Problem::not_found(format!("there is nothing at `{}`; /openapi.json lists what there is", request.uri().path()))
}

async fn wrong_method(request: Request) -> Problem {
    let path = request.uri().path();
    let detail = format!("`{}` is no method of `{path}`; /openapi.json lists what there is", request.method());
    Problem::new(Kind::MethodNotAllowed, detail)
}
