//! Windows that follow one another, as some providers count.

/// What was used in the present window. Windows begin at multiples of their length since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FixedWindow {
    number: u64,
    used: u64,
}

impl FixedWindow {
    /// What was used in the window of `now_us`.
    #[must_use]
    pub fn used(&self, window_us: u64, now_us: u64) -> u64 {
        if self.number == number_of(window_us, now_us) { self.used } else { 0 }
    }

    /// How long until `amount` fits under `limit`; 0: it does. At most the limit itself is asked for.
    #[must_use]
    pub fn wait_us(&self, window_us: u64, now_us: u64, (amount, limit): (u64, u64)) -> u64 {
        if self.used(window_us, now_us).saturating_add(amount.min(limit)) <= limit {
            return 0;
        }
        (number_of(window_us, now_us) + 1).saturating_mul(window_us.max(1)) - now_us
    }

    /// Counts `amount` in the present window.
    pub fn add(&mut self, window_us: u64, now_us: u64, amount: u64) {
        self.used = self.used(window_us, now_us).saturating_add(amount);
        self.number = number_of(window_us, now_us);
    }

    /// Gives back what was granted at `granted_us` and not used; a window that is over keeps it.
    pub fn refund(&mut self, window_us: u64, granted_us: u64, amount: u64) {
        if self.number == number_of(window_us, granted_us) {
            self.used = self.used.saturating_sub(amount);
        }
    }
}

fn number_of(window_us: u64, time_us: u64) -> u64 {
    time_us / window_us.max(1)
}
