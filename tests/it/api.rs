//! The HTTP API from outside: what it answers and how it refuses.

use std::num::NonZeroU32;

use krilin::{
    clock::SystemClock,
    model::token::{Scope, TokenText},
    store::tokens,
    web::limit::Burst,
};
use reqwest::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    auth::{add_token, add_user},
    kinds::until,
    server::{Server, queue, send, somebody},
    world::World,
};

#[tokio::test]
async fn a_supervisor_learns_that_the_server_is_alive_and_ready() {
    let world = World::new().await;
    let server = Server::start(&world).await;
    for path in ["/healthz", "/readyz"] {
        let answer = send(server.request(Method::GET, path)).await;
        assert_eq!((answer.status.as_u16(), answer.json()["status"].as_str()), (200, Some("ok")), "{path}");
    }
}

#[tokio::test]
async fn an_unknown_route_and_a_wrong_method_are_problems() {
    let world = World::new().await;
    let server = Server::start(&world).await;
    send(server.request(Method::GET, "/nothing/here")).await.problem(404, "not-found");
    let answer = send(server.request(Method::DELETE, "/healthz")).await;
    answer.problem(405, "method-not-allowed");
    assert_eq!(answer.header("allow"), "GET,HEAD");
}

#[tokio::test]
async fn a_token_that_is_missing_or_wrong_is_refused_without_a_hint() {
    let world = World::new().await;
    let server = Server::start(&world).await;
    let answer = send(server.request(Method::GET, "/metrics")).await;
    answer.problem(401, "token-missing");
    assert_eq!(answer.header("www-authenticate"), "Bearer");

    let (_, token) = somebody(&world).await;
    let mut wrong_secret = token.reveal().expose().to_owned();
    let last = if wrong_secret.ends_with('0') { '1' } else { '0' };
    wrong_secret.pop();
    wrong_secret.push(last);
    let unknown = TokenText::mint(&SystemClock).unwrap().reveal();
    let mut details = Vec::new();
    for text in [wrong_secret.as_str(), unknown.expose(), "krl_nonsense", ""] {
        let answer =
            send(server.request(Method::GET, "/metrics").header("authorization", format!("Bearer {text}"))).await;
        details.push(answer.problem(401, "token-invalid")["detail"].clone());
    }
    details.dedup();
    assert_eq!(details.len(), 1, "one answer for all, whether the token exists or not");
    let basic = server.request(Method::GET, "/metrics").basic_auth("ada", Some("secret"));
    send(basic).await.problem(401, "token-invalid");
}

#[tokio::test]
async fn an_expired_token_is_refused_as_expired() {
    let world = World::new().await;
    let server = Server::start(&world).await;
    let user = add_user(&world, "Ada").await;
    let text = TokenText::mint(&SystemClock).unwrap();
    let token = tokens::NewToken {
        id: text.id,
        user_id: user,
        name: "old",
        secret_hash: text.hash(),
        scopes: Scope::ALL.iter().copied().collect(),
        expires_at: Some("2020-01-01T00:00:00Z".parse().unwrap()),
    };
    tokens::insert(&world.pool, token).await.unwrap();
    server.get("/metrics", &text).await.problem(401, "token-expired");
    assert!(tokens::find(&world.pool, text.id).await.unwrap().0.last_used_at.is_none());
}

#[tokio::test]
async fn a_revoked_token_is_refused_as_revoked_within_its_bound() {
    let world = World::new().await;
    let server = Server::start(&world).await;
    let (_, token) = somebody(&world).await;
    assert_eq!(server.get("/metrics", &token).await.status, 200);
    tokens::revoke(&world.pool, token.id).await.unwrap();
    let asked = std::time::Instant::now();
    while server.get("/metrics", &token).await.status == 200 {
        assert!(asked.elapsed() < krilin::web::memory::BELIEVED_FOR * 2, "the revocation is not noticed");
    }
    server.get("/metrics", &token).await.problem(401, "token-revoked");
}

#[tokio::test]
async fn a_token_without_the_scope_is_refused_and_told_which() {
    let world = World::new().await;
    let server = Server::start(&world).await;
    let user = add_user(&world, "Ada").await;
    let token = add_token(&world, user, &[Scope::JobsRead]).await;
    let problem = server.get("/metrics", &token).await.problem(403, "scope-missing");
    assert!(problem["detail"].as_str().unwrap().contains("`metrics:read`"));
}

#[tokio::test]
async fn a_token_that_asks_too_often_is_told_when_to_come_again() {
    let world = World::new().await;
    let two = NonZeroU32::new(2).unwrap();
    let server = Server::with(&world.pool, queue(&world.pool), Burst::new(NonZeroU32::MIN, two)).await;
    let (_, token) = somebody(&world).await;
    for _ in 0..2 {
        assert_eq!(server.get("/metrics", &token).await.status, 200);
    }
    let answer = server.get("/metrics", &token).await;
    let problem = answer.problem(429, "rate-limited");
    assert_eq!((answer.header("retry-after"), &problem["retryable"]), ("1", &true.into()));

    let (_, another) = somebody(&world).await;
    assert_eq!(server.get("/metrics", &another).await.status, 200, "one token's haste is not another's");
}

#[tokio::test]
async fn a_trace_is_continued_and_one_is_begun_where_there_is_none() {
    let world = World::new().await;
    let server = Server::start(&world).await;
    let theirs = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = send(server.request(Method::GET, "/nothing").header("traceparent", theirs)).await;
    let problem = answer.problem(404, "not-found");
    assert_eq!(problem["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    let ours = answer.header("traceparent");
    assert!(ours.starts_with(&theirs[..36]) && ours.ends_with("-01") && ours != theirs, "{ours}");
    let begun = send(server.request(Method::GET, "/healthz")).await;
    assert_eq!(begun.header("traceparent").len(), 55);
}

#[tokio::test]
async fn a_stopping_server_ends_well() {
    let world = World::new().await;
    let mut server = Server::start(&world).await;
    assert_eq!(send(server.request(Method::GET, "/healthz")).await.status, 200);
    drop(server.stop.take());
    tokio::time::timeout(std::time::Duration::from_secs(5), &mut server.ended).await.unwrap().unwrap();
    assert!(server.request(Method::GET, "/healthz").send().await.is_err());
}

#[tokio::test]
async fn a_connection_accepted_before_the_stop_is_answered_after_it() {
    let world = World::new().await;
    let mut server = Server::start(&world).await;
    let address = server.url.clone();
    let address = address.strip_prefix("http://").unwrap();
    let mut early = TcpStream::connect(address).await.unwrap();
    // Connections are accepted in their order: after this answer the one before is with the server.
    assert_eq!(send(server.request(Method::GET, "/healthz")).await.status, 200);
    drop(server.stop.take());
    until(async || TcpStream::connect(address).await.err()).await;
    early.write_all(b"GET /healthz HTTP/1.1\r\nHost: krilin\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    early.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
}
