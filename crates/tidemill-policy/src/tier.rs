//! One tier: pause, breaker, retry budget, cap and limits, put together as the admission functions in Redis do.

use crate::breaker::{Breaker, CallOutcome, Ended, Passage};
use crate::budget::RetryBudget;
use crate::limit::{Dimension, SECOND, Verdict};
use crate::service::TierRules;

#[cfg(test)]
mod laws;

/// When to ask again while people hold a tier.
const BY_HAND_US: u64 = 5 * SECOND;
/// When to ask again for a place, while it is not known how long calls take.
const PLACE_US: u64 = SECOND / 10;
/// The unit of which each call uses one.
const REQUESTS: &str = "requests";
/// What is the sum of the next two, unless it is known by itself.
const TOTAL: &str = "total_tokens";
const INPUT: &str = "input_tokens";
const OUTPUT: &str = "output_tokens";

/// How much of each unit a call uses: one request, and what is set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Amounts(Vec<(String, u64)>);

impl Amounts {
    /// Sets a unit.
    #[must_use]
    pub fn with(mut self, unit: &str, amount: u64) -> Self {
        self.0.retain(|(known, _)| known != unit);
        self.0.push((unit.to_owned(), amount));
        self
    }

    /// How much of a unit. A total of tokens that was not set is that of input and output.
    #[must_use]
    pub fn of(&self, unit: &str) -> u64 {
        match self.set(unit) {
            Some(amount) => amount,
            None if unit == REQUESTS => 1,
            None if unit == TOTAL => {
                self.set(INPUT).unwrap_or(0).saturating_add(self.set(OUTPUT).unwrap_or(0))
            }
            None => 0,
        }
    }

    fn set(&self, unit: &str) -> Option<u64> {
        self.0.iter().find(|(known, _)| known == unit).map(|(_, amount)| *amount)
    }
}

/// A call that asks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ask {
    /// What it uses.
    pub amounts: Amounts,
    /// Whether it is not its job's first attempt.
    pub retry: bool,
    /// A share in millionths, for what must not come at one time.
    pub dice: u64,
}

/// For what a call waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The retries of its service are spent.
    RetryBudget,
    /// The tier is paused.
    Pause,
    /// The breaker is open, or its probes are under way.
    Breaker,
    /// All places are taken.
    Concurrency,
    /// This unit's limit is used.
    Limit(String),
}

/// What a call is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It may go.
    Granted {
        /// As one of the breaker's probes.
        probe: bool,
        /// The breaker's epoch, to be told with the outcome.
        epoch: u64,
    },
    /// Ask again after that time.
    Wait {
        /// In microseconds.
        us: u64,
        /// For what.
        why: Why,
    },
    /// It uses more of this unit than the limit ever allows.
    TooLarge(String),
}

/// One tier and all that is known of its use.
#[derive(Debug, Clone, PartialEq)]
pub struct TierState {
    dimensions: Vec<Dimension>,
    breaker: Option<Breaker>,
    budget: Option<RetryBudget>,
    concurrency: Option<u64>,
    held: u64,
    pause: Pause,
}

/// Whether a tier is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pause {
    No,
    Until(u64),
    ByHand,
}

impl TierState {
    /// A tier of which nothing is used.
    #[must_use]
    pub fn new(rules: &TierRules) -> Self {
        Self {
            dimensions: rules.limits.iter().cloned().map(Dimension::new).collect(),
            breaker: rules.breaker.clone().map(Breaker::new),
            budget: rules.retry_budget.clone().map(RetryBudget::new),
            concurrency: rules.concurrency,
            held: 0,
            pause: Pause::No,
        }
    }

    /// Takes what a call needs, if all of it is free; otherwise nothing.
    pub fn ask(&mut self, now_us: u64, ask: &Ask) -> Answer {
        ask_all(std::slice::from_mut(self), now_us, ask)
    }

    /// The limits, in the order of the rules.
    pub fn dimensions(&mut self) -> &mut [Dimension] {
        &mut self.dimensions
    }

    /// The breaker.
    pub const fn breaker(&mut self) -> Option<&mut Breaker> {
        self.breaker.as_mut()
    }

    /// A call ended: its place is free.
    pub const fn leave(&mut self) {
        self.held = self.held.saturating_sub(1);
    }

    /// Counts how a call ended.
    pub fn record(&mut self, now_us: u64, ended: &Ended, dice: u64) {
        match (&mut self.budget, ended.outcome) {
            (None, _) | (_, CallOutcome::Neutral) => {}
            (Some(budget), outcome) => budget.ended(now_us, outcome == CallOutcome::Ok),
        }
        if let Some(breaker) = &mut self.breaker {
            breaker.record(now_us, ended, dice);
        }
        if ended.outcome == CallOutcome::Throttled {
            for dimension in &mut self.dimensions {
                dimension.throttled(now_us);
            }
        }
    }

