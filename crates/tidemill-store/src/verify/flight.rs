//! Where something in flight is.

use std::collections::BTreeMap;

use tidemill_protocol::{EntryId, StepRecord, StepState};

use crate::{ClaimedEntry, Error, Partition, Slot};

/// Looked for in one round trip.
const SLICE: usize = 1_000;

/// A step or an item that has not ended, with its record as text and read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InFlight {
    /// Which one.
    pub slot: Slot,
    /// Its record as stored.
    pub text: String,
    /// Its record.
    pub record: StepRecord,
}

/// Where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Whereabouts {
    /// In its stream, claimed or not.
    Queued,
    /// Put aside until a time.
    Deferred,
    /// In a line.
    InLine,
    /// Nowhere, as it should be: it waits.
    Waiting,
    /// The entry that its record names is that of other work.
    Foreign,
    /// Nowhere.
    Lost,
}

impl Partition {
    /// Looks for each where its record says that it is.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn whereabouts(&self, all: &[InFlight]) -> Result<Vec<Whereabouts>, Error> {
        let mut places = vec![Whereabouts::Lost; all.len()];
        let mut by_queue: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (at, one) in all.iter().enumerate() {
            if one.record.state == StepState::Waiting {
                places[at] = Whereabouts::Waiting;
                continue;
            }
            by_queue.entry(&one.record.queue).or_default().push(at);
        }
        for (queue, ats) in by_queue {
            for ats in ats.chunks(SLICE) {
                self.look_in(queue, all, ats, &mut places).await?;
            }
        }
        Ok(places)
    }

    async fn look_in(
        &self,
        queue: &str,
        all: &[InFlight],
        ats: &[usize],
        places: &mut [Whereabouts],
    ) -> Result<(), Error> {
        let (mut with_entry, mut ids, mut aside, mut members) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for at in ats {
            match all[*at].record.entry.clone().map(EntryId::parse) {
                Some(Ok(id)) => {
                    with_entry.push(*at);
                    ids.push(id);
                }
                Some(Err(_)) | None => {
                    aside.push(*at);
                    members.push(all[*at].slot.member());
                }
            }
        }
        let found = self.entries_by_id(&self.keys().jobs(queue), &ids).await?;
        for (at, entry) in with_entry.into_iter().zip(found) {
            places[at] = match entry {
                Some(entry) if is_of(&entry, &all[at].slot) => Whereabouts::Queued,
                Some(_) => Whereabouts::Foreign,
                None => Whereabouts::Lost,
            };
        }
        let due = self.due_at(queue, &members).await?;
        let mut rest = Vec::new();
        for (place, (at, due)) in aside.into_iter().zip(due).enumerate() {
            match due {
                Some(_) => places[at] = Whereabouts::Deferred,
                None => rest.push((at, members[place].clone())),
            }
        }
        let (ats, members): (Vec<usize>, Vec<String>) = rest.into_iter().unzip();
        for (at, stands) in ats.into_iter().zip(self.in_line(queue, &members).await?) {
            if stands {
                places[at] = Whereabouts::InLine;
            }
        }
        Ok(())
    }
}

/// Whether an entry is that of a step or an item: its field `run` reads `<run> <workflow> <step>[ <item>]`.
pub(crate) fn is_of(entry: &ClaimedEntry, slot: &Slot) -> bool {
    let field = entry.fields.iter().find(|(name, _)| &**name == b"run").map(|(_, value)| &**value);
    let Some(Ok(text)) = field.map(std::str::from_utf8) else { return false };
    let mut words = text.split(' ');
    words.next() == Some(&slot.run)
        && words.nth(1).and_then(|step| step.parse().ok()) == Some(slot.step)
        && words.next().and_then(|item| item.parse().ok()) == slot.item
}
