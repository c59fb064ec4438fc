//! Where an answer can come from besides the call itself: hedges, the cache, fallbacks.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// After how long a second, equal call is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "HedgeAfterForm", into = "HedgeAfterForm")]
pub enum HedgeAfter {
    /// When 95 of 100 calls would have answered, as observed.
    #[default]
    P95,
    /// After so many milliseconds.
    Ms(u64),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a time in milliseconds, or `p95`")]
enum HedgeAfterForm {
    Ms(u64),
    Word(String),
}

impl TryFrom<HedgeAfterForm> for HedgeAfter {
    type Error = String;

    fn try_from(form: HedgeAfterForm) -> Result<Self, String> {
        match form {
            HedgeAfterForm::Ms(ms) => Ok(Self::Ms(ms)),
            HedgeAfterForm::Word(word) if word == "p95" => Ok(Self::P95),
            HedgeAfterForm::Word(word) => {
                Err(format!("`{word}` is neither a time in milliseconds nor `p95`"))
            }
        }
    }
}

impl From<HedgeAfter> for HedgeAfterForm {
    fn from(after: HedgeAfter) -> Self {
        match after {
            HedgeAfter::P95 => Self::Word("p95".to_owned()),
            HedgeAfter::Ms(ms) => Self::Ms(ms),
        }
    }
}

/// A second, equal call when the first is late; the first answer counts. Declares the calls idempotent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hedge {
    /// After how long: `p95` (default), or milliseconds.
    pub after: HedgeAfter,
    /// The most hedges for each call (default 0.05).
    pub max_ratio: f64,
}

impl Default for Hedge {
    fn default() -> Self {
        Self { after: HedgeAfter::P95, max_ratio: 0.05 }
    }
}

/// Which entry leaves a full cache first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The one that was not asked for the longest.
    #[default]
    Lru,
    /// The one that was asked for the least.
    Lfu,
}

/// Answers that are kept, by tool and input. Declares equal calls to have equal answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// How long an answer is fresh, in milliseconds (default 300,000). 0 keeps none: only calls in flight are shared.
    pub ttl_ms: u64,
    /// The most answers kept (default 10,000).
    pub max_entries: u64,
    /// The most bytes kept, compressed (default 64 MiB).
    pub max_bytes: u64,
    /// Which leaves first when it is full: `lru` (default) or `lfu`.
    pub order: Order,
    /// How long a failure that trying again cannot help is kept, in milliseconds (default 0: not at all).
    pub negative_ttl_ms: u64,
    /// How long beyond `ttl_ms` an answer is kept for a fallback `stale`, in milliseconds (default 0: not at all).
    pub stale_ms: u64,
    /// Whether equal calls in flight become one (default true).
    pub coalesce: bool,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            ttl_ms: 300_000,
            max_entries: 10_000,
            max_bytes: 64 * 1024 * 1024,
            order: Order::Lru,
            negative_ttl_ms: 0,
            stale_ms: 0,
            coalesce: true,
        }
    }
}

/// What answers in place of a call; the reason stays in the result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "FallbackForm", into = "FallbackForm")]
pub enum Fallback {
    /// Another tool.
    Tool {
        /// Its name.
        tool: String,
        /// Its input: members that are strings of the form `${ … }` are jq over the call's input (default: the call's input).
        with: Option<Value>,
    },
    /// The same tool, under another service's limits.
    Service(String),
    /// This value.
    Value(Value),
    /// The answer last kept, fresh or not.
    Stale,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FallbackForm {
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    with: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "even_null")]
    value: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stale: Option<bool>,
}

/// `value: null` is a value.
fn even_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl TryFrom<FallbackForm> for Fallback {
    type Error = &'static str;

    fn try_from(form: FallbackForm) -> Result<Self, &'static str> {
        match form {
            FallbackForm { tool: Some(tool), with, service: None, value: None, stale: None } => {
                Ok(Self::Tool { tool, with })
            }
            FallbackForm { tool: None, with: None, service: Some(service), value: None, stale: None } => {
                Ok(Self::Service(service))
            }
            FallbackForm { tool: None, with: None, service: None, value: Some(value), stale: None } => {
                Ok(Self::Value(value))
            }
            FallbackForm { tool: None, with: None, service: None, value: None, stale: Some(true) } => {
                Ok(Self::Stale)
            }
            _ => Err(
                "a fallback is one of `tool: <name>` (with `with`, if its input differs), `service: <name>`, \
                      `value: <anything>`, `stale: true`",
            ),
        }
    }
}

impl From<Fallback> for FallbackForm {
    fn from(fallback: Fallback) -> Self {
        match fallback {
            Fallback::Tool { tool, with } => Self { tool: Some(tool), with, ..Self::default() },
            Fallback::Service(service) => Self { service: Some(service), ..Self::default() },
            Fallback::Value(value) => Self { value: Some(value), ..Self::default() },
            Fallback::Stale => Self { stale: Some(true), ..Self::default() },
        }
    }
}

/// When a fallback is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FallbackOn {
    /// The call failed, and is not retried any more.
    Failed,
    /// The breaker is open, or the service is isolated.
    Open,
    /// A limit or a pause would make the call wait longer than `patience_ms`.
    Limited,
}

/// What happens to calls that would have to wait long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backpressure {
    /// They wait in line.
    #[default]
    Queue,
    /// What would wait longer than `max_wait_ms` is refused, with the time after which to come again.
    Reject,
    /// As `reject`; but while the job that has waited the longest in a line waits longer than `max_wait_ms`, a quarter of it is let
    /// in, and then evenly more, within 12 s all of it.
    Adaptive,
}

/// What happens to calls while Redis cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RedisLoss {
    /// None is made.
    #[default]
    Closed,
    /// Each worker goes on under this share of each limit, by itself.
    LocalShare(f64),
}
