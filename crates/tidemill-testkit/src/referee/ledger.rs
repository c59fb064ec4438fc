//! The book of a referee: every call that came, judged by the rules of its moment. Time is given from outside, in
//! nanoseconds since the referee began, and never runs backwards.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};

use super::{
    report::{Arrival, Epoch, Rule, Verdict},
    rules::{Change, Fault, Quota, Rules, Scope, Unit},
    window::Window,
};

/// What a call says of itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Call {
    /// Its `authorization`, or nothing.
    pub(super) key: String,
    pub(super) path: String,
    pub(super) idempotency_key: Option<String>,
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
}

impl Call {
    const fn tokens(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }

    const fn uses(&self, unit: Unit) -> u64 {
        match unit {
            Unit::Requests => 1,
            Unit::Tokens => self.tokens(),
        }
    }
}

/// How a call is to be answered.
#[derive(Debug)]
pub(super) struct Decision {
    /// Where the call stands in the book.
    pub(super) place: usize,
    pub(super) at: u64,
    pub(super) verdict: Verdict,
    pub(super) fault: Option<Fault>,
    pub(super) latency: Duration,
    /// For a refused call: when it would have passed, if ever.
    pub(super) wait: Option<Duration>,
    /// The quotas after this call; empty unless the answer tells of them.
    pub(super) standing: Vec<Standing>,
    pub(super) rules: Arc<Rules>,
}

/// One quota as a caller sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    pub(super) quota: Quota,
    pub(super) remaining: u64,
    pub(super) empty_in: Duration,
}

/// A fault for a span of time.
#[derive(Debug, Clone, Copy)]
struct Script {
    from: u64,
    to: u64,
    fault: Fault,
}

/// The calls that are counted together.
#[derive(Debug, Default)]
struct Group {
    /// One for each quota of the rules, in their order.
    windows: Vec<Window>,
    under_way: u32,
}

/// Calls at the same time.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Together {
    now: u32,
    pub(super) most: u32,
}

impl Together {
    /// A refused call is there for a moment, and counts in that moment.
    fn begin(&mut self, stays: bool) {
        self.most = self.most.max(self.now + 1);
        self.now += u32::from(stays);
    }
}

#[derive(Debug)]
pub(super) struct Ledger {
    rules: Arc<Rules>,
    epochs: Vec<Epoch>,
    arrivals: Vec<Arrival>,
    groups: HashMap<Arc<str>, Group>,
    together: Together,
    together_by_key: HashMap<Arc<str>, Together>,
    scripts: Vec<Script>,
    texts: HashSet<Arc<str>>,
    random: SmallRng,
}

impl Ledger {
    pub(super) fn new(rules: Rules) -> Self {
        let rules = Arc::new(rules);
        Self {
            epochs: vec![Epoch { from: Duration::ZERO, rules: Arc::clone(&rules) }],
            random: SmallRng::seed_from_u64(rules.seed),
            rules,
            arrivals: Vec::new(),
            groups: HashMap::new(),
            together: Together::default(),
            together_by_key: HashMap::new(),
            scripts: Vec::new(),
            texts: HashSet::new(),
        }
    }

    pub(super) const fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    pub(super) fn arrivals(&self) -> &[Arrival] {
        &self.arrivals
    }

    pub(super) fn epochs(&self) -> &[Epoch] {
        &self.epochs
    }

    /// The most calls at the same time, of all and of each key.
    pub(super) const fn together(&self) -> (Together, &HashMap<Arc<str>, Together>) {
        (self.together, &self.together_by_key)
    }

    /// Enforces other rules from now on; what was used before stays used.
    pub(super) fn set(&mut self, now: u64, rules: Rules) {
        if rules.seed != self.rules.seed {
            self.random = SmallRng::seed_from_u64(rules.seed);
        }
        self.rules = Arc::new(rules);
        self.epochs.push(Epoch { from: Duration::from_nanos(now), rules: Arc::clone(&self.rules) });
        self.groups.clear();
        let rules = Arc::clone(&self.rules);
        for arrival in self.arrivals.iter().filter(|arrival| arrival.verdict == Verdict::Admitted) {
            let group = self.groups.entry(group_of(&rules, &arrival.key)).or_insert_with(|| group(&rules));
            group.under_way += u32::from(arrival.ended.is_none());
            let (at, then) = (nanos(arrival.at), self.epochs.get(arrival.epoch));
            for (quota, window) in rules.quotas.iter().zip(&mut group.windows) {
                let met = match rules.change {
                    Change::Prorated => then.and_then(|then| then.rules.limit_of(quota.unit, quota.window)),
                    Change::AtOnce => None,
                };
                window.add(at, arrival.uses(quota.unit), met.unwrap_or(quota.limit));
            }
        }
    }

    pub(super) fn script(&mut self, from: u64, to: u64, fault: Fault) {
        self.scripts.push(Script { from, to, fault });
    }

    /// Forgets the scripts.
    pub(super) fn heal(&mut self) {
        self.scripts.clear();
    }

