//! The engine: one task that owns everything that waits for admission in this worker, and every place that it holds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tidemill_policy::service::template_names;
use tidemill_store::{Answer, Exchanged, Hindrance, Services};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::exchange::{Draft, Holding};
use super::lease::{Ended, Lease};
use super::local::Local;
use super::need::Need;
use super::refusals::refusal;
use super::{Message, Verdict};
use crate::executor::Event;
use crate::shared::Shared;

/// Wanted calls in one exchange.
const MOST_REQUESTS: usize = 256;
/// Ended calls in one exchange.
const MOST_REPORTS: usize = 512;
/// Ended calls that wait to be told. More come only while Redis is away and a service goes on without it; they are not told.
const MOST_UNTOLD: usize = 20_000;
/// Calls that wait here at once; more go into lines.
const MOST_WAITING: usize = 512;
/// Places that are held are renewed, and definitions looked at, so often.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// What calls use is told to others, and heard from them, so often.
const LEARN_EVERY: Duration = Duration::from_secs(5);
/// How long a call with a ticket waits here for its turn before it goes back to the head of its line.
const TICKET_PATIENCE: Duration = Duration::from_secs(1);
/// Up to so many calls a second each goes at once; beyond, calls gather.
const CALM_PER_SECOND: f64 = 200.0;
/// The longest that calls gather.
const GATHER: Duration = Duration::from_millis(10);
/// How long the last exchanges of a worker that ends may take.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The pause after an exchange that failed.
const AFTER_FAULT: Duration = Duration::from_millis(100);

/// Who wants a call.
pub(super) enum Asker {
    /// The executor, for an assignment.
    Executor(u64),
    /// An attempt that would repeat itself.
    Hedge(oneshot::Sender<Option<Lease>>),
}

pub(super) struct Waiting {
    pub(super) asker: Asker,
    pub(super) need: Box<Need>,
    since: Instant,
    due: Instant,
    pub(super) was_asked: bool,
    hindered_by: Option<Arc<str>>,
}

impl Waiting {
    /// How long it may go on waiting here.
    pub(super) fn patience(&self) -> Duration {
        let (waited, patience) = (self.since.elapsed(), self.need.patience);
        if self.need.tickets.iter().any(|has_ticket| *has_ticket) {
            return TICKET_PATIENCE.saturating_sub(waited);
        }
        if waited < patience * 4 { patience } else { Duration::ZERO }
    }
}

struct Engine {
    shared: Arc<Shared>,
    services: Services,
    events: UnboundedSender<Event>,
    waiting: Vec<Waiting>,
    ended: Vec<Ended>,
    held: HashMap<Arc<str>, Holding>,
    local: Local,
    seq: u64,
    /// Ends are told at once: places under a cap are short.
    pressed: bool,
    last: Instant,
    /// When ended calls are told at the latest.
    report_at: Option<Instant>,
    renew_at: Instant,
    learn_at: Instant,
    per_second: f64,
    failing_since: Option<Instant>,
    not_before: Instant,
    draining: bool,
}

/// Runs the engine until the token is cancelled; then it tells what is left to tell.
pub(crate) async fn run(
    shared: Arc<Shared>,
    mut messages: UnboundedReceiver<Message>,
    events: UnboundedSender<Event>,
    keeping: CancellationToken,
) {
    let now = Instant::now();
    let mut engine = Engine {
        services: shared.store.services(),
        shared,
        events,
        waiting: Vec::new(),
        ended: Vec::new(),
        held: HashMap::new(),
        local: Local::default(),
        seq: 0,
        pressed: false,
        last: now,
        report_at: None,
        renew_at: now,
        learn_at: now,
        per_second: 0.0,
        failing_since: None,
        not_before: now,
        draining: false,
    };
    let mut batch = Vec::with_capacity(64);
    loop {
        tokio::select! {
            biased;
            () = keeping.cancelled() => break,
            count = messages.recv_many(&mut batch, 1_024) => {
                if count == 0 {
                    return;
                }
                batch.drain(..).for_each(|message| engine.on(message));
            }
            () = tokio::time::sleep_until(engine.wakes_at()) => {}
        }
        engine.act().await;
    }
    while let Ok(message) = messages.try_recv() {
        engine.on(message);
    }
    drop(tokio::time::timeout(LAST_WORDS, engine.leave()).await);
}

