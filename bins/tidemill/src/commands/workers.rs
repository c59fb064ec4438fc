//! `tidemill workers`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use serde::Serialize;
use tidemill_store::{Member, keys};
use tokio::time::Instant;

use crate::context::Context;
use crate::error::Outcome;
use crate::moment::duration;
use crate::table::{Cell, Table};

/// List the processes of the pool: workers and schedulers, whether they live, what they hold
///
/// Alive is whose liveness counter moves while this command looks, which takes up to two and a half seconds. A silent process is
/// frozen, cut off or gone; schedulers take its work after five seconds.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill workers
  tidemill workers --json | jq 'select(.alive | not) | .consumer'")]
pub(crate) struct Arguments {}

/// Liveness is renewed each second; twice that and some.
const LOOK: Duration = Duration::from_millis(2_500);
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Serialize)]
struct Process {
    #[serde(flatten)]
    member: Member,
    alive: bool,
    /// Entries that it holds.
    holds: u64,
    up_ms: u64,
}

pub(crate) async fn run(context: &Context, Arguments {}: Arguments) -> Outcome {
    let members = members(context).await?;
    let alive = alive(context, &members).await?;
    let (held, now_ms) = (held(context).await?, context.store.home().now_ms().await?);
    let mut table = Table::new(&["PROCESS", "ROLE", "STATE", ">HOLDS", ">SLOTS", "QUEUES", ">UP", "VERSION"]);
    for member in members {
        let process = Process {
            alive: alive.contains(&member.consumer),
            holds: held.get(&member.consumer).copied().unwrap_or(0),
            up_ms: now_ms.saturating_sub(member.started_at_ms),
            member,
        };
        if context.output.is_json() {
            context.output.document(&process);
            continue;
        }
        let member = &process.member;
        table.row(vec![
            Cell::new(&member.consumer),
            Cell::new(&member.role),
            Cell::state(if process.alive { "alive" } else { "silent" }),
            process.holds.into(),
            if member.slots == 0 { Cell::default() } else { member.slots.into() },
            Cell::new(member.queues.join(",")),
            Cell::new(if member.started_at_ms == 0 { String::new() } else { duration(process.up_ms) }),
            Cell::new(&member.version),
        ]);
    }
    context.output.listing(&table, "no process has announced itself; `tidemill dev` starts all of them");
    Ok(())
}

/// The processes of all partitions, each once.
pub(crate) async fn members(context: &Context) -> Outcome<Vec<Member>> {
    let mut members: BTreeMap<(String, String), Member> = BTreeMap::new();
    for partition in context.store.partitions() {
        for member in partition.members().await? {
            members.insert((member.role.clone(), member.consumer.clone()), member);
        }
    }
    Ok(members.into_values().collect())
}

/// Who moves its counter while we look.
async fn alive(context: &Context, members: &[Member]) -> Outcome<HashSet<String>> {
    let (home, started) = (context.store.home(), Instant::now());
    let (first, mut alive) = (home.beats().await?, HashSet::new());
    while alive.len() < members.len() && started.elapsed() < LOOK {
        tokio::time::sleep(PAUSE).await;
        let now = home.beats().await?;
        let moved = members.iter().filter(|member| {
            now.get(&member.consumer).is_some_and(|beat| first.get(&member.consumer) != Some(beat))
        });
        alive.extend(moved.map(|member| member.consumer.clone()));
    }
    Ok(alive)
}

/// How many entries each consumer holds.
async fn held(context: &Context) -> Outcome<HashMap<String, u64>> {
    let mut held: HashMap<String, u64> = HashMap::new();
    for partition in context.store.partitions() {
        let mut streams = vec![(partition.keys().runs(), keys::SCHEDULERS)];
        streams.extend(
            partition
                .queues()
                .await?
                .iter()
                .flat_map(|queue| [queue.clone(), [queue, keys::FIRST].concat()])
                .map(|queue| (partition.keys().jobs(&queue), keys::WORKERS)),
        );
        for (stream, group) in streams {
            for (consumer, pending) in partition.consumers(&stream, group).await? {
                *held.entry(consumer).or_default() += pending;
            }
        }
    }
    Ok(held)
}
