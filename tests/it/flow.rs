//! Flow control in the claim: limits that hold under any number of claimers, fairness, rates; judged on live leases.

use std::{collections::HashMap, time::Duration};

use futures::future::join_all;
use krilin::{
    clock::SystemClock,
    model::{
        flow::Change,
        id::{JobId, UserId, WorkerId},
        job::{ClaimedJob, Lease, NewJob},
    },
    queue::{reaper::Reaper, worker::Lane},
    store::leases::{self, Claim, Claimed, Ending, Turn},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::kinds::{BATCH, Kit, job, until};

const LEASE: Duration = Duration::from_secs(10);

fn of(user: UserId) -> NewJob {
    NewJob { user_id: Some(user), ..job(BATCH, json!({})) }
}

fn user(number: u128) -> UserId {
    UserId(Uuid::from_u128(number))
}

async fn set(kit: &Kit, value: Value) {
    let change: Change = serde_json::from_value(value).unwrap();
    kit.queue.change_queue("test", &change, "Ada").await.unwrap();
}

/// Gives every job whose number in `args` fits a concurrency key.
async fn enqueue_keyed(kit: &Kit, key: &str, count: usize, user: Option<UserId>) -> Vec<JobId> {
    let one = || NewJob { user_id: user, concurrency_key: Some(key.to_owned()), ..job(BATCH, json!({})) };
    let done = kit.queue.enqueue_many((0..count).map(|_| one()).collect()).await.unwrap();
    done.into_iter().map(|done| done.job_id).collect()
}

async fn claim_turn(kit: &Kit, limit: i64, endings: &[Ending], turn: Turn) -> Claimed {
    let claim = Claim { queue: "test", limit, worker_id: WorkerId::new(&SystemClock), lease: LEASE };
    leases::claim_in_turn(&kit.world.pool, endings, claim, turn).await.unwrap()
}

async fn claim(kit: &Kit, limit: i64) -> Vec<(ClaimedJob, Lease)> {
    claim_turn(kit, limit, &[], Turn::default()).await.jobs
}

fn done(lease: Lease) -> Ending {
    Ending { lease, state: krilin::model::job::State::Done, result: None, error: None }
}

async fn running(kit: &Kit) -> i64 {
    kit.count("select count(*) from krilin.jobs where state = 'running'").await
}

/// Claims with `claimers` at a time, again and again, ends what was claimed, until nothing is left; asserts after every
/// round that `held` of a worker's hands never go over the limit.
async fn drain_concurrently(kit: &Kit, claimers: usize, check: impl AsyncFn()) -> usize {
    let mut total = 0;
    loop {
        let claims = join_all((0..claimers).map(|_| claim(kit, 5))).await;
        check().await;
        let jobs: Vec<_> = claims.into_iter().flatten().collect();
        total += jobs.len();
        if jobs.is_empty() {
            return total;
        }
        let endings: Vec<_> = jobs.iter().map(|(_, lease)| done(*lease)).collect();
        claim_turn(kit, 0, &endings, Turn::default()).await;
    }
}

#[tokio::test]
async fn a_limit_of_the_queue_holds_under_many_claimers_at_once() {
    let kit = Kit::new().await;
    set(&kit, json!({"max_running": 3})).await;
    kit.queue.enqueue_many((0..40).map(|_| job(BATCH, json!({}))).collect()).await.unwrap();
    let seen = drain_concurrently(&kit, 8, async || assert!(running(&kit).await <= 3)).await;
    assert_eq!(seen, 40);
    // A plain claim, of a worker that does not know of limits yet, takes nothing.
    kit.enqueue(BATCH, json!({})).await;
    let claim = Claim { queue: "test", limit: 9, worker_id: WorkerId::new(&SystemClock), lease: LEASE };
    let plain = leases::claim(&kit.world.pool, claim, None).await.unwrap();
    assert!(plain.jobs.is_empty() && plain.lanes == Some(true));
    let plain = leases::claim_on(&kit.world.pool, claim, None).await.unwrap();
    assert!(plain.jobs.is_empty() && plain.lanes.is_none());
}

#[tokio::test]
async fn a_users_job_is_found_while_a_backlog_of_nobodys_lasts() {
    let mut kit = Kit::new().await;
    kit.options.lanes = vec![Lane::new("test", 100)];
    for _ in 0..3 {
        kit.queue.enqueue_many((0..10_000).map(|_| job(BATCH, json!({}))).collect()).await.unwrap();
    }
    let worker = kit.worker();
    let drained = "select count(*) from krilin.job_history";
    until(async || (kit.count(drained).await > 1_000).then_some(())).await;
    let users = kit.queue.enqueue_many(vec![of(user(1))]).await.unwrap()[0].job_id;
    kit.ended(users).await;
    assert!(kit.count("select count(*) from krilin.jobs where state = 'ready'").await > 0, "it went first");
    assert!(worker.stop().await);
}

#[tokio::test]
async fn a_limit_of_a_key_and_of_a_user_hold_under_many_claimers_at_once() {
    let kit = Kit::new().await;
    set(&kit, json!({"max_running_per_user": 2, "keys": {"mail": 3}})).await;
    enqueue_keyed(&kit, "app", 6, None).await;
    for number in 1..=6 {
        enqueue_keyed(&kit, "mail", 3, Some(user(number))).await;
        kit.queue.enqueue_many(vec![of(user(number)), of(user(number))]).await.unwrap();
    }
    let most = async |statement: &'static str| kit.count(statement).await;
    let check = async || {
        let by_key = "select coalesce(max(n), 0) from (select count(*) n from krilin.jobs
                      where state = 'running' and concurrency_key = 'app') x";
        assert!(most(by_key).await <= 1);
        let mail = "select count(*) from krilin.jobs where state = 'running' and concurrency_key = 'mail'";
        assert!(most(mail).await <= 3);
        let by_user = "select coalesce(max(n), 0) from (select count(*) n from krilin.jobs
                       where state = 'running' and user_id is not null group by user_id) x";
        assert!(most(by_user).await <= 2);
    };
    assert_eq!(drain_concurrently(&kit, 8, check).await, 6 + 6 * 5);
}

