//! What an attempt hears from the service that it calls: limits that the service advertises, amounts that the call used,
//! and how long the service wants to be left alone.
//!
//! A tool says it to the [`Feedback`] of its [`Context`](crate::Context), at any time of the attempt and whether the attempt
//! succeeds or not; the worker reads it with a [`Listener`] and reports it to the pool, which then keeps to it everywhere.
//! When nobody listens, saying something costs one comparison. A service's word is not trusted: amounts that are negative,
//! not finite or enormous are dropped, and only so much is kept.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The unit of which each call uses one.
pub const REQUESTS: &str = "requests";
/// The largest amount that is believed; below it every whole number is exact in a double.
pub const MAX_AMOUNT: f64 = 1e15;
/// The longest wait that a service can ask for; a longer one is cut to it.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);
/// The longest window of a limit, and the farthest reset, that is believed.
pub const MAX_WINDOW: Duration = Duration::from_secs(366 * 24 * 3600);

/// The longest name of a unit, in bytes.
const MAX_UNIT_BYTES: usize = 64;
/// How many limits, and how many units of usage, one attempt can report.
const MAX_KEPT: usize = 16;

/// A limit as the service states it. What the service left unsaid is `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Advertised {
    /// What is counted: `requests`, `input_tokens`, `output_tokens`, `total_tokens`, `cost`, or another snake-case word.
    pub unit: Cow<'static, str>,
    /// How much may be used in a window.
    pub limit: Option<f64>,
    /// How much of it is left.
    pub remaining: Option<f64>,
    /// In how long what is left is replenished.
    pub reset_in: Option<Duration>,
    /// The length of the window to which the limit applies.
    pub window: Option<Duration>,
}

impl Advertised {
    /// Nothing is known yet of this unit's limit.
    #[must_use]
    pub fn of(unit: impl Into<Cow<'static, str>>) -> Self {
        Self { unit: unit.into(), ..Self::default() }
    }

    /// Without what cannot be believed; nothing when no number is left.
    fn credible(mut self) -> Option<Self> {
        // a limit of 0 would stop the pool for good on one service's slip
        self.limit = self.limit.filter(|limit| is_amount(*limit) && *limit > 0.0);
        self.remaining = self.remaining.filter(|remaining| is_amount(*remaining));
        self.reset_in = self.reset_in.filter(|reset| *reset <= MAX_WINDOW);
        self.window = self.window.filter(|window| !window.is_zero() && *window <= MAX_WINDOW);
        let says_something = self.limit.is_some() || self.remaining.is_some();
        (says_something && is_unit(&self.unit)).then_some(self)
    }

    /// Whether the other one states the same limit, at another time.
    fn is_same_limit(&self, other: &Self) -> bool {
        self.unit == other.unit && self.limit == other.limit && self.window == other.window
    }
}

/// All that was heard in one attempt.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// Limits, each as it was stated last.
    pub advertised: Vec<Advertised>,
    /// What the attempt used: units with the sum of their amounts.
    pub used: Vec<(Cow<'static, str>, f64)>,
    /// For how long the service wants no more calls, counted from when it said so.
    pub retry_after: Option<Duration>,
}

impl Observed {
    /// Whether nothing was heard.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.advertised.is_empty() && self.used.is_empty() && self.retry_after.is_none()
    }
}

/// Where an attempt says what it hears from its service; a cheap handle. The default one has no listener.
#[derive(Debug, Clone, Default)]
pub struct Feedback {
    heard: Option<Arc<Mutex<Observed>>>,
}

impl Feedback {
    /// A handle to speak to, and the other end of it.
    #[must_use]
    pub fn listening() -> (Self, Listener) {
        let heard = Arc::default();
        (Self { heard: Some(Arc::clone(&heard)) }, Listener { heard })
    }

    /// Whether anybody listens: where finding out takes work, ask first.
    #[must_use]
    pub const fn has_listener(&self) -> bool {
        self.heard.is_some()
    }

    /// A limit that the service states. One stated again (same unit, limit and window) replaces the earlier statement.
    pub fn advertise(&self, advertised: Advertised) {
        let Some(mut heard) = self.lock() else { return };
        let Some(advertised) = advertised.credible() else { return };
        let known = &mut heard.advertised;
        if let Some(earlier) = known.iter_mut().find(|earlier| earlier.is_same_limit(&advertised)) {
            *earlier = advertised;
        } else if known.len() < MAX_KEPT {
            known.push(advertised);
        }
    }

    /// An amount that the call used, added to what it used before. Do not report `requests`: each attempt uses one.
    pub fn used(&self, unit: impl Into<Cow<'static, str>>, amount: f64) {
        let Some(mut heard) = self.lock() else { return };
        let unit = unit.into();
        if !is_amount(amount) || !is_unit(&unit) {
            return;
        }
        let known = &mut heard.used;
        if let Some((_, sum)) = known.iter_mut().find(|(earlier, _)| *earlier == unit) {
            *sum = (*sum + amount).min(MAX_AMOUNT);
        } else if known.len() < MAX_KEPT {
            known.push((unit, amount));
        }
    }

