//! From an origin to an open connection: resolve, ask the guard, connect, TLS.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tidemill_tool::{ErrorClass, ToolError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use url::{Host, Url};

use super::guard::Guard;
use super::settings::Settings;

/// The addresses of a name, in the order to try them.
pub type Resolved = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Turns names into addresses. It is never asked for an address in writing.
pub trait Resolve: Send + Sync + 'static {
    /// Looks a name up.
    fn resolve(&self, host: &str) -> Resolved;
}

/// The resolver of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, host: &str) -> Resolved {
        let host = host.to_owned();
        Box::pin(async move {
            Ok(tokio::net::lookup_host((host.as_str(), 0)).await?.map(|address| address.ip()).collect())
        })
    }
}

/// A socket with or without TLS.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// An open connection, and the address it really leads to.
pub(crate) struct Connection {
    pub(crate) stream: Stream,
    pub(crate) peer: IpAddr,
}

/// Opens connections.
pub(crate) struct Connector {
    resolver: Arc<dyn Resolve>,
    tls: TlsConnector,
    timeout: Duration,
}

impl Connector {
    /// # Errors
    /// The file of certificate authorities cannot be used.
    pub(crate) fn new(settings: &Settings, resolver: Arc<dyn Resolve>) -> Result<Self, String> {
        Ok(Self {
            resolver,
            tls: TlsConnector::from(Arc::new(tls_config(settings)?)),
            timeout: Duration::from_millis(settings.connect_timeout_ms),
        })
    }

    /// Opens a connection to the URL's origin, if the guard lets it.
    pub(crate) async fn connect(&self, url: &Url, guard: &Guard) -> Result<Connection, ToolError> {
        let origin = origin(url);
        match tokio::time::timeout(self.timeout, self.open(url, guard)).await {
            Ok(result) => result,
            Err(_) => Err(ToolError::new(
                ErrorClass::Connect,
                "connect_timeout",
                format!("no connection to {origin} within {} ms", self.timeout.as_millis()),
            )),
        }
    }

    async fn open(&self, url: &Url, guard: &Guard) -> Result<Connection, ToolError> {
        let tcp = self.open_tcp(url, guard).await?;
        let failed = |code: &'static str, what: &str, error: &dyn std::fmt::Display| {
            ToolError::new(ErrorClass::Connect, code, format!("{what} {} failed: {error}", origin(url)))
        };
        let peer = tcp.peer_addr().map_err(|error| failed("connect_failed", "connecting to", &error))?.ip();
        // Latency matters more than a packet; a socket that refuses the option still works.
        drop(tcp.set_nodelay(true));
        let stream = if url.scheme() == "https" {
            let name = server_name(url).map_err(|error| failed("tls_failed", "TLS with", &error))?;
            let tls = self
                .tls
                .connect(name, tcp)
                .await
                .map_err(|error| failed("tls_failed", "TLS with", &error))?;
            Stream::Tls(Box::new(tls))
        } else {
            Stream::Plain(tcp)
        };
        Ok(Connection { stream, peer })
    }

    async fn open_tcp(&self, url: &Url, guard: &Guard) -> Result<TcpStream, ToolError> {
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or_default();
        let addresses = self.addresses(url).await?;
        let permitted: Vec<IpAddr> =
            addresses.into_iter().filter(|&address| guard.permits(host, port, address)).collect();
        if permitted.is_empty() {
            return Err(Guard::refusal(host, port));
        }
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        let share = self.timeout / u32::try_from(permitted.len()).unwrap_or(u32::MAX);
        for address in permitted {
            match tokio::time::timeout(share, TcpStream::connect(SocketAddr::new(address, port))).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(ToolError::new(
            ErrorClass::Connect,
            "connect_failed",
            format!("connecting to {} failed: {last}", origin(url)),
        ))
    }

    async fn addresses(&self, url: &Url) -> Result<Vec<IpAddr>, ToolError> {
        match url.host() {
            Some(Host::Ipv4(address)) => Ok(vec![address.into()]),
            Some(Host::Ipv6(address)) => Ok(vec![address.into()]),
            Some(Host::Domain(name)) => match self.resolver.resolve(name).await {
                Ok(addresses) if !addresses.is_empty() => Ok(addresses),
                Ok(_) => Err(unresolved(name, "it has no address")),
                Err(error) => Err(unresolved(name, &error)),
            },
            None => Err(ToolError::invalid_input("the URL has no host")),
        }
    }
}

fn unresolved(name: &str, why: impl std::fmt::Display) -> ToolError {
    ToolError::new(ErrorClass::Connect, "dns_failed", format!("the name {name} cannot be resolved: {why}"))
}

/// Scheme, host and port, as the pool and the error messages name them.
pub(crate) fn origin(url: &Url) -> &str {
    url.as_str().get(..url[..url::Position::BeforePath].len()).unwrap_or_default()
}

fn server_name(url: &Url) -> Result<ServerName<'static>, rustls::pki_types::InvalidDnsNameError> {
    match url.host() {
        Some(Host::Ipv4(address)) => Ok(ServerName::from(IpAddr::from(address))),
        Some(Host::Ipv6(address)) => Ok(ServerName::from(IpAddr::from(address))),
        Some(Host::Domain(name)) => ServerName::try_from(name.trim_end_matches('.').to_owned()),
        None => ServerName::try_from(String::new()),
    }
}

/// TLS with the ring provider and the compiled-in public authorities: it works in an image without a system store.
fn tls_config(settings: &Settings) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = &settings.ca_file {
        let unusable =
            |why: &dyn std::fmt::Display| format!("ca_file: {} cannot be used: {why}", path.display());
        let certificates = CertificateDer::pem_file_iter(path).map_err(|error| unusable(&error))?;
        let mut added = 0_usize;
        for certificate in certificates {
            roots.add(certificate.map_err(|error| unusable(&error))?).map_err(|error| unusable(&error))?;
            added += 1;
        }
        if added == 0 {
            return Err(unusable(&"it holds no certificate in PEM form"));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
