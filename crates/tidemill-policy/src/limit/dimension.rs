//! One limit of a tier, by its contract.

use super::{FixedWindow, Gcra, Pace, SECOND, SlidingSum};
use crate::aimd::Aimd;
use crate::service::{Contract, LimitRules};

/// How long what a service told of its limit is believed, in microseconds.
const ADVERTISED_US: u64 = 60 * SECOND;
/// The unit of which each call uses one.
const REQUESTS: &str = "requests";

/// What a limit says to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It fits.
    Fits,
    /// It fits after so many microseconds, if nobody else comes.
    Wait(u64),
    /// It is more than the limit: never.
    TooLarge,
}

impl Verdict {
    const fn after(wait_us: u64) -> Self {
        if wait_us == 0 { Self::Fits } else { Self::Wait(wait_us) }
    }
}

/// One limit and what is known of its use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dimension {
    rules: LimitRules,
    law: Law,
    aimd: Option<Aimd>,
    /// A lower limit that the service told, and until when it is believed.
    advertised: Option<(u64, u64)>,
    /// What was in force when it was last looked at.
    in_force: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Law {
    Schedule(Gcra),
    /// A strict limit: the schedule spreads, the sum is what is never passed.
    Summed(Gcra, SlidingSum),
    Fixed(FixedWindow),
}

impl Dimension {
    /// A limit of which nothing is used.
    #[must_use]
    pub fn new(rules: LimitRules) -> Self {
        let law = match rules.contract {
            Contract::FixedWindow => Law::Fixed(FixedWindow::default()),
            Contract::Strict => Law::Summed(Gcra::default(), SlidingSum::new(period_us(&rules))),
            Contract::Average | Contract::Bucket => Law::Schedule(Gcra::default()),
        };
        let aimd = rules.auto.then(|| Aimd::new(rules.initial));
        Self { rules, law, aimd, advertised: None, in_force: None }
    }

    /// The rules.
    #[must_use]
    pub const fn rules(&self) -> &LimitRules {
        &self.rules
    }

    /// What is in force: what is configured or found, or less if the service told so within the last minute.
    pub fn limit(&mut self, now_us: u64) -> u64 {
        let configured = match &mut self.aimd {
            Some(aimd) => {
                aimd.judge(now_us, self.rules.window_us, self.rules.max);
                aimd.limit()
            }
            None => self.rules.limit,
        };
        let told = self.advertised.filter(|(_, until)| *until > now_us).map(|(limit, _)| limit);
        let most = told.map_or(configured, |told| told.min(configured));
        let Some(was) = self.in_force.replace(most).filter(|was| most != *was) else { return most };
        let paces = (&pace_of(&self.rules, was), &pace_of(&self.rules, most));
        match &mut self.law {
            Law::Schedule(gcra) | Law::Summed(gcra, _) => gcra.rescale(paces, now_us),
            Law::Fixed(_) => {}
        }
        most
    }

    /// The pace in force.
    pub fn pace(&mut self, now_us: u64) -> Pace {
        let most = self.limit(now_us);
        pace_of(&self.rules, most)
    }

    /// Whether `amount` fits.
    pub fn ask(&mut self, now_us: u64, amount: u64) -> Verdict {
        let most = self.limit(now_us);
        let window_us = self.rules.window_us;
        if amount > self.rules.max.max(self.rules.limit) {
            return Verdict::TooLarge;
        }
        if amount > most {
            // what is in force for the moment only: it may be more again
            return Verdict::Wait(SECOND);
        }
        let pace = pace_of(&self.rules, most);
        Verdict::after(match &mut self.law {
            Law::Schedule(gcra) => gcra.wait_us(&pace, now_us, amount),
            Law::Summed(gcra, sum) => {
                gcra.wait_us(&pace, now_us, amount).max(sum.wait_us(now_us, amount, most))
            }
            Law::Fixed(window) => window.wait_us(window_us, now_us, (amount, most)),
        })
    }

    /// Takes `amount`, which was found to fit.
    pub fn take(&mut self, now_us: u64, amount: u64) {
        let pace = self.pace(now_us);
        if let Some(aimd) = &mut self.aimd {
            aimd.used(amount);
        }
        match &mut self.law {
            Law::Schedule(gcra) => gcra.take(&pace, now_us, amount),
            Law::Summed(gcra, sum) => {
                gcra.take(&pace, now_us, amount);
                sum.add(now_us, amount);
            }
            Law::Fixed(window) => window.add(self.rules.window_us, now_us, amount),
        }
    }

    /// Corrects what was taken at `granted_us` to what was really used: less is given back, more counts from now on.
    pub fn reconcile(&mut self, now_us: u64, granted_us: u64, (taken, used): (u64, u64)) {
        let pace = self.pace(now_us);
        let (less, more) = (taken.saturating_sub(used), used.saturating_sub(taken));
        let window_us = self.rules.window_us;
        match &mut self.law {
            Law::Schedule(gcra) if more > 0 => gcra.charge(&pace, now_us, more),
            Law::Schedule(gcra) => gcra.refund(&pace, now_us, less),
            Law::Summed(gcra, sum) if more > 0 => {
                gcra.charge(&pace, now_us, more);
                sum.add(now_us, more);
            }
            Law::Summed(gcra, sum) => {
                gcra.refund(&pace, now_us, less);
                sum.refund(now_us, granted_us, less);
            }
            Law::Fixed(window) if more > 0 => window.add(window_us, now_us, more),
            Law::Fixed(window) => window.refund(window_us, granted_us, less),
        }
    }

    /// The service told its limit; it counts if it is for the same window, or for one that is not known (0).
    pub fn advertise(&mut self, now_us: u64, limit: u64, window_us: u64) {
        if limit > 0 && (window_us == 0 || window_us == self.rules.window_us) {
            self.limit(now_us);
            self.advertised = Some((limit, now_us.saturating_add(ADVERTISED_US)));
        }
    }

    /// The service asked for less; only a limit that is looked for changes.
    pub fn throttled(&mut self, now_us: u64) {
        if self.rules.auto {
            self.limit(now_us);
        }
        if let Some(aimd) = &mut self.aimd {
            aimd.throttled(now_us);
        }
    }
}

fn period_us(rules: &LimitRules) -> u64 {
    rules.window_us.saturating_add(rules.slack_us)
}

fn pace_of(rules: &LimitRules, most: u64) -> Pace {
    // the burst of a limit that is looked for grows with it
    let found = if rules.auto { rules.contract.default_burst(most) } else { 0 };
    let pace = Pace::even(most, rules.burst.max(found), rules.window_us);
    if rules.unit == REQUESTS { pace.in_whole_steps() } else { pace }
}
