//! What a run has in flight, with the entries that carry it.
//!
//! A run is read at one moment and its entries a little later; what has moved on in between is not found where the run says that it
//! is. Such a step goes into the backup as it would be dispatched anew: it stood there when the run was read.

use bytes::Bytes;
use redis::{FromRedisValue, Pipeline, Value};
use tidemill_protocol::{EntryId, StepRecord, StepState};

use super::copy::PAGE;
use super::record::{Flight, Pairs, Place};
use crate::lines::place_of;
use crate::verify::is_of;
use crate::{Error, InFlight, Partition, Slot, inspect, keys};

/// The step or item that a stored field is the record of, if it has work in flight.
pub(super) fn of_field(name: &[u8], value: &[u8]) -> Option<(u64, String, StepRecord)> {
    let index = std::str::from_utf8(name.strip_prefix(b"s")?).ok()?.parse().ok()?;
    let text = std::str::from_utf8(value).ok()?;
    let record = StepRecord::parse(text)?;
    let waits = matches!(record.state, StepState::Parked | StepState::Retrying);
    let flies = !record.state.is_terminal() && (record.entry.is_some() || waits);
    flies.then(|| (index, text.to_owned(), record))
}

/// The step that a stored field is the record of, if it waits.
pub(super) fn waiting_step(name: &[u8], value: &[u8]) -> Option<(u32, String)> {
    let index = std::str::from_utf8(name.strip_prefix(b"s")?).ok()?.parse().ok()?;
    let text = std::str::from_utf8(value).ok()?;
    let waits = StepRecord::parse(text)?.state == StepState::Waiting;
    waits.then(|| (index, text.to_owned()))
}

impl Partition {
    /// Finds the entries of what is in flight.
    pub(super) async fn flights(&self, workflow: &str, all: &[InFlight]) -> Result<Vec<Flight>, Error> {
        let mut flights = Vec::with_capacity(all.len());
        for some in all.chunks(PAGE) {
            let found = self.look_for(some).await?;
            for (one, found) in some.iter().zip(found) {
                flights.push(flight(workflow, one, found));
            }
        }
        Ok(flights)
    }

    /// The place and the fields of each; `None` where it is not where its record says.
    async fn look_for(&self, some: &[InFlight]) -> Result<Vec<Option<(Place, Pairs)>>, Error> {
        let mut ask = Pipeline::with_capacity(some.len() * 2);
        for one in some {
            let queue = &one.record.queue;
            if let Some(entry) = &one.record.entry {
                ask.cmd("XRANGE").arg(self.keys().jobs(queue)).arg(entry).arg(entry);
                continue;
            }
            let (queue, member) = (keys::base_of(queue), one.slot.member());
            ask.cmd("ZSCORE").arg(self.keys().due(queue)).arg(&member);
            ask.cmd("HGET").arg(self.keys().deferred(queue)).arg(&member);
        }
        ask.ignore_errors();
        let replies: Vec<Value> = self.link().pipeline("reading work in flight", &ask).await?;
        let (mut replies, mut found) = (replies.into_iter(), Vec::with_capacity(some.len()));
        for one in some {
            let first = replies.next().unwrap_or(Value::Nil);
            if one.record.entry.is_some() {
                found.push(queued(first, &one.slot));
                continue;
            }
            let packed = match replies.next() {
                Some(Value::BulkString(packed)) => Bytes::from(packed),
                _ => {
                    found.push(None);
                    continue;
                }
            };
            let place = self.aside(&first, &packed, one).await?;
            found.push(place.map(|place| (place, vec![(Bytes::new(), packed)])));
        }
        Ok(found)
    }

    async fn aside(&self, due: &Value, packed: &[u8], one: &InFlight) -> Result<Option<Place>, Error> {
        if let Some(at) = milliseconds(due) {
            return Ok(Some(Place::Due(at)));
        }
        let (queue, member) = (keys::base_of(&one.record.queue), one.slot.member());
        self.line_place(queue, &member, packed).await
    }

