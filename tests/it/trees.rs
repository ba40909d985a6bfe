//! Jobs that wait for other jobs.

use krilin::{
    model::{
        error::Code,
        id::JobId,
        job::{NewJob, State, When},
    },
    queue::Error,
    store::children,
};
use serde_json::json;

use crate::{
    kinds::{BATCH, Kit, OWN, job},
    server::{Server, somebody},
};

fn tree(kind: &str, children: Vec<NewJob>) -> NewJob {
    NewJob { children, ..job(kind, json!({})) }
}

#[tokio::test]
async fn a_job_begins_when_all_its_children_are_done_and_sees_what_they_came_to() {
    let mut kit = Kit::new().await;
    let leaves = vec![job(BATCH, json!({"result": 1})), job(OWN, json!({"result": 2}))];
    let middle = tree(OWN, leaves);
    let top = tree(BATCH, vec![middle, job(BATCH, json!({"result": 3}))]);
    let id = kit.queue.enqueue(top).await.unwrap().job_id;
    let waiting = kit.state(id).await;
    assert_eq!((waiting.state, waiting.parked_reason.as_deref()), (State::Pending, Some("children")));
    assert_eq!(kit.count("select count(*) from krilin.jobs where state = 'parked'").await, 2);
    let worker = kit.worker();
    assert_eq!(kit.ended(id).await.state, State::Done);
    worker.stop().await;
    let mut order = Vec::new();
    while let Ok((began, _)) = kit.began.try_recv() {
        order.push(began);
    }
    assert_eq!((order.len(), order.last()), (5, Some(&id)), "each once, the top last");
    let ends = children::ended(&kit.world.pool, id, None, 10).await.unwrap();
    assert!(ends.iter().all(|end| end.state == State::Done) && ends.len() == 2, "{ends:?}");
    let middle = ends.iter().find(|end| end.result == Some(json!({"ok": true}))).unwrap();
    assert!(ends.iter().any(|end| end.result == Some(json!(3))));
    let below = children::ended(&kit.world.pool, middle.id, None, 10).await.unwrap();
    let mut results: Vec<_> = below.iter().map(|end| end.result.as_ref().unwrap().as_i64()).collect();
    results.sort_unstable();
    assert_eq!(results, [Some(1), Some(2)]);
}

#[tokio::test]
async fn a_dead_child_keeps_a_job_from_beginning_unless_that_is_expected() {
    let mut kit = Kit::new().await;
    let worker = kit.worker();
    let broken = || vec![job(BATCH, json!({"do": "fatal"})), job(BATCH, json!({"do": "cancel"}))];
    let strict = kit.queue.enqueue(tree(BATCH, broken())).await.unwrap().job_id;
    let strict = kit.ended(strict).await;
    let error = strict.error.unwrap();
    assert_eq!((strict.state, error.code), (State::Dead, Code::ChildFailed));
    assert_eq!(error.details, Some(json!({"dead": 1, "cancelled": 1})));
    let lenient = NewJob { when: When::AllEnded, ..tree(BATCH, broken()) };
    let lenient = kit.queue.enqueue(lenient).await.unwrap().job_id;
    assert_eq!(kit.ended(lenient).await.state, State::Done);
    let mut began = Vec::new();
    while let Ok((id, _)) = kit.began.try_recv() {
        began.push(id);
    }
    assert!(!began.contains(&strict.id) && began.contains(&lenient));
    worker.stop().await;
}

#[tokio::test]
async fn two_last_children_that_end_at_once_lose_no_wake_up() {
    let kit = Kit::new().await;
    for round in 0..20 {
        let children = vec![job(OWN, json!({})), job(OWN, json!({}))];
        let id = kit.queue.enqueue(tree(BATCH, children)).await.unwrap().job_id;
        let ids: Vec<JobId> = children::live(&kit.world.pool, id, 10).await.unwrap();
        let (mut first, mut second) = (kit.world.pool.begin().await.unwrap(), kit.world.pool.begin().await.unwrap());
        let gone = "delete from krilin.jobs where id = $1";
        sqlx::query(gone).bind(ids[0]).execute(&mut *first).await.unwrap();
        // The second cannot decide before the first has: it stands in line for their parent.
        let ending = tokio::spawn(async move {
            sqlx::query(gone).bind(ids[1]).execute(&mut *second).await.unwrap();
            second.commit().await.unwrap();
        });
        tokio::task::yield_now().await;
        if round % 2 == 0 {
            first.commit().await.unwrap();
        } else {
            first.rollback().await.unwrap();
        }
        ending.await.unwrap();
        let freed = children::freed(&kit.world.pool, &[id]).await.unwrap();
        assert_eq!(freed.len(), 1 - round % 2, "round {round}: freed exactly when both are gone");
    }
}

#[tokio::test]
async fn a_thousand_children_of_many_parents_end_in_two_workers_and_all_parents_run() {
    let kit = Kit::new().await;
    let (one, two) = (kit.worker(), kit.worker());
    let trees = (0..25).map(|_| tree(BATCH, (0..40).map(|_| job(BATCH, json!({}))).collect())).collect();
    let parents = kit.queue.enqueue_many(trees).await.unwrap();
    for parent in parents {
        assert_eq!(kit.ended(parent.job_id).await.state, State::Done);
    }
    assert_eq!(kit.count("select count(*) from krilin.job_history where state = 'done' and attempt = 1").await, 1_025);
    assert!(one.stop().await && two.stop().await);
}

