//! The executor: one loop that owns everything under way.
//!
//! A tool's future is polled once where its entry is met. Most small tools are done with that, and then a job costs no task, no
//! timer and no wake-up; whatever has to wait becomes a task of its own and takes a slot. Finished work goes to the settler of its
//! partition in batches.

mod attempt;
mod cancelled;
mod dispatch;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tidemill_protocol::EntryId;
use tidemill_store::ClaimedEntry;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::assignment::{Assignment, End, Running};
use crate::outcome::{Outcome, Place};
use crate::part::Readied;
use crate::shared::Shared;
use cancelled::Cancelled;

/// What the executor reacts to.
pub(crate) enum Event {
    /// Entries were claimed from one queue.
    Claimed(Place, Vec<ClaimedEntry>),
    /// A batch of parts of runs was read, or of named jobs recognised.
    Readied(u64, Vec<Readied>),
    /// The reading of a batch panicked: nobody works on its entries.
    GivenUp(u64),
    /// An attempt ended.
    Finished(u64, End),
    /// Jobs or runs were cancelled.
    Cancelled(Vec<String>),
    /// Which of these entries are not known here?
    Known(Vec<EntryId>, oneshot::Sender<Vec<EntryId>>),
    /// Start nothing more; hand back what has not begun.
    Drain,
    /// The grace is over: stop what runs.
    Stop,
}

struct Active {
    running: Running,
    started: Instant,
    stop: Option<oneshot::Sender<End>>,
}

/// Owns what is under way; the loop in [`Executor::run`] is the only place that changes it.
pub(crate) struct Executor {
    shared: Arc<Shared>,
    events: UnboundedReceiver<Event>,
    sender: UnboundedSender<Event>,
    settlers: Vec<UnboundedSender<Vec<Outcome>>>,
    tracker: TaskTracker,
    next: u64,
    active: HashMap<u64, Active>,
    per_kind: HashMap<&'static str, usize>,
    /// Read ahead: waits for any slot.
    ready: VecDeque<Assignment>,
    /// Waits for a slot of its kind.
    capped: HashMap<&'static str, VecDeque<Assignment>>,
    /// Being read or recognised, by batch.
    preparing: HashMap<u64, Vec<EntryId>>,
    /// Parked for their kind's cap in the second that began then.
    over_cap: HashMap<&'static str, (Instant, u32)>,
    /// What one more death would bury, if such work is in hand: only one at a time, so that nothing else dies with it.
    suspect: Option<EntryId>,
    cancelled: Cancelled,
    outcomes: Vec<Vec<Outcome>>,
    draining: bool,
}

/// Outcomes that are collected before they go to the settler in the middle of a batch.
const FLUSH: usize = 256;

impl Executor {
    pub(crate) fn new(
        shared: Arc<Shared>,
        (sender, events): (UnboundedSender<Event>, UnboundedReceiver<Event>),
        settlers: Vec<UnboundedSender<Vec<Outcome>>>,
    ) -> Self {
        let outcomes = settlers.iter().map(|_| Vec::new()).collect();
        Self {
            shared,
            events,
            sender,
            settlers,
            tracker: TaskTracker::new(),
            next: 0,
            active: HashMap::new(),
            per_kind: HashMap::new(),
            ready: VecDeque::new(),
            capped: HashMap::new(),
            preparing: HashMap::new(),
            over_cap: HashMap::new(),
            suspect: None,
            cancelled: Cancelled::default(),
            outcomes,
            draining: false,
        }
    }

