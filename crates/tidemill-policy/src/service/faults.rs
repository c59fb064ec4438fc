//! What failing calls lead to: the breaker, and the bound on retries.

use serde::{Deserialize, Serialize};
use tidemill_protocol::ErrorClass;

/// Over what a breaker counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// The calls of the last `window_ms`.
    #[default]
    Time,
    /// The last `window_calls` calls.
    Count,
}

/// When calls stop because the service fails, and how they begin again. The whole pool shares it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    /// Whether there is one (default true).
    pub enabled: bool,
    /// Over what it counts: `time` (default) or `count`.
    pub window: Window,
    /// The window by time, in milliseconds (default 10,000).
    pub window_ms: u64,
    /// The window by count, in calls (default 100).
    pub window_calls: u64,
    /// Fewer calls than this in the window open nothing (default 20).
    pub min_calls: u64,
    /// It opens when this share of the calls failed (default 0.5).
    pub failure_ratio: f64,
    /// A call that takes longer than this is slow, in milliseconds (default 0: none is).
    pub slow_ms: u64,
    /// It opens when this share of the calls was slow (default 1.0).
    pub slow_ratio: f64,
    /// How long it stays open the first time, in milliseconds (default 5,000); doubles with each opening in a row, up to a
    /// tenth of it added at random.
    pub open_ms: u64,
    /// The longest it stays open, in milliseconds (default 60,000).
    pub max_open_ms: u64,
    /// How many calls of the whole pool probe whether the service is back (default 3).
    pub probes: u64,
    /// A probe that has not ended after this counts as failed, in milliseconds (default 30,000).
    pub probe_timeout_ms: u64,
    /// Which classes of errors are the service's fault (default `server`, `timeout`, `connect`, `bad_content`).
    pub counts: Vec<ErrorClass>,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            enabled: true,
            window: Window::Time,
            window_ms: 10_000,
            window_calls: 100,
            min_calls: 20,
            failure_ratio: 0.5,
            slow_ms: 0,
            slow_ratio: 1.0,
            open_ms: 5_000,
            max_open_ms: 60_000,
            probes: 3,
            probe_timeout_ms: 30_000,
            counts: vec![
                ErrorClass::Server,
                ErrorClass::Timeout,
                ErrorClass::Connect,
                ErrorClass::BadContent,
            ],
        }
    }
}

/// What becomes of a retry that the budget does not cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenSpent {
    /// It waits until the budget covers it.
    #[default]
    Wait,
    /// The job fails with its last error.
    Fail,
}

/// How many retries a service is asked to bear beside its first attempts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryBudget {
    /// Whether there is one (default true).
    pub enabled: bool,
    /// Retries that each first attempt earns (default 0.1).
    pub ratio: f64,
    /// Retries that each second earns, for services with few calls (default 0.1).
    pub min_per_second: f64,
    /// The most that can be saved up, and what it begins with (default 10).
    pub burst: f64,
    /// What becomes of a retry beyond it: `wait` (default) or `fail`.
    pub when_spent: WhenSpent,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { enabled: true, ratio: 0.1, min_per_second: 0.1, burst: 10.0, when_spent: WhenSpent::Wait }
    }
}
