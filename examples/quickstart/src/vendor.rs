//! The vendor: an HTTP service that takes 100 ms for an answer and fails one call in twenty, in the ways in which real
//! services fail. What it answers it works out from the coordinates.

mod answers;
mod faults;
mod ledger;

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tidemill_runtime::tasks::{OnFailure, Tasks};
use tokio::net::{TcpListener, TcpStream};

pub(crate) use faults::{FAULTS_PER_THOUSAND, Fault};
use ledger::Ledger;
pub(crate) use ledger::VendorCounts;

/// How long each answer takes.
pub(crate) const LATENCY: Duration = Duration::from_millis(100);
/// How long a call that the vendor forgets about stays open; tools give up long before.
const FORGOTTEN: Duration = Duration::from_secs(30);
/// Between the first half of an answer and the cut.
const TEARING: Duration = Duration::from_millis(10);
const MAX_BODY_BYTES: usize = 64 * 1024;

type Answer = Response<BoxBody<Bytes, io::Error>>;

/// A running vendor.
#[derive(Debug)]
pub(crate) struct Vendor {
    address: SocketAddr,
    ledger: Arc<Ledger>,
}

impl Vendor {
    /// Starts it on a free port of this machine. The same `seed` fails the same calls.
    pub(crate) async fn start(tasks: &Tasks, seed: u64) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.context("the vendor finds no free port on 127.0.0.1")?;
        let address = listener.local_addr()?;
        let ledger = Arc::new(Ledger::new(seed));
        let (noted, token, own) = (Arc::clone(&ledger), tasks.token(), tasks.clone());
        tasks.spawn("vendor", OnFailure::Log, async move {
            loop {
                let accepted = tokio::select! {
                    () = token.cancelled() => return Ok::<(), Infallible>(()),
                    accepted = listener.accept() => accepted,
                };
                if let Ok((stream, _)) = accepted {
                    let (token, ledger) = (token.clone(), Arc::clone(&noted));
                    own.spawn("vendor connection", OnFailure::Log, async move {
                        tokio::select! {
                            () = token.cancelled() => {}
                            () = converse(stream, ledger) => {}
                        }
                        Ok::<(), Infallible>(())
                    });
                }
            }
        });
        Ok(Self { address, ledger })
    }

    /// The URL of one of its endpoints.
    pub(crate) fn url(&self, endpoint: &str) -> String {
        format!("http://{}/{endpoint}", self.address)
    }

    /// What it has seen so far.
    pub(crate) fn counts(&self) -> VendorCounts {
        self.ledger.counts()
    }
}

async fn converse(stream: TcpStream, ledger: Arc<Ledger>) {
    let service = service_fn(move |request| {
        let ledger = Arc::clone(&ledger);
        async move { answer(request, &ledger).await }
    });
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    // a connection that ends with an error is one that we cut, or that the caller gave up
    drop(served);
}

async fn answer(request: Request<Incoming>, ledger: &Ledger) -> io::Result<Answer> {
    let endpoint = request.uri().path().trim_start_matches('/').to_owned();
    let key = request.headers().get("idempotency-key").and_then(|key| key.to_str().ok());
    let Some(key) = key.map(ToOwned::to_owned) else {
        return plain(StatusCode::BAD_REQUEST, r#"{"error":"Idempotency-Key is missing"}"#);
    };
    let query = request.uri().query().unwrap_or_default().to_owned();
    let fault = ledger.call(&key);
    let body = Limited::new(request.into_body(), MAX_BODY_BYTES).collect().await;
    let body = body.map_err(|error| io::Error::other(error.to_string()))?.to_bytes();
    tokio::time::sleep(LATENCY).await;
    match fault {
        Some(Fault::Error500) => plain(StatusCode::INTERNAL_SERVER_ERROR, r#"{"error":"something broke"}"#),
        Some(Fault::Busy503) => later(StatusCode::SERVICE_UNAVAILABLE),
        Some(Fault::Throttled429) => later(StatusCode::TOO_MANY_REQUESTS),
        Some(Fault::Cut) => Err(io::Error::from(io::ErrorKind::ConnectionReset)),
        Some(Fault::Torn) => torn(&answers::of(&endpoint, &query, &body).unwrap_or_default()),
        Some(Fault::Forgotten) => {
            tokio::time::sleep(FORGOTTEN).await;
            Err(io::Error::from(io::ErrorKind::TimedOut))
        }
        None => match answers::of(&endpoint, &query, &body) {
            Ok(text) => {
                ledger.succeed(&key);
                plain(StatusCode::OK, &text)
            }
            Err(refusal) => plain(refusal.status, &refusal.body()),
        },
    }
}

fn respond(status: StatusCode) -> hyper::http::response::Builder {
    Response::builder().status(status).header(header::CONTENT_TYPE, "application/json")
}

fn whole(text: &str) -> BoxBody<Bytes, io::Error> {
    Full::new(Bytes::copy_from_slice(text.as_bytes())).map_err(|never| match never {}).boxed()
}

fn plain(status: StatusCode, text: &str) -> io::Result<Answer> {
    respond(status).body(whole(text)).map_err(io::Error::other)
}

fn later(status: StatusCode) -> io::Result<Answer> {
    let answer = respond(status).header(header::RETRY_AFTER, "1").body(whole(r#"{"error":"later, please"}"#));
    answer.map_err(io::Error::other)
}

/// Promises the whole text, sends half of it, and cuts the connection.
fn torn(text: &str) -> io::Result<Answer> {
    let half = Bytes::copy_from_slice(&text.as_bytes()[..text.len() / 2]);
    let sent = stream::iter([Ok(Frame::data(half))]);
    let cut = stream::once(async {
        // the first half has to be on its way before the connection goes
        tokio::time::sleep(TEARING).await;
        Err(io::Error::from(io::ErrorKind::ConnectionReset))
    });
    let body = BoxBody::new(StreamBody::new(sent.chain(cut)));
    respond(StatusCode::OK).header(header::CONTENT_LENGTH, text.len()).body(body).map_err(io::Error::other)
}

#[cfg(test)]
mod tests;