impl Engine {
    fn on(&mut self, message: Message) {
        let now = Instant::now();
        match message {
            Message::Ask(key, need) => self.wants(Asker::Executor(key), need, now),
            Message::AskHedge(need, reply) => self.wants(Asker::Hedge(reply), need, now),
            Message::Withdraw(key) => {
                self.waiting.retain(|waiting| !matches!(waiting.asker, Asker::Executor(own) if own == key));
            }
            Message::Ended(ended) => self.has_ended(*ended, now),
            Message::Drain => self.draining = true,
        }
    }

    fn wants(&mut self, asker: Asker, need: Box<Need>, now: Instant) {
        self.waiting.push(Waiting { asker, need, since: now, due: now, was_asked: false, hindered_by: None });
    }

    fn has_ended(&mut self, ended: Ended, now: Instant) {
        for tier in ended.lease.need.tiers.iter() {
            if let Some(holding) = self.held.get_mut(&tier.name) {
                holding.count = holding.count.saturating_sub(1);
                // one of those who wait for a place of this tier may have it
                let waits =
                    |one: &&mut Waiting| one.hindered_by.as_ref() == Some(&tier.name) && one.due > now;
                if let Some(first) = self.waiting.iter_mut().find(waits) {
                    first.due = now;
                }
            }
        }
        let is_urgent = self.pressed || !matches!(ended.outcome, tidemill_store::CallOutcome::Ok);
        // nobody waits for the others: they go with the next call that is asked for, or with the next renewal
        if is_urgent {
            self.report_at = Some(now);
        }
        if self.ended.len() < MOST_UNTOLD {
            self.ended.push(ended);
        }
    }

    /// When something has to be done next.
    fn wakes_at(&self) -> Instant {
        let asks = self.waiting.iter().map(|waiting| waiting.due).min();
        let due = asks.into_iter().chain(self.report_at).map(|at| at.max(self.gathers_until())).min();
        due.map_or(self.renew_at, |due| due.min(self.renew_at)).max(self.not_before)
    }

    /// Many calls a second are asked for together, so that Redis is not asked for each.
    fn gathers_until(&self) -> Instant {
        let share = ((self.per_second - CALM_PER_SECOND) / (4.0 * CALM_PER_SECOND)).clamp(0.0, 1.0);
        self.last + GATHER.mul_f64(share)
    }

    async fn act(&mut self) {
        let now = Instant::now();
        if now < self.not_before {
            return self.without_redis(now);
        }
        if now >= self.renew_at {
            self.renew_at = now + RENEW_EVERY;
            self.renew(now).await;
        }
        let asks = self.waiting.iter().any(|waiting| waiting.due <= now);
        let tells = self.report_at.is_some_and(|at| at <= now);
        if (asks || tells) && now >= self.gathers_until() {
            self.exchange(now, false).await;
        }
    }

    /// Keeps what is held, and follows the definitions.
    async fn renew(&mut self, now: Instant) {
        self.held.retain(|_, holding| holding.count > 0);
        // what an exchange has just stated need not be stated again
        let is_old = |holding: &Holding| holding.has_cap && now >= holding.stated + RENEW_EVERY / 2;
        if self.held.values().any(is_old) || !self.ended.is_empty() {
            self.exchange(now, true).await;
        } else {
            match self.services.generation().await {
                Ok(generation) => self.follow(generation).await,
                Err(error) => tracing::debug!(%error, "cannot ask whether services have changed"),
            }
        }
        if now >= self.learn_at && !self.shared.admission.snapshot().catalog.is_empty() {
            self.learn_at = now + LEARN_EVERY;
            self.learn().await;
        }
    }

    /// Tells others what calls use, and hears it from them.
    async fn learn(&self) {
        let learned = &self.shared.admission.learned;
        if let Err(error) = self.services.learn(&learned.news()).await {
            tracing::debug!(%error, "what was learned cannot be told");
        }
        match self.services.learned().await {
            Ok(told) => learned.hear(told),
            Err(error) => tracing::debug!(%error, "what others have learned cannot be read"),
        }
    }

    async fn follow(&mut self, generation: u64) {
        let shared = Arc::clone(&self.shared);
        let admission = &shared.admission;
        if generation != admission.snapshot().generation {
            match admission.read(&self.services).await {
                Ok(()) => self.refresh_holdings(),
                Err(error) => tracing::warn!(%error, "the definitions of services cannot be read"),
            }
        }
    }

    fn refresh_holdings(&mut self) {
        let snapshot = self.shared.admission.snapshot();
        for (tier, holding) in &mut self.held {
            // a definition may have come for the one that had only that of its kind, or gone
            let (own, kind) = template_names(tier);
            let known = [Some(own), kind.as_deref()].into_iter().flatten();
            if let Some(template) = known.into_iter().find(|name| snapshot.template(name).is_some()) {
                holding.template = Arc::from(template);
            }
            holding.has_cap = snapshot.template(&holding.template).is_some_and(|facts| facts.has_cap);
        }
    }

