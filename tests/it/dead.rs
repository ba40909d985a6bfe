//! Dead letters, and how many of them are taken up again.

use krilin::{
    model::{error::Code, job::State},
    queue::Which,
};

use crate::kinds::{BATCH, Kit, OWN};

async fn bury(kit: &Kit, kind: &str, code: &str, count: i64) {
    sqlx::query(
        "insert into krilin.job_history
             (id, kind, queue, args, state, priority, attempt, max_attempts, run_at, error, created_at, finished_at)
         select krilin.new_id(), $1, 'test', '{}', 'dead', 0, 3, 3, krilin.now(),
             jsonb_build_object('code', $2::text, 'message', 'as told'), krilin.now(), krilin.now()
         from generate_series(1, $3)",
    )
    .bind(kind)
    .bind(code)
    .bind(count)
    .execute(&kit.world.pool)
    .await
    .unwrap();
}

fn of(kind: Option<&str>, code: Option<&str>) -> Which {
    Which { kind: kind.map(str::to_owned), code: code.map(str::to_owned), ..Which::default() }
}

#[tokio::test]
async fn dead_letters_are_found_by_kind_and_code_and_taken_up_again() {
    let kit = Kit::new().await;
    bury(&kit, BATCH, "Unavailable", 3).await;
    bury(&kit, BATCH, "Refused", 2).await;
    bury(&kit, OWN, "Unavailable", 1).await;
    let unavailable = of(Some(BATCH), Some("Unavailable"));
    assert_eq!(kit.queue.count_dead(&unavailable).await.unwrap(), 3);
    assert_eq!(kit.queue.dead(&of(None, None), 4).await.unwrap().len(), 4);
    let future = Which { since: Some("2200-01-01T00:00:00Z".parse().unwrap()), ..Which::default() };
    assert_eq!(kit.queue.count_dead(&future).await.unwrap(), 0);
    assert_eq!(kit.count("select count(*) from krilin.jobs").await, 0, "looking changes nothing");

    let two = kit.queue.redrive(&unavailable, 2, "a test").await.unwrap();
    assert_eq!(two.len(), 2);
    assert_eq!(kit.queue.count_dead(&unavailable).await.unwrap(), 1, "bounded by the call");
    let job = kit.state(two[0]).await;
    assert_eq!((job.state, job.attempt), (State::Pending, 0));
    let was = kit.queue.redrives(two[0]).await.unwrap();
    assert_eq!((was.len(), was[0].attempt, was[0].redriven_by.as_str()), (1, 3, "a test"));
    assert_eq!(was[0].error.as_ref().unwrap().code, Code::Unavailable);
    let worker = kit.worker();
    assert_eq!(kit.ended(two[0]).await.state, State::Done);
    worker.stop().await;
}

#[tokio::test]
async fn no_dead_letter_is_taken_up_by_two_callers() {
    let kit = Kit::new().await;
    bury(&kit, BATCH, "Internal", 500).await;
    let all = of(None, None);
    let (a, b, c) = tokio::join!(
        kit.queue.redrive(&all, 400, "a"),
        kit.queue.redrive(&all, 400, "b"),
        kit.queue.redrive(&all, 400, "c")
    );
    let mut ids: Vec<_> = [a.unwrap(), b.unwrap(), c.unwrap()].concat();
    ids.sort_unstable_by_key(|id| id.0);
    let count = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), count);
    let left = kit.queue.count_dead(&all).await.unwrap();
    assert_eq!(count + usize::try_from(left).unwrap(), 500);
    assert_eq!(kit.count("select count(*) from krilin.jobs").await + left, 500);
    assert_eq!(kit.count("select count(*) from krilin.redrives").await + left, 500);
}

#[tokio::test]
async fn a_dead_letter_whose_unique_key_is_taken_stays_where_it_is() {
    let kit = Kit::new().await;
    bury(&kit, BATCH, "Internal", 3).await;
    sqlx::query("update krilin.job_history set unique_key = 'k'").execute(&kit.world.pool).await.unwrap();
    assert_eq!(kit.queue.redrive(&of(None, None), 100, "a").await.unwrap().len(), 1, "one of three has the key");
    assert_eq!(kit.queue.redrive(&of(None, None), 100, "a").await.unwrap().len(), 0);
    assert_eq!(kit.queue.count_dead(&of(None, None)).await.unwrap(), 2);
}
