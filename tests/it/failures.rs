//! Failures that hurt other queues, made to happen here: Postgres restarts under a worker, the pool runs dry, a reader holds
//! its snapshot. `tests/README.md` lists them all with their tests; here it is held to the code.

use std::{fs, path::Path, sync::Arc, time::Duration};

use krilin::{
    clock::SystemClock,
    cluster::{Cluster, DATABASE},
    model::{
        id::{JobId, WorkerId},
        job::{JobView, State},
    },
    queue::Queue,
    store::{
        self, history,
        leases::{self, Claim},
        schema,
    },
};
use serde_json::json;
use sqlx::{Connection, PgConnection};

use crate::{
    kinds::{BATCH, Kit, OWN, job, until},
    world::World,
};

/// A kit over a Postgres of its own, which may be stopped.
async fn alone() -> (Kit, Cluster) {
    let cluster = Cluster::throwaway().await.unwrap();
    let mut admin = PgConnection::connect(cluster.superuser_url().expose()).await.unwrap();
    schema::set_up(&mut admin, DATABASE).await.unwrap();
    let (url, owner_url) = (cluster.url("krilin_runtime", DATABASE), cluster.url("krilin_owner", DATABASE));
    let mut owner = PgConnection::connect(owner_url.expose()).await.unwrap();
    schema::migrate(&mut owner).await.unwrap();
    let world = World {
        pool: store::pool(&url, "krilin-test", 8).unwrap(),
        owner: store::pool(&owner_url, "krilin-test-owner", 2).unwrap(),
        url: url.expose().to_owned(),
        owner_url: owner_url.expose().to_owned(),
    };
    (Kit::over(world).await, cluster)
}

/// The job when it has ended. A connection that was cut while nobody used it is an error of the first who does.
async fn ended(kit: &Kit, id: JobId) -> JobView {
    until(async || kit.queue.get(id, None).await.ok().flatten().filter(|job| job.state.is_final())).await
}

/// The answer to `statement`, likewise.
async fn count(kit: &Kit, statement: &'static str) -> i64 {
    until(async || sqlx::query_scalar(statement).fetch_one(&kit.world.pool).await.ok()).await
}

