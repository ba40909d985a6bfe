//! Why a job does not run yet: each reason by itself, in the API and on the command line.

use std::time::Duration;

use chrono::TimeDelta;
use krilin::{
    clock::SystemClock,
    model::{
        clock::Clock,
        flow::Change,
        id::{JobId, UserId, WorkerId},
        job::NewJob,
        why::{Block, Why},
    },
    store::leases::{self, Claim, PutBack, Turn},
};
use serde_json::{Value, json};

use crate::{
    auth::add_user,
    cli::{give_credentials, run, stdout},
    cluster::Directory,
    kinds::{BATCH, Kit, job},
    server::{Server, somebody},
};

async fn set(kit: &Kit, queue: &str, value: Value) {
    let change: Change = serde_json::from_value(value).unwrap();
    kit.queue.change_queue(queue, &change, "Ada").await.unwrap();
}

/// A worker that is there for `queue` and knows `kind`, and does nothing.
async fn worker_for(kit: &Kit, queue: &str, kind: &str) {
    let statement =
        "insert into krilin.workers values ($1, array[$2], array[$3], krilin.now(), krilin.now() + interval '1 h')";
    let insert = sqlx::query(statement).bind(WorkerId::new(&SystemClock)).bind(queue).bind(kind);
    insert.execute(&kit.world.pool).await.unwrap();
}

async fn why(kit: &Kit, id: JobId) -> Why {
    kit.queue.why(id, None).await.unwrap()
}

fn codes(why: &Why) -> Vec<Block> {
    why.reasons.iter().map(|reason| reason.code).collect()
}

async fn claim(kit: &Kit, limit: i64) -> Vec<krilin::model::job::Lease> {
    let claim = Claim { queue: "test", limit, worker_id: WorkerId::new(&SystemClock), lease: Duration::from_secs(10) };
    let claimed = leases::claim_in_turn(&kit.world.pool, &[], claim, Turn::default()).await.unwrap();
    claimed.jobs.into_iter().map(|(_, lease)| lease).collect()
}

async fn of(kit: &Kit, user: UserId, key: Option<&str>) -> JobId {
    let job = NewJob { user_id: Some(user), concurrency_key: key.map(ToOwned::to_owned), ..job(BATCH, json!({})) };
    kit.queue.enqueue(job).await.unwrap().job_id
}

#[tokio::test]
async fn the_next_one_those_behind_it_the_running_and_the_ended_say_so() {
    let kit = Kit::new().await;
    worker_for(&kit, "test", BATCH).await;
    let (first, second) = (kit.enqueue(BATCH, json!({})).await, kit.enqueue(BATCH, json!({})).await);
    assert_eq!(codes(&why(&kit, first).await), [Block::Next]);
    assert!(why(&kit, first).await.starts_at.unwrap() <= SystemClock.now());
    let behind = why(&kit, second).await;
    assert_eq!(codes(&behind), [Block::Behind]);
    assert!(behind.reasons[0].message.starts_with("1 jobs") && behind.starts_at.is_some(), "{behind:?}");
    claim(&kit, 1).await;
    assert_eq!(codes(&why(&kit, first).await), [Block::Running]);
    kit.queue.cancel(second, None).await.unwrap();
    assert_eq!(codes(&why(&kit, second).await), [Block::Ended]);
    assert!(kit.queue.why(JobId(uuid::Uuid::nil()), None).await.is_err());
}

