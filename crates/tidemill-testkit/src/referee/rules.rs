//! What a referee enforces, how long it takes, how it fails, and what it tells its callers about it.

use std::time::Duration;

/// What a quota counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// Every call is one.
    Requests,
    /// What the call says: the header `x-tokens`, or `tokens` in its JSON body.
    Tokens,
}

impl Unit {
    /// The word that stands for it in headers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
        }
    }
}

/// Never more than `limit` in any span of time of length `window`. A window holds its end and not its beginning: a
/// call leaves it exactly `window` after it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// What is counted.
    pub unit: Unit,
    /// The most in one window.
    pub limit: u64,
    /// The length of every window.
    pub window: Duration,
}

/// Whose calls are counted together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scope {
    /// Those with the same `authorization` header; those without one are one more group.
    #[default]
    Key,
    /// All of them.
    Everyone,
}

/// How long an answer takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Latency {
    /// Always this long.
    Fixed(Duration),
    /// Any time between the two, each as likely.
    Uniform(Duration, Duration),
    /// Pareto: mostly little more than `least`, now and then very long. The smaller `shape`, the heavier the tail (at
    /// 1.1, one call in a hundred takes 66 times `least`).
    HeavyTailed {
        /// The shortest time.
        least: Duration,
        /// Pareto's alpha, above 0.
        shape: f64,
        /// The longest time.
        at_most: Duration,
    },
}

impl Latency {
    /// The time that belongs to a number drawn evenly from 0 (not included) to 1.
    pub(super) fn at(self, drawn: f64) -> Duration {
        match self {
            Self::Fixed(time) => time,
            Self::Uniform(low, high) => low + high.saturating_sub(low).mul_f64(drawn.clamp(0.0, 1.0)),
            Self::HeavyTailed { least, shape, at_most } => {
                let seconds = least.as_secs_f64() * drawn.powf(-1.0 / shape);
                Duration::try_from_secs_f64(seconds).map_or(at_most, |time| time.min(at_most))
            }
        }
    }
}

/// How a wait is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryForm {
    /// `retry-after: 2`, rounded up.
    Seconds,
    /// `retry-after: Sun, 06 Nov 1994 08:49:37 GMT`, rounded up to the next whole second.
    Date,
    /// `retry-after-ms: 1250`, rounded up.
    Milliseconds,
}

/// A wait that an answer asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryAfter {
    /// How long.
    pub after: Duration,
    /// How it is told.
    pub form: RetryForm,
}

/// A way to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This status instead of 200, after the usual latency.
    Status {
        /// 500, 503, 429 and the like.
        status: u16,
        /// What the answer asks its caller to wait.
        retry_after: Option<RetryAfter>,
    },
    /// No answer, ever; ends when the caller goes away.
    Hang,
    /// Half of a 200, then the connection is reset.
    Reset,
    /// A 200 that calls itself JSON and is not.
    Garbage,
    /// The usual answer after this many times the usual latency.
    Slow(u32),
}

impl Fault {
    /// 500.
    pub const ERROR: Self = Self::Status { status: 500, retry_after: None };
    /// Ten times slower.
    pub const SLOW: Self = Self::Slow(10);

    /// 503 that asks for a wait.
    #[must_use]
    pub const fn unavailable(after: Duration, form: RetryForm) -> Self {
        Self::Status { status: 503, retry_after: Some(RetryAfter { after, form }) }
    }

    /// 429 by script: it asks for a wait and is no violation of a rule.
    #[must_use]
    pub const fn throttled(after: Duration, form: RetryForm) -> Self {
        Self::Status { status: 429, retry_after: Some(RetryAfter { after, form }) }
    }
}

/// Whose headers an answer carries, about each quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `x-ratelimit-limit-requests`, `x-ratelimit-remaining-requests`, `x-ratelimit-reset-requests: 1m30s`, and the
    /// same for tokens.
    OpenAi,
    /// `anthropic-ratelimit-requests-limit`, `…-remaining`, `…-reset: 2026-01-31T12:00:00Z`, and the same for tokens.
    Anthropic,
    /// `ratelimit-policy: "requests";q=600;w=60` and `ratelimit: "requests";r=12;t=30`.
    Ietf,
}

