//! One request and its response on one connection.
//!
//! The connection is driven by the very task that waits for the response, not by a task of its own: dropping the call's
//! future drops the connection and so aborts the request at once, and a call costs no hand-over between tasks.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use hyper::{Request, Response, body::Incoming};
use tidemill_tool::{ErrorClass, ToolError};
use url::Url;

use super::connect::{Connection, Connector, Driver, origin};
use super::guard::Guard;
use super::pool::Pool;

/// What a response's head says, and its whole body.
pub(crate) struct Answer {
    pub(crate) head: hyper::http::response::Parts,
    pub(crate) body: Bytes,
}

/// Polls the connection beside what waits for it.
async fn driven<F: Future>(driver: &mut Driver, ended: &mut bool, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(output);
        }
        if !*ended && Pin::new(&mut *driver).poll(cx).is_ready() {
            // How it ended is told to whoever waits for the response.
            *ended = true;
        }
        future.as_mut().poll(cx)
    })
    .await
}

/// Sends one request and reads the whole response, on a kept connection or a new one.
pub(crate) async fn exchange(
    transport: &Transport,
    guard: &Guard,
    hop: &Hop<'_>,
    limit: usize,
) -> Result<Answer, ToolError> {
    let origin = origin(hop.url);
    let mut request = hop.request()?;
    let host = hop.url.host_str().unwrap_or_default();
    let port = hop.url.port_or_known_default().unwrap_or_default();
    while let Some(mut kept) = transport.pool.take(origin, |peer| guard.permits(host, port, peer)) {
        if is_closed(&mut kept).await {
            continue;
        }
        match send(&mut kept, request).await {
            Ok((response, ended)) => return finish(transport, kept, (response, ended), hop, limit).await,
            // Nothing of it was sent: the server closed the kept connection first.
            Err((_, Some(unsent))) => request = unsent,
            Err((error, None)) => return Err(broken(hop.url, &error)),
        }
    }
    let mut connection = transport.connector.connect(hop.url, guard).await?;
    match send(&mut connection, request).await {
        Ok((response, ended)) => finish(transport, connection, (response, ended), hop, limit).await,
        Err((error, _)) => Err(broken(hop.url, &error)),
    }
}

/// What calls share: connections and how to make them.
pub(crate) struct Transport {
    pub(crate) connector: Connector,
    pub(crate) pool: std::sync::Arc<Pool>,
}

/// One request of a call; a redirect makes another.
pub(crate) struct Hop<'a> {
    pub(crate) method: hyper::Method,
    pub(crate) url: &'a Url,
    pub(crate) headers: &'a hyper::HeaderMap,
    pub(crate) body: Bytes,
}

impl Hop<'_> {
    fn request(&self) -> Result<Request<Full<Bytes>>, ToolError> {
        let unusable = |error: &dyn std::fmt::Display| {
            ToolError::invalid_input(format!("the request cannot be written: {error}"))
        };
        let target = self.url[url::Position::BeforePath..url::Position::AfterQuery].parse::<hyper::Uri>();
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = target.map_err(|error| unusable(&error))?;
        *request.headers_mut() = self.headers.clone();
        let host = hyper::header::HeaderValue::from_str(
            &self.url[url::Position::BeforeHost..url::Position::AfterPort],
        )
        .map_err(|error| unusable(&error))?;
        request.headers_mut().insert(hyper::header::HOST, host);
        Ok(request)
    }
}

/// Looks once whether the server has closed the connection meanwhile.
async fn is_closed(connection: &mut Connection) -> bool {
    poll_fn(|cx| Poll::Ready(Pin::new(&mut connection.driver).poll(cx).is_ready())).await
        || !connection.sender.is_ready()
}

type Unsent = (hyper::Error, Option<Request<Full<Bytes>>>);

async fn send(
    connection: &mut Connection,
    request: Request<Full<Bytes>>,
) -> Result<(Response<Incoming>, bool), Unsent> {
    let mut ended = false;
    let response = connection.sender.try_send_request(request);
    match driven(&mut connection.driver, &mut ended, response).await {
        Ok(response) => Ok((response, ended)),
        Err(mut error) => {
            let unsent = error.take_message();
            Err((error.into_error(), unsent))
        }
    }
}

/// Reads the body and gives the connection back when it can carry another call.
async fn finish(
    transport: &Transport,
    mut connection: Box<Connection>,
    (response, mut ended): (Response<Incoming>, bool),
    hop: &Hop<'_>,
    limit: usize,
) -> Result<Answer, ToolError> {
    let (head, mut body) = response.into_parts();
    if hop.method != hyper::Method::HEAD
        && body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX)
    {
        return Err(too_large(hop.url, limit));
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = driven(&mut connection.driver, &mut ended, body.frame()).await {
        let Ok(data) = frame.map_err(|error| broken(hop.url, &error))?.into_data() else { continue };
        if first.len() + rest.len() + data.len() > limit {
            return Err(too_large(hop.url, limit));
        }
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
    }
    drop(body);
    if !ended && !is_closed(&mut connection).await {
        transport.pool.keep(origin(hop.url), connection);
    }
    Ok(Answer { head, body: if rest.is_empty() { first } else { rest.freeze() } })
}

fn too_large(url: &Url, limit: usize) -> ToolError {
    ToolError::new(
        ErrorClass::BadContent,
        "response_too_large",
        format!(
            "{} answered with more than {limit} bytes; ask for less, or raise http_request.max_response_bytes",
            origin(url)
        ),
    )
}

fn broken(url: &Url, error: &hyper::Error) -> ToolError {
    let origin = origin(url);
    if error.is_parse() {
        let message = format!("{origin} did not answer in HTTP/1.1: {error}");
        return ToolError::new(ErrorClass::BadContent, "bad_response", message);
    }
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    let message = format!("the connection to {origin} broke before the whole response came: {error}{cause}");
    ToolError::new(ErrorClass::Connect, "connection_broken", message)
}
