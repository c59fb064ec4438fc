//! Membership: this scheduler's name, liveness and announcement, and what it hands back at the end.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tidemill_protocol::EntryId;
use tidemill_runtime::clock::Instant;
use tidemill_runtime::duty::{Duty, Tick};
use tidemill_runtime::health::Component;
use tidemill_store::{Held, Member, Partition, keys};

use crate::Error;
use crate::context::Context;

/// How often the announcement is repeated, in case somebody deleted it.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(60);

fn host() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    host.chars().take(48).map(plain).collect()
}

/// A consumer name that no other start of a scheduler has.
pub(crate) fn consumer_name() -> Arc<str> {
    let random: u32 = rand::rng().random();
    format!("scheduler-{}-{}-{random:08x}", host(), std::process::id()).into()
}

/// Renews liveness in every partition, announces this scheduler, and tells whether Redis is there.
pub(crate) struct Membership {
    context: Context,
    redis: Component,
    version: &'static str,
    number: u64,
    started_at_ms: Option<u64>,
    announced: Option<(u64, Instant)>,
}

impl Membership {
    pub(crate) const fn new(context: Context, redis: Component, version: &'static str) -> Self {
        Self { context, redis, version, number: 0, started_at_ms: None, announced: None }
    }

    async fn beat(&mut self) -> Result<(), Error> {
        self.number += 1;
        let (number, who) = (self.number, &*self.context.who);
        // nothing that a scheduler holds can be cancelled, so it asks for no cancellations of the past
        let beats = self.context.partitions().iter().map(|one| one.beat(who, number, u64::MAX / 2));
        let beats = futures_util::future::try_join_all(beats).await?;
        let now_ms = beats.first().map_or(0, |beat| beat.now_ms);
        let started_at_ms = *self.started_at_ms.get_or_insert(now_ms);
        let generation = self.context.store.link().generation();
        let stale = |(known, at): (u64, Instant)| known != generation || at.elapsed() >= ANNOUNCE_EVERY;
        if self.announced.is_none_or(stale) {
            let member = Member {
                reads_first: false,
                consumer: who.to_owned(),
                role: "scheduler".to_owned(),
                host: host(),
                pid: std::process::id(),
                version: self.version.to_owned(),
                queues: Vec::new(),
                slots: 0,
                started_at_ms,
            };
            self.context.store.home().announce(&member).await?;
            self.announced = Some((generation, Instant::now()));
        }
        Ok(())
    }
}

impl Duty for Membership {
    const NAME: &'static str = "membership";
    type Error = Error;

    async fn tick(&mut self) -> Result<Tick, Error> {
        match self.beat().await {
            Ok(()) => {
                self.redis.set_ready();
                Ok(Tick::Done)
            }
            Err(error) => {
                self.redis.set_unready(error.to_string());
                Err(error)
            }
        }
    }
}

/// Hands back every request that this scheduler holds, and deletes its consumers.
pub(crate) async fn leave(context: &Context) -> Result<(), Error> {
    for partition in context.partitions() {
        hand_back(context, partition).await?;
        let streams = [(partition.keys().runs(), keys::SCHEDULERS)];
        partition.forget(&context.who, None, &streams).await?;
    }
    Ok(())
}

async fn hand_back(context: &Context, partition: &Partition) -> Result<(), Error> {
    let runs = partition.keys().runs();
    let mut after: Option<EntryId> = None;
    loop {
        let group = (&*runs, keys::SCHEDULERS);
        let pending = partition.pending(group, Some(&context.who), after.as_ref(), 100).await?;
        let Some(last) = pending.last() else { return Ok(()) };
        after = Some(last.entry.clone());
        let held: Vec<Held> =
            pending.into_iter().map(|one| Held { entry: one.entry, slot: None, attempt: 1 }).collect();
        partition.release(group, &context.who, (&context.who, None), &held).await?;
    }
}
