//! A service's breaker, shared by the whole pool: the states of resilience4j and Polly, over a sliding window of the last calls
//! or of the last seconds, and exactly so many probes per half-open period.
//!
//! Each opening and each closing begins an *epoch*. A grant carries the epoch in which it was given, and an outcome of another
//! epoch is not counted: what was granted before an opening tells nothing about the time after it.

mod window;

use crate::limit::{SECOND, scale_up};
use crate::service::BreakerRules;

use self::window::Outcomes;

/// What dice can show: a share in millionths, below this.
pub const DICE: u64 = 1_000_000;
/// When to ask again while the probes are under way.
const PROBING_US: u64 = SECOND / 4;
/// When to ask again while people hold it open.
const BY_HAND_US: u64 = 5 * SECOND;
/// No period is doubled more often than this.
const DOUBLINGS: u32 = 30;

/// Where a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls pass, and their outcomes are counted.
    Closed,
    /// Nothing passes until that time.
    Open {
        /// When it becomes half-open, in microseconds.
        until_us: u64,
    },
    /// Only probes pass.
    HalfOpen,
    /// People hold it open.
    ForcedOpen,
    /// People let everything pass.
    Disabled,
}

/// What a breaker says to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// It may go.
    Free,
    /// It may go, as a probe.
    Probe,
    /// Ask again after so many microseconds.
    Held(u64),
}

/// How a call ended, as far as its service is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    /// The service did it.
    Ok,
    /// The service failed.
    Failed,
    /// The service asked for less. It is no fault of its own.
    Throttled,
    /// It says nothing about the service: not sent, or refused for what it asked.
    Neutral,
}

/// A call that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub outcome: CallOutcome,
    /// How long it took, in microseconds.
    pub latency_us: u64,
    /// The epoch of its grant.
    pub epoch: u64,
    /// Whether it was a probe.
    pub probe: bool,
}

/// A breaker.
#[derive(Debug, Clone, PartialEq)]
pub struct Breaker {
    rules: BreakerRules,
    state: BreakerState,
    epoch: u64,
    /// Openings since it was last closed.
    openings: u32,
    outcomes: Outcomes,
    probes: Probes,
}

/// The probes of a half-open period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Probes {
    granted: u64,
    reported: u64,
    failed: u64,
    last_us: u64,
}

impl Breaker {
    /// A closed breaker that saw nothing.
    #[must_use]
    pub fn new(rules: BreakerRules) -> Self {
        let outcomes = Outcomes::new(&rules);
        let (state, probes) = (BreakerState::Closed, Probes::default());
        Self { rules, state, epoch: 0, openings: 0, outcomes, probes }
    }

    /// Where it stands. Time alone moves it only when somebody asks.
    #[must_use]
    pub const fn state(&self) -> BreakerState {
        self.state
    }

    /// What a grant of now carries.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether a call may go. `dice` spreads the time it stays open, should its probes have been silent for too long.
    pub fn ask(&mut self, now_us: u64, dice: u64) -> Passage {
        if let BreakerState::Open { until_us } = self.state {
            if now_us < until_us {
                return Passage::Held(until_us - now_us);
            }
            self.state = BreakerState::HalfOpen;
            self.probes = Probes { last_us: now_us, ..Probes::default() };
        }
        if self.state == BreakerState::HalfOpen {
            self.conclude(now_us, dice);
        }
        match self.state {
            BreakerState::Closed | BreakerState::Disabled => Passage::Free,
            BreakerState::Open { until_us } => Passage::Held(until_us.saturating_sub(now_us)),
            BreakerState::HalfOpen if self.probes.granted < self.rules.probes => Passage::Probe,
            BreakerState::HalfOpen => Passage::Held(PROBING_US),
            BreakerState::ForcedOpen => Passage::Held(BY_HAND_US),
        }
    }

    /// A call that may go as a probe was granted.
    pub fn probing(&mut self, now_us: u64) {
        self.probes.granted += 1;
        self.probes.last_us = now_us;
    }

