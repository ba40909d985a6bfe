//! Publishing: tables follow the manifest, rows are kept, and what would lose data is refused unless it is named.

use krilin::{
    apps::{Error, publish::Options},
    ctx::Ctx,
    model::{error::Code, id::AppId, manifest::Manifest},
    store::{self, Stack},
};
use serde_json::{Value, json};

use crate::kit::{self, Kit, app, manifest};

const ADDITIVE: Options = Options { dry_run: false, allow_older: false };
const DRY: Options = Options { dry_run: true, allow_older: false };

fn notes(version: &str, schema: &Value) -> Manifest {
    app("notes", version, &json!([{"name": "notes", "schema": schema}]))
}

/// The same with what may be lost.
fn dropping(version: &str, schema: &Value, drops: &Value) -> Manifest {
    manifest(&json!({
        "metadata": {"id": "notes", "name": "notes", "version": version, "author": "Test"},
        "permissions": {"data_scopes": ["read:own_data", "write:own_data"]},
        "database": {
            "tables": [{"name": "notes", "schema": schema}],
            "migrations": [{"to": version, "drops": drops}]
        },
    }))
}

fn id() -> AppId {
    "notes".parse().unwrap()
}

async fn reasons(kit: &Kit, manifest: &Manifest) -> Vec<String> {
    match kit.try_publish(manifest, ADDITIVE).await {
        Err(Error::Refused { reasons, .. }) => reasons,
        other => panic!("{other:?}"),
    }
}

async fn tables(kit: &Kit) -> Vec<String> {
    // What `\dt app_*` asks.
    sqlx::query_scalar(
        "select relname::text from pg_class
         where relkind in ('r', 'p') and relname ~ '^(app_.*)$' and pg_table_is_visible(oid) order by relname",
    )
    .fetch_all(&kit.world.pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn the_trackers_models_and_an_apps_tables_are_listed_by_dt() {
    let kit = Kit::new().await;
    kit.publish(&notes("1.0.0", &json!({"title": "string"}))).await;
    assert_eq!(
        tables(&kit).await,
        [
            "app_dependencies",
            "app_installations",
            "app_notes_notes",
            "app_outputs",
            "app_permissions",
            "app_tables",
            "app_versions"
        ]
    );
}

#[tokio::test]
async fn a_publication_fills_the_trackers_lists() {
    let kit = Kit::new().await;
    let text = std::fs::read_to_string("apps/habit-tracker/manifest.json").unwrap();
    let whole = manifest(&serde_json::from_str(&text).unwrap());
    let report = kit.publish(&whole).await;
    assert!(report.before.is_none() && !report.unchanged && !report.steps.is_empty());
    let count = |table: &'static str| {
        let pool = kit.world.pool.clone();
        async move {
            let sql = format!("select count(*) from {table} where app_id = 'habit-tracker'");
            sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(sql)).fetch_one(&pool).await.unwrap()
        }
    };
    assert_eq!(count("app_versions").await, 1);
    assert_eq!(count("app_tables").await, i64::try_from(whole.database.tables.len()).unwrap());
    assert_eq!(count("app_outputs").await, i64::try_from(whole.outputs.len()).unwrap());
    assert!(count("app_permissions").await >= 2);
    assert!(kit.publish(&whole).await.unchanged);
    assert_eq!(count("app_versions").await, 1);
}

#[tokio::test]
async fn an_additive_version_keeps_every_row_and_is_picked_up_at_once() {
    let first = app(
        "notes",
        "1.0.0",
        &json!([{"name": "notes", "schema": {
            "title": {"type": "string", "max_length": 5}, "kind": {"type": "string", "enum": ["a"], "default": "a"}, "n": "integer"
        }}]),
    );
    let (kit, user) = Kit::with(&first).await;
    let pass = kit.open(user, &id()).await;
    let old = pass.call("insert", json!(["notes", {"title": "short", "n": 3}])).await;
    pass.commit().await;

    let second = app(
        "notes",
        "1.1.0",
        &json!([
            {"name": "notes", "indexes": [{"columns": ["-n"]}], "schema": {
                "heading": {"type": "string", "max_length": 50, "renamed_from": "title", "search": true},
                "kind": {"type": "string", "enum": ["a", "b"], "default": "b"},
                "n": "decimal",
                "stars": {"type": "integer", "nullable": false, "default": 2},
                "note": "text",
                "seen_at": {"type": "datetime", "nullable": false, "default": {"$now": true}}
            }},
            {"name": "marks", "schema": {"note_id": {"type": "string", "references": "notes.id"}}}
        ]),
    );
    let report = kit.publish(&second).await;
    assert_eq!(report.before.as_deref(), Some("1.0.0"));
    assert!(report.rows_touched >= 1, "{report:?}");

    let pass = kit.open(user, &id()).await;
    assert_eq!(pass.0.app().version, "1.1.0");
    let row = pass.call("find_one", json!(["notes", {"id": old["id"]}])).await;
    assert_eq!(
        (&row["heading"], &row["kind"], &row["n"], &row["stars"]),
        (&json!("short"), &json!("a"), &json!("3"), &json!(2))
    );
    assert_eq!(pass.rows("notes", json!({"search": "short"})).await.len(), 1);
    let new = pass.call("insert", json!(["notes", {"heading": "longer than five", "kind": "b", "n": "0.5"}])).await;
    pass.call("insert", json!(["marks", {"note_id": new["id"]}])).await;
    pass.commit().await;
    let third = app("notes", "1.2.0", &serde_json::to_value(&second.database.tables).unwrap());
    assert!(kit.publish(&third).await.steps.is_empty());
}

