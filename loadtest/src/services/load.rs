//! What a pool is loaded with: the rules of a referee, the definition that tells Tidemill of them, and calls.

use std::time::Duration;

use serde_json::{Value, json};
use tidemill_testkit::referee::{Latency, Rules, Usage};

/// The service that everything here calls, and its tier.
pub(crate) const VENDOR: &str = "vendor";
/// The window of every limit.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);

/// A service under load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// So many requests a minute.
    Requests(u64),
    /// Requests, tokens and calls at once, of which tokens are the tightest; each call reserves a quarter more tokens than it uses.
    Together,
}

/// Requests, tokens and calls at once of [`Load::Together`].
const TOGETHER: (u64, u64, u32) = (10_000, 1_000_000, 20);
/// Tokens of its calls: at least, and how far beyond.
const TOKENS: (u64, u64) = (60, 121);

impl Load {
    /// For people.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Requests(limit) => format!("{limit} requests/min"),
            Self::Together => {
                let (requests, tokens, cap) = TOGETHER;
                format!("{requests} requests/min, {tokens} tokens/min and {cap} calls at once")
            }
        }
    }

    /// What the referee enforces.
    pub(crate) fn rules(self) -> Rules {
        match self {
            Self::Requests(limit) => {
                Rules::default().requests(limit, WINDOW).latency(Latency::Fixed(Duration::from_millis(20)))
            }
            Self::Together => {
                let (requests, tokens, cap) = TOGETHER;
                let latency = Latency::Uniform(Duration::from_millis(20), Duration::from_millis(80));
                let rules = Rules::default().requests(requests, WINDOW).tokens(tokens, WINDOW);
                rules.concurrency(cap).latency(latency).usage(Usage::OpenAi)
            }
        }
    }

    /// The definition that says the same, `part` of it.
    pub(crate) fn definition(self, part: u64) -> Value {
        let window_ms = WINDOW.as_millis();
        let limit =
            |unit: &str, limit: u64| json!({ "unit": unit, "limit": limit / part, "window_ms": window_ms });
        match self {
            Self::Requests(requests) => {
                json!({ "tools": ["http.request"], "limits": [limit("requests", requests)] })
            }
            Self::Together => {
                let (requests, tokens, cap) = TOGETHER;
                json!({
                    "tools": ["http.request"],
                    "limits": [limit("requests", requests), limit("total_tokens", tokens)],
                    "concurrency": cap,
                    "estimate": { "total_tokens": ".json.max_tokens" },
                })
            }
        }
    }

    /// Calls in a window when all of the limit is used.
    pub(crate) const fn calls_per_window(self) -> u64 {
        match self {
            Self::Requests(limit) => limit,
            Self::Together => TOGETHER.1 / (TOKENS.0 + TOKENS.1 / 2),
        }
    }

    /// The input of one call.
    pub(crate) fn input(self, url: &str, id: usize) -> String {
        match self {
            Self::Requests(_) => json!({ "url": url }).to_string(),
            Self::Together => {
                // any order does that is not sorted, and the same in each run
                let drawn = (id as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
                let tokens = TOKENS.0 + drawn % TOKENS.1;
                let body = json!({ "tokens": tokens, "max_tokens": tokens + tokens / 4 });
                json!({ "url": url, "method": "POST", "json": body }).to_string()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Load;

    #[test]
    fn calls_that_are_limited_together_use_tokens_as_said() {
        let sum: u64 = (0..10_000)
            .map(|id| {
                let input: serde_json::Value = serde_json::from_str(&Load::Together.input("u", id)).unwrap();
                input["json"]["tokens"].as_u64().unwrap()
            })
            .sum();
        let mean = sum as f64 / 10_000.0;
        assert!((119.0..121.0).contains(&mean), "{mean}");
        assert_eq!(Load::Together.calls_per_window(), 8_333);
    }
}