    /// How long the service wants to be left alone; also where the attempt succeeds or its error says the same. The
    /// longest one counts.
    pub fn retry_after(&self, wait: Duration) {
        let Some(mut heard) = self.lock() else { return };
        heard.retry_after = heard.retry_after.max(Some(wait.min(MAX_RETRY_AFTER)));
    }

    fn lock(&self) -> Option<MutexGuard<'_, Observed>> {
        self.heard.as_deref().map(lock)
    }
}

/// The end of a [`Feedback`] at which the worker listens. It outlives the attempt: what was said before a call was dropped
/// is still there.
#[derive(Debug)]
pub struct Listener {
    heard: Arc<Mutex<Observed>>,
}

impl Listener {
    /// What was heard since the last time.
    #[must_use]
    pub fn take(&self) -> Observed {
        std::mem::take(&mut *lock(&self.heard))
    }
}

/// A poisoned lock is taken all the same: what was heard is whole after every statement.
fn lock(heard: &Mutex<Observed>) -> MutexGuard<'_, Observed> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_amount(amount: f64) -> bool {
    (0.0..=MAX_AMOUNT).contains(&amount)
}

fn is_unit(unit: &str) -> bool {
    let mut bytes = unit.bytes();
    unit.len() <= MAX_UNIT_BYTES
        && bytes.next().is_some_and(|byte| byte.is_ascii_lowercase())
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::{
        Advertised, Feedback, MAX_AMOUNT, MAX_KEPT, MAX_RETRY_AFTER, MAX_WINDOW, Observed, REQUESTS,
    };
    use std::time::Duration;

    #[test]
    fn without_a_listener_nothing_is_kept() {
        let feedback = Feedback::default();
        feedback.used("cost", 1.0);
        feedback.retry_after(Duration::from_secs(1));
        assert!(!feedback.has_listener());
    }

    #[test]
    fn what_is_said_is_heard_once() {
        let (feedback, listener) = Feedback::listening();
        let speaker = feedback.clone();
        speaker.used("input_tokens", 12.0);
        speaker.used("input_tokens", 3.0);
        feedback.used("cost", 0.25);
        feedback.retry_after(Duration::from_secs(3));
        speaker.retry_after(Duration::from_secs(2));
        let limit = Advertised { limit: Some(60.0), remaining: Some(59.0), ..Advertised::of(REQUESTS) };
        speaker.advertise(limit.clone());
        let later = Advertised { remaining: Some(58.0), ..limit };
        speaker.advertise(later.clone());
        drop((feedback, speaker));
        assert_eq!(
            listener.take(),
            Observed {
                advertised: vec![later],
                used: vec![("input_tokens".into(), 15.0), ("cost".into(), 0.25)],
                retry_after: Some(Duration::from_secs(3)),
            }
        );
        assert!(listener.take().is_empty());
    }

    #[test]
    fn limits_with_different_windows_stand_side_by_side() {
        let (feedback, listener) = Feedback::listening();
        for seconds in [1, 60] {
            let window = Some(Duration::from_secs(seconds));
            feedback.advertise(Advertised { limit: Some(100.0), window, ..Advertised::of(REQUESTS) });
        }
        assert_eq!(listener.take().advertised.len(), 2);
    }

    #[test]
    fn nonsense_is_dropped_and_the_rest_of_a_statement_kept() {
        let (feedback, listener) = Feedback::listening();
        for amount in [-1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, MAX_AMOUNT * 2.0] {
            feedback.used("cost", amount);
            feedback.advertise(Advertised { limit: Some(amount), ..Advertised::of(REQUESTS) });
            feedback.advertise(Advertised { remaining: Some(amount), ..Advertised::of(REQUESTS) });
        }
        feedback.advertise(Advertised { limit: Some(0.0), ..Advertised::of(REQUESTS) });
        let long_name = "u".repeat(65);
        for unit in ["", "Tokens", "a b", "1st", "_x", "a-b", long_name.as_str()] {
            feedback.used(unit.to_owned(), 1.0);
            feedback.advertise(Advertised { limit: Some(1.0), ..Advertised::of(unit.to_owned()) });
        }
        assert!(listener.take().is_empty());

        feedback.advertise(Advertised {
            limit: Some(f64::NAN),
            remaining: Some(4.0),
            reset_in: Some(MAX_WINDOW + Duration::from_secs(1)),
            window: Some(Duration::ZERO),
            ..Advertised::of(REQUESTS)
        });
        feedback.retry_after(Duration::MAX);
        let heard = listener.take();
        assert_eq!(heard.advertised, [Advertised { remaining: Some(4.0), ..Advertised::of(REQUESTS) }]);
        assert_eq!(heard.retry_after, Some(MAX_RETRY_AFTER));
    }

    #[test]
    fn only_so_much_is_kept() {
        let (feedback, listener) = Feedback::listening();
        for index in 0..100 {
            feedback.used(format!("unit_{index}"), 1.0);
            feedback.advertise(Advertised { limit: Some(1.0), ..Advertised::of(format!("unit_{index}")) });
        }
        for _ in 0..3 {
            feedback.used("unit_0", MAX_AMOUNT);
        }
        let heard = listener.take();
        assert_eq!((heard.used.len(), heard.advertised.len()), (MAX_KEPT, MAX_KEPT));
        assert_eq!(heard.used.first(), Some(&("unit_0".into(), MAX_AMOUNT)));
    }
}
