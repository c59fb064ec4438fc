//! Work on its way to a slot: the cache is asked, then admission. Whatever waits here takes no slot, and what has to wait for long
//! goes back to Redis.

use std::sync::Arc;
use std::time::Duration;

use tidemill_policy::service::{FallbackOn, WhenSpent};
use tidemill_protocol::ErrorClass;
use tidemill_store::{DeferState, Due};
use tidemill_tool::ToolError;
use tokio::time::Instant;

use super::{Event, Executor};
use crate::admission::{self, Ended, Lease, Message, Need, ServiceFacts, Verdict};
use crate::assignment::{Assignment, End, Running};
use crate::cache::{LookUp, Question};
use crate::fallback::{self, Next};
use crate::outcome::{Defer, Ending, Lane, Outcome, Park};

/// An assignment that asks for admission.
pub(super) struct Asking {
    pub(super) assignment: Assignment,
    /// It was told to wait: it takes no room, and others may be claimed.
    waits: bool,
    /// Counted against the tenant's share of this worker, as long as it does not wait.
    tenant: Option<Arc<str>>,
}

/// An assignment whose answer the cache may have.
pub(super) struct Looking {
    pub(super) assignment: Assignment,
    /// Others may be claimed meanwhile.
    pub(super) takes_no_room: bool,
}

/// So many are on their way into lines beside the work that fills the worker.
const MOST_PARKING: u64 = 20_000;
/// So many wait for the cache beside the work that fills the worker; more wait in its place.
const MOST_LOOKING: usize = 512;

impl Executor {
    /// Launches work, or asks first whether it may be done.
    pub(super) fn admit(&mut self, mut assignment: Assignment) {
        if let Some(lease) = assignment.progress.lease.take() {
            return self.launch_or_return(assignment, lease);
        }
        let Some(assignment) = self.look_up(assignment) else { return };
        let need = self.shared.admission.need(&assignment);
        if let Some(need) = &need
            && let Some(tier) = self.shared.admission.lined.before(need)
        {
            self.shared.metrics.admissions.with(&[need.service_name(), "line"]).inc();
            return self.carry_out(assignment, admission::behind(tier));
        }
        if !self.may_start() {
            self.ready.push_back(assignment);
            return;
        }
        match need {
            Some(need) => self.ask(assignment, need),
            None => self.launch(assignment),
        }
    }

    fn service_of(&self, assignment: &Assignment) -> Option<Arc<ServiceFacts>> {
        let target = &assignment.target;
        self.shared.admission.service_of(&target.name, target.service.as_deref())
    }

    /// Whether this worker's own bound on starts lets one more begin; else it looks again when it will.
    fn may_start(&mut self) -> bool {
        let Some(starts) = &self.starts else { return true };
        let Err(not_before) = starts.check() else { return true };
        let wait = not_before.wait_time_from(governor::clock::Clock::now(starts.clock()));
        self.is_paced = true;
        let events = self.sender.clone();
        self.tracker.spawn(async move {
            tokio::time::sleep(wait).await;
            drop(events.send(Event::MayStart));
        });
        false
    }

    fn ask(&mut self, assignment: Assignment, need: Need) {
        let key = self.next_key();
        self.shared.admission.tell(Message::Ask(key, Box::new(need)));
        let kind = assignment.target.kind;
        let counts = self.shared.settings.max_parallel_per_tenant.is_some();
        let tenant = assignment.call.context.tenant.clone().filter(|_| counts);
        self.occupy(kind, tenant.as_ref());
        self.asking.insert(key, Asking { assignment, waits: false, tenant });
        self.asked += 1;
    }

    /// A grant that is not used is given back.
    pub(super) fn give_up_grant(&self, assignment: &mut Assignment) {
        if let Some(lease) = assignment.progress.lease.take() {
            self.shared.admission.ended(Ended::unsent(*lease));
        }
    }

    /// A grant that is too old is given back, for its call would fall into another window.
    fn launch_or_return(&mut self, mut assignment: Assignment, lease: Box<Lease>) {
        if lease.is_fresh() {
            assignment.progress.lease = Some(lease);
            return self.launch(assignment);
        }
        let mut need = (*lease.need).clone();
        need.stale_grants += 1;
        self.shared.admission.ended(Ended::unsent(*lease));
        self.ask(assignment, need);
    }