#[tokio::test]
async fn after_a_restart_of_postgres_a_worker_claims_listens_and_rescues_again() {
    let (mut kit, mut cluster) = alone().await;
    kit.options.lease = Duration::from_secs(4);
    kit.options.poll = Duration::from_secs(30);
    let worker = kit.worker();
    let before = kit.enqueue(OWN, json!({})).await;
    assert_eq!(kit.ended(before).await.state, State::Done);
    let blocked = kit.enqueue(BATCH, json!({"do": "block"})).await;
    until(async || (kit.state(blocked).await.state == State::Running).then_some(())).await;

    cluster.crash().await.unwrap();
    assert!(kit.queue.enqueue(job(BATCH, json!({}))).await.is_err(), "Postgres is away");
    cluster.resume().await.unwrap();

    // An attempt that outlived its timeout while Postgres was away is followed by another, which meets the same gate.
    until(async || {
        kit.gate.notify_one();
        kit.queue.get(blocked, None).await.ok().flatten().filter(|job| job.state == State::Done)
    })
    .await;
    let lost = "select count(*) from krilin.attempts where outcome = 'lost'";
    assert_eq!(count(&kit, lost).await, 0, "a restart alone takes no job from its worker");
    let listening = async || {
        let heard = "select count(*) from pg_stat_activity where query ilike 'listen %'";
        (count(&kit, heard).await > 0).then_some(())
    };
    until(listening).await;
    // With half a minute between two polls, only a notice can be this quick.
    let elsewhere = Queue::new(&kit.world.pool, Arc::new(SystemClock), kit.queue.policies().clone());
    let told = until(async || elsewhere.enqueue(job(OWN, json!({}))).await.ok()).await.job_id;
    assert_eq!(ended(&kit, told).await.state, State::Done);

    let vanished = Claim { queue: "nobody", limit: 1, worker_id: WorkerId::new(&SystemClock), lease: Duration::ZERO };
    let orphan = "insert into krilin.jobs (id, kind, queue, args, priority, max_attempts, run_at, created_at, state)
                values (gen_random_uuid(), 'test_own', 'nobody', '{}', 0, 3, krilin.now(), krilin.now(), 'ready')";
    until(async || sqlx::raw_sql(orphan).execute(&kit.world.pool).await.ok()).await;
    let claimed = until(async || leases::claim(&kit.world.pool, vanished, None).await.ok()).await;
    assert_eq!(claimed.jobs.len(), 1);
    let freed = "select count(*) from krilin.jobs where queue = 'nobody' and state = 'ready'";
    until(async || (count(&kit, freed).await == 1).then_some(())).await;
    assert!(worker.stop().await);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn an_exhausted_pool_delays_jobs_and_loses_none() {
    let mut kit = Kit::new().await;
    let worker = kit.worker();
    let mut taken = Vec::new();
    for _ in 0..kit.world.pool.options().get_max_connections() {
        taken.push(kit.world.pool.acquire().await.unwrap());
    }
    let elsewhere = store::beside(&kit.world.pool, 2, &[]);
    let queue = Queue::new(&elsewhere, Arc::new(SystemClock), kit.queue.policies().clone());
    let own = queue.enqueue(job(OWN, json!({}))).await.unwrap().job_id;
    let batch = queue.enqueue(job(BATCH, json!({}))).await.unwrap().job_id;
    let ended = queue.wait(batch, Duration::from_secs(5)).await.unwrap().unwrap();
    assert_eq!(ended.state, State::Done, "claims and endings have connections of their own");
    kit.began.recv().await.unwrap();
    kit.began.recv().await.unwrap();
    assert_eq!(queue.get(own, None).await.unwrap().unwrap().state, State::Running, "its handler waits");
    drop(taken);
    let ended = kit.ended(own).await;
    assert_eq!((ended.state, ended.attempt, kit.effects().await), (State::Done, 1, 1));
    assert!(worker.stop().await);
}

#[tokio::test]
async fn a_reader_that_holds_its_snapshot_keeps_no_job_from_being_run_or_rescued() {
    let kit = Kit::new().await;
    let mut reader = kit.world.pool.begin().await.unwrap();
    sqlx::raw_sql("set transaction isolation level repeatable read; select count(*) from krilin.jobs")
        .execute(&mut *reader)
        .await
        .unwrap();
    let worker = kit.worker();
    kit.queue.enqueue_many((0..500).map(|n| job(BATCH, json!({ "n": n }))).collect()).await.unwrap();
    let last = kit.enqueue(OWN, json!({})).await;
    kit.ended(last).await;
    until(async || (kit.count("select count(*) from krilin.jobs").await == 0).then_some(())).await;
    let seen: i64 =
        sqlx::query_scalar("select count(*) from krilin.job_history").fetch_one(&mut *reader).await.unwrap();
    assert_eq!(seen, 0, "the reader still sees the past");
    assert_eq!(kit.count("select count(*) from krilin.job_history where attempt = 1").await, 501);
    assert!(worker.stop().await);
}

#[tokio::test]
async fn the_planner_knows_the_parent_of_the_historys_partitions() {
    let kit = Kit::new().await;
    let worker = kit.worker();
    let done = kit.enqueue(BATCH, json!({})).await;
    kit.ended(done).await;
    assert!(worker.stop().await);
    let parent = "select count(*) from pg_class where oid = 'krilin.job_history'::regclass and reltuples >= 1";
    assert_eq!(kit.count(parent).await, 0, "Postgres never analyzes a parent by itself");
    history::analyze(&kit.world.pool).await.unwrap();
    assert_eq!(kit.count(parent).await, 1);
}

fn texts(folder: &Path, ending: &str, into: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            texts(&path, ending, into);
        } else if path.to_string_lossy().ends_with(ending) {
            into.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
}

/// A pooler in transaction mode gives each transaction another session: what a session keeps is lost, or somebody else's.
#[test]
fn no_statement_keeps_a_lock_beyond_its_transaction() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    texts(&root.join("src"), ".rs", &mut all);
    texts(&root.join("src"), ".sql", &mut all);
    texts(&root.join("migrations"), ".sql", &mut all);
    assert!(all.len() > 100);
    for (path, text) in all {
        for lock in ["pg_advisory_lock", "pg_try_advisory_lock", "pg_advisory_unlock"] {
            assert!(!text.contains(lock), "{path}: {lock}; leases are rows, on the database's time");
        }
    }
}

#[test]
fn every_failure_of_the_list_has_the_tests_that_it_names() {
    let page = include_str!("../README.md");
    let rows: Vec<_> = page.lines().skip_while(|line| !line.starts_with("| failure |")).skip(2).collect();
    let rows: Vec<_> = rows.into_iter().take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() >= 12, "{rows:?}");
    for row in rows {
        let names: Vec<_> = row.split('`').skip(1).step_by(2).filter(|name| name.contains("::")).collect();
        assert!(!names.is_empty(), "{row}");
        for name in names {
            let (module, test) = name.split_once("::").unwrap();
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/{module}.rs"));
            let source = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(source.contains(&format!("fn {test}(")), "{name} is not there");
        }
    }
}
