//! `krilin up`: everything in one process, on a Postgres of its own when no other was given.

use std::{pin::pin, time::Duration};

use anyhow::Context as _;
use clap::Args;

use super::{
    context::Context,
    db,
    engine::Engine,
    schedule::Role,
    serve::{Listen, Server},
    stop::Stop,
    work::Worker,
};
use crate::{
    cluster::{self, Cluster, Durability, StateLock},
    config::credentials,
    model::secret::Secret,
    store::{self, schema},
    supervisor::Supervisor,
};

/// How often to look whether the private Postgres is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Run everything in one process: a Postgres of its own, the HTTP server, a worker and the scheduler.
///
/// Without the credential `database_url`, a private Postgres is made below the state directory, from the programs that
/// are installed, and stopped with this process. Other verbs on this machine find it there.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  krilin up\n  krilin up --listen 0.0.0.0:80 --set state_directory=/srv/krilin")]
pub(super) struct Up {
    #[command(flatten)]
    listen: Listen,
}

impl Up {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        context.start_log()?;
        let (stop, supervisor) = (Stop::on_signals()?, context.supervisor());
        stop.tell(&supervisor);
        let lock = StateLock::acquire(&context.config()?.state_directory())?;
        let mut database = Database::open(context).await?;
        let ran = self.roles(context, &mut database, (stop, supervisor)).await;
        let stopped = database.close().await;
        drop(lock);
        ran.and(stopped)
    }

    async fn roles(&self, context: &Context, database: &mut Database, told: (Stop, Supervisor)) -> anyhow::Result<()> {
        let (stop, supervisor) = told;
        database.migrate().await?;
        let config = context.config()?;
        let connections = config.database.serve_connections + config.database.work_connections;
        let engine = Engine::start(context, &database.url, "krilin-up", connections).await?;
        let server = Server::bind(context, &self.listen, engine.clone()).await?;
        let scheduler = Role::new(&engine.pool, engine.clock.clone(), engine.queue.policies().clone(), &engine.queue);
        let worker = Worker::new(engine, config, &[])?;
        // Not ready before both roles are there.
        let starting = supervisor.part();
        let roles = async {
            let serving = async {
                let ended = server.run(context, stop.clone(), supervisor.clone()).await;
                // A role that cannot go on takes the others with it.
                stop.now();
                ended
            };
            let working = worker.run(stop.clone(), &supervisor, starting);
            let (ended, (), ()) = tokio::join!(serving, working, scheduler.run(stop.clone(), &supervisor));
            ended
        };
        let mut roles = pin!(roles);
        loop {
            tokio::select! {
                ended = &mut roles => return ended,
                () = tokio::time::sleep(LOOK_EVERY) => database.keep().await,
            }
        }
    }
}

/// The database that everything runs on.
struct Database {
    private: Option<Cluster>,
    url: Secret,
    /// Absent when somebody else migrates: then only the runtime role's credential was given.
    owner_url: Option<Secret>,
}

impl Database {
    /// The given one, else a private cluster, which is started.
    async fn open(context: &Context) -> anyhow::Result<Self> {
        if let Some(url) = context.given_credential(credentials::DATABASE_URL)? {
            let owner_url = context.given_credential(credentials::OWNER_DATABASE_URL)?;
            return Ok(Self { private: None, url, owner_url });
        }
        let cluster = Cluster::start(&context.cluster_directory()?, Durability::Full).await?;
        tracing::info!("a private Postgres runs in `{}`", cluster.directory().display());
        Ok(Self {
            url: cluster.url("krilin_runtime", cluster::DATABASE),
            owner_url: Some(cluster.url("krilin_owner", cluster::DATABASE)),
            private: Some(cluster),
        })
    }

    /// Makes roles and database where they are ours to make, and brings the schema up.
    async fn migrate(&self) -> anyhow::Result<()> {
        if let Some(cluster) = &self.private {
            let mut admin = store::connect(&cluster.superuser_url(), "krilin-up").await.context("connecting")?;
            schema::set_up(&mut admin, cluster::DATABASE).await.context("creating roles and database")?;
        }
        if let Some(url) = &self.owner_url {
            let mut owner = store::connect(url, "krilin-up").await.context("connecting as `krilin_owner`")?;
            let migrated = db::bring_up(&mut owner).await?;
            tracing::info!("{migrated}");
        }
        Ok(())
    }

    /// Starts the private Postgres again when it has ended by itself; a failure is logged and tried again at the next look.
    async fn keep(&mut self) {
        let Some(cluster) = &mut self.private else { return };
        if !cluster.has_ended() {
            return;
        }
        tracing::error!("the private Postgres has ended; starting it again (its log is `{}`)", cluster.log().display());
        if let Err(error) = cluster.resume().await {
            tracing::error!(%error, "the private Postgres could not be started again");
        }
    }

    async fn close(self) -> anyhow::Result<()> {
        if let Some(mut cluster) = self.private {
            cluster.stop().await?;
            tracing::info!("the private Postgres has stopped");
        }
        Ok(())
    }
}
