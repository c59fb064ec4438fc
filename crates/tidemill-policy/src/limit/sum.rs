//! How much was used in a sliding window.

use std::collections::BTreeMap;

/// Whole slots of a period, at most: fewer where a slot of a microsecond would do.
const MOST_SLOTS: u64 = 512;

/// What was used in the newest 513 slots of 1/512 of the period: the present one, partly past, and 512 whole ones, so never
/// less than what was used in the period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlidingSum {
    slot_us: u64,
    whole: u64,
    /// The newest slot seen. A clock that steps back changes nothing but that what is new leaves a little later.
    newest: u64,
    slots: BTreeMap<u64, u64>,
    sum: u64,
}

impl SlidingSum {
    /// An empty sum over `period_us`.
    #[must_use]
    pub fn new(period_us: u64) -> Self {
        let slot_us = period_us.div_ceil(MOST_SLOTS).max(1);
        Self { slot_us, whole: period_us.div_ceil(slot_us), newest: 0, slots: BTreeMap::new(), sum: 0 }
    }

    /// The width of a slot: by so much longer than the period something may count.
    #[must_use]
    pub const fn slot_us(&self) -> u64 {
        self.slot_us
    }

    /// What counts now.
    pub fn sum(&mut self, now_us: u64) -> u64 {
        self.slide(now_us);
        self.sum
    }

    /// How long until `amount` fits under `limit`; 0: it does. At most the limit itself is asked for.
    pub fn wait_us(&mut self, now_us: u64, amount: u64, limit: u64) -> u64 {
        let over = self.sum(now_us).saturating_add(amount.min(limit)).saturating_sub(limit);
        if over == 0 {
            return 0;
        }
        let mut left = 0_u64;
        for (slot, used) in &self.slots {
            left = left.saturating_add(*used);
            if left >= over {
                return ((slot + self.whole + 1) * self.slot_us).saturating_sub(now_us);
            }
        }
        0
    }

    /// Counts `amount` from now on.
    pub fn add(&mut self, now_us: u64, amount: u64) {
        self.slide(now_us);
        *self.slots.entry(self.newest).or_default() += amount;
        self.sum += amount;
    }

    /// Gives back what was granted at `granted_us` and not used, if it still counts.
    pub fn refund(&mut self, now_us: u64, granted_us: u64, amount: u64) {
        self.slide(now_us);
        let slot = (granted_us / self.slot_us).min(self.newest);
        if let Some(used) = self.slots.get_mut(&slot) {
            let less = amount.min(*used);
            *used -= less;
            self.sum -= less;
        }
    }

    fn slide(&mut self, now_us: u64) {
        self.newest = self.newest.max(now_us / self.slot_us);
        let oldest = self.newest.saturating_sub(self.whole);
        while let Some(gone) = self.slots.first_entry().filter(|first| *first.key() < oldest) {
            self.sum -= gone.remove();
        }
    }
}