    pub(super) fn admissions(&mut self, verdicts: Vec<(u64, Verdict)>) {
        for (key, verdict) in verdicts {
            if matches!(verdict, Verdict::Waits) {
                self.goes_on_waiting(key);
                continue;
            }
            let Some(assignment) = self.stop_asking(key) else {
                if let Verdict::Granted(lease) = verdict {
                    self.shared.admission.ended(Ended::unsent(*lease));
                }
                continue;
            };
            self.carry_out(assignment, verdict);
        }
    }

    fn goes_on_waiting(&mut self, key: u64) {
        let Some(asking) = self.asking.get_mut(&key).filter(|asking| !asking.waits) else { return };
        asking.waits = true;
        let (kind, tenant) = (asking.assignment.target.kind, asking.tenant.take());
        self.asked -= 1;
        self.vacate(kind, tenant.as_ref());
        self.shared.capacity.lend(1);
    }

    /// Takes back what asks, with its room.
    pub(super) fn stop_asking(&mut self, key: u64) -> Option<Assignment> {
        let Asking { assignment, waits, tenant } = self.asking.remove(&key)?;
        if waits {
            self.shared.capacity.take(1);
        } else {
            self.asked -= 1;
            self.vacate(assignment.target.kind, tenant.as_ref());
        }
        Some(assignment)
    }

    /// Takes back what waits for the cache, with its room.
    pub(super) fn stop_looking(&mut self, key: u64) -> Option<Assignment> {
        let Looking { assignment, takes_no_room } = self.looking.remove(&key)?;
        if takes_no_room {
            self.shared.capacity.take(1);
        }
        Some(assignment)
    }

    fn carry_out(&mut self, mut assignment: Assignment, verdict: Verdict) {
        match verdict {
            Verdict::Waits => {}
            Verdict::Granted(lease) => {
                assignment.progress.lease = Some(lease);
                // what is capped in this worker may have changed while it waited
                self.start(assignment);
            }
            Verdict::Line { why, note, tier } => self.line(assignment, (tier, &why), note),
            Verdict::Aside { wait, note } => self.aside(assignment, wait, note),
            Verdict::Never { code, note } => {
                self.refuse(assignment, ToolError::new(ErrorClass::Client, code, note), FallbackOn::Limited);
            }
        }
    }

    fn line(&mut self, assignment: Assignment, (tier, why): (Arc<str>, &str), note: String) {
        let on = if why == "breaker" || why == "pause" { FallbackOn::Open } else { FallbackOn::Limited };
        // what waits behind others waits for whatever holds those
        let error =
            |note: &str| ToolError::new(ErrorClass::Throttled, format!("held_by_{}", word(why)), note);
        let running = self.without_call(assignment);
        if fallback::has_next(&running, on) {
            return self.instead(Box::new(running), error(&note));
        }
        let Running { place, entry, id, attempt, owner, admitted, .. } = running;
        let admitted = admitted.map(|admitted| *admitted);
        let standing = admitted.as_ref().and_then(|admitted| admitted.standing.as_deref());
        // it is only on its way back: others may be claimed meanwhile, or much that is parked would hold up the little that is not
        let takes_room = self.shared.backlog(place.partition as usize, Lane::Park).waiting() >= MOST_PARKING;
        let park = Park {
            takes_room,
            id: id.to_string(),
            slot: owner.slot(),
            note,
            attempt,
            tier,
            tenant: admitted.as_ref().and_then(|admitted| admitted.call.context.tenant.clone()),
            priority: standing
                .and_then(|standing| standing.priority)
                .unwrap_or(tidemill_protocol::DEFAULT_PRIORITY),
        };
        if !park.takes_room {
            self.shared.capacity.pass_on();
        }
        self.settle(Outcome { place, entry, ending: Ending::Park(Box::new(park)) });
    }

    fn aside(&mut self, assignment: Assignment, wait: Duration, note: String) {
        let service = self.service_of(&assignment);
        if service.is_some_and(|facts| facts.definition.retry_budget.when_spent == WhenSpent::Fail) {
            let error = ToolError::new(ErrorClass::Throttled, "retry_budget_spent", note);
            return self.refuse(assignment, error, FallbackOn::Failed);
        }
        let spread =
            Duration::from_millis(rand::random_range(0..=u64::try_from(wait.as_millis() / 4).unwrap_or(0)));
        let slot = assignment.owner.slot();
        let defer = Defer {
            id: assignment.call.context.id.to_string(),
            slot,
            state: DeferState::Parked,
            due: Due::In(wait + spread),
            note,
            ran: Duration::ZERO,
            attempt: assignment.attempt,
            changes: Vec::new(),
        };
        self.settle(Outcome {
            place: assignment.place,
            entry: assignment.entry,
            ending: Ending::Defer(Box::new(defer)),
        });
    }