#[tokio::test]
async fn a_handler_enqueues_jobs_in_its_own_transaction_or_none() {
    let kit = Kit::new().await;
    let mut tx = kit.world.pool.begin().await.unwrap();
    let enqueued = kit.queue.enqueue_in(&mut tx, vec![tree(BATCH, vec![job(BATCH, json!({}))])]).await.unwrap();
    assert_eq!(kit.count("select count(*) from krilin.jobs").await, 0);
    tx.commit().await.unwrap();
    let id = enqueued.committed()[0].job_id;
    assert_eq!(kit.count("select count(*) from krilin.jobs").await, 2);
    let worker = kit.worker();
    assert_eq!(kit.ended(id).await.state, State::Done);
    worker.stop().await;
}

#[tokio::test]
async fn what_waits_for_a_cancelled_child_is_freed_and_children_have_no_keys() {
    let kit = Kit::new().await;
    let id = kit.queue.enqueue(tree(BATCH, vec![job(BATCH, json!({}))])).await.unwrap().job_id;
    let child = children::live(&kit.world.pool, id, 1).await.unwrap()[0];
    kit.queue.cancel(child, None).await.unwrap();
    assert_eq!(kit.count("select count(*) from krilin.jobs where state = 'ready'").await, 1);
    let keyed = NewJob { unique: Some(krilin::model::job::Unique::new("k")), ..job(BATCH, json!({})) };
    assert!(matches!(kit.queue.enqueue(tree(BATCH, vec![keyed])).await, Err(Error::Unfit(_))));
    let parent =
        NewJob { unique: Some(krilin::model::job::Unique::new("k")), ..tree(BATCH, vec![job(BATCH, json!({}))]) };
    let first = kit.queue.enqueue(parent.clone()).await.unwrap();
    let second = kit.queue.enqueue(parent).await.unwrap();
    assert_eq!((first.job_id, second.created()), (second.job_id, false));
    assert_eq!(children::live(&kit.world.pool, first.job_id, 10).await.unwrap().len(), 1, "not enqueued twice");
}

#[tokio::test]
async fn over_http_a_tree_is_enqueued_whole_or_refused_with_every_fault() {
    let kit = Kit::new().await;
    let server = Server::over(&kit.queue, &kit.world.pool).await;
    let (_, token) = somebody(&kit.world).await;
    let bad =
        json!({"kind": BATCH, "deadline": "soon", "children": [{"kind": "nonsense"}, {"kind": BATCH, "delay": "x"}]});
    server.post("/api/v1/jobs", &token, &bad).await.problem(422, "validation-failed");
    let bad = json!({"kind": BATCH, "deadline": "soon", "children": [{"kind": "nonsense"}]});
    let problem = server.post("/api/v1/jobs", &token, &bad).await.problem(422, "validation-failed");
    let mut places: Vec<_> =
        problem["errors"].as_array().unwrap().iter().map(|error| error["pointer"].clone()).collect();
    places.sort_by_key(ToString::to_string);
    assert_eq!(places, [json!("/children/0/kind"), json!("/deadline")]);
    assert_eq!(kit.count("select count(*) from krilin.jobs").await, 0);

    let good = json!({"kind": BATCH, "deadline": "10m", "when": "all_ended",
        "children": [{"kind": BATCH, "args": {"log": ["here"], "do": "fatal"}}]});
    let answer = server.post("/api/v1/jobs", &token, &good).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let id = answer.json()["job"]["id"].as_str().unwrap().to_owned();
    let job = server.get(&format!("/api/v1/jobs/{id}"), &token).await.json()["job"].clone();
    assert_eq!((&job["state"], &job["parked_reason"]), (&json!("pending"), &json!("children")));
    assert!(job["deadline"].is_string());
    let below = server.get(&format!("/api/v1/jobs?parent_id={id}"), &token).await.json();
    let child = below["jobs"][0]["id"].as_str().unwrap().to_owned();
    let worker = kit.worker();
    assert_eq!(kit.ended(id.parse().unwrap()).await.state, State::Done);
    worker.stop().await;
    let log = server.get(&format!("/api/v1/jobs/{child}/logs"), &token).await.json();
    assert_eq!(log["batches"][0]["lines"][0]["message"], "here");
    let (_, stranger) = somebody(&kit.world).await;
    server.get(&format!("/api/v1/jobs/{child}/logs"), &stranger).await.problem(404, "not-found");

    assert_eq!(server.get("/api/v1/jobs/dead?code=Refused", &token).await.json()["count"], 1);
    assert_eq!(server.get("/api/v1/jobs/dead", &stranger).await.json()["count"], 0);
    let dry = server.post("/api/v1/jobs/redrive", &token, &json!({"code": "Refused", "dry_run": true})).await.json();
    assert_eq!(dry, json!({"dry_run": true, "matched": 1, "ids": [child]}));
    let other = server.post("/api/v1/jobs/redrive", &stranger, &json!({})).await.json();
    assert_eq!(other["ids"], json!([]));
    let done = server.post("/api/v1/jobs/redrive", &token, &json!({})).await.json();
    assert_eq!((&done["ids"], &done["dry_run"]), (&json!([child]), &json!(false)));
    assert_eq!(kit.state(child.parse().unwrap()).await.state, State::Pending);
    let cancelled = server.post(&format!("/api/v1/jobs/{child}/cancel"), &token, &json!({})).await;
    assert_eq!((cancelled.status.as_u16(), &cancelled.json()["job"]["state"]), (200, &json!("cancelled")));
}