    /// Judges a call and writes it down.
    pub(super) fn judge(&mut self, now: u64, call: &Call) -> Decision {
        let rules = Arc::clone(&self.rules);
        let key = self.text(&call.key);
        let group = self.groups.entry(group_of(&rules, &key)).or_insert_with(|| group(&rules));
        for window in &mut group.windows {
            window.slide(now);
        }
        let (verdict, wait) = verdict(&rules, group, call, now);
        if verdict == Verdict::Admitted {
            group.under_way += 1;
            for (quota, window) in rules.quotas.iter().zip(&mut group.windows) {
                window.add(now, call.uses(quota.unit), quota.limit);
            }
        }
        let standing = if rules.headers.is_empty() { Vec::new() } else { standing(&rules, group, now) };
        let admitted = verdict == Verdict::Admitted;
        self.together.begin(admitted);
        self.together_by_key.entry(Arc::clone(&key)).or_default().begin(admitted);
        let (fault, latency) = if admitted { self.fate(now) } else { (None, Duration::ZERO) };
        let arrival = Arrival {
            at: Duration::from_nanos(now),
            ended: None,
            key,
            path: self.text(&call.path),
            idempotency_key: call.idempotency_key.as_deref().map(Arc::from),
            tokens: call.tokens(),
            verdict,
            fault,
            status: None,
            epoch: self.epochs.len() - 1,
        };
        self.arrivals.push(arrival);
        let place = self.arrivals.len() - 1;
        Decision { place, at: now, verdict, fault, latency, wait, standing, rules }
    }

    /// Notes that a call is over: with this status, or without a whole answer.
    pub(super) fn end(&mut self, now: u64, place: usize, status: Option<u16>) {
        let Some(arrival) = self.arrivals.get_mut(place).filter(|arrival| arrival.ended.is_none()) else {
            return;
        };
        arrival.ended = Some(Duration::from_nanos(now));
        arrival.status = status;
        if arrival.verdict != Verdict::Admitted {
            return;
        }
        if let Some(group) = self.groups.get_mut(&group_of(&self.rules, &arrival.key)) {
            group.under_way = group.under_way.saturating_sub(1);
        }
        self.together.now = self.together.now.saturating_sub(1);
        if let Some(together) = self.together_by_key.get_mut(&arrival.key) {
            together.now = together.now.saturating_sub(1);
        }
    }

    /// The fault that strikes now, by script or by chance, and how long the answer takes.
    fn fate(&mut self, now: u64) -> (Option<Fault>, Duration) {
        let scripted = self.scripts.iter().find(|script| (script.from..script.to).contains(&now));
        let mut fault = scripted.map(|script| script.fault);
        for (part, by_chance) in &self.rules.failures {
            // drawn in any case, so that a script does not change what is drawn after it
            let strikes = self.random.random::<f64>() < *part;
            if strikes && fault.is_none() {
                fault = Some(*by_chance);
            }
        }
        let latency = self.rules.latency.at(1.0 - self.random.random::<f64>());
        let times = if let Some(Fault::Slow(times)) = fault { times } else { 1 };
        (fault, latency.saturating_mul(times))
    }

    /// The one copy of a text that many calls share.
    fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        let new: Arc<str> = Arc::from(text);
        self.texts.insert(Arc::clone(&new));
        new
    }
}

/// Whose windows a key's calls count in.
pub(super) fn group_of(rules: &Rules, key: &Arc<str>) -> Arc<str> {
    match rules.scope {
        Scope::Key => Arc::clone(key),
        Scope::Everyone => Arc::default(),
    }
}

fn group(rules: &Rules) -> Group {
    let windows = rules.quotas.iter().map(|quota| Window::new(nanos(quota.window))).collect();
    Group { windows, under_way: 0 }
}

fn verdict(rules: &Rules, group: &Group, call: &Call, now: u64) -> (Verdict, Option<Duration>) {
    let mut refused = None;
    let mut wait = Some(0);
    for (quota, window) in rules.quotas.iter().zip(&group.windows) {
        let uses = call.uses(quota.unit);
        if !window.fits(uses, quota.limit) {
            refused = refused.or_else(|| Some(Rule::from(quota.unit)));
            // it passes when the last of the quotas lets it
            wait = wait.zip(window.wait(now, uses, quota.limit)).map(|(one, other)| one.max(other));
        }
    }
    if refused.is_none() && rules.concurrency.is_some_and(|cap| group.under_way >= cap) {
        refused = Some(Rule::Concurrency);
        wait = Some(nanos(Duration::from_secs(1)));
    }
    match refused {
        None => (Verdict::Admitted, None),
        Some(rule) => (Verdict::Refused(rule), wait.map(Duration::from_nanos)),
    }
}

fn standing(rules: &Rules, group: &Group, now: u64) -> Vec<Standing> {
    let quotas = rules.quotas.iter().zip(&group.windows);
    let tell = |(quota, window): (&Quota, &Window)| Standing {
        quota: *quota,
        remaining: window.remaining(quota.limit),
        empty_in: Duration::from_nanos(window.empty_in(now)),
    };
    quotas.map(tell).collect()
}

/// A span in nanoseconds: more than 500 years do not fit, and do not matter.
pub(super) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
