//! `krilin serve`: the HTTP server. Runs nobody's code and changes nothing but by enqueuing jobs.

use std::{fmt, net::SocketAddr};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use tokio::net::TcpListener;

use super::{
    context::Context,
    engine::{self, Engine},
    stop::Stop,
};
use crate::{
    supervisor::Supervisor,
    web::{self, operator::Operated},
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
    ///
    /// Not used when the service manager passes a socket in (krilin-serve.socket).
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
        let (stop, supervisor) = (Stop::on_signals()?, context.supervisor());
        stop.tell(&supervisor);
        let connections = context.config()?.database.serve_connections;
        let engine = Engine::start(context, &context.database_url()?, "krilin-serve", connections).await?;
        Server::bind(context, &self.listen, engine).await?.run(context, stop, supervisor).await
    }
}

/// A server that has its port and has seen its schema.
pub(super) struct Server {
    listener: TcpListener,
    engine: Engine,
}

impl Server {
    /// Takes the socket that the service manager listens on, else the port.
    pub(super) async fn bind(context: &Context, listen: &Listen, engine: Engine) -> anyhow::Result<Self> {
        if let Some(inherited) = context.inherited_listener()? {
            let listener = TcpListener::from_std(inherited).context("taking the inherited socket into use")?;
            return Ok(Self { listener, engine });
        }
        let address = listen.listen.unwrap_or(context.config()?.http.listen);
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("listening on {address} (is another krilin there? --listen takes another one)"))?;
        Ok(Self { listener, engine })
    }

    /// Says where it listens and answers until the wish to stop; then drains.
    pub(super) async fn run(self, context: &Context, stop: Stop, supervisor: Supervisor) -> anyhow::Result<()> {
        let Self { listener, engine } = self;
        let url = format!("http://{}", listener.local_addr().context("reading the address we listen on")?);
        let Engine { pool, clock, queue, apps, sandbox } = engine;
        let parts = web::Parts { pool, clock, queue, apps, sandbox };
        let web = web::Web::new(parts);
        engine::observe(context, Operated::server(web.clone()), stop.clone()).await?;
        context.answer(&Listening { url })?;
        web::serve(listener, web, &supervisor, stop.requested()).await;
        Ok(())
    }
}
