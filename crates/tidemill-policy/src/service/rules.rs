//! The compiled text of a template: what the admission functions in Redis read, and people when they look.
//!
//! Words separated by spaces, each `letter=values`, values separated by commas; times in microseconds:
//!
//! * `c=<cap>`: concurrency;
//! * `d=<unit>,<s|a|b|f>,<limit>,<window>,<burst>,<slack>,<auto 0|1>,<initial>,<max>`: one per limit, in order;
//! * `b=<t|c>,<window or calls>,<min_calls>,<failure_ratio>,<slow>,<slow_ratio>,<open>,<max_open>,<probes>,<probe_timeout>`;
//! * `r=<ratio>,<min_per_second>,<burst>`: the retry budget.

use std::fmt;
use std::str::FromStr;

use super::faults::{Breaker, RetryBudget, Window};
use super::limit::{Amount, Contract, DEFAULT_AUTO_INITIAL, DEFAULT_AUTO_MAX, Limit};

/// Microseconds in a millisecond.
const US: u64 = 1_000;
/// The slack of a strict limit, unless configured: this part of the window …
const SLACK_PART: u64 = 250;
/// … but at least this, as the way to a service varies whatever the window …
const SLACK_MIN_US: u64 = 20 * US;
/// … though not more than this part of a short window …
const SLACK_MAX_PART: u64 = 10;
/// … and at most this.
const SLACK_MAX_US: u64 = 250 * US;

/// The rules of one tier.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TierRules {
    /// The most calls at once.
    pub concurrency: Option<u64>,
    /// Quota dimensions, in the order of the definition.
    pub limits: Vec<LimitRules>,
    /// The breaker, if it has one.
    pub breaker: Option<BreakerRules>,
    /// The bound on retries, if it has one.
    pub retry_budget: Option<BudgetRules>,
}

/// One quota dimension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitRules {
    /// What is counted.
    pub unit: String,
    /// How the limit is to be understood.
    pub contract: Contract,
    /// How much per window; of an `auto` limit the most it can become.
    pub limit: u64,
    /// The window, in microseconds.
    pub window_us: u64,
    /// How much at once; of an `auto` limit that which suits its `initial`.
    pub burst: u64,
    /// By how much the way to the service may vary, in microseconds; 0 unless strict.
    pub slack_us: u64,
    /// Whether the limit is found out.
    pub auto: bool,
    /// Where an `auto` limit begins; else the limit.
    pub initial: u64,
    /// What an `auto` limit never passes; else the limit.
    pub max: u64,
}

/// A breaker.
#[derive(Debug, Clone, PartialEq)]
pub struct BreakerRules {
    /// Over what it counts.
    pub window: Window,
    /// The window by time, in microseconds (0 if it counts calls).
    pub window_us: u64,
    /// The window by count, in calls (0 if it counts time).
    pub window_calls: u64,
    /// Fewer calls than this in the window open nothing.
    pub min_calls: u64,
    /// The share of failures that opens it.
    pub failure_ratio: f64,
    /// What is slow, in microseconds; 0: nothing.
    pub slow_us: u64,
    /// The share of slow calls that opens it.
    pub slow_ratio: f64,
    /// How long it is open the first time, in microseconds.
    pub open_us: u64,
    /// The longest it is open, in microseconds.
    pub max_open_us: u64,
    /// Grants per half-open period.
    pub probes: u64,
    /// When a probe counts as failed, in microseconds.
    pub probe_timeout_us: u64,
}

/// A bound on retries.
#[derive(Debug, Clone, PartialEq)]
pub struct BudgetRules {
    /// Retries that each first attempt earns.
    pub ratio: f64,
    /// Retries that each second earns.
    pub min_per_second: f64,
    /// The most saved up.
    pub burst: f64,
}

impl TierRules {
    pub(crate) fn new(limits: &[Limit], concurrency: Option<u64>) -> Self {
        let limits = limits.iter().map(LimitRules::of).collect();
        Self { concurrency, limits, breaker: None, retry_budget: None }
    }

    /// Reads a compiled text.
    ///
    /// # Errors
    /// A word is not of the form above.
    pub fn parse(text: &str) -> Result<Self, InvalidRules> {
        let mut rules = Self::default();
        for word in text.split_ascii_whitespace() {
            let invalid = || InvalidRules { word: word.chars().take(200).collect() };
            let (letter, values) = word.split_once('=').ok_or_else(invalid)?;
            rules.word(letter, &mut values.split(',')).ok_or_else(invalid)?;
        }
        Ok(rules)
    }

    fn word<'a>(&mut self, letter: &str, values: &mut impl Iterator<Item = &'a str>) -> Option<()> {
        match letter {
            "c" => self.concurrency = Some(next(values)?),
            "d" => self.limits.push(LimitRules::read(values)?),
            "b" => self.breaker = Some(BreakerRules::read(values)?),
            "r" => {
                let (ratio, min_per_second) = (next(values)?, next(values)?);
                self.retry_budget = Some(BudgetRules { ratio, min_per_second, burst: next(values)? });
            }
            _ => return None,
        }
        values.next().is_none().then_some(())
    }
}

/// Why a text is no compiled template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the rules of a tier cannot be read at {word:?}; define the service again with `tidemill service set`"
)]
pub struct InvalidRules {
    /// The word that cannot be read.
    pub word: String,
}

fn next<'a, T: FromStr>(values: &mut impl Iterator<Item = &'a str>) -> Option<T> {
    values.next()?.parse().ok()
}

