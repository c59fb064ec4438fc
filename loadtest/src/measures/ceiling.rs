//! The ceiling: what this Redis gives to the bare commands that a job needs, over the client library that Tidemill uses.
//!
//! Cycles repeat: add 100 entries (one pipeline), read them as a group, acknowledge and delete them (one pipeline). Each of the two
//! connections carries several cycles at once, so that Redis never waits for a client: the ceiling is what its one core can do.

use anyhow::{Context, Result};
use redis::{Cmd, Pipeline, Value};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::bench::{Bench, Ceiling};
use crate::queue::{Info, additions, ask, input};
use crate::report::{Figure, Row, Unit};

static CEILING: Row = Row {
    label: "ceiling: XADD, XREADGROUP, XACK, XDEL in batches of 100, two connections",
    unit: Unit::PerSecond,
    aim: "",
};
static REDIS: Row = Row { label: "… Redis processor time per entry", unit: Unit::Microseconds, aim: "" };
static BUSY: Row = Row {
    label: "… share of the time that Redis was busy (below 90 %: starved, so too low)",
    unit: Unit::Share,
    aim: "≥ 90 %",
};

const BATCH: usize = 100;
const CONNECTIONS: usize = 2;
/// Cycles under way on one connection.
const CYCLES: usize = 4;

pub(super) async fn take(bench: &mut Bench) -> Result<Vec<Figure>> {
    let each = bench.scaled(800_000) / (CONNECTIONS * CYCLES);
    let mut asking = bench.connect().await?;
    let mut places = Vec::new();
    for connection in 0..CONNECTIONS {
        let shared = bench.connect().await?;
        for cycle in 0..CYCLES {
            let stream = format!("ceiling:{connection}:{cycle}");
            ask::<Value>(&mut asking, &["XGROUP", "CREATE", &stream, "workers", "0", "MKSTREAM"]).await?;
            places.push((shared.clone(), stream));
        }
    }
    let (before, start) = (Info::read(&mut asking).await?.processor()?, Instant::now());
    let mut cycles = JoinSet::new();
    for (connection, stream) in places {
        cycles.spawn(cycle(connection, stream, each));
    }
    while let Some(done) = cycles.join_next().await {
        done.context("a cycle of bare commands ended early")??;
    }
    let (took, count) = (start.elapsed().as_secs_f64(), (each * CONNECTIONS * CYCLES) as f64);
    let used = Info::read(&mut asking).await?.processor()?.saturating_sub(before).as_secs_f64();
    let rate = count / took;
    let redis = used * 1e6 / count;
    bench.ceiling = Some(Ceiling { rate, redis });
    Ok(vec![
        Figure { row: &CEILING, value: rate },
        Figure { row: &REDIS, value: redis },
        Figure { row: &BUSY, value: used / took },
    ])
}

async fn cycle(
    mut connection: redis::aio::MultiplexedConnection,
    stream: String,
    count: usize,
) -> Result<()> {
    let input = input();
    let add = additions(&stream, &[("tool", "echo"), ("input", &input)], BATCH);
    let mut read = Cmd::new();
    read.arg(&["XREADGROUP", "GROUP", "workers", "c", "COUNT"]).arg(BATCH).arg(&[
        "STREAMS",
        stream.as_str(),
        ">",
    ]);
    for _ in 0..count / BATCH {
        add.exec_async(&mut connection).await?;
        let reply: Value = read.query_async(&mut connection).await?;
        let ids = ids(reply).context("XREADGROUP answered with something else than entries")?;
        let mut both = Pipeline::with_capacity(2);
        both.cmd("XACK").arg(&stream).arg("workers").arg(&ids);
        both.cmd("XDEL").arg(&stream).arg(&ids);
        both.exec_async(&mut connection).await?;
    }
    Ok(())
}

/// The ids of the entries of a reply with one stream.
fn ids(reply: Value) -> Option<Vec<Vec<u8>>> {
    let Value::Array(streams) = reply else { return None };
    let Value::Array(mut pair) = streams.into_iter().next()? else { return None };
    let Value::Array(entries) = pair.pop()? else { return None };
    entries
        .into_iter()
        .map(|entry| {
            let Value::Array(parts) = entry else { return None };
            match parts.into_iter().next()? {
                Value::BulkString(id) => Some(id),
                _ => None,
            }
        })
        .collect()
}
