//! One request and its response on one connection.
//!
//! The task of the call itself moves the bytes: dropping the call's future drops the connection and so aborts the request
//! at once, and a call costs no hand-over between tasks. While a call waits it holds no buffer: bytes are read onto the
//! stack and kept only as the response that they make.

use std::future::poll_fn;
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{HeaderMap, Method};
use tidemill_tool::{ErrorClass, ToolError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use url::Url;

use super::connect::{Connection, Connector, Stream, origin};
use super::guard::Guard;
use super::pool::Pool;
use super::reader::{Answer, Fault, Reader};

/// How much is read at once, in bytes.
const READ_BYTES: usize = 16 * 1024;

/// What calls share: connections and how to make them.
pub(crate) struct Transport {
    pub(crate) connector: Connector,
    pub(crate) pool: Arc<Pool>,
}

/// One request of a call; a redirect makes another.
pub(crate) struct Hop<'a> {
    pub(crate) method: &'a Method,
    pub(crate) url: &'a Url,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a Bytes,
    /// The most bytes of the response's body.
    pub(crate) limit: usize,
    /// Whether the limits of a service count the request: then it is sent once, whatever happens to it.
    pub(crate) is_counted: bool,
}

impl Hop<'_> {
    /// The bytes before the body.
    fn head(&self) -> Result<Vec<u8>, ToolError> {
        let target = &self.url[url::Position::BeforePath..url::Position::AfterQuery];
        let host = &self.url[url::Position::BeforeHost..url::Position::AfterPort];
        // The URL parser leaves no such byte; a request that is split by one would be two.
        if let Some(byte) = target.bytes().chain(host.bytes()).find(|byte| !byte.is_ascii_graphic()) {
            return Err(unwritable(&format!("its URL holds the byte {byte:#04x}")));
        }
        let size: usize =
            self.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        let mut head = Vec::with_capacity(size + target.len() + host.len() + 64);
        write!(head, "{} {target} HTTP/1.1\r\nhost: {host}\r\n", self.method)
            .map_err(|error| unwritable(&error))?;
        for (name, value) in self.headers {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                head.extend_from_slice(part);
            }
        }
        let tells_length =
            !self.body.is_empty() || [Method::POST, Method::PUT, Method::PATCH].contains(self.method);
        if tells_length {
            write!(head, "content-length: {}\r\n", self.body.len()).map_err(|error| unwritable(&error))?;
        }
        head.extend_from_slice(b"\r\n");
        Ok(head)
    }

    fn error(&self, fault: Fault) -> ToolError {
        let origin = origin(self.url);
        let (class, code, message) = match fault {
            Fault::Malformed(why) => (
                ErrorClass::BadContent,
                "bad_response",
                format!("{origin} did not answer in HTTP/1.1: {why}"),
            ),
            Fault::TooLarge => (
                ErrorClass::BadContent,
                "response_too_large",
                format!(
                    "{origin} answered with more than {} bytes; ask for less, or raise http_request.max_response_bytes",
                    self.limit
                ),
            ),
            Fault::Cut(cause) => {
                let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
                let message =
                    format!("the connection to {origin} broke before the whole response came{cause}");
                (ErrorClass::Connect, "connection_broken", message)
            }
        };
        ToolError::new(class, code, message)
    }
}

fn unwritable(why: &dyn std::fmt::Display) -> ToolError {
    ToolError::invalid_input(format!("the request cannot be written: {why}"))
}

/// Sends one request and reads the whole response, on a kept connection or a new one.
///
/// A server may close a kept connection just when a request is written to it. When no byte of a response came, the
/// request goes once to a new connection, if none of it was sent, or if its method is idempotent (RFC 9112 §9.3.1) and
/// nobody counts it: what was granted as one call must not reach the service as two. Any other attempt fails, for its
/// request may have been carried out. Nothing is repeated on a new connection.
pub(crate) async fn exchange(
    transport: &Transport,
    guard: &Guard,
    hop: &Hop<'_>,
) -> Result<Answer, ToolError> {
    let head = hop.head()?;
    if let Some(mut kept) = take_kept(transport, guard, hop.url) {
        let mut transfer = Transfer::new(head, hop);
        match poll_fn(|cx| transfer.poll(&mut kept.stream, cx)).await {
            Ok(()) => return conclude(transport, kept, transfer),
            Err(Fault::Cut(_)) if transfer.may_be_repeated() => {}
            Err(fault) => return Err(hop.error(fault)),
        }
        drop(kept);
        return exchange_anew(transport, guard, hop, hop.head()?).await;
    }
    exchange_anew(transport, guard, hop, head).await
}

