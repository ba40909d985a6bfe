//! A real server on a free port, and a client that speaks to it.

use std::{num::NonZeroU32, sync::Arc};

use krilin::{
    apps::loaded::Apps,
    clock::SystemClock,
    jobs,
    model::token::{Scope, TokenText},
    queue::Queue,
    sandbox::{self, PoolOptions},
    supervisor::Supervisor,
    web::{self, Parts, Web, limit::Burst},
};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use sqlx::PgPool;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use crate::{auth, world::World};

/// More requests than a test makes.
const PLENTY: NonZeroU32 = NonZeroU32::new(1_000_000).unwrap();

/// A queue with the kinds of the product.
pub fn queue(pool: &PgPool) -> Queue {
    Queue::new(pool, Arc::new(SystemClock), jobs::policies(None).unwrap())
}

/// A server that runs until it is dropped.
pub struct Server {
    pub url: String,
    pub stop: Option<oneshot::Sender<()>>,
    pub ended: JoinHandle<()>,
    client: reqwest::Client,
}

/// What a server answered.
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Server {
    pub async fn start(world: &World) -> Self {
        Self::with(&world.pool, queue(&world.pool), Burst::new(PLENTY, PLENTY)).await
    }

    /// A server that enqueues into `queue`.
    pub async fn over(queue: &Queue, pool: &PgPool) -> Self {
        Self::with(pool, queue.clone(), Burst::new(PLENTY, PLENTY)).await
    }

    pub async fn with(pool: &PgPool, queue: Queue, burst: Burst) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let options = PoolOptions { size: 1, ..PoolOptions::of(env!("CARGO_BIN_EXE_krilin")) };
        let sandbox = sandbox::Pool::start(options).unwrap();
        let (pool, clock, apps) = (pool.clone(), Arc::new(SystemClock), Apps::new(pool.clone()));
        let web = Web::with_burst(Parts { pool, clock, queue, apps, sandbox }, burst);
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = tokio::spawn(async move {
            web::serve(listener, web, &Supervisor::default(), async { drop(stopped.await) }).await;
        });
        Self { url, stop: Some(stop), ended, client: reqwest::Client::new() }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    pub async fn get(&self, path: &str, token: &TokenText) -> Answer {
        send(self.request(Method::GET, path).bearer_auth(token.reveal().expose())).await
    }

    pub async fn post(&self, path: &str, token: &TokenText, body: &Value) -> Answer {
        send(self.request(Method::POST, path).bearer_auth(token.reveal().expose()).json(body)).await
    }
}

pub async fn send(request: RequestBuilder) -> Answer {
    let response: Response = request.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    Answer { status, headers, text: response.text().await.unwrap() }
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Asserts that this is the problem `slug` with this status and gives its document.
    #[track_caller]
    pub fn problem(&self, status: u16, slug: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let document = self.json();
        assert_eq!(document["type"], format!("/problems/{slug}"), "{document}");
        assert_eq!(document["status"], status, "{document}");
        assert_eq!(document["trace_id"].as_str().unwrap().len(), 32);
        document
    }
}

/// A user with a token that may do everything.
pub async fn somebody(world: &World) -> (krilin::model::id::UserId, TokenText) {
    let user = auth::add_user(world, "Ada").await;
    (user, auth::add_token(world, user, Scope::ALL).await)
}
