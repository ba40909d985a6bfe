//! The sandbox from the inside: what app code gets, and how it fails.

use std::{sync::Mutex, time::Duration};

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use krilin::{
    model::{
        bundle::Bundle,
        error::{Code, CtxError},
        host::{Call, Host, LogLine, Settled},
    },
    sandbox::{Error, Facts, JobFacts, Limits, Pass, Pool, PoolOptions, Run},
};
use serde_json::{Value, json, value::RawValue};

/// A host that keeps what it was told and answers by the method's name.
#[derive(Default)]
pub struct Scripted {
    calls: Mutex<Vec<Vec<Call>>>,
    log: Mutex<Vec<LogLine>>,
}

impl Scripted {
    /// What was logged.
    pub fn log_messages(&self) -> Vec<String> {
        self.log.lock().unwrap().iter().map(|line| line.message.clone()).collect()
    }
}

impl Host for Scripted {
    fn settle(&self, calls: Vec<Call>) -> BoxFuture<'_, Vec<Settled>> {
        let answers = calls.iter().map(answer).collect();
        self.calls.lock().unwrap().push(calls);
        Box::pin(std::future::ready(answers))
    }

    fn log(&self, line: LogLine) {
        self.log.lock().unwrap().push(line);
    }
}

fn answer(call: &Call) -> Settled {
    let value = match call.method.as_str() {
        "query" => json!({ "rows": [{ "id": "1" }, { "id": "2" }], "next": "cursor" }),
        "count" => json!(2),
        "delete" => {
            return Err(CtxError::new(Code::Conflict, "somebody was faster").with_details(json!({ "id": "1" })));
        }
        "find_one" => Value::Null,
        "aggregate" => json!("x".repeat(2 << 20)),
        _ => json!({ "args": call.args }),
    };
    Ok(serde_json::value::to_raw_value(&value).unwrap())
}

pub fn pool(size: usize) -> Pool {
    Pool::start(PoolOptions { size, ..PoolOptions::of(env!("CARGO_BIN_EXE_krilin")) }).unwrap()
}

fn facts() -> Facts {
    let mut facts = Facts::nobody();
    facts.user.timezone = "Europe/Berlin".into();
    facts.user.name = "Ada".into();
    facts.app_id = "test".into();
    facts.app_version = "1.0.0".into();
    facts.job =
        Some(JobFacts { id: "j1".into(), attempt: 1, trigger: "user".into(), caller_app: None, schedule: None });
    facts.settings = json!({ "goal": 3 });
    facts
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_795_304_400_123).unwrap()
}

pub async fn run_with(pool: &Pool, host: &dyn Host, source: &str, limits: Limits) -> Result<Pass, Error> {
    let bundle = Bundle::new("app.js", source);
    let input = RawValue::from_string(r#"{"n":1}"#.to_owned()).unwrap();
    let run = Run { bundle: &bundle, entry: "main", input: &input, facts: &facts(), limits, seed: 7, now: now() };
    pool.run(run, host).await
}

async fn value_of(source: &str) -> Value {
    let pass = run_with(&pool(1), &Scripted::default(), source, Limits::default()).await.unwrap();
    serde_json::from_str(pass.value.get()).unwrap()
}

#[tokio::test]
async fn a_handler_gets_its_context_and_its_input() {
    let value = value_of(
        "export async function main(ctx, input) {
           const rows = await ctx.storage.query('habits', { limit: 2 });
           return [ctx.user.name, ctx.app_id, ctx.app_version, ctx.job.attempt, ctx.settings.goal, input.n,
                   rows.length, rows.next, ctx.now().toISOString(), new Date().getTime() === Date.now()];
         }",
    )
    .await;
    assert_eq!(value, json!(["Ada", "test", "1.0.0", 1, 3, 1, 2, "cursor", "2026-11-21T23:40:00.123Z", true]));
}

async fn error_of(source: &str) -> Error {
    run_with(&pool(1), &Scripted::default(), source, Limits::default()).await.unwrap_err()
}

#[tokio::test]
async fn an_error_has_the_line_of_its_author() {
    let error = error_of(
        "const helper = (x) => {\n  return x.missing.field;\n};\nexport async function main() {\n  await null;\n  return helper({});\n}",
    )
    .await;
    assert_eq!(error.code(), Code::AppError);
    assert_eq!(error.at.as_ref().unwrap().to_string(), "app.js:2:10", "{error}");
    assert!(error.error.message.starts_with("TypeError: "), "{error}");
    assert!(error.stack.contains("app.js:6:"), "{}", error.stack);
    assert!(!error.stack.contains("krilin:"), "{}", error.stack);
    let error = error_of("export function main() {\n  const half = ;\n}").await;
    assert_eq!(error.code(), Code::AppError);
    assert_eq!(error.at.unwrap().line, 2);
    assert!(error.error.message.starts_with("SyntaxError: "));
}

