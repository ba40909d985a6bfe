//! The listening end: accepts connections, bounds them, and lets them end well.
//!
//! Our own loop instead of `axum::serve`, which bounds neither the number of connections nor the time a head may take.

use std::{convert::Infallible, future::Future, pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderValue, header},
    response::Response,
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore, watch},
    task::JoinSet,
};
use tower::ServiceExt;

use super::{Web, limit, router};
use crate::supervisor::Supervisor;

/// How long to wait after the operating system refused a connection: it is out of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long the loop waits for a connection before it goes round without one, so that the watchdog sees it alive.
const TURN: Duration = Duration::from_secs(5);

/// Answers requests on `listener` until `shutdown` is over. Then no connection is accepted, requests in flight are
/// answered for at most [`limit::DRAIN_TIMEOUT`], and the rest is cut. Who waits for a job's end is answered at once.
pub async fn serve(listener: TcpListener, web: Web, supervisor: &Supervisor, shutdown: impl Future<Output = ()>) {
    let shutdown = async {
        shutdown.await;
        web.stop();
    };
    listen(listener, router(web.clone()), supervisor, shutdown).await;
}

/// The same for any `router`.
pub(super) async fn listen(
    listener: TcpListener,
    router: Router,
    supervisor: &Supervisor,
    shutdown: impl Future<Output = ()>,
) {
    let part = supervisor.part();
    part.beat();
    let places = Arc::new(Semaphore::new(limit::CONNECTIONS_MAX));
    let (stop, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        // Connections that ended are taken off the set as others come.
        while connections.try_join_next().is_some() {}
        let accept = async { (places.clone().acquire_owned().await, listener.accept().await) };
        let (place, accepted) = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept => accepted,
            () = tokio::time::sleep(TURN) => {
                supervisor.status(&format!("{} connections are open", connections.len()));
                part.beat();
                continue;
            }
        };
        part.beat();
        match accepted {
            Ok((stream, _)) => {
                let answering = answer(stream, router.clone(), stopping.clone());
                connections.spawn(async move {
                    answering.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    // Nobody is left to tell when every connection has ended already.
    let _ = stop.send(true);
    let drained =
        tokio::time::timeout(limit::DRAIN_TIMEOUT, async { while connections.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!(connections = connections.len(), "cutting connections that did not end in time");
    }
    part.end();
}

/// Answers the requests of one connection, one after the other, until it ends or the server stops.
async fn answer(stream: TcpStream, router: Router, mut stopping: watch::Receiver<bool>) {
    // Answers are small and awaited: never hold one back to fill a packet.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "setting TCP_NODELAY");
    }
    let asked = Arc::new(Notify::new());
    let (first, ending) = (asked.clone(), stopping.clone());
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        first.notify_one();
        let request: Request = request.map(Body::new);
        let (router, ending) = (router.clone(), ending.clone());
        async move {
            let mut response: Response = router.oneshot(request).await.unwrap_or_else(|never| match never {});
            if *ending.borrow() {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<Response, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limit::HEAD_TIMEOUT)
        .max_headers(limit::HEADERS_MAX)
        .max_buf_size(limit::HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // An error means that the server is gone, which is a stop as well.
    let stopped = async { drop(stopping.wait_for(|stop| *stop).await) };
    // hyper cuts a connection that has sent nothing yet. One that we had just accepted has a request on its way, for which
    // nobody else will ever answer.
    let stopped = async {
        stopped.await;
        drop(tokio::time::timeout(limit::FIRST_REQUEST_WAIT, asked.notified()).await);
    };
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stopped => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
}
