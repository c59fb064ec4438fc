//! The laws of a limit, as plain arithmetic: what the admission functions in Redis do, in a form that can be reasoned about
//! and tested by itself. Nothing here reads a clock; every time is given, in microseconds, and every amount is whole.
//!
//! * [`Gcra`]: how far apart calls are (generic cell rate algorithm; ITU-T I.371 annex A, ATM Forum Traffic Management 4.0).
//!   Its twin is the token bucket: the same answers, one number less to keep.
//! * [`SlidingSum`]: how much was used in a sliding window, at least.
//! * [`FixedWindow`]: as some providers count.
//! * [`Dimension`]: one limit of a tier, put together from these by its contract.
//!
//! Why a strict limit is never passed: a call is granted only if the sum, with it, stays within the limit; the sum holds at
//! least what was granted within the last `P`, the window and the slack. Calls whose way to the service takes between 0 and
//! the slack longer than planned arrive within one window only if they were granted within `P`. What turns out smaller than
//! it was taken for is taken out of the slot of its own grant, what turns out larger is added to the present one.
//!
//! The schedule beside it spreads calls and loses nothing: it runs at the full rate, and its burst makes good what a stall
//! missed. A schedule alone can be strict too, at `T = P/(L − b + 1)`, since `k` calls between `s` and `e` move it by `k·T`
//! from no earlier than `s` to no later than `e + b·T`; but then each burst is taken from the rate, and what was missed or
//! given back is lost.

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
