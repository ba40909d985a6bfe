//! Enqueuing: what is durable when the call returns, in which order it runs, and what is refused.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use krilin::{
    clock::SystemClock,
    model::{
        clock::Clock,
        id::{JobId, UserId},
        job::{Enqueued, NewJob, State},
        policy::PRIORITY_MAX,
    },
    queue::{ARGS_MAX_BYTES, Error, Filter, Queue, worker::Lane},
    store,
};
use serde_json::{Value, json};

use crate::kinds::{BATCH, Kit, OWN, job};

#[tokio::test]
async fn concurrent_callers_share_inserts_and_each_has_its_own_job() {
    let kit = Kit::new().await;
    let callers = (0..200).map(|n| kit.queue.enqueue(job(BATCH, json!({ "n": n }))));
    let done = futures::future::try_join_all(callers).await.unwrap();
    assert!(done.iter().all(Enqueued::created));
    assert_eq!(kit.count("select count(*) from krilin.jobs").await, 200);
    assert_eq!(kit.count("select count(distinct args ->> 'n') from krilin.jobs").await, 200);
    let commits = kit.count("select count(distinct xmin::text) from krilin.jobs").await;
    assert!(commits < 100, "{commits} inserts for 200 callers");
}

#[tokio::test]
async fn a_bad_job_spoils_no_other_that_shares_its_insert() {
    let kit = Kit::new().await;
    let callers = (0..20).map(|n| {
        let text = if n == 7 { "\0" } else { "fine" };
        kit.queue.enqueue(job(BATCH, json!({ "text": text })))
    });
    let done = futures::future::join_all(callers).await;
    assert!(matches!(done[7], Err(Error::Unfit(_))), "{:?}", done[7]);
    assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 19);
    assert_eq!(kit.count("select count(*) from krilin.jobs").await, 19);
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_leaves_nothing() {
    let kit = Kit::new().await;
    let unknown = kit.queue.enqueue(job("nothing", json!({}))).await;
    assert!(matches!(unknown, Err(Error::UnknownKind(_))));
    let large = kit.queue.enqueue(job(BATCH, json!("x".repeat(ARGS_MAX_BYTES)))).await;
    assert!(matches!(large, Err(Error::Unfit(_))));
    let attempts = NewJob { max_attempts: Some(0), ..job(BATCH, json!({})) };
    assert!(matches!(kit.queue.enqueue(attempts).await, Err(Error::Unfit(_))));
    let mixed = vec![job(BATCH, json!({})), job("nothing", json!({}))];
    assert!(kit.queue.enqueue_many(mixed).await.is_err());
    let nul = vec![job(BATCH, json!({})), job(BATCH, json!("\0"))];
    assert!(kit.queue.enqueue_many(nul).await.is_err());
    assert_eq!(kit.count("select count(*) from krilin.jobs").await, 0);
}

/// Jobs that differ in everything in which jobs differ that have neither key nor ties.
fn mixed(count: u32, user: UserId) -> impl Iterator<Item = NewJob> {
    let now = SystemClock.now();
    (0..count).map(move |n| NewJob {
        user_id: (n % 3 == 0).then_some(user),
        app_id: (n % 5 == 0).then(|| "habit-tracker".parse().unwrap()),
        priority: i16::try_from(n % 7).ok().map(|priority| priority - 3),
        max_attempts: (n % 2 == 0).then_some(1 + n % 5),
        run_at: (n % 4 == 1).then_some(now + TimeDelta::hours(i64::from(n % 3) - 1)),
        delay: (n % 4 == 2).then_some(Duration::from_secs(90)),
        cause: (n % 6 == 0).then(|| format!("cause {n}")),
        trace_parent: (n % 10 == 0).then(|| "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        awaited: n % 11 == 0,
        concurrency_key: (n % 13 == 0).then(|| format!("key {}", n % 3)),
        cost: (n % 9 > 0).then_some(n % 9),
        ..job(BATCH, json!({ "n": n, "text": "\u{1f426} \"quoted\"" }))
    })
}

#[tokio::test]
async fn a_copy_stores_what_inserts_store() {
    let kit = Kit::new().await;
    let jobs: Vec<_> = mixed(1_200, UserId::new(&SystemClock)).collect();
    let stored = async || -> Vec<Value> {
        let rows = sqlx::query_scalar(
            "select to_jsonb(j) - '{id, seq, rank, created_at, run_at, due_at}'::text[] || jsonb_build_object(
                 'waits', extract(epoch from run_at - case when delayed.by_time then '2000-01-01' else created_at end),
                 'due', extract(epoch from due_at - case when delayed.by_time then '2000-01-01' else created_at end))
             from krilin.jobs j, lateral (select (args -> 'n')::integer % 4 = 1 as by_time) as delayed
             order by (args -> 'n')::integer",
        );
        rows.fetch_all(&kit.world.pool).await.unwrap()
    };
    for few in jobs.chunks(40) {
        kit.queue.enqueue_many(few.to_vec()).await.unwrap();
    }
    let inserted = stored().await;
    sqlx::query("delete from krilin.jobs").execute(&kit.world.pool).await.unwrap();
    let enqueued = kit.queue.enqueue_many(jobs).await.unwrap();
    let copied = stored().await;
    assert_eq!(copied.len(), 1_200);
    for (copied, inserted) in copied.iter().zip(&inserted) {
        assert_eq!(copied, inserted);
    }
    let ids: Vec<JobId> =
        sqlx::query_scalar("select id from krilin.jobs order by seq").fetch_all(&kit.world.pool).await.unwrap();
    assert_eq!(ids, enqueued.iter().map(|done| done.job_id).collect::<Vec<_>>(), "in the order they were given");
}

