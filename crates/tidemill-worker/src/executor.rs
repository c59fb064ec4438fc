//! The executor: one loop that owns everything under way.
//!
//! A tool's future is polled once where its entry is met. Most small tools are done with that, and then a job costs no task, no
//! timer and no wake-up; whatever has to wait becomes a task of its own and takes a slot. Finished work goes to the settler of its
//! partition in batches.

mod admitting;
mod attempt;
mod cancelled;
mod dispatch;
mod hedge;

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tidemill_protocol::{EntryId, Payload};
use tidemill_store::ClaimedEntry;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::admission::{Message, Verdict};
use crate::assignment::{Assignment, Concluded, End, Running};
use crate::cache::LookUp;
use crate::outcome::{Outcome, Place};
use crate::part::Readied;
use crate::shared::Shared;
use admitting::{Asking, Looking};
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
    /// Admission has answered.
    Admission(Vec<(u64, Verdict)>),
    /// The cache has answered.
    LookedUp(u64, Box<LookUp>),
    /// The cache was asked for an old answer.
    Stale(u64, Option<Payload>),
    /// The worker's own bound on starts has room again.
    MayStart,
}

struct Active {
    running: Running,
    started: Instant,
    /// Counted against the tenant's share of this worker.
    tenant: Option<Arc<str>>,
    stop: Option<oneshot::Sender<End>>,
}

/// Owns what is under way; the loop in [`Executor::run`] is the only place that changes it.
pub(crate) struct Executor {
    shared: Arc<Shared>,
    events: UnboundedReceiver<Event>,
    sender: UnboundedSender<Event>,
    settlers: Vec<[UnboundedSender<Vec<Outcome>>; 2]>,
    tracker: TaskTracker,
    next: u64,
    active: HashMap<u64, Active>,
    per_kind: HashMap<&'static str, usize>,
    /// Read ahead: waits for any slot.
    ready: VecDeque<Assignment>,
    /// Waits for a slot of its kind.
    capped: HashMap<&'static str, VecDeque<Assignment>>,
    /// Asks for admission, or waits for it.
    asking: HashMap<u64, Asking>,
    /// Those of them that may be granted at once: a slot is kept for each.
    asked: usize,
    /// Waits for the cache.
    looking: HashMap<u64, Looking>,
    /// Waits for an old answer.
    awaiting_stale: HashMap<u64, Box<Running>>,
    /// Running tools by tenant, where that is capped. Here and by kind, what may be granted at once counts too.
    per_tenant: HashMap<Arc<str>, usize>,
    /// The worker's own bound on starts, and whether it is reached.
    starts: Option<DefaultDirectRateLimiter>,
    is_paced: bool,
    /// Being read or recognised, by batch.
    preparing: HashMap<u64, Vec<EntryId>>,
    /// Parked for their kind's cap in the second that began then.
    over_cap: HashMap<&'static str, (Instant, u32)>,
    /// What one more death would bury, if such work is in hand: only one at a time, so that nothing else dies with it.
    suspect: Option<EntryId>,
    cancelled: Cancelled,
    outcomes: Vec<[Vec<Outcome>; 2]>,
    draining: bool,
}

/// Outcomes that are collected before they go to the settler in the middle of a batch.
const FLUSH: usize = 256;

impl Executor {
    pub(crate) fn new(
        shared: Arc<Shared>,
        (sender, events): (UnboundedSender<Event>, UnboundedReceiver<Event>),
        settlers: Vec<[UnboundedSender<Vec<Outcome>>; 2]>,
    ) -> Self {
        let outcomes = settlers.iter().map(|_| Default::default()).collect();
        let starts = shared.settings.max_starts_per_second.and_then(NonZeroU32::new);
        let starts = starts.map(|most| RateLimiter::direct(Quota::per_second(most)));
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
            asking: HashMap::new(),
            asked: 0,
            looking: HashMap::new(),
            awaiting_stale: HashMap::new(),
            per_tenant: HashMap::new(),
            starts,
            is_paced: false,
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
            let waiting = self.asking.len() + self.looking.len();
            self.shared.metrics.waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
            if self.draining
                && self.active.is_empty()
                && self.preparing.is_empty()
                && self.awaiting_stale.is_empty()
            {
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
            Event::Admission(verdicts) => self.admissions(verdicts),
            Event::LookedUp(key, found) => self.looked_up(key, *found),
            Event::Stale(key, found) => self.stale(key, found),
            Event::MayStart => self.is_paced = false,
            Event::Drain => self.drain(),
            Event::Stop => self.stop(),
        }
    }

    fn settle(&mut self, outcome: Outcome) {
        if self.suspect.as_ref() == Some(&outcome.entry) {
            self.suspect = None;
        }
        let (partition, lane) = (outcome.place.partition as usize, outcome.lane());
        self.shared.backlog(partition, lane).add(1);
        let waiting = &mut self.outcomes[partition][lane as usize];
        waiting.push(outcome);
        if waiting.len() >= FLUSH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        for (outcomes, settler) in self.outcomes.iter_mut().flatten().zip(self.settlers.iter().flatten()) {
            if !outcomes.is_empty() {
                // settlers live until their senders, which are ours, are gone
                drop(settler.send(std::mem::take(outcomes)));
            }
        }
    }

