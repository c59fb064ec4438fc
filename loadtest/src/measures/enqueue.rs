//! How fast jobs get in: one at a time, pipelined, and in batches through the producer's HTTP API.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use redis::Value;
use redis::aio::MultiplexedConnection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::bench::Bench;
use crate::queue::{BATCH, JOBS, additions, ask, input};
use crate::report::{Figure, Row, Unit};

static SINGLE: Row =
    Row { label: "enqueue one at a time (XADD, one connection)", unit: Unit::PerSecond, aim: "≥ 12,000/s" };
static PIPELINED: Row = Row {
    label: "enqueue pipelined (1,000 XADD at once, two connections)",
    unit: Unit::PerSecond,
    aim: "≥ 500,000/s",
};
static HTTP: Row = Row {
    label: "enqueue by HTTP (10,000 lines a request, two connections)",
    unit: Unit::PerSecond,
    aim: "≥ 100,000/s",
};

const CONNECTIONS: usize = 2;
const LINES: usize = 10_000;

pub(super) async fn take(bench: &Bench) -> Result<Vec<Figure>> {
    let mut connection = bench.connect().await?;
    let mut figures = Vec::new();
    for (row, rate) in [
        (&SINGLE, single(&mut connection, bench.scaled(30_000)).await?),
        (&PIPELINED, pipelined(bench, bench.scaled(1_000_000)).await?),
    ] {
        figures.push(Figure { row, value: rate });
        ask::<Value>(&mut connection, &["FLUSHALL", "SYNC"]).await?;
    }
    figures.push(Figure { row: &HTTP, value: by_http(bench, bench.scaled(400_000)).await? });
    Ok(figures)
}

async fn single(connection: &mut MultiplexedConnection, count: usize) -> Result<f64> {
    let input = input();
    let add = crate::queue::command(&["XADD", JOBS, "*", "tool", "echo", "input", &input]);
    let start = Instant::now();
    for _ in 0..count {
        add.exec_async(connection).await?;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

async fn pipelined(bench: &Bench, count: usize) -> Result<f64> {
    let (input, mut senders) = (input(), JoinSet::new());
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(bench.connect().await?);
    }
    let start = Instant::now();
    for mut connection in connections {
        let batch = additions(JOBS, &[("tool", "echo"), ("input", &input)], BATCH);
        senders.spawn(async move {
            for _ in 0..count / CONNECTIONS / BATCH {
                batch.exec_async(&mut connection).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = senders.join_next().await {
        done.context("a sender ended early")??;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

async fn by_http(bench: &Bench, count: usize) -> Result<f64> {
    let producer = bench.producer().await?;
    let addr = producer.said("addr")?.to_owned();
    let line = format!("{{\"tool\":\"echo\",\"input\":{}}}\n", input());
    let body = line.repeat(LINES);
    let head = format!(
        "POST /v1/jobs HTTP/1.1\r\nhost: {addr}\r\ncontent-type: application/x-ndjson\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let request: std::sync::Arc<[u8]> = [head.as_bytes(), body.as_bytes()].concat().into();
    let (requests, mut senders) = ((count / LINES / CONNECTIONS).max(1), JoinSet::new());
    let start = Instant::now();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(&addr).await.context("connecting to the producer")?;
        let request = request.clone();
        senders.spawn(async move {
            for _ in 0..requests {
                stream.write_all(&request).await?;
                answer(&mut stream).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = senders.join_next().await {
        done.context("a sender ended early")??;
    }
    let took: Duration = start.elapsed();
    let mut connection = bench.connect().await?;
    let (taken, sent): (usize, usize) =
        (ask(&mut connection, &["XLEN", JOBS]).await?, requests * CONNECTIONS * LINES);
    if taken != sent {
        bail!("the producer took in {taken} of {sent} jobs");
    }
    Ok(sent as f64 / took.as_secs_f64())
}

/// Reads one answer to its end; anything but 200 with a length is an error.
async fn answer(stream: &mut TcpStream) -> Result<()> {
    let mut received = Vec::with_capacity(1 << 20);
    let (mut length, mut body_at) = (None, 0);
    loop {
        if stream.read_buf(&mut received).await? == 0 {
            bail!("the producer closed the connection in the middle of an answer");
        }
        if length.is_none()
            && let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n")
        {
            let head = String::from_utf8_lossy(received.get(..end).unwrap_or_default()).to_ascii_lowercase();
            if !head.starts_with("http/1.1 200") {
                bail!("the producer answered {}", String::from_utf8_lossy(&received));
            }
            let value = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            length = Some(value.context("the answer has no content-length")?.trim().parse::<usize>()?);
            body_at = end + 4;
        }
        if length.is_some_and(|length| received.len() >= body_at + length) {
            return Ok(());
        }
    }
}
