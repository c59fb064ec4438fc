//! The laws of a limit, as plain arithmetic: what the admission functions in Redis do, in a form that can be reasoned about
//! and tested by itself. Nothing here reads a clock; every time is given, in microseconds, and every amount is whole.
//!
//! * [`Gcra`]: how far apart calls are (generic cell rate algorithm; ITU-T I.371 annex A, ATM Forum Traffic Management 4.0).
//!   Its twin is the token bucket: the same answers, one number less to keep.
//! * [`SlidingSum`]: how much was used in a sliding window, for units whose calls differ in size or are corrected later.
//! * [`FixedWindow`]: as some providers count.
//! * [`Dimension`]: one limit of a tier, put together from these by its contract.
//!
//! Why a strict limit of requests needs no more than [`Gcra`]: between the first call of a window at `s` and its last at `e`,
//! each call moves the theoretical arrival time by at least one step `T`, from no earlier than `s` to no later than
//! `e + b·T`. So `k·T ≤ e − s + b·T`. With `T ≥ P/(L − b + 1)` and `e − s < P` that is `k < L + 1`. `P` is the window and the
//! slack: calls whose way to the service takes between 0 and the slack longer than planned arrive within a window only if
//! they were granted within `P`.

mod dimension;
mod fixed;
mod gcra;
#[cfg(test)]
pub(crate) mod laws;
mod sum;

pub use self::dimension::{Dimension, Verdict};
pub use self::fixed::FixedWindow;
pub use self::gcra::{Gcra, Pace};
pub use self::sum::SlidingSum;

/// Microseconds in a second.
pub(crate) const SECOND: u64 = 1_000_000;

/// `a · b / c`, rounded up, without overflow on the way; the largest number if it does not fit or `c` is 0.
pub(crate) fn scale_up(a: u64, b: u64, c: u64) -> u64 {
    let scaled = (u128::from(a) * u128::from(b)).div_ceil(u128::from(c.max(1)));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

/// `a · b / c`, rounded down, without overflow on the way; the largest number if it does not fit.
pub(crate) fn scale_down(a: u64, b: u64, c: u64) -> u64 {
    let scaled = u128::from(a) * u128::from(b) / u128::from(c.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}