    /// Asks for what is due, tells what has ended, and states what is held.
    async fn exchange(&mut self, now: Instant, renews: bool) {
        let asking: Vec<Waiting> =
            self.waiting.extract_if(.., |waiting| waiting.due <= now).take(MOST_REQUESTS).collect();
        let told = self.ended.len().min(MOST_REPORTS);
        let telling: Vec<Ended> = self.ended.drain(..told).collect();
        self.measure(asking.len() + telling.len(), now);
        let snapshot = self.shared.admission.snapshot();
        let draft = Draft::of(&snapshot, (&asking, &telling), &self.held, renews);
        self.seq += 1;
        self.last = now;
        let metrics = &self.shared.metrics;
        metrics.exchanges.with(&[if renews { "renewal" } else { "calls" }]).inc();
        let answer =
            self.services.admit(&self.shared.consumer, self.seq, rand::random(), draft.exchange()).await;
        self.report_at = (self.ended.len() >= MOST_REPORTS).then_some(now);
        match answer {
            Ok(answer) if answer.accepted && answer.answers.len() == asking.len() => {
                self.failing_since = None;
                self.local = Local::default();
                let names = draft.names();
                for name in &names {
                    if let Some(holding) = self.held.get_mut(name) {
                        holding.stated = now;
                    }
                }
                self.take(answer, asking, &names, now).await;
            }
            // a newer exchange was there before this one: nothing of it was done
            Ok(_) => self.again(asking, telling),
            Err(error) => {
                tracing::warn!(%error, "admission cannot be asked; calls wait");
                metrics.fault(&error);
                self.failed(asking, telling, now);
            }
        }
    }

    fn measure(&mut self, calls: usize, now: Instant) {
        let seconds = (now - self.last).as_secs_f64().max(1e-4);
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
        let measured = calls as f64 / seconds;
        let weight = (seconds / 0.25).min(1.0);
        self.per_second += (measured - self.per_second) * weight;
    }

    async fn take(&mut self, answer: Exchanged, asking: Vec<Waiting>, names: &[Arc<str>], asked_at: Instant) {
        self.pressed = answer.pressed;
        let mut verdicts = Vec::with_capacity(asking.len());
        for (waiting, said) in asking.into_iter().zip(answer.answers) {
            self.decide(waiting, said, (answer.now_us, asked_at, names), &mut verdicts);
        }
        if !verdicts.is_empty() {
            drop(self.events.send(Event::Admission(verdicts)));
        }
        if answer.generation != self.shared.admission.snapshot().generation {
            self.follow(answer.generation).await;
        }
    }

    fn decide(
        &mut self,
        waiting: Waiting,
        said: Answer,
        (granted_us, asked_at, names): (u64, Instant, &[Arc<str>]),
        verdicts: &mut Vec<(u64, Verdict)>,
    ) {
        let service = waiting.need.service_name();
        let word = match &said {
            Answer::Granted { probe: true, .. } => "probe",
            Answer::Granted { .. } => "granted",
            Answer::Wait(_) => "wait",
            Answer::Line(_) => "line",
            Answer::Aside(_) => "aside",
            Answer::Never(_) => "never",
        };
        self.shared.metrics.admissions.with(&[service, word]).inc();
        match said {
            Answer::Granted { epoch, probe } => {
                let lease = Lease { need: Arc::from(waiting.need), granted_us, asked_at, epoch, probe };
                self.grant(waiting.asker, lease, verdicts);
            }
            Answer::Wait(hindrance) => self.wait(waiting, &hindrance, names, verdicts),
            other => {
                let (Answer::Line(hindrance) | Answer::Aside(hindrance) | Answer::Never(hindrance)) = &other
                else {
                    return;
                };
                self.shared.metrics.waits.with(&[service, &hindrance.why]).inc();
                let tier = names.get(hindrance.tier).cloned().unwrap_or_else(|| Arc::from("@pool"));
                if matches!(other, Answer::Line(_)) {
                    self.shared.admission.lined.saw(&tier, Instant::now());
                }
                let verdict = refusal(&other, hindrance, tier);
                tell(waiting.asker, verdict, verdicts);
            }
        }
    }

