//! `krilin app try`: one file in the sandbox, and how it ended. It has no database and no user: a call of `ctx.storage` is
//! refused, everything else is as in a job.

use std::{fmt, path::PathBuf, sync::Mutex, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use futures::future::BoxFuture;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    cli::{Exit, context::Context},
    model::{
        bundle::Bundle,
        clock::Clock,
        error::{Code, CtxError},
        host::{Call, Host, LogLine, Settled},
    },
    sandbox::{Error, Facts, JobFacts, Limits, Pass, Pool, PoolOptions, Run, SOURCE_BYTES, UserFacts},
};

/// The exit code when the handler threw or did not compile.
const THREW: u8 = 1;
/// The exit code when the sandbox stopped the handler at a limit.
const STOPPED: u8 = 2;

/// Run one JavaScript file as a handler and say how it ended, in which time and memory.
#[derive(Debug, Args)]
#[command(
    after_help = "Ends with 0 when the handler returned, with 1 when it threw or did not compile, with 2 when the \
sandbox stopped it.\n\nExamples:\n  echo 'export const main = (ctx, input) => input.n * 2' > double.js\n  \
krilin app try double.js --input '{\"n\": 21}'\n  krilin app try apps/habit-tracker/app.js --entry get_today --json"
)]
pub(in crate::cli) struct Try {
    /// The file: an ES module that exports `async function NAME(ctx, input)`.
    file: PathBuf,
    /// The exported function to call [default: `main`, or the only one there is].
    #[arg(long, value_name = "NAME")]
    entry: Option<String>,
    /// The handler's second argument, as JSON.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    input: String,
}

/// How it ended.
#[derive(Debug, Serialize)]
struct Ending {
    /// `returned`, `threw` or `stopped`.
    ended: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<CtxError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    stack: String,
    /// Whether the child had to be killed; otherwise the engine stopped by itself.
    killed: bool,
    cpu_ms: f64,
    wall_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<u64>,
    log: Vec<LogLine>,
}

impl Try {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let path = self.file.display();
        let length = tokio::fs::metadata(&self.file).await.with_context(|| format!("reading `{path}`"))?.len();
        if length > SOURCE_BYTES as u64 {
            bail!("`{path}` is {length} bytes long; an app's code is at most {SOURCE_BYTES}");
        }
        let source = tokio::fs::read_to_string(&self.file).await.with_context(|| format!("reading `{path}`"))?;
        let input = RawValue::from_string(self.input).context("reading --input as JSON")?;
        let name = self.file.file_name().map_or_else(|| "app.js".into(), |name| name.to_string_lossy());
        let bundle = Bundle::new(&name, &source);
        let pool = Pool::start(PoolOptions { size: 1, weigh: true, ..PoolOptions::default() })
            .context("starting a sandbox")?;
        let host = NoDatabase::default();
        let entry = match self.entry {
            Some(entry) => Ok(entry),
            None => pool.exports(&bundle).await.and_then(|names| choose(&names)),
        };
        let facts = facts();
        let ended = match entry {
            Ok(entry) => {
                let now = context.clock.now();
                let seed = now.timestamp_millis().unsigned_abs();
                let limits = Limits::default();
                let run = Run { bundle: &bundle, entry: &entry, input: &input, facts: &facts, limits, seed, now };
                pool.run(run, &host).await
            }
            Err(error) => Err(error),
        };
        let log = host.log.into_inner().unwrap_or_default();
        let (ending, exit) = match ended {
            Ok(pass) => (returned(pass, log), None),
            Err(error) => {
                let stopped = is_stop(error.code());
                (failed(error, stopped, log), Some(if stopped { STOPPED } else { THREW }))
            }
        };
        context.answer(&ending)?;
        exit.map_or(Ok(()), |code| Err(Exit(code).into()))
    }
}

/// `main`, or the only function there is.
fn choose(names: &[String]) -> Result<String, Error> {
    match names {
        [only] => Ok(only.clone()),
        names if names.iter().any(|name| name == "main") => Ok("main".to_owned()),
        [] => Err(Error::new(Code::NotFound, "the file exports no function")),
        names => {
            let message = format!("the file exports several functions; choose one with --entry: {}", names.join(", "));
            Err(Error::new(Code::NotFound, message))
        }
    }
}

fn is_stop(code: Code) -> bool {
    matches!(
        code,
        Code::CpuLimit | Code::MemoryLimit | Code::Timeout | Code::Stalled | Code::QuotaExceeded | Code::Internal
    )
}

fn returned(pass: Pass, log: Vec<LogLine>) -> Ending {
    Ending {
        ended: "returned",
        value: Some(pass.value),
        error: None,
        at: None,
        stack: String::new(),
        killed: false,
        cpu_ms: millis(pass.cpu),
        wall_ms: millis(pass.wall),
        memory_bytes: pass.memory_bytes,
        log,
    }
}

fn failed(error: Error, stopped: bool, log: Vec<LogLine>) -> Ending {
    Ending {
        ended: if stopped { "stopped" } else { "threw" },
        value: None,
        at: error.at.map(|at| at.to_string()),
        stack: error.stack,
        killed: error.killed,
        cpu_ms: millis(error.cpu),
        wall_ms: millis(error.wall),
        memory_bytes: None,
        error: Some(*error.error),
        log,
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.log {
            let level = line.level.as_str();
            let fields = if line.fields.is_null() { String::new() } else { format!(" {}", line.fields) };
            writeln!(f, "{level:>5}  {}{fields}", line.message)?;
        }
        if let Some(value) = &self.value {
            writeln!(f, "{value}")?;
        }
        if let Some(error) = &self.error {
            writeln!(f, "{error}")?;
            if let Some(details) = &error.details {
                writeln!(f, "{details}")?;
            }
            match (&self.at, self.stack.as_str()) {
                (Some(at), "") => writeln!(f, "    at {at}")?,
                (_, "") => {}
                (_, stack) => writeln!(f, "{stack}")?,
            }
        }
        let how = if self.killed { "killed" } else { self.ended };
        write!(f, "{how} after {:.1} ms, {:.1} ms of CPU", self.wall_ms, self.cpu_ms)?;
        self.memory_bytes.map_or(Ok(()), |bytes| write!(f, ", {} KB of heap", bytes >> 10))
    }
}

/// Somebody in UTC.
fn facts() -> Facts {
    let nil = "00000000-0000-7000-8000-000000000000".to_owned();
    let Facts { user, settings, .. } = Facts::nobody();
    Facts {
        user: UserFacts { id: nil.clone(), name: "You".to_owned(), ..user },
        app_id: "try".to_owned(),
        app_version: "0.0.0".to_owned(),
        job: Some(JobFacts { id: nil, attempt: 1, trigger: "user".to_owned(), caller_app: None, schedule: None }),
        settings,
    }
}

/// Refuses every call, in words.
#[derive(Default)]
struct NoDatabase {
    log: Mutex<Vec<LogLine>>,
}

impl Host for NoDatabase {
    fn settle(&self, calls: Vec<Call>) -> BoxFuture<'_, Vec<Settled>> {
        let refuse = |call: Call| {
            let message = format!(
                "there is no database behind `krilin app try`, so ctx.{}.{} cannot work",
                call.api, call.method
            );
            Err(CtxError::new(Code::Unavailable, message))
        };
        Box::pin(std::future::ready(calls.into_iter().map(refuse).collect()))
    }

    fn log(&self, line: LogLine) {
        if let Ok(mut log) = self.log.lock() {
            log.push(line);
        }
    }
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
