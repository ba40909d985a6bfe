//! `ctx` as a whole: what it names, what it repeats, what it holds on to, and app code that uses it.

use std::{collections::BTreeSet, fs, time::Duration};

use krilin::{
    ctx::{Ctx, Opening, dispatch},
    model::{
        bundle::Bundle,
        error::Code,
        host::{Host, LogLevel, LogLine},
        id::AppId,
        manifest::Manifest,
    },
    sandbox::{Limits, Pool, PoolOptions, Run},
    store::Stack,
};
use serde_json::{Value, json, value::RawValue};

use crate::kit::{self, Kit, app, opening};

fn notes() -> Manifest {
    app(
        "notes",
        "1.0.0",
        &json!([{"name": "notes", "schema": {"title": {"type": "string", "unique": true}, "n": "number"}}]),
    )
}

fn id() -> AppId {
    "notes".parse().unwrap()
}

/// The members of `interface NAME` in a declaration file.
fn members(text: &str, name: &str) -> BTreeSet<String> {
    let start = text.find(&format!("interface {name}")).unwrap();
    let body = &text[start..];
    let end = body.find("\n  }").unwrap();
    body[..end]
        .lines()
        .skip(1)
        .map(|line| line.trim().trim_start_matches("readonly "))
        .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
        .filter_map(|line| line.split(['(', '<', ':', '?']).next())
        .map(str::to_owned)
        .collect()
}

/// The words between the first `open` after `start` and the next `close`, without quotes.
fn words(text: &str, start: &str, open: char, close: char) -> BTreeSet<String> {
    let from = text.find(start).unwrap();
    let list = &text[from + text[from..].find(open).unwrap() + 1..];
    let list = &list[..list.find(close).unwrap()];
    list.split([',', '\n'])
        .map(|word| word.trim().trim_matches('"'))
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_declaration_names_exactly_what_dispatch_and_prelude_know() {
    let declared = fs::read_to_string("apps/krilin.d.ts").unwrap();
    let prelude = fs::read_to_string("src/sandbox/prelude.js").unwrap();
    let of = |api: &str| -> BTreeSet<String> {
        dispatch::methods().iter().filter_map(|name| name.strip_prefix(api).map(ToOwned::to_owned)).collect()
    };
    for (face, api) in [("Storage", "storage"), ("Schedule", "schedule")] {
        assert_eq!(members(&declared, face), of(&format!("{api}.")));
        assert_eq!(words(&prelude, &format!("api(\"{api}\""), '[', ']'), of(&format!("{api}.")));
    }
    assert!(members(&declared, "Job").is_superset(&of("job.")));
    assert_eq!(words(&prelude, "api(\"job\"", '[', ']'), of("job."));

    let prelude_ctx = &prelude[prelude.find("const ctx = freeze({").unwrap()..];
    let prelude_ctx = &prelude_ctx[prelude_ctx.find('{').unwrap() + 1..prelude_ctx.find("});").unwrap()];
    let given: BTreeSet<String> = prelude_ctx
        .lines()
        .flat_map(|line| match line.split_once([':', '(']) {
            Some((name, _)) => vec![name.trim().trim_start_matches("get ").to_owned()],
            None => line.split(',').map(|name| name.trim().to_owned()).collect(),
        })
        .filter(|name| !name.is_empty())
        .collect();
    assert_eq!(members(&declared, "Context"), given);
    let time = fs::read_to_string("src/sandbox/time.js").unwrap();
    let time = &time[time.find("return Object.freeze({").unwrap()..];
    let time = &time[time.find('{').unwrap() + 1..time.find("});").unwrap()];
    let time: BTreeSet<String> =
        time.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned()).collect();
    assert_eq!(members(&declared, "Time"), time);
}

#[tokio::test]
async fn a_replayed_pass_makes_the_same_rows() {
    let (kit, user) = Kit::with(&notes()).await;
    let mut rows = Vec::new();
    for _ in 0..2 {
        let opening = Opening::new(user, id(), kit::now(), 7);
        let pass = kit::Pass(Ctx::open(&Stack::over(&kit.world.pool), &kit.apps, opening).await.unwrap());
        pass.call("insert", json!(["notes", {"title": "a"}])).await;
        pass.call("insert", json!(["notes", {"title": "b"}])).await;
        rows.push(pass.rows("notes", json!({})).await);
    }
    assert_eq!(rows[0], rows[1]);
    assert_eq!((&rows[0][0]["title"], &rows[0][1]["title"]), (&json!("a"), &json!("b")));
}

#[tokio::test]
async fn a_transaction_that_broke_is_not_committed_whatever_the_app_makes_of_it() {
    let (kit, user) = Kit::with(&notes()).await;
    let pass = kit.open(user, &id()).await;
    for title in ["a", "b"] {
        pass.call("insert", json!(["notes", {"title": title, "n": 1e308}])).await;
    }
    let overflow = pass.refused("aggregate", json!(["notes", {"sum": ["n"]}])).await;
    assert_eq!(overflow.0, Code::ValidationFailed);
    assert_eq!(pass.refused("count", json!(["notes"])).await, overflow);
    assert_eq!(pass.0.end().unwrap_err().code, Code::ValidationFailed);
    let pass = kit.open(user, &id()).await;
    assert_eq!(pass.call("count", json!(["notes"])).await, 0);
}

