//! The ranges of limits.

use std::collections::BTreeSet;

use super::{AMOUNT_MAX, Found, TIME_MAX_MS, UNIT_RULE, is_unit};
use crate::service::limit::{Amount, Contract, DEFAULT_AUTO_INITIAL, Limit};

/// The most limits in one scope: each costs each call.
const LIMITS_MAX: usize = 16;

pub(super) fn limits(found: &mut Found, limits: &[Limit], concurrency: Option<u64>) {
    if let Some(cap) = concurrency {
        if cap == 0 {
            found.add("concurrency", "0 would stop every call; to stop a service, pause it");
        }
        found.range("concurrency", cap.max(1), 1, 1_000_000);
    }
    if limits.len() > LIMITS_MAX {
        found.add("limits", format!("there are {}; at most {LIMITS_MAX} can be held at once", limits.len()));
    }
    let mut seen = BTreeSet::new();
    for (index, limit) in limits.iter().enumerate() {
        found.within("limits", |found| {
            found.within(&index.to_string(), |found| {
                if !seen.insert((&limit.unit, limit.window_ms)) {
                    found.add("", "there is another limit of this unit and window; keep the smaller one");
                }
                one_limit(found, limit);
            });
        });
    }
}

fn one_limit(found: &mut Found, limit: &Limit) {
    if !is_unit(&limit.unit) {
        found.add("unit", UNIT_RULE);
    }
    found.range("window_ms", limit.window_ms, 1, TIME_MAX_MS);
    if let Amount::Fixed(amount) = limit.limit {
        if amount == 0 {
            found.add("limit", "0 would stop every call; to stop a service, pause it");
        }
        found.range("limit", amount.max(1), 1, AMOUNT_MAX);
        for (key, value) in [("initial", limit.initial), ("max", limit.max)] {
            if value.is_some() {
                found.add(key, "it is for `limit: auto` alone");
            }
        }
    } else {
        for (key, value) in [("initial", limit.initial), ("max", limit.max)] {
            if let Some(value) = value {
                found.range(key, value, 1, AMOUNT_MAX);
            }
        }
        if let (Some(initial), Some(max)) = (limit.initial, limit.max)
            && initial > max
        {
            found.add("initial", format!("{initial} is above `max`, {max}"));
        }
    }
    burst_and_slack(found, limit);
}

fn burst_and_slack(found: &mut Found, limit: &Limit) {
    if let Some(burst) = limit.burst {
        found.range("burst", burst, 1, AMOUNT_MAX);
        let bound = match limit.limit {
            Amount::Fixed(amount) => amount,
            Amount::Auto => limit.initial.unwrap_or(DEFAULT_AUTO_INITIAL),
        };
        match limit.contract {
            Contract::FixedWindow => {
                found.add("burst", "a fixed window has none: all of it may come at once");
            }
            Contract::Strict if burst > bound => {
                found.add(
                    "burst",
                    format!("{burst} is more than the limit: at most {bound} may come at once"),
                );
            }
            Contract::Strict | Contract::Average | Contract::Bucket => {}
        }
    }
    if let Some(slack) = limit.slack_ms {
        if limit.contract == Contract::Strict {
            found.range("slack_ms", slack, 0, limit.window_ms.min(60_000));
        } else {
            found.add("slack_ms", "it is for `contract: strict` alone");
        }
    }
}
