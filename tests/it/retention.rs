//! The day's retention job: it comes once a day and keeps the queue's own tables in bounds.

use std::{sync::Arc, time::Duration};

use krilin::{
    clock::SystemClock,
    jobs::{self, retention::Retention},
    model::{
        job::{Idempotency, NewJob, State},
        policy::Policies,
    },
    queue::{
        Filter, Queue,
        registry::{Handler, Registry},
        worker::{self, Lane, WorkerOptions},
    },
};
use serde_json::{Value, json};

use crate::{
    kinds::{PATIENCE, until},
    world::World,
};

const DAY: Duration = Duration::from_hours(24);

async fn partitions(world: &World) -> Vec<String> {
    sqlx::query_scalar(
        "select relname::text from pg_class where relname ~ '^job_history_[0-9]{8}$' and relkind = 'r' order by 1",
    )
    .fetch_all(&world.pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn retention_comes_by_itself_once_a_day_and_bounds_the_history() {
    let world = World::new().await;
    let text = jobs::POLICIES.iter().find(|(kind, _)| *kind == "retention").unwrap().1;
    let policy = krilin::model::policy::Policy::parse("retention", text, &[]).unwrap();
    let policies = Policies::default().with("retention", policy);
    let registry = Registry::new(&policies, [("retention", Arc::new(Retention) as Arc<dyn Handler>)]).unwrap();
    let queue = Queue::new(&world.pool, Arc::new(SystemClock), policies);
    let before = partitions(&world).await;
    assert_eq!(before.len(), 8, "today and seven days");

    let key = Idempotency { key: "old".to_owned(), request_hash: [1; 32], told: None };
    let keyed = NewJob { kind: "retention".to_owned(), args: json!({}), idempotency: Some(key), ..NewJob::default() };
    let old = queue.enqueue(keyed).await.unwrap().job_id;
    queue.cancel(old, None).await.unwrap();
    let late = "insert into krilin.attempts (job_id, attempt, finished_at, outcome)
                values (gen_random_uuid(), 1, krilin.now(), 'lost')";
    sqlx::raw_sql(late).execute(&world.pool).await.unwrap();
    let fire = "insert into krilin.occurrences (schedule_id, nominal_at, due_at, fired_at, outcome, late_ms)
                select gen_random_uuid(), now, now, now, 'skipped', 0 from krilin.now() as now";
    sqlx::raw_sql(fire).execute(&world.pool).await.unwrap();
    // A rate that was lifted, one whose window is over, and one whose window is not: by the shift of the clock below.
    let spent = "insert into krilin.queues (name, rate_units, rate_period, user_rate_units, user_rate_period, updated_at, updated_by)
                 values ('system', 100, '41 days', 100, '1 hour', krilin.now(), 'Ada');
                 insert into krilin.rate_spent (queue, subject, at, units)
                 select 'system', subject, krilin.now(), 1 from unnest(array['', 'user:u', 'key:k']) as subject";
    sqlx::raw_sql(spent).execute(&world.pool).await.unwrap();
    world.advance(DAY * 40).await;

    let options = WorkerOptions::new(vec![Lane::new("system", 2)]);
    let workers = [0; 2].map(|_| worker::start(&queue, &registry, &world.pool, &options));
    let daily = async || queue.list(&Filter::default(), None, 9).await.unwrap();
    let job = until(async || daily().await.into_iter().find(|job| job.cause.as_deref() == Some("daily"))).await;
    let job = queue.wait(job.id, PATIENCE).await.unwrap().unwrap();
    assert_eq!(job.state, State::Done, "{job:?}");
    let result: Value = serde_json::from_str(job.result.unwrap().get()).unwrap();
    assert_eq!(
        result,
        json!({
            "partitions_created": 8, "partitions_dropped": 8, "idempotency_keys_forgotten": 1, "attempts_forgotten": 1,
            "unique_periods_forgotten": 0, "logs_forgotten": 0, "fires_forgotten": 1,
            "spent_forgotten": 2
        })
    );
    let left = sqlx::query_scalar::<_, String>("select subject from krilin.rate_spent");
    let left = left.fetch_all(&world.pool).await.unwrap();
    assert!(!left.is_empty() && left.iter().all(String::is_empty), "what a window still reaches: {left:?}");
    let after = partitions(&world).await;
    assert_eq!(after.len(), 8);
    assert!(before.iter().all(|name| !after.contains(name)));
    assert!(queue.get(old, None).await.unwrap().is_none(), "its day was dropped");
    for worker in workers {
        worker.stop().await;
    }
    let all = queue.list(&Filter::default(), None, 9).await.unwrap();
    assert_eq!(all.len(), 1, "two workers, one job: {all:?}");
}

#[tokio::test]
async fn the_runtime_role_makes_partitions_only_through_the_function() {
    let world = World::new().await;
    assert!(sqlx::raw_sql("drop table krilin.job_history_default").execute(&world.pool).await.is_err());
    assert!(sqlx::raw_sql("select krilin.create_history_partitions(1000)").execute(&world.pool).await.is_err());
    assert!(sqlx::raw_sql("select krilin.drop_history_partitions('1 hour')").execute(&world.pool).await.is_err());
    assert_eq!(partitions(&world).await.len(), 8);
}

#[tokio::test]
async fn analyze_leaves_out_what_no_statement_searches_the_history_by() {
    let world = World::new().await;
    let sampled = |column: &'static str| {
        let statement = sqlx::query_scalar::<_, i64>(
            "select count(*) from pg_attribute a join pg_class c on c.oid = a.attrelid
             where c.relname ~ '^job_history(_|$)' and c.relkind in ('r', 'p') and a.attname = $1
               and coalesce(a.attstattarget, -1) <> 0",
        );
        statement.bind(column).fetch_one(&world.pool)
    };
    for column in ["args", "result", "error", "run_at"] {
        assert_eq!(sampled(column).await.unwrap(), 0, "{column}");
    }
    for column in ["id", "user_id", "state", "finished_at"] {
        assert_eq!(sampled(column).await.unwrap(), 10, "{column}: the parent, the default, today and seven days");
    }
}
