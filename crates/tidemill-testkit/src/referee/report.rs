//! What a referee saw, and what can be concluded from it.
//!
//! Every number about windows is computed here from the log of arrivals, by prefix sums, and owes nothing to the windows
//! that the referee judged by. It counts what came, admitted or not: a cheater's windows are above 1.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
    time::Duration,
};

use super::{
    ledger::group_of,
    rules::{Fault, Rules, Unit},
    window::ratio,
};

/// A rule that a call broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Too many requests in a window.
    Requests,
    /// Too many tokens in a window.
    Tokens,
    /// Too many calls under way.
    Concurrency,
}

impl From<Unit> for Rule {
    fn from(unit: Unit) -> Self {
        match unit {
            Unit::Requests => Self::Requests,
            Unit::Tokens => Self::Tokens,
        }
    }
}

/// What the rules say of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It kept them. It may have failed all the same: see [`Arrival::fault`].
    Admitted,
    /// It broke this one and got 429.
    Refused(Rule),
}

/// One call. Times count from the referee's start, on its own monotonic clock.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// When the whole request had come.
    pub at: Duration,
    /// When it was answered, or its caller went away; nothing while it is under way.
    pub ended: Option<Duration>,
    /// Its `authorization` header; empty without one.
    pub key: Arc<str>,
    /// Its path, with the query.
    pub path: Arc<str>,
    /// Its `idempotency-key` header.
    pub idempotency_key: Option<Arc<str>>,
    /// The tokens that it used.
    pub tokens: u64,
    /// Whether it kept the rules.
    pub verdict: Verdict,
    /// How it was made to fail.
    pub fault: Option<Fault>,
    /// The status of its answer; nothing while it is under way, or when no whole answer was sent.
    pub status: Option<u16>,
    /// The rules that it met, as an index into [`Report::epochs`].
    pub epoch: usize,
}

impl Arrival {
    pub(super) const fn uses(&self, unit: Unit) -> u64 {
        match unit {
            Unit::Requests => 1,
            Unit::Tokens => self.tokens,
        }
    }

    /// Whether it kept the rules.
    #[must_use]
    pub fn is_admitted(&self) -> bool {
        self.verdict == Verdict::Admitted
    }
}

/// A time with the same rules.
#[derive(Debug, Clone)]
pub struct Epoch {
    /// When they began to hold.
    pub from: Duration,
    /// The rules.
    pub rules: Arc<Rules>,
}

/// Parts of a limit: 1.0 is all of it. Where several quotas have the same unit, the fullest; 0 where there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Shares {
    /// Of the requests.
    pub requests_share: f64,
    /// Of the tokens.
    pub tokens_share: f64,
}

/// Many calls in a short time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Burst {
    /// How many.
    pub calls: usize,
    /// When the first came.
    pub from: Duration,
    /// When the last came.
    pub to: Duration,
}

/// The same numbers, for one key.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct KeyReport {
    /// All calls.
    pub calls: usize,
    /// Those that kept the rules.
    pub admitted: usize,
    /// Those that broke one.
    pub violations: usize,
    /// The most calls at the same time, refused ones included.
    pub most_concurrent: u32,
}

/// What a referee saw up to the moment it was asked.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// When it was made.
    pub until: Duration,
    /// All calls.
    pub calls: usize,
    /// Those that kept the rules.
    pub admitted: usize,
    /// Those that broke one.
    pub violations: usize,
    /// Answers by their status. Violations are among the 429, and so are scripted ones.
    pub by_status: BTreeMap<u16, usize>,
    /// Calls that ended without a whole answer: hung, reset, or given up by their caller.
    pub unanswered: usize,
    /// The fullest of all sliding windows, over everything that came. A call counts against the limit that it met.
    pub worst_window: Shares,
    /// The most calls at the same time, refused ones included.
    pub most_concurrent: u32,
    /// The same, for each key.
    pub per_key: BTreeMap<Arc<str>, KeyReport>,
    /// Every call, in the order of arrival.
    pub arrivals: Vec<Arrival>,
    /// The rules that held, in their order.
    pub epochs: Vec<Epoch>,
    /// The longest time for which the referee itself did not get to run. Arrivals of that time bear the time of its
    /// end: windows shorter than a few of these say more about the machine than about the callers.
    pub worst_stall: Duration,
}

