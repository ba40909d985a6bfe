//! Enqueuing in the caller's own transaction, from Rust: there with its commit, gone with its rollback, and never lost.

use krilin::{
    model::job::{NewJob, Placed, State, Unique},
    queue::{Error, Uncommitted},
};
use serde_json::json;

use crate::kinds::{BATCH, Kit, OWN, job};

async fn inside(kit: &Kit, jobs: Vec<NewJob>) -> (sqlx::Transaction<'static, sqlx::Postgres>, Uncommitted) {
    let mut tx = kit.world.pool.begin().await.unwrap();
    sqlx::query("insert into krilin.test_effects (job_id) values (gen_random_uuid())").execute(&mut *tx).await.unwrap();
    let uncommitted = kit.queue.enqueue_in(&mut tx, jobs).await.unwrap();
    (tx, uncommitted)
}

#[tokio::test]
async fn a_job_is_there_when_its_transaction_commits_and_not_before() {
    let kit = Kit::new().await;
    let (tx, uncommitted) = inside(&kit, vec![job(BATCH, json!({"n": 1})), job(OWN, json!({"n": 2}))]).await;
    assert_eq!(kit.count("select count(*) from krilin.jobs").await, 0);
    tx.commit().await.unwrap();
    let made = uncommitted.committed();
    assert!(made.iter().all(|made| made.created() && made.state == State::Pending));
    assert_eq!((kit.count("select count(*) from krilin.jobs").await, kit.effects().await), (2, 1));
    assert_eq!(kit.state(made[1].job_id).await.kind, OWN);
}

#[tokio::test]
async fn a_transaction_that_rolls_back_leaves_no_job_and_no_key() {
    let kit = Kit::new().await;
    let keyed = || NewJob { unique: Some(Unique::new("a")), ..job(BATCH, json!({})) };
    let (tx, _) = inside(&kit, vec![keyed()]).await;
    tx.rollback().await.unwrap();
    assert_eq!((kit.count("select count(*) from krilin.jobs").await, kit.effects().await), (0, 0));
    assert_eq!(kit.queue.enqueue(keyed()).await.unwrap().outcome, Placed::Created);
}

#[tokio::test]
async fn the_commit_wakes_a_worker_and_a_poll_finds_what_nobody_announced() {
    let kit = Kit::new().await;
    let worker = kit.worker();
    let (tx, uncommitted) = inside(&kit, vec![job(BATCH, json!({}))]).await;
    tx.commit().await.unwrap();
    let told = uncommitted.committed();
    assert_eq!(kit.ended(told[0].job_id).await.state, State::Done);

    let (tx, silent) = inside(&kit, vec![job(BATCH, json!({}))]).await;
    tx.commit().await.unwrap();
    let id = silent.jobs[0].job_id;
    drop(silent);
    let found = kit.ended(id).await;
    let waited = found.started_at.unwrap() - found.created_at;
    assert!(waited <= chrono::TimeDelta::milliseconds(1_500), "{waited}");
    assert!(worker.stop().await);
}

#[tokio::test]
async fn what_does_not_fit_is_refused_before_the_transaction_is_touched() {
    let kit = Kit::new().await;
    let mut tx = kit.world.pool.begin().await.unwrap();
    let unknown = kit.queue.enqueue_in(&mut tx, vec![job(BATCH, json!({})), job("nothing", json!({}))]).await;
    assert!(matches!(unknown, Err(Error::UnknownKind(_))));
    let fits = kit.queue.enqueue_in(&mut tx, vec![job(BATCH, json!({}))]).await.unwrap();
    tx.commit().await.unwrap();
    fits.committed();
    assert_eq!(kit.count("select count(*) from krilin.jobs").await, 1);
}
