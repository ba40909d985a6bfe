//! The wish to stop: from Ctrl-C, from SIGTERM, or from a role that cannot go on. Asked twice, the process ends at once.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::supervisor::Supervisor;

/// The exit code of a process that was asked twice: 128 and the number of SIGINT, as shells have it.
const ASKED_TWICE: i32 = 130;

/// Whether this process is to stop. Cheap to clone; all clones are the same wish.
#[derive(Debug, Clone)]
pub(super) struct Stop(Arc<watch::Sender<bool>>);

impl Stop {
    /// Listens for signals from here on.
    pub(super) fn on_signals() -> anyhow::Result<Self> {
        let stop = Self(Arc::new(watch::Sender::new(false)));
        let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let wish = stop.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if wish.0.send_replace(true) {
                    tracing::warn!("asked twice to stop; ending at once");
                    std::process::exit(ASKED_TWICE);
                }
                tracing::info!("stopping; ask again to end at once");
            }
        });
        Ok(stop)
    }

    /// Lets `supervisor` know when there is the wish.
    pub(super) fn tell(&self, supervisor: &Supervisor) {
        let (wish, supervisor) = (self.clone(), supervisor.clone());
        tokio::spawn(async move {
            wish.requested().await;
            supervisor.stopping();
        });
    }

    /// Makes the wish, for a role that cannot go on.
    pub(super) fn now(&self) {
        self.0.send_replace(true);
    }

    /// Waits for the wish.
    pub(super) async fn requested(self) {
        let mut wish = self.0.subscribe();
        // The sender lives as long as `self`.
        let _ = wish.wait_for(|wished| *wished).await;
    }
}
