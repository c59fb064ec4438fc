//! Limits: how much of what in how long, and how many calls at once.

use serde::{Deserialize, Serialize};

/// How a limit is to be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Contract {
    /// Never more than the limit in any sliding window.
    #[default]
    Strict,
    /// The limit per window on average, a burst above it.
    Average,
    /// A token bucket as the provider counts: `burst` at once, refilled evenly.
    Bucket,
    /// Fixed windows as the provider counts; they begin at multiples of the window since the epoch.
    FixedWindow,
}

impl Contract {
    /// The burst where none is configured: as much at once as costs little of the rate.
    #[must_use]
    pub fn default_burst(self, limit: u64) -> u64 {
        match self {
            Self::Strict => (limit / 50).max(1),
            Self::Average => (limit / 10).max(1),
            Self::Bucket | Self::FixedWindow => limit,
        }
    }
}

/// How much a limit allows: a number, or found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "AmountForm", into = "AmountForm")]
pub enum Amount {
    /// So much per window.
    Fixed(u64),
    /// Raised slowly while the service copes, lowered quickly when it throttles.
    Auto,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a whole number, or `auto`")]
enum AmountForm {
    Number(u64),
    Word(String),
}

impl TryFrom<AmountForm> for Amount {
    type Error = String;

    fn try_from(form: AmountForm) -> Result<Self, String> {
        match form {
            AmountForm::Number(number) => Ok(Self::Fixed(number)),
            AmountForm::Word(word) if word == "auto" => Ok(Self::Auto),
            AmountForm::Word(word) => Err(format!("`{word}` is neither a whole number nor `auto`")),
        }
    }
}

impl From<Amount> for AmountForm {
    fn from(amount: Amount) -> Self {
        match amount {
            Amount::Fixed(number) => Self::Number(number),
            Amount::Auto => Self::Word("auto".to_owned()),
        }
    }
}

/// Where an `auto` limit begins, unless configured.
pub const DEFAULT_AUTO_INITIAL: u64 = 10;
/// What an `auto` limit never passes, unless configured.
pub const DEFAULT_AUTO_MAX: u64 = 1_000;

/// One quota dimension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// What is counted: `requests`, `input_tokens`, `output_tokens`, `total_tokens`, `cost` (in whole units of your choice,
    /// such as millionths of a dollar), or a snake-case word of your own.
    pub unit: String,
    /// How much of it in each window: a whole number, or `auto`.
    pub limit: Amount,
    /// The window, in milliseconds.
    pub window_ms: u64,
    /// How the limit is to be understood (default `strict`).
    #[serde(default)]
    pub contract: Contract,
    /// How much at once, and so how much of a stall can be made good (default: strict a fiftieth of the limit; average a
    /// tenth; bucket all of it; at least 1). A fixed window has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
    /// Strict only: by how much the way from the grant to the service may vary, in milliseconds (default 1/250 of the
    /// window, at least 20 or a tenth of it, at most 250).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slack_ms: Option<u64>,
    /// With `limit: auto`: where it begins (default 10).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial: Option<u64>,
    /// With `limit: auto`: what it never passes (default 1,000).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
}

/// The limits of one scope inside a service: a tenant, a user, a model, a credential.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tiered {
    /// Quota dimensions (default: none).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<Limit>,
    /// The most calls at once (default: no cap).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u64>,
}