#[tokio::test]
async fn keys_and_turns_hold_where_nothing_is_set() {
    let kit = Kit::new().await;
    for number in 1..=3 {
        enqueue_keyed(&kit, "of all", 2, Some(user(number))).await;
        enqueue_keyed(&kit, &format!("of {number}"), 2, Some(user(number))).await;
        kit.queue.enqueue_many(vec![of(user(number)), of(user(number)), of(user(number))]).await.unwrap();
    }
    kit.queue.enqueue_many((0..4).map(|_| job(BATCH, json!({}))).collect()).await.unwrap();
    let first = claim_turn(&kit, 4, &[], Turn::default()).await;
    let whose: HashMap<_, _> = first.jobs.iter().map(|(job, _)| (job.user_id, job.id)).collect();
    assert_eq!(whose.len(), 4, "a place for each of the three and one for those without a user");
    let flow = first.flow.unwrap();
    assert!(flow.held && flow.more, "others wait for the keys, and more is there");
    let endings: Vec<_> = first.jobs.iter().map(|(_, lease)| done(*lease)).collect();
    claim_turn(&kit, 0, &endings, Turn::default()).await;
    let check = async || {
        let by_key = "select coalesce(max(n), 0) from (select count(*) n from krilin.jobs
                      where state = 'running' and concurrency_key is not null group by concurrency_key) x";
        assert!(kit.count(by_key).await <= 1);
    };
    assert_eq!(drain_concurrently(&kit, 6, check).await, 21);
    enqueue_keyed(&kit, "alone", 1, Some(user(1))).await;
    let alone = claim_turn(&kit, 4, &[], Turn::default()).await;
    assert!(alone.jobs.len() == 1 && !alone.flow.unwrap().held, "nothing else waits");
}

#[tokio::test]
async fn a_limit_over_all_queues_holds() {
    let kit = Kit::new().await;
    let change: Change = serde_json::from_value(json!({"max_running": 2})).unwrap();
    kit.queue.change_queue("all", &change, "Ada").await.unwrap();
    kit.queue.enqueue_many((0..12).map(|_| job(BATCH, json!({}))).collect()).await.unwrap();
    sqlx::query("update krilin.jobs set queue = 'other' where seq % 2 = 0").execute(&kit.world.pool).await.unwrap();
    let of = async |queue: &'static str| {
        let claim = Claim { queue, limit: 5, worker_id: WorkerId::new(&SystemClock), lease: LEASE };
        leases::claim_in_turn(&kit.world.pool, &[], claim, Turn::default()).await.unwrap().jobs
    };
    let mut total = 0;
    while total < 12 {
        let claims = join_all((0..8).map(|n| of(if n % 2 == 0 { "test" } else { "other" }))).await;
        assert!(running(&kit).await <= 2);
        let endings: Vec<_> = claims.iter().flatten().map(|(_, lease)| done(*lease)).collect();
        assert!(!endings.is_empty());
        total += endings.len();
        claim_turn(&kit, 0, &endings, Turn::default()).await;
    }
}