impl Report {
    pub(super) fn new(until: Duration, arrivals: Vec<Arrival>, epochs: Vec<Epoch>) -> Self {
        let mut report = Self { until, arrivals, epochs, ..Self::default() };
        report.calls = report.arrivals.len();
        for arrival in &report.arrivals {
            let of_key = report.per_key.entry(Arc::clone(&arrival.key)).or_default();
            of_key.calls += 1;
            match arrival.verdict {
                Verdict::Admitted => of_key.admitted += 1,
                Verdict::Refused(_) => of_key.violations += 1,
            }
            match arrival.status {
                Some(status) => *report.by_status.entry(status).or_default() += 1,
                None => report.unanswered += usize::from(arrival.ended.is_some()),
            }
        }
        report.admitted = report.per_key.values().map(|of_key| of_key.admitted).sum();
        report.violations = report.calls - report.admitted;
        report.worst_window = report.worst_window_of(|_| true);
        report
    }

    /// The fullest of all sliding windows, over the calls that `counts` names.
    #[must_use]
    pub fn worst_window_of(&self, counts: impl Fn(&Arrival) -> bool) -> Shares {
        let of = |unit| {
            let windows = self.windows(unit).into_iter();
            windows.map(|window| self.fullest(unit, window, &counts)).fold(0.0, f64::max)
        };
        Shares { requests_share: of(Unit::Requests), tokens_share: of(Unit::Tokens) }
    }

    /// How much of the limits was used, from one time (included) to another: 1.0 when the calls admitted in it are as
    /// many as the limit allows for a time of that length. Where groups are counted apart, all of them together: two
    /// keys at their limits make 2.0.
    #[must_use]
    pub fn use_share(&self, from: Duration, to: Duration) -> Shares {
        let span = to.saturating_sub(from).as_secs_f64();
        let of = |unit| {
            let used = |window: Duration| {
                let shares = self.between(from, to).filter(|arrival| arrival.is_admitted());
                let sum: f64 = shares.map(|arrival| self.share(arrival, unit, window)).sum();
                if span > 0.0 { sum * window.as_secs_f64() / span } else { 0.0 }
            };
            self.windows(unit).into_iter().map(used).fold(0.0, f64::max)
        };
        Shares { requests_share: of(Unit::Requests), tokens_share: of(Unit::Tokens) }
    }

    /// The calls from one time (included) to another.
    pub fn between(&self, from: Duration, to: Duration) -> impl Iterator<Item = &Arrival> {
        let first = self.arrivals.partition_point(|arrival| arrival.at < from);
        self.arrivals.iter().skip(first).take_while(move |arrival| arrival.at < to)
    }

    /// The most calls in any span of this length, of all keys together: finds bursts.
    #[must_use]
    pub fn most_in(&self, window: Duration) -> Burst {
        let mut most = Burst::default();
        let mut first = 0;
        for (last, arrival) in self.arrivals.iter().enumerate() {
            while self.arrivals.get(first).is_some_and(|oldest| oldest.at + window <= arrival.at) {
                first += 1;
            }
            let calls = last + 1 - first;
            if calls > most.calls {
                let from = self.arrivals.get(first).map_or(arrival.at, |oldest| oldest.at);
                most = Burst { calls, from, to: arrival.at };
            }
        }
        most
    }

    /// The calls in groups that a silence of at least `silence` parts: what half-open periods look like from outside.
    #[must_use]
    pub fn groups(&self, silence: Duration) -> Vec<Burst> {
        let mut groups: Vec<Burst> = Vec::new();
        for arrival in &self.arrivals {
            match groups.last_mut() {
                Some(group) if group.to + silence > arrival.at => {
                    group.calls += 1;
                    group.to = arrival.at;
                }
                _ => groups.push(Burst { calls: 1, from: arrival.at, to: arrival.at }),
            }
        }
        groups
    }

    /// Calls by their idempotency key; those without one are not among them.
    #[must_use]
    pub fn per_idempotency_key(&self) -> BTreeMap<Arc<str>, usize> {
        let mut calls = BTreeMap::new();
        for key in self.arrivals.iter().filter_map(|arrival| arrival.idempotency_key.as_ref()) {
            *calls.entry(Arc::clone(key)).or_default() += 1;
        }
        calls
    }