#[tokio::test]
async fn an_error_of_the_host_keeps_its_code_and_gets_the_line_of_the_call() {
    let error =
        error_of("export async function main(ctx) {\n  const done = ctx.storage.delete('t', '1');\n  await done;\n}")
            .await;
    assert_eq!(error.code(), Code::Conflict);
    assert_eq!(error.error.message, "somebody was faster");
    assert_eq!(error.error.details, Some(json!({ "id": "1" })));
    assert_eq!(error.at.unwrap().line, 2);
    let value = value_of(
        "export async function main(ctx) {
           try { await ctx.storage.delete('t', '1'); } catch (error) {
             error.code = error.code;
             return [error instanceof KrilinError, error instanceof Error, error.name, error.code, error.message,
                     error.retryable, error.details.id, error.app_id];
           }
         }",
    )
    .await;
    assert_eq!(value, json!([true, true, "KrilinError", "Conflict", "somebody was faster", true, "1", "test"]));
}

#[tokio::test]
async fn a_refusal_is_told_as_written_and_cannot_be_forged() {
    let error = error_of("export const main = (ctx) => ctx.fail('Not today.', { day: 7 })").await;
    assert_eq!((error.code(), error.error.message.as_str()), (Code::Refused, "Not today."));
    assert_eq!(error.error.details, Some(json!({ "day": 7 })));
    let forged = "export function main() { const e = new Error('x'); e.code = 'Refused'; throw e; }";
    assert_eq!(error_of(forged).await.code(), Code::AppError);
    assert_eq!(error_of("export const main = () => { throw new KrilinError('Refused') }").await.code(), Code::AppError);
}

#[tokio::test]
async fn calls_that_are_pending_together_go_out_together() {
    let host = Scripted::default();
    let source = "export async function main(ctx) {
      await Promise.all([ctx.storage.count('a'), ctx.storage.count('b', { x: 1 })]);
      ctx.storage.insert('c', { forgotten: 'await' });
      return 1;
    }";
    let pass = run_with(&pool(1), &host, source, Limits::default()).await.unwrap();
    assert_eq!(pass.calls, 3);
    let calls = host.calls.into_inner().unwrap();
    assert_eq!(calls.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(calls[0][1].args, [json!("b"), json!({ "x": 1 })]);
    assert_eq!((calls[1][0].api.as_str(), calls[1][0].method.as_str()), ("storage", "insert"));
}

#[tokio::test]
async fn an_error_that_nobody_awaits_fails_the_pass() {
    let error = error_of("export async function main(ctx) { ctx.storage.delete('t', '1'); return 'done'; }").await;
    assert_eq!(error.code(), Code::Conflict);
    let late = "export async function main(ctx) {
      const refused = ctx.storage.delete('t', '1');
      await ctx.storage.count('t');
      try { await refused; } catch { return 'handled'; }
    }";
    assert_eq!(value_of(late).await, json!("handled"));
}

#[tokio::test]
async fn the_same_seed_instant_and_answers_give_the_same_result() {
    let source = "export async function main(ctx, input) {
      const ids = [ctx.generate_id(), ctx.generate_id()];
      await ctx.storage.count('x');
      return { ids, chance: [Math.random(), ctx.random()], now: [Date.now(), new Date(), Date(), ctx.today()],
               order: Object.keys({ b: 1, a: 2, 3: 0 }), zone: new Date().getTimezoneOffset(), text: String(new Date(0)) };
    }";
    let (one, two) = (value_of(source).await, value_of(source).await);
    assert_eq!(one, two);
    assert!(one["ids"][0].as_str() < one["ids"][1].as_str(), "{one}");
    assert_eq!(one["zone"], json!(0));
    assert_eq!(one["now"][3], json!("2026-11-22"), "the user lives east of Greenwich");
    let bundle = Bundle::new("app.js", source);
    let input = RawValue::from_string("null".into()).unwrap();
    let run = Run {
        bundle: &bundle,
        entry: "main",
        input: &input,
        facts: &facts(),
        limits: Limits::default(),
        seed: 8,
        now: now(),
    };
    let other = pool(1).run(run, &Scripted::default()).await.unwrap();
    assert_ne!(serde_json::from_str::<Value>(other.value.get()).unwrap()["chance"], one["chance"]);
}

