//! `krilin queue fsck`: each planted fault is found, exactly it, and nothing where nothing is wrong.

use std::time::Duration;

use krilin::{
    clock::SystemClock,
    jobs::retention::{HISTORY_KEPT, KEYS_KEPT},
    model::{
        clock::Clock,
        id::UserId,
        job::{NewJob, Unique},
    },
    queue::fsck::{self, Finding},
    store::fsck::INVARIANTS,
};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::{
    cli,
    cluster::Directory,
    kinds::{BATCH, Kit, OWN, job},
    world::World,
};

/// The columns of a job that stand in every plant below; `{}` is what the plant adds.
const JOB: &str = "insert into krilin.jobs (id, kind, queue, args, priority, max_attempts, run_at, created_at, state";

/// For each invariant the statements by which the owner breaks it, and nothing else.
const PLANTS: &[(&str, &str)] = &[
    (
        "running_has_lease",
        "alter table krilin.jobs drop constraint jobs_lease_check;
         {JOB}) values (gen_random_uuid(), 'k', 'q', '{}', 0, 3, krilin.now(), krilin.now(), 'running')",
    ),
    (
        "lease_is_taken_back",
        "{JOB}, lease_token, lease_until, worker_id)
         values (gen_random_uuid(), 'k', 'q', '{}', 0, 3, krilin.now(), krilin.now(), 'running',
             gen_random_uuid(), krilin.now() - interval '1 minute', gen_random_uuid())",
    ),
    (
        "scheduled_is_promoted",
        "{JOB}) values (gen_random_uuid(), 'k', 'q', '{}', 0, 3, krilin.now() - interval '1 minute', krilin.now(), 'scheduled')",
    ),
    (
        "attempts_are_bounded",
        "{JOB}, attempt) values (gen_random_uuid(), 'k', 'q', '{}', 0, 3, krilin.now(), krilin.now(), 'ready', 3)",
    ),
    (
        "unique_key_is_unique",
        "drop index krilin.jobs_unique_key;
         {JOB}, unique_key) select gen_random_uuid(), 'k', 'q', '{}', 0, 3, krilin.now(), krilin.now(), 'ready', 'same'
         from generate_series(1, 2)",
    ),
    (
        "stopped_in_time",
        "{JOB}, stop_at, stop_reason) values (gen_random_uuid(), 'k', 'q', '{}', 0, 3, krilin.now(), krilin.now(),
             'ready', krilin.now() - interval '1 hour', 'deadline')",
    ),
    (
        "parked_waits_for_somebody",
        "{JOB}, children_when) values (gen_random_uuid(), 'k', 'q', '{}', 0, 3, krilin.now(), krilin.now(), 'parked', 'all_done')",
    ),
    (
        "limits_hold",
        "insert into krilin.queues (name, max_running, max_running_per_user, updated_at, updated_by)
         select name, most, per_user, krilin.now() - interval '1 hour', 'Ada'
         from (values ('all', 3, null), ('q', 2, 1)) as limits (name, most, per_user);
         {JOB}, lease_token, lease_until, worker_id, started_at, user_id, concurrency_key)
         select gen_random_uuid(), 'k', 'q', '{}', 0, 3, krilin.now(), krilin.now(), 'running', gen_random_uuid(),
             krilin.now() + interval '1 hour', gen_random_uuid(), krilin.now(), uuid_nil, key
         from (values (null), (null), ('same'), ('same')) as keys (key),
             (select '00000000-0000-0000-0000-000000000000'::uuid) as nil (uuid_nil)",
    ),
    (
        "rates_hold",
        "insert into krilin.queues (name, rate_units, rate_period, updated_at, updated_by)
         values ('q', 3, '1 hour', krilin.now() - interval '1 hour', 'Ada');
         insert into krilin.rate_spent (queue, subject, at, units) select 'q', '', krilin.now(), 2 from generate_series(1, 2)",
    ),
    (
        "spent_is_forgotten",
        "insert into krilin.rate_spent (queue, subject, at, units) values ('q', 'key:k', krilin.now() - interval '3 days', 1)",
    ),
    (
        "schedule_is_in_its_ledger",
        "insert into krilin.schedules (id, name, origin, kind, args, every_ms, timezone, anchor_at, tzdata, created_at, updated_at,
             state, last_job_id, last_fired_at)
         values (gen_random_uuid(), 's', 'operator', 'k', '{}', 60000, 'UTC', krilin.now(), '2026a', krilin.now(), krilin.now(),
             'paused', gen_random_uuid(), krilin.now())",
    ),
    (
        "schedule_is_looked_at",
        "insert into krilin.schedules (id, name, origin, kind, args, every_ms, timezone, anchor_at, tzdata, created_at, updated_at, due_at)
         values (gen_random_uuid(), 's', 'operator', 'k', '{}', 60000, 'UTC', krilin.now(), '2026a', krilin.now(), krilin.now(),
             krilin.now() - interval '1 hour')",
    ),
    (
        "occurrence_has_job",
        "insert into krilin.occurrences (schedule_id, nominal_at, due_at, fired_at, outcome, late_ms, job_id)
         values (gen_random_uuid(), krilin.now(), krilin.now(), krilin.now(), 'fired', 0, gen_random_uuid())",
    ),
    (
        "partition_for_coming_days",
        "do $$ begin execute format('drop table krilin.job_history_%s',
             to_char((krilin.now() at time zone 'UTC')::date + 1, 'YYYYMMDD')); end $$",
    ),
    (
        "history_is_dropped",
        "create table krilin.job_history_20200101 partition of krilin.job_history
         for values from ('2020-01-01 00:00:00+00') to ('2020-01-02 00:00:00+00')",
    ),
    (
        "default_partition_is_empty",
        "insert into krilin.job_history (id, kind, queue, args, state, priority, attempt, max_attempts, run_at, created_at, finished_at)
         values (gen_random_uuid(), 'k', 'q', '{}', 'done', 0, 1, 3, krilin.now(), krilin.now(), krilin.now() + interval '1 year')",
    ),
    (
        "idempotency_key_has_job",
        "insert into krilin.idempotency_keys (key, request_hash, job_id, created_at)
         values ('k', '', gen_random_uuid(), krilin.now())",
    ),
    (
        "child_has_parent",
        "{JOB}, parent_id) values (gen_random_uuid(), 'k', 'q', '{}', 0, 3, krilin.now(), krilin.now(), 'ready', gen_random_uuid())",
    ),
    (
        "job_is_live_or_ended",
        "{JOB}) select id, 'k', 'q', '{}', 0, 3, krilin.now(), krilin.now(), 'ready' from krilin.job_history limit 1",
    ),
    ("job_ends_once", "insert into krilin.job_history select * from krilin.job_history limit 1"),
    ("ended_within_attempts", "update krilin.job_history set attempt = max_attempts + 1"),
];