#[tokio::test]
async fn changing_passes_of_one_installation_wait_for_each_other_and_for_nobody_else() {
    let (kit, user) = Kit::with(&notes()).await;
    let other = kit.user("UTC").await;
    kit.install(other, &notes()).await;
    let first = kit.open(user, &id()).await;
    first.call("insert", json!(["notes", {"title": "a"}])).await;
    let stack = Stack::over(&kit.world.pool);
    let mut second = Box::pin(Ctx::open(&stack, &kit.apps, opening(user, &id())));
    // Reading the installation and another user's changes go on meanwhile.
    let meanwhile = async {
        let reading = kit.reading(user, &id()).await;
        assert_eq!(reading.call("count", json!(["notes"])).await, 0);
        kit.open(other, &id()).await.commit().await;
        let waits =
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()";
        while sqlx::query_scalar::<_, i64>(waits).fetch_one(&kit.world.pool).await.unwrap() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = &mut second => panic!("two passes of one installation at once"),
        () = meanwhile => {}
    }
    first.commit().await;
    let second = kit::Pass(tokio::time::timeout(Duration::from_secs(5), second).await.unwrap().unwrap());
    assert_eq!(second.call("count", json!(["notes"])).await, 1);
}

#[tokio::test]
async fn a_log_has_a_hundred_lines_and_no_more() {
    let (kit, user) = Kit::with(&notes()).await;
    let pass = kit.open(user, &id()).await;
    for n in 0..150 {
        pass.0.log(LogLine { level: LogLevel::Info, message: format!("line {n}"), fields: Value::Null });
    }
    assert_eq!(pass.0.end().unwrap().log.len(), 100);
}

#[tokio::test]
async fn a_new_version_is_in_force_within_a_second_without_a_restart() {
    let (kit, _) = Kit::with(&notes()).await;
    assert_eq!(kit.apps.current(&id()).await.unwrap().version, "1.0.0");
    let tables = serde_json::to_value(&notes().database.tables).unwrap();
    kit.publish(&app("notes", "1.1.0", &tables)).await;
    let seen = async {
        while kit.apps.current(&id()).await.unwrap().version != "1.1.0" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), seen).await.unwrap();
}

const HANDLERS: &str = r#"
export async function tour(ctx, input) {
  const first = await ctx.storage.insert("notes", { title: "a", n: 1 });
  let caught;
  try { await ctx.storage.insert("notes", { title: "a" }); } catch (error) { caught = error.code; }
  await Promise.all(["b", "c", "d"].map((title) => ctx.storage.insert("notes", { title })));
  const page = await ctx.storage.query("notes", { order_by: { title: "desc" }, limit: 3 });
  const rest = await ctx.storage.query("notes", { order_by: { title: "desc" }, after: page.next });
  let hole;
  try { await ctx.storage.find_one("notes", { id: input.missing, n: 1 }); } catch (error) { hole = error.message; }
  return { caught, hole, titles: page.map((row) => row.title), rest: rest.map((row) => row.title),
    last: rest.next === undefined, same: first.created_at === ctx.now().toISOString() };
}
"#;

#[tokio::test]
async fn app_code_in_the_sandbox_works_with_its_rows() {
    let (kit, user) = Kit::with(&notes()).await;
    let pool = Pool::start(PoolOptions { size: 1, ..PoolOptions::of(env!("CARGO_BIN_EXE_krilin")) }).unwrap();
    let opening = opening(user, &id());
    let (now, seed) = (opening.now, opening.seed);
    let ctx = Ctx::open(&Stack::over(&kit.world.pool), &kit.apps, opening).await.unwrap();
    let bundle = Bundle::new("app.js", HANDLERS);
    let input = RawValue::from_string("{}".to_owned()).unwrap();
    let facts = ctx.facts(None);
    let run =
        Run { bundle: &bundle, entry: "tour", input: &input, facts: &facts, limits: Limits::default(), seed, now };
    let passed = pool.run(run, &ctx).await.unwrap();
    let value: Value = serde_json::from_str(passed.value.get()).unwrap();
    assert_eq!(value["titles"], json!(["d", "c", "b"]));
    assert_eq!(value["rest"], json!(["a"]));
    assert_eq!(
        (&value["caught"], &value["last"], &value["same"]),
        (&json!("UniqueViolation"), &json!(true), &json!(true))
    );
    assert!(value["hole"].as_str().unwrap().contains("/id"), "{value}");
    ctx.end().unwrap().transaction.commit().await.unwrap();
    assert_eq!(kit.open(user, &id()).await.call("count", json!(["notes"])).await, 4);
}