    /// Counts the outcome of a call. `dice` (below [`DICE`]) spreads the time it stays open, should it open.
    pub fn record(&mut self, now_us: u64, ended: &Ended, dice: u64) {
        if ended.epoch != self.epoch {
            return;
        }
        match self.state {
            BreakerState::HalfOpen if ended.probe => self.record_probe(now_us, ended, dice),
            BreakerState::Closed if matches!(ended.outcome, CallOutcome::Ok | CallOutcome::Failed) => {
                self.record_call(now_us, ended, dice);
            }
            BreakerState::Closed
            | BreakerState::Open { .. }
            | BreakerState::HalfOpen
            | BreakerState::ForcedOpen
            | BreakerState::Disabled => {}
        }
    }

    /// People hold it open.
    pub fn force_open(&mut self) {
        self.enter(BreakerState::ForcedOpen);
    }

    /// People let everything pass.
    pub fn disable(&mut self) {
        self.enter(BreakerState::Disabled);
    }

    /// People close it: what was, is forgotten.
    pub fn close(&mut self) {
        self.openings = 0;
        self.enter(BreakerState::Closed);
    }

    fn enter(&mut self, state: BreakerState) {
        self.state = state;
        self.epoch += 1;
        self.outcomes.clear();
    }

    const fn is_slow(&self, ended: &Ended) -> bool {
        self.rules.slow_us > 0 && ended.latency_us >= self.rules.slow_us
    }

    fn record_call(&mut self, now_us: u64, ended: &Ended, dice: u64) {
        let (failed, slow) = (ended.outcome == CallOutcome::Failed, self.is_slow(ended));
        self.outcomes.add(now_us, failed, slow);
        // a good call opens nothing, though it may make the calls enough
        if !failed && !slow {
            return;
        }
        let counts = self.outcomes.counts();
        if counts.calls < self.rules.min_calls {
            return;
        }
        let too_slow = self.rules.slow_us > 0 && is_share(counts.slow, counts.calls, self.rules.slow_ratio);
        if too_slow || is_share(counts.failed, counts.calls, self.rules.failure_ratio) {
            self.open(now_us, dice);
        }
    }

    fn record_probe(&mut self, now_us: u64, ended: &Ended, dice: u64) {
        let Probes { granted, reported, .. } = self.probes;
        // one that was too late was counted then
        if reported >= granted {
            return;
        }
        match ended.outcome {
            // it gives its place to another
            CallOutcome::Throttled | CallOutcome::Neutral => self.probes.granted -= 1,
            CallOutcome::Ok | CallOutcome::Failed => {
                let slow = self.is_slow(ended) && self.rules.slow_ratio < 1.0;
                self.probes.reported += 1;
                self.probes.failed += u64::from(slow || ended.outcome == CallOutcome::Failed);
                self.conclude(now_us, dice);
            }
        }
    }

    /// Ends a half-open period when every probe has told its outcome, or had time enough to.
    fn conclude(&mut self, now_us: u64, dice: u64) {
        let probes = &mut self.probes;
        let silent = probes.granted - probes.reported;
        let late = silent > 0 && now_us.saturating_sub(probes.last_us) > self.rules.probe_timeout_us;
        if late {
            probes.failed += silent;
            probes.reported = probes.granted;
        }
        let Probes { reported, failed, .. } = self.probes;
        let complete = reported >= self.rules.probes;
        if !complete && !late {
            return;
        }
        if reported > 0 && is_share(failed, reported, self.rules.failure_ratio) {
            self.open(now_us, dice);
        } else if complete {
            self.close();
        }
    }

    fn open(&mut self, now_us: u64, dice: u64) {
        let doubled = self.rules.open_us.saturating_mul(1 << self.openings.min(DOUBLINGS));
        let long = doubled.min(self.rules.max_open_us);
        let spread = scale_up(long, dice, 10 * DICE);
        self.openings = self.openings.saturating_add(1);
        self.enter(BreakerState::Open { until_us: now_us.saturating_add(long).saturating_add(spread) });
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of calls are far below 2^53")]
fn is_share(part: u64, whole: u64, ratio: f64) -> bool {
    part as f64 / whole as f64 >= ratio
}

#[cfg(test)]
mod laws;
