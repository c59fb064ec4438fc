//! The calls of one service that are under way or looked up, and what of them goes to Redis next.
//!
//! A *flight* is one call with all who wait for its answer (their *seats*). It is asked for in Redis; then it is made here, by
//! whoever got the ticket, or elsewhere, and then Redis is asked again after growing pauses. Once it has landed, its answer stays
//! until Redis has it, so that nobody finds a gap between the two.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tidemill_policy::service::Cache as Rules;
use tidemill_store::cache::{Bounds, Digest, Era, Found, MAX_PER_CALL, Mode, Put, ServiceCache};
use tokio::sync::mpsc::WeakUnboundedSender;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::calls::{Batch, order_of};
use super::engine::{End, Event};
use super::metrics::CacheMetrics;
use super::ticket::{Held, Ticket};
use super::{Answer, Asked, Timing, Told};

/// What all services of a worker share.
#[derive(Debug)]
pub(super) struct Surroundings {
    pub(super) metrics: Arc<CacheMetrics>,
    pub(super) timing: Timing,
    /// This process, in leases.
    pub(super) filler: Arc<str>,
    /// Where tickets tell their end.
    pub(super) sender: WeakUnboundedSender<Event>,
}

/// A call, and who waits for it.
pub(super) struct Flight {
    pub(super) stage: Stage,
    rules: Rules,
    pub(super) seats: VecDeque<oneshot::Sender<Told>>,
}

pub(super) enum Stage {
    /// Redis is asked. `paused`: since another worker was seen to make it, and how long it was waited last.
    Asked { paused: Option<Duration> },
    /// Another worker makes it.
    Elsewhere { paused: Duration },
    /// It is made here; `leased`: and Redis knows.
    Here { leased: bool, era: Option<Era> },
    /// It was made, and Redis is told.
    Storing(Answer),
}

/// Who asks for itself alone.
pub(super) enum Single {
    /// For a fallback.
    Kept(oneshot::Sender<Found>),
    /// For a service whose calls are not shared.
    Ask(Rules, oneshot::Sender<Told>),
}

/// The calls of one service. Owned by the engine.
pub(super) struct Flights {
    pub(super) service: Arc<str>,
    /// None: its name cannot stand in a key.
    cache: Option<ServiceCache>,
    pub(super) around: Arc<Surroundings>,
    /// As the last look-up had them.
    rules: Rules,
    pub(super) flights: HashMap<Digest, Flight>,
    pub(super) looks: VecDeque<(Digest, Mode)>,
    pub(super) singles: VecDeque<(Digest, Single)>,
    pub(super) polls: BTreeSet<(Instant, Digest)>,
    pub(super) puts: VecDeque<Put>,
    pub(super) put_bytes: usize,
    pub(super) drops: Vec<Digest>,
    renewals: Vec<Digest>,
    renew_at: Option<Instant>,
    /// What the call under way looks up and stores.
    pub(super) under_way: Option<UnderWay>,
    /// Redis did not answer.
    pub(super) not_before: Option<Instant>,
}

pub(super) struct UnderWay {
    pub(super) looks: Vec<Digest>,
    pub(super) singles: Vec<(Digest, Single)>,
    pub(super) puts: Vec<Digest>,
}

/// Bytes that one call carries.
const CARRIED: usize = 4 * 1024 * 1024;
/// Bytes that wait to be stored: beyond them, answers are not kept.
const WAITING: usize = 64 * 1024 * 1024;

impl Flights {
    pub(super) fn new(service: Arc<str>, cache: Option<ServiceCache>, around: Arc<Surroundings>) -> Self {
        Self {
            service,
            cache,
            around,
            rules: Rules::default(),
            flights: HashMap::new(),
            looks: VecDeque::new(),
            singles: VecDeque::new(),
            polls: BTreeSet::new(),
            puts: VecDeque::new(),
            put_bytes: 0,
            drops: Vec::new(),
            renewals: Vec::new(),
            renew_at: None,
            under_way: None,
            not_before: None,
        }
    }

