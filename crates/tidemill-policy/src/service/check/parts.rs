//! The ranges of breakers, budgets and caches.

use super::{Found, TIME_MAX_MS};
use crate::service::Cache;
use crate::service::faults::{Breaker, RetryBudget, Window};

pub(super) fn breaker(found: &mut Found, breaker: &Breaker) {
    found.within("breaker", |found| {
        found.range("window_ms", breaker.window_ms, 100, 3_600_000);
        found.range("window_calls", breaker.window_calls, 1, 10_000);
        found.range("min_calls", breaker.min_calls, 1, 1_000_000);
        if breaker.window == Window::Count && breaker.min_calls > breaker.window_calls {
            let message = format!(
                "{} is more than `window_calls`, {}: the breaker would never open",
                breaker.min_calls, breaker.window_calls
            );
            found.add("min_calls", message);
        }
        found.share("failure_ratio", breaker.failure_ratio);
        found.range("slow_ms", breaker.slow_ms, 0, TIME_MAX_MS);
        found.share("slow_ratio", breaker.slow_ratio);
        found.range("open_ms", breaker.open_ms, 1, TIME_MAX_MS);
        found.range("max_open_ms", breaker.max_open_ms, breaker.open_ms.min(TIME_MAX_MS), TIME_MAX_MS);
        found.range("probes", breaker.probes, 1, 1_000);
        found.range("probe_timeout_ms", breaker.probe_timeout_ms, 1, TIME_MAX_MS);
        if breaker.enabled && breaker.counts.is_empty() && breaker.slow_ms == 0 {
            found.add(
                "counts",
                "it is empty and nothing is slow: the breaker would never open; set `enabled: false`",
            );
        }
    });
}

pub(super) fn retry_budget(found: &mut Found, budget: &RetryBudget) {
    found.within("retry_budget", |found| {
        found.ratio("ratio", budget.ratio, 0.0, 1_000.0);
        found.ratio("min_per_second", budget.min_per_second, 0.0, 1_000_000.0);
        found.ratio("burst", budget.burst, 1.0, 1_000_000.0);
        if budget.enabled && budget.ratio == 0.0 && budget.min_per_second == 0.0 {
            found.add("", "nothing ever fills it: after the first retries there would be none; set `retry.max_attempts: 1`");
        }
    });
}

pub(super) fn cache(found: &mut Found, cache: &Cache) {
    found.within("cache", |found| {
        found.range("ttl_ms", cache.ttl_ms, 0, TIME_MAX_MS);
        found.range("max_entries", cache.max_entries, 1, 10_000_000);
        found.range("max_bytes", cache.max_bytes, 1_024, 1 << 40);
        found.range("negative_ttl_ms", cache.negative_ttl_ms, 0, TIME_MAX_MS);
        found.range("stale_ms", cache.stale_ms, 0, TIME_MAX_MS);
        if cache.ttl_ms == 0 && !cache.coalesce {
            found.add("ttl_ms", "0 keeps nothing, and `coalesce` is off: leave `cache` out");
        }
    });
}
