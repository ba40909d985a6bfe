//! The scheduler as a role whose surroundings fail: Postgres goes and comes back, connections are cut, notices are lost,
//! another scheduler dies.

use std::time::Duration;

use krilin::{
    cluster::{Cluster, DATABASE},
    model::schedule::{Clockwork, Origin, Wanted},
    schedule::Schedules,
    store::{self, schema},
    supervisor::Part,
};
use sqlx::{Connection, PgConnection, PgExecutor, PgPool};
use tokio::{sync::oneshot, task::JoinHandle};

use crate::{
    kinds::until,
    schedule::{scheduler, schedules},
    world::World,
};

/// A scheduler that runs until told.
struct Running {
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

impl Running {
    fn start(pool: &PgPool) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let role = scheduler(pool);
        let ended = tokio::spawn(async move { role.run(async { drop(stopped.await) }, Part::unwatched()).await });
        Self { stop, ended }
    }

    async fn stop(self) {
        let _ = self.stop.send(());
        tokio::time::timeout(Duration::from_secs(20), self.ended).await.unwrap().unwrap();
    }

    /// As kill -9 does: no word, nothing given back.
    async fn kill(self) {
        self.ended.abort();
        let _ = self.ended.await;
    }
}

/// A schedule that fires once, `millis` from now.
async fn soon(pool: &PgPool, schedules: &Schedules, millis: i64) {
    let at = sqlx::query_scalar("select krilin.now() + $1 * interval '1 millisecond'").bind(millis);
    let at = at.fetch_one(pool).await.unwrap();
    schedules.create(Wanted::new(Origin::Operator, "retention", Clockwork::Once(at))).await.unwrap();
}

/// How late each fire was, when there are `count`.
async fn fired(pool: &PgPool, count: usize) -> Vec<i64> {
    until(async || {
        let late =
            sqlx::query_scalar("select late_ms from krilin.occurrences where outcome = 'fired' order by fired_at");
        let late: Vec<i64> = late.fetch_all(pool).await.ok()?;
        (late.len() == count).then_some(late)
    })
    .await
}

/// A schedule that is due at once, made past all of our code.
async fn made_by_sql(db: impl PgExecutor<'_>) {
    let statement = sqlx::query(
        "insert into krilin.schedules (id, name, origin, kind, args, once_at, timezone, anchor_at, next_at, due_at, tzdata,
             created_at, updated_at)
         select gen_random_uuid(), 'by sql', 'operator', 'retention', '{}', now, 'user', now, now, now, '2020a', now, now
         from krilin.now() as now",
    );
    statement.execute(db).await.unwrap();
}

/// From now on nobody is told of schedules.
async fn hush(world: &World) {
    let statement = "alter table krilin.schedules disable trigger schedules_tell";
    sqlx::query(statement).execute(&world.owner).await.unwrap();
}

#[tokio::test]
async fn a_fire_comes_at_its_millisecond_and_untold_within_ten_seconds() {
    let world = World::new().await;
    let (pool, schedules) = (&world.pool, schedules(&world.pool));
    let running = Running::start(pool);
    soon(pool, &schedules, 400).await;
    fired(pool, 1).await;
    hush(&world).await;
    made_by_sql(pool).await;
    let late = fired(pool, 2).await;
    assert!(late[1] <= 10_500, "{late:?}");
    running.stop().await;
    let held: bool =
        sqlx::query_scalar("select held_until > krilin.now() from krilin.scheduler").fetch_one(pool).await.unwrap();
    assert!(!held, "who stops gives the first fire back");
}

#[tokio::test]
async fn a_scheduler_hears_of_what_is_made_when_its_transaction_commits() {
    let world = World::new().await;
    let pool = &world.pool;
    let running = Running::start(pool);
    // Its longest sleep is far longer than this may take.
    soon(pool, &schedules(pool), 10).await;
    fired(pool, 1).await;
    let mut transaction = pool.begin().await.unwrap();
    made_by_sql(&mut *transaction).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    transaction.commit().await.unwrap();
    let late = fired(pool, 2).await;
    assert!(late[1] >= 500 && late[1] <= 3_000, "{late:?}");
    running.stop().await;
}

/// Failure 1: notices that do not come.
#[tokio::test]
async fn a_scheduler_that_does_not_listen_fires_within_a_second() {
    let world = World::new().await;
    let pool = &world.pool;
    hush(&world).await;
    let running = Running::start(pool);
    let listening = "from pg_stat_activity where datname = current_database() and query like 'select s.tzdata%'";
    let cut = format!("select count(pg_terminate_backend(pid)) {listening}");
    let cut = || sqlx::query_scalar(sqlx::AssertSqlSafe(cut.as_str())).fetch_one(pool);
    until(async || cut().await.ok().filter(|cut: &i64| *cut > 0)).await;
    // It looks at once when it ceases to listen, and listens again after three seconds.
    tokio::time::sleep(Duration::from_millis(300)).await;
    made_by_sql(pool).await;
    let late = fired(pool, 1).await;
    assert!(late[0] <= 1_500, "{late:?}");
    running.stop().await;
}

/// Failure 2: a listener or a pool that never recovers.
#[tokio::test]
async fn a_scheduler_outlives_its_postgres() {
    let mut cluster = Cluster::throwaway().await.unwrap();
    let mut admin = PgConnection::connect(cluster.superuser_url().expose()).await.unwrap();
    schema::set_up(&mut admin, DATABASE).await.unwrap();
    let mut owner = PgConnection::connect(cluster.url("krilin_owner", DATABASE).expose()).await.unwrap();
    schema::migrate(&mut owner).await.unwrap();
    let pool = store::pool(&cluster.url("krilin_runtime", DATABASE), "krilin-test", 4).unwrap();
    let schedules = schedules(&pool);
    let running = Running::start(&pool);
    soon(&pool, &schedules, 50).await;
    fired(&pool, 1).await;
    soon(&pool, &schedules, 900).await;
    cluster.crash().await.unwrap();
    cluster.resume().await.unwrap();
    fired(&pool, 2).await;
    sqlx::raw_sql("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'krilin_runtime' and pid <> pg_backend_pid()")
        .execute(&pool)
        .await
        .unwrap();
    // Of the pool's connections any may have been cut; who asks here has one of its own.
    let fresh = store::pool(&cluster.url("krilin_runtime", DATABASE), "krilin-test", 1).unwrap();
    soon(&fresh, &crate::schedule::schedules(&fresh), 50).await;
    assert_eq!(fired(&pool, 3).await.len(), 3);
    running.stop().await;
    tokio::time::timeout(Duration::from_secs(20), cluster.stop()).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_a_dead_scheduler_owed_another_fires_soon() {
    let world = World::new().await;
    let (pool, schedules) = (&world.pool, schedules(&world.pool));
    let first = Running::start(pool);
    soon(pool, &schedules, 10).await;
    fired(pool, 1).await;
    let second = Running::start(pool);
    first.kill().await;
    soon(pool, &schedules, 10).await;
    let late = fired(pool, 2).await;
    assert!(late[1] <= 3_500, "{late:?}");
    second.stop().await;
}