    /// How many calls broke this rule.
    #[must_use]
    pub fn violations_of(&self, rule: Rule) -> usize {
        self.arrivals.iter().filter(|arrival| arrival.verdict == Verdict::Refused(rule)).count()
    }

    /// The windows of this unit that any epoch had.
    fn windows(&self, unit: Unit) -> Vec<Duration> {
        let quotas = self.epochs.iter().flat_map(|epoch| &epoch.rules.quotas);
        let mut windows: Vec<_> =
            quotas.filter(|quota| quota.unit == unit).map(|quota| quota.window).collect();
        windows.sort_unstable();
        windows.dedup();
        windows
    }

    /// The limit that a call met, if it met one.
    fn limit(&self, arrival: &Arrival, unit: Unit, window: Duration) -> Option<u64> {
        self.epochs.get(arrival.epoch).and_then(|epoch| epoch.rules.limit_of(unit, window))
    }

    fn share(&self, arrival: &Arrival, unit: Unit, window: Duration) -> f64 {
        self.limit(arrival, unit, window).map_or(0.0, |limit| ratio(arrival.uses(unit), limit))
    }

    /// The fullest window of this length of any group. It is enough to look at windows that end at an arrival: another
    /// one holds no call that the one ending at its last arrival lacks.
    fn fullest(&self, unit: Unit, window: Duration, counts: impl Fn(&Arrival) -> bool) -> f64 {
        let mut groups: HashMap<Arc<str>, Group> = HashMap::new();
        for arrival in self.arrivals.iter().filter(|arrival| counts(arrival)) {
            let (Some(epoch), Some(limit)) =
                (self.epochs.get(arrival.epoch), self.limit(arrival, unit, window))
            else {
                continue;
            };
            let group = groups.entry(group_of(&epoch.rules, &arrival.key)).or_default();
            group.push(arrival.at, arrival.uses(unit), limit);
        }
        groups.values().map(|group| group.fullest(window)).fold(0.0, f64::max)
    }
}

/// The uses of one group, and for each limit that they met the sums over all uses before each.
#[derive(Debug, Default)]
struct Group {
    at: Vec<Duration>,
    sums: Vec<(u64, Vec<u64>)>,
}

impl Group {
    fn push(&mut self, at: Duration, uses: u64, limit: u64) {
        if !self.sums.iter().any(|(of, _)| *of == limit) {
            self.sums.push((limit, vec![0; self.at.len() + 1]));
        }
        self.at.push(at);
        for (of, sums) in &mut self.sums {
            let before = sums.last().copied().unwrap_or_default();
            sums.push(if *of == limit { before + uses } else { before });
        }
    }

    fn fullest(&self, window: Duration) -> f64 {
        let share = |(last, end): (usize, &Duration)| {
            let first = self.at.partition_point(|at| *at + window <= *end);
            let within = |sums: &[u64]| sum_to(sums, last + 1) - sum_to(sums, first);
            self.sums.iter().map(|(limit, sums)| ratio(within(sums), *limit)).sum()
        };
        self.at.iter().enumerate().map(share).fold(0.0, f64::max)
    }
}

fn sum_to(sums: &[u64], index: usize) -> u64 {
    sums.get(index).copied().unwrap_or_default()
}

impl fmt::Display for Report {
    /// One line that says enough when a test fails.
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| share * 100.0;
        write!(
            to,
            "{} calls in {:.3?}: {} admitted, {} violations ({} requests, {} tokens, {} concurrency), statuses {:?}, \
             {} unanswered, worst window {:.2} % of requests, {:.2} % of tokens, most concurrent {}, worst stall of \
             the referee {:.1?}",
            self.calls,
            self.until,
            self.admitted,
            self.violations,
            self.violations_of(Rule::Requests),
            self.violations_of(Rule::Tokens),
            self.violations_of(Rule::Concurrency),
            self.by_status,
            self.unanswered,
            percent(self.worst_window.requests_share),
            percent(self.worst_window.tokens_share),
            self.most_concurrent,
            self.worst_stall,
        )
    }
}
