//! Courier: brings published events to the steps that listen for their type, in whichever partition they are.
//!
//! An event that was read stays pending until it was brought to all; a courier that dies in between leaves it to another. So a
//! step may get an event twice, and knows it again by its source and id. A step that begins to listen later does not get it.

use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Value, json};
use tidemill_protocol::StepRecord;
use tidemill_runtime::duty::{Duty, Tick};
use tidemill_store::{Content, Delivered, Ear, Partition, PublishedEvent, Slot, StepLetter, keys};

use crate::Error;
use crate::context::Context;
use crate::waits;

/// Events in one tick.
const MOST: usize = 100;
/// How long it rests when there were none.
const REST: Duration = Duration::from_millis(200);
/// Every so many ticks it looks for what another left behind.
const LOOK_BACK: u64 = 100;

/// See the module.
pub(crate) struct Courier {
    context: Context,
    partition: Partition,
    ticks: u64,
}

impl Courier {
    pub(crate) fn new(context: Context, partition: &Partition) -> Self {
        Self { context, partition: partition.clone(), ticks: 0 }
    }

    /// Brings an event to all that listen.
    async fn bring(&self, published: &PublishedEvent) -> Result<(), Error> {
        let event: Value = serde_json::from_slice(&published.event).unwrap_or_default();
        let text = |name: &str| event.get(name).and_then(Value::as_str);
        let Some(kind) = text("type").filter(|kind| !kind.is_empty()) else {
            let entry = published.entry.to_string();
            tracing::warn!(entry, "a published event is no JSON object with a type; nobody gets it");
            return Ok(());
        };
        let signal = format!("event:{kind}");
        let source = text("source").unwrap_or("tidemill");
        let id = text("id").map_or_else(|| published.entry.to_string(), |id| format!("{source} {id}"));
        let payload: Box<RawValue> = serde_json::from_slice(&published.event).unwrap_or_default();
        let now_ms = self.partition.now_ms().await?;
        let letter =
            json!({ "type": "signal", "name": signal, "id": id, "by": source, "at_ms": now_ms }).to_string();
        let letter = format!("{},\"payload\":{}}}", letter.trim_end_matches('}'), payload.get());
        let key = format!("signal.{}-{}", self.partition.index(), published.entry);
        for partition in self.context.partitions() {
            for ear in partition.ears(&signal).await? {
                self.tell(partition, (&signal, &ear), (&key, letter.as_bytes())).await?;
            }
        }
        Ok(())
    }

    async fn tell(
        &self,
        partition: &Partition,
        (signal, ear): (&str, &Ear),
        (key, payload): (&str, &[u8]),
    ) -> Result<(), Error> {
        let names = ["wf".to_owned(), format!("s{}", ear.step)];
        let mut row = partition.fields_of(&ear.run, None, &names).await?.into_iter();
        let mut field = || row.next().flatten().map(|value| String::from_utf8_lossy(&value).into_owned());
        let (workflow, record) = (field(), field());
        let record = record.as_deref().and_then(StepRecord::parse);
        let (Some(workflow), Some(record)) = (workflow, record) else {
            return Ok(partition.deaf(signal, ear).await?);
        };
        let name = waits::step_name(&self.context, &workflow, ear.step).await?;
        let slot = Slot { run: ear.run.clone(), step: ear.step, item: None, name };
        let letter = StepLetter {
            slot: &slot,
            workflow: &workflow,
            queue: keys::base_of(&record.queue),
            content: Content::News { key, payload },
        };
        match partition.deliver(&[letter]).await?.first() {
            Some(Delivered::Unwanted | Delivered::RunGone) => Ok(partition.deaf(signal, ear).await?),
            Some(Delivered::Woke | Delivered::Kept | Delivered::Nothing) | None => Ok(()),
        }
    }
}

impl Duty for Courier {
    const NAME: &'static str = "courier";
    type Error = Error;

    async fn tick(&mut self) -> Result<Tick, Error> {
        let left = self.ticks.is_multiple_of(LOOK_BACK);
        self.ticks += 1;
        let events = self.partition.next_events(MOST, left).await?;
        for event in &events {
            self.bring(event).await?;
            self.partition.events_done(std::slice::from_ref(&event.entry)).await?;
        }
        Ok(Tick::After(if events.is_empty() && !left { REST } else { Duration::from_millis(1) }))
    }
}
