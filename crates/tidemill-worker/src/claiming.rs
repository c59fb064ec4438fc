//! The claim loop of one partition: as much as there is room for, in the order that the queues' weights give.

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tidemill_runtime::crash::{self, Point};
use tidemill_runtime::health::Component;
use tidemill_store::{ClaimedEntry, Claimer, Error, keys};
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use crate::executor::Event;
use crate::queues::Queues;
use crate::shared::Shared;

/// Claims until the token is cancelled. After a fault the sweep is woken: what a lost reply claimed must be found.
pub(crate) async fn run(
    shared: Arc<Shared>,
    partition: u16,
    events: UnboundedSender<Event>,
    (token, sweep, health): (CancellationToken, Arc<Notify>, Component),
) -> Result<(), Error> {
    let block = std::time::Duration::from_millis(shared.settings.block_ms);
    let mut claimer = shared.store.claimer(u32::from(partition), keys::WORKERS, &shared.consumer, block)?;
    let mut random = SmallRng::from_os_rng();
    let mut failing = true;
    loop {
        let room = tokio::select! {
            biased;
            () = token.cancelled() => return Ok(()),
            // all partitions' claimers see the same room: each takes its share of it, or together they would overfill it
            room = shared.capacity.room_for_some() =>
                room.div_ceil(shared.store.partitions().len()).min(shared.settings.max_batch),
        };
        crash::before(Point::WorkerClaim);
        let claimed = tokio::select! {
            biased;
            // a reply that is on its way is lost with this; the drain's last sweep finds what it claimed
            () = token.cancelled() => return Ok(()),
            claimed = claim(&shared, &mut claimer, &mut random, room) => claimed,
        };
        if claimed.as_ref().is_ok_and(|batches| !batches.is_empty()) {
            crash::after(Point::WorkerClaim);
        }
        match claimed {
            Ok(batches) => {
                if failing {
                    failing = false;
                    health.set_ready();
                    sweep.notify_one();
                }
                for (queue, entries) in batches {
                    take(&shared, (partition, queue), entries, &events);
                }
            }
            Err(error) => {
                failing = true;
                shared.metrics.fault(&error);
                health.set_unready(format!("claiming fails: {error}"));
                tracing::warn!(%error, "claiming fails; trying again");
                if !error.is_transient() {
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                } else if error.remedy() == tidemill_store::Remedy::Wait {
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                } else {
                    // a server that takes connections and breaks them at once is not asked without end
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
            }
        }
    }
}

fn take(
    shared: &Shared,
    (partition, queue): (u16, usize),
    entries: Vec<ClaimedEntry>,
    events: &UnboundedSender<Event>,
) {
    if entries.is_empty() {
        return;
    }
    shared.capacity.take(entries.len());
    shared.metrics.claimed.with(&[keys::base_of(shared.queues.name(queue))]).inc_by(entries.len() as u64);
    let queue = u16::try_from(queue).unwrap_or(u16::MAX);
    // the executor outlives the claimers; if it is gone, the drain's last sweep hands these back
    drop(events.send(Event::Claimed(crate::outcome::Place { partition, queue }, entries)));
}

async fn claim(
    shared: &Shared,
    claimer: &mut Claimer,
    random: &mut SmallRng,
    room: usize,
) -> Result<Vec<(usize, Vec<ClaimedEntry>)>, Error> {
    let queues = &shared.queues;
    let mut turn = queues.turn(random);
    turn.retain(|queue| !shared.pauses.has_queue(queues.name(*queue)));
    match turn.as_slice() {
        [] => {
            shared.pauses.resumed(queues.served()).await;
            return Ok(Vec::new());
        }
        [queue] => return read(queues, claimer, &[(*queue, room)], true).await,
        _ => {}
    }
    let shares = queues.shares(&turn, room);
    let (mut claimed, mut left) = (Vec::new(), room);
    for (queue, share) in turn.iter().zip(shares) {
        let share = if queues.is_strict() { left } else { share.min(left) };
        if share == 0 {
            continue;
        }
        for (queue, entries) in read(queues, claimer, &[(*queue, share)], false).await? {
            left -= entries.len().min(left);
            claimed.push((queue, entries));
        }
        if left == 0 {
            break;
        }
    }
    if !claimed.is_empty() {
        return Ok(claimed);
    }
    // nothing anywhere: wait for the first to come, of whichever queue; COUNT holds for each
    let each = (room / turn.len()).max(1);
    let wanted: Vec<(usize, usize)> = turn.iter().map(|queue| (*queue, each)).collect();
    read(queues, claimer, &wanted, true).await
}

/// Claims from queues, what comes first in each before the rest.
async fn read(
    queues: &Queues,
    claimer: &mut Claimer,
    wanted: &[(usize, usize)],
    wait: bool,
) -> Result<Vec<(usize, Vec<ClaimedEntry>)>, Error> {
    let indices: Vec<usize> =
        wanted.iter().flat_map(|(queue, _)| [queues.first_of(*queue), *queue]).collect();
    let counts = wanted.iter().flat_map(|(_, count)| [*count, *count]);
    let named: Vec<(&str, usize)> = indices.iter().map(|index| queues.name(*index)).zip(counts).collect();
    let claimed = claimer.claim(&named, wait).await?;
    Ok(claimed.into_iter().map(|(at, entries)| (indices[at], entries)).collect())
}