#[tokio::test]
async fn nothing_survives_a_pass() {
    let pool = pool(1);
    let source = "let kept = 0;
      export function main() { kept += 1; globalThis.seen = (globalThis.seen ?? 0) + 1; Array.prototype.mine ??= kept;
        return [kept, globalThis.seen, [].mine]; }";
    for _ in 0..3 {
        let pass = run_with(&pool, &Scripted::default(), source, Limits::default()).await.unwrap();
        assert_eq!(pass.value.get(), "[1,1,1]");
    }
}

#[tokio::test]
async fn the_log_has_levels_fields_and_an_end() {
    let host = Scripted::default();
    let source = "export function main(ctx) {
      ctx.log('one', { n: 1 }); ctx.log.warn('two'); console.error('three', { a: 1 }, 4); ctx.log.debug('half \\ud800');
      for (let i = 0; i < 500; i += 1) console.log(i);
    }";
    run_with(&pool(1), &host, source, Limits::default()).await.unwrap();
    let log = host.log.into_inner().unwrap();
    assert_eq!(log.len(), 100);
    let lines: Vec<_> = log.iter().take(4).map(|line| serde_json::to_value(line).unwrap()).collect();
    assert_eq!(lines[0], json!({ "level": "info", "message": "one", "fields": { "n": 1 } }));
    assert_eq!(lines[1], json!({ "level": "warn", "message": "two" }));
    assert_eq!(lines[2], json!({ "level": "error", "message": "three {\"a\":1} 4" }));
    assert_eq!(lines[3], json!({ "level": "debug", "message": "half \u{fffd}" }));
    assert!(log[99].message.contains("full"), "{:?}", log[99]);
}

#[tokio::test]
async fn the_log_of_a_pass_that_was_stopped_is_kept() {
    let host = Scripted::default();
    let limits = Limits { cpu: Duration::from_millis(50), ..Limits::default() };
    let source = "export function main(ctx) { ctx.log('before'); for (;;); }";
    let error = run_with(&pool(1), &host, source, limits).await.unwrap_err();
    assert_eq!(error.code(), Code::CpuLimit);
    assert!(!error.killed, "the engine stopped by itself");
    assert_eq!(host.log.into_inner().unwrap()[0].message, "before");
}

#[tokio::test]
async fn time_is_reckoned_in_the_zone_of_the_user() {
    let value = value_of(
        "export function main({ time, now, today }) {
           return [time.add_days('2026-02-28', 1), time.days_between('2026-01-01', '2026-12-31'), time.weekday('2026-11-22'),
                   time.week('2026-11-22'), time.start_of_week('2026-11-22'), time.day_of(now()), time.time_of(now()),
                   time.day_of(now(), 'America/New_York'), time.instant('2026-03-29', '02:30'), today(),
                   time.format('2026-11-22', 'EEE d MMM'), time.format(now(), 'HH:mm')];
         }",
    )
    .await;
    let expected = json!([
        "2026-03-01",
        364,
        7,
        "2026-W47",
        "2026-11-16",
        "2026-11-22",
        "00:40",
        "2026-11-21",
        "2026-03-29T01:00:00Z",
        "2026-11-22",
        "Sun 22 Nov",
        "00:40"
    ]);
    assert_eq!(value, expected);
    let error = error_of("export const main = (ctx) =>\n  ctx.time.add_days('22.11.2026', 1)").await;
    assert!(error.error.message.contains("`22.11.2026` is not a day"), "{error}");
    assert_eq!(error.at.unwrap().line, 2);
}

#[tokio::test]
async fn the_names_of_the_web_are_there() {
    let value = value_of(
        "export function main() {
           const url = new URL('../b?q=a b#f', 'https://ada:pw@Example.com:443/x/y/z');
           url.searchParams.append('k', 'ä&');
           const text = 'aé€😀';
           const copy = structuredClone({ d: new Date(5), m: new Map([[1, { x: [1] }]]) });
           return [url.href, new URL('mailto:a@b.c').pathname, URL.canParse('nothing'), [...new TextEncoder().encode(text)].length,
                   new TextDecoder().decode(new TextEncoder().encode(text)) === text, new TextDecoder().decode(new Uint8Array([255, 65])),
                   copy.d.getTime(), copy.m.get(1).x[0], typeof eval, typeof Function, typeof performance];
         }",
    )
    .await;
    let expected = json!([
        "https://ada:pw@example.com/x/b?q=a+b&k=%C3%A4%26#f",
        "a@b.c",
        false,
        10,
        true,
        "\u{fffd}A",
        5,
        1,
        "undefined",
        "undefined",
        "undefined"
    ]);
    assert_eq!(value, expected);
}

