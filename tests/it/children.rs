//! The sandbox from the outside: children that spin, lie, die or try to get out, and a pool that goes on.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use krilin::{
    model::{
        error::Code,
        host::{Call, Host, LogLine, Settled},
    },
    sandbox::{Limits, Pool, PoolOptions},
};

use crate::{
    hostile,
    sandbox::{Scripted, pool, run_with},
};

/// A host that never answers.
struct Mute;

impl Host for Mute {
    fn settle(&self, _calls: Vec<Call>) -> BoxFuture<'_, Vec<Settled>> {
        Box::pin(std::future::pending())
    }

    fn log(&self, _line: LogLine) {}
}

#[tokio::test]
async fn waiting_for_the_host_takes_wall_time_and_no_cpu_time() {
    let limits = Limits { cpu: Duration::from_millis(20), wall: Duration::from_millis(200), ..Limits::default() };
    let pool = pool(1);
    let began = Instant::now();
    let error =
        run_with(&pool, &Mute, "export const main = (ctx) => ctx.storage.count('x')", limits).await.unwrap_err();
    assert_eq!(error.code(), Code::Timeout);
    assert!(began.elapsed() >= limits.wall, "{:?}", began.elapsed());
    run_with(&pool, &Mute, "export const main = () => 1", limits).await.unwrap();
}

#[tokio::test]
async fn a_caller_that_goes_away_takes_its_child_with_it() {
    let pool = pool(1);
    let source = "export const main = (ctx) => ctx.storage.count('x')";
    let pass = run_with(&pool, &Mute, source, Limits::default());
    assert!(tokio::time::timeout(Duration::from_millis(500), pass).await.is_err());
    run_with(&pool, &Mute, "export const main = () => 1", Limits::default()).await.unwrap();
}

#[tokio::test]
async fn more_callers_than_may_wait_are_refused() {
    let options = PoolOptions { size: 1, waiters: 0, ..PoolOptions::of(env!("CARGO_BIN_EXE_krilin")) };
    let pool = Pool::start(options).unwrap();
    let error = run_with(&pool, &Mute, "export const main = () => 1", Limits::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.error.retry_after_ms.is_some());
}

#[tokio::test]
async fn a_child_is_replaced_after_its_passes() {
    let pool =
        Pool::start(PoolOptions { size: 1, passes: 3, ..PoolOptions::of(env!("CARGO_BIN_EXE_krilin")) }).unwrap();
    for _ in 0..10 {
        run_with(&pool, &Mute, "export const main = () => 1", Limits::default()).await.unwrap();
    }
}

/// A program that says it is ready, waits for an order and then says `reply`.
fn impostor(name: &str, reply: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("impostor-{name}"));
    let script = format!(
        "#!/bin/sh\nprintf '\\004\\000\\000\\000hnull'\n/bin/dd bs=5 count=1 >/dev/null 2>&1\n{reply}\nexec /bin/cat\n"
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test]
async fn a_child_that_lies_fails_its_own_pass_only() {
    for (name, reply) in [
        ("dead", "exit 0"),
        ("garbage", "printf 'this is no frame at all'"),
        ("endless", "printf '\\377\\377\\377\\177d'"),
        ("order", "printf '\\004\\000\\000\\000snull'"),
        ("no-json", "printf '\\004\\000\\000\\000dnul'; printf 'x'"),
        ("no-calls", "printf '\\032\\000\\000\\000o{\"cpu_us\":1,\"calls\":[   ]}'"),
    ] {
        let pool = Pool::start(PoolOptions { size: 1, ..PoolOptions::of(impostor(name, reply)) }).unwrap();
        for _ in 0..2 {
            let error = run_with(&pool, &Mute, "export const main = () => 1", Limits::default()).await.unwrap_err();
            assert!(error.killed && error.code() == Code::Internal, "{name}: {error}");
        }
    }
}

#[test]
fn after_the_lockdown_the_kernel_kills_what_tries_to_get_out() {
    for probe in ["open", "write", "socket", "fork", "thread"] {
        let status = Command::new(env!("CARGO_BIN_EXE_krilin")).args(["sandbox", "--probe", probe]).status().unwrap();
        assert_eq!(status.signal(), Some(SIGSYS), "{probe}: {status}");
    }
    let status = Command::new(env!("CARGO_BIN_EXE_krilin")).args(["sandbox", "--probe", "none"]).status().unwrap();
    assert!(status.success(), "{status}");
}

/// `SIGSYS`: what a seccomp filter kills with.
const SIGSYS: i32 = 31;

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

#[tokio::test]
async fn every_hostile_program_ends_in_time_and_the_next_pass_runs() {
    let pool = pool(2);
    let programs = hostile::programs();
    assert!(programs.len() >= 40, "{} programs", programs.len());
    let mut wrong = Vec::new();
    for program in &programs {
        let began = Instant::now();
        let ended = program.run(&pool).await;
        wrong.extend(program.verdict(&ended));
        // By the child's clock and, generously, by ours: the machine may be busy with other tests. The bench is strict.
        let cpu = ended.as_ref().map_or_else(|error| error.cpu, |pass| pass.cpu);
        if cpu > program.limits.cpu + Duration::from_millis(100) || began.elapsed() > Duration::from_secs(20) {
            wrong.push(format!("{} took {:?}, {cpu:?} of CPU", program.name, began.elapsed()));
        }
        let next = run_with(&pool, &Scripted::default(), "export const main = () => 1", Limits::default()).await;
        wrong.extend(next.err().map(|error| format!("after {}: {error}", program.name)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_bundle_that_does_not_compile_says_so_every_time() {
    let pool = pool(1);
    for _ in 0..3 {
        let error = run_with(&pool, &Mute, "export const main = ;", Limits::default()).await.unwrap_err();
        assert_eq!(error.code(), Code::AppError, "{error}");
    }
}