async fn look(world: &World) -> Vec<Finding> {
    let mut db = world.pool.acquire().await.unwrap();
    let bounds = fsck::bounds(KEYS_KEPT, HISTORY_KEPT, Duration::from_secs(10));
    fsck::check(&mut db, &bounds).await.unwrap()
}

fn broken(findings: &[Finding]) -> Vec<&'static str> {
    findings.iter().filter(|finding| !finding.holds()).map(|finding| finding.name).collect()
}

/// A queue in which jobs of every sort live and have ended.
async fn lively() -> Kit {
    let kit = Kit::new().await;
    let worker = kit.worker();
    let done = [kit.enqueue(BATCH, json!({})).await, kit.enqueue(OWN, json!({"do": "fatal"})).await];
    for id in done {
        kit.ended(id).await;
    }
    worker.stop().await;
    let later = SystemClock.now() + Duration::from_hours(1);
    let live = [
        job(BATCH, json!({})),
        NewJob { run_at: Some(later), ..job(OWN, json!({})) },
        NewJob { unique: Some(Unique::new("one")), ..job(OWN, json!({})) },
    ];
    for job in live {
        kit.queue.enqueue(job).await.unwrap();
    }
    kit
}

#[tokio::test]
async fn fsck_finds_nothing_in_a_sound_queue_and_changes_nothing() {
    let kit = lively().await;
    let findings = look(&kit.world).await;
    assert_eq!(findings.len(), INVARIANTS.len());
    assert!(broken(&findings).is_empty(), "{findings:?}");
    assert_eq!(kit.count("select count(*) from krilin.jobs").await, 3);
    // The connection went back without a transaction and without a timeout of ours.
    let timeout: String = sqlx::query_scalar("show statement_timeout").fetch_one(&kit.world.pool).await.unwrap();
    assert_eq!(timeout, "10s");
}