    /// Where a member whose fields say so stands in a line.
    pub(super) async fn line_place(
        &self,
        queue: &str,
        member: &str,
        packed: &[u8],
    ) -> Result<Option<Place>, Error> {
        let Some(tier) = inspect::noted(packed, b"_line") else { return Ok(None) };
        let mut ask = redis::Cmd::new();
        ask.arg("ZSCORE").arg(self.keys().line(&tier)).arg(place_of(queue, member));
        let score: Option<f64> = self.link().query("asking for a place in a line", &ask).await?;
        Ok(score.map(|score| Place::Line { tier, score }))
    }
}

/// A time as ZSCORE replies it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a time in milliseconds is exact in f64, and one before 1970 is as due as one at 0"
)]
pub(super) fn milliseconds(score: &Value) -> Option<u64> {
    Option::<f64>::from_redis_value_ref(score).ok().flatten().map(|score| score as u64)
}

fn queued(reply: Value, slot: &Slot) -> Option<(Place, Pairs)> {
    let Value::Array(mut found) = reply else { return None };
    let entry = crate::claims::entry_of(found.pop()?).ok()?;
    is_of(&entry, slot).then_some((Place::Queued, entry.fields))
}

fn flight(workflow: &str, one: &InFlight, found: Option<(Place, Pairs)>) -> Flight {
    let (place, fields) = found.unwrap_or_else(|| anew(workflow, one));
    Flight {
        step: one.slot.step,
        item: one.slot.item,
        queue: one.record.queue.clone(),
        record: one.text.clone(),
        member: one.slot.member(),
        place,
        fields,
    }
}

/// As the function library dispatches what was lost.
fn anew(workflow: &str, one: &InFlight) -> (Place, Pairs) {
    let Slot { run, step, item, .. } = &one.slot;
    let item = item.map_or_else(String::new, |item| format!(" {item}"));
    let attempt = one.record.attempt + u32::from(one.record.state == StepState::Retrying);
    let mut fields =
        vec![("run", format!("{run} {workflow} {step}{item}")), ("attempt", attempt.to_string())];
    if one.record.state == StepState::Running {
        fields.push(("gather", "1".to_owned()));
    }
    if one.record.entry.is_some() {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        return (Place::Queued, fields.iter().map(|(name, value)| (bytes(name), bytes(value))).collect());
    }
    // packed as Lua packs it: one flat list of texts
    let flat: Vec<&str> = fields.iter().flat_map(|(name, value)| [*name, value]).collect();
    let packed = rmp_serde::to_vec(&flat).unwrap_or_default();
    (Place::Due(one.record.ended_ms.unwrap_or(0)), vec![(Bytes::new(), Bytes::from(packed))])
}

/// A stored record with another entry.
pub(super) fn with_entry(record: &str, entry: &str) -> String {
    let word = |(at, word)| if at == 6 { entry } else { word };
    record.split(' ').enumerate().map(word).collect::<Vec<_>>().join(" ")
}

/// Whether Redis made an id, which then says nothing of its partition.
pub(super) fn is_made_by_redis(id: &str) -> bool {
    EntryId::parse(id.to_owned()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::{of_field, with_entry};

    #[test]
    fn what_is_in_flight_has_an_entry_or_is_put_aside() {
        let flies = |record: &str| of_field(b"s4", record.as_bytes()).map(|(step, _, _)| step);
        assert_eq!(flies("ready 1 5 - - - 7-0 default"), Some(4));
        assert_eq!(flies("running 1 5 6 - w 7-0 default"), Some(4), "a gathering");
        assert_eq!(flies("running 1 5 6 - w - default"), None, "its items are");
        assert_eq!(flies("parked 1 5 - - - - default"), Some(4));
        assert_eq!(flies("succeeded 1 5 6 7 w - default"), None);
        assert_eq!(of_field(b"st", b"ready 1 5 - - - 7-0 default"), None);
        assert_eq!(of_field(b"o4", b"ready 1 5 - - - 7-0 default"), None);
    }

    #[test]
    fn a_record_takes_another_entry() {
        assert_eq!(
            with_entry("ready 1 5 - - - 7-0 default:first", "9-1"),
            "ready 1 5 - - - 9-1 default:first"
        );
    }
}
