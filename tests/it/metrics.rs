//! What is measured: the page, the alerts and the code name the same metrics, and the figures are right.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use krilin::{
    queue::metrics::Loop,
    sandbox::{self, PoolOptions},
    web::operator::{self, Operated},
};
use saphyr_parser::{Event, Parser};
use serde_json::json;
use tokio::net::TcpListener;

use crate::{
    kinds::{BATCH, Kit, OWN, until},
    server::{Server, somebody},
};

const PAGE: &str = include_str!("../../config/metrics.md");
const ALERTS: &str = include_str!("../../config/alerts.yml");

/// Type and names of labels of each metric.
type Shapes = BTreeMap<String, (String, BTreeSet<String>)>;

/// What the page lists.
fn listed() -> Shapes {
    let rows = PAGE.lines().skip_while(|line| !line.starts_with("| metric |")).skip(2);
    rows.take_while(|row| row.starts_with('|'))
        .map(|row| {
            let cells: Vec<_> = row.trim_matches('|').splitn(4, '|').map(str::trim).collect();
            let labels = cells[2].split(',').map(|label| label.trim().to_owned()).filter(|label| !label.is_empty());
            (cells[0].replace('`', ""), (cells[1].to_owned(), labels.collect()))
        })
        .collect()
}

/// What a scrape has.
fn scraped(text: &str) -> Shapes {
    let mut shapes = Shapes::new();
    let mut name = "";
    for line in text.lines() {
        if let Some((metric, sort)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            shapes.insert(metric.to_owned(), (sort.to_owned(), BTreeSet::new()));
            name = metric;
        } else if !line.starts_with('#')
            && let Some((_, labels)) = line.split_once('{')
        {
            let labels = labels.rsplit_once('}').unwrap().0;
            let names = labels.split("\",").filter_map(|label| label.split_once('=')).map(|(name, _)| name.to_owned());
            shapes.get_mut(name).unwrap().1.extend(names.filter(|label| label != "le"));
        }
    }
    shapes
}

/// The scalars under the key `expr` of the alerts.
fn expressions() -> Vec<String> {
    let (mut found, mut wanted) = (Vec::new(), false);
    for event in Parser::new_from_str(ALERTS) {
        if let Event::Scalar(text, ..) = event.expect("the alerts are YAML").0 {
            if wanted {
                found.push(text.to_string());
            }
            wanted = text == "expr";
        }
    }
    found
}

/// A queue in which everything with labels has counted something, its server and its worker's own listener.
async fn everything() -> (String, String) {
    let mut kit = Kit::new().await;
    kit.options.lease = Duration::from_secs(1);
    let server = Server::over(&kit.queue, &kit.world.pool).await;
    let (_, token) = somebody(&kit.world).await;
    let worker = kit.worker();
    let done = kit.enqueue(BATCH, json!({})).await;
    let again = kit.enqueue(OWN, json!({"do": "fail_until", "n": 2})).await;
    kit.ended(done).await;
    kit.ended(again).await;
    until(async || scraped_ticks(&kit).then_some(())).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let children = PoolOptions { size: 1, ..PoolOptions::of(env!("CARGO_BIN_EXE_krilin")) };
    let operated = Operated::new(kit.queue.clone(), Some(sandbox::Pool::start(children).unwrap()));
    let serving = tokio::spawn(operator::serve(listener, operated, std::future::pending()));
    let health = reqwest::get(format!("{url}healthz")).await.unwrap();
    assert_eq!(health.status(), 200, "{}", health.text().await.unwrap());
    assert_eq!(reqwest::get(format!("{url}api/v1/jobs")).await.unwrap().status(), 404);
    let own = reqwest::get(format!("{url}metrics")).await.unwrap().text().await.unwrap();
    serving.abort();
    assert!(worker.stop().await);
    kit.enqueue(BATCH, json!({})).await;
    server.get("/healthz", &token).await;
    (server.get("/metrics", &token).await.text, own)
}