    /// When there is something to do although nothing happens.
    pub(super) fn next_at(&self) -> Option<Instant> {
        if self.under_way.is_some() {
            return None;
        }
        let next = self.polls.first().map(|(at, _)| *at).into_iter().chain(self.renew_at).min()?;
        Some(next.max(self.not_before.unwrap_or(next)))
    }

    fn may_ask(&self, now: Instant) -> bool {
        self.cache.is_some() && self.not_before.is_none_or(|at| now >= at)
    }

    fn count(&self, result: &'static str) {
        self.around.metrics.looked_up(&self.service, result);
    }

    pub(super) fn ask(&mut self, asked: Asked, now: Instant) {
        let Asked { rules, digest, distrust, seat, .. } = asked;
        if self.rules != rules {
            self.rules = rules.clone();
        }
        let keeps = rules.ttl_ms > 0 || rules.negative_ttl_ms > 0;
        if !rules.coalesce {
            if keeps && !distrust && self.may_ask(now) {
                self.singles.push_back((digest, Single::Ask(rules, seat)));
            } else {
                self.call_alone(digest, (rules, seat), None, if keeps { "unavailable" } else { "miss" });
            }
            return;
        }
        if let Some(flight) = self.flights.get_mut(&digest) {
            match &flight.stage {
                Stage::Storing(answer) => drop(seat.send(Told::Shared(answer.clone()))),
                _ => flight.seats.push_back(seat),
            }
            return;
        }
        let flight = Flight { stage: Stage::Asked { paused: None }, rules, seats: VecDeque::from([seat]) };
        self.flights.insert(digest, flight);
        if keeps && self.may_ask(now) {
            self.looks.push_back((digest, if distrust { Mode::Distrust } else { Mode::Fresh }));
        } else {
            self.call_here(digest, (false, None), if keeps { "unavailable" } else { "miss" });
        }
    }

    pub(super) fn ask_kept(&mut self, digest: Digest, seat: oneshot::Sender<Found>, now: Instant) {
        if self.may_ask(now) {
            self.singles.push_back((digest, Single::Kept(seat)));
        } else {
            drop(seat.send(Found::Nothing));
        }
    }

    /// The first who still waits is to make the call. When nobody waits any more, it is forgotten.
    pub(super) fn call_here(
        &mut self,
        digest: Digest,
        (leased, era): (bool, Option<Era>),
        result: &'static str,
    ) {
        let Some(flight) = self.flights.get_mut(&digest) else { return };
        let seat = std::iter::from_fn(|| flight.seats.pop_front()).find(|seat| !seat.is_closed());
        let (Some(seat), Some(events)) = (seat, self.around.sender.upgrade()) else {
            self.flights.remove(&digest);
            self.drops.extend(leased.then_some(digest));
            return;
        };
        let service = Arc::clone(&self.service);
        let held =
            Held { events, service, digest, rules: flight.rules.clone(), shared: true, era: era.clone() };
        flight.stage = Stage::Here { leased, era };
        if leased && self.renew_at.is_none() {
            self.renew_at = Some(Instant::now() + self.around.timing.renewal);
        }
        self.count(result);
        // a ticket that nobody takes is dropped, and comes back as one that was given up
        drop(seat.send(Told::Fill(Ticket::new(held))));
    }

    pub(super) fn call_alone(
        &self,
        digest: Digest,
        (rules, seat): (Rules, oneshot::Sender<Told>),
        era: Option<Era>,
        result: &'static str,
    ) {
        let Some(events) = self.around.sender.upgrade() else { return };
        let held = Held { events, service: Arc::clone(&self.service), digest, rules, shared: false, era };
        self.count(result);
        drop(seat.send(Told::Fill(Ticket::new(held))));
    }

    pub(super) fn ended(&mut self, end: End, now: Instant) {
        let End { digest, shared, answer, put, .. } = end;
        let storing = put.is_some_and(|put| self.store(put, now));
        if !shared {
            return;
        }
        let Some(flight) = self.flights.get_mut(&digest) else { return };
        let Stage::Here { leased, era } = &flight.stage else { return };
        let (leased, era) = (*leased, era.clone());
        let Some(answer) = answer else {
            self.call_here(digest, (leased, era), "miss");
            return;
        };
        for seat in flight.seats.drain(..) {
            drop(seat.send(Told::Shared(answer.clone())));
        }
        if storing {
            flight.stage = Stage::Storing(answer);
        } else {
            self.flights.remove(&digest);
            self.drops.extend(leased.then_some(digest));
        }
    }

