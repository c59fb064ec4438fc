//! Liveness: one record for the whole process, renewed by a loop of its own, and news of what was cancelled.

use std::sync::Arc;
use std::time::Duration;

use tidemill_runtime::health::Component;
use tidemill_store::Member;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::executor::Event;
use crate::shared::Shared;

/// How many beats until the process describes itself again: a Redis that came back empty learns who is there.
const ANNOUNCE_EVERY: u64 = 10;
/// Cancellations are asked for from a little before the last answer, so that none falls between two.
const OVERLAP_MS: u64 = 10_000;

/// Beats in one partition until the token is cancelled.
pub(crate) async fn run(
    shared: Arc<Shared>,
    partition: usize,
    events: UnboundedSender<Event>,
    (token, member, health): (CancellationToken, Member, Component),
) {
    let store = &shared.store.partitions()[partition];
    let mut ticks = tokio::time::interval(Duration::from_millis(shared.settings.beat_ms));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut number, mut since_ms, mut last) = (0_u64, 0_u64, Instant::now());
    loop {
        tokio::select! {
            biased;
            () = token.cancelled() => return,
            _ = ticks.tick() => {}
        }
        number += 1;
        match beat(store, &member, number, since_ms).await {
            Ok(beat) => {
                last = Instant::now();
                health.set_ready();
                shared.clock.set(beat.now_ms);
                since_ms = beat.now_ms.saturating_sub(OVERLAP_MS);
                if !beat.cancelled.is_empty() {
                    drop(events.send(Event::Cancelled(beat.cancelled)));
                }
            }
            Err(error) => {
                shared.metrics.fault(&error);
                health.set_unready(format!("no beat for {} ms: {error}", last.elapsed().as_millis()));
            }
        }
    }
}

async fn beat(
    store: &tidemill_store::Partition,
    member: &Member,
    number: u64,
    since_ms: u64,
) -> Result<tidemill_store::Beat, tidemill_store::Error> {
    if number % ANNOUNCE_EVERY == 1 {
        store.announce(member).await?;
    }
    store.beat(&member.consumer, number, since_ms).await
}
