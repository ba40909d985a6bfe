//! Schedules of apps: what a manifest declares, what an app's code asks for, and what its actions are told.

use std::{sync::Arc, time::Duration};

use krilin::{
    apps::{
        install::{self, Choices},
        publish,
    },
    clock::SystemClock,
    jobs::{self, app_action::AppAction},
    model::{
        bundle::Bundle,
        error::{Code, CtxError},
        host::{Call, Host},
        id::{AppId, UserId},
        job::NewJob,
        manifest::Manifest,
    },
    queue::{
        Queue,
        registry::Registry,
        worker::{self, Lane, WorkerOptions},
    },
    sandbox::{Pool, PoolOptions},
    schedule::{Filter, Row},
};
use serde_json::{Value, json};

use crate::{
    kinds::PATIENCE,
    kit::{Kit, Pass, manifest},
    schedule::{scheduler, schedules},
};

const CODE: &str = r#"
export async function remind(ctx, input) {
  return { job: ctx.job, input, now: ctx.now() };
}
export async function plan(ctx) {
  return [
    await ctx.schedule.create("0 9 * * MON", "remind", { id: "weekly", input: { loud: true }, timezone: "UTC" }),
    await ctx.schedule.once({ in: "1h" }, "remind"),
    await ctx.schedule.list(),
  ];
}
"#;

fn app(version: &str, schedules: &Value) -> Manifest {
    manifest(&json!({
        "metadata": {"id": "nagger", "name": "Nagger", "version": version, "author": "T"},
        "permissions": {"data_scopes": ["read:own_data", "write:own_data"], "schedule": true},
        "actions": [
            {"id": "remind", "input_schema": {"type": "object", "properties": {"loud": {"type": "boolean"}}, "additionalProperties": false}},
            {"id": "plan"},
            {"id": "look", "kind": "query"},
        ],
        "schedules": schedules,
        "ui_components": {"settings": [
            {"key": "on", "type": "boolean", "label": "On", "default": true},
            {"key": "at", "type": "time", "label": "At"},
        ]},
    }))
}

fn id() -> AppId {
    "nagger".parse().unwrap()
}

async fn publish(kit: &Kit, manifest: &Manifest) {
    let mut owner = kit.world.owner.acquire().await.unwrap();
    publish::publish(&mut owner, manifest, &Bundle::new("app.js", CODE), publish::Options::default()).await.unwrap();
}

async fn installed(version: &str, schedules: &Value) -> (Kit, UserId) {
    let kit = Kit::new().await;
    let manifest = app(version, schedules);
    publish(&kit, &manifest).await;
    let user = kit.user("Europe/Berlin").await;
    kit.install(user, &manifest).await;
    (kit, user)
}

async fn install(kit: &Kit, user: UserId, settings: &Value) {
    let mut db = kit.world.pool.acquire().await.unwrap();
    let choices = Choices { grants: None, settings: settings.as_object().unwrap().clone() };
    install::install(&mut db, user, &id(), &choices).await.unwrap();
}

/// The schedules of the installation by name.
async fn rows(kit: &Kit, user: UserId) -> Vec<Row> {
    let filter = Filter { user_id: Some(user), ..Filter::default() };
    let mut rows = schedules(&kit.world.pool).list(&filter, None, 200).await.unwrap();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows
}

fn stands(rows: &[Row]) -> Vec<(&str, &str, Option<&str>)> {
    rows.iter().map(|row| (row.name.as_str(), row.state.as_str(), row.cron.as_deref())).collect()
}

