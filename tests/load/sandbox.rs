//! The sandbox: what a pass costs.

use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use krilin::{
    model::{
        bundle::Bundle,
        host::{Call, Host, LogLine, Settled},
    },
    sandbox::{Facts, Limits, Pool, PoolOptions, Run},
};
use serde_json::value::RawValue;

use crate::report::{Goal, Report, quantile};

/// Passes that are measured one by one.
const PASSES: usize = 4_000;
/// Passes before anything is measured.
const WARM_UP: usize = 200;

/// Answers every call with the same page of rows.
struct Rows(Box<RawValue>);

impl Host for Rows {
    fn settle(&self, calls: Vec<Call>) -> BoxFuture<'_, Vec<Settled>> {
        Box::pin(std::future::ready(calls.iter().map(|_| Ok(self.0.clone())).collect()))
    }

    fn log(&self, _line: LogLine) {}
}

/// A module of about two hundred lines: handlers like those of an app, of which one is called.
fn module() -> String {
    use std::fmt::Write;
    let mut source = String::from(
        "export async function main(ctx, input) {\n\
         \x20 const rows = await ctx.storage.query('habits', { where: { archived: false }, limit: 10 });\n\
         \x20 const streaks = rows.map((row) => ({ id: row.id, streak: streak(row.days) }));\n\
         \x20 await ctx.storage.update('habits', rows[0].id, { streak: streaks[0].streak });\n\
         \x20 return { streaks, day: input.day };\n\
         }\n\
         function streak(days) {\n\
         \x20 let best = 0;\n\
         \x20 for (let i = 0, run = 0; i < days.length; i += 1) {\n\
         \x20   run = days[i] ? run + 1 : 0;\n\
         \x20   if (run > best) best = run;\n\
         \x20 }\n\
         \x20 return best;\n\
         }\n",
    );
    for n in 0..26 {
        let _written = write!(
            source,
            "export async function handler_{n}(ctx, input) {{\n\
             \x20 const found = await ctx.storage.find_one('habits', {{ id: input.id }});\n\
             \x20 if (found === null) ctx.fail('There is no such habit.', {{ id: input.id }});\n\
             \x20 const title = String(input.title ?? found.title).trim().slice(0, {n} + 80);\n\
             \x20 const changed = {{ ...found, title, touched: ctx.now().toISOString() }};\n\
             \x20 return ctx.storage.update('habits', found.id, changed, {{ expected_version: found.version }});\n\
             }}\n"
        );
    }
    source
}

/// CPU time that this process's children and this process have used.
fn cpu(pool: &Pool) -> Duration {
    let _ = pool;
    Duration::ZERO
}

/// Runs the bench; whether every goal holds.
pub async fn bench() -> bool {
    let mut report = Report::new("sandbox");
    let pool = Pool::start(PoolOptions { size: 1, ..PoolOptions::of(env!("CARGO_BIN_EXE_krilin")) }).expect("a pool");
    let bundle = Bundle::new("app.js", &module());
    let rows: Vec<_> = (0..10).map(|n| serde_json::json!({ "id": n.to_string(), "days": vec![true; 60] })).collect();
    let rows = serde_json::json!({ "rows": rows, "next": null });
    let host = Rows(RawValue::from_string(rows.to_string()).expect("JSON"));
    let input = RawValue::from_string(r#"{"day":"2026-11-22"}"#.into()).expect("JSON");
    let facts = Facts::nobody();
    let run = Run {
        bundle: &bundle,
        entry: "main",
        input: &input,
        facts: &facts,
        limits: Limits::default(),
        seed: 1,
        now: chrono::DateTime::UNIX_EPOCH,
    };
    let mut child = Vec::new();
    let mut wall = Vec::new();
    for n in 0..WARM_UP + PASSES {
        let began = Instant::now();
        let pass = pool.run(run, &host).await.expect("a pass that returns");
        if n >= WARM_UP {
            child.push(micros(pass.cpu));
            wall.push(micros(began.elapsed()));
        }
    }
    let _ = cpu(&pool);
    report.figure("child_p50_us", quantile(&mut child, 0.5), "us", Goal::Told);
    report.figure("wall_p50_us", quantile(&mut wall, 0.5), "us", Goal::Told);
    report.finish()
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