/// The shape of a body that tells what a call used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Usage {
    /// `{"ok":true}`.
    #[default]
    None,
    /// A chat completion with `usage.prompt_tokens`, `completion_tokens`, `total_tokens`.
    OpenAi,
    /// A reply with `usage.input_tokens`, `output_tokens`.
    Anthropic,
}

/// What becomes of the calls already in a window when the limit changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Change {
    /// Each used its part of the limit that it met: after 300 of 600 half of the window is used, and stays so when the
    /// limit becomes 300. Who keeps to the new limit from the change on, and begins with a pause of one call, is never
    /// refused: a test that lowers a limit lets its callers know a moment before.
    #[default]
    Prorated,
    /// They are counted against the new limit: after a halving, everybody waits until enough of them have left.
    AtOnce,
}

/// What a referee enforces and how it answers. The default enforces nothing and answers 200 at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// All of them hold at once.
    pub quotas: Vec<Quota>,
    /// The most calls under way at once.
    pub concurrency: Option<u32>,
    /// Whose calls the quotas and the concurrency count together.
    pub scope: Scope,
    /// How long an answer takes. A refusal takes no time.
    pub latency: Latency,
    /// Faults that strike by chance: how often (0 to 1), and which. The first that strikes counts.
    pub failures: Vec<(f64, Fault)>,
    /// What every answer tells about the quotas.
    pub headers: Vec<Dialect>,
    /// How a refusal tells when the call would have passed; not at all by default. Where only a call's end can help
    /// (concurrency), it tells a second.
    pub retry_after: Option<RetryForm>,
    /// The shape of a good answer's body.
    pub usage: Usage,
    /// What becomes of earlier calls when these rules replace others.
    pub change: Change,
    /// Latencies and failures are drawn from this.
    pub seed: u64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            quotas: Vec::new(),
            concurrency: None,
            scope: Scope::default(),
            latency: Latency::Fixed(Duration::ZERO),
            failures: Vec::new(),
            headers: Vec::new(),
            retry_after: None,
            usage: Usage::default(),
            change: Change::default(),
            seed: 1,
        }
    }
}

impl Rules {
    /// Adds a quota of requests.
    #[must_use]
    pub fn requests(mut self, limit: u64, window: Duration) -> Self {
        self.quotas.push(Quota { unit: Unit::Requests, limit, window });
        self
    }

    /// Adds a quota of tokens.
    #[must_use]
    pub fn tokens(mut self, limit: u64, window: Duration) -> Self {
        self.quotas.push(Quota { unit: Unit::Tokens, limit, window });
        self
    }

    /// Allows this many calls under way at once.
    #[must_use]
    pub const fn concurrency(mut self, cap: u32) -> Self {
        self.concurrency = Some(cap);
        self
    }

    /// Counts the calls of everyone together.
    #[must_use]
    pub const fn for_everyone(mut self) -> Self {
        self.scope = Scope::Everyone;
        self
    }

    /// Answers after this time.
    #[must_use]
    pub const fn latency(mut self, latency: Latency) -> Self {
        self.latency = latency;
        self
    }

    /// Lets a fault strike this part (0 to 1) of the calls.
    #[must_use]
    pub fn failing(mut self, part: f64, fault: Fault) -> Self {
        self.failures.push((part, fault));
        self
    }

    /// Adds the headers of one more dialect to every answer.
    #[must_use]
    pub fn headers(mut self, dialect: Dialect) -> Self {
        self.headers.push(dialect);
        self
    }

    /// Tells the refused when to come again.
    #[must_use]
    pub const fn retry_after(mut self, form: RetryForm) -> Self {
        self.retry_after = Some(form);
        self
    }

    /// Tells what a call used.
    #[must_use]
    pub const fn usage(mut self, usage: Usage) -> Self {
        self.usage = usage;
        self
    }

    /// Draws latencies and failures from this seed.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The limit of the quota of this unit and window, if there is one.
    pub(super) fn limit_of(&self, unit: Unit, window: Duration) -> Option<u64> {
        self.quotas.iter().find(|quota| quota.unit == unit && quota.window == window).map(|quota| quota.limit)
    }
}
