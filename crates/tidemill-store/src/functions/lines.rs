//! Work that waits in a line for its turn at a tier of limits, and is called up from it.

use std::collections::BTreeMap;
use std::time::Duration;

use tidemill_protocol::EntryId;

use super::deferral::slot_keys;
use super::{DeferState, Deferral, Due, Function, FunctionCall, Slot};
use crate::keys::{FIRST, base_of};
use crate::lines::split_place;
use crate::{Error, Partition};

pub(super) const PARK: Function = Function {
    name: "tm1_park",
    keys: &["stream", "deferred", "queues", "lines"],
    args: &["group", "who", "queue", "tiers", "entries"],
};
pub(super) const CALL_UP: Function =
    Function { name: "tm1_call_up", keys: &["line", "turns", "lines"], args: &["tier", "queues", "members"] };

/// One entry to park in a line.
#[derive(Debug, Clone)]
pub struct Parking<'a> {
    /// The entry that the caller owns.
    pub entry: &'a EntryId,
    /// The plain job's id; unused when `slot` is set.
    pub id: &'a str,
    /// The step or item, unless it is a plain job.
    pub slot: Option<Slot>,
    /// What `tidemill why` tells.
    pub note: &'a str,
    /// The attempt that has not begun.
    pub attempt: u32,
    /// The tier that it waits for. Where the entry has a ticket for it, it goes back to the place that it had in the line.
    pub tier: &'a str,
    /// Between these the line is fair; may be empty.
    pub tenant: &'a str,
    /// 0 to 9, 9 first.
    pub priority: u8,
    /// Fields of the entry to set.
    pub changes: Vec<(&'static str, String)>,
}

/// What became of a member that was to be called up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CalledUp {
    /// It is in its queue's stream [`FIRST`], with a ticket.
    Called,
    /// The same, but its run has ended: whoever claims it only records its end, and its service is not called.
    Ended,
    /// Another scheduler was faster, or it was cancelled.
    Gone,
    /// What waited is not there any more; it was taken off the line.
    Dropped,
    /// It could not be moved, because some key has another type. It went back in the line, so that others pass.
    Stuck,
}

impl CalledUp {
    fn of(reply: i64) -> Self {
        match reply {
            1 => Self::Called,
            2 => Self::Ended,
            -1 => Self::Dropped,
            -4 => Self::Stuck,
            _ => Self::Gone,
        }
    }
}

/// Numbers from 1 in order of their first appearance.
fn numbered<'t>(names: impl Iterator<Item = &'t str>) -> (Vec<&'t str>, BTreeMap<&'t str, usize>) {
    let (mut all, mut number) = (Vec::new(), BTreeMap::new());
    for name in names {
        number.entry(name).or_insert_with(|| {
            all.push(name);
            all.len()
        });
    }
    (all, number)
}

/// How long work is put aside whose line cannot be written.
const WITHOUT_LINE: Duration = Duration::from_secs(1);

