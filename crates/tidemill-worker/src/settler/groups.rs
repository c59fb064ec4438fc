//! Outcomes that one call can settle together.

use std::collections::BTreeMap;

use tidemill_protocol::EntryId;
use tidemill_runtime::crash::Point;

use super::Owned;
use crate::outcome::{
    Bury, CloseRun, Complete, Defer, Ending, Expand, Finish, ItemEnd, Outcome, Park, Release, StepEnd,
    WaitStep,
};

/// One call's worth; the number is the queue's index.
#[derive(Debug)]
pub(super) enum Group {
    Acknowledge(u16, Vec<EntryId>),
    Complete(u16, Vec<Owned<Complete>>),
    Bury(u16, Vec<Owned<Bury>>),
    Defer(u16, Vec<Owned<Defer>>),
    Park(u16, Vec<Owned<Park>>),
    Release(u16, Vec<Owned<Release>>),
    /// Steps of runs that have the same home queue.
    Step(u16, String, Vec<Owned<StepEnd>>),
    Item(u16, Vec<Owned<ItemEnd>>),
    Expand(u16, EntryId, Box<Expand>),
    Finish(u16, EntryId, Box<Finish>),
    Wait(u16, EntryId, Box<WaitStep>),
    Close(u16, EntryId, Box<CloseRun>),
}

impl Group {
    /// Where a test may let the worker die.
    pub(super) const fn point(&self) -> Point {
        match self {
            Self::Acknowledge(..) => Point::WorkerAcknowledge,
            Self::Complete(..) => Point::WorkerComplete,
            Self::Bury(..) => Point::WorkerBury,
            Self::Defer(..) => Point::WorkerDefer,
            Self::Park(..) => Point::WorkerPark,
            Self::Release(..) => Point::WorkerRelease,
            Self::Step(..) => Point::WorkerStep,
            Self::Item(..) => Point::WorkerItem,
            Self::Expand(..) => Point::WorkerExpand,
            Self::Finish(..) => Point::WorkerFinish,
            Self::Wait(..) => Point::WorkerWait,
            Self::Close(..) => Point::WorkerClose,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Groups {
    acknowledged: BTreeMap<u16, Vec<EntryId>>,
    /// By queue, retention of the result, and whether it is sent.
    completed: BTreeMap<(u16, u64, bool), Vec<Owned<Complete>>>,
    buried: BTreeMap<u16, Vec<Owned<Bury>>>,
    deferred: BTreeMap<u16, Vec<Owned<Defer>>>,
    parked: BTreeMap<u16, Vec<Owned<Park>>>,
    released: BTreeMap<u16, Vec<Owned<Release>>>,
    steps: BTreeMap<(u16, String), Vec<Owned<StepEnd>>>,
    items: BTreeMap<u16, Vec<Owned<ItemEnd>>>,
    single: Vec<Group>,
}

impl Groups {
    pub(super) fn of(outcomes: Vec<Outcome>) -> Self {
        let mut groups = Self::default();
        for Outcome { place, entry, ending } in outcomes {
            let at = place.queue;
            match ending {
                Ending::Acknowledge => groups.acknowledged.entry(at).or_default().push(entry),
                Ending::Complete(job) => {
                    let alike = (at, job.ttl_ms, job.reply_to.is_some());
                    groups.completed.entry(alike).or_default().push((entry, job));
                }
                Ending::Bury(job) => groups.buried.entry(at).or_default().push((entry, job)),
                Ending::Defer(work) => groups.deferred.entry(at).or_default().push((entry, work)),
                Ending::Park(work) => groups.parked.entry(at).or_default().push((entry, work)),
                Ending::Release(work) => groups.released.entry(at).or_default().push((entry, work)),
                // each of its ends is a call of its own
                Ending::Step(end) if end.run.mode.settles_alone() => {
                    let home = end.run.home().to_owned();
                    groups.single.push(Group::Step(at, home, vec![(entry, end)]));
                }
                Ending::Item(end) if end.run.mode.settles_alone() => {
                    groups.single.push(Group::Item(at, vec![(entry, end)]));
                }
                Ending::Step(end) => {
                    let home = end.run.home().to_owned();
                    groups.steps.entry((at, home)).or_default().push((entry, end));
                }
                Ending::Item(end) => groups.items.entry(at).or_default().push((entry, end)),
                Ending::Expand(expand) => groups.single.push(Group::Expand(at, entry, expand)),
                Ending::Finish(finish) => groups.single.push(Group::Finish(at, entry, finish)),
                Ending::Wait(wait) => groups.single.push(Group::Wait(at, entry, wait)),
                Ending::Close(close) => groups.single.push(Group::Close(at, entry, close)),
            }
        }
        groups
    }

    /// One group per call; function calls take at most `most` outcomes each, fewer of large or wide ones.
    pub(super) fn into_calls(self, most: usize) -> Vec<Group> {
        let mut calls = self.single;
        calls.extend(self.acknowledged.into_iter().map(|(at, entries)| Group::Acknowledge(at, entries)));
        calls.extend(
            split(self.completed, most * 3, |job| bytes(job.head.len()))
                .map(|((at, ..), rows)| Group::Complete(at, rows)),
        );
        calls.extend(split(self.buried, most, |_| 1).map(|(at, rows)| Group::Bury(at, rows)));
        calls.extend(split(self.deferred, most, |_| 1).map(|(at, rows)| Group::Defer(at, rows)));
        calls.extend(split(self.parked, most, |_| 1).map(|(at, rows)| Group::Park(at, rows)));
        calls.extend(split(self.released, most, |_| 1).map(|(at, rows)| Group::Release(at, rows)));
        calls.extend(
            split(self.steps, most, |end| bytes(end.output.len()) + end.width() / 5)
                .map(|((at, home), rows)| Group::Step(at, home, rows)),
        );
        calls.extend(
            split(self.items, most, |end| bytes(end.output.len())).map(|(at, rows)| Group::Item(at, rows)),
        );
        calls
    }
}

/// What an outcome with so many bytes costs, in those of a small one: sending it takes the time of so many.
const fn bytes(len: usize) -> usize {
    1 + len / (16 * 1024)
}

/// Cuts each group into parts that cost at most `most`; an outcome that costs more stands alone.
fn split<K: Clone, T>(
    groups: BTreeMap<K, Vec<Owned<T>>>,
    most: usize,
    cost: impl Fn(&T) -> usize,
) -> impl Iterator<Item = (K, Vec<Owned<T>>)> {
    groups.into_iter().flat_map(move |(key, rows)| {
        let (mut parts, mut part, mut sum) = (Vec::new(), Vec::new(), 0);
        for row in rows {
            let own = cost(&row.1);
            if !part.is_empty() && sum + own > most {
                parts.push((key.clone(), std::mem::take(&mut part)));
                sum = 0;
            }
            sum += own;
            part.push(row);
        }
        parts.push((key, part));
        parts
    })
}

#[cfg(test)]
mod tests {
    use super::{BTreeMap, EntryId, bytes, split};

    #[test]
    fn large_outcomes_go_in_smaller_calls_and_none_is_left_out() {
        let sizes = [10, 10, 900_000, 10, 2_000_000, 10, 10, 10];
        let entry = EntryId::parse("1-0".to_owned()).unwrap();
        let rows = sizes.map(|size| (entry.clone(), Box::new(size))).to_vec();
        let parts: Vec<usize> = split(BTreeMap::from([("q", rows)]), 100, |size: &usize| bytes(*size))
            .map(|(_, part)| part.len())
            .collect();
        assert_eq!(parts, [4, 1, 3]);
    }
}
