//! `krilin work`: a worker. Takes jobs, runs them, and gives back what it cannot finish when it is asked to stop.

use std::fmt;

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use super::{
    context::Context,
    engine::{self, Engine},
    stop::Stop,
};
use crate::{
    config::Config,
    jobs::{self, app_action::AppAction},
    model::near,
    queue::{
        registry::Registry,
        worker::{self, Lane, WorkerOptions},
    },
    supervisor::{Part, Supervisor},
    web::operator::Operated,
};

/// Run jobs.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  krilin work                   all queues\n  krilin work default           only these"
)]
pub(super) struct Work {
    /// The queues to work on; without any, all.
    #[arg(value_name = "QUEUE")]
    queues: Vec<String>,
}

/// The first line on standard output: jobs are taken from now on.
#[derive(Debug, Serialize)]
struct Working {
    queues: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics_url: Option<String>,
}

impl fmt::Display for Working {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Krilin works on {}", self.queues.join(", "))
    }
}

impl Work {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        context.start_log()?;
        let (stop, supervisor) = (Stop::on_signals()?, context.supervisor());
        stop.tell(&supervisor);
        let config = context.config()?;
        let url = context.database_url()?;
        let engine = Engine::start(context, &url, "krilin-work", config.database.work_connections).await?;
        let worker = Worker::new(engine, config, &self.queues)?;
        let operated = Operated::new(worker.engine.queue.clone(), Some(worker.engine.sandbox.clone()));
        let metrics = engine::observe(context, operated, stop.clone()).await?;
        let metrics_url = metrics.map(|address| format!("http://{address}/metrics"));
        context.answer(&Working { queues: worker.queues(), metrics_url })?;
        let starting = supervisor.part();
        worker.run(stop, &supervisor, starting).await;
        Ok(())
    }
}

/// A worker that knows its kinds and queues.
pub(super) struct Worker {
    engine: Engine,
    registry: Registry,
    options: WorkerOptions,
}

impl Worker {
    /// A worker on `queues`, or on all where none is named. Refuses a queue that no kind of job waits in.
    pub(super) fn new(engine: Engine, config: &Config, queues: &[String]) -> anyhow::Result<Self> {
        let actions = AppAction { apps: engine.apps.clone(), sandbox: engine.sandbox.clone() };
        let registry = Registry::new(engine.queue.policies(), jobs::handlers(actions))?;
        let known = registry.queues();
        if let Some(unknown) = queues.iter().find(|queue| !known.contains(queue)) {
            let hint = near::hint(unknown, known.iter().map(String::as_str));
            bail!("no kind of job waits in a queue `{unknown}`{hint}; there are {}", known.join(", "));
        }
        let queues = if queues.is_empty() { known } else { queues.to_vec() };
        let lanes = queues.iter().map(|queue| Lane::new(queue, config.work.concurrency.get())).collect();
        let options = WorkerOptions { drain: config.work.drain.0, ..WorkerOptions::new(lanes) };
        Ok(Self { engine, registry, options })
    }

    fn queues(&self) -> Vec<String> {
        self.options.lanes.iter().map(|lane| lane.queue.clone()).collect()
    }

    /// Works until the wish to stop; then drains. `supervisor` hears of nothing ready before it has begun.
    pub(super) async fn run(self, stop: Stop, supervisor: &Supervisor, starting: Part) {
        let Self { engine, registry, options } = self;
        let options = WorkerOptions { supervisor: supervisor.clone(), ..options };
        let worker = worker::start(&engine.queue, &registry, &engine.pool, &options);
        starting.end();
        stop.requested().await;
        if !worker.stop().await {
            tracing::warn!("some jobs could not be given back; they are free again when their leases run out");
        }
    }
}
