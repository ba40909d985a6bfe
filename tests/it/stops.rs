//! Jobs that must end before their end: cancelled while they run, or past their deadline.

use std::time::{Duration, Instant};

use krilin::{
    model::{
        error::Code,
        job::{Deadline, JobView, NewJob, State},
    },
    queue::{Error, stopper::STOP_INTERVAL},
    store::stops::{self, Asked},
};
use serde_json::json;

use crate::kinds::{BATCH, Kit, OWN, job, until};

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

fn due(deadline: Deadline, args: serde_json::Value) -> NewJob {
    NewJob { deadline: Some(deadline), ..job(OWN, args) }
}

#[tokio::test]
async fn a_job_past_its_deadline_is_not_begun() {
    let mut kit = Kit::new().await;
    let past = Deadline::At("2020-01-01T00:00:00Z".parse().unwrap());
    let id = kit.queue.enqueue(due(past, json!({}))).await.unwrap().job_id;
    // Scheduled far ahead and retried jobs end by their deadline, too: nobody claims them.
    let later = NewJob { delay: Some(Duration::from_hours(1)), deadline: Some(past), ..job(BATCH, json!({})) };
    let later = kit.queue.enqueue(later).await.unwrap().job_id;
    let worker = kit.worker();
    for id in [id, later] {
        let job = kit.ended(id).await;
        assert_eq!((job.state, code(&job)), (State::Dead, Code::DeadlineExceeded));
    }
    assert!(kit.began.try_recv().is_err(), "no handler began");
    assert_eq!(kit.effects().await, 0);
    worker.stop().await;
}

#[tokio::test]
async fn a_running_job_is_stopped_at_its_deadline_and_not_tried_again() {
    let mut kit = Kit::new().await;
    let worker = kit.worker();
    let soon = Deadline::Within(Duration::from_millis(400));
    let id = kit.queue.enqueue(due(soon, json!({"do": "block"}))).await.unwrap().job_id;
    kit.began.recv().await.unwrap();
    assert!(kit.state(id).await.deadline.is_some());
    let job = kit.ended(id).await;
    assert_eq!((job.state, job.attempt, code(&job)), (State::Dead, 1, Code::DeadlineExceeded));
    let failing = kit.queue.enqueue(due(soon, json!({"do": "later", "ms": 60_000}))).await.unwrap().job_id;
    assert_eq!(code(&kit.ended(failing).await), Code::DeadlineExceeded, "put off past its deadline");
    kit.gate.notify_one();
    assert!(worker.stop().await);
    assert_eq!(kit.effects().await, 0);
}

#[tokio::test]
async fn a_keyed_job_has_its_deadline_too() {
    let kit = Kit::new().await;
    let unique = Some(krilin::model::job::Unique::new("k"));
    let keyed = NewJob { unique, ..due(Deadline::Within(Duration::from_mins(1)), json!({})) };
    let id = kit.queue.enqueue(keyed).await.unwrap().job_id;
    assert!(kit.state(id).await.deadline.is_some());
}