#[tokio::test]
async fn the_places_of_a_worker_that_was_killed_are_free_when_its_leases_are() {
    let kit = Kit::new().await;
    set(&kit, json!({"max_running": 2})).await;
    let keyed = enqueue_keyed(&kit, "app", 2, None).await;
    kit.enqueue(BATCH, json!({})).await;
    let lost = claim(&kit, 9).await;
    assert_eq!(lost.len(), 2);
    assert!(lost.iter().any(|(job, _)| job.id == keyed[0]));
    assert!(claim(&kit, 9).await.is_empty());
    kit.world.advance(LEASE * 2).await;
    assert!(claim(&kit, 9).await.is_empty(), "an expired lease counts until the reaper took it");
    assert_eq!(Reaper::new(kit.world.pool.clone(), Duration::ZERO).tick().await.unwrap(), 2);
    let again = claim(&kit, 9).await;
    assert_eq!(again.len(), 2);
    assert!(again.iter().any(|(job, _)| job.id == keyed[0]) && !again.iter().any(|(job, _)| job.id == keyed[1]));
}

#[tokio::test]
async fn a_hundred_thousand_jobs_behind_one_key_do_not_hold_up_another() {
    let kit = Kit::new().await;
    sqlx::query(
        "insert into krilin.jobs (id, user_id, kind, queue, args, state, priority, max_attempts, run_at, created_at, concurrency_key)
         select gen_random_uuid(), $1, 'test_batch', 'test', '{}', 'ready', 50, 3, now(), now(), 'blocked'
         from generate_series(1, 100000)",
    )
    .bind(user(1))
    .execute(&kit.world.pool)
    .await
    .unwrap();
    let mine = kit.queue.enqueue(of(user(1))).await.unwrap().job_id;
    let others = kit.queue.enqueue(of(user(2))).await.unwrap().job_id;
    let plain = kit.enqueue(BATCH, json!({})).await;
    let first = claim(&kit, 4).await;
    let ids: Vec<_> = first.iter().map(|(job, _)| job.id).collect();
    assert!(ids.contains(&others) && ids.contains(&plain), "{ids:?}");
    let second = claim_turn(&kit, 4, &[], Turn::default()).await;
    let all: Vec<_> = ids.into_iter().chain(second.jobs.iter().map(|(job, _)| job.id)).collect();
    assert!(all.contains(&mine) && all.len() == 4, "one of the blocked key, and each of the others: {all:?}");
    assert!(second.flow.unwrap().held);
    // Nothing but the key's own limit is looked at: the claim reads a handful of pages, not those of 100,000 jobs.
    let explain =
        "explain (analyze, buffers, format json) select * from krilin.pick('test', 4, krilin.line(null), 0, null)";
    let explained: Value = sqlx::query_scalar(explain).fetch_one(&kit.world.pool).await.unwrap();
    let read = explained[0]["Plan"]["Shared Hit Blocks"].as_u64().unwrap()
        + explained[0]["Plan"]["Shared Read Blocks"].as_u64().unwrap();
    assert!(read < 2_000, "{read} pages");
}

#[tokio::test]
async fn users_share_by_weight_and_a_later_one_is_not_behind_an_earlier_ones_many() {
    let kit = Kit::new().await;
    for number in 1..=3 {
        kit.queue.enqueue_many((0..200).map(|_| of(user(number))).collect()).await.unwrap();
    }
    sqlx::query("insert into krilin.users (id, name, timezone) values ($1, 'Ada', 'UTC')")
        .bind(user(2))
        .execute(&kit.world.pool)
        .await
        .unwrap();
    set(&kit, json!({"users": {user(2).to_string(): {"weight": 3}}})).await;
    for limit in [1, 4, 15] {
        let (mut turn, mut shares) = (Turn::default(), HashMap::<UserId, usize>::new());
        let mut total = 0;
        while total < 60 {
            let claimed = claim_turn(&kit, limit, &[], turn).await;
            let flow = claimed.flow.unwrap();
            assert!(!claimed.jobs.is_empty() && flow.more);
            total += claimed.jobs.len();
            turn = flow.turn;
            for (job, _) in claimed.jobs {
                *shares.entry(job.user_id.unwrap()).or_default() += 1;
            }
        }
        let share = |number| shares.get(&user(number)).copied().unwrap_or(0);
        // Three of five, a batch more or less.
        assert!((30..=42).contains(&share(2)), "batches of {limit}: {shares:?}");
        assert!(share(1) >= 9 && share(3) >= 9, "{shares:?}");
    }
}

