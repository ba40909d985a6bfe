//! The sandbox: what app code gets, and what it cannot do.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

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
struct Scripted {
    calls: Mutex<Vec<Vec<Call>>>,
    log: Mutex<Vec<LogLine>>,
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

fn pool(size: usize) -> Pool {
    Pool::start(PoolOptions { size, ..PoolOptions::of(env!("CARGO_BIN_EXE_krilin")) }).unwrap()
}

fn facts() -> Facts {
    let mut facts = Facts::nobody();
    facts.user.timezone = "Europe/Berlin".into();
    facts.user.name = "Ada".into();
    facts.app_id = "test".into();
    facts.app_version = "1.0.0".into();
    facts.job = Some(JobFacts { id: "j1".into(), attempt: 1, trigger: "user".into(), caller_app: None });
    facts.settings = json!({ "goal": 3 });
    facts
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_795_304_400_123).unwrap()
}

async fn run_with(pool: &Pool, host: &dyn Host, source: &str, limits: Limits) -> Result<Pass, Error> {
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

#[tokio::test]
async fn an_endless_loop_is_stopped_and_the_next_pass_runs() {
    let pool = pool(1);
    let limits = Limits { cpu: Duration::from_millis(100), ..Limits::default() };
    let began = Instant::now();
    let error =
        run_with(&pool, &Scripted::default(), "export function main() { for (;;); }", limits).await.unwrap_err();
    assert_eq!(error.code(), Code::CpuLimit, "{error}");
    assert!(began.elapsed() < Duration::from_secs(5));
    let pass = run_with(&pool, &Scripted::default(), "export const main = () => 1", limits).await.unwrap();
    assert_eq!(pass.value.get(), "1");
}
