//! Jobs as lines: read as they come, each answered, and an exact account of what was taken.

use krilin::model::token::TokenText;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    kinds::{BATCH, Kit, PATIENCE, until},
    server::{Answer, Server, send, somebody},
};

async fn set_up() -> (Kit, Server, TokenText) {
    let kit = Kit::new().await;
    let server = Server::over(&kit.queue, &kit.world.pool).await;
    let (_, token) = somebody(&kit.world).await;
    (kit, server, token)
}

fn post(server: &Server, token: &TokenText, body: impl Into<reqwest::Body>) -> RequestBuilder {
    let request = server.request(Method::POST, "/api/v1/jobs").bearer_auth(token.reveal().expose());
    request.header("content-type", "application/x-ndjson").body(body)
}

fn lines(count: usize) -> String {
    let line = |n| json!({"kind": BATCH, "args": {"n": n}}).to_string() + "\n";
    (0..count).map(line).collect()
}

/// The answers to lines, and what the last one says.
fn answers(answer: &Answer) -> (Vec<Value>, Value) {
    assert_eq!(
        (answer.status.as_u16(), answer.header("content-type")),
        (202, "application/x-ndjson"),
        "{}",
        answer.text
    );
    let mut all: Vec<Value> = answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = all.pop().unwrap();
    (all, last["end"].clone())
}

async fn live(kit: &Kit) -> i64 {
    kit.count("select count(*) from krilin.jobs").await
}

#[tokio::test]
async fn thousands_of_lines_are_taken_in_order_and_few_commits() {
    let (kit, server, token) = set_up().await;
    let (all, end) = answers(&send(post(&server, &token, lines(3_000))).await);
    assert_eq!((all.len(), live(&kit).await), (3_000, 3_000));
    assert!(all.iter().enumerate().all(|(at, one)| one["line"] == at + 1 && one["job"]["outcome"] == "created"));
    assert_eq!((&end["lines"], &end["taken"], &end["refused"]), (&json!(3_000), &json!(3_000), &json!(0)));
    assert_eq!((&end["complete"], &end["budget"]["cost"]), (&json!(true), &json!(1)));
    let commits = kit.count("select count(distinct xmin::text) from krilin.jobs").await;
    assert!(commits <= 60, "{commits} commits");
    let first = all[0]["job"]["id"].as_str().unwrap();
    let job = server.get(&format!("/api/v1/jobs/{first}"), &token).await.json();
    assert_eq!(job["job"]["args"]["n"], 0);
}

#[tokio::test]
async fn a_line_that_does_not_fit_is_refused_alone_with_its_number() {
    let (kit, server, token) = set_up().await;
    let good = json!({"kind": BATCH}).to_string();
    let nul = json!({"kind": BATCH, "args": {"text": "\0"}}).to_string();
    let text = format!(
        "{good}\r\n\n{{oops\n{{\"kind\": \"nothing\"}}\n{{\"kind\": \"{BATCH}\", \"priority\": 1000, \"colour\": 1}}\n{nul}\n{good}"
    );
    let (all, end) = answers(&send(post(&server, &token, text)).await);
    let told: Vec<(u64, &str)> = all
        .iter()
        .map(|one| {
            let pointer = one["errors"][0]["pointer"].as_str();
            (one["line"].as_u64().unwrap(), if one["job"].is_object() { "taken" } else { pointer.unwrap() })
        })
        .collect();
    assert_eq!(told, [(1, "taken"), (3, ""), (4, "/kind"), (5, "/colour"), (6, ""), (7, "taken")]);
    assert!(all[1]["errors"][0]["message"].as_str().unwrap().contains("column 2"), "{}", all[1]);
    assert_eq!((&end["taken"], &end["refused"], &end["complete"]), (&json!(2), &json!(4), &json!(true)));
    assert_eq!(live(&kit).await, 2);
}

/// A request whose body is sent piece by piece.
struct Wire(TcpStream);

impl Wire {
    async fn open(server: &Server, token: &TokenText) -> Self {
        let mut stream = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
        let head = format!(
            "POST /api/v1/jobs HTTP/1.1\r\nhost: krilin\r\nauthorization: Bearer {}\r\n\
             content-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n",
            token.reveal().expose()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        Self(stream)
    }

    async fn send(&mut self, piece: &str) {
        self.0.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes()).await.unwrap();
    }