#[tokio::test]
async fn a_limit_that_changes_holds_from_the_next_claim_on() {
    let kit = Kit::new().await;
    kit.queue.enqueue_many((0..10).map(|_| of(user(1))).collect()).await.unwrap();
    set(&kit, json!({"max_running_per_user": 1})).await;
    assert_eq!(claim(&kit, 9).await.len(), 1);
    set(&kit, json!({"max_running_per_user": 4})).await;
    assert_eq!(claim(&kit, 9).await.len(), 3);
    set(&kit, json!({"max_running_per_user": 2})).await;
    assert!(claim(&kit, 9).await.is_empty());
    assert_eq!(running(&kit).await, 4, "what runs may end");
    set(&kit, json!({"max_running_per_user": null})).await;
    assert_eq!(claim(&kit, 9).await.len(), 6);
}

#[tokio::test]
async fn a_rate_holds_in_every_window_and_a_job_costs_what_it_says() {
    let kit = Kit::new().await;
    set(&kit, json!({"rate": {"units": 10, "period": "1m"}, "rate_per_user": {"units": 4, "period": "1m"}})).await;
    kit.queue.enqueue_many((0..40).map(|n| of(user(1 + n % 4))).collect()).await.unwrap();
    sqlx::query("update krilin.jobs set cost = 2 where user_id = $1")
        .bind(user(1))
        .execute(&kit.world.pool)
        .await
        .unwrap();
    let units = "select coalesce(sum(coalesce(cost, 1)), 0) from krilin.jobs where state = 'running'";
    let mut before = 0;
    for window in 1..=3_u32 {
        join_all((0..6).map(|_| claim(&kit, 9))).await;
        let started = kit.count(units).await - before;
        assert!((9..=10).contains(&started), "window {window}: {started}");
        let most = "select coalesce(max(n), 0) from (select sum(coalesce(cost, 1)) n from krilin.jobs
                    where state = 'running' and started_at > krilin.now() - interval '59 s' group by user_id) x";
        assert!(kit.count(most).await <= 4);
        before += started;
        // Just before the window is over nothing more starts.
        kit.world.advance(Duration::from_secs(u64::from(window) * 61 - 8)).await;
        claim(&kit, 9).await;
        assert!(kit.count(units).await - before <= 1);
        before = kit.count(units).await;
        kit.world.advance(Duration::from_secs(u64::from(window) * 61 + 70)).await;
    }
}

#[tokio::test]
async fn a_worker_runs_keyed_jobs_one_at_a_time_and_wastes_no_poll_between() {
    let kit = Kit::new().await;
    let ids = enqueue_keyed(&kit, "app", 20, Some(user(1))).await;
    let worker = kit.worker();
    let begun = std::time::Instant::now();
    for id in &ids {
        kit.ended(*id).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "twenty polls would take twenty seconds");
    let overlapping = kit
        .count(
            "select count(*) from krilin.job_history a join krilin.job_history b
             on a.id < b.id and a.started_at < b.finished_at and b.started_at < a.finished_at",
        )
        .await;
    assert_eq!(overlapping, 0);
    assert!(worker.stop().await);
}

#[tokio::test]
async fn a_rate_that_workers_keep_by_themselves_is_kept() {
    let kit = Kit::new().await;
    set(&kit, json!({"rate": {"units": 8, "period": "1h", "exact": false}})).await;
    kit.queue.enqueue_many((0..30).map(|_| job(BATCH, json!({}))).collect()).await.unwrap();
    let worker = kit.worker();
    crate::kinds::until(async || (kit.count("select count(*) from krilin.job_history").await == 8).then_some(())).await;
    assert!(worker.stop().await);
    assert_eq!(kit.count("select count(*) from krilin.job_history").await, 8);
    assert_eq!(kit.count("select count(*) from krilin.rate_spent").await, 0);
}

#[tokio::test]
async fn a_claim_that_no_limit_can_stop_spends_of_the_rate_all_the_same() {
    let kit = Kit::new().await;
    let rate = json!({"units": 10, "period": "1h"});
    set(&kit, json!({"max_running": 50, "max_running_per_user": 20, "rate": rate})).await;
    kit.queue.enqueue_many((0..12).map(|n| of(user(1 + n % 2))).collect()).await.unwrap();
    let spent = "select coalesce(sum(units), 0)::bigint from krilin.rate_spent";
    assert_eq!(claim(&kit, 6).await.len(), 6);
    assert_eq!(kit.count(spent).await, 6);
    // Four units are left: enough for four jobs, but not for four of these.
    sqlx::query("update krilin.jobs set cost = 2 where state = 'ready'").execute(&kit.world.pool).await.unwrap();
    assert_eq!(claim(&kit, 4).await.len(), 2);
    assert_eq!(kit.count(spent).await, 10);
    assert!(claim(&kit, 4).await.is_empty());
}
