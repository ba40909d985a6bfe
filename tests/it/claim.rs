//! Claiming and ending: what is enqueued is run, in its order, once, and lies in the history afterwards.

use krilin::model::job::State;
use serde_json::json;

use crate::kinds::{BATCH, Kit, OWN, job};

#[tokio::test]
async fn a_job_of_either_kind_is_run_and_lies_in_the_history() {
    let kit = Kit::new().await;
    let worker = kit.worker();
    let (batch, own) = (kit.enqueue(BATCH, json!({"result": [1]})).await, kit.enqueue(OWN, json!({})).await);
    let (batch, own) = (kit.ended(batch).await, kit.ended(own).await);
    assert_eq!((batch.state, batch.result.unwrap().get()), (State::Done, "[1]"));
    assert_eq!((own.state, own.attempt, own.result.unwrap().get()), (State::Done, 1, "{\"ok\": true}"));
    assert_eq!(kit.effects().await, 1);
    assert_eq!(kit.count("select count(*) from krilin.jobs").await, 0);
    assert_eq!(kit.count("select count(*) from krilin.job_history_default").await, 0);
    assert!(worker.stop().await);
}

#[tokio::test]
async fn a_thousand_jobs_are_drained_in_batches_each_once() {
    let mut kit = Kit::new().await;
    let jobs = (0..1_000).map(|n| job(BATCH, json!({ "n": n }))).collect();
    kit.queue.enqueue_many(jobs).await.unwrap();
    let last = kit.enqueue(BATCH, json!({})).await;
    let worker = kit.worker();
    kit.ended(last).await;
    assert!(worker.stop().await);
    assert_eq!(kit.count("select count(*) from krilin.job_history where state = 'done' and attempt = 1").await, 1_001);
    let mut began = 0;
    while kit.began.try_recv().is_ok() {
        began += 1;
    }
    assert_eq!(began, 1_001);
}
