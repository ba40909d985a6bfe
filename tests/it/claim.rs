//! Claiming and ending: what is enqueued is run, in its order, once, and lies in the history afterwards.

use std::time::Duration;

use krilin::{
    clock::SystemClock,
    model::{id::WorkerId, job::State},
    queue::worker,
    store::{
        self,
        leases::{self, Claim, Place},
    },
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::{
    kinds::{BATCH, Kit, OWN, job},
    world::{World, admin_of},
};

#[tokio::test]
async fn a_job_of_either_kind_is_run_and_lies_in_the_history() {
    let kit = Kit::new().await;
    let worker = kit.worker();
    let (batch, own) = (kit.enqueue(BATCH, json!({"result": [1]})).await, kit.enqueue(OWN, json!({})).await);
    let (batch, own) = (kit.ended(batch).await, kit.ended(own).await);
    assert_eq!((batch.state, batch.result.unwrap().get()), (State::Done, "[1]"));
    assert_eq!((own.state, own.attempt, own.result.unwrap().get()), (State::Done, 1, "{\"ok\": true}"));
    assert_eq!(kit.effects().await, 1);
    assert_eq!(kit.count("select count(*) from krilin.jobs").await, 0);
    assert_eq!(kit.count("select count(*) from krilin.job_history_default").await, 0);
    assert!(worker.stop().await);
}

#[tokio::test]
async fn a_thousand_jobs_are_drained_in_batches_each_once() {
    let mut kit = Kit::new().await;
    let jobs = (0..1_000).map(|n| job(BATCH, json!({ "n": n }))).collect();
    kit.queue.enqueue_many(jobs).await.unwrap();
    let last = kit.enqueue(BATCH, json!({})).await;
    let worker = kit.worker();
    kit.ended(last).await;
    assert!(worker.stop().await);
    assert_eq!(kit.count("select count(*) from krilin.job_history where state = 'done' and attempt = 1").await, 1_001);
    let mut began = 0;
    while kit.began.try_recv().is_ok() {
        began += 1;
    }
    assert_eq!(began, 1_001);
}

/// Statements that look jobs up by their ids, with the types of their parameters.
const BY_ID: [(&str, &str); 7] = [
    (include_str!("../../src/store/sql/end.sql"), "uuid[], uuid[], text[], text[], text[]"),
    (
        include_str!("../../src/store/sql/claim_in_turn.sql"),
        "text, bigint, uuid, interval, uuid[], uuid[], text[], text[], text[], uuid, integer, bigint",
    ),
    (include_str!("../../src/store/sql/put_back.sql"), "uuid[], uuid[], bigint[], boolean[], text[], text[]"),
    (include_str!("../../src/store/sql/renew.sql"), "uuid[], uuid[], interval"),
    (include_str!("../../src/store/sql/reap.sql"), "uuid[], uuid[], jsonb"),
    (include_str!("../../src/store/sql/report.sql"), "uuid, uuid, text, text, integer, bigint"),
    (include_str!("../../src/store/sql/tie.sql"), "uuid[], uuid[], text[], timestamptz[], interval[]"),
];

#[tokio::test]
async fn a_plan_made_over_an_emptied_queue_looks_each_job_up_by_its_key() {
    let world = World::new().await;
    let mut admin = admin_of(&world).await;
    // The planner's last word is that of a vacuum that found no row; by now there are enough for an index of three levels.
    let emptied = "insert into krilin.jobs (id, kind, queue, args, state, priority, max_attempts, run_at, created_at)
                   select gen_random_uuid(), 'k', 'q', '{}', 'ready', 0, 3, krilin.now(), krilin.now()
                   from generate_series(1, 120000);
                   update pg_class set reltuples = 0, relpages = 1000 where relname in ('jobs', 'jobs_pkey');
                   set plan_cache_mode = force_generic_plan;
                   set enable_seqscan = off;
                   set enable_hashjoin = off;
                   set enable_mergejoin = off";
    sqlx::raw_sql(emptied).execute(&mut admin).await.unwrap();
    for (statement, types) in BY_ID {
        let nulls = vec!["null"; types.split(", ").count()].join(", ");
        let explain = format!(
            "prepare asked ({types}) as {statement};\nexplain (costs off) execute asked ({nulls});\ndeallocate asked"
        );
        let rows = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(&mut admin).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let looks: Vec<_> = plan.windows(2).filter(|lines| lines[0].contains("using jobs_pkey on")).collect();
        assert!(!looks.is_empty(), "{}", plan.join("\n"));
        assert!(looks.iter().all(|lines| lines[1].contains("Index Cond: (id = ")), "{}", plan.join("\n"));
    }
}

#[tokio::test]
async fn a_plan_made_over_an_emptied_queue_takes_a_users_jobs_in_the_order_of_their_index() {
    let world = World::new().await;
    let mut admin = admin_of(&world).await;
    let fill = "insert into krilin.jobs (id, user_id, kind, queue, args, state, priority, max_attempts, run_at, created_at)
                select gen_random_uuid(), '00000000-0000-0000-0000-000000000001', 'k', 'q', '{}', 'ready', 0, 3, krilin.now(),
                    krilin.now()
                from generate_series(1, 50000)";
    for statement in [fill, "analyze krilin.jobs", "delete from krilin.jobs", "vacuum krilin.jobs", fill] {
        sqlx::raw_sql(statement).execute(&mut admin).await.unwrap();
    }
    let queues_own = store::beside(&world.pool, 1, &worker::KERNEL);
    let explain =
        "explain (analyze, buffers, format json) select * from krilin.pick('q', 32, krilin.line(null), 0, null)";
    let explained: Value = sqlx::query_scalar(explain).fetch_one(&queues_own).await.unwrap();
    let pages = |name: &str| explained[0]["Plan"][name].as_u64().unwrap();
    let read = pages("Shared Hit Blocks") + pages("Shared Read Blocks");
    assert!(read < 2_000, "{read} pages read for 32 of 50,000 jobs");
}

#[tokio::test]
async fn under_an_old_snapshot_claims_and_the_reaper_pass_over_what_has_died() {
    let world = World::new().await;
    let mut reader = world.owner.begin().await.unwrap();
    sqlx::raw_sql("set transaction isolation level repeatable read; select 1").execute(&mut *reader).await.unwrap();
    let mut admin = admin_of(&world).await;
    let [fill, run, end] = [
        "insert into krilin.jobs (id, kind, queue, args, state, priority, max_attempts, run_at, created_at)
         select gen_random_uuid(), 'k', 'q', '{}', 'ready', 0, 3, krilin.now(), krilin.now() from generate_series(1, 40000)",
        "update krilin.jobs set state = 'running', lease_token = id, worker_id = id, lease_until = krilin.now()",
        "delete from krilin.jobs",
    ];
    for statement in [fill, run] {
        sqlx::raw_sql(statement).execute(&mut admin).await.unwrap();
    }
    let last: Place = sqlx::query_as("select rank, seq from krilin.jobs order by rank desc, seq desc limit 1")
        .fetch_one(&mut admin)
        .await
        .unwrap();
    for statement in [end, "vacuum krilin.jobs"] {
        sqlx::raw_sql(statement).execute(&mut admin).await.unwrap();
    }
    let queues_own = store::beside(&world.pool, 1, &worker::KERNEL);
    let pages = async |tx: &mut PgConnection| -> i64 {
        let pages = "select pg_stat_get_xact_blocks_fetched('krilin.jobs'::regclass)";
        sqlx::query_scalar(pages).fetch_one(tx).await.unwrap()
    };
    let claim = Claim { queue: "q", limit: 10, worker_id: WorkerId::new(&SystemClock), lease: Duration::from_secs(9) };
    let (now, _) = leases::pulse(&queues_own).await.unwrap();
    let mut read = Vec::new();
    for (after, from) in [(None, None), (Some(last), Some(now))] {
        let mut tx = queues_own.begin().await.unwrap();
        // Counted since they were last told to the collector, not since the transaction began.
        let before = pages(&mut tx).await;
        assert!(leases::claim(&mut *tx, claim, after).await.unwrap().jobs.is_empty());
        let claimed = pages(&mut tx).await;
        assert!(leases::expired(&mut *tx, from, (now, Duration::from_mins(1)), 10).await.unwrap().is_empty());
        read.push((claimed - before, pages(&mut tx).await - claimed));
    }
    let [whole, behind] = read[..] else { unreachable!("two rounds") };
    assert!(whole.0 > 500 && whole.1 > 500, "the dead are there: {whole:?} pages");
    assert!(behind.0 < 20 && behind.1 < 20, "{behind:?} pages read for nothing");
    drop(reader);
}
