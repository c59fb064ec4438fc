//! The admin door of every process: `/health`, `/ready`, `/metrics`.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    health::Health,
    metrics::{Metrics, TEXT_TYPE},
    tasks::{OnFailure, Tasks},
};

/// Settings of the HTTP listener (`http`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Address and port to listen on; port 0 takes a free one and logs it. Whoever reaches this address is trusted.
    pub addr: SocketAddr,
}

impl Default for Settings {
    fn default() -> Self {
        Self { addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)) }
    }
}

/// Why the listener is not there.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address cannot be bound.
    #[error(
        "cannot listen on {addr}: {source}; set another `http.addr` (TIDEMILL_HTTP_ADDR), port 0 takes any"
    )]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Serving ended with an error.
    #[error("the HTTP listener failed: {0}")]
    Serve(#[source] io::Error),
}

/// Binds the address and returns the listener with the address that it really has.
///
/// Several programs of Tidemill on one machine share the default address: so if nobody asked for it (`given` is
/// false) and it is taken, a free port is used and logged.
///
/// # Errors
/// [`HttpError::Bind`].
pub async fn bind(settings: &Settings, given: bool) -> Result<(TcpListener, SocketAddr), HttpError> {
    let wanted = settings.addr;
    let listener = match TcpListener::bind(wanted).await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && !given => {
            tracing::warn!(%wanted, "the default HTTP address is taken, taking a free port");
            TcpListener::bind((wanted.ip(), 0)).await
        }
        bound => bound,
    };
    let refuse = |source| HttpError::Bind { addr: wanted, source };
    let listener = listener.map_err(refuse)?;
    let addr = listener.local_addr().map_err(refuse)?;
    tracing::info!(%addr, "listening for HTTP");
    Ok((listener, addr))
}

/// Serves `router` until `token` is cancelled and the requests in flight are answered.
///
/// # Errors
/// [`HttpError::Serve`].
pub async fn serve(listener: TcpListener, router: Router, token: CancellationToken) -> Result<(), HttpError> {
    axum::serve(listener, router)
        .with_graceful_shutdown(token.cancelled_owned())
        .await
        .map_err(HttpError::Serve)
}

/// Serves the admin door until all other tasks have ended, so that a process that drains can still be watched; from
/// the moment that it is asked to end, `/ready` says so. A program whose requests are its work serves them as an
/// ordinary task instead, with [`serve`] and the token of its tasks.
pub fn spawn_admin(tasks: &Tasks, listener: TcpListener, router: Router, health: Health) {
    tasks.spawn_last("admin", OnFailure::ShutDown, serve(listener, router, tasks.last_token()));
    let token = tasks.token();
    tasks.spawn("readiness", OnFailure::Log, async move {
        token.cancelled().await;
        health.set_ending();
        Ok::<_, std::convert::Infallible>(())
    });
}

/// `/health` (200 while the process lives), `/ready` (200 or 503 with the reasons) and `/metrics`. Merge a program's
/// own routes into it.
pub fn admin_router(health: Health, metrics: Metrics) -> Router {
    let health_routes =
        Router::new().route("/health", get(alive)).route("/ready", get(ready)).with_state(health);
    Router::new().route("/metrics", get(text)).with_state(metrics).merge(health_routes)
}

async fn alive(State(health): State<Health>) -> Response {
    uncached(Json(health.alive()))
}

async fn ready(State(health): State<Health>) -> Response {
    let readiness = health.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    uncached((status, Json(readiness)))
}

async fn text(State(metrics): State<Metrics>) -> Response {
    ([(header::CONTENT_TYPE, TEXT_TYPE)], metrics.text()).into_response()
}

fn uncached(answer: impl IntoResponse) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], answer).into_response()
}
