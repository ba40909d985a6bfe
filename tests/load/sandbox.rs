//! The sandbox: what a pass costs.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use krilin::{
    model::{
        bundle::Bundle,
        host::{Call, Host, LogLine, Settled},
    },
    sandbox::{Facts, Limits, Pass, Pool, PoolOptions, Run},
};
use serde_json::value::RawValue;

use crate::{
    hostile,
    report::{Goal, Report, quantile},
};

/// Passes that are measured one by one.
const PASSES: usize = 4_000;
/// Passes before anything is measured.
const WARM_UP: usize = 200;
/// How long all children are kept busy.
const SATURATED: Duration = Duration::from_secs(4);
/// What `hostile_late` counts: how long after its deadline a program may still be there.
const LATE: Duration = Duration::from_millis(100);

/// Answers a query with a page of rows, and an update with one row, as the platform does.
struct Rows {
    page: Box<RawValue>,
    row: Box<RawValue>,
}

impl Host for Rows {
    fn settle(&self, calls: Vec<Call>) -> BoxFuture<'_, Vec<Settled>> {
        let answer = |call: &Call| Ok(if call.method == "query" { self.page.clone() } else { self.row.clone() });
        Box::pin(std::future::ready(calls.iter().map(answer).collect()))
    }

    fn log(&self, _line: LogLine) {}
}

/// The handler that is measured: a page of ten rows as the habit tracker keeps them, a sum over each, a write.
const ROWS: &str = "\
export async function main(ctx, input) {
  const rows = await ctx.storage.query('habits', { where: { active: true }, order: ['position'], limit: 10 });
  const streaks = rows.map((row) => ({ id: row.id, name: row.name, streak: streak(row, input.day) }));
  const settled = { ...rows[0].settled, through: input.day };
  await ctx.storage.update('habits', rows[0].id, { settled }, { expected_version: rows[0].version });
  return { streaks, day: input.day };
}
function streak({ settled, started_on, frequency }, day) {
  if (day < started_on) return 0;
  const next = settled.through < day ? settled.streak + 1 : settled.streak;
  return frequency === 'weekly' ? Math.ceil(next / 7) : next;
}
";

/// The handler that was measured at first: ten rows of sixty days each, and a loop over all of them.
const VALUES: &str = "\
export async function main(ctx, input) {
  const rows = await ctx.storage.query('habits', { where: { archived: false }, limit: 10 });
  const streaks = rows.map((row) => ({ id: row.id, streak: streak(row.days) }));
  await ctx.storage.update('habits', rows[0].id, { streak: streaks[0].streak });
  return { streaks, day: input.day };
}
function streak(days) {
  let best = 0;
  for (let i = 0, run = 0; i < days.length; i += 1) {
    run = days[i] ? run + 1 : 0;
    if (run > best) best = run;
  }
  return best;
}
";

/// A module of about two hundred lines: handlers like those of an app, of which `main` is called.
fn module(main: &str) -> String {
    use std::fmt::Write;
    let mut source = main.to_owned();
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

/// Runs the bench; whether every goal holds. It has a thread and a runtime of its own, so that the clock of that thread is
/// the parent's whole cost.
pub async fn bench() -> bool {
    let measured = tokio::task::spawn_blocking(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(measure())
    });
    measured.await.expect("the bench does not panic")
}

async fn measure() -> bool {
    let mut report = Report::new("sandbox");
    let case = Case::rows();
    one_by_one(&case, &mut report).await;
    saturated(&case, &mut report).await;
    hostile_ones(&mut report).await;
    report.finish()
}

/// What the measured passes run.
struct Case {
    bundle: Bundle,
    host: Rows,
    input: Box<RawValue>,
    facts: Facts,
}

impl Case {
    /// A page of habits.
    fn rows() -> Self {
        let habit = |n: u32| {
            serde_json::json!({
                "id": format!("0193a1b2-{n:04x}-7000-8000-0123456789ab"), "name": format!("Habit number {n}"),
                "frequency": "daily", "weekly_target": 1, "cue": "After breakfast", "color": "coral", "position": n,
                "active": true, "started_on": "2026-09-01", "archived_on": null,
                "settled": { "through": "2026-11-21", "streak": n, "best": n + 30 },
                "created_at": "2026-09-01T07:30:00.000Z", "updated_at": "2026-11-21T07:30:00.000Z", "version": n + 41,
            })
        };
        Self::new(ROWS, &(0..10).map(habit).collect::<Vec<_>>())
    }

