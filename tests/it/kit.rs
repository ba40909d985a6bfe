//! An app and its users, ready for `ctx` tests: publishes, installs, opens passes and calls methods.

use chrono::{DateTime, Utc};
use krilin::{
    apps::{
        install::{self, Choices},
        loaded::Apps,
        publish::{self, Options, Report},
    },
    clock::SystemClock,
    ctx::{self, Ctx, Opening},
    model::{
        bundle::Bundle,
        error::{Code, CtxError},
        host::{Call, Host},
        id::{AppId, UserId},
        manifest::{self, Format, Manifest},
        user::NewUser,
    },
    store::{Stack, users},
};
use serde_json::{Value, json};

use crate::world::World;

/// The instant of every pass in these tests: a Sunday evening in UTC, Monday already in Tokyo.
pub const NOW: &str = "2026-11-22T17:13:20.500Z";

/// A world with apps.
pub struct Kit {
    pub world: World,
    pub apps: Apps,
}

impl Kit {
    pub async fn new() -> Self {
        let world = World::new().await;
        let apps = Apps::new(world.pool.clone());
        Self { world, apps }
    }

    /// A user in `zone`.
    pub async fn user(&self, zone: &str) -> UserId {
        let user = NewUser::parse("Ada", None, zone).unwrap();
        users::insert(&self.world.pool, UserId::new(&SystemClock), &user).await.unwrap().id
    }

    pub async fn try_publish(&self, manifest: &Manifest, options: Options) -> Result<Report, krilin::apps::Error> {
        let mut owner = self.world.owner.acquire().await.unwrap();
        publish::publish(&mut owner, manifest, &Bundle::new("app.js", "export function f() {}"), options).await
    }

    pub async fn publish(&self, manifest: &Manifest) -> Report {
        self.try_publish(manifest, Options::default()).await.unwrap()
    }

    pub async fn install(&self, user: UserId, manifest: &Manifest) {
        let mut runtime = self.world.pool.acquire().await.unwrap();
        install::install(&mut runtime, user, &manifest.metadata.id, &Choices::default()).await.unwrap();
    }

    /// Publishes and installs for a new user in UTC.
    pub async fn with(manifest: &Manifest) -> (Self, UserId) {
        let kit = Self::new().await;
        kit.publish(manifest).await;
        let user = kit.user("UTC").await;
        kit.install(user, manifest).await;
        (kit, user)
    }

    /// A changing pass.
    pub async fn open(&self, user: UserId, app: &AppId) -> Pass {
        Pass(Ctx::open(&Stack::over(&self.world.pool), &self.apps, opening(user, app)).await.unwrap())
    }

    /// A reading pass.
    pub async fn reading(&self, user: UserId, app: &AppId) -> Pass {
        Pass(ctx::query::open(&Stack::over(&self.world.pool), &self.apps, opening(user, app)).await.unwrap())
    }
}

/// What a pass is opened for, each time with another seed.
pub fn opening(user: UserId, app: &AppId) -> Opening {
    let seed = uuid::Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, 0, 0)).as_u64_pair().1;
    Opening::new(user, app.clone(), now(), seed)
}

pub fn now() -> DateTime<Utc> {
    NOW.parse().unwrap()
}

/// A manifest with these tables.
pub fn app(id: &str, version: &str, tables: &Value) -> Manifest {
    manifest(&json!({
        "metadata": {"id": id, "name": id, "version": version, "author": "Test"},
        "permissions": {"data_scopes": ["read:own_data", "write:own_data"]},
        "database": {"tables": tables},
    }))
}

pub fn manifest(value: &Value) -> Manifest {
    manifest::load(&value.to_string(), Format::Json).unwrap().manifest
}

/// An open pass with the calls of app code.
pub struct Pass(pub Ctx);

impl Pass {
    pub async fn try_call(&self, method: &str, args: Value) -> Result<Value, CtxError> {
        let Value::Array(args) = args else { panic!("arguments are a list") };
        let call = Call { api: "storage".to_owned(), method: method.to_owned(), args };
        let settled = self.0.settle(vec![call]).await.pop().unwrap();
        settled.map(|raw| serde_json::from_str(raw.get()).unwrap())
    }

    pub async fn call(&self, method: &str, args: Value) -> Value {
        let shown = format!("{method} {args}");
        self.try_call(method, args).await.unwrap_or_else(|error| panic!("{shown}: {error} {:?}", error.details))
    }

    /// The code and message of a call that must fail.
    pub async fn refused(&self, method: &str, args: Value) -> (Code, String) {
        let shown = format!("{method} {args}");
        match self.try_call(method, args).await {
            Ok(value) => panic!("{shown} gave {value}"),
            Err(error) => (error.code, error.message),
        }
    }

    pub async fn rows(&self, table: &str, query: Value) -> Vec<Value> {
        self.call("query", json!([table, query])).await["rows"].as_array().unwrap().clone()
    }

    pub async fn commit(self) {
        self.0.end().unwrap().transaction.commit().await.unwrap();
    }
}
