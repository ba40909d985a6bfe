//! The command line: roles are verbs (`serve`, `work`, `up`), things are nouns with verbs (`job list`). One file each.
//!
//! A verb's answer goes to standard output, as JSON with `--json`; everything else goes to standard error. The process
//! ends with 0 when the verb did what it says, with 1 when it could not, and with 2 when it was not understood.

mod app;
mod config;
pub mod context;
mod db;
mod dead;
mod demo;
mod doctor;
mod engine;
mod enqueue;
mod fsck;
mod job;
mod queue;
mod schedule;
mod serve;
mod stop;
pub mod table;
pub mod token;
pub mod trial;
mod up;
mod user;
mod work;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use self::context::Context;
use crate::{config::LogFormat, telemetry};

/// The exit code of a verb that failed. (clap itself ends with 2 when it does not understand.)
const FAILED: u8 = 1;

/// The end of a verb that has said everything in its answer, with an exit code that means something of its own.
#[derive(Debug, thiserror::Error)]
#[error("ended with {0}")]
struct Exit(u8);

/// A personal cloud: apps in a sandbox, work as durable jobs, one Postgres.
#[derive(Debug, Parser)]
#[command(name = "krilin", version, propagate_version = true, max_term_width = 100)]
#[command(
    after_help = "Start here:\n  krilin up                     everything in one process, with a Postgres of its own\n  \
                        krilin doctor                 what is wrong, and what to do about it\n  \
                        krilin help <COMMAND>         a verb's options, with examples"
)]
struct Krilin {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// Options that every verb has.
#[derive(Debug, Clone, Default, Args)]
pub struct Global {
    /// Answer in JSON, for programs.
    #[arg(long, global = true)]
    pub json: bool,
    /// Read this configuration file instead of /etc/krilin/krilin.toml.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set one key of the configuration, as in `--set http.listen=127.0.0.1:0`. May be repeated.
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
    /// What to log: a level, or a filter such as `info,krilin::queue=debug`. Same as --set log.level=….
    #[arg(long, global = true, value_name = "FILTER")]
    pub log_level: Option<String>,
    /// How log lines look. Same as --set log.format=….
    #[arg(long, global = true, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// What there is to do.
#[derive(Debug, Subcommand)]
enum Verb {
    /// Run everything in one process: a Postgres of its own, the HTTP server, a worker and the scheduler.
    Up(up::Up),
    /// Serve HTTP.
    Serve(serve::Serve),
    /// Check and try apps, and what else their authors need.
    #[command(subcommand)]
    App(app::Verb),
    /// Run jobs.
    Work(work::Work),
    /// Run jobs by the clock: the scheduler, and verbs for what it fires.
    #[command(subcommand)]
    Schedule(schedule::Verb),
    /// List, show, enqueue, retry and cancel jobs.
    #[command(subcommand)]
    Job(job::Verb),
    /// See, pause, resume and limit queues, and look whether their invariants hold.
    #[command(subcommand)]
    Queue(queue::Verb),
    /// Create roles, migrate, check the database.
    #[command(subcommand)]
    Db(db::Db),
    /// Show and check the configuration.
    #[command(subcommand)]
    Config(config::Config),
    /// Add and list the people who use this Krilin.
    #[command(subcommand)]
    User(user::Verb),
    /// Make, list and revoke the tokens with which programs act for a user.
    #[command(subcommand)]
    Token(token::Verb),
    /// See it all work, on a Postgres that is thrown away.
    Demo(demo::Demo),
    /// Say what is wrong here, and what to do about it.
    Doctor(doctor::Doctor),
}

impl Verb {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Up(verb) => verb.run(context).await,
            Self::Serve(verb) => verb.run(context).await,
            Self::App(verb) => verb.run(context).await,
            Self::Work(verb) => verb.run(context).await,
            Self::Schedule(verb) => verb.run(context).await,
            Self::Job(verb) => verb.run(context).await,
            Self::Queue(verb) => verb.run(context).await,
            Self::Db(verb) => verb.run(context).await,
            Self::Config(verb) => verb.run(context),
            Self::User(verb) => verb.run(context).await,
            Self::Token(verb) => verb.run(context).await,
            Self::Demo(verb) => verb.run(context).await,
            Self::Doctor(verb) => verb.run(context).await,
        }
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE, as in `log.level=debug`".to_owned()),
    }
}

/// What the command line understands, for whoever writes about it: the manual pages.
pub fn command() -> clap::Command {
    <Krilin as clap::CommandFactory>::command()
}

/// Threads that drive the roles: half as many as cores. The other half is for Postgres and app code, without which a role has
/// nothing to do; on two cores a second thread costs more in waking each other than it takes on.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))
}

/// The whole process, from its arguments to its exit code.
pub fn main() -> ExitCode {
    let Krilin { global, verb } = Krilin::parse();
    // Before there are threads: it changes the environment.
    let context = Context::new(global, crate::config::inherited_listener());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads()).enable_all().build();
    let ended = match runtime {
        Ok(runtime) => {
            let ended = runtime.block_on(verb.run(&context));
            telemetry::stop();
            ended
        }
        Err(e) => Err(anyhow::Error::new(e).context("starting the runtime")),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Exit>() => ExitCode::from(error.downcast::<Exit>().map_or(FAILED, |exit| exit.0)),
        Err(error) => {
            context.report(&error);
            ExitCode::from(FAILED)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_tree_of_verbs_is_well_formed() {
        super::Krilin::command().debug_assert();
    }
}