    fn finished(&mut self, key: u64, end: End) {
        let Some(Active { running, started, tenant, .. }) = self.active.remove(&key) else { return };
        self.vacate(running.kind, tenant.as_ref());
        self.conclude(running, end, started);
    }

    /// Counts a call that runs, or is about to, against its kind's cap and its tenant's share.
    fn occupy(&mut self, kind: &'static str, tenant: Option<&Arc<str>>) {
        *self.per_kind.entry(kind).or_default() += 1;
        if let Some(tenant) = tenant {
            *self.per_tenant.entry(Arc::clone(tenant)).or_default() += 1;
        }
    }

    fn vacate(&mut self, kind: &'static str, tenant: Option<&Arc<str>>) {
        if let Some(count) = self.per_kind.get_mut(kind) {
            *count = count.saturating_sub(1);
        }
        if let Some(tenant) = tenant
            && let Some(count) = self.per_tenant.get_mut(tenant)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.per_tenant.remove(tenant);
            }
        }
    }

    fn next_key(&mut self) -> u64 {
        let key = self.next;
        self.next += 1;
        key
    }

    fn has_slot(&self) -> bool {
        !self.is_paced && self.has_room()
    }

    /// The same for what may begin even now.
    fn has_room(&self) -> bool {
        self.active.len() + self.asked < self.shared.settings.max_parallel
    }

    fn conclude(&mut self, mut running: Running, end: End, started: Instant) {
        let outcome = match &end {
            End::Answered(Ok(_)) => "succeeded",
            End::Answered(Err(error)) => error.class.as_str(),
            End::Cancelled => "cancelled",
            End::HandedBack => "handed_back",
        };
        self.shared.metrics.attempts.with(&[running.kind, outcome]).inc();
        let ran = started.elapsed();
        running.report(&self.shared, &end, ran);
        match running.conclude(&self.shared, end, ran) {
            Concluded::Settled(outcome) => self.settle(outcome),
            Concluded::Instead(running, error) => self.instead(running, error),
        }
    }

    fn cancel(&mut self, told: Vec<String>) {
        let new = self.cancelled.insert(told, Instant::now());
        if new.is_empty() {
            return;
        }
        for active in self.active.values_mut() {
            if active.running.owner.heeds_cancelling()
                && new.has(active.running.owner.is_part(), &active.running.id)
                && let Some(stop) = active.stop.take()
            {
                drop(stop.send(End::Cancelled));
            }
        }
        let is_meant = |assignment: &Assignment| {
            assignment.owner.heeds_cancelling()
                && new.has(assignment.owner.is_part(), &assignment.call.context.id)
        };
        let asking: Vec<u64> = self
            .asking
            .iter()
            .filter(|(_, asking)| is_meant(&asking.assignment))
            .map(|(key, _)| *key)
            .collect();
        for key in asking {
            self.shared.admission.tell(Message::Withdraw(key));
            if let Some(assignment) = self.stop_asking(key) {
                self.start(assignment);
            }
        }
        let looking: Vec<u64> = self
            .looking
            .iter()
            .filter(|(_, looking)| is_meant(&looking.assignment))
            .map(|(key, _)| *key)
            .collect();
        for assignment in looking.into_iter().filter_map(|key| self.stop_looking(key)).collect::<Vec<_>>() {
            self.start(assignment);
        }
    }

    /// Those of the entries that this worker does not know of. Outcomes on their way to Redis are unknown here too: the sweep
    /// asks twice, with all of them settled in between.
    fn unknown(&self, mut entries: Vec<EntryId>) -> Vec<EntryId> {
        let waiting =
            self.ready.iter().chain(self.capped.values().flatten()).map(|assignment| &assignment.entry);
        let asking = self
            .asking
            .values()
            .map(|asking| &asking.assignment)
            .chain(self.looking.values().map(|looking| &looking.assignment));
        let known: std::collections::HashSet<&EntryId> = self
            .active
            .values()
            .map(|active| &active.running.entry)
            .chain(self.awaiting_stale.values().map(|running| &running.entry))
            .chain(waiting)
            .chain(asking.map(|assignment| &assignment.entry))
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
        self.shared.admission.tell(Message::Drain);
        for key in self.asking.keys().copied().collect::<Vec<_>>() {
            self.shared.admission.tell(Message::Withdraw(key));
            if let Some(assignment) = self.stop_asking(key) {
                self.hand_back(assignment);
            }
        }
        for key in self.looking.keys().copied().collect::<Vec<_>>() {
            if let Some(assignment) = self.stop_looking(key) {
                self.hand_back(assignment);
            }
        }
    }

    fn hand_back(&mut self, mut assignment: Assignment) {
        self.give_up_grant(&mut assignment);
        let (mut running, _) = self.begin(assignment, false);
        running.report(&self.shared, &End::HandedBack, Duration::ZERO);
        self.settle(running.handed_back());
    }

    fn stop(&mut self) {
        for active in self.active.values_mut() {
            if let Some(stop) = active.stop.take() {
                drop(stop.send(End::HandedBack));
            }
        }
    }
}
