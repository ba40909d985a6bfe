//! `krilin.enqueue`: jobs from any client of the database, in its own transaction.

use krilin::{model::job::State, queue::kinds};
use sqlx::{Connection, PgConnection, PgPool, Row};

use crate::{
    kinds::{BATCH, Kit},
    world::World,
};

async fn set_up() -> Kit {
    let kit = Kit::new().await;
    kinds::publish(&kit.world.pool, kit.queue.policies(), false).await.unwrap();
    kit
}

/// A job of a tree: depth, state, what it expects of its children, priority, cost.
type Part = (i32, String, Option<String>, i16, Option<i32>);

/// What one call answers, or SQLSTATE, message and hint of its refusal.
async fn call(pool: &PgPool, arguments: &str) -> Result<(uuid::Uuid, String), (String, String, String)> {
    let statement = sqlx::AssertSqlSafe(format!("select * from krilin.enqueue({arguments})"));
    match sqlx::raw_sql(statement).fetch_one(pool).await {
        Ok(row) => Ok((row.get("job_id"), row.get("outcome"))),
        Err(sqlx::Error::Database(error)) => {
            let error = error.downcast_ref::<sqlx::postgres::PgDatabaseError>();
            let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
            Err((error.code().to_owned(), error.message().to_owned(), text(error.hint())))
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn the_example_of_the_readme_runs_as_it_stands() {
    let kit = set_up().await;
    let page = include_str!("../../jobs/README.md");
    let example = page.split("```sql\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert!(example.contains("krilin.enqueue"), "{example}");
    let example = example.replace("retention", BATCH);
    sqlx::raw_sql(
        "create table krilin.invoices (id bigint, paid boolean); insert into krilin.invoices values (7, false)",
    )
    .execute(&kit.world.owner)
    .await
    .unwrap();
    let mut client = PgConnection::connect(&kit.world.url).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(example)).execute(&mut client).await.unwrap();
    assert_eq!(kit.count("select count(*) from krilin.jobs where kind = 'test_batch' and cause = 'sql'").await, 1);
}

#[tokio::test]
async fn a_job_from_sql_has_what_its_kinds_policy_says_and_runs() {
    let kit = set_up().await;
    let worker = kit.worker();
    let (id, outcome) = call(&kit.world.pool, r#"'test_batch', '{"result": {"n": 1}}'"#).await.unwrap();
    assert_eq!((outcome.as_str(), id.get_version_num()), ("created", 7));
    let id = krilin::model::id::JobId(id);
    sqlx::query("select krilin.wake('test_batch')").execute(&kit.world.pool).await.unwrap();
    let job = kit.ended(id).await;
    assert_eq!((job.state, job.queue.as_str(), job.max_attempts, job.priority), (State::Done, "test", 3, 0));
    assert_eq!(job.result.unwrap().get(), "{\"n\": 1}");
    assert_eq!(job.cause.as_deref(), Some("sql"));
    worker.stop().await;
}

#[tokio::test]
async fn a_transaction_that_rolls_back_enqueues_nothing_from_sql() {
    let kit = set_up().await;
    let mut client = PgConnection::connect(&kit.world.url).await.unwrap();
    let text = "begin; select krilin.enqueue('test_batch', unique_key => 'a', idempotency_key => 'i'); rollback";
    sqlx::raw_sql(text).execute(&mut client).await.unwrap();
    assert_eq!(kit.count("select count(*) from krilin.jobs").await, 0);
    assert_eq!(kit.count("select count(*) from krilin.idempotency_keys").await, 0);
}

#[tokio::test]
async fn sql_has_delays_priorities_keys_and_periods() {
    let kit = set_up().await;
    let pool = &kit.world.pool;
    let (id, _) = call(pool, "'test_batch', delay => '5 minutes', priority => 9, max_attempts => 2").await.unwrap();
    let job = kit.state(krilin::model::id::JobId(id)).await;
    assert_eq!((job.priority, job.max_attempts), (9, 2));
    assert_eq!((job.run_at - job.created_at).num_seconds(), 300);

    let (id, _) = call(pool, "'test_batch', delay => '1 minute', deadline => '1 hour'").await.unwrap();
    let job = kit.state(krilin::model::id::JobId(id)).await;
    assert_eq!((job.deadline.unwrap() - job.created_at).num_minutes(), 61);
    kit.queue.cancel(job.id, None).await.unwrap();

    let keyed = "'test_batch', unique_key => 'k', unique_period => '1 day'";
    let (first, _) = call(pool, keyed).await.unwrap();
    assert_eq!(call(pool, keyed).await.unwrap(), (first, "kept".to_owned()));
    let replace = r#"'test_batch', '{"n": 2}', unique_key => 'k', on_conflict => 'replace'"#;
    assert_eq!(call(pool, replace).await.unwrap(), (first, "replaced".to_owned()));
    let debounce =
        "'test_batch', unique_key => 'k', on_conflict => 'debounce', delay => '1 second', max_wait => '1 minute'";
    assert_eq!(call(pool, debounce).await.unwrap(), (first, "debounced".to_owned()));

    let once = r#"'test_batch', '{"n": 3}', idempotency_key => 'i'"#;
    let made = call(pool, once).await.unwrap();
    assert_eq!(call(pool, once).await.unwrap(), made);
    let (code, message, _) = call(pool, r#"'test_batch', '{"n": 4}', idempotency_key => 'i'"#).await.unwrap_err();
    assert_eq!(code, "23505");
    assert!(message.contains("came before with other arguments"), "{message}");
    assert_eq!(kit.count("select count(*) from krilin.jobs").await, 3);
}

#[tokio::test]
async fn sql_has_concurrency_keys_costs_and_children() {
    let kit = set_up().await;
    let pool = &kit.world.pool;
    let keyed = "'test_batch', delay => '1 hour', concurrency_key => 'printer', cost => 7";
    let (id, _) = call(pool, keyed).await.unwrap();
    let of = |id| sqlx::query_as("select concurrency_key, cost from krilin.jobs where id = $1").bind(id);
    let row: (Option<String>, Option<i32>) = of(id).fetch_one(pool).await.unwrap();
    assert_eq!(row, (Some("printer".to_owned()), Some(7)));

    let tree = r#"'test_batch', idempotency_key => 'tree', children_when => 'all_ended', deadline => '1 hour', children => '[
        {"kind": "test_batch", "args": {"n": 1}, "priority": 3},
        {"kind": "test_batch", "children": [{"kind": "test_batch", "cost": 2}]}]'"#;
    let (top, _) = call(pool, tree).await.unwrap();
    assert_eq!(call(pool, tree).await.unwrap().0, top, "what is below a job that is there is not enqueued again");
    let below = "with recursive tree as (
                     select id, 0 as depth, state, children_when, priority, cost from krilin.jobs where id = $1
                     union all
                     select j.id, t.depth + 1, j.state, j.children_when, j.priority, j.cost
                     from tree t join krilin.jobs j on j.parent_id = t.id)
                 select depth, state, children_when, priority, cost from tree order by depth, priority desc";
    let parts: Vec<Part> = sqlx::query_as(below).bind(top).fetch_all(pool).await.unwrap();
    let part = |depth, state: &str, when: Option<&str>, priority, cost| {
        (depth, state.to_owned(), when.map(ToOwned::to_owned), priority, cost)
    };
    let expected = [
        part(0, "parked", Some("all_ended"), 0, None),
        part(1, "ready", None, 3, None),
        part(1, "parked", Some("all_done"), 0, None),
        part(2, "ready", None, 0, Some(2)),
    ];
    assert_eq!(parts, expected);
    let worker = kit.worker();
    assert_eq!(kit.ended(krilin::model::id::JobId(top)).await.state, State::Done);
    worker.stop().await;
    assert_eq!(kit.count("select count(*) from krilin.jobs").await, 1);
}

#[tokio::test]
async fn sql_is_told_what_is_wrong_and_what_to_do() {
    let kit = set_up().await;
    let pool = &kit.world.pool;
    let cases = [
        ("'nothing'", "22023", "there is no kind of job named 'nothing'", "test_batch, test_own"),
        ("null", "22023", "there is no kind of job named", "test_batch"),
        ("'test_batch', 'no json'", "22P02", "invalid input syntax for type json", ""),
        ("'test_batch', null", "22023", "args is null", "jobs/README.md"),
        ("'test_batch', to_jsonb(repeat('x', 300000))", "22023", "262144 are allowed", "jobs/README.md"),
        ("'test_batch', priority => 101", "22023", "from -100 to 100", ""),
        ("'test_batch', max_attempts => 0", "22023", "from 1 to 100", ""),
        ("'test_batch', delay => '-1 s'", "22023", "delay is negative", ""),
        ("'test_batch', delay => '1 s', run_at => now()", "22023", "exclude each other", ""),
        ("'test_batch', unique_key => ''", "22023", "1 to 255 bytes", ""),
        ("'test_batch', on_conflict => 'replace'", "22023", "need a unique_key", ""),
        ("'test_batch', unique_key => 'a', on_conflict => 'merge'", "22023", "keep, replace or debounce", ""),
        ("'test_batch', unique_key => 'a', on_conflict => 'debounce'", "22023", "a delay and a max_wait", ""),
        ("'test_batch', cost => 0", "22023", "cost is from 1", ""),
        ("'test_batch', concurrency_key => ''", "22023", "1 to 255 bytes", ""),
        ("'test_batch', children => '{}'", "22023", "a list of jobs", ""),
        ("'test_batch', children => '[]'", "22023", "1 to 10000 jobs", ""),
        ("'test_batch', children => '[7]'", "22023", "a child is an object", "jobs/README.md"),
        (r#"'test_batch', children => '[{"kind": "test_batch", "unique_key": "a"}]'"#, "22023", "a child is an", ""),
        (r#"'test_batch', children => '[{"kind": "nothing"}]'"#, "22023", "no kind of job named 'nothing'", ""),
        (
            r#"'test_batch', children => '[{"children": [{"children": [{"children": [{"children": [{}]}]}]}]}]'"#,
            "22023",
            "4 deep",
            "",
        ),
        ("'test_batch', children_when => 'soon', children => '[{}]'", "22023", "all_done or all_ended", ""),
        ("'test_batch', user_id => gen_random_uuid()", "23503", "there is no user", "krilin user list"),
        ("'test_batch', app_id => 'no-app'", "23503", "there is no app 'no-app'", "krilin app list"),
    ];
    for (arguments, code, message, hint) in cases {
        let refusal = call(pool, arguments).await.unwrap_err();
        let fits = refusal.0 == code && refusal.1.contains(message) && refusal.2.contains(hint);
        assert!(fits, "{arguments}: {refusal:?}");
    }
    assert_eq!(kit.count("select count(*) from krilin.jobs").await, 0);
}

#[tokio::test]
async fn a_key_in_the_hands_of_an_open_transaction_is_refused_at_once() {
    let kit = set_up().await;
    let mut open = kit.world.pool.begin().await.unwrap();
    let one = "select krilin.enqueue('test_batch', idempotency_key => 'i')";
    sqlx::raw_sql(one).execute(&mut *open).await.unwrap();
    let (code, message, hint) = call(&kit.world.pool, "'test_batch', idempotency_key => 'i'").await.unwrap_err();
    assert_eq!((code.as_str(), hint.as_str()), ("55P03", "Try again when it is."), "{message}");
    open.commit().await.unwrap();
    call(&kit.world.pool, "'test_batch', idempotency_key => 'i'").await.unwrap();
    assert_eq!(kit.count("select count(*) from krilin.jobs").await, 1);
}

#[tokio::test]
async fn another_role_may_enqueue_once_it_is_granted_and_see_nothing_else() {
    let kit = set_up().await;
    let role = format!("shop_{}", std::process::id());
    let mut admin = crate::world::admin_of(&kit.world).await;
    let text = format!("drop role if exists {role}; create role {role} login");
    sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(&mut admin).await.unwrap();
    let mut shop = PgConnection::connect(&kit.world.url.replace("krilin_runtime", &role)).await.unwrap();
    let enqueue =
        async |shop: &mut PgConnection| sqlx::raw_sql("select krilin.enqueue('test_batch')").execute(shop).await;
    assert!(enqueue(&mut shop).await.is_err());
    let page = include_str!("../../jobs/README.md");
    let grants =
        page.split("```sql\n").nth(2).and_then(|rest| rest.split("```").next()).unwrap().replace("shop", &role);
    sqlx::raw_sql(sqlx::AssertSqlSafe(grants)).execute(&kit.world.owner).await.unwrap();
    enqueue(&mut shop).await.unwrap();
    for secret in ["select * from krilin.jobs", "select * from krilin.kinds", "delete from krilin.jobs"] {
        assert!(sqlx::raw_sql(secret).execute(&mut shop).await.is_err(), "{secret}");
    }
    // Whatever stands before in the caller's search path, the function sees its own tables.
    let trap =
        "create temp table kinds (kind text); create temp table jobs (id uuid); set search_path = pg_temp, krilin";
    sqlx::raw_sql(trap).execute(&mut shop).await.unwrap();
    enqueue(&mut shop).await.unwrap();
    assert_eq!(kit.count("select count(*) from krilin.jobs").await, 2);
    shop.close().await.unwrap();
    let text = format!("drop owned by {role}; drop role {role}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(&mut admin).await.unwrap();
}

#[tokio::test]
async fn the_kinds_follow_the_policies_and_only_a_migration_forgets_one() {
    let kit = set_up().await;
    let pool = &kit.world.pool;
    let kinds = async || kit.count("select count(*) from krilin.kinds").await;
    assert_eq!(kinds::publish(pool, kit.queue.policies(), false).await.unwrap(), 0, "nothing has changed");
    let mut own = (**kit.queue.policies().get(BATCH).unwrap()).clone();
    own.priority = 5;
    let newer = krilin::model::policy::Policies::default().with(BATCH, own);
    assert_eq!(kinds::publish(pool, &newer, false).await.unwrap(), 1);
    assert_eq!(
        (kinds().await, kit.count("select priority::bigint from krilin.kinds where kind = 'test_batch'").await),
        (2, 5)
    );
    assert_eq!(kinds::publish(pool, &newer, true).await.unwrap(), 1);
    assert_eq!(kinds().await, 1);
}

#[tokio::test]
async fn a_database_that_no_krilin_has_started_on_says_so() {
    let world = World::new().await;
    let (code, _, hint) = call(&world.pool, "'retention'").await.unwrap_err();
    assert_eq!(code, "22023");
    assert!(hint.contains("has not run on this database yet"), "{hint}");
}