impl Partition {
    /// Parks work in lines, at most 500 at a time. Replies which was parked; the others were stale or in conflict. Where a key of
    /// a line holds something else, the work is put aside for a second instead.
    ///
    /// # Errors
    /// Redis is not reachable or refuses; the outcomes are then unknown and may be tried again.
    pub async fn park(
        &self,
        queue: &str,
        group: &str,
        who: &str,
        entries: &[Parking<'_>],
    ) -> Result<Vec<bool>, Error> {
        let call = self.park_call(queue, group, who, entries);
        let replies: Vec<i64> = self.link().query("parking", call.command()).await?;
        let mut parked: Vec<bool> = replies.iter().map(|reply| *reply == 1).collect();
        let refused: Vec<usize> = (0..replies.len()).filter(|at| replies[*at] == -4).collect();
        if !refused.is_empty() {
            let deferrals: Vec<Deferral<'_>> =
                refused.iter().filter_map(|at| entries.get(*at)).map(without_line).collect();
            for (at, deferred) in refused.into_iter().zip(self.defer(queue, group, who, &deferrals).await?) {
                parked[at] = deferred;
            }
        }
        Ok(parked)
    }

    fn park_call(&self, queue: &str, group: &str, who: &str, entries: &[Parking<'_>]) -> FunctionCall {
        let (keys, stream, base) = (self.keys(), self.keys().stream(queue), base_of(queue));
        let (tiers, number) = numbered(entries.iter().map(|entry| entry.tier));
        let mut call = FunctionCall::new(&PARK, 4 + tiers.len() * 2 + entries.len() * 3);
        call.key(&stream).key(&keys.deferred(base)).key(&keys.queues()).key(&keys.lines());
        for tier in &tiers {
            call.key(&keys.line(tier)).key(&keys.turns(tier));
        }
        for entry in entries {
            slot_keys(&mut call, self, &stream, entry.slot.as_ref());
        }
        call.arg(group).arg(who).arg(base).arg(tiers.len()).arg(entries.len());
        for tier in &tiers {
            call.arg(*tier);
        }
        for entry in entries {
            let member = entry.slot.as_ref().map_or_else(|| format!("j:{}", entry.id), Slot::member);
            call.arg(entry.entry.as_str()).arg(member).arg(entry.note);
            match &entry.slot {
                Some(slot) => call.arg(slot.field()).arg(&slot.name),
                None => call.arg("").arg(""),
            };
            call.arg(entry.attempt).arg(number.get(entry.tier).copied().unwrap_or(1));
            call.arg(entry.tenant).arg(entry.priority).arg(entry.changes.len() * 2);
            for (name, value) in &entry.changes {
                call.arg(*name).arg(value);
            }
        }
        call
    }

    /// Calls members up from a line, at most 500 at a time, by their places (`<queue>|<member>`), into their queue's stream
    /// [`FIRST`], or into the queue's own where `reads_first` says that its workers do not read that.
    ///
    /// # Errors
    /// Redis is not reachable or refuses, or a key of the line holds something else.
    pub async fn call_up(
        &self,
        tier: &str,
        places: &[String],
        reads_first: impl Fn(&str) -> bool,
    ) -> Result<Vec<CalledUp>, Error> {
        let keys = self.keys();
        let split: Vec<(&str, &str)> = places.iter().map(|place| split_place(place)).collect();
        let (queues, number) = numbered(split.iter().map(|(queue, _)| *queue));
        let names: Vec<String> = queues
            .iter()
            .map(|queue| if reads_first(queue) { [queue, FIRST].concat() } else { (*queue).to_owned() })
            .collect();
        let line = keys.line(tier);
        let mut call = FunctionCall::new(&CALL_UP, 3 + queues.len() * 2 + places.len() * 3);
        call.key(&line).key(&keys.turns(tier)).key(&keys.lines());
        for (queue, name) in queues.iter().zip(&names) {
            call.key(&keys.deferred(queue)).key(&keys.jobs(name));
        }
        let slots: Vec<_> = split.iter().map(|(_, member)| Slot::of_member(member)).collect();
        for slot in &slots {
            slot_keys(&mut call, self, &line, slot.as_ref());
        }
        call.arg(tier).arg(queues.len()).arg(places.len());
        for (queue, name) in queues.iter().zip(&names) {
            call.arg(*queue).arg(name);
        }
        for ((queue, member), slot) in split.iter().zip(&slots) {
            call.arg(*member).arg(number.get(queue).copied().unwrap_or(1));
            match slot {
                Some(slot) => call.arg(slot.field()).arg(&slot.name),
                None => call.arg("").arg(""),
            };
        }
        let replies: Vec<i64> = self.link().query("calling up", call.command()).await?;
        Ok(replies.into_iter().map(CalledUp::of).collect())
    }
}

fn without_line<'a>(parking: &Parking<'a>) -> Deferral<'a> {
    Deferral {
        entry: parking.entry,
        id: parking.id,
        slot: parking.slot.clone(),
        state: DeferState::Parked,
        due: Due::In(WITHOUT_LINE),
        note: parking.note,
        ran: Duration::ZERO,
        attempt: parking.attempt,
        changes: parking.changes.clone(),
    }
}
