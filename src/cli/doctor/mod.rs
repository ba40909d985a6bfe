//! `krilin doctor`: what is wrong here, and what to do about it. Looks only; changes nothing.

mod database;
mod here;
mod server;

use std::fmt;

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use super::context::Context;

/// Check this machine, the configuration and the database; ends with 1 when something is broken.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  krilin doctor\n  krilin doctor --json | jq '.checks[] | select(.state != \"ok\")'"
)]
pub(super) struct Doctor {}

/// How one check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    Warn,
    Fail,
}

/// One check.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    state: State,
    finding: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl Check {
    fn ok(name: &'static str, finding: impl Into<String>) -> Self {
        Self { name, state: State::Ok, finding: finding.into(), remedy: None }
    }

    fn warn(name: &'static str, finding: impl Into<String>, remedy: &str) -> Self {
        Self { name, state: State::Warn, finding: finding.into(), remedy: Some(remedy.to_owned()) }
    }

    fn fail(name: &'static str, finding: impl Into<String>, remedy: &str) -> Self {
        Self { name, state: State::Fail, finding: finding.into(), remedy: Some(remedy.to_owned()) }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    checks: Vec<Check>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
        for (index, Check { name, state, finding, remedy }) in self.checks.iter().enumerate() {
            let state = match state {
                State::Ok => "ok  ",
                State::Warn => "warn",
                State::Fail => "FAIL",
            };
            let line_end = if index == 0 { "" } else { "\n" };
            write!(f, "{line_end}{state}  {name:<width$}  {finding}")?;
            if let Some(remedy) = remedy {
                write!(f, "\n      {:<width$}  → {remedy}", "")?;
            }
        }
        Ok(())
    }
}

impl Doctor {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let mut checks = here::checks(context);
        if checks.iter().all(|check| check.name != "configuration" || check.state != State::Fail) {
            checks.extend(database::checks(context).await);
        }
        let failed = checks.iter().filter(|check| check.state == State::Fail).count();
        context.answer(&Report { checks })?;
        match failed {
            0 => Ok(()),
            1 => bail!("1 check failed"),
            _ => bail!("{failed} checks failed"),
        }
    }
}