#[tokio::test]
async fn a_copy_with_a_bad_job_stores_nothing_and_the_next_one_all() {
    let kit = Kit::new().await;
    let user = UserId::new(&SystemClock);
    let mut jobs: Vec<_> = mixed(2_000, user).collect();
    let good = jobs[700].clone();
    // Postgres refuses the first, we the second when the others are under way, and the third before.
    let bad = [
        NewJob { args: json!("\0"), ..good.clone() },
        NewJob { args: json!("x".repeat(ARGS_MAX_BYTES)), ..good.clone() },
        NewJob { priority: Some(PRIORITY_MAX + 1), ..good },
    ];
    for bad in bad {
        jobs[1_700] = bad;
        let refused = kit.queue.enqueue_many(jobs.clone()).await;
        assert!(matches!(refused, Err(Error::Unfit(_))), "{refused:?}");
    }
    let mut undone = kit.world.pool.begin().await.unwrap();
    let in_it = kit.queue.enqueue_in(&mut undone, mixed(1_500, user).collect()).await.unwrap();
    assert_eq!(in_it.jobs.len(), 1_500);
    undone.rollback().await.unwrap();
    assert_eq!(kit.count("select count(*) from krilin.jobs").await, 0);
    kit.queue.enqueue_many(mixed(1_500, user).collect()).await.unwrap();
    assert_eq!(kit.count("select count(*) from krilin.jobs").await, 1_500);
}

#[tokio::test]
async fn higher_priority_runs_sooner_and_equals_in_order() {
    let mut kit = Kit::new().await;
    kit.options.lanes = vec![Lane::new("test", 1)];
    let with = |priority| NewJob { priority: Some(priority), ..job(BATCH, json!({})) };
    let made = kit.queue.enqueue_many(vec![with(0), with(5), with(-5), with(5)]).await.unwrap();
    let worker = kit.worker();
    let mut order = Vec::new();
    for _ in 0..4 {
        order.push(kit.began.recv().await.unwrap().0);
    }
    assert_eq!(order, [1, 3, 0, 2].map(|index: usize| made[index].job_id));
    worker.stop().await;
}

#[tokio::test]
async fn a_job_of_low_priority_is_overtaken_for_a_while_and_never_starves() {
    let mut kit = Kit::new().await;
    kit.options.lanes = vec![Lane::new("test", 1)];
    let enqueue = async |after_minutes: u64, priority| {
        kit.world.advance(Duration::from_mins(after_minutes)).await;
        let job = NewJob { priority: Some(priority), ..job(BATCH, json!({})) };
        kit.queue.enqueue(job).await.unwrap().job_id
    };
    // Six points apart: overtaken for an hour.
    let low = enqueue(0, -3).await;
    let overtakes = enqueue(59, 3).await;
    let comes_after = enqueue(61, 3).await;
    let plain = enqueue(61, 0).await;
    let worker = kit.worker();
    let mut order = Vec::new();
    for _ in 0..4 {
        order.push(kit.began.recv().await.unwrap().0);
    }
    assert_eq!(order, [overtakes, low, comes_after, plain]);
    worker.stop().await;
}

