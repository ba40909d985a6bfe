//! `krilin serve`: the HTTP server. Runs nobody's code and changes nothing but by enqueuing jobs.

use std::{fmt, net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use sqlx::PgPool;
use tokio::net::TcpListener;

use super::{context::Context, stop::Stop};
use crate::{
    clock::SystemClock,
    model::secret::Secret,
    store::{self, schema},
    web,
};

/// Serve HTTP.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  krilin serve\n  krilin serve --listen 127.0.0.1:0 --json")]
pub(super) struct Serve {
    #[command(flatten)]
    listen: Listen,
}

/// Where to listen.
#[derive(Debug, Clone, Args)]
pub(super) struct Listen {
    /// The address and port to listen on; port 0 takes a free one. Same as --set http.listen=….
    #[arg(long, value_name = "ADDRESS")]
    pub(super) listen: Option<SocketAddr>,
}

/// The first line on standard output: the server answers from now on.
#[derive(Debug, Serialize)]
struct Listening {
    url: String,
}

impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Krilin listens on {}", self.url)
    }
}

impl Serve {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        context.start_log()?;
        let stop = Stop::on_signals()?;
        let server = Server::bind(context, &self.listen, &context.database_url()?).await?;
        server.run(context, stop).await
    }
}

/// A server that has its port and has seen its schema.
pub(super) struct Server {
    listener: TcpListener,
    pool: PgPool,
}

impl Server {
    /// Takes the port. Refuses a schema that this binary does not know.
    pub(super) async fn bind(context: &Context, listen: &Listen, url: &Secret) -> anyhow::Result<Self> {
        let config = context.config()?;
        let pool = store::pool(url, "krilin-serve", config.database.serve_connections)?;
        check_schema(&pool).await?;
        let address = listen.listen.unwrap_or(config.http.listen);
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("listening on {address} (is another krilin there? --listen takes another one)"))?;
        Ok(Self { listener, pool })
    }

    /// Says where it listens and answers until the wish to stop; then drains.
    pub(super) async fn run(self, context: &Context, stop: Stop) -> anyhow::Result<()> {
        let url = format!("http://{}", self.listener.local_addr().context("reading the address we listen on")?);
        let parts = web::Parts { pool: self.pool.clone(), clock: Arc::new(SystemClock) };
        context.answer(&Listening { url })?;
        web::serve(self.listener, web::Web::new(parts), stop.requested()).await;
        self.pool.close().await;
        Ok(())
    }
}

/// Refuses a schema that is newer or older than this binary's.
pub(super) async fn check_schema(pool: &PgPool) -> anyhow::Result<()> {
    let mut connection = pool.acquire().await.map_err(store::Error::from).context("connecting to the database")?;
    let status = schema::status(&mut connection).await.context("reading the schema's version")?;
    Ok(schema::check(&status)?)
}