#[tokio::test]
async fn what_a_manifest_schedules_comes_and_goes_with_the_installation() {
    let declared = json!([
        {"id": "a_weekly", "action": "remind", "cron": "0 18 * * SUN", "jitter": "10m"},
        {"id": "b_often", "action": "remind", "every": "15m", "enabled_by": "on", "catch_up": "none"},
        {"id": "c_nudge", "action": "remind", "at_setting": "at", "input": {"loud": true}},
    ]);
    let (kit, user) = installed("1.0.0", &declared).await;
    let first = rows(&kit, user).await;
    assert_eq!(
        stands(&first),
        [
            ("a_weekly", "active", Some("0 18 * * SUN")),
            ("b_often", "active", None),
            ("c_nudge", "off", Some("0 0 * * *")),
        ]
    );
    assert_eq!(first[2].args, json!({"action": "remind", "input": {"loud": true}}));
    assert_eq!(first[2].reason.as_deref(), Some("the setting `at` has no time"));
    assert_eq!((first[1].catch_up.as_str(), first[0].origin.as_str()), ("none", "manifest"));

    install(&kit, user, &json!({"on": false, "at": "20:30"})).await;
    // Settings that are there stay, so a fresh installation has them.
    let other = kit.user("Asia/Tokyo").await;
    install(&kit, other, &json!({"on": false, "at": "20:30"})).await;
    let chosen = rows(&kit, other).await;
    assert_eq!(stands(&chosen)[1..], [("b_often", "off", None), ("c_nudge", "active", Some("30 20 * * *"))]);
    assert_eq!(chosen[2].next_at.unwrap().format("%H:%M").to_string(), "11:30");

    publish(&kit, &app("1.1.0", &json!([declared[0], {"id": "d_new", "action": "remind", "cron": "*/5 * * * *"}])))
        .await;
    let second = rows(&kit, user).await;
    assert_eq!(
        stands(&second),
        [("a_weekly", "active", Some("0 18 * * SUN")), ("d_new", "active", Some("*/5 * * * *"))]
    );
    assert_eq!((second[0].id, second[0].next_at), (first[0].id, first[0].next_at), "what stays keeps its next fire");
    assert_eq!(rows(&kit, other).await.len(), 2);

    let mut db = kit.world.pool.acquire().await.unwrap();
    install::uninstall(&mut db, user, &id()).await.unwrap();
    assert!(rows(&kit, user).await.is_empty());
}

async fn call(pass: &Pass, method: &str, args: Value) -> Result<Value, CtxError> {
    let Value::Array(args) = args else { panic!("arguments are a list") };
    let call = Call { api: "schedule".to_owned(), method: method.to_owned(), args };
    let settled = pass.0.settle(vec![call]).await.pop().unwrap();
    settled.map(|raw| serde_json::from_str(raw.get()).unwrap())
}

#[tokio::test]
async fn an_app_schedules_its_own_actions_and_nothing_else() {
    let declared = json!([{"id": "fixed", "action": "remind", "cron": "0 18 * * SUN"}]);
    let (kit, user) = installed("1.0.0", &declared).await;
    let pass = kit.open(user, &id()).await;
    let made = call(&pass, "create", json!(["0 9 * * *", "remind", {"id": "daily"}])).await.unwrap();
    assert_eq!(made["id"], "daily");
    let again =
        call(&pass, "create", json!(["0 10 * * *", "remind", {"id": "daily", "overlap": "queue"}])).await.unwrap();
    assert_ne!(made["next_run_at"], again["next_run_at"]);
    let once =
        call(&pass, "once", json!(["2030-01-01T00:00:00Z", "remind", {"input": {"loud": false}}])).await.unwrap();
    let list = call(&pass, "list", json!([])).await.unwrap();
    let ids: Vec<&Value> = list.as_array().unwrap().iter().map(|one| &one["id"]).collect();
    assert_eq!(ids, [&once["id"], &json!("daily"), &json!("fixed")]);

    let refused = async |method: &str, args: Value| {
        let error = call(&pass, method, args).await.unwrap_err();
        (error.code, error.message)
    };
    for (method, args, words) in [
        ("create", json!(["0 25 * * *", "remind"]), "0 25 * * *"),
        ("create", json!(["0 9 * * *", "nothing"]), "`nothing` is no action"),
        ("create", json!(["0 9 * * *", "look"]), "only reads"),
        ("create", json!(["0 9 * * *", "remind", {"input": {"lout": 1}}]), "the input of `remind`"),
        ("create", json!(["0 9 * * *", "remind", {"timezone": "Berlin"}]), "Berlin"),
        ("create", json!(["0 9 * * *", "remind", {"overlap": "never"}]), "never"),
        ("create", json!(["0 9 * * *", "remind", {"at": 1}]), "`at` is no option"),
        ("once", json!(["tomorrow", "remind"]), "is not an instant"),
        ("once", json!([{"in": "5 minutes"}, "remind"]), "5 minutes"),
    ] {
        let (code, message) = refused(method, args).await;
        assert!(message.contains(words), "{message}");
        assert!(matches!(code, Code::ValidationFailed | Code::NotFound), "{code}");
    }
    assert_eq!(refused("create", json!(["0 9 * * *", "remind", {"id": "fixed"}])).await.0, Code::PermissionDenied);
    assert_eq!(refused("cancel", json!(["fixed"])).await.0, Code::PermissionDenied);
    for number in 2..20 {
        call(&pass, "create", json!(["0 9 * * *", "remind", {"id": format!("n{number}")}])).await.unwrap();
    }
    assert_eq!(refused("create", json!(["0 9 * * *", "remind"])).await.0, Code::QuotaExceeded);
    assert_eq!(call(&pass, "cancel", json!(["daily"])).await.unwrap(), true);
    assert_eq!(call(&pass, "cancel", json!(["daily"])).await.unwrap(), false);
    pass.commit().await;
    assert_eq!(rows(&kit, user).await.len(), 20);

    let reading = kit.reading(user, &id()).await;
    assert_eq!(call(&reading, "list", json!([])).await.unwrap().as_array().unwrap().len(), 20);
    let error = call(&reading, "cancel", json!(["n2"])).await.unwrap_err();
    assert_eq!(error.code, Code::PermissionDenied);
}

