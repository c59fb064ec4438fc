//! Memory watch: tells how full Redis is, before it refuses.

use tidemill_runtime::duty::{Duty, Tick};

use crate::Error;
use crate::context::Context;

/// From this share of its bound on, Redis counts as nearly full.
const NEAR_PERCENT: u64 = 80;

/// See the module.
pub(crate) struct MemoryWatch {
    context: Context,
    near: bool,
}

impl MemoryWatch {
    pub(crate) const fn new(context: Context) -> Self {
        Self { context, near: false }
    }
}

const fn is_near(used_bytes: u64, max_bytes: u64) -> bool {
    max_bytes > 0 && used_bytes >= max_bytes / 100 * NEAR_PERCENT
}

impl Duty for MemoryWatch {
    const NAME: &'static str = "memory_watch";
    type Error = Error;

    async fn tick(&mut self) -> Result<Tick, Error> {
        let facts = self.context.store.facts().await?;
        let (used_bytes, max_bytes) = (facts.used_memory_bytes, facts.max_memory_bytes);
        let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let counters = &self.context.counters;
        counters.redis_used.set(gauge(used_bytes));
        counters.redis_max.set(gauge(max_bytes));
        let near = is_near(used_bytes, max_bytes);
        counters.redis_near_limit.set(i64::from(near));
        if near != self.near {
            self.near = near;
            if near {
                tracing::warn!(
                    used_bytes,
                    max_bytes,
                    "redis is nearly full: new work will be refused; raise maxmemory or shorten the retention"
                );
            } else {
                tracing::info!(used_bytes, max_bytes, "redis has room again");
            }
        }
        Ok(Tick::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::is_near;

    #[test]
    fn four_fifths_are_near_and_no_bound_is_never_near() {
        assert!(!is_near(u64::MAX, 0));
        assert!(!is_near(79_000, 100_000));
        assert!(is_near(80_000, 100_000));
        assert!(is_near(u64::MAX, u64::MAX), "no overflow");
    }
}