#[tokio::test]
async fn a_delayed_job_waits_for_its_time_by_the_databases_clock() {
    let mut kit = Kit::new().await;
    let worker = kit.worker();
    let later = NewJob { run_at: Some(SystemClock.now() + TimeDelta::hours(1)), ..job(BATCH, json!({})) };
    let delayed = kit.queue.enqueue(later).await.unwrap().job_id;
    let at_once = kit.enqueue(BATCH, json!({})).await;
    kit.ended(at_once).await;
    assert_eq!(kit.state(delayed).await.state, State::Pending);
    assert_eq!(kit.queue.depths().await.unwrap()[0].scheduled, 1);
    kit.world.advance(Duration::from_secs(3_601)).await;
    assert_eq!(kit.ended(delayed).await.state, State::Done);
    assert_eq!((kit.began.recv().await.unwrap().0, kit.began.recv().await.unwrap().0), (at_once, delayed));
    worker.stop().await;
}

#[tokio::test]
async fn a_soon_due_job_runs_well_within_a_second_of_its_time() {
    let kit = Kit::new().await;
    let worker = kit.worker();
    let soon = NewJob { run_at: Some(SystemClock.now() + TimeDelta::milliseconds(300)), ..job(BATCH, json!({})) };
    let id = kit.queue.enqueue(soon).await.unwrap().job_id;
    let job = kit.ended(id).await;
    let late = job.started_at.unwrap() - job.run_at;
    assert!((TimeDelta::zero()..TimeDelta::seconds(1)).contains(&late), "{late}");
    worker.stop().await;
}

#[tokio::test]
async fn users_see_their_own_jobs_page_by_page() {
    let kit = Kit::new().await;
    let (ann, bob) = (UserId::new(&SystemClock), UserId::new(&SystemClock));
    let of = |user, kind| NewJob { user_id: Some(user), ..job(kind, json!({})) };
    let mut mine = Vec::new();
    for n in 0..5 {
        mine.push(kit.queue.enqueue(of(ann, if n % 2 == 0 { BATCH } else { OWN })).await.unwrap().job_id);
        kit.queue.enqueue(of(bob, BATCH)).await.unwrap();
    }
    kit.queue.cancel(mine[0], Some(ann)).await.unwrap();
    mine.reverse();
    let filter = Filter { user_id: Some(ann), ..Filter::default() };
    let first = kit.queue.list(&filter, None, 3).await.unwrap();
    let rest = kit.queue.list(&filter, Some(first[2].id), 3).await.unwrap();
    let listed: Vec<_> = first.iter().chain(&rest).map(|job| job.id).collect();
    assert_eq!(listed, mine);
    let own = Filter { kind: Some(OWN.to_owned()), ..filter.clone() };
    assert_eq!(kit.queue.list(&own, None, 10).await.unwrap().len(), 2);
    let cancelled = Filter { state: Some(State::Cancelled), queue: Some("test".to_owned()), ..filter };
    assert_eq!(kit.queue.list(&cancelled, None, 10).await.unwrap().len(), 1);
    assert!(kit.queue.get(mine[0], Some(bob)).await.unwrap().is_none());
    assert!(matches!(kit.queue.cancel(mine[0], Some(bob)).await, Err(Error::NotFound)));
    assert!(SystemClock.now() > rest[1].created_at);
}

#[tokio::test]
async fn what_an_awaited_job_was_promised_on_is_on_the_disk() {
    let kit = Kit::new().await;
    // As in production; the cluster of the tests waits for no disk.
    let pool = store::beside(&kit.world.pool, 4, &[("synchronous_commit", "on")]);
    let queue = Queue::new(&pool, Arc::new(SystemClock), kit.queue.policies().clone());
    let job = NewJob { awaited: true, ..job(BATCH, json!({})) };
    let enqueued = queue.enqueue(job).await.unwrap();
    assert_eq!(kit.state(enqueued.job_id).await.state, State::Pending);
    let written: String =
        sqlx::query_scalar("select pg_current_wal_insert_lsn()::text").fetch_one(&kit.world.pool).await.unwrap();
    queue.sync().await.unwrap();
    let flushed: bool = sqlx::query_scalar("select pg_current_wal_flush_lsn() >= $1::pg_lsn")
        .bind(written)
        .fetch_one(&kit.world.pool)
        .await
        .unwrap();
    assert!(flushed);
}