#[tokio::test]
async fn what_loses_data_is_refused_unless_it_is_named() {
    let schema = json!({"title": "string", "n": "string", "gone": "string"});
    let (kit, user) = Kit::with(&notes("1.0.0", &schema)).await;
    let pass = kit.open(user, &id()).await;
    pass.call("insert", json!(["notes", {"title": "T", "n": "5", "gone": "x"}])).await;
    pass.commit().await;

    let reduced = json!({"title": "string", "n": "integer"});
    let refusals = reasons(&kit, &notes("2.0.0", &reduced)).await;
    assert_eq!(refusals.len(), 2);
    assert!(
        refusals.iter().any(|r| r.contains("`notes.gone`") && r.contains(r#""drops": ["notes.gone"]"#)),
        "{refusals:?}"
    );
    assert!(refusals.iter().any(|r| r.contains("`notes.n`") && r.contains("text to bigint")), "{refusals:?}");
    let none = manifest(&json!({"metadata": {"id": "notes", "name": "n", "version": "2.0.0", "author": "T"}}));
    assert!(reasons(&kit, &none).await[0].contains(r#""drops": ["notes"]"#));
    let pass = kit.open(user, &id()).await;
    assert_eq!(pass.0.app().version, "1.0.0");
    assert_eq!(pass.rows("notes", json!({})).await[0]["gone"], "x");
    drop(pass);

    let report = kit.publish(&dropping("2.0.0", &reduced, &json!(["notes.gone", "notes.n"]))).await;
    assert_eq!(report.rows_touched, 2);
    let pass = kit.open(user, &id()).await;
    let row = pass.rows("notes", json!({})).await.remove(0);
    assert_eq!((&row["title"], &row["n"], row.get("gone")), (&json!("T"), &Value::Null, None));
}

#[tokio::test]
async fn a_connection_that_knows_the_old_type_of_a_column_reads_and_writes_the_new_one() {
    let (kit, user) = Kit::with(&notes("1.0.0", &json!({"n": "integer", "m": "integer"}))).await;
    // One connection for both versions: what it has prepared for the first must not serve the second.
    let stack = Stack::over(&store::beside(&kit.world.pool, 1, &[]));
    let versions = [("1.0.0", "integer", json!(3)), ("1.1.0", "number", json!(4.5))];
    for (before, (version, ty, n)) in versions.into_iter().enumerate() {
        kit.publish(&notes(version, &json!({"n": ty, "m": "integer"}))).await;
        let pass = kit::Pass(Ctx::open(&stack, &kit.apps, kit::opening(user, &id())).await.unwrap());
        assert_eq!(pass.0.app().version, version);
        let row = pass.call("insert", json!(["notes", {"n": n, "m": 1}])).await;
        assert_eq!(row["n"], n);
        assert_eq!(pass.call("update", json!(["notes", row["id"], {"n": n}])).await["n"], n);
        for condition in [json!({"n": n}), json!({"n": {"in": [n]}}), json!({"n": {"gte": n}, "id": row["id"]})] {
            assert_eq!(pass.call("find_one", json!(["notes", condition])).await["id"], row["id"], "{condition}");
        }
        assert_eq!(pass.call("count", json!(["notes", {"n": n}])).await, 1);
        let page = pass.call("query", json!(["notes", {"order_by": {"n": "desc"}, "limit": 1}])).await;
        assert_eq!(page["rows"][0]["id"], row["id"]);
        let rest = json!({"order_by": {"n": "desc"}, "after": page["next"]});
        assert_eq!(pass.rows("notes", rest).await.len(), if page["next"].is_null() { before + 1 } else { before });
        pass.commit().await;
    }
}

#[tokio::test]
async fn rows_that_do_not_fit_stop_a_version_and_leave_the_old_one() {
    let (kit, user) = Kit::with(&notes("1.0.0", &json!({"title": "string", "n": "integer"}))).await;
    let pass = kit.open(user, &id()).await;
    for row in [json!({"title": "same", "n": 9}), json!({"title": "same"})] {
        pass.call("insert", json!(["notes", row])).await;
    }
    pass.commit().await;
    let n = json!("integer");
    for (schema, words) in [
        (json!({"title": "string", "n": {"type": "integer", "nullable": false}}), "`notes.n` is no longer nullable"),
        (json!({"title": "string", "n": {"type": "integer", "max": 5}}), "`notes.n` holds values"),
        (json!({"title": {"type": "string", "unique": true}, "n": n}), "`title` of `notes` is to be unique"),
        (json!({"title": "string", "n": n, "new": {"type": "string", "nullable": false}}), "give it a `default`"),
    ] {
        let refusals = reasons(&kit, &notes("1.1.0", &schema)).await;
        assert!(refusals[0].contains(words), "{refusals:?}");
    }
    let pass = kit.open(user, &id()).await;
    assert_eq!(pass.0.app().version, "1.0.0");
    assert_eq!(pass.rows("notes", json!({})).await.len(), 2);
}

#[tokio::test]
async fn a_dry_run_says_everything_and_changes_nothing() {
    let (kit, user) = Kit::with(&notes("1.0.0", &json!({"title": "string"}))).await;
    let pass = kit.open(user, &id()).await;
    pass.call("insert", json!(["notes", {"title": "T"}])).await;
    pass.commit().await;
    let next = dropping("1.1.0", &json!({"extra": {"type": "integer", "default": 1}}), &json!(["notes.title"]));
    let report = kit.try_publish(&next, DRY).await.unwrap();
    assert!(report.dry_run);
    assert_eq!(report.rows_touched, 2);
    assert!(report.steps.iter().any(|step| step.step.contains("drop column notes.title") && step.rows == Some(1)));
    let pass = kit.open(user, &id()).await;
    assert_eq!(pass.0.app().version, "1.0.0");
    assert_eq!(pass.rows("notes", json!({})).await[0]["title"], "T");
    drop(pass);
    let fresh = app("fresh", "1.0.0", &json!([{"name": "t", "schema": {"a": "string"}}]));
    kit.try_publish(&fresh, DRY).await.unwrap();
    assert!(!tables(&kit).await.iter().any(|table| table.contains("fresh")));
}

#[tokio::test]
async fn a_version_is_published_once_and_not_backwards() {
    let kit = Kit::new().await;
    kit.publish(&notes("1.1.0", &json!({"title": "string"}))).await;
    let other = notes("1.1.0", &json!({"title": "text", "more": "string"}));
    assert!(matches!(kit.try_publish(&other, ADDITIVE).await, Err(Error::VersionTaken { .. })));
    let older = notes("1.0.0", &json!({"title": "string"}));
    assert!(matches!(kit.try_publish(&older, ADDITIVE).await, Err(Error::VersionOlder { .. })));
    let meant = Options { allow_older: true, ..ADDITIVE };
    assert_eq!(kit.try_publish(&older, meant).await.unwrap().version, "1.0.0");
}

#[tokio::test]
async fn a_table_in_use_makes_a_version_wait_and_then_say_so() {
    let (kit, user) = Kit::with(&notes("1.0.0", &json!({"title": "string"}))).await;
    let pass = kit.open(user, &id()).await;
    pass.call("insert", json!(["notes", {"title": "T"}])).await;
    let next = notes("1.1.0", &json!({"title": "string", "more": "string"}));
    let started = std::time::Instant::now();
    assert!(matches!(kit.try_publish(&next, ADDITIVE).await, Err(Error::Busy(_))));
    assert!(started.elapsed() < std::time::Duration::from_secs(8));
    pass.commit().await;
    assert_eq!(kit.publish(&next).await.version, "1.1.0");
}

#[tokio::test]
async fn soft_delete_may_come_and_goes_only_when_named() {
    let soft = |version: &str, on: bool, drops: Value| {
        manifest(&json!({
            "metadata": {"id": "notes", "name": "n", "version": version, "author": "T"},
            "permissions": {"data_scopes": ["read:own_data", "write:own_data"]},
            "database": {
                "tables": [{"name": "notes", "soft_delete": on, "schema": {"title": {"type": "string", "unique": true}}}],
                "migrations": [{"to": version, "drops": drops}]
            }
        }))
    };
    let (kit, user) = Kit::with(&soft("1.0.0", false, json!([]))).await;
    kit.publish(&soft("1.1.0", true, json!([]))).await;
    let pass = kit.open(user, &id()).await;
    let row = pass.call("insert", json!(["notes", {"title": "T"}])).await;
    pass.call("delete", json!(["notes", row["id"]])).await;
    pass.commit().await;
    assert!(reasons(&kit, &soft("1.2.0", false, json!([]))).await[0].contains("`notes` no longer has soft_delete"));
    kit.publish(&soft("1.2.0", false, json!(["notes.deleted_at"]))).await;
    let pass = kit.open(user, &id()).await;
    assert_eq!(pass.call("count", json!(["notes"])).await, 0);
    pass.call("insert", json!(["notes", {"title": "T"}])).await;
    assert_eq!(pass.refused("insert", json!(["notes", {"title": "T"}])).await.0, Code::UniqueViolation);
}
