//! `krilin app check`: joins the check of an app with the sandbox that loads its code.

use std::path::Path;

use anyhow::{Context as _, bail};

use crate::{
    apps::check::{self, Flaw},
    cli::context::Context,
    model::{bundle::Bundle, manifest::ProblemCode},
    sandbox::{self, Pool, PoolOptions},
};

/// The end of the long help: examples, and what each code stands for.
pub(super) fn codes() -> String {
    let mut text =
        "Examples:\n  krilin app check apps/habit-tracker\n  krilin app check manifest.yaml --json\n\nCodes:"
            .to_owned();
    for code in ProblemCode::ALL {
        text.extend(["\n  ", code.as_str(), "  ", code.meaning()]);
    }
    text
}

/// Checks what is at `path` and answers with the report; an error when the app has errors.
pub(super) async fn run(context: &Context, path: &Path) -> anyhow::Result<()> {
    let report = check::check(path, exports).await?;
    context.answer(&report)?;
    if report.errors > 0 {
        bail!("`{}` cannot be published as it is", path.display());
    }
    Ok(())
}

/// Refuses what would not pass the check, with every error in it.
pub(super) async fn demand(path: &Path) -> anyhow::Result<()> {
    let report = check::check(path, exports).await?;
    if report.errors > 0 {
        bail!("`{}` cannot be published as it is:\n{report}", path.display());
    }
    Ok(())
}

/// The functions that a module exports, loaded in a child of this program.
async fn exports(code: &Bundle) -> Result<Vec<String>, Flaw> {
    let pool = start().map_err(|error| Flaw { message: format!("{error:#}"), at: None })?;
    pool.exports(code).await.map_err(|error| flaw(&error))
}

fn start() -> anyhow::Result<Pool> {
    let program = std::env::current_exe().context("finding this program, to start a sandbox of it")?;
    Pool::start(PoolOptions { size: 1, ..PoolOptions::of(program) }).context("starting a sandbox")
}

fn flaw(error: &sandbox::Error) -> Flaw {
    Flaw { message: error.error.message.clone(), at: error.at.as_ref().map(|at| (at.line, at.column)) }
}
