//! A server whose Postgres stops: it says so, and is itself again when Postgres is.

use std::time::Duration;

use krilin::{
    clock::SystemClock,
    cluster::{Cluster, DATABASE},
    model::{
        id::UserId,
        token::{Scope, TokenText},
        user::NewUser,
    },
    store::{self, schema, tokens, users},
};
use reqwest::Method;
use serde_json::json;
use sqlx::{Connection, PgConnection};

use crate::{
    kinds::until,
    server::{Server, queue, send},
};

#[tokio::test]
async fn a_stopped_postgres_is_503_with_retry_after_and_the_server_recovers() {
    let mut cluster = Cluster::throwaway().await.unwrap();
    let mut admin = PgConnection::connect(cluster.superuser_url().expose()).await.unwrap();
    schema::set_up(&mut admin, DATABASE).await.unwrap();
    let mut owner = PgConnection::connect(cluster.url("krilin_owner", DATABASE).expose()).await.unwrap();
    schema::migrate(&mut owner).await.unwrap();
    let pool = store::pool(&cluster.url("krilin_runtime", DATABASE), "krilin-test", 4).unwrap();
    let ada = NewUser::parse("Ada", None, "UTC").unwrap();
    let user_id = users::insert(&pool, UserId::new(&SystemClock), &ada).await.unwrap().id;
    let text = TokenText::mint(&SystemClock).unwrap();
    let scopes = Scope::ALL.iter().copied().collect();
    let (id, secret_hash) = (text.id, text.hash());
    let token = tokens::NewToken { id, user_id, name: "test", secret_hash, scopes, expires_at: None };
    tokens::insert(&pool, token).await.unwrap();
    let server = Server::over(&queue(&pool), &pool).await;
    assert_eq!(server.get("/api/v1/jobs", &text).await.status, 200);

    cluster.crash().await.unwrap();
    for path in ["/readyz", "/api/v1/jobs"] {
        let answer = server.get(path, &text).await;
        let problem = answer.problem(503, "unavailable");
        assert_eq!((answer.header("retry-after"), &problem["retryable"]), ("1", &json!(true)), "{path}");
    }
    let job = json!({"kind": "app_action", "app_id": "notes", "args": {"action": "add"}});
    server.post("/api/v1/jobs", &text, &job).await.problem(503, "unavailable");
    assert_eq!(send(server.request(Method::GET, "/healthz")).await.status, 200, "the process itself is well");

    cluster.resume().await.unwrap();
    until(async || (server.get("/readyz", &text).await.status == 200).then_some(())).await;
    assert_eq!(server.get("/api/v1/jobs", &text).await.status, 200);
    tokio::time::timeout(Duration::from_secs(20), cluster.stop()).await.unwrap().unwrap();
}