#[tokio::test]
async fn the_exports_of_a_bundle_are_its_functions() {
    let source = "export const limit = 3; export function b() {} export async function a() {} function hidden() {}";
    let pool = pool(1);
    assert_eq!(pool.exports(&Bundle::new("app.js", source)).await.unwrap(), ["a", "b"]);
    let error = pool.exports(&Bundle::new("app.js", "export {")).await.unwrap_err();
    assert_eq!(error.at.unwrap().line, 1);
}

#[tokio::test]
async fn answers_and_inputs_that_are_too_long_are_refused() {
    let error = error_of("export const main = (ctx) => ctx.storage.aggregate('x', {})").await;
    assert_eq!(error.code(), Code::QuotaExceeded, "{error}");
    let bundle = Bundle::new("app.js", "export const main = () => 1");
    let input = RawValue::from_string(format!("\"{}\"", "x".repeat(1 << 20))).unwrap();
    let run = Run {
        bundle: &bundle,
        entry: "main",
        input: &input,
        facts: &facts(),
        limits: Limits::default(),
        seed: 1,
        now: now(),
    };
    assert_eq!(pool(1).run(run, &Scripted::default()).await.unwrap_err().code(), Code::QuotaExceeded);
    let zero = error_of(r"export const main = () => 'a\u0000b'").await;
    assert_eq!(zero.code(), Code::ValidationFailed);
}

#[tokio::test]
async fn a_name_is_there_however_an_app_comes_by_it() {
    let plain = json!([true, true, false, "function"]);
    for name in ["Date", "KrilinError", "URL", "TextDecoder", "Uint8Array", "Map", "WeakSet", "RegExp"] {
        let direct = format!(
            "export function main() {{
               const {{ writable, configurable, enumerable }} = Object.getOwnPropertyDescriptor(globalThis, '{name}');
               return [writable, configurable, enumerable, typeof {name}];
             }}"
        );
        assert_eq!(value_of(&direct).await, plain, "{name}");
        let (head, tail) = name.split_at(2);
        let pieced = format!("export const main = () => typeof globalThis['{head}' + '{tail}']");
        assert_eq!(value_of(&pieced).await, json!("function"), "{name}");
        let escaped =
            format!("export const main = () => typeof \\u{{{:x}}}{}", u32::from(name.as_bytes()[0]), &name[1..]);
        assert_eq!(value_of(&escaped).await, json!("function"), "{name}");
        let assigned = format!("export const main = () => {{ globalThis.{name} = 1; return {name}; }}");
        assert_eq!(value_of(&assigned).await, json!(1), "{name}");
    }
}

#[tokio::test]
async fn no_trick_reaches_the_clock_of_the_machine() {
    // The global object without its name: a getter on the prototype of everything is called with it.
    let source = "export async function main(ctx) {
      Object.defineProperty(Object.prototype, 'whole', { get() { return this; } });
      const everything = whole;
      const found = everything['Da' + 'te'];
      const Real = ctx.now().constructor;
      return [found.now(), new found().getTime(), new Real().getTime(), Real.now()];
    }";
    let at = now().timestamp_millis();
    assert_eq!(value_of(source).await, json!([at, at, at, at]));
}

#[tokio::test]
async fn an_app_never_sees_what_ran_before_it() {
    let pool = pool(1);
    let plain =
        "export const main = () => { Object.defineProperty(Object.prototype, 'whole', { get() { return this; } });
      return Object.getOwnPropertyNames(whole).length; }";
    let others = [
        "export const main = () => new Uint8Array(3).length",
        "export const main = () => new Set([1, 2, 3]).size",
        "export const main = () => /b+/.exec('abbbc')[0].length",
        "export const main = () => 'abbbc'.match('bbb')[0].length",
    ];
    let mut first = None;
    for other in others.into_iter().chain(others) {
        for source in [plain, plain, other, plain, other, other, plain] {
            let pass = run_with(&pool, &Scripted::default(), source, Limits::default()).await.unwrap();
            let names = first.get_or_insert_with(|| pass.value.get().to_owned());
            assert_eq!(pass.value.get(), if source == plain { names } else { "3" }, "{source}");
        }
    }
}