async fn exchange_anew(
    transport: &Transport,
    guard: &Guard,
    hop: &Hop<'_>,
    head: Vec<u8>,
) -> Result<Answer, ToolError> {
    // On the heap, so that the calls that wait for a response do not carry the room for connecting.
    let mut connection = Box::pin(transport.connector.connect(hop.url, guard)).await?;
    let mut transfer = Transfer::new(head, hop);
    match poll_fn(|cx| transfer.poll(&mut connection.stream, cx)).await {
        Ok(()) => conclude(transport, connection, transfer),
        Err(fault) => Err(hop.error(fault)),
    }
}

/// The freshest kept connection that still lives.
fn take_kept(transport: &Transport, guard: &Guard, url: &Url) -> Option<Connection> {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    loop {
        let mut kept = transport.pool.take(origin(url), |peer| guard.permits(host, port, peer))?;
        if is_silent(&mut kept.stream) {
            return Some(kept);
        }
    }
}

/// Looks once whether the server has closed the connection, or said what nobody asked for.
fn is_silent(stream: &mut Stream) -> bool {
    let mut byte = [0];
    let mut buffer = ReadBuf::new(&mut byte);
    Pin::new(stream).poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer).is_pending()
}

/// Gives the connection back when it can carry another call.
fn conclude(
    transport: &Transport,
    connection: Connection,
    transfer: Transfer<'_>,
) -> Result<Answer, ToolError> {
    let Transfer { hop, is_flushed, reader, .. } = transfer;
    let (answer, is_reusable) = reader.finish().ok_or_else(|| hop.error(Fault::Cut(None)))?;
    if is_reusable && is_flushed {
        transport.pool.keep(origin(hop.url), connection);
    }
    Ok(answer)
}

/// The state of one request on one connection.
struct Transfer<'a> {
    hop: &'a Hop<'a>,
    /// Freed when it is sent.
    head: Vec<u8>,
    head_length: usize,
    /// How much of head and body the connection has taken.
    sent: usize,
    is_flushed: bool,
    /// Why writing ended; the server may have answered all the same.
    write_error: Option<io::Error>,
    reader: Reader,
}

impl<'a> Transfer<'a> {
    fn new(head: Vec<u8>, hop: &'a Hop<'a>) -> Self {
        Self {
            hop,
            head_length: head.len(),
            head,
            sent: 0,
            is_flushed: false,
            write_error: None,
            reader: Reader::new(hop.limit),
        }
    }

    /// Whether the request can go to another connection without being carried out twice.
    fn may_be_repeated(&self) -> bool {
        let is_idempotent = [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE]
            .contains(self.hop.method);
        !self.reader.has_begun() && (self.sent == 0 || (is_idempotent && !self.hop.is_counted))
    }

    /// Writes and reads as far as the connection lets it: a server may answer before it has read the whole request.
    fn poll(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        if !self.is_flushed && self.write_error.is_none() {
            match self.poll_write(stream, cx) {
                Poll::Ready(Ok(())) => {
                    self.is_flushed = true;
                    self.head = Vec::new();
                }
                Poll::Ready(Err(error)) => self.write_error = Some(error),
                Poll::Pending => {}
            }
        }
        self.poll_response(stream, cx)
    }

    fn poll_write(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let total = self.head_length + self.hop.body.len();
        while self.sent < total {
            let head = self.head.get(self.sent..).unwrap_or_default();
            let body = self.hop.body.get(self.sent.saturating_sub(self.head_length)..).unwrap_or_default();
            let parts = [IoSlice::new(head), IoSlice::new(body)];
            let parts = if head.is_empty() { &parts[1..] } else { &parts[..] };
            match ready!(Pin::new(&mut *stream).poll_write_vectored(cx, parts))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        Pin::new(stream).poll_flush(cx)
    }

    fn poll_response(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let mut space = [const { MaybeUninit::uninit() }; READ_BYTES];
        loop {
            let mut buffer = ReadBuf::uninit(&mut space);
            if let Err(error) = ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer)) {
                return Poll::Ready(Err(self.cut(Some(error))));
            }
            if buffer.filled().is_empty() {
                return Poll::Ready(self.reader.end().map_err(|fault| match fault {
                    Fault::Cut(cause) => self.cut(cause),
                    Fault::Malformed(_) | Fault::TooLarge => fault,
                }));
            }
            if self.reader.feed(buffer.filled(), self.hop.method)? {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// The break as its first cause tells it.
    fn cut(&mut self, read_error: Option<io::Error>) -> Fault {
        Fault::Cut(self.write_error.take().or(read_error))
    }
}
