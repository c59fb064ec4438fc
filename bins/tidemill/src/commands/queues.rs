//! `tidemill queues`.

use std::collections::BTreeMap;

use serde::Serialize;
use tidemill_store::{QueueDepth, keys};

use super::workers;
use crate::context::Context;
use crate::error::Outcome;
use crate::moment::duration;
use crate::table::{Cell, Style, Table};

/// Show how much work each queue holds, and who serves it
///
/// The row (runs) holds runs that are asked for and not started. A queue with work and no worker is marked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill queues
  tidemill queues --json | jq 'select(.ready > 1000) | .queue'")]
pub(crate) struct Arguments {}

#[derive(Debug, Serialize)]
struct Queue {
    queue: String,
    /// Entries that nobody has claimed.
    ready: u64,
    /// Entries that workers hold.
    running: u64,
    /// Work put aside until a time: delays, retries.
    deferred: u64,
    /// Work parked in lines, where it waits for limits.
    parked: u64,
    /// Age of the oldest entry, claimed or not.
    oldest_ms: Option<u64>,
    /// Processes that say they serve it.
    workers: usize,
}

pub(crate) async fn run(context: &Context, Arguments {}: Arguments) -> Outcome {
    let (now_ms, members) = (context.store.home().now_ms().await?, workers::members(context).await?);
    let mut depths: BTreeMap<String, QueueDepth> = BTreeMap::new();
    for partition in context.store.partitions() {
        let mut names = partition.queues().await?;
        names.push(keys::RUNS.to_owned());
        for name in names {
            add(&mut depths, partition.depth(&name).await?);
        }
    }
    let queues = depths.into_values().map(|depth| {
        let serves = |member: &&tidemill_store::Member| match depth.queue.as_str() {
            keys::RUNS => member.role == "scheduler",
            queue => member.queues.iter().any(|served| served == queue),
        };
        let oldest_ms = depth.oldest_ms.map(|at| now_ms.saturating_sub(at));
        let workers = members.iter().filter(serves).count();
        let QueueDepth { queue, ready, running, deferred, parked, .. } = depth;
        let queue = if queue == keys::RUNS { "(runs)".to_owned() } else { queue };
        Queue { queue, ready, running, deferred, parked, oldest_ms, workers }
    });
    let mut table =
        Table::new(&["QUEUE", ">READY", ">RUNNING", ">DEFERRED", ">PARKED", ">OLDEST", ">WORKERS", "NOTE"]);
    for queue in queues {
        if context.output.is_json() {
            context.output.document(&queue);
            continue;
        }
        let alone = queue.workers == 0 && queue.ready + queue.deferred + queue.parked > 0;
        table.row(vec![
            Cell::new(&queue.queue),
            queue.ready.into(),
            queue.running.into(),
            queue.deferred.into(),
            queue.parked.into(),
            Cell::new(queue.oldest_ms.map(duration).unwrap_or_default()),
            queue.workers.into(),
            if alone { Cell::new("nobody serves it").style(Style::Bad) } else { Cell::default() },
        ]);
    }
    if !context.output.is_json() {
        context.output.table(&table);
    }
    Ok(())
}

fn add(depths: &mut BTreeMap<String, QueueDepth>, more: QueueDepth) {
    let depth = depths
        .entry(more.queue.clone())
        .or_insert_with(|| QueueDepth { queue: more.queue, ..QueueDepth::default() });
    depth.ready += more.ready;
    depth.running += more.running;
    depth.deferred += more.deferred;
    depth.parked += more.parked;
    depth.oldest_ms = depth.oldest_ms.into_iter().chain(more.oldest_ms).min();
}
