//! Unique keys with a period, and what becomes of a job that finds its key taken: kept, replaced, debounced.

use std::time::Duration;

use chrono::TimeDelta;
use krilin::{
    model::job::{NewJob, OnConflict, Placed, State, Unique},
    queue::Error,
};
use serde_json::{Value, json};

use crate::kinds::{BATCH, Kit, OWN, job, until};

const HOUR: Duration = Duration::from_hours(1);

fn hourly(n: u64) -> NewJob {
    let unique = Unique { period: Some(HOUR), ..Unique::new("hourly") };
    NewJob { unique: Some(unique), ..job(BATCH, json!({ "n": n })) }
}

fn replacing(args: Value) -> NewJob {
    let unique = Unique { on_conflict: OnConflict::Replace, ..Unique::new("latest") };
    NewJob { unique: Some(unique), ..job(BATCH, args) }
}

/// Ten seconds after the last of them, half a minute after the first at the latest.
fn debounced(n: u64) -> NewJob {
    let on_conflict = OnConflict::Debounce { max_wait: Duration::from_secs(30) };
    let unique = Unique { on_conflict, ..Unique::new("settle") };
    NewJob { unique: Some(unique), delay: Some(Duration::from_secs(10)), ..job(BATCH, json!({ "n": n })) }
}

/// Lets the database's clock stand at the beginning of an hour.
async fn at_a_full_hour(kit: &Kit) -> Duration {
    let left = kit.count("select 3600 - extract(epoch from krilin.now())::bigint % 3600").await;
    let ahead = Duration::from_secs(u64::try_from(left).unwrap() + 1);
    kit.world.advance(ahead).await;
    ahead
}

#[tokio::test]
async fn a_key_with_a_period_lets_one_job_through_in_each() {
    let kit = Kit::new().await;
    let ahead = at_a_full_hour(&kit).await;
    let worker = kit.worker();
    let first = kit.queue.enqueue(hourly(1)).await.unwrap();
    assert_eq!(first.outcome, Placed::Created);
    kit.ended(first.job_id).await;
    let same = kit.queue.enqueue(hourly(2)).await.unwrap();
    assert_eq!((same.job_id, same.outcome, same.state), (first.job_id, Placed::Kept, State::Done));
    kit.world.advance(ahead + HOUR).await;
    let next = kit.queue.enqueue(hourly(3)).await.unwrap();
    assert_eq!(next.outcome, Placed::Created);
    assert_ne!(next.job_id, first.job_id);
    kit.ended(next.job_id).await;
    assert_eq!(kit.count("select count(*) from krilin.job_history").await, 2);
    worker.stop().await;
}

#[tokio::test]
async fn a_period_is_free_again_after_a_job_that_came_to_nothing_but_never_beside_a_live_one() {
    let kit = Kit::new().await;
    let ahead = at_a_full_hour(&kit).await;
    let first = kit.queue.enqueue(hourly(1)).await.unwrap();
    kit.world.advance(ahead + HOUR).await;
    let later = kit.queue.enqueue(hourly(2)).await.unwrap();
    assert_eq!((later.job_id, later.outcome), (first.job_id, Placed::Kept), "it still waits");
    kit.queue.cancel(first.job_id, None).await.unwrap();
    let fresh = kit.queue.enqueue(hourly(3)).await.unwrap();
    assert_eq!(fresh.outcome, Placed::Created);
    assert_eq!(kit.count("select count(*) from krilin.jobs").await, 1);
}

#[tokio::test]
async fn many_producers_at_once_make_one_job_in_a_period_while_it_runs_and_ends() {
    let kit = Kit::new().await;
    at_a_full_hour(&kit).await;
    let worker = kit.worker();
    let producers = (0..8).map(async |_| {
        let mut made = Vec::new();
        for n in 0..25 {
            made.push(kit.queue.enqueue(hourly(n)).await.unwrap());
        }
        made
    });
    let all: Vec<_> = futures::future::join_all(producers).await.into_iter().flatten().collect();
    assert_eq!(all.iter().filter(|made| made.created()).count(), 1);
    assert!(all.iter().all(|made| made.job_id == all[0].job_id));
    kit.ended(all[0].job_id).await;
    let jobs = "select (select count(*) from krilin.jobs) + (select count(*) from krilin.job_history)";
    assert_eq!(kit.count(jobs).await, 1);
    worker.stop().await;
}

#[tokio::test]
async fn a_waiting_job_is_replaced_and_keeps_its_id() {
    let kit = Kit::new().await;
    let first = kit.queue.enqueue(replacing(json!({"n": 1}))).await.unwrap();
    let again = NewJob { priority: Some(7), delay: Some(HOUR), max_attempts: Some(9), ..replacing(json!({"n": 2})) };
    let second = kit.queue.enqueue(again).await.unwrap();
    assert_eq!((second.job_id, second.outcome, second.created()), (first.job_id, Placed::Replaced, false));
    let job = kit.state(first.job_id).await;
    assert_eq!((job.args.get(), job.priority, job.max_attempts), ("{\"n\": 2}", 7, 9));
    assert!(job.run_at - job.created_at > TimeDelta::minutes(59), "{job:?}");
    assert_eq!(kit.queue.depths().await.unwrap()[0].scheduled, 1);
    let due = kit.queue.enqueue(replacing(json!({"n": 3}))).await.unwrap();
    assert_eq!(due.outcome, Placed::Replaced);
    let worker = kit.worker();
    assert_eq!(kit.ended(first.job_id).await.args.get(), "{\"n\": 3}");
    assert_eq!(kit.count("select count(*) from krilin.job_history").await, 1);
    worker.stop().await;
}

