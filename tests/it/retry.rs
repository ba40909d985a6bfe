//! What follows an attempt that did not finish its job.

use krilin::{
    model::{
        error::Code,
        job::{JobView, State},
    },
    queue::Error,
};
use serde_json::json;

use crate::kinds::{BATCH, Kit, OWN, until};

fn code(job: &JobView) -> Code {
    job.error.as_ref().unwrap().code
}

#[tokio::test]
async fn a_failed_attempt_is_tried_again_after_a_growing_wait() {
    let mut kit = Kit::new().await;
    let worker = kit.worker();
    let id = kit.enqueue(OWN, json!({"do": "fail_until", "n": 3})).await;
    let job = kit.ended(id).await;
    assert_eq!((job.state, job.attempt), (State::Done, 3));
    let attempts: Vec<_> = (1..=3).map(|_| kit.began.try_recv().unwrap().1).collect();
    assert_eq!(attempts, [1, 2, 3]);
    let waits: Vec<f64> = sqlx::query_scalar(
        "select extract(epoch from coalesce(lead(started_at) over (order by attempt), $1) - finished_at)::float8
         from krilin.attempts order by attempt",
    )
    .bind(job.started_at)
    .fetch_all(&kit.world.pool)
    .await
    .unwrap();
    assert!(waits[0] >= 0.045 && waits[1] >= 0.09, "{waits:?}");
    assert_eq!(kit.effects().await, 1);
    worker.stop().await;
}

#[tokio::test]
async fn a_job_is_dead_after_its_last_attempt_and_can_be_tried_again() {
    let kit = Kit::new().await;
    let worker = kit.worker();
    let id = kit.enqueue(BATCH, json!({"do": "fail"})).await;
    let job = kit.ended(id).await;
    assert_eq!((job.state, job.attempt, code(&job)), (State::Dead, 3, Code::Unavailable));
    assert_eq!(kit.count("select count(*) from krilin.attempts where outcome = 'failed'").await, 2);
    kit.queue.retry(id, None).await.unwrap();
    assert!(matches!(kit.queue.retry(id, None).await, Err(Error::State(_))));
    assert_eq!(kit.ended(id).await.attempt, 3);
    assert_eq!(kit.count("select count(*) from krilin.job_history").await, 1);
    worker.stop().await;
}

#[tokio::test]
async fn the_error_decides_how_often() {
    let kit = Kit::new().await;
    let worker = kit.worker();
    let fatal = kit.enqueue(OWN, json!({"do": "fatal"})).await;
    let once = kit.enqueue(OWN, json!({"do": "once"})).await;
    let panics = kit.enqueue(OWN, json!({"do": "panic"})).await;
    let panics_in_batch = kit.enqueue(BATCH, json!({"do": "panic"})).await;
    let cancels = kit.enqueue(BATCH, json!({"do": "cancel"})).await;
    let slow = kit.enqueue(BATCH, json!({"do": "sleep", "ms": 60_000})).await;
    let ended = kit.ended(fatal).await;
    assert_eq!((ended.state, ended.attempt, code(&ended)), (State::Dead, 1, Code::Refused));
    let ended = kit.ended(once).await;
    assert_eq!((ended.state, ended.attempt, code(&ended)), (State::Dead, 2, Code::Conflict));
    for id in [panics, panics_in_batch] {
        let ended = kit.ended(id).await;
        assert_eq!((ended.state, ended.attempt, code(&ended)), (State::Dead, 3, Code::Internal));
    }
    let ended = kit.ended(cancels).await;
    assert_eq!((ended.state, code(&ended)), (State::Cancelled, Code::Cancelled));
    let timed_out = until(async || kit.state(slow).await.error).await;
    assert_eq!(timed_out.code, Code::Timeout);
    assert_eq!(kit.effects().await, 0);
    worker.stop().await;
}

#[tokio::test]
async fn a_snooze_and_an_asked_for_wait_spend_no_attempt() {
    let mut kit = Kit::new().await;
    let worker = kit.worker();
    for told in ["snooze", "later"] {
        let id = kit.enqueue(BATCH, json!({"do": told, "ms": 20})).await;
        for _ in 0..5 {
            assert_eq!(kit.began.recv().await.unwrap(), (id, 1), "{told}");
        }
        kit.queue.cancel(id, None).await.unwrap();
        while kit.began.try_recv().is_ok() {}
    }
    assert!(kit.count("select count(*) from krilin.attempts where outcome = 'snoozed'").await >= 4);
    worker.stop().await;
}

#[tokio::test]
async fn a_pending_job_is_cancelled_where_it_lies() {
    let kit = Kit::new().await;
    let id = kit.enqueue(BATCH, json!({})).await;
    kit.queue.cancel(id, None).await.unwrap();
    assert!(matches!(kit.queue.cancel(id, None).await, Err(Error::State(_))));
    let job = kit.state(id).await;
    assert_eq!((job.state, job.attempt, code(&job)), (State::Cancelled, 0, Code::Cancelled));
    assert_eq!(kit.count("select count(*) from krilin.jobs").await, 0);
}

#[tokio::test]
async fn a_running_job_that_is_cancelled_has_no_effect_and_its_handler_ends() {
    let mut kit = Kit::new().await;
    let worker = kit.worker();
    let id = kit.enqueue(OWN, json!({"do": "block"})).await;
    kit.began.recv().await.unwrap();
    assert_eq!(kit.queue.cancel(id, None).await.unwrap(), State::Cancelling);
    until(async || (worker.in_flight() == 0).then_some(())).await;
    kit.gate.notify_one();
    assert!(worker.stop().await);
    assert_eq!(kit.effects().await, 0);
    assert_eq!(kit.state(id).await.state, State::Cancelled);
}