#[tokio::test]
async fn without_the_grant_an_app_schedules_nothing_and_what_is_rolled_back_is_not_there() {
    let (kit, user) = installed("1.0.0", &json!([])).await;
    let pass = kit.open(user, &id()).await;
    call(&pass, "create", json!(["0 9 * * *", "remind"])).await.unwrap();
    drop(pass);
    assert!(rows(&kit, user).await.is_empty());
    let choices = Choices { grants: Some(vec!["read:own_data".to_owned()]), ..Choices::default() };
    let mut db = kit.world.pool.acquire().await.unwrap();
    install::install(&mut db, user, &id(), &choices).await.unwrap();
    let pass = kit.open(user, &id()).await;
    let error = call(&pass, "create", json!(["0 9 * * *", "remind"])).await.unwrap_err();
    assert_eq!(error.code, Code::PermissionDenied);
    assert!(error.message.contains("`schedule`"), "{error}");
}

#[tokio::test]
async fn an_action_that_a_schedule_runs_is_told_of_the_fire() {
    let (kit, user) =
        installed("1.0.0", &json!([{"id": "hourly", "action": "remind", "every": "1h", "input": {"loud": true}}]))
            .await;
    let row = rows(&kit, user).await.remove(0);
    kit.world.advance(Duration::from_mins(150)).await;
    scheduler(&kit.world.pool).tick().await.unwrap();
    let queue = Queue::new(&kit.world.pool, Arc::new(SystemClock), jobs::policies(None).unwrap());
    let sandbox = Pool::start(PoolOptions::of(env!("CARGO_BIN_EXE_krilin"))).unwrap();
    let actions = AppAction { apps: kit.apps.clone(), sandbox };
    let registry = Registry::new(queue.policies(), jobs::handlers(actions)).unwrap();
    let worker = worker::start(&queue, &registry, &kit.world.pool, &WorkerOptions::new(vec![Lane::new("default", 2)]));
    let row = schedules(&kit.world.pool).get(row.id, None).await.unwrap();
    let job = queue.wait(row.last_job_id.unwrap(), PATIENCE).await.unwrap().unwrap();
    let told: Value = serde_json::from_str(job.result.as_ref().unwrap_or_else(|| panic!("{job:?}")).get()).unwrap();
    assert_eq!((&told["job"]["trigger"], &told["input"]), (&json!("schedule"), &json!({"loud": true})));
    let fire = &told["job"]["schedule"];
    assert_eq!((&fire["id"], &fire["missed"]), (&json!("hourly"), &json!(1)));
    assert!(fire["nominal_at"].as_str().unwrap() < fire["fired_at"].as_str().unwrap(), "{fire}");
    assert_eq!(job.cause.as_deref(), Some("schedule hourly"));

    let plan = NewJob {
        kind: "app_action".to_owned(),
        user_id: Some(user),
        app_id: Some(id()),
        args: json!({"action": "plan", "input": {}}),
        ..NewJob::default()
    };
    let plan = queue.enqueue(plan).await.unwrap();
    let planned = queue.wait(plan.job_id, PATIENCE).await.unwrap().unwrap();
    let told: Value =
        serde_json::from_str(planned.result.as_ref().unwrap_or_else(|| panic!("{planned:?}")).get()).unwrap();
    assert_eq!((&told[0]["id"], told[2].as_array().unwrap().len()), (&json!("weekly"), 3));
    assert_eq!(rows(&kit, user).await.len(), 3);
    worker.stop().await;
}

#[tokio::test]
async fn a_paused_app_is_not_run_and_the_ledger_says_why() {
    let (kit, user) = installed("1.0.0", &json!([{"id": "hourly", "action": "remind", "every": "1h"}])).await;
    krilin::store::installations::set_state(&kit.world.pool, user, &id(), "paused").await.unwrap();
    kit.world.advance(Duration::from_mins(61)).await;
    scheduler(&kit.world.pool).tick().await.unwrap();
    let row = rows(&kit, user).await.remove(0);
    let ledger = schedules(&kit.world.pool).ledger(row.id, None, 10).await.unwrap();
    assert_eq!((ledger[0].outcome.as_str(), ledger[0].job_id), ("skipped", None));
    assert_eq!(ledger[0].reason.as_deref(), Some("the app is paused for this user"));
}