#[tokio::test]
async fn a_time_a_retry_and_children_say_so() {
    let kit = Kit::new().await;
    worker_for(&kit, "test", BATCH).await;
    let at = SystemClock.now() + TimeDelta::hours(1);
    let later = NewJob { run_at: Some(at), ..job(BATCH, json!({})) };
    let later = kit.queue.enqueue(later).await.unwrap().job_id;
    let time = why(&kit, later).await;
    assert_eq!((codes(&time), time.starts_at.unwrap().timestamp()), (vec![Block::Time], at.timestamp()));
    let failed = kit.enqueue(BATCH, json!({})).await;
    let back = PutBack {
        lease: claim(&kit, 1).await[0],
        wait: Some(Duration::from_mins(1)),
        spent: true,
        outcome: Some("failed"),
        error: Some(r#"{"code": "Unavailable", "message": "the mail server is away"}"#.to_owned()),
    };
    leases::put_back(&kit.world.pool, &[back]).await.unwrap();
    let retry = why(&kit, failed).await;
    assert_eq!(codes(&retry), [Block::Retry]);
    assert!(retry.reasons[0].message.contains("the mail server is away") && retry.starts_at.is_some(), "{retry:?}");
    sqlx::query(
        "update krilin.jobs set state = 'parked', children_when = 'all_done', run_at = krilin.now() where id = $1",
    )
    .bind(failed)
    .execute(&kit.world.pool)
    .await
    .unwrap();
    sqlx::query("update krilin.jobs set parent_id = $1 where id = $2")
        .bind(failed)
        .bind(later)
        .execute(&kit.world.pool)
        .await
        .unwrap();
    let children = why(&kit, failed).await;
    assert_eq!((codes(&children), children.starts_at), (vec![Block::Children], None));
    assert!(children.reasons[0].message.starts_with("1 jobs"), "{children:?}");
}

#[tokio::test]
async fn pauses_and_missing_workers_say_so_and_no_time_is_promised() {
    let kit = Kit::new().await;
    let id = kit.enqueue(BATCH, json!({})).await;
    assert_eq!(codes(&why(&kit, id).await), [Block::NoWorker]);
    worker_for(&kit, "test", "another_kind").await;
    assert_eq!(codes(&why(&kit, id).await), [Block::NoAbleWorker]);
    worker_for(&kit, "test", BATCH).await;
    set(&kit, "test", json!({"paused": true, "reason": "a move"})).await;
    set(&kit, "all", json!({"paused": true})).await;
    let paused = why(&kit, id).await;
    assert_eq!((codes(&paused), paused.starts_at), (vec![Block::AllPaused, Block::Paused], None));
    assert_eq!(paused.reasons[1].message, "Ada paused the queue `test`: a move");
}

#[tokio::test]
async fn every_limit_and_rate_that_is_reached_says_so() {
    let kit = Kit::new().await;
    worker_for(&kit, "test", BATCH).await;
    let user = add_user(&kit.world, "Ada").await;
    of(&kit, user, Some("app")).await;
    let id = of(&kit, user, Some("app")).await;
    assert_eq!(claim(&kit, 5).await.len(), 1);
    assert_eq!(codes(&why(&kit, id).await), [Block::KeyLimit]);
    set(&kit, "test", json!({"keys": {"app": 2}, "max_running": 1})).await;
    assert_eq!(codes(&why(&kit, id).await), [Block::QueueLimit]);
    set(&kit, "test", json!({"max_running": null, "max_running_per_user": 1})).await;
    assert_eq!(codes(&why(&kit, id).await), [Block::UserLimit]);
    set(&kit, "test", json!({"max_running_per_user": null})).await;
    set(&kit, "all", json!({"max_running": 1})).await;
    assert_eq!(codes(&why(&kit, id).await), [Block::AllLimit]);
    set(&kit, "all", json!({"max_running": null})).await;
    let minute = json!({"units": 1, "period": "1m"});
    set(&kit, "test", json!({"rate": minute, "rate_per_user": minute, "rate_per_key": minute, "keys": {"app": 9}}))
        .await;
    assert_eq!(claim(&kit, 1).await.len(), 1);
    let another = of(&kit, user, Some("app")).await;
    let rates = why(&kit, another).await;
    assert_eq!(codes(&rates), [Block::Rate, Block::UserRate, Block::KeyRate]);
    let wait = rates.starts_at.unwrap() - rates.looked_at;
    assert!(wait > TimeDelta::seconds(50) && wait <= TimeDelta::seconds(60), "{rates:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn its_owner_and_the_operator_can_ask_and_nobody_else() {
    let kit = Kit::new().await;
    let server = Server::over(&kit.queue, &kit.world.pool).await;
    let ((ada, token), (_, stranger)) = (somebody(&kit.world).await, somebody(&kit.world).await);
    let id = of(&kit, ada, None).await;
    let path = format!("/api/v1/jobs/{id}/why");
    let told = server.get(&path, &token).await.json();
    assert_eq!((&told["why"]["state"], &told["why"]["reasons"][0]["code"]), (&json!("pending"), &json!("no_worker")));
    server.get(&path, &stranger).await.problem(404, "not-found");
    let home = Directory::new("why");
    give_credentials(&home.0, &kit.world);
    let words = stdout(&run(&home.0, &["job", "why", &id.to_string()]));
    assert!(words.contains("no worker is there for the queue `test`") && words.contains("not known"), "{words}");
}
