//! Leases: who may end a job, and what becomes of jobs whose worker vanished.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use krilin::{
    clock::SystemClock,
    model::{
        id::{JobId, WorkerId},
        job::{ClaimedJob, Lease, State},
    },
    queue::{complete, reaper::Reaper},
    store::{
        Error,
        leases::{self, Claim, Ending},
    },
};
use serde_json::json;

use crate::kinds::{BATCH, Kit, OWN, job, until};

const LEASE: Duration = Duration::from_secs(10);

async fn claim(kit: &Kit, limit: i64) -> Vec<(ClaimedJob, Lease)> {
    let claim = Claim { queue: "test", limit, worker_id: WorkerId::new(&SystemClock), lease: LEASE };
    leases::claim(&kit.world.pool, claim, None).await.unwrap().jobs
}

/// One look of a reaper that never holds off.
async fn reap(kit: &Kit) -> usize {
    Reaper::new(kit.world.pool.clone(), Duration::ZERO).tick().await.unwrap()
}

#[tokio::test]
async fn a_claim_looks_only_behind_its_floor_and_one_without_finds_everything() {
    let kit = Kit::new().await;
    let made = kit.queue.enqueue_many(vec![job(OWN, json!({})); 3]).await.unwrap();
    kit.world.advance(LEASE).await;
    let next = Claim { queue: "test", limit: 1, worker_id: WorkerId::new(&SystemClock), lease: LEASE };
    let mut found = Vec::new();
    let mut claim = async |after| {
        let claimed = leases::claim(&kit.world.pool, next, after).await.unwrap();
        found.extend(claimed.jobs.iter().map(|(job, _)| job.id));
        claimed.last
    };
    // The three were asked for in the same moment and have the same rank.
    let (rank, seq) = claim(None).await.unwrap();
    assert_eq!(claim(Some((rank, seq + 1))).await, Some((rank, seq + 2)));
    assert_eq!(claim(Some((rank, seq + 2))).await, None);
    assert_eq!(claim(Some((rank - 1, i64::MIN))).await, Some((rank, seq + 1)));
    assert_eq!(found, [0, 2, 1].map(|index: usize| made[index].job_id));
}

#[tokio::test]
async fn leases_are_looked_at_from_a_moment_on() {
    let kit = Kit::new().await;
    let mut ends = Vec::new();
    for number in 1..=2 {
        kit.enqueue(OWN, json!({})).await;
        let lease = claim(&kit, 1).await.remove(0).1;
        let end = "select lease_until from krilin.jobs where lease_token = $1";
        let end: DateTime<Utc> = sqlx::query_scalar(end).bind(lease.token).fetch_one(&kit.world.pool).await.unwrap();
        ends.push((lease, end));
        kit.world.advance(LEASE * 2 * number).await;
    }
    let (now, _) = leases::pulse(&kit.world.pool).await.unwrap();
    let from = async |from| leases::expired(&kit.world.pool, from, (now, LEASE), 10).await.unwrap();
    assert_eq!(from(None).await, [ends[0].0, ends[1].0]);
    assert_eq!(from(Some(ends[1].1)).await, [ends[1].0]);
    assert!(from(Some(ends[1].1 + TimeDelta::microseconds(1))).await.is_empty());
}

#[tokio::test]
async fn a_stale_lease_cannot_complete_and_its_writes_vanish() {
    let kit = Kit::new().await;
    let id = kit.enqueue(OWN, json!({})).await;
    let stale = claim(&kit, 1).await[0].1;
    kit.world.advance(LEASE * 2).await;
    assert_eq!(reap(&kit).await, 1);
    let fresh = claim(&kit, 1).await.remove(0);
    assert_eq!((fresh.0.id, fresh.0.tries.attempt), (id, 2));
    assert_ne!(fresh.1.token, stale.token);

    let mut zombie = kit.world.pool.begin().await.unwrap();
    sqlx::query("insert into krilin.test_effects values ($1)").bind(id).execute(&mut *zombie).await.unwrap();
    let refused = complete::in_transaction(&mut zombie, &stale, None).await;
    assert!(matches!(refused, Err(Error::StaleLease)), "{refused:?}");
    drop(zombie);
    assert_eq!((kit.effects().await, kit.state(id).await.state), (0, State::Running));

    let late = Ending { lease: stale, state: State::Done, result: None, error: None };
    assert_eq!(leases::end(&kit.world.pool, &[late]).await.unwrap(), Some(vec![]));
    assert_eq!(leases::renew(&kit.world.pool, &[stale, fresh.1], LEASE).await.unwrap(), [fresh.1]);
    assert_eq!(kit.state(id).await.state, State::Running);

    let mut tx = kit.world.pool.begin().await.unwrap();
    complete::in_transaction(&mut tx, &fresh.1, None).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(kit.state(id).await.state, State::Done);
}

#[tokio::test]
async fn expired_leases_are_freed_at_once_and_the_oldest_run_first() {
    let kit = Kit::new().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(kit.enqueue(BATCH, json!({})).await);
        assert_eq!(claim(&kit, 1).await.len(), 1);
    }
    let fresh = kit.enqueue(BATCH, json!({})).await;
    kit.world.advance(LEASE * 2).await;
    assert_eq!(reap(&kit).await, 3);
    let order: Vec<JobId> = claim(&kit, 10).await.iter().map(|(job, _)| job.id).collect();
    assert_eq!(order, [ids[0], ids[1], ids[2], fresh]);
    assert_eq!(kit.count("select count(*) from krilin.attempts where outcome = 'lost'").await, 3);
}

