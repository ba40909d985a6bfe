//! `krilin app test`: an app's own tests, on a Postgres made for them and gone afterwards.

use std::{
    fmt,
    io::{Write, stderr},
    path::Path,
};

use anyhow::{Context as _, bail};
use serde::Serialize;
use sqlx::Connection;

use crate::{
    apps::{
        bundle::{self, AppBundle},
        publish::{self, Options},
    },
    cli::{
        context::Context,
        trial::{Trial, Verdict},
    },
    cluster::{Cluster, DATABASE},
    sandbox::{Pool, PoolOptions},
    store::{self, schema},
};

/// Connections of the cases, which run one after the other.
const CONNECTIONS: u32 = 4;

/// What all tests came to.
#[derive(Debug, Serialize)]
struct Report {
    app_id: String,
    passed: usize,
    failed: usize,
    tests: Vec<Verdict>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} passed, {} failed", self.app_id, self.passed, self.failed)
    }
}

/// Runs the tests of the app in `directory`; an error when one fails.
pub(super) async fn run(context: &Context, directory: &Path) -> anyhow::Result<()> {
    let app = bundle::read_dir(directory)?;
    let Some(test) = app.test.clone() else { bail!("`{}` has no {}", directory.display(), bundle::TEST_FILE) };
    let mut cluster = Cluster::throwaway().await?;
    let ran = run_on(&cluster, &app, &test, |verdict| show(context, verdict)).await;
    cluster.stop().await?;
    let tests = ran?;
    let failed = tests.iter().filter(|verdict| verdict.problem.is_some()).count();
    let app_id = app.manifest.metadata.id.to_string();
    context.answer(&Report { app_id, passed: tests.len() - failed, failed, tests })?;
    if failed > 0 {
        bail!("{failed} of the tests in `{}` failed", directory.join(bundle::TEST_FILE).display());
    }
    Ok(())
}

/// Makes Krilin's database, publishes the app and runs its tests.
async fn run_on(
    cluster: &Cluster,
    app: &AppBundle,
    test: &str,
    each: impl FnMut(&Verdict),
) -> anyhow::Result<Vec<Verdict>> {
    let mut admin = store::connect(&cluster.superuser_url(), "krilin-app-test").await?;
    schema::set_up(&mut admin, DATABASE).await?;
    admin.close().await?;
    let mut owner = store::connect(&cluster.url("krilin_owner", DATABASE), "krilin-app-test").await?;
    schema::migrate(&mut owner).await?;
    publish::publish(&mut owner, &app.manifest, &app.code, Options::default()).await?;
    owner.close().await?;
    let pool = store::pool(&cluster.url("krilin_runtime", DATABASE), "krilin-app-test", CONNECTIONS)?;
    let program = std::env::current_exe().context("finding this program, to start a sandbox of it")?;
    let sandbox = Pool::start(PoolOptions { size: 1, ..PoolOptions::of(program) }).context("starting a sandbox")?;
    let trial = Trial::load(pool.clone(), sandbox, app.manifest.metadata.id.clone(), (&app.code, test)).await?;
    let verdicts = trial.run(each).await;
    drop(trial);
    pool.close().await;
    Ok(verdicts)
}

/// A line per test while they run, for people.
fn show(context: &Context, verdict: &Verdict) {
    if context.global.json {
        return;
    }
    let name = verdict.name.strip_prefix("test_").map_or_else(|| verdict.name.clone(), |name| name.replace('_', " "));
    let mut line = match &verdict.problem {
        None => format!("  ok    {name} ({} ms)", verdict.elapsed_ms),
        Some(problem) => format!("  FAIL  {name}\n        {problem}"),
    };
    line.push('\n');
    // A closed standard error must not end the tests.
    let _ = stderr().lock().write_all(line.as_bytes());
}
