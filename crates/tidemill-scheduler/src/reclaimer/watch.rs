//! Who is dead: told by liveness that stands still on this process's own monotonic clock, and by nothing else.
//!
//! Pure: what was seen in Redis goes in, who is dead comes out.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tidemill_runtime::clock::{Instant, milliseconds};

/// Stands for the counter of a consumer that never beat, as the function library writes it.
pub(super) const NO_BEAT: &str = "-";

/// Redis's clock and ours may drift apart by this much between two looks.
const CLOCK_TOLERANCE_MS: u64 = 1_000;

/// One look at Redis.
#[derive(Debug, Clone)]
pub(super) struct Look {
    /// When, by our own clock.
    pub(super) at: Instant,
    /// When, by Redis's.
    pub(super) redis_ms: u64,
    /// Which start of the server answered; empty when it was not asked because the connection is the same.
    pub(super) run_id: Option<String>,
}

/// Why everybody gets a full period again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reset {
    /// We did not look for a while: whoever beat meanwhile was not seen.
    OwnPause,
    /// Redis's clock has jumped: the machine slept, or another server answers.
    ClockJump,
    /// Redis has started anew: nobody could beat meanwhile.
    Restart,
}

impl Reset {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::OwnPause => "own_pause",
            Self::ClockJump => "clock_jump",
            Self::Restart => "restart",
        }
    }
}

/// A consumer whose liveness stood still for the whole period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dead {
    pub(super) consumer: String,
    /// Where its counter stands; nothing is taken from it if it moves on.
    pub(super) beat: String,
}

#[derive(Debug)]
struct Sight {
    beat: String,
    since: Instant,
}

/// Watches the liveness of one partition's consumers.
#[derive(Debug)]
pub(super) struct Watch {
    period: Duration,
    longest_pause: Duration,
    last: Option<Look>,
    run_id: Option<String>,
    seen: HashMap<String, Sight>,
}

impl Watch {
    /// Somebody is dead after `period` without a beat; looks are to come every `interval`.
    pub(super) fn new(period: Duration, interval: Duration) -> Self {
        let longest_pause = Duration::from_secs(1) + interval;
        Self { period, longest_pause, last: None, run_id: None, seen: HashMap::new() }
    }

    /// Takes in what was seen: the counters, and who else has a consumer. Replies who is dead, oldest standstill first.
    pub(super) fn look(
        &mut self,
        look: Look,
        beats: &HashMap<String, String>,
        holders: &BTreeSet<String>,
    ) -> (Option<Reset>, Vec<Dead>) {
        let reset = self.reset(&look);
        let at = look.at;
        self.seen.retain(|consumer, _| beats.contains_key(consumer) || holders.contains(consumer));
        let silent = holders.iter().filter(|consumer| !beats.contains_key(*consumer));
        let all = beats
            .iter()
            .map(|(consumer, beat)| (consumer, beat.as_str()))
            .chain(silent.map(|consumer| (consumer, NO_BEAT)));
        for (consumer, beat) in all {
            match self.seen.get_mut(consumer) {
                Some(sight) if sight.beat == beat && reset.is_none() => {}
                Some(sight) => {
                    beat.clone_into(&mut sight.beat);
                    sight.since = at;
                }
                None => {
                    self.seen.insert(consumer.clone(), Sight { beat: beat.to_owned(), since: at });
                }
            }
        }
        self.last = Some(look);
        let still = |sight: &Sight| at.saturating_duration_since(sight.since);
        let mut dead: Vec<_> = self.seen.iter().filter(|(_, sight)| still(sight) >= self.period).collect();
        dead.sort_by_key(|(consumer, sight)| (sight.since, (*consumer).clone()));
        let dead = dead
            .into_iter()
            .map(|(consumer, sight)| Dead { consumer: consumer.clone(), beat: sight.beat.clone() });
        (reset, dead.collect())
    }

    /// Forgets a consumer that is gone, or that turned out to be alive.
    pub(super) fn forget(&mut self, consumer: &str) {
        self.seen.remove(consumer);
    }

    fn reset(&mut self, look: &Look) -> Option<Reset> {
        let restarted = match (&self.run_id, &look.run_id) {
            (Some(known), Some(now)) => known != now,
            (None, _) | (Some(_), None) => false,
        };
        if look.run_id.is_some() {
            self.run_id.clone_from(&look.run_id);
        }
        let last = self.last.as_ref()?;
        let own = look.at.saturating_duration_since(last.at);
        let expected_ms = last.redis_ms.saturating_add(milliseconds(own));
        if restarted {
            Some(Reset::Restart)
        } else if own > self.longest_pause {
            Some(Reset::OwnPause)
        } else if look.redis_ms.abs_diff(expected_ms) > CLOCK_TOLERANCE_MS {
            Some(Reset::ClockJump)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests;