    fn grant(&mut self, asker: Asker, lease: Lease, verdicts: &mut Vec<(u64, Verdict)>) {
        let snapshot = self.shared.admission.snapshot();
        for tier in lease.need.tiers.iter() {
            let holding = self.held.entry(Arc::clone(&tier.name)).or_insert_with(|| Holding {
                template: Arc::clone(&tier.template),
                count: 0,
                has_cap: snapshot.template(&tier.template).is_some_and(|facts| facts.has_cap),
                stated: Instant::now(),
            });
            holding.count += 1;
        }
        match asker {
            Asker::Executor(key) => verdicts.push((key, Verdict::Granted(Box::new(lease)))),
            Asker::Hedge(reply) => {
                // the first has ended meanwhile
                if let Err(Some(lease)) = reply.send(Some(lease)) {
                    self.has_ended(Ended::unsent(lease), Instant::now());
                }
            }
        }
    }

    fn wait(
        &mut self,
        mut waiting: Waiting,
        hindrance: &Hindrance,
        names: &[Arc<str>],
        verdicts: &mut Vec<(u64, Verdict)>,
    ) {
        let now = Instant::now();
        let tier = names.get(hindrance.tier).cloned().unwrap_or_else(|| Arc::from("@pool"));
        self.shared.metrics.waits.with(&[waiting.need.service_name(), &hindrance.why]).inc();
        if self.draining || self.waiting.len() >= MOST_WAITING {
            let verdict = refusal(&Answer::Line(hindrance.clone()), hindrance, tier);
            return tell(waiting.asker, verdict, verdicts);
        }
        if let Asker::Executor(key) = waiting.asker
            && !waiting.was_asked
        {
            verdicts.push((key, Verdict::Waits));
        }
        waiting.was_asked = true;
        // a place may become free at any time, so that its expected wait is only a guess
        let wait = if hindrance.why == "concurrency" {
            hindrance.wait.clamp(Duration::from_millis(5), Duration::from_millis(200))
        } else {
            hindrance.wait
        };
        waiting.due = now + wait;
        waiting.hindered_by = (hindrance.why == "concurrency").then_some(tier);
        self.waiting.push(waiting);
    }

    /// The outcome of an exchange is not known: grants may have been given, which the next statement of what is held takes back; what
    /// was told may have been taken in, so that nothing is given back twice.
    fn failed(&mut self, asking: Vec<Waiting>, mut telling: Vec<Ended>, now: Instant) {
        self.failing_since.get_or_insert(now);
        telling.iter_mut().for_each(Ended::forget_refunds);
        self.again(asking, telling);
        self.without_redis(now);
    }

    /// The same is asked and told once more, after a moment.
    fn again(&mut self, mut asking: Vec<Waiting>, telling: Vec<Ended>) {
        self.not_before = Instant::now() + AFTER_FAULT;
        for waiting in &mut asking {
            waiting.due = self.not_before;
        }
        // they were there before those that came meanwhile
        asking.append(&mut self.waiting);
        self.waiting = asking;
        self.ended.extend(telling);
        self.report_at = (!self.ended.is_empty()).then_some(self.not_before);
    }

    /// The worker ends: its ended calls are told, and that it holds nothing any more. Whoever is not told waits until its places
    /// are missed.
    async fn leave(&mut self) {
        self.waiting.clear();
        for holding in self.held.values_mut() {
            holding.count = 0;
        }
        self.exchange(Instant::now(), true).await;
        while !self.ended.is_empty() && self.failing_since.is_none() {
            self.exchange(Instant::now(), false).await;
        }
    }

    /// Services that allow it go on with a share of their limit of their own.
    fn without_redis(&mut self, now: Instant) {
        let Some(since) = self.failing_since else { return };
        let snapshot = self.shared.admission.snapshot();
        let mut verdicts = Vec::new();
        let local = &mut self.local;
        let lets_go = |waiting: &mut Waiting| local.lets_go(&snapshot, &waiting.need, since, now);
        for waiting in self.waiting.extract_if(.., lets_go).collect::<Vec<_>>() {
            self.shared.metrics.admissions.with(&[waiting.need.service_name(), "local"]).inc();
            let lease = Lease {
                need: Arc::from(waiting.need),
                granted_us: 0,
                asked_at: now,
                epoch: -1,
                probe: false,
            };
            self.grant(waiting.asker, lease, &mut verdicts);
        }
        if !verdicts.is_empty() {
            drop(self.events.send(Event::Admission(verdicts)));
        }
    }
}

fn tell(asker: Asker, verdict: Verdict, verdicts: &mut Vec<(u64, Verdict)>) {
    match asker {
        Asker::Executor(key) => verdicts.push((key, verdict)),
        Asker::Hedge(reply) => drop(reply.send(None)),
    }
}
