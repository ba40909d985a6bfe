//! The hostile programs of `tests/bundles`: one file each; its first line says how it may end.
//!
//! `// expect: CpuLimit MemoryLimit` lists codes, or `ok` for a program that harms nobody and returns. A second line
//! `// limits: cpu_ms=1000` changes the limits. `{{deep}}` stands for a text too deep to be kept in a file.

use std::{fs, path::Path, time::Duration};

use futures::future::BoxFuture;
use krilin::{
    model::{
        bundle::Bundle,
        host::{Call, Host, LogLine, Settled},
    },
    sandbox::{Error, Facts, Limits, Pass, Pool, Run},
};
use serde_json::value::RawValue;

/// One program.
pub struct Program {
    /// The file's name without `.js`.
    pub name: String,
    /// The code.
    pub bundle: Bundle,
    /// How it may end.
    pub expect: Vec<String>,
    /// What it gets.
    pub limits: Limits,
}

impl Program {
    /// Runs the program with nothing behind its calls.
    pub async fn run(&self, pool: &Pool) -> Result<Pass, Error> {
        let run = Run {
            bundle: &self.bundle,
            entry: "main",
            input: RawValue::NULL,
            facts: &Facts::nobody(),
            limits: self.limits,
            seed: 1,
            now: chrono::DateTime::UNIX_EPOCH,
        };
        pool.run(run, &Silent).await
    }

    /// What is wrong with how it ended, if anything is.
    pub fn verdict(&self, ended: &Result<Pass, Error>) -> Option<String> {
        let code = ended.as_ref().map_or_else(|error| error.code().as_str(), |_| "ok");
        if self.expect.iter().any(|expected| expected == code) {
            return None;
        }
        let words = ended.as_ref().map_or_else(ToString::to_string, |pass| pass.value.get().chars().take(80).collect());
        Some(format!("{}: {code} ({words}), not {}", self.name, self.expect.join(" or ")))
    }
}

/// All programs, by name.
pub fn programs() -> Vec<Program> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bundles");
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "js"));
    paths.sort();
    paths.iter().map(|path| program(path)).collect()
}

fn program(path: &Path) -> Program {
    let source = fs::read_to_string(path).unwrap();
    let name = path.file_stem().unwrap().to_string_lossy().into_owned();
    let words = |key: &str| source.lines().take(2).find_map(|line| line.strip_prefix(key));
    let expect = words("// expect: ").unwrap_or_else(|| panic!("{name} does not say how it may end"));
    let expect = expect.split_whitespace().map(str::to_owned).collect();
    let mut limits = Limits {
        cpu: Duration::from_millis(60),
        wall: Duration::from_secs(10),
        memory_bytes: 32 << 20,
        ..Limits::default()
    };
    if let Some(millis) = words("// limits: cpu_ms=") {
        limits.cpu = Duration::from_millis(millis.trim().parse().unwrap());
    }
    let deep = format!("{}1{}", "[".repeat(200_000), "]".repeat(200_000));
    let bundle = Bundle::new("app.js", &source.replace("{{deep}}", &deep));
    Program { name, bundle, expect, limits }
}

/// Answers every call with null.
struct Silent;

impl Host for Silent {
    fn settle(&self, calls: Vec<Call>) -> BoxFuture<'_, Vec<Settled>> {
        Box::pin(std::future::ready(calls.iter().map(|_| Ok(RawValue::NULL.to_owned())).collect()))
    }

    fn log(&self, _line: LogLine) {}
}