#[tokio::test]
async fn a_lease_that_was_renewed_or_ended_is_not_freed() {
    let kit = Kit::new().await;
    let (renewed, ended) = (kit.enqueue(BATCH, json!({})).await, kit.enqueue(BATCH, json!({})).await);
    let held: Vec<Lease> = claim(&kit, 2).await.into_iter().map(|(_, lease)| lease).collect();
    kit.world.advance(LEASE * 2).await;
    let now = leases::pulse(&kit.world.pool).await.unwrap().0;
    let page = leases::expired(&kit.world.pool, None, (now, LEASE), 10).await.unwrap();
    assert_eq!(page, held);
    leases::renew(&kit.world.pool, &held[..1], LEASE).await.unwrap();
    leases::complete(&mut kit.world.pool.acquire().await.unwrap(), &held[1], None).await.unwrap();
    let error = krilin::model::error::CtxError::new(krilin::model::error::Code::Internal, "lost");
    assert!(leases::reap(&kit.world.pool, &page, &error).await.unwrap().is_empty());
    assert_eq!(kit.state(renewed).await.state, State::Running);
    assert_eq!(kit.state(ended).await.state, State::Done);
    // An answer that comes out of a stall frees nothing.
    kit.world.advance(LEASE * 9).await;
    assert!(leases::expired(&kit.world.pool, None, (now, Duration::ZERO), 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn one_poisoned_row_does_not_stop_the_sweep_and_the_last_attempt_is_dead() {
    let kit = Kit::new().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(kit.enqueue(BATCH, json!({})).await);
    }
    claim(&kit, 3).await;
    let statement = format!(
        "update krilin.jobs set attempt = 3 where id = '{}';
         create function krilin.poison() returns trigger language plpgsql as
         $$ begin if new.state = 'ready' and new.id = '{}' then raise exception 'poison'; end if; return new; end $$;
         create trigger poison before update on krilin.jobs for each row execute function krilin.poison()",
        ids[2], ids[0]
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&kit.world.owner).await.unwrap();
    kit.world.advance(LEASE * 2).await;
    assert_eq!(reap(&kit).await, 2);
    let states = [kit.state(ids[0]).await.state, kit.state(ids[1]).await.state, kit.state(ids[2]).await.state];
    assert_eq!(states, [State::Running, State::Pending, State::Dead]);
}

#[tokio::test]
async fn after_an_outage_nothing_is_freed_for_a_quarter_of_a_lease() {
    let kit = Kit::new().await;
    kit.enqueue(BATCH, json!({})).await;
    let held = claim(&kit, 1).await.remove(0).1;
    let mut reaper = Reaper::new(kit.world.pool.clone(), Duration::from_millis(1_600));
    assert_eq!(reaper.tick().await.unwrap(), 0);
    reaper.outage();
    let away = std::time::Instant::now();
    kit.world.advance(LEASE * 2).await;
    assert_eq!(reaper.tick().await.unwrap(), 0, "nobody could renew");
    assert_eq!(leases::renew(&kit.world.pool, &[held], LEASE).await.unwrap(), [held]);
    kit.world.advance(LEASE * 4).await;
    tokio::time::timeout(Duration::from_secs(5), async { while reaper.tick().await.unwrap() == 0 {} }).await.unwrap();
    assert!(away.elapsed() >= Duration::from_millis(400), "{:?}", away.elapsed());
    assert_eq!(kit.count("select count(*) from krilin.jobs where state = 'ready'").await, 1);
}

#[tokio::test]
async fn heartbeats_keep_a_long_job_its_workers() {
    let mut kit = Kit::new().await;
    kit.options.lease = Duration::from_millis(400);
    let worker = kit.worker();
    let id = kit.enqueue(OWN, json!({"do": "sleep", "ms": 1_500})).await;
    let job = kit.ended(id).await;
    assert_eq!((job.state, job.attempt, kit.effects().await), (State::Done, 1, 1));
    assert_eq!(kit.count("select count(*) from krilin.attempts").await, 0);
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_that_stops_gives_back_what_it_did_not_finish() {
    let mut kit = Kit::new().await;
    let worker = kit.worker();
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.push(kit.enqueue(OWN, json!({"do": "block"})).await);
    }
    for _ in 0..4 {
        kit.began.recv().await.unwrap();
    }
    until(async || (worker.in_flight() == 7).then_some(())).await;
    assert!(worker.stop().await, "everything was recorded");
    for id in ids {
        let job = kit.state(id).await;
        assert_eq!((job.state, job.attempt), (State::Pending, 0));
    }
    assert_eq!(kit.count("select count(*) from krilin.jobs where state = 'ready'").await, 7);
    assert_eq!(kit.count("select count(*) from krilin.attempts").await, 0);
    assert_eq!(kit.effects().await, 0);
}

#[tokio::test]
async fn what_runs_when_a_worker_stops_may_end() {
    let mut kit = Kit::new().await;
    kit.options.drain = Duration::from_secs(5);
    let worker = kit.worker();
    let (own, batch) = (json!({"do": "sleep", "ms": 200}), json!({"do": "sleep", "ms": 200}));
    let (own, batch) = (kit.enqueue(OWN, own).await, kit.enqueue(BATCH, batch).await);
    kit.began.recv().await.unwrap();
    kit.began.recv().await.unwrap();
    assert!(worker.stop().await);
    assert_eq!((kit.state(own).await.state, kit.state(batch).await.state), (State::Done, State::Done));
}