    /// Ends work whose call cannot be made, unless something stands in for it.
    fn refuse(&mut self, assignment: Assignment, error: ToolError, on: FallbackOn) {
        let running = self.without_call(assignment);
        if fallback::has_next(&running, on) {
            return self.instead(Box::new(running), error);
        }
        let outcome = running.given_up(error, Duration::ZERO);
        self.settle(outcome);
    }

    /// An assignment whose call is not made.
    fn without_call(&self, assignment: Assignment) -> Running {
        self.begin(assignment, true).0
    }

    /// Does what a service falls back on.
    pub(super) fn instead(&mut self, running: Box<Running>, error: ToolError) {
        match fallback::next(&self.shared, running, error) {
            Next::Call(assignment) => self.start(*assignment),
            Next::Answer(running, output) => {
                self.conclude(*running, End::Answered(Ok(output)), Instant::now());
            }
            Next::Nothing(running, error) => {
                let outcome = running.given_up(error, Duration::ZERO);
                self.settle(outcome);
            }
            Next::Stale(running) => self.ask_for_stale(running),
        }
    }

    fn ask_for_stale(&mut self, running: Box<Running>) {
        let key = self.next_key();
        let (cache, events) = (self.shared.cache.clone(), self.sender.clone());
        let of = running.admitted.as_ref().and_then(|admitted| {
            let service = fallback::chain(admitted)?;
            Some((service, Arc::clone(&admitted.tool), admitted.call.clone()))
        });
        self.awaiting_stale.insert(key, running);
        self.tracker.spawn(async move {
            let found = match &of {
                Some((service, tool, call)) => cache.stale(&question(service, tool, call)).await,
                None => None,
            };
            drop(events.send(Event::Stale(key, found)));
        });
    }

    pub(super) fn stale(&mut self, key: u64, found: Option<tidemill_protocol::Payload>) {
        let Some(running) = self.awaiting_stale.remove(&key) else { return };
        match found {
            Some(output) => {
                fallback::count_stale(&self.shared, &running);
                self.conclude(*running, End::Answered(Ok(output)), Instant::now());
            }
            None => {
                let error = ToolError::new(ErrorClass::Server, "no_stale_answer", "no old answer is kept");
                self.instead(running, error);
            }
        }
    }

    /// Asks the cache, if the service has one; else replies the assignment as it is.
    fn look_up(&mut self, mut assignment: Assignment) -> Option<Assignment> {
        if std::mem::replace(&mut assignment.progress.was_looked_up, true) {
            return Some(assignment);
        }
        let facts = self.service_of(&assignment);
        let Some((facts, rules)) =
            facts.and_then(|facts| Some((facts.clone(), facts.definition.cache.clone()?)))
        else {
            return Some(assignment);
        };
        let key = self.next_key();
        let (cache, events) = (self.shared.cache.clone(), self.sender.clone());
        let (tool, call) = (Arc::clone(&assignment.target.name), assignment.call.clone());
        self.tracker.spawn(async move {
            let found = cache.look_up(&question(&facts.name, &tool, &call), &rules).await;
            drop(events.send(Event::LookedUp(key, Box::new(found))));
        });
        // many equal calls that wait for one answer must not all be claimed meanwhile
        let takes_no_room = self.looking.len() < MOST_LOOKING;
        if takes_no_room {
            self.shared.capacity.lend(1);
        }
        self.looking.insert(key, Looking { assignment, takes_no_room });
        None
    }

    pub(super) fn looked_up(&mut self, key: u64, found: LookUp) {
        let Some(mut assignment) = self.stop_looking(key) else { return };
        match found {
            LookUp::Hit(output) => self.answer(assignment, Ok(output)),
            LookUp::Failed(error) => self.answer(assignment, Err(error)),
            LookUp::Fill(ticket) => {
                assignment.progress.fill = Some(ticket);
                self.start(assignment);
            }
        }
    }

    /// Ends work with an answer for which no call of its own was made.
    fn answer(&mut self, assignment: Assignment, answer: Result<tidemill_protocol::Payload, ToolError>) {
        let running = self.without_call(assignment);
        self.conclude(running, End::Answered(answer), Instant::now());
    }
}

fn word(why: &str) -> &str {
    why.split(':').next().unwrap_or(why)
}

/// What the cache is asked. Answers of one tenant are not given to another.
fn question<'a>(service: &'a Arc<str>, tool: &'a str, call: &'a tidemill_tool::Call) -> Question<'a> {
    Question { service, tool, apart: call.context.tenant.as_deref().unwrap_or_default(), input: &call.input }
}