    async fn hear(&mut self, words: &str) -> String {
        let mut heard = String::new();
        while !heard.contains(words) {
            let mut bytes = [0; 4_096];
            let reading = tokio::time::timeout(PATIENCE, self.0.read(&mut bytes)).await;
            let count = reading.expect("it answers").unwrap();
            assert!(count > 0, "the server closed after {heard}");
            heard.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
        heard
    }
}

#[tokio::test]
async fn a_slow_sender_has_its_answers_while_it_still_sends() {
    let (kit, server, token) = set_up().await;
    let mut wire = Wire::open(&server, &token).await;
    wire.send(&lines(2)).await;
    let heard = wire.hear("\"line\":2").await;
    assert!(heard.starts_with("HTTP/1.1 202") && !heard.contains("\"end\""), "{heard}");
    assert_eq!(live(&kit).await, 2);
    wire.send(&lines(1)).await;
    wire.hear("\"line\":3").await;
    assert_eq!(live(&kit).await, 3);
    wire.send("").await;
    assert!(wire.hear("\"end\"").await.contains("\"complete\":true"));
}

#[tokio::test]
async fn a_body_that_breaks_off_keeps_its_whole_lines_and_no_half_one() {
    let (kit, server, token) = set_up().await;
    let mut wire = Wire::open(&server, &token).await;
    wire.send(&lines(3)).await;
    wire.send("{\"kind\": \"test_batch\"").await;
    drop(wire);
    until(async || (live(&kit).await == 3).then_some(())).await;
}

#[tokio::test]
async fn lines_with_a_key_are_sent_again_without_harm() {
    let (kit, server, token) = set_up().await;
    let order = |text: String| post(&server, &token, text).header("idempotency-key", "import-7");
    let (first, _) = answers(&send(order(lines(700))).await);
    let (again, end) = answers(&send(order(lines(900))).await);
    assert_eq!(again[..700], first[..]);
    assert_eq!((&end["taken"], live(&kit).await), (&json!(900), 900));
    let other = lines(2).replace("\"n\":1", "\"n\":9");
    let (changed, end) = answers(&send(order(other)).await);
    assert!(changed[0]["job"].is_object() && changed[1]["errors"].is_array(), "{changed:?}");
    assert_eq!((&end["taken"], &end["refused"], live(&kit).await), (&json!(1), &json!(1), 900));
}

#[tokio::test]
async fn a_line_may_have_a_deadline_and_children() {
    let (kit, server, token) = set_up().await;
    let tied = json!({"kind": BATCH, "deadline": "10m", "children": [{"kind": BATCH}, {"kind": BATCH}]});
    let (all, end) = answers(&send(post(&server, &token, format!("{}{tied}\n", lines(2)))).await);
    assert_eq!((&end["taken"], live(&kit).await), (&json!(3), 5), "{all:?}");
    let parent = all[2]["job"]["id"].as_str().unwrap().parse().unwrap();
    let job = kit.state(parent).await;
    assert_eq!((job.deadline.unwrap() - job.created_at).num_minutes(), 10);
    assert_eq!(kit.count("select count(*) from krilin.jobs where parent_id is not null").await, 2);
    assert_eq!(kit.count("select count(*) from krilin.jobs where state = 'parked'").await, 1);
}

#[tokio::test]
async fn what_is_too_long_ends_the_reading_and_the_account_is_exact() {
    let (kit, server, token) = set_up().await;
    let long = format!("{}{{\"kind\": \"{}\"}}\n{}", lines(3), "x".repeat(400 * 1024), lines(3));
    let (all, end) = answers(&send(post(&server, &token, long)).await);
    assert_eq!((all.len(), live(&kit).await), (3, 3));
    assert_eq!((&end["complete"], &end["problem"]["status"]), (&json!(false), &json!(413)));
    assert!(end["problem"]["detail"].as_str().unwrap().contains("line 4"), "{end}");
}

#[tokio::test]
async fn a_database_that_goes_away_refuses_the_chunk_and_says_that_the_rest_was_not_read() {
    let (kit, server, token) = set_up().await;
    sqlx::raw_sql("revoke insert on krilin.jobs from krilin_runtime").execute(&kit.world.owner).await.unwrap();
    let (all, end) = answers(&send(post(&server, &token, lines(1_200))).await);
    assert!(all.iter().all(|one| one["errors"].is_array()), "{:?}", all[0]);
    assert_eq!((&end["taken"], &end["complete"], live(&kit).await), (&json!(0), &json!(false), 0));
    assert!(end["refused"].as_u64().unwrap() <= 600, "{end}");
    assert_eq!(end["problem"]["status"], 500);
}

#[tokio::test]
async fn a_list_is_taken_whole_or_not_at_all() {
    let (kit, server, token) = set_up().await;
    let list: Vec<Value> = (0..1_000).map(|n| json!({"kind": BATCH, "args": {"n": n}})).collect();
    let answer = server.post("/api/v1/jobs", &token, &json!(list)).await;
    assert_eq!((answer.status.as_u16(), answer.json()["jobs"].as_array().unwrap().len()), (202, 1_000));
    let bad = json!([{"kind": BATCH}, {"kind": BATCH, "priority": 1_000}]);
    let problem = server.post("/api/v1/jobs", &token, &bad).await.problem(422, "validation-failed");
    assert_eq!(problem["errors"][0]["pointer"], "/1/priority");
    server
        .post("/api/v1/jobs", &token, &json!(vec![json!({"kind": BATCH}); 1_001]))
        .await
        .problem(422, "validation-failed");
    assert_eq!(live(&kit).await, 1_000);
}
