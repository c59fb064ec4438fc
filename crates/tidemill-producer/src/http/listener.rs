//! Serving connections, each bounded: a client that sends its head too slowly loses its connection, further clients than
//! allowed wait to be taken, and at the end requests under way are answered before the listener is gone.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tidemill_runtime::tasks::TaskSet;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::clients::Peer;
use crate::settings::Settings;

/// Pause after a failed accept (no file handles left, most likely).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How connections are bounded.
#[derive(Debug, Clone, Copy)]
pub struct Listener {
    /// Longest time for a request's head.
    pub header_timeout: Duration,
    /// Most connections at once.
    pub max_connections: usize,
}

impl From<&Settings> for Listener {
    fn from(settings: &Settings) -> Self {
        Self {
            header_timeout: Duration::from_millis(settings.header_timeout_ms),
            max_connections: settings.max_connections,
        }
    }
}

/// Serves `router` until `token` is cancelled and the requests under way are answered.
///
/// # Errors
/// None; the type is that of every task.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    bounds: Listener,
    token: CancellationToken,
) -> Result<(), Infallible> {
    let room = Arc::new(Semaphore::new(bounds.max_connections));
    let mut connections = TaskSet::new("connections");
    loop {
        let accepted = tokio::select! {
            () = token.cancelled() => break,
            _ = connections.join_next(), if !connections.is_empty() => continue,
            accepted = accept(&listener, &room) => accepted,
        };
        let Some((stream, peer, permit)) = accepted else { continue };
        let (router, token) = (router.clone(), token.clone());
        connections.spawn(async move {
            connection((stream, peer), router, bounds.header_timeout, token).await;
            drop(permit);
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let permit = room.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, permit)),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn connection(
    (stream, peer): (TcpStream, SocketAddr),
    router: Router,
    header_timeout: Duration,
    token: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection was gone before it was served");
        return;
    }
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(header_timeout).half_close(true);
    let routes = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        routes.call(request)
    });
    let serving = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let outcome = tokio::select! {
        outcome = &mut serving => outcome,
        () = token.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection ended early");
    }
}