    /// Corrects what a call granted at `granted_us` took, by what it really used.
    pub fn reconcile(&mut self, now_us: u64, granted_us: u64, (taken, used): (&Amounts, &Amounts)) {
        for dimension in &mut self.dimensions {
            let unit = &dimension.rules().unit;
            let (taken, used) = (taken.of(unit), used.of(unit));
            if taken != used {
                dimension.reconcile(now_us, granted_us, (taken, used));
            }
        }
    }

    /// Nothing passes before `until_us`. A pause is never shortened by another, nor one by hand ended.
    pub fn pause(&mut self, until_us: u64) {
        self.pause = match self.pause {
            Pause::No => Pause::Until(until_us),
            Pause::Until(set) => Pause::Until(set.max(until_us)),
            Pause::ByHand => Pause::ByHand,
        };
    }

    /// Nothing passes until people say so.
    pub const fn pause_by_hand(&mut self) {
        self.pause = Pause::ByHand;
    }

    /// Ends a pause.
    pub const fn resume(&mut self) {
        self.pause = Pause::No;
    }

    /// What this tier says, and whether the call would be a probe. Nothing is taken.
    fn look(&mut self, now_us: u64, ask: &Ask) -> Result<bool, Answer> {
        let wait = |us, why| Err(Answer::Wait { us, why });
        match self.pause {
            Pause::Until(until) if until > now_us => return wait(until - now_us, Why::Pause),
            Pause::ByHand => return wait(BY_HAND_US, Why::Pause),
            Pause::No | Pause::Until(_) => {}
        }
        let probe = match self.breaker.as_mut().map(|breaker| breaker.ask(now_us, ask.dice)) {
            Some(Passage::Held(us)) => return wait(us, Why::Breaker),
            passage => passage == Some(Passage::Probe),
        };
        if self.concurrency.is_some_and(|cap| self.held >= cap) {
            return wait(PLACE_US, Why::Concurrency);
        }
        self.look_at_limits(now_us, &ask.amounts).map(|()| probe)
    }

    fn look_at_limits(&mut self, now_us: u64, amounts: &Amounts) -> Result<(), Answer> {
        let mut longest: Option<(u64, &str)> = None;
        for dimension in &mut self.dimensions {
            let amount = amounts.of(&dimension.rules().unit);
            let verdict = if amount == 0 { Verdict::Fits } else { dimension.ask(now_us, amount) };
            match verdict {
                Verdict::Fits => {}
                Verdict::TooLarge => return Err(Answer::TooLarge(dimension.rules().unit.clone())),
                Verdict::Wait(us) if longest.is_some_and(|(most, _)| most >= us) => {}
                Verdict::Wait(us) => longest = Some((us, &dimension.rules().unit)),
            }
        }
        longest.map_or(Ok(()), |(us, unit)| Err(Answer::Wait { us, why: Why::Limit(unit.to_owned()) }))
    }

    fn take(&mut self, now_us: u64, ask: &Ask, probe: bool) {
        for dimension in &mut self.dimensions {
            let amount = ask.amounts.of(&dimension.rules().unit);
            if amount > 0 {
                dimension.take(now_us, amount);
            }
        }
        self.held += u64::from(self.concurrency.is_some());
        match &mut self.budget {
            Some(budget) if ask.retry => budget.retried(now_us),
            Some(budget) => budget.attempted(now_us),
            None => {}
        }
        match &mut self.breaker {
            Some(breaker) if probe => breaker.probing(now_us),
            Some(_) | None => {}
        }
    }
}

/// Takes what a call needs from all of its tiers, or from none. The longest wait is answered.
pub fn ask_all(tiers: &mut [TierState], now_us: u64, ask: &Ask) -> Answer {
    for budget in tiers.iter_mut().filter_map(|tier| tier.budget.as_mut()).filter(|_| ask.retry) {
        let us = budget.wait_us(now_us);
        if us > 0 {
            return Answer::Wait { us, why: Why::RetryBudget };
        }
    }
    let mut longest: Option<(u64, Why)> = None;
    let mut probes = vec![false; tiers.len()];
    for (tier, probe) in tiers.iter_mut().zip(&mut probes) {
        match tier.look(now_us, ask) {
            Ok(is_probe) => *probe = is_probe,
            Err(Answer::Wait { us, why }) => {
                if longest.as_ref().is_none_or(|(most, _)| *most < us) {
                    longest = Some((us, why));
                }
            }
            Err(never) => return never,
        }
    }
    if let Some((us, why)) = longest {
        return Answer::Wait { us, why };
    }
    for (tier, probe) in tiers.iter_mut().zip(&probes) {
        tier.take(now_us, ask, *probe);
    }
    let epoch = tiers.iter().find_map(|tier| tier.breaker.as_ref().map(Breaker::epoch));
    Answer::Granted { probe: probes.contains(&true), epoch: epoch.unwrap_or(0) }
}
