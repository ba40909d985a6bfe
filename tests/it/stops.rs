//! Jobs that must end before their end: cancelled while they run, or past their deadline.

use std::time::{Duration, Instant};

use krilin::{
    model::{
        error::Code,
        job::{JobView, State},
    },
    queue::{Error, stopper::STOP_INTERVAL},
    store::stops::{self, Asked},
};
use serde_json::json;

use crate::kinds::{BATCH, Kit, OWN, until};

fn code(job: &JobView) -> Code {
    job.error.as_ref().unwrap().code
}

#[tokio::test]
async fn a_cancelled_handler_hears_of_it_and_may_put_things_in_order() {
    let mut kit = Kit::new().await;
    let worker = kit.worker();
    let id = kit.enqueue(OWN, json!({"do": "listen"})).await;
    kit.began.recv().await.unwrap();
    let asked = Instant::now();
    assert_eq!(kit.queue.cancel(id, None).await.unwrap(), State::Cancelling);
    let job = kit.ended(id).await;
    assert!(asked.elapsed() < Duration::from_millis(1_500), "{:?}", asked.elapsed());
    assert_eq!((job.state, code(&job)), (State::Cancelled, Code::Cancelled));
    assert_eq!(kit.heard.try_recv().unwrap(), id, "the handler went on to its end");
    assert_eq!(kit.effects().await, 0, "what it would have committed with the job is refused");
    assert!(matches!(kit.queue.cancel(id, None).await, Err(Error::State(_))));
    worker.stop().await;
}

#[tokio::test]
async fn a_cancel_from_elsewhere_is_heard_within_a_second_though_no_notice_comes() {
    let mut kit = Kit::new().await;
    let worker = kit.worker();
    let id = kit.enqueue(BATCH, json!({"do": "block"})).await;
    kit.began.recv().await.unwrap();
    let asked = Instant::now();
    // The mark alone, as from a process whose notice is lost.
    assert_eq!(stops::cancel(&kit.world.pool, id, None).await.unwrap(), Some(Asked::Running));
    assert_eq!(kit.state(id).await.state, State::Cancelling);
    until(async || (kit.state(id).await.state == State::Cancelled).then_some(())).await;
    // The look, the kind's grace of 300 ms, and some room for a loaded machine.
    assert!(asked.elapsed() < STOP_INTERVAL + Duration::from_millis(1_300), "{:?}", asked.elapsed());
    worker.stop().await;
}

#[tokio::test]
async fn a_handler_that_does_not_listen_is_dropped_after_its_grace() {
    let mut kit = Kit::new().await;
    let worker = kit.worker();
    let id = kit.enqueue(OWN, json!({"do": "block"})).await;
    kit.began.recv().await.unwrap();
    kit.queue.cancel(id, None).await.unwrap();
    assert_eq!(kit.ended(id).await.state, State::Cancelled);
    kit.gate.notify_one();
    assert!(worker.stop().await);
    assert_eq!(kit.effects().await, 0);
}

#[tokio::test]
async fn a_job_cancelled_while_it_ran_does_not_run_again_when_its_worker_vanished() {
    let kit = Kit::new().await;
    let id = kit.enqueue(OWN, json!({})).await;
    sqlx::query(
        "update krilin.jobs set state = 'running', attempt = 1, lease_token = gen_random_uuid(),
             lease_until = krilin.now() - interval '1 s', stop_at = krilin.now(), stop_reason = 'cancelled'",
    )
    .execute(&kit.world.pool)
    .await
    .unwrap();
    assert_eq!(kit.state(id).await.state, State::Cancelling);
    let mut kit = kit;
    let worker = kit.worker();
    assert_eq!(kit.ended(id).await.state, State::Cancelled);
    assert!(kit.began.try_recv().is_err(), "no handler began");
    worker.stop().await;
}
