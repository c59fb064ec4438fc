//! How much may be claimed: the free slots, and as much ahead as the measured rate will use up shortly.
//!
//! An entry is held from its claim until it is settled. Claiming ahead hides the round trips to Redis, but an entry that waits
//! in one worker cannot run in another; so the allowance is about 30 ms of work at the present rate, and none while jobs are
//! slow.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

const WINDOW: Duration = Duration::from_millis(20);
const AHEAD_SECONDS: f64 = 0.03;

/// Counts held entries; shared by claimers, executor and settlers.
#[derive(Debug)]
pub(crate) struct Capacity {
    slots: usize,
    most_ahead: usize,
    held: AtomicUsize,
    ahead: AtomicUsize,
    settled: AtomicUsize,
    freed: Notify,
}

impl Capacity {
    pub(crate) fn new(slots: usize, most_ahead: usize) -> Self {
        Self {
            slots,
            most_ahead,
            held: AtomicUsize::new(0),
            ahead: AtomicUsize::new(0),
            settled: AtomicUsize::new(0),
            freed: Notify::new(),
        }
    }

    /// How many more may be claimed now.
    pub(crate) fn room(&self) -> usize {
        let bound = self.slots + self.ahead.load(Ordering::Relaxed);
        bound.saturating_sub(self.held.load(Ordering::Acquire))
    }

    /// Waits until something may be claimed.
    pub(crate) async fn room_for_some(&self) -> usize {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            // a read of a few entries costs as much as one of many: wait for a fair share, unless little is held
            let room = self.room();
            if room > 0 && (room >= self.least() || self.held() < self.slots) {
                return room;
            }
            freed.await;
        }
    }

    fn least(&self) -> usize {
        (self.ahead.load(Ordering::Relaxed) / 4).max(1)
    }

    /// Entries held now.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Acquire)
    }

    /// Entries were claimed.
    pub(crate) fn take(&self, count: usize) {
        self.held.fetch_add(count, Ordering::AcqRel);
    }

    /// Entries were settled, put aside or handed back.
    pub(crate) fn give_back(&self, count: usize) {
        // never below nothing: a count that wrapped around would claim no more for ever
        let less = |held: usize| Some(held.saturating_sub(count));
        let (Ok(_) | Err(_)) = self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        self.settled.fetch_add(count, Ordering::Relaxed);
        self.freed.notify_waiters();
    }

    /// Entries wait for something that has nothing to do with this worker: others may be claimed meanwhile.
    pub(crate) fn lend(&self, count: usize) {
        let less = |held: usize| Some(held.saturating_sub(count));
        let (Ok(_) | Err(_)) = self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        self.freed.notify_waiters();
    }

    /// An entry is done with here, though it is not settled yet.
    pub(crate) fn pass_on(&self) {
        self.lend(1);
        self.settled.fetch_add(1, Ordering::Relaxed);
    }

    /// Entries settled since the start.
    pub(crate) fn settled(&self) -> usize {
        self.settled.load(Ordering::Relaxed)
    }

    /// Follows the rate for as long as it is polled.
    pub(crate) async fn follow_rate(&self) {
        let (mut last, mut at, mut rate) = (self.settled(), Instant::now(), 0.0_f64);
        let mut idle = Duration::from_millis(20);
        loop {
            tokio::time::sleep(idle).await;
            let (count, now) = (self.settled(), Instant::now());
            let seconds = (now - at).as_secs_f64().max(1e-6);
            #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
            let measured = (count - last) as f64 / seconds;
            rate = if measured > rate { measured } else { rate.mul_add(0.7, measured * 0.3) };
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a rate is small and not negative"
            )]
            let ahead = ((rate * AHEAD_SECONDS) as usize).min(self.most_ahead);
            self.ahead.store(ahead, Ordering::Relaxed);
            // an idle worker does not wake fifty times a second to find nothing
            idle = if count == last { (idle * 2).min(Duration::from_secs(1)) } else { WINDOW };
            (last, at) = (count, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Capacity;
    use std::sync::Arc;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn slow_work_is_not_claimed_ahead_and_fast_work_is() {
        let capacity = Arc::new(Capacity::new(10, 1_000));
        assert_eq!(capacity.room(), 10);
        capacity.take(10);
        assert_eq!(capacity.room(), 0);
        let follow = {
            let capacity = Arc::clone(&capacity);
            async move { capacity.follow_rate().await }
        };
        tokio::pin!(follow);
        for _ in 0..20 {
            capacity.take(1_000);
            capacity.give_back(1_000);
            drop(tokio::time::timeout(Duration::from_millis(20), &mut follow).await);
        }
        assert_eq!(capacity.room(), 1_000, "50,000 jobs a second: as far ahead as allowed");
        drop(tokio::time::timeout(Duration::from_secs(120), &mut follow).await);
        assert_eq!(capacity.room(), 0, "nothing settles: nothing is claimed ahead");
    }
}