fn usual_slack(window_us: u64) -> u64 {
    let least = SLACK_MIN_US.min(window_us / SLACK_MAX_PART);
    (window_us / SLACK_PART).clamp(least, SLACK_MAX_US)
}

impl LimitRules {
    fn of(limit: &Limit) -> Self {
        let (most, initial, auto) = match limit.limit {
            Amount::Fixed(amount) => (amount, amount, false),
            Amount::Auto => (
                limit.max.unwrap_or_else(|| DEFAULT_AUTO_MAX.max(limit.initial.unwrap_or(0))),
                limit
                    .initial
                    .unwrap_or_else(|| DEFAULT_AUTO_INITIAL.min(limit.max.unwrap_or(DEFAULT_AUTO_INITIAL))),
                true,
            ),
        };
        let window_us = limit.window_ms.saturating_mul(US);
        let slack_us = match limit.contract {
            Contract::Strict => {
                limit.slack_ms.map_or_else(|| usual_slack(window_us), |ms| ms.saturating_mul(US))
            }
            Contract::Average | Contract::Bucket | Contract::FixedWindow => 0,
        };
        Self {
            unit: limit.unit.clone(),
            contract: limit.contract,
            limit: most,
            window_us,
            burst: limit.burst.unwrap_or_else(|| limit.contract.default_burst(initial)),
            slack_us,
            auto,
            initial,
            max: most,
        }
    }

    fn read<'a>(values: &mut impl Iterator<Item = &'a str>) -> Option<Self> {
        let unit = values.next().filter(|unit| !unit.is_empty())?.to_owned();
        let contract = match values.next()? {
            "s" => Contract::Strict,
            "a" => Contract::Average,
            "b" => Contract::Bucket,
            "f" => Contract::FixedWindow,
            _ => return None,
        };
        let (limit, window_us, burst, slack_us) =
            (next(values)?, next(values)?, next(values)?, next(values)?);
        let auto = match values.next()? {
            "0" => false,
            "1" => true,
            _ => return None,
        };
        let (initial, max) = (next(values)?, next(values)?);
        Some(Self { unit, contract, limit, window_us, burst, slack_us, auto, initial, max })
    }
}

impl BreakerRules {
    pub(crate) fn of(breaker: &Breaker) -> Option<Self> {
        let by_time = breaker.window == Window::Time;
        breaker.enabled.then(|| Self {
            window: breaker.window,
            window_us: if by_time { breaker.window_ms.saturating_mul(US) } else { 0 },
            window_calls: if by_time { 0 } else { breaker.window_calls },
            min_calls: breaker.min_calls,
            failure_ratio: breaker.failure_ratio,
            slow_us: breaker.slow_ms.saturating_mul(US),
            slow_ratio: breaker.slow_ratio,
            open_us: breaker.open_ms.saturating_mul(US),
            max_open_us: breaker.max_open_ms.saturating_mul(US),
            probes: breaker.probes,
            probe_timeout_us: breaker.probe_timeout_ms.saturating_mul(US),
        })
    }

    fn read<'a>(values: &mut impl Iterator<Item = &'a str>) -> Option<Self> {
        let (window, window_us, window_calls) = match values.next()? {
            "t" => (Window::Time, next(values)?, 0),
            "c" => (Window::Count, 0, next(values)?),
            _ => return None,
        };
        Some(Self {
            window,
            window_us,
            window_calls,
            min_calls: next(values)?,
            failure_ratio: next(values)?,
            slow_us: next(values)?,
            slow_ratio: next(values)?,
            open_us: next(values)?,
            max_open_us: next(values)?,
            probes: next(values)?,
            probe_timeout_us: next(values)?,
        })
    }
}

impl BudgetRules {
    pub(crate) fn of(budget: &RetryBudget) -> Option<Self> {
        budget.enabled.then_some(Self {
            ratio: budget.ratio,
            min_per_second: budget.min_per_second,
            burst: budget.burst,
        })
    }
}

impl fmt::Display for TierRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gap = "";
        if let Some(cap) = self.concurrency {
            write!(f, "c={cap}")?;
            gap = " ";
        }
        for limit in &self.limits {
            write!(f, "{gap}{limit}")?;
            gap = " ";
        }
        if let Some(breaker) = &self.breaker {
            write!(f, "{gap}{breaker}")?;
            gap = " ";
        }
        if let Some(BudgetRules { ratio, min_per_second, burst }) = &self.retry_budget {
            write!(f, "{gap}r={ratio},{min_per_second},{burst}")?;
        }
        Ok(())
    }
}

impl fmt::Display for LimitRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { unit, contract, limit, window_us, burst, slack_us, auto, initial, max } = self;
        let kind = match contract {
            Contract::Strict => 's',
            Contract::Average => 'a',
            Contract::Bucket => 'b',
            Contract::FixedWindow => 'f',
        };
        let auto = u8::from(*auto);
        write!(f, "d={unit},{kind},{limit},{window_us},{burst},{slack_us},{auto},{initial},{max}")
    }
}

impl fmt::Display for BreakerRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.window {
            Window::Time => write!(f, "b=t,{}", self.window_us),
            Window::Count => write!(f, "b=c,{}", self.window_calls),
        }?;
        let Self { min_calls, failure_ratio, slow_us, slow_ratio, .. } = self;
        let Self { open_us, max_open_us, probes, probe_timeout_us, .. } = self;
        write!(f, ",{min_calls},{failure_ratio},{slow_us},{slow_ratio}")?;
        write!(f, ",{open_us},{max_open_us},{probes},{probe_timeout_us}")
    }
}
