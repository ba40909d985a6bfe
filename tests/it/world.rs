//! A world for one test: a database of its own in a real Postgres, and the roles that production has.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use chrono::{DateTime, Utc};
use krilin::{
    model::secret::Secret,
    store::{self, schema},
};
use sqlx::{Connection, PgConnection, PgPool};
use tokio::sync::OnceCell;

use crate::postgres;

static TEMPLATE: OnceCell<String> = OnceCell::const_new();
static NEXT: AtomicU32 = AtomicU32::new(0);

/// One test's database.
pub struct World {
    /// As `krilin_runtime`: what `serve` and `work` have.
    pub pool: PgPool,
    /// As `krilin_owner`: what `db migrate` and `app publish` have.
    pub owner: PgPool,
    /// The connection string of `pool`.
    pub url: String,
    /// The connection string of `owner`.
    pub owner_url: String,
}

impl World {
    /// A fresh database with the newest schema.
    pub async fn new() -> Self {
        let template = TEMPLATE.get_or_init(make_template).await;
        let name = format!("krilin_test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let mut admin = admin().await;
        schema::create_database(&mut admin, &name, Some(template)).await.unwrap();
        let (url, owner_url) = (url_of("krilin_runtime", &name).await, url_of("krilin_owner", &name).await);
        Self {
            pool: store::pool(&Secret::new(&url), "krilin-test", 8).unwrap(),
            owner: store::pool(&Secret::new(&owner_url), "krilin-test-owner", 4).unwrap(),
            url,
            owner_url,
        }
    }

    /// Stops the database's clock at `instant`.
    pub async fn freeze(&self, instant: DateTime<Utc>) {
        let statement = format!(
            "create or replace function krilin.now() returns timestamptz language sql stable \
             as 'select timestamptz ''{}'' '",
            instant.to_rfc3339()
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&self.owner).await.unwrap();
    }

    /// Lets `time` pass for the database: `krilin.now()` runs that far ahead from here on.
    pub async fn advance(&self, time: Duration) {
        let statement = format!(
            "create or replace function krilin.now() returns timestamptz language sql stable \
             as 'select clock_timestamp() + interval ''{} ms'''",
            time.as_millis()
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&self.owner).await.unwrap();
    }
}

async fn url_of(user: &str, database: &str) -> String {
    postgres::pattern().await.replace("{user}", user).replace("{database}", database)
}

/// The superuser's connection to this world's database.
pub async fn admin_of(world: &World) -> PgConnection {
    PgConnection::connect(&world.url.replace("krilin_runtime", "postgres")).await.unwrap()
}

async fn admin() -> PgConnection {
    PgConnection::connect(&url_of("postgres", "postgres").await).await.unwrap()
}

async fn make_template() -> String {
    let mut admin = admin().await;
    schema::create_roles(&mut admin).await.unwrap();
    drop_leftovers(&mut admin).await;
    let name = format!("krilin_template_{}", std::process::id());
    schema::create_database(&mut admin, &name, None).await.unwrap();
    let mut owner = PgConnection::connect(&url_of("krilin_owner", &name).await).await.unwrap();
    schema::migrate(&mut owner).await.unwrap();
    owner.close().await.unwrap();
    name
}

/// Drops the databases of test processes that have ended.
async fn drop_leftovers(admin: &mut PgConnection) {
    let names: Vec<String> = sqlx::query_scalar(
        "select datname::text from pg_database where datname like 'krilin\\_test\\_%' or datname like 'krilin\\_template\\_%'",
    )
    .fetch_all(&mut *admin)
    .await
    .unwrap();
    for name in names {
        let pid = name.split('_').nth(2).unwrap_or_default();
        if !std::path::Path::new("/proc").join(pid).exists() {
            let statement = format!("drop database if exists {name} with (force)");
            let _ = sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut *admin).await;
        }
    }
}

#[tokio::test]
async fn the_runtime_role_is_neither_owner_nor_superuser() {
    let world = World::new().await;
    let (user, superuser, bypass): (String, bool, bool) =
        sqlx::query_as("select rolname::text, rolsuper, rolbypassrls from pg_roles where rolname = current_user")
            .fetch_one(&world.pool)
            .await
            .unwrap();
    assert_eq!((user.as_str(), superuser, bypass), ("krilin_runtime", false, false));
}
