//! Refusing before Redis does: at `maxmemory` Redis still delivers work but refuses new writes of anybody.

use std::time::Duration;

use tidemill_store::{ServerFacts, Store};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::refusal::{Code, Refusal};

/// How long what the server told is believed.
const FRESH: Duration = Duration::from_secs(1);

/// Watches the share of `maxmemory` in use.
#[derive(Debug)]
pub(super) struct Guard {
    store: Store,
    limit_percent: u8,
    seen: Mutex<Option<(Instant, ServerFacts)>>,
}

impl Guard {
    pub(super) fn new(store: Store, limit_percent: u8) -> Self {
        Self { store, limit_percent, seen: Mutex::new(None) }
    }

    /// Refuses when Redis is nearly full. What cannot be told is no reason to refuse: enqueueing itself will tell.
    pub(super) async fn check(&self) -> Result<(), Refusal> {
        let mut seen = self.seen.lock().await;
        let fresh = seen.as_ref().is_some_and(|(at, _)| at.elapsed() < FRESH);
        if !fresh {
            let facts = self.store.facts().await.unwrap_or_default();
            *seen = Some((Instant::now(), facts));
        }
        seen.as_ref().map_or(Ok(()), |(_, facts)| judge(facts, self.limit_percent))
    }
}

fn judge(facts: &ServerFacts, limit_percent: u8) -> Result<(), Refusal> {
    let (used, max) = (facts.used_memory_bytes, facts.max_memory_bytes);
    if max == 0 || u128::from(used) * 100 < u128::from(max) * u128::from(limit_percent) {
        return Ok(());
    }
    Err(Refusal::new(
        Code::RedisMemory,
        format!(
            "Redis uses {used} of its {max} bytes, {limit_percent} % or more; let workers drain the queues, shorten retentions or raise maxmemory"
        ),
    )
    .again_after(Duration::from_secs(5)))
}

#[cfg(test)]
mod tests {
    use tidemill_store::ServerFacts;

    use super::judge;

    #[test]
    fn the_bound_is_a_share_of_maxmemory_and_without_one_there_is_none() {
        let facts = |used, max| ServerFacts {
            used_memory_bytes: used,
            max_memory_bytes: max,
            ..ServerFacts::default()
        };
        assert!(judge(&facts(79, 100), 80).is_ok());
        assert!(judge(&facts(80, 100), 80).is_err());
        assert!(judge(&facts(u64::MAX, 0), 80).is_ok());
    }
}