#[tokio::test]
async fn a_running_job_is_not_touched_and_one_of_another_kind_neither() {
    let mut kit = Kit::new().await;
    let worker = kit.worker();
    let first = kit.queue.enqueue(replacing(json!({"do": "block"}))).await.unwrap();
    kit.began.recv().await.unwrap();
    let second = kit.queue.enqueue(replacing(json!({"n": 2}))).await.unwrap();
    assert_eq!((second.job_id, second.outcome, second.state), (first.job_id, Placed::Kept, State::Running));
    kit.gate.notify_one();
    assert_eq!(kit.ended(first.job_id).await.args.get(), "{\"do\": \"block\"}");
    worker.stop().await;

    let waits = kit.queue.enqueue(replacing(json!({"n": 3}))).await.unwrap();
    let other = NewJob { kind: OWN.to_owned(), ..replacing(json!({"n": 4})) };
    assert!(matches!(kit.queue.enqueue(other).await, Err(Error::State(_))));
    assert_eq!(kit.state(waits.job_id).await.args.get(), "{\"n\": 3}");
}

#[tokio::test]
async fn a_debounced_job_waits_for_quiet_and_runs_at_last_with_the_latest_arguments() {
    let kit = Kit::new().await;
    let first = kit.queue.enqueue(debounced(0)).await.unwrap();
    assert_eq!(first.outcome, Placed::Created);
    let due = async |seconds: u64, n| {
        kit.world.advance(Duration::from_secs(seconds)).await;
        let placed = kit.queue.enqueue(debounced(n)).await.unwrap();
        assert_eq!((placed.job_id, placed.outcome), (first.job_id, Placed::Debounced));
        let job = kit.state(first.job_id).await;
        (job.run_at - job.created_at).num_milliseconds() / 1_000
    };
    assert_eq!(due(8, 1).await, 18);
    assert_eq!(due(16, 2).await, 26);
    assert_eq!(due(24, 3).await, 30, "not later than max_wait after the first");
    let worker = kit.worker();
    assert_eq!(kit.state(first.job_id).await.state, State::Pending);
    kit.world.advance(Duration::from_secs(31)).await;
    assert_eq!(kit.ended(first.job_id).await.args.get(), "{\"n\": 3}");
    let after = kit.queue.enqueue(debounced(4)).await.unwrap();
    assert_eq!(after.outcome, Placed::Created);
    worker.stop().await;
}

#[tokio::test]
async fn producers_that_debounce_at_once_leave_one_job_with_one_of_their_arguments() {
    let kit = Kit::new().await;
    let placed = futures::future::try_join_all((0..100).map(|n| kit.queue.enqueue(debounced(n)))).await.unwrap();
    let count = |outcome| placed.iter().filter(|placed| placed.outcome == outcome).count();
    assert_eq!((count(Placed::Created), count(Placed::Debounced)), (1, 99));
    assert_eq!(kit.count("select count(*) from krilin.jobs").await, 1);
}

#[tokio::test]
async fn new_arguments_do_not_hurry_a_job_that_waits_for_another_attempt() {
    let kit = Kit::new().await;
    let worker = kit.worker();
    let first = kit.queue.enqueue(replacing(json!({"do": "later", "ms": 3_600_000}))).await.unwrap();
    let waits =
        async || Some(kit.state(first.job_id).await).filter(|job| job.run_at - job.created_at > TimeDelta::minutes(50));
    let before = until(waits).await;
    let second = kit.queue.enqueue(replacing(json!({"n": 2}))).await.unwrap();
    assert_eq!(second.outcome, Placed::Replaced);
    let after = kit.state(first.job_id).await;
    assert_eq!((after.run_at, after.attempt, after.args.get()), (before.run_at, 0, "{\"n\": 2}"));
    worker.stop().await;
}

#[tokio::test]
async fn keys_that_make_no_sense_are_refused() {
    let kit = Kit::new().await;
    let period = |period| Unique { period: Some(period), ..Unique::new("a") };
    let debounce = |max_wait| Unique { on_conflict: OnConflict::Debounce { max_wait }, ..Unique::new("a") };
    let with = |unique, delay| NewJob { unique: Some(unique), delay, ..job(BATCH, json!({})) };
    let unfit = [
        with(Unique::new(""), None),
        with(Unique::new("x".repeat(256)), None),
        with(period(Duration::from_millis(10)), None),
        with(debounce(HOUR), None),
        with(debounce(HOUR), Some(HOUR * 2)),
        NewJob { run_at: Some(chrono::DateTime::UNIX_EPOCH), ..with(Unique::new("a"), Some(HOUR)) },
        NewJob { priority: Some(101), ..job(BATCH, json!({})) },
    ];
    for job in unfit {
        let shown = format!("{job:?}");
        assert!(matches!(kit.queue.enqueue(job).await, Err(Error::Unfit(_))), "{shown}");
    }
    assert_eq!(kit.count("select count(*) from krilin.jobs").await, 0);
}
