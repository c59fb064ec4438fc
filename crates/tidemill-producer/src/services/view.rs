//! The documents about services, the same over HTTP and on the command line.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

/// A service, or one of the pool's own scopes (`@pool`, `@tenant:…`).
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ServiceView {
    /// Its name.
    pub name: String,
    /// What its definition says about it.
    pub description: Option<String>,
    /// The tools that depend on it, as its definition lists them.
    pub tools: Vec<String>,
    /// What happens to jobs that would have to wait long: `queue`, `reject` or `adaptive`.
    pub backpressure: String,
    /// Why its definition is left out by workers, if it is.
    pub problem: Option<String>,
    /// Its tiers: its own first, then those of tenants, users, models and credentials that have rules of their own, work in
    /// line, or were asked for. A list has its own alone.
    pub tiers: Vec<TierView>,
    /// What its calls are known to use (not in a list).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub learned: Vec<LearnedView>,
    /// Its definition (not in a list).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub definition: Option<serde_json::Value>,
}

/// One scope with limits.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct TierView {
    /// Its name.
    pub tier: String,
    /// `running`, `paused`, `open`, `half_open`, `forced_open` (isolated) or `disabled` (its breaker lets everything pass).
    pub state: String,
    /// Why it is paused.
    pub state_why: Option<String>,
    /// When the pause ends or the breaker lets probes go, in Unix milliseconds; absent where only a person ends it.
    pub state_until_ms: Option<u64>,
    /// Its limits, in the order of its definition.
    pub limits: Vec<LimitView>,
    /// Its cap on calls at once.
    pub concurrency: Option<ConcurrencyView>,
    /// Its breaker.
    pub breaker: Option<BreakerView>,
    /// Its bound on retries.
    pub retry_budget: Option<BudgetView>,
    /// Counted since its last reset: `granted`, `waits`, `retries`, `probes`, `over_budget`, and calls by outcome (`ok`, `failed`,
    /// `throttled`, `ignored`, `unsent`).
    pub counters: BTreeMap<String, u64>,
    /// The average latency of its calls, in milliseconds.
    pub latency_ms: Option<f64>,
    /// Calls in a second that it lets go, as far as that is known.
    pub per_second: Option<f64>,
    /// What waits for it, over all partitions.
    pub line: LineView,
    /// How long a call that comes now waits, in milliseconds; absent where only a person ends it.
    pub expected_wait_ms: Option<u64>,
    /// What bounds it now: `limit:<unit>`, `concurrency`, `breaker`, `pause`, or nothing.
    pub bound_by: Option<String>,
}

/// A limit, and what is used of it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct LimitView {
    /// What is counted.
    pub unit: String,
    /// `strict`, `average`, `bucket` or `fixed_window`.
    pub contract: String,
    /// What is in force.
    pub limit: f64,
    /// What is configured; of an `auto` limit the most it can become.
    pub configured: u64,
    /// Whether the limit is found by trying.
    pub auto: bool,
    /// Whether what is in force is what the service told.
    pub told: bool,
    /// The window, in milliseconds.
    pub window_ms: u64,
    /// What `used` is a part of: `window` (the sliding or fixed window's limit) or `burst` (what may come at once: a limit
    /// that is used evenly keeps its burst nearly used).
    pub measure: &'static str,
    /// Used now.
    pub used: f64,
    /// What may be used.
    pub of: f64,
}

/// A cap on calls at once.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ConcurrencyView {
    /// Calls under way.
    pub used: u64,
    /// The most.
    pub cap: u64,
}

/// A breaker.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct BreakerView {
    /// `closed`, `open`, `half_open`, `forced_open` or `disabled`.
    pub state: String,
    /// When it lets probes go, in Unix milliseconds.
    pub open_until_ms: Option<u64>,
    /// Openings in a row.
    pub openings: u64,
    /// Calls in its window.
    pub calls: u64,
    /// Failures among them.
    pub failures: u64,
    /// Slow ones among them.
    pub slow: u64,
    /// Fewer calls than this open nothing.
    pub min_calls: u64,
    /// The share of failures that opens it.
    pub failure_ratio: f64,
    /// While it is half-open: probes granted, and how many there are.
    pub probes: Option<[u64; 2]>,
}

/// A bound on retries.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct BudgetView {
    /// Retries that may be made now.
    pub tokens: f64,
    /// The most that is saved up.
    pub burst: f64,
    /// Retries that each first attempt earns.
    pub ratio: f64,
}

/// What waits for a tier.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct LineView {
    /// Jobs and steps in line.
    pub length: u64,
    /// How long the one that has waited the longest waits, in milliseconds.
    pub oldest_ms: Option<u64>,
}

/// What calls use.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct LearnedView {
    /// The tool.
    pub tool: String,
    /// The model, if it has one.
    pub model: Option<String>,
    /// What is counted.
    pub unit: String,
    /// What 99 of 100 calls used at most.
    pub p99: f64,
}
