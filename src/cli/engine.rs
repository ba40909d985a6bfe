//! What the roles are made of. `up` has one of it for both; `serve` and `work` have one each.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use sqlx::PgPool;
use tokio::net::TcpListener;

use super::{context::Context, stop::Stop};
use crate::{
    apps::loaded::Apps,
    clock::SystemClock,
    model::{clock::Clock, secret::Secret},
    queue::{Queue, kinds},
    sandbox::{Pool, PoolOptions},
    store::{self, schema},
    web::operator::{self, Operated},
};

/// Connections, the queue, published apps, children for their code.
#[derive(Clone)]
pub(super) struct Engine {
    /// As `krilin_runtime`.
    pub(super) pool: PgPool,
    /// The machine's clock.
    pub(super) clock: Arc<dyn Clock>,
    /// The face of the job engine.
    pub(super) queue: Queue,
    /// What is published.
    pub(super) apps: Apps,
    /// Children for app code.
    pub(super) sandbox: Pool,
}

impl Engine {
    /// Connects to `url` as `name` with at most `connections`. Refuses a schema that is not this binary's.
    pub(super) async fn start(context: &Context, url: &Secret, name: &str, connections: u32) -> anyhow::Result<Self> {
        let config = context.config()?;
        let policies = context.policies()?;
        let pool = store::pool(url, name, connections)?;
        check_schema(&pool).await?;
        kinds::publish(&pool, &policies, false).await.context("writing down the kinds of jobs")?;
        let mut options = PoolOptions::default();
        if config.sandbox.children > 0 {
            options.size = config.sandbox.children;
        }
        let sandbox = Pool::start(options).context("starting the sandbox's children")?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let queue = Queue::new(&pool, clock.clone(), policies);
        Ok(Self { apps: Apps::new(pool.clone()), pool, clock, queue, sandbox })
    }
}

/// Answers an operator's programs about `operated` until the wish to stop, where the configuration says so; gives where.
pub(super) async fn observe(context: &Context, operated: Operated, stop: Stop) -> anyhow::Result<Option<SocketAddr>> {
    let Some(address) = context.config()?.metrics.listen.0 else { return Ok(None) };
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("listening on {address} for figures (is another krilin there? metrics.listen takes port 0, too)")
    })?;
    let address = listener.local_addr().context("reading the address we listen on for figures")?;
    tracing::info!("figures are at http://{address}/metrics");
    tokio::spawn(operator::serve(listener, operated, stop.requested()));
    Ok(Some(address))
}

/// Refuses a schema that is newer or older than this binary's.
pub(super) async fn check_schema(pool: &PgPool) -> anyhow::Result<()> {
    let mut connection = pool.acquire().await.map_err(store::Error::from).context("connecting to the database")?;
    let status = schema::status(&mut connection).await.context("reading the schema's version")?;
    Ok(schema::check(&status)?)
}
