//! Time. What is shared between processes is the time of Redis; what is measured here is tokio's, which tests can
//! pause; the wall clock is for people's eyes only and decides nothing.

use std::time::Duration;

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads it")]
mod wall {
    pub(super) fn now() -> std::time::Duration {
        let now = std::time::SystemTime::now();
        now.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default()
    }
}

pub use tokio::time::Instant;

/// Tells the wall-clock time, in milliseconds since the Unix epoch, for display.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock {
    reading: Reading,
}

#[derive(Debug, Clone, Copy, Default)]
enum Reading {
    #[default]
    System,
    Frozen(u64),
}

impl Clock {
    /// The clock of the system.
    #[must_use]
    pub const fn system() -> Self {
        Self { reading: Reading::System }
    }

    /// A clock that stands at this time, for tests.
    #[must_use]
    pub const fn frozen(at_ms: u64) -> Self {
        Self { reading: Reading::Frozen(at_ms) }
    }

    /// Milliseconds since the Unix epoch. May jump either way: never subtract two of them to measure.
    #[must_use]
    pub fn wall_ms(self) -> u64 {
        match self.reading {
            Reading::System => milliseconds(wall::now()),
            Reading::Frozen(at_ms) => at_ms,
        }
    }
}

/// Whole milliseconds of a duration, `u64::MAX` at most.
#[must_use]
pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_is_past_the_day_this_was_written() {
        assert!(Clock::system().wall_ms() > 1_700_000_000_000);
        assert_eq!(Clock::frozen(42).wall_ms(), 42);
    }
}