/// Whether each loop of the worker has made a round.
fn scraped_ticks(kit: &Kit) -> bool {
    let mut registry = prometheus_client::registry::Registry::default();
    kit.queue.metrics().register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let ticked = |name: Loop| text.contains(&format!("loop_ticks_total{{name=\"{}\",outcome=\"ok\"}}", name.as_str()));
    ticked(Loop::Reaper) && ticked(Loop::Promoter) && ticked(Loop::Heartbeat)
}

#[tokio::test]
async fn the_page_lists_every_metric_with_its_labels_and_no_other() {
    let (server, worker) = everything().await;
    assert_eq!(scraped(&server), listed(), "{server}");
    assert!(server.contains("krilin_jobs{kind=\"test_batch\",queue=\"test\",state=\"ready\"} 1\n"), "{server}");
    assert!(server.contains("krilin_queue_depth{queue=\"test\"} 1\n"), "{server}");
    assert!(server.contains("krilin_job_pickup_seconds_count{queue=\"test\"} 3\n"), "{server}");
    assert!(server.contains("outcome=\"failed\"} 1\n"), "{server}");
    assert!(server.contains("krilin_database_up 1\n"), "{server}");
    assert!(server.ends_with("# EOF\n"));

    let of_the_queue = ["krilin_database_up", "krilin_jobs", "krilin_queue_depth", "krilin_queue_oldest_due_seconds"];
    let worker = scraped(&worker);
    assert!(of_the_queue.iter().all(|name| !worker.contains_key(*name)), "a worker does not count all jobs");
    assert!(worker.keys().all(|name| listed().contains_key(name)), "{worker:?}");
    assert!(worker.contains_key("krilin_sandbox_children") && worker.contains_key("krilin_pool_connections"));
}

#[test]
fn every_alert_is_about_metrics_and_labels_that_there_are() {
    let listed = listed();
    let expressions = expressions();
    assert!(expressions.len() > 10);
    for expression in &expressions {
        for (at, _) in expression.match_indices("krilin_") {
            let rest = &expression[at..];
            let end =
                rest.find(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '_').unwrap_or(rest.len());
            let (name, after) = rest.split_at(end);
            let suffix = ["_total", "_bucket", "_count", "_sum"].into_iter().find(|suffix| name.ends_with(suffix));
            let bare = name.strip_suffix(suffix.unwrap_or("")).unwrap();
            let (sort, labels) = listed.get(bare).unwrap_or_else(|| panic!("{name} is no metric, in {expression}"));
            let expected = match sort.as_str() {
                "counter" => suffix == Some("_total"),
                "histogram" => matches!(suffix, Some("_bucket" | "_count" | "_sum")),
                _ => suffix.is_none(),
            };
            assert!(expected, "{name} is a {sort}, in {expression}");
            if let Some(matchers) = after.strip_prefix('{') {
                // A pattern of a route has braces, too: the matchers end with a quote and a brace.
                for matcher in matchers.split("\"}").next().unwrap().split("\",") {
                    let label = matcher.split(['=', '!']).next().unwrap().trim();
                    assert!(labels.contains(label), "{bare} has no label {label}, in {expression}");
                }
            }
        }
    }
}

#[test]
fn every_alert_says_what_to_do() {
    let alerts = ALERTS.matches("- alert: ").count();
    for key in ["expr: ", "summary: ", "action: ", "severity: "] {
        assert_eq!(ALERTS.matches(key).count(), alerts, "{key}");
    }
}

#[tokio::test]
async fn what_was_answered_is_counted_by_route() {
    let kit = Kit::new().await;
    let server = Server::over(&kit.queue, &kit.world.pool).await;
    let (_, token) = somebody(&kit.world).await;
    server.get("/metrics", &token).await;
    server.get("/somewhere/else", &token).await;
    let text = server.get("/metrics", &token).await.text;
    for labels in ["route=\"/metrics\",status=\"200\"", "route=\"none\",status=\"404\""] {
        let line = format!("krilin_http_request_seconds_count{{method=\"GET\",{labels}}} 1\n");
        assert!(text.contains(&line), "{line}{text}");
    }
    assert!(!text.contains("somewhere"), "a path that a caller chose is no label");
}