    /// Runs until it was told to drain and nothing is under way.
    pub(crate) async fn run(mut self) {
        let mut batch = Vec::with_capacity(64);
        while self.events.recv_many(&mut batch, 64).await > 0 {
            for event in batch.drain(..) {
                self.on(event);
            }
            self.refill();
            self.flush();
            self.shared.metrics.running.set(i64::try_from(self.active.len()).unwrap_or(i64::MAX));
            self.shared.metrics.held.set(i64::try_from(self.shared.capacity.held()).unwrap_or(i64::MAX));
            if self.draining && self.active.is_empty() && self.preparing.is_empty() {
                break;
            }
        }
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::Claimed(place, entries) => self.claimed(place, entries),
            Event::Readied(batch, readied) => {
                self.preparing.remove(&batch);
                for one in readied {
                    match one {
                        Readied::Run(assignment) => self.start(*assignment),
                        Readied::Done(outcome) => self.settle(outcome),
                    }
                }
            }
            Event::GivenUp(batch) => {
                let entries = self.preparing.remove(&batch).map_or(0, |entries| entries.len());
                self.shared.capacity.give_back(entries);
                tracing::error!(entries, "reading a batch panicked; the sweep hands its entries back");
            }
            Event::Finished(key, end) => self.finished(key, end),
            Event::Cancelled(ids) => self.cancel(ids),
            Event::Known(entries, reply) => drop(reply.send(self.unknown(entries))),
            Event::Drain => self.drain(),
            Event::Stop => self.stop(),
        }
    }

    fn settle(&mut self, outcome: Outcome) {
        if self.suspect.as_ref() == Some(&outcome.entry) {
            self.suspect = None;
        }
        let partition = outcome.place.partition as usize;
        self.shared.backlogs[partition].add(1);
        let waiting = &mut self.outcomes[partition];
        waiting.push(outcome);
        if waiting.len() >= FLUSH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        for (outcomes, settler) in self.outcomes.iter_mut().zip(&self.settlers) {
            if !outcomes.is_empty() {
                // settlers live until their senders, which are ours, are gone
                drop(settler.send(std::mem::take(outcomes)));
            }
        }
    }

    fn finished(&mut self, key: u64, end: End) {
        let Some(Active { running, started, .. }) = self.active.remove(&key) else { return };
        if let Some(count) = self.per_kind.get_mut(running.kind) {
            *count -= 1;
        }
        self.conclude(running, end, started);
    }

    fn conclude(&mut self, running: Running, end: End, started: Instant) {
        let outcome = match &end {
            End::Answered(Ok(_)) => "succeeded",
            End::Answered(Err(error)) => error.class.as_str(),
            End::Cancelled => "cancelled",
            End::HandedBack => "handed_back",
        };
        self.shared.metrics.attempts.with(&[running.kind, outcome]).inc();
        let outcome = running.conclude(&self.shared, end, started.elapsed());
        self.settle(outcome);
    }

    fn cancel(&mut self, told: Vec<String>) {
        let new = self.cancelled.insert(told, Instant::now());
        if new.is_empty() {
            return;
        }
        for active in self.active.values_mut() {
            if new.has(active.running.owner.is_part(), &active.running.id)
                && let Some(stop) = active.stop.take()
            {
                drop(stop.send(End::Cancelled));
            }
        }
    }

    /// Those of the entries that this worker does not know of. Outcomes on their way to Redis are unknown here too: the sweep
    /// asks twice, with all of them settled in between.
    fn unknown(&self, mut entries: Vec<EntryId>) -> Vec<EntryId> {
        let waiting =
            self.ready.iter().chain(self.capped.values().flatten()).map(|assignment| &assignment.entry);
        let known: std::collections::HashSet<&EntryId> = self
            .active
            .values()
            .map(|active| &active.running.entry)
            .chain(waiting)
            .chain(self.preparing.values().flatten())
            .collect();
        entries.retain(|entry| !known.contains(entry));
        entries
    }

    fn drain(&mut self) {
        self.draining = true;
        let capped: Vec<_> = self.capped.values_mut().flat_map(std::mem::take).collect();
        for assignment in std::mem::take(&mut self.ready).into_iter().chain(capped) {
            self.hand_back(assignment);
        }
    }

    fn hand_back(&mut self, assignment: Assignment) {
        let now = Instant::now();
        let (running, _) = Self::begin(assignment);
        let outcome = running.conclude(&self.shared, End::HandedBack, now.elapsed());
        self.settle(outcome);
    }

    fn stop(&mut self) {
        for active in self.active.values_mut() {
            if let Some(stop) = active.stop.take() {
                drop(stop.send(End::HandedBack));
            }
        }
    }
}