    /// Ten rows with six hundred values in them.
    fn values() -> Self {
        let row = |n: u32| serde_json::json!({ "id": n.to_string(), "days": vec![true; 60] });
        Self::new(VALUES, &(0..10).map(row).collect::<Vec<_>>())
    }

    fn new(main: &str, rows: &[serde_json::Value]) -> Self {
        let row = serde_json::json!({ "id": "1", "name": "Read", "streak": 3, "version": 2 });
        let page = serde_json::json!({ "rows": rows, "next": null });
        let raw = |value: serde_json::Value| RawValue::from_string(value.to_string()).expect("JSON");
        Self {
            bundle: Bundle::new("app.js", &module(main)),
            host: Rows { page: raw(page), row: raw(row) },
            input: RawValue::from_string(r#"{"day":"2026-11-22"}"#.into()).expect("JSON"),
            facts: Facts::nobody(),
        }
    }

    async fn pass(&self, pool: &Pool) -> Pass {
        let run = Run {
            bundle: &self.bundle,
            entry: "main",
            input: &self.input,
            facts: &self.facts,
            limits: Limits::default(),
            seed: 1,
            now: chrono::DateTime::UNIX_EPOCH,
        };
        pool.run(run, &self.host).await.expect("a pass that returns")
    }
}

fn pool(size: usize, weigh: bool) -> Pool {
    Pool::start(PoolOptions { size, weigh, ..PoolOptions::of(env!("CARGO_BIN_EXE_krilin")) }).expect("a pool")
}

/// What passes cost, each in microseconds.
#[derive(Default)]
struct Costs {
    /// CPU time of child and parent together.
    both: Vec<f64>,
    /// CPU time of the parent.
    parents: Vec<f64>,
    /// Time by the wall.
    walls: Vec<f64>,
    /// CPU time of the child for making the context.
    contexts: Vec<f64>,
}

/// One child, one pass after the other without a pause: what a pass costs in child and parent together.
///
/// A child drops its context and makes the next after its report, so the time between two reports of the kernel on it holds
/// exactly one of each, be it that it is cut elsewhere than between two passes.
async fn one_after_the_other(case: &Case, pool: &Pool) -> Costs {
    for _ in 0..WARM_UP {
        case.pass(pool).await;
    }
    let child = Meter::of_the_child();
    let mut costs = Costs::default();
    let mut before = child.read();
    for _ in 0..PASSES {
        let (parent, began) = (own_cpu(), Instant::now());
        let pass = case.pass(pool).await;
        let (wall, parent, after) = (began.elapsed(), own_cpu().saturating_sub(parent), child.read());
        costs.both.push(micros(after.saturating_sub(before) + parent));
        costs.parents.push(micros(parent));
        costs.walls.push(micros(wall));
        costs.contexts.push(micros(pass.prepared));
        before = after;
    }
    costs
}

async fn one_by_one(case: &Case, report: &mut Report) {
    let pool = pool(1, false);
    let Costs { mut both, mut parents, mut walls, mut contexts } = one_after_the_other(case, &pool).await;
    // Told beside it, because it was the measured case once: more values than an app's page has.
    let mut many = one_after_the_other(&Case::values(), &pool).await.both;
    report.figure("pass_600_values_cpu_p50_us", quantile(&mut many, 0.5), "us", Goal::Told);
    report.figure("context_p50_us", quantile(&mut contexts, 0.5), "us", Goal::Told);
    report.figure("pass_cpu_p50_us", quantile(&mut both, 0.5), "us", Goal::AtMost(300.0));
    report.figure("pass_cpu_p99_us", quantile(&mut both, 0.99), "us", Goal::AtMost(1_000.0));
    report.figure("pass_parent_cpu_p50_us", quantile(&mut parents, 0.5), "us", Goal::Told);
    report.figure("pass_wall_p50_us", quantile(&mut walls, 0.5), "us", Goal::Told);
    report.figure("pass_wall_p99_us", quantile(&mut walls, 0.99), "us", Goal::Told);
    let memory = case.pass(&self::pool(1, true)).await.memory_bytes.expect("a pool that weighs");
    report.figure("context_kb", f64::from(u32::try_from(memory >> 10).unwrap_or(u32::MAX)), "KB", Goal::AtMost(400.0));
}

/// All children busy: passes for a second of CPU time, wherever it was spent.
async fn saturated(case: &Case, report: &mut Report) {
    let size = std::thread::available_parallelism().map_or(2, usize::from) * 2;
    let pool = pool(size, false);
    for _ in 0..WARM_UP {
        case.pass(&pool).await;
    }
    let (cpu, began) = (children_cpu() + own_cpu(), Instant::now());
    let passes: u32 = futures::future::join_all((0..size).map(|_| async {
        let mut passes = 0;
        while began.elapsed() < SATURATED {
            case.pass(&pool).await;
            passes += 1;
        }
        passes
    }))
    .await
    .into_iter()
    .sum();
    let (cpu, wall) = ((children_cpu() + own_cpu()).saturating_sub(cpu), began.elapsed());
    let passes = f64::from(passes);
    report.figure("passes_per_s_core", passes / cpu.as_secs_f64(), "/s", Goal::AtLeast(3_000.0));
    report.figure("passes_per_s", passes / wall.as_secs_f64(), "/s", Goal::Told);
}

/// Every hostile program, one after the other in a pool of one child, which is killed and replaced on the way.
async fn hostile_ones(report: &mut Report) {
    let (pool, case) = (pool(1, false), Case::rows());
    case.pass(&pool).await;
    let programs = hostile::programs();
    let (mut late, mut wrong, mut latest, mut warm) = (0, 0, Duration::ZERO, Vec::new());
    for program in &programs {
        let began = Instant::now();
        let ended = program.run(&pool).await;
        let over = began.elapsed().saturating_sub(program.limits.cpu);
        latest = latest.max(over);
        if over > LATE {
            late += 1;
            println!("{} was {over:?} late", program.name);
        }
        if let Some(words) = program.verdict(&ended) {
            wrong += 1;
            println!("{words}");
        }
        // A pass right after a fault waits for the new child: that wait is what others would feel.
        let began = Instant::now();
        case.pass(&pool).await;
        if ended.is_err() {
            warm.push(began.elapsed().as_secs_f64() * 1e3);
        }
    }
    let count = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    report.figure("hostile_programs", count(programs.len()), "", Goal::AtLeast(40.0));
    report.figure("hostile_late", f64::from(late), "", Goal::Is(0.0));
    report.figure("hostile_wrong", f64::from(wrong), "", Goal::Is(0.0));
    report.figure("kill_late_max_ms", latest.as_secs_f64() * 1e3, "ms", Goal::AtMost(100.0));
    report.figure("pool_warm_again_p99_ms", quantile(&mut warm, 0.99), "ms", Goal::AtMost(50.0));
}

/// CPU time of this thread.
fn own_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// CPU time of this process's children that are alive, from the kernel's scheduler.
fn children_cpu() -> Duration {
    children().iter().map(Meter::read).sum()
}

/// The children that are alive.
fn children() -> Vec<Meter> {
    let threads = fs::read_dir("/proc/self/task").expect("Linux").flatten();
    let pids = threads.map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    let pids: String = pids.collect::<Vec<_>>().join(" ");
    pids.split_whitespace().filter_map(|pid| File::open(format!("/proc/{pid}/schedstat")).ok()).map(Meter).collect()
}

/// The kernel's account of one child.
struct Meter(File);

impl Meter {
    fn of_the_child() -> Self {
        let mut children = children();
        assert_eq!(children.len(), 1, "a pool of one child");
        children.remove(0)
    }

    /// CPU time until now; none of one that is gone.
    fn read(&self) -> Duration {
        let mut text = [0; 64];
        let length = self.0.read_at(&mut text, 0).unwrap_or(0);
        let nanos = std::str::from_utf8(&text[..length]).ok().and_then(|text| text.split(' ').next()?.parse().ok());
        Duration::from_nanos(nanos.unwrap_or(0))
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