    /// Whether it goes to Redis.
    fn store(&mut self, put: Put, now: Instant) -> bool {
        let takes = self.may_ask(now) && self.put_bytes + put.value.len() <= WAITING;
        if takes {
            self.put_bytes += put.value.len();
            self.puts.push_back(put);
        } else {
            self.around.metrics.stored(&self.service, "lost", 1);
        }
        takes
    }

    /// What goes to Redis now, if anything does.
    pub(super) fn take(&mut self, now: Instant) -> Option<(ServiceCache, Batch)> {
        if self.under_way.is_some() || !self.may_ask(now) {
            return None;
        }
        self.poll(now);
        if self.renew_at.is_some_and(|at| at <= now) {
            let leased = self.flights.iter().filter(|(_, flight)| flight.is_leased());
            self.renewals = leased.map(|(digest, _)| *digest).collect();
            self.renew_at = (!self.renewals.is_empty()).then(|| now + self.around.timing.renewal);
        }
        let (puts, drops) = (self.take_puts(), self.take_drops());
        let flights = &self.flights;
        self.renewals.retain(|digest| flights.get(digest).is_some_and(Flight::is_leased));
        let renew: Vec<_> = self.renewals.drain(..self.renewals.len().min(MAX_PER_CALL)).collect();
        let mut looks: Vec<_> = self.looks.drain(..self.looks.len().min(MAX_PER_CALL)).collect();
        let under_way = UnderWay {
            looks: looks.iter().map(|(digest, _)| *digest).collect(),
            singles: self.singles.drain(..self.singles.len().min(MAX_PER_CALL - looks.len())).collect(),
            puts: puts.iter().map(|put| put.digest).collect(),
        };
        looks.extend(under_way.singles.iter().map(|(digest, _)| (*digest, Mode::Kept)));
        if puts.is_empty() && drops.is_empty() && renew.is_empty() && looks.is_empty() {
            return None;
        }
        self.under_way = Some(under_way);
        let bounds = Bounds {
            max_entries: self.rules.max_entries,
            max_bytes: self.rules.max_bytes,
            order: order_of(self.rules.order),
        };
        let (filler, lease) = (Arc::clone(&self.around.filler), self.around.timing.lease);
        Some((self.cache.clone()?, Batch { filler, lease, bounds, puts, drops, renew, looks }))
    }

    /// Asks again for what was long enough elsewhere.
    fn poll(&mut self, now: Instant) {
        while let Some((at, digest)) = self.polls.first().copied()
            && at <= now
        {
            self.polls.pop_first();
            let Some(flight) = self.flights.get_mut(&digest) else { continue };
            let Stage::Elsewhere { paused } = flight.stage else { continue };
            flight.seats.retain(|seat| !seat.is_closed());
            if flight.seats.is_empty() {
                self.flights.remove(&digest);
            } else {
                flight.stage = Stage::Asked { paused: Some(paused) };
                self.looks.push_back((digest, Mode::Fresh));
            }
        }
    }

    fn take_puts(&mut self) -> Vec<Put> {
        let (mut puts, mut bytes) = (Vec::new(), 0);
        while puts.len() < MAX_PER_CALL
            && self.puts.front().is_some_and(|put| bytes == 0 || bytes + put.value.len() <= CARRIED)
            && let Some(put) = self.puts.pop_front()
        {
            bytes += put.value.len();
            puts.push(put);
        }
        self.put_bytes -= bytes;
        puts
    }

    /// A call that is looked up anew meanwhile keeps its lease.
    fn take_drops(&mut self) -> Vec<Digest> {
        let flights = &self.flights;
        self.drops.retain(|digest| !flights.contains_key(digest));
        self.drops.drain(..self.drops.len().min(MAX_PER_CALL)).collect()
    }
}

impl Flight {
    const fn is_leased(&self) -> bool {
        matches!(self.stage, Stage::Here { leased: true, .. })
    }
}
