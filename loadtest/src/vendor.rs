//! A service that answers every HTTP request after a while: what slow calls are measured against.
//!
//! Every answer comes after the asked time give or take half a millisecond, because timers tick in milliseconds and rounding up
//! would take from the throughput that is there to be had.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{\"ok\":true}";
const HEAD_END: &[u8] = b"\r\n\r\n";

/// Serves until the process ends; says where on standard output.
pub(crate) async fn serve(addr: SocketAddr, answer_after: Duration) -> Result<()> {
    let listener = TcpListener::bind(addr).await.with_context(|| format!("listening on {addr}"))?;
    let addr = listener.local_addr()?;
    writeln!(std::io::stdout().lock(), "listening on {addr}").context("saying where it listens")?;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.context("accepting a connection")?;
                // a client that goes away ends its own connection only
                connections.spawn(async move { answer(stream, answer_after).await.ok() });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Answers the requests of one connection, one after the other; they have no bodies.
async fn answer(mut stream: TcpStream, after: Duration) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut received = Vec::with_capacity(1_024);
    while stream.read_buf(&mut received).await? > 0 {
        while let Some(at) = received.windows(HEAD_END.len()).position(|window| window == HEAD_END) {
            let due = Instant::now() + after.saturating_sub(Duration::from_micros(500));
            received.drain(..at + HEAD_END.len());
            tokio::time::sleep_until(due).await;
            stream.write_all(ANSWER).await?;
        }
    }
    Ok(())
}
