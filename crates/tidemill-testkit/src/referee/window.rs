//! The exact sliding log of one quota for one group of callers.
//!
//! Every use keeps the limit that it met, so that a window over a change of the limit can be judged: its share is the
//! sum of use / limit. With one limit, which is the usual case, everything is integers.

use std::collections::VecDeque;

/// What was used of a quota in the last window.
#[derive(Debug, Default)]
pub(super) struct Window {
    length: u64,
    uses: VecDeque<Use>,
    /// The sum of the uses that met each limit.
    sums: Vec<(u64, u64)>,
}

#[derive(Debug, Clone, Copy)]
struct Use {
    at: u64,
    amount: u64,
    limit: u64,
}

impl Window {
    /// An empty one of this length, in nanoseconds.
    pub(super) fn new(length: u64) -> Self {
        Self { length, ..Self::default() }
    }

    /// Lets go of what has left the window that ends at `now`.
    pub(super) fn slide(&mut self, now: u64) {
        while let Some(oldest) = self.uses.front().copied() {
            if oldest.at.saturating_add(self.length) > now {
                break;
            }
            self.uses.pop_front();
            subtract(&mut self.sums, oldest);
        }
    }

    /// Whether `amount` more fits under `limit`; after [`Window::slide`].
    pub(super) fn fits(&self, amount: u64, limit: u64) -> bool {
        amount == 0 || fits(&self.sums, amount, limit)
    }

    pub(super) fn add(&mut self, at: u64, amount: u64, limit: u64) {
        if amount == 0 {
            return;
        }
        self.uses.push_back(Use { at, amount, limit });
        match self.sums.iter_mut().find(|(of, _)| *of == limit) {
            Some((_, sum)) => *sum += amount,
            None => self.sums.push((limit, amount)),
        }
    }

    /// The time, after `now`, at which `amount` will fit if nothing else comes; nothing when it never will.
    pub(super) fn wait(&self, now: u64, amount: u64, limit: u64) -> Option<u64> {
        let mut sums = self.sums.clone();
        if fits(&sums, amount, limit) {
            return Some(0);
        }
        for oldest in &self.uses {
            subtract(&mut sums, *oldest);
            if fits(&sums, amount, limit) {
                return Some((oldest.at + self.length).saturating_sub(now));
            }
        }
        None
    }

    /// What is left under `limit`, in whole units.
    pub(super) fn remaining(&self, limit: u64) -> u64 {
        match self.sums.as_slice() {
            [] => limit,
            [(of, sum)] if *of == limit => limit.saturating_sub(*sum),
            sums => part_of(limit, 1.0 - share(sums)),
        }
    }

    /// The time, after `now`, at which the window will be empty if nothing else comes.
    pub(super) fn empty_in(&self, now: u64) -> u64 {
        self.uses.back().map_or(0, |newest| (newest.at + self.length).saturating_sub(now))
    }
}

fn subtract(sums: &mut Vec<(u64, u64)>, gone: Use) {
    for (limit, sum) in &mut *sums {
        if *limit == gone.limit {
            *sum -= gone.amount;
        }
    }
    sums.retain(|(_, sum)| *sum > 0);
}

fn fits(sums: &[(u64, u64)], amount: u64, limit: u64) -> bool {
    match sums {
        [] => amount <= limit,
        [(of, sum)] if *of == limit => sum.saturating_add(amount) <= limit,
        sums => share(sums) + ratio(amount, limit) <= 1.0 + ROUNDING,
    }
}

/// What a few divisions may be off by.
const ROUNDING: f64 = 1e-9;

fn share(sums: &[(u64, u64)]) -> f64 {
    sums.iter().map(|(limit, sum)| ratio(*sum, *limit)).sum()
}

/// `amount / limit`; endless when the limit is nothing.
#[expect(clippy::cast_precision_loss, reason = "counts of a test stay far below 2^52")]
pub(super) fn ratio(amount: u64, limit: u64) -> f64 {
    if amount == 0 { 0.0 } else { amount as f64 / limit as f64 }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast from floats stops at the ends of the range"
)]
fn part_of(limit: u64, share: f64) -> u64 {
    (limit as f64 * share + ROUNDING).floor() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_leaves_exactly_one_window_after_it_came() {
        let mut window = Window::new(100);
        window.add(7, 1, 1);
        window.slide(106);
        assert!(!window.fits(1, 1));
        assert_eq!(window.wait(106, 1, 1), Some(1));
        window.slide(107);
        assert!(window.fits(1, 1));
    }

    #[test]
    fn a_large_use_waits_until_enough_small_ones_have_left() {
        let mut window = Window::new(100);
        for at in 0..10 {
            window.add(at, 1, 10);
        }
        window.slide(50);
        assert_eq!(window.remaining(10), 0);
        assert_eq!(window.wait(50, 4, 10), Some(53), "the fourth leaves at 103");
        assert_eq!(window.wait(50, 11, 10), None);
        assert_eq!(window.empty_in(50), 59);
    }

    #[test]
    fn uses_keep_the_limit_that_they_met() {
        let mut window = Window::new(100);
        window.add(0, 5, 10);
        assert!(window.fits(2, 5) && window.fits(3, 6), "half of it is left");
        assert!(!window.fits(3, 5));
        assert_eq!(window.remaining(4), 2);
        window.slide(100);
        assert!(window.fits(5, 5));
    }

    #[test]
    fn a_limit_of_nothing_lets_nothing_pass() {
        let window = Window::new(100);
        assert!(!window.fits(1, 0) && window.fits(0, 0));
        assert_eq!(window.wait(0, 1, 0), None);
    }
}
