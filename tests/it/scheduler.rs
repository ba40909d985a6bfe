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
use sqlx::{Connection, PgConnection, PgPool};
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

#[tokio::test]
async fn a_fire_comes_at_its_millisecond_and_without_notices_within_a_second() {
    let world = World::new().await;
    let (pool, schedules) = (&world.pool, schedules(&world.pool));
    let running = Running::start(pool);
    soon(pool, &schedules, 400).await;
    fired(pool, 1).await;
    // Nobody is told of this one.
    sqlx::query(
        "insert into krilin.schedules (id, name, origin, kind, args, once_at, timezone, anchor_at, next_at, due_at, tzdata,
             created_at, updated_at)
         select gen_random_uuid(), 'silent', 'operator', 'retention', '{}', now, 'user', now, now, now, '2020a', now, now
         from krilin.now() as now",
    )
    .execute(pool)
    .await
    .unwrap();
    let late = fired(pool, 2).await;
    assert!(late[1] <= 1_500, "{late:?}");
    running.stop().await;
    let held: bool =
        sqlx::query_scalar("select held_until > krilin.now() from krilin.scheduler").fetch_one(pool).await.unwrap();
    assert!(!held, "who stops gives the first look back");
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
    until(async || {
        let held = sqlx::query_scalar("select held_until > krilin.now() from krilin.scheduler");
        held.fetch_one(pool).await.ok().filter(|held: &bool| *held)
    })
    .await;
    let second = Running::start(pool);
    first.kill().await;
    soon(pool, &schedules, 10).await;
    let late = fired(pool, 1).await;
    assert!(late[0] <= 3_500, "{late:?}");
    second.stop().await;
}
