//! `krilin doctor` against a database with planted faults: each is named, with what it means and what to do.

use std::sync::atomic::{AtomicU32, Ordering};

use krilin::store::health;
use serde_json::Value;
use sqlx::AssertSqlSafe;

use crate::{
    cli::{give_credentials, run, stdout},
    cluster::Directory,
    world::World,
};

/// What the doctor says, by check.
fn examine(world: &World) -> (Option<i32>, impl Fn(&str) -> Value + use<>) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let directory = Directory::new(&format!("doctor-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    give_credentials(&directory.0, world);
    let said = run(&directory.0, &["doctor", "--json"]);
    let report: Value = serde_json::from_str(&stdout(&said)).unwrap();
    let check = move |name: &str| {
        let checks = report["checks"].as_array().unwrap();
        checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("{name} in {report}")).clone()
    };
    (said.status.code(), check)
}

async fn plant(world: &World, statement: &str) {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&world.owner).await.unwrap();
}

#[tokio::test]
async fn a_database_that_forgets_is_told_and_what_is_well_is_well() {
    let (code, check) = examine(&World::new().await);
    // The tests' own Postgres is not durable.
    assert_eq!((code, check("durability")["state"].as_str()), (Some(1), Some("fail")));
    let finding = check("durability")["finding"].to_string();
    assert!(finding.contains("fsync is off: a power cut") && finding.contains("synchronous_commit"), "{finding}");
    // Whether connections are left is for all tests together to say.
    for name in ["schema", "transactions", "transaction ids", "vacuum", "partitions", "leases"] {
        assert_eq!(check(name)["state"], "ok", "{}", check(name));
    }
}

#[tokio::test]
async fn a_stuck_lease_a_missing_partition_and_a_forbidden_vacuum_are_found() {
    let world = World::new().await;
    plant(
        &world,
        "insert into krilin.jobs (id, kind, queue, args, priority, max_attempts, run_at, created_at, state,
             lease_token, lease_until, worker_id)
         values (gen_random_uuid(), 'k', 'q', '{}', 0, 3, krilin.now(), krilin.now(), 'running',
             gen_random_uuid(), krilin.now() - interval '5 minutes', gen_random_uuid());
         alter table krilin.jobs set (autovacuum_enabled = off);
         do $$ begin execute format('drop table krilin.job_history_%s',
             to_char((krilin.now() at time zone 'UTC')::date + 1, 'YYYYMMDD')); end $$",
    )
    .await;
    let (code, check) = examine(&world);
    assert_eq!(code, Some(1));
    assert_eq!(check("leases")["state"], "warn");
    assert!(check("leases")["remedy"].to_string().contains("krilin work"));
    assert_eq!(check("partitions")["state"], "warn");
    assert!(check("partitions")["finding"].to_string().contains("for 1 days only"), "{}", check("partitions"));
    assert_eq!(check("vacuum")["state"], "fail");
    assert!(check("vacuum")["remedy"].to_string().contains("alter table krilin.jobs reset"));
    plant(&world, "select krilin.create_history_partitions(7); alter table krilin.jobs reset (autovacuum_enabled)")
        .await;
    let (_, check) = examine(&world);
    assert_eq!((&check("partitions")["state"], &check("vacuum")["state"]), (&"ok".into(), &"ok".into()));
}

#[tokio::test]
async fn a_transaction_that_holds_a_snapshot_is_named() {
    let world = World::new().await;
    let mut reader = world.pool.begin().await.unwrap();
    sqlx::raw_sql("set transaction isolation level repeatable read; select count(*) from krilin.jobs")
        .execute(&mut *reader)
        .await
        .unwrap();
    let mut looker = world.pool.acquire().await.unwrap();
    let (open, _) = health::long_transactions(&mut looker, 0.0, 5).await.unwrap();
    assert_eq!(open.len(), 1, "{open:?}");
    assert_eq!((open[0].role.as_str(), open[0].state.as_str()), ("krilin_runtime", "idle in transaction"));
    assert!(open[0].pins && open[0].pid > 0, "{open:?}");
    let (long, _) = health::long_transactions(&mut looker, 3_600.0, 5).await.unwrap();
    assert!(long.is_empty(), "an hour has not passed");
    reader.rollback().await.unwrap();
    let (open, _) = health::long_transactions(&mut looker, 0.0, 5).await.unwrap();
    assert!(open.is_empty(), "{open:?}");
}
