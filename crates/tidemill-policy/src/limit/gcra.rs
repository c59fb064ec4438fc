//! The generic cell rate algorithm, in the form of a virtual schedule.

use super::{scale_down, scale_up};

/// How fast: `units` per `period_us`, and `burst` at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    period_us: u64,
    units: u64,
    burst: u64,
}

impl Pace {
    /// `limit` per `window_us` on average, and `burst` at once.
    #[must_use]
    pub fn even(limit: u64, burst: u64, window_us: u64) -> Self {
        let limit = limit.max(1);
        Self { period_us: window_us.max(1), units: limit, burst: burst.clamp(1, limit) }
    }

    /// The same with a step of whole microseconds (rounded up), for units that come one by one: a burst of them then fits to
    /// the microsecond.
    #[must_use]
    pub fn in_whole_steps(self) -> Self {
        Self { period_us: self.step_us(), units: 1, burst: self.burst }
    }

    /// How much at once.
    #[must_use]
    pub const fn burst(&self) -> u64 {
        self.burst
    }

    /// The time between two units, rounded up.
    #[must_use]
    pub fn step_us(&self) -> u64 {
        self.cost_us(1)
    }

    /// The time that `amount` takes up, rounded up.
    #[must_use]
    pub fn cost_us(&self, amount: u64) -> u64 {
        scale_up(amount, self.period_us, self.units)
    }

    /// How far ahead of now the schedule may be before `amount` is taken. More than the burst needs no more room than it.
    fn room_us(&self, amount: u64) -> u64 {
        scale_down(self.burst.saturating_sub(amount), self.period_us, self.units)
    }
}

/// A schedule: the time at which the next call would come if all came evenly (the theoretical arrival time).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gcra {
    tat_us: u64,
}

impl Gcra {
    /// The theoretical arrival time.
    #[must_use]
    pub const fn tat_us(&self) -> u64 {
        self.tat_us
    }

    /// How long until `amount` conforms; 0: it does.
    #[must_use]
    pub fn wait_us(&self, pace: &Pace, now_us: u64, amount: u64) -> u64 {
        self.tat_us.saturating_sub(pace.room_us(amount)).saturating_sub(now_us)
    }

    /// Takes `amount`. All of it counts, more than the burst too: what follows waits the longer.
    pub fn take(&mut self, pace: &Pace, now_us: u64, amount: u64) {
        self.tat_us = self.tat_us.max(now_us).saturating_add(pace.cost_us(amount));
    }

    /// Gives back what was taken and not used. Never more than is still ahead of now: time that passed unused is gone.
    pub fn refund(&mut self, pace: &Pace, now_us: u64, amount: u64) {
        let less = scale_down(amount, pace.period_us, pace.units);
        self.tat_us = self.tat_us.saturating_sub(less).max(self.tat_us.min(now_us));
    }

    /// Counts from now on what was used beyond what had been taken.
    pub fn charge(&mut self, pace: &Pace, now_us: u64, amount: u64) {
        self.take(pace, now_us, amount);
    }

    /// Under another limit what is owed stays owed, in units.
    pub fn rescale(&mut self, (was, pace): (&Pace, &Pace), now_us: u64) {
        let owed = self.tat_us.saturating_sub(now_us);
        if owed > 0 {
            let divisor = was.period_us.saturating_mul(pace.units);
            let owed = scale_up(owed, pace.period_us.saturating_mul(was.units), divisor);
            self.tat_us = now_us.saturating_add(owed);
        }
    }
}
