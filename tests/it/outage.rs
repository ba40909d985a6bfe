//! A queue whose surroundings fail: no notices, connections cut, results that cannot be stored.

use std::time::{Duration, Instant};

use krilin::{
    clock::SystemClock,
    model::{
        error::Code,
        job::{NewJob, State},
    },
    queue::{Queue, worker::Lane},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use sqlx::AssertSqlSafe;
use std::sync::Arc;

use crate::{
    kinds::{BATCH, Kit, OWN, PATIENCE, job, until},
    world::admin_of,
};

/// Cuts every connection to the world's database but the owner's.
async fn cut(kit: &Kit) {
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity
               where datname = current_database() and usename = 'krilin_runtime'";
    // The runtime role may end its own kind.
    sqlx::raw_sql(AssertSqlSafe(cut)).execute(&kit.world.pool).await.ok();
}

#[tokio::test]
async fn without_notices_a_job_is_found_within_about_a_second() {
    let kit = Kit::new().await;
    let worker = kit.worker();
    let warm = kit.enqueue(BATCH, json!({})).await;
    kit.ended(warm).await;
    let begun = Instant::now();
    let row = "insert into krilin.jobs (id, kind, queue, args, state, priority, max_attempts, run_at, created_at)
               values (gen_random_uuid(), 'test_batch', 'test', '{}', 'ready', 0, 3, krilin.now(), krilin.now())";
    sqlx::raw_sql(row).execute(&kit.world.pool).await.unwrap();
    until(async || (kit.count("select count(*) from krilin.job_history").await == 2).then_some(())).await;
    assert!(begun.elapsed() < Duration::from_millis(1_300), "{:?}", begun.elapsed());
    worker.stop().await;
}

#[tokio::test]
async fn another_process_is_told_by_notice() {
    let mut kit = Kit::new().await;
    kit.options.poll = Duration::from_mins(1);
    let worker = kit.worker();
    let warm = kit.enqueue(BATCH, json!({})).await;
    kit.ended(warm).await;
    let policies = kit.queue.policies().clone();
    let elsewhere = Queue::new(&kit.world.pool, Arc::new(SystemClock), policies);
    // The listener of the worker may still be connecting: each enqueue is a notice.
    let awaited = NewJob { awaited: true, ..job(OWN, json!({})) };
    until(async || {
        let id = elsewhere.enqueue(awaited.clone()).await.unwrap().job_id;
        let job = elsewhere.wait(id, Duration::from_millis(600)).await.unwrap().unwrap();
        (job.state == State::Done).then_some(())
    })
    .await;
    let begun = Instant::now();
    let id = elsewhere.enqueue(awaited).await.unwrap().job_id;
    assert_eq!(elsewhere.wait(id, Duration::from_secs(5)).await.unwrap().unwrap().state, State::Done);
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    worker.stop().await;
}

#[tokio::test]
async fn jobs_go_on_after_every_connection_was_cut() {
    let mut kit = Kit::new().await;
    kit.options.lease = Duration::from_secs(1);
    let worker = kit.worker();
    let mut jobs = Vec::new();
    for round in 0..4 {
        for n in 0..25 {
            let kind = if n % 2 == 0 { BATCH } else { OWN };
            let spec = NewJob { max_attempts: Some(50), ..job(kind, json!({"do": "sleep", "ms": n})) };
            // Whether the insert was cut before or after its commit cannot be known; then the job is not counted.
            if let Ok(done) = kit.queue.enqueue(spec).await {
                jobs.push(done.job_id);
            }
        }
        if round < 3 {
            cut(&kit).await;
        }
    }
    assert!(jobs.len() > 60);
    tokio::time::timeout(Duration::from_secs(20), async {
        while sqlx::query_scalar::<_, i64>("select count(*) from krilin.jobs")
            .fetch_one(&kit.world.pool)
            .await
            .unwrap_or(1)
            > 0
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("all are done within twenty seconds");
    for id in jobs {
        assert_eq!(kit.state(id).await.state, State::Done);
    }
    let twice = "select count(*) from (select from krilin.test_effects group by job_id having count(*) > 1) as twice";
    assert_eq!(kit.count(twice).await, 0);
    assert!(worker.stop().await);
}

/// Postgres' processes that stand still, at most until this is dropped.
struct StandStill(Vec<Pid>);

impl StandStill {
    /// Those of the world's sessions whose last statement is like `statement`.
    async fn of(kit: &Kit, statement: &str) -> Self {
        let pids = sqlx::query_scalar::<_, i32>(
            "select pid from pg_stat_activity where datname = current_database() and query like $1 and state = 'idle'",
        );
        // Only a superuser sees what others' sessions do.
        let pids = pids.bind(statement).fetch_all(&mut admin_of(&kit.world).await).await.unwrap();
        let pids: Vec<_> = pids.into_iter().filter_map(Pid::from_raw).collect();
        for pid in &pids {
            kill_process(*pid, Signal::STOP).unwrap();
        }
        Self(pids)
    }
}

impl Drop for StandStill {
    fn drop(&mut self) {
        for pid in &self.0 {
            kill_process(*pid, Signal::CONT).unwrap();
        }
    }
}

#[tokio::test]
async fn what_is_claimed_after_its_worker_gave_up_goes_back_at_once() {
    let mut kit = Kit::new().await;
    kit.options.lanes = vec![Lane::new("test", 1)];
    let worker = kit.worker();
    let warm = kit.enqueue(BATCH, json!({})).await;
    kit.ended(warm).await;
    kit.began.recv().await.unwrap();
    let still = StandStill::of(&kit, "-- claim%").await;
    assert_eq!(still.0.len(), 1, "the lane claims over one session");
    for _ in 0..6 {
        kit.enqueue(BATCH, json!({"do": "block"})).await;
    }
    // The lane gave up and claims over another session.
    tokio::time::timeout(PATIENCE, kit.began.recv()).await.unwrap().unwrap();
    assert_eq!(kit.count("select count(*) from krilin.jobs where state = 'running'").await, 2);
    let goes_on = Instant::now();
    drop(still);
    // What was claimed has begun once: the time of that stays with the row.
    let back = "select count(*) from krilin.jobs where state = 'ready' and started_at is not null and attempt = 0";
    until(async || (kit.count(back).await == 2).then_some(())).await;
    assert!(goes_on.elapsed() < kit.options.lease / 2, "{:?}", goes_on.elapsed());
    assert_eq!(kit.count("select count(*) from krilin.jobs where state = 'running'").await, 2);
    assert_eq!(kit.count("select count(*) from krilin.attempts").await, 0, "nothing was rescued");
    worker.stop().await;
    assert_eq!(kit.count("select count(*) from krilin.jobs where state = 'ready'").await, 6);
}

#[tokio::test]
async fn a_result_that_cannot_be_stored_ends_its_job_and_no_other() {
    let kit = Kit::new().await;
    let mut jobs: Vec<_> = (0..9).map(|n| job(BATCH, json!({"result": n}))).collect();
    jobs.insert(4, NewJob { max_attempts: Some(1), ..job(BATCH, json!({"result_text": "nul"})) });
    let made = kit.queue.enqueue_many(jobs).await.unwrap();
    let worker = kit.worker();
    for (n, made) in made.iter().enumerate() {
        let job = kit.ended(made.job_id).await;
        if n == 4 {
            assert_eq!((job.state, job.error.unwrap().code), (State::Dead, Code::Internal));
        } else {
            assert_eq!(job.state, State::Done);
        }
    }
    worker.stop().await;
}
