//! What may be retried, how often and how far apart. The arithmetic is in `tidemill-policy`.

use serde::{Deserialize, Serialize};

/// Why an attempt failed, as far as retrying is concerned.
///
/// The words stand in configuration (`retry.on`), in results and in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// The attempt ran longer than its timeout.
    Timeout,
    /// No connection could be made, or it broke.
    Connect,
    /// The service asked for less (HTTP 429).
    Throttled,
    /// The service failed (HTTP 5xx).
    Server,
    /// The call itself is refused (HTTP 4xx, a failed check); trying again cannot help.
    Client,
    /// The answer could not be understood.
    BadContent,
    /// A child process ended with a failure.
    Exec,
    /// The input does not fit the tool; trying again cannot help.
    InvalidInput,
    /// A policy forbids the call (an address or a program that is not allowed).
    Forbidden,
    /// Anything else inside the tool, a panic included.
    Internal,
}

impl ErrorClass {
    /// Every class, in the order of the documentation.
    pub const ALL: [Self; 10] = [
        Self::Timeout,
        Self::Connect,
        Self::Throttled,
        Self::Server,
        Self::Client,
        Self::BadContent,
        Self::Exec,
        Self::InvalidInput,
        Self::Forbidden,
        Self::Internal,
    ];

    /// The word used in configuration, results and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connect => "connect",
            Self::Throttled => "throttled",
            Self::Server => "server",
            Self::Client => "client",
            Self::BadContent => "bad_content",
            Self::Exec => "exec",
            Self::InvalidInput => "invalid_input",
            Self::Forbidden => "forbidden",
            Self::Internal => "internal",
        }
    }

    /// Whether a retry can help when nothing else is configured.
    #[must_use]
    pub const fn is_retryable_by_default(self) -> bool {
        match self {
            Self::Timeout
            | Self::Connect
            | Self::Throttled
            | Self::Server
            | Self::BadContent
            | Self::Exec
            | Self::Internal => true,
            Self::Client | Self::InvalidInput | Self::Forbidden => false,
        }
    }
}

/// How a failed attempt is retried. Missing members take the next outer level's: step, then tool, then this default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryPolicy {
    /// Attempts in all, the first one included (default 3).
    pub max_attempts: Option<u32>,
    /// Upper bound of the first wait, in milliseconds (default 500); doubles with each attempt.
    pub base_ms: Option<u64>,
    /// Upper bound of any wait, in milliseconds (default 30,000).
    pub max_ms: Option<u64>,
    /// No retry starts later than this after the first attempt started, in milliseconds (default: no bound).
    pub max_elapsed_ms: Option<u64>,
    /// The classes that are retried (default: [`ErrorClass::is_retryable_by_default`]).
    pub on: Option<Vec<ErrorClass>>,
}

impl RetryPolicy {
    /// `self` where it says something, `outer` elsewhere.
    #[must_use]
    pub fn or(&self, outer: &Self) -> Self {
        Self {
            max_attempts: self.max_attempts.or(outer.max_attempts),
            base_ms: self.base_ms.or(outer.base_ms),
            max_ms: self.max_ms.or(outer.max_ms),
            max_elapsed_ms: self.max_elapsed_ms.or(outer.max_elapsed_ms),
            on: self.on.clone().or_else(|| outer.on.clone()),
        }
    }

    /// Attempts in all.
    #[must_use]
    pub fn max_attempts(&self) -> u32 {
        self.max_attempts.unwrap_or(3).max(1)
    }

    /// Whether this class is retried at all.
    #[must_use]
    pub fn retries(&self, class: ErrorClass) -> bool {
        self.on.as_ref().map_or_else(|| class.is_retryable_by_default(), |on| on.contains(&class))
    }
}