#[tokio::test]
async fn fsck_finds_each_planted_fault_and_no_other() {
    let planted: Vec<_> = PLANTS.iter().map(|(name, _)| *name).collect();
    let known: Vec<_> = INVARIANTS.iter().map(|invariant| invariant.name).collect();
    assert_eq!(planted, known, "every invariant has its plant");
    for (name, plant) in PLANTS {
        let world = lively().await.world;
        let plant = plant.replace("{JOB}", JOB);
        sqlx::raw_sql(AssertSqlSafe(plant)).execute(&world.owner).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        let findings = look(&world).await;
        assert_eq!(broken(&findings), [*name], "{findings:?}");
        let found = findings.iter().find(|finding| finding.name == *name).unwrap();
        assert!(found.count >= Some(1) && !found.examples.is_empty() && found.remedy.is_some(), "{found:?}");
    }
}

#[tokio::test]
async fn fsck_says_whose_limit_does_not_hold_and_none_that_was_lowered_since() {
    let world = lively().await.world;
    let plant = PLANTS.iter().find(|(name, _)| *name == "limits_hold").unwrap().1.replace("{JOB}", JOB);
    sqlx::raw_sql(AssertSqlSafe(plant)).execute(&world.owner).await.unwrap();
    let mut told = look(&world).await.into_iter().find(|finding| finding.name == "limits_hold").unwrap().examples;
    told.sort();
    let user = "user 00000000-0000-0000-0000-000000000000";
    let expected = [
        "2 jobs of the key same in queue q run, and 1 may".to_owned(),
        "4 jobs of all queues run, and 3 may".to_owned(),
        "4 jobs of queue q run, and 2 may".to_owned(),
        format!("4 jobs of {user} in queue q run, and 1 may"),
    ];
    assert_eq!(told, expected);
    let lowered = "update krilin.queues set updated_at = krilin.now()";
    sqlx::raw_sql(lowered).execute(&world.owner).await.unwrap();
    assert!(broken(&look(&world).await).is_empty());
}

#[tokio::test]
async fn what_takes_too_long_is_told_as_not_looked_at() {
    let kit = lively().await;
    // A lock that another holds: the statement waits for it until its timeout.
    let mut other = kit.world.owner.begin().await.unwrap();
    sqlx::raw_sql("lock table krilin.idempotency_keys in access exclusive mode").execute(&mut *other).await.unwrap();
    let mut db = kit.world.pool.acquire().await.unwrap();
    let bounds = fsck::bounds(KEYS_KEPT, HISTORY_KEPT, Duration::from_millis(300));
    let findings = fsck::check(&mut db, &bounds).await.unwrap();
    assert_eq!(broken(&findings), ["idempotency_key_has_job"]);
    let found = findings.iter().find(|finding| !finding.holds()).unwrap();
    assert_eq!((found.count, found.unknown.is_some()), (None, true), "{found:?}");
}

#[tokio::test]
async fn fsck_ends_with_one_when_something_is_broken_and_says_what_to_do() {
    let world = World::new().await;
    let directory = Directory::new("fsck");
    cli::give_credentials(&directory.0, &world);
    let sound = cli::run(&directory.0, &["queue", "fsck"]);
    assert!(sound.status.success(), "{}", cli::stderr(&sound));
    assert!(cli::stdout(&sound).contains("invariants hold."), "{}", cli::stdout(&sound));

    let stray = "insert into krilin.idempotency_keys (user_id, key, request_hash, job_id, created_at)
                 select $1, 'k' || n, '', gen_random_uuid(), krilin.now() from generate_series(1, 7) n";
    let somebody = UserId::new(&SystemClock);
    sqlx::query(stray).bind(somebody).execute(&world.owner).await.unwrap();
    let broken = cli::run(&directory.0, &["queue", "fsck", "--json"]);
    assert_eq!(broken.status.code(), Some(1));
    let report: Value = serde_json::from_str(&cli::stdout(&broken)).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["count"] == 7).unwrap();
    assert_eq!(found["name"], "idempotency_key_has_job");
    assert_eq!(found["examples"].as_array().unwrap().len(), 5, "a few are named, all are counted");
    assert_eq!(findings.iter().filter(|finding| finding["count"] != 0).count(), 1);
    let told = cli::run(&directory.0, &["queue", "fsck"]);
    assert!(cli::stdout(&told).contains("FAIL  idempotency_key_has_job: 7"), "{}", cli::stdout(&told));
}
