//! The outcomes that a breaker looks at: of the last calls, or of the last seconds in ten buckets.

use std::collections::VecDeque;

use crate::service::{BreakerRules, Window};

/// Buckets of a window by time.
const BUCKETS: u64 = 10;

/// Calls, and which of them were bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub(super) calls: u64,
    pub(super) failed: u64,
    pub(super) slow: u64,
}

impl Counts {
    const fn of(failed: bool, slow: bool) -> Self {
        Self { calls: 1, failed: failed as u64, slow: slow as u64 }
    }

    const fn plus(self, other: Self) -> Self {
        Self {
            calls: self.calls + other.calls,
            failed: self.failed + other.failed,
            slow: self.slow + other.slow,
        }
    }
}

/// A sliding window of outcomes, each with the number of its bucket (by count: of its call).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcomes {
    /// The width of a bucket in microseconds; `None`: by count.
    bucket_us: Option<u64>,
    most: u64,
    kept: VecDeque<(u64, Counts)>,
}

impl Outcomes {
    pub(super) fn new(rules: &BreakerRules) -> Self {
        let (bucket_us, most) = match rules.window {
            Window::Time => (Some(rules.window_us.div_ceil(BUCKETS).max(1)), BUCKETS),
            Window::Count => (None, rules.window_calls.max(1)),
        };
        Self { bucket_us, most, kept: VecDeque::new() }
    }

    pub(super) fn clear(&mut self) {
        self.kept.clear();
    }

    pub(super) fn add(&mut self, now_us: u64, failed: bool, slow: bool) {
        let newest = self.kept.back().map(|(number, _)| *number);
        let number = match self.bucket_us {
            Some(width) => now_us / width,
            None => newest.map_or(0, |newest| newest + 1),
        };
        // a clock that steps back begins anew
        if newest.is_some_and(|newest| number < newest) {
            self.clear();
        }
        self.kept.retain(|(kept, _)| number - kept < self.most);
        match self.kept.back_mut() {
            Some((same, counts)) if *same == number => *counts = counts.plus(Counts::of(failed, slow)),
            _ => self.kept.push_back((number, Counts::of(failed, slow))),
        }
    }

    /// What the window holds as of the last outcome.
    pub(super) fn counts(&self) -> Counts {
        self.kept.iter().fold(Counts::default(), |sum, (_, counts)| sum.plus(*counts))
    }
}
