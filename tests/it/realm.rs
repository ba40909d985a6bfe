//! Every pass of a child begins with the same image: whatever a pass did, the next cannot tell.

use chrono::{DateTime, Utc};
use krilin::{
    model::bundle::Bundle,
    sandbox::{Facts, Limits, Pass, Pool, Run},
};
use serde_json::{Value, json, value::RawValue};

use crate::sandbox::{Scripted, pool, run_with};

/// What a program can tell of the realm it is in: its names, what belongs to the commonest builtins, and whether they work.
const LOOK: &str = "
export async function main(ctx, input) {
  const names = (object) => Object.getOwnPropertyNames(object).sort();
  const works = [[3, 1, 2].sort(), new Map([[1, 2]]).get(1), 'a-b'.replace(/-/, '+'), JSON.stringify({ a: [1] }),
    await Promise.all([1, Promise.resolve(2)]), new URL('http://a.b/c?d=e').searchParams.get('d'),
    structuredClone(new Date(5)).getTime(), new TextDecoder().decode(new TextEncoder().encode('ä'))];
  const owners = [globalThis, Object.prototype, Array.prototype, String.prototype, Promise.prototype, Math, JSON, Date];
  return [works, owners.map(names), Math.random(), Date.now(), ctx.generate_id(), Object.keys(ctx)];
}";

/// Programs that do to their realm what they can.
const VANDALS: [&str; 9] = [
    "export const main = () => { for (const name of Object.getOwnPropertyNames(globalThis)) delete globalThis[name]; }",
    "export const main = () => { Array.prototype.sort = Map.prototype.get = JSON.stringify = () => 'mine'; }",
    "export const main = () => { Object.freeze(Object.prototype); Object.freeze(Array.prototype); Object.freeze(Promise); }",
    "export const main = () => { Object.prototype.then = (resolve) => resolve('mine'); return 1; }",
    "export const main = () => { const all = []; for (;;) all.push('x'.repeat(1000) + all.length); }",
    "export const main = () => { for (;;); }",
    "export const main = (ctx) => { ctx.storage.query('t'); ctx.log('left'); throw { toString() { throw this; } }; }",
    "export const main = () => { const deep = () => deep() + 1; deep(); }",
    "let n = 0; for (let i = 0; i < 100; i += 1) n += Math.random(); export const main = () => new Array(1e5).fill(n).length;",
];

async fn pass(pool: &Pool, source: &str, seed: u64, now: DateTime<Utc>) -> (Pass, Value) {
    let bundle = Bundle::new("app.js", source);
    let facts = Facts::nobody();
    let limits = Limits::default();
    let run = Run { bundle: &bundle, entry: "main", input: RawValue::NULL, facts: &facts, limits, seed, now };
    let pass = pool.run(run, &Scripted::default()).await.unwrap();
    let value = serde_json::from_str(pass.value.get()).unwrap();
    (pass, value)
}

#[tokio::test]
async fn a_pass_cannot_tell_what_ran_before_it() {
    let pool = pool(1);
    let limits = Limits { cpu: std::time::Duration::from_millis(200), memory_bytes: 8 << 20, ..Limits::default() };
    let look = async || run_with(&pool, &Scripted::default(), LOOK, Limits::default()).await.unwrap();
    let first = look().await;
    for vandal in VANDALS.into_iter().chain(VANDALS) {
        let _ended = run_with(&pool, &Scripted::default(), vandal, limits).await;
        assert_eq!(look().await.value.get(), first.value.get(), "after {vandal}");
    }
    // Only the two that came to a limit had their child replaced: after the others it was the same one that looked.
    assert_eq!(pool.tally().replaced, 4, "{:?}", pool.tally());
}

#[tokio::test]
async fn a_module_that_looks_at_the_clock_or_at_chance_looks_in_every_pass() {
    let pool = pool(1);
    let source = "const at = Date.now(); const luck = Math.random(); let count = 0;
      export const main = () => [at, luck, count += 1];";
    let mut lucks = Vec::new();
    for round in 0..3_i64 {
        let now = DateTime::from_timestamp_millis(1_000 * round).unwrap();
        let (_, value) = pass(&pool, source, u64::try_from(round).unwrap(), now).await;
        assert_eq!((&value[0], &value[2]), (&json!(1_000 * round), &json!(1)));
        assert!(!lucks.contains(&value[1]), "{value}");
        lucks.push(value[1].clone());
    }
}

#[tokio::test]
async fn what_a_module_says_at_its_top_level_is_said_in_every_pass() {
    let pool = pool(1);
    let source = "console.log('here'); await null; const kept = await Promise.resolve([1]);
      export const main = () => kept.push(2);";
    for _ in 0..3 {
        let host = Scripted::default();
        let ended = run_with(&pool, &host, source, Limits::default()).await.unwrap();
        assert_eq!((ended.value.get(), host.log_messages()), ("2", vec!["here".to_owned()]));
    }
}

#[tokio::test]
async fn a_module_that_makes_much_is_as_new_in_every_pass() {
    let pool = pool(1);
    let source = "const table = Array.from({ length: 100_000 }, (_, i) => 'row ' + i);
      export const main = () => [table.length, table.pop(), table.push('mine')];";
    for _ in 0..3 {
        let (_, value) = pass(&pool, source, 1, DateTime::UNIX_EPOCH).await;
        assert_eq!(value, json!([100_000, "row 99999", 100_000]));
    }
}

#[tokio::test]
async fn a_child_that_once_used_much_memory_is_replaced() {
    let pool = pool(1);
    let modest = "export const main = () => 'x'.repeat(1 << 20).length";
    let greedy =
        "export const main = () => { const all = []; for (let i = 0; i < 45; i += 1) all.push(new Uint8Array(1 << 20));
      return all.length; }";
    let (_, value) = pass(&pool, modest, 1, DateTime::UNIX_EPOCH).await;
    assert_eq!((value, pool.tally().replaced), (json!(1 << 20), 0));
    let (_, value) = pass(&pool, greedy, 1, DateTime::UNIX_EPOCH).await;
    assert_eq!((value, pool.tally().replaced), (json!(45), 1));
    let (_, value) = pass(&pool, modest, 1, DateTime::UNIX_EPOCH).await;
    assert_eq!((value, pool.tally().replaced), (json!(1 << 20), 1));
}

#[tokio::test]
async fn what_a_module_leaves_to_be_done_is_done_before_its_handler_begins() {
    let pool = pool(1);
    let source = "let steps = []; Promise.resolve().then(() => steps.push(1)).then(() => steps.push(2));
      const late = await Promise.resolve(3); export const main = () => [...steps, late];";
    for _ in 0..3 {
        let (_, value) = pass(&pool, source, 1, DateTime::UNIX_EPOCH).await;
        assert_eq!(value, json!([1, 2, 3]));
    }
    let unawaited = "const steps = []; Promise.resolve().then(() => steps.push(1)).then(() => steps.push(2));
      export const main = () => steps.slice();";
    for _ in 0..3 {
        let (_, value) = pass(&pool, unawaited, 1, DateTime::UNIX_EPOCH).await;
        assert_eq!(value, json!([1, 2]));
    }
}
