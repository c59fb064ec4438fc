//! `http.request` over TLS, against a server with an authority of its own.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::json;
use tempfile::NamedTempFile;
use tidemill_tool::Tool;
use tidemill_tools::HttpRequest;
use tidemill_tools::http::{Client, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_rustls::server::TlsStream;

use crate::{TestResult, call, code_of};

/// A server that knows its certificate, and how many connections it has taken.
struct TlsServer {
    origin: String,
    authority: NamedTempFile,
    connections: Arc<AtomicUsize>,
}

impl TlsServer {
    async fn start() -> Result<Self, Box<dyn std::error::Error>> {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let mut authority = NamedTempFile::new()?;
        let text = STANDARD.encode(cert.der());
        write!(authority, "-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")?;
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], signing_key.into())?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let origin = format!("https://{}", listener.local_addr()?);
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(answer(acceptor.clone(), stream));
            }
        });
        Ok(Self { origin, authority, connections })
    }

    fn tool(&self, trusts: bool) -> Result<Arc<dyn Tool>, String> {
        let settings = Settings {
            allow_networks: vec!["127.0.0.0/8".to_owned()],
            ca_file: trusts.then(|| self.authority.path().to_owned()),
            ..Settings::default()
        };
        Ok(Arc::new(HttpRequest::new(Client::new(settings)?)))
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }
}

/// Gives each body back; `/truncated` ends without TLS saying that it is the end.
async fn answer(acceptor: TlsAcceptor, stream: TcpStream) -> std::io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    loop {
        let (head, body) = read_request(&mut stream).await?;
        let unannounced = b"HTTP/1.1 200 OK\r\n\r\nhalf";
        match head.split(' ').nth(1) {
            Some("/truncated") => {
                stream.write_all(unannounced).await?;
                stream.flush().await?;
                let (mut tcp, _) = stream.into_inner();
                return tcp.shutdown().await;
            }
            Some("/ended") => {
                stream.write_all(unannounced).await?;
                return stream.shutdown().await;
            }
            _ => {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all(head.as_bytes()).await?;
                stream.write_all(&body).await?;
                stream.flush().await?;
            }
        }
    }
}

async fn read_request(stream: &mut TlsStream<TcpStream>) -> std::io::Result<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or_default()];
    stream.read_exact(&mut body).await?;
    Ok((head, body))
}

#[tokio::test]
async fn large_bodies_go_both_ways_over_one_tls_connection() -> TestResult {
    let server = TlsServer::start().await?;
    let tool = server.tool(true)?;
    for length in [0, 1, 20_000, 900_000] {
        let body = "x".repeat(length);
        let output =
            call(&tool, &json!({"method": "POST", "url": server.url("/"), "text": body, "response": "text"}))
                .await?;
        assert!(output["body"] == body.as_str(), "the echo of {length} bytes differs");
    }
    assert_eq!(server.connections.load(Ordering::Relaxed), 1);
    Ok(())
}

#[tokio::test]
async fn an_authority_that_is_not_trusted_is_refused() -> TestResult {
    let server = TlsServer::start().await?;
    assert_eq!(code_of(&server.tool(false)?, &json!({"url": server.url("/")})).await, "tls_failed");
    Ok(())
}

#[tokio::test]
async fn a_body_that_only_an_attacker_ended_is_not_whole() -> TestResult {
    let server = TlsServer::start().await?;
    let tool = server.tool(true)?;
    assert_eq!(call(&tool, &json!({"url": server.url("/ended")})).await?["body"], "half");
    assert_eq!(code_of(&tool, &json!({"url": server.url("/truncated")})).await, "connection_broken");
    Ok(())
}
