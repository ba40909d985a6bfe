//! `krilin schedule run`: the scheduler as a process of its own, or as a part of `krilin up`.

use std::{fmt, sync::Arc};

use clap::Args;
use serde::Serialize;
use tokio::task::JoinError;

use crate::{
    cli::{
        context::Context,
        engine::{self, check_schema},
        stop::Stop,
    },
    clock::SystemClock,
    jobs,
    model::{clock::Clock, policy::Policies},
    queue::Queue,
    schedule::{Bell, scheduler::Scheduler},
    store,
    supervisor::Supervisor,
    web::operator::Operated,
};

/// The most connections of a scheduler: two transactions at once, one that listens and looks, and one for the metrics.
const CONNECTIONS: u32 = 4;

/// Fire what is due.
#[derive(Debug, Args)]
pub(in crate::cli) struct Run {}

/// The first line on standard output: schedules fire from now on.
#[derive(Debug, Serialize)]
struct Scheduling {
    scheduling: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics_url: Option<String>,
}

impl fmt::Display for Scheduling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Krilin fires what is due")
    }
}

/// Wakes the workers of `queue` for jobs that a schedule has made.
pub(in crate::cli) fn bell(queue: &Queue) -> Bell {
    let queue = queue.clone();
    Arc::new(move |queues| queue.ring(queues))
}

impl Run {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        context.start_log()?;
        let (stop, supervisor) = (Stop::on_signals()?, context.supervisor());
        stop.tell(&supervisor);
        let overlay = context.config()?.policies_directory.as_path();
        let policies = jobs::policies(Some(overlay).filter(|directory| directory.is_dir()))?;
        let pool = store::pool(&context.database_url()?, "krilin-schedule", CONNECTIONS)?;
        check_schema(&pool).await?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let queue = Queue::new(&pool, clock.clone(), policies.clone());
        let role = Role::new(&pool, clock, policies, &queue);
        let metrics = engine::observe(context, Operated::new(queue, None), stop.clone()).await?;
        let metrics_url = metrics.map(|address| format!("http://{address}/metrics"));
        context.answer(&Scheduling { scheduling: true, metrics_url })?;
        supervisor.status("firing what is due");
        role.run(stop, &supervisor).await;
        Ok(())
    }
}

/// A scheduler that knows whom to wake.
pub(in crate::cli) struct Role(Scheduler);

impl Role {
    /// A scheduler over `pool` for the workers of `queue`.
    pub(in crate::cli) fn new(pool: &sqlx::PgPool, clock: Arc<dyn Clock>, policies: Policies, queue: &Queue) -> Self {
        Self(Scheduler::new(pool, clock, policies, bell(queue)))
    }

    /// Fires until the wish to stop. To be called before `supervisor` could think that all parts are there.
    pub(in crate::cli) async fn run(self, stop: Stop, supervisor: &Supervisor) {
        let running = self.0.run(stop.requested(), supervisor.part());
        // On the thread that waits for the sockets, too: this one would have to be woken by it at every answer.
        let ended = tokio::spawn(running).await;
        if let Err(Ok(panic)) = ended.map_err(JoinError::try_into_panic) {
            std::panic::resume_unwind(panic);
        }
    }
}
