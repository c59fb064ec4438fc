//! Services: what tools depend on, as data. A definition says how much of a service the whole pool may use and what happens
//! when it is slow, failing or full. It stands in the section `services` of the settings, or lives in Redis and is changed
//! while workers run.
//!
//! A *tier* is one scope with limits; a call passes all of its tiers or takes from none. A *template* is the rules of a
//! tier; tiers whose template ends in `*` share one. The names of both are made here ([`Catalog::tiers`]), and the text in
//! which templates stand in Redis ([`TierRules`]).

mod answers;
mod catalog;
mod check;
mod faults;
mod limit;
mod rules;
#[cfg(test)]
mod tests;
mod tier;
mod usage;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidemill_protocol::{ErrorClass, RetryPolicy};

pub use self::answers::{Backpressure, Cache, Fallback, FallbackOn, Hedge, HedgeAfter, Order, RedisLoss};
pub use self::catalog::{Catalog, Scope, Tier};
pub use self::check::{Problem, check_all};
pub use self::faults::{Breaker, RetryBudget, WhenSpent, Window};
pub use self::limit::{Amount, Contract, DEFAULT_AUTO_INITIAL, DEFAULT_AUTO_MAX, Limit, Tiered};
pub use self::rules::{BreakerRules, BudgetRules, InvalidRules, LimitRules, TierRules};
pub use self::tier::{clean, template_names};
pub use self::usage::{Estimate, Usage};

/// One service, or one of the pool's own scopes (`@pool`, `@tool:…`, `@tenant:…`, `@user:…`), which take only `limits` and
/// `concurrency`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Definition {
    /// A sentence for people who list the services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The tools that depend on it: names, or beginnings of names with a final `*` (default: none). The longest that fits
    /// decides; a tool's own setting `service` decides before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
    /// Quota dimensions (default: none).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<Limit>,
    /// The most calls at once in the whole pool (default: no cap).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u64>,
    /// jq over the input: the model that is called (default: none).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// jq over the input: for whom it is called (default: the `user` of the job or run).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// jq over the input: with which credential it is called (default: none).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// Limits of each tenant inside the service: tenant, or `*` for each that is not named (default: none).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub per_tenant: BTreeMap<String, Tiered>,
    /// Limits of each user inside the service (default: none).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub per_user: BTreeMap<String, Tiered>,
    /// Limits of each model inside the service (default: none).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub per_model: BTreeMap<String, Tiered>,
    /// Limits of each credential inside the service (default: none).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub per_credential: BTreeMap<String, Tiered>,
    /// What a call is taken to use before it is made, by unit: a number, or jq over the input (default: what 99 of 100 calls
    /// of the tool and model used).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub estimate: BTreeMap<String, Estimate>,
    /// The same while nothing has been learned yet, by unit (default: 1,000 of tokens, 1 of anything else).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub default_estimate: BTreeMap<String, u64>,
    /// How an answer says what was used: `auto` (default), `openai`, `anthropic`, or units with jq over the output.
    pub usage: Usage,
    /// When calls stop because the service fails.
    pub breaker: Breaker,
    /// How failed attempts are retried; what a step or a tool says goes before (default: the pool's).
    pub retry: RetryPolicy,
    /// The same for single classes of errors, which go before `retry` (default: none).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub per_class: BTreeMap<ErrorClass, RetryPolicy>,
    /// How many retries the service is asked to bear beside its first attempts.
    pub retry_budget: RetryBudget,
    /// How long an attempt may take, in milliseconds; what a job or a tool says goes before (default: the tool's default).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// A second, equal call when the first is late (default: none).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hedge: Option<Hedge>,
    /// Answers that are kept (default: none).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
    /// What answers in place of the call, in this order (default: nothing): each is one of `tool: <name>` (with `with`, if its
    /// input differs), `service: <name>` (the same tool under another service), `value: <anything>`, `stale: true` (an answer
    /// that was kept, fresh or not; needs `cache.stale_ms`). The reason stays in the result.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fallback: Vec<Fallback>,
    /// When a fallback is taken (default `failed`, `open`): the call `failed` for the last time, the breaker is `open`, the call
    /// is `limited` (it would wait longer than `patience_ms`).
    pub fallback_on: Vec<FallbackOn>,
    /// What happens to calls that would have to wait long: they `queue` (default); `reject` refuses what would wait longer than
    /// `max_wait_ms`, with the time after which to come again; `adaptive` does so too, and lets only a quarter of
    /// `max_wait_ms` in while the job that has waited the longest in a line waits longer than that.
    pub backpressure: Backpressure,
    /// The longest expected wait that `reject` and `adaptive` let in, in milliseconds (default 30,000).
    pub max_wait_ms: u64,
    /// What happens to calls while Redis cannot be asked: `closed` (default: none is made), or `local_share: 0.1`: each worker
    /// goes on under this share of each limit, by itself.
    pub redis_loss: RedisLoss,
    /// How long a call waits inside a worker before it is put in line, in milliseconds (default 50).
    pub patience_ms: u64,
}

impl Default for Definition {
    fn default() -> Self {
        Self {
            description: None,
            tools: Vec::new(),
            limits: Vec::new(),
            concurrency: None,
            model: None,
            user: None,
            credential: None,
            per_tenant: BTreeMap::new(),
            per_user: BTreeMap::new(),
            per_model: BTreeMap::new(),
            per_credential: BTreeMap::new(),
            estimate: BTreeMap::new(),
            default_estimate: BTreeMap::new(),
            usage: Usage::Auto,
            breaker: Breaker::default(),
            retry: RetryPolicy::default(),
            per_class: BTreeMap::new(),
            retry_budget: RetryBudget::default(),
            timeout_ms: None,
            hedge: None,
            cache: None,
            fallback: Vec::new(),
            fallback_on: vec![FallbackOn::Failed, FallbackOn::Open],
            backpressure: Backpressure::Queue,
            max_wait_ms: 30_000,
            redis_loss: RedisLoss::Closed,
            patience_ms: 50,
        }
    }
}

/// Why a text is no definition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the definition of a service: {message} (line {line}, column {column})")]
pub struct InvalidDefinition {
    /// What is wrong.
    pub message: String,
    /// Where, from 1.
    pub line: usize,
    /// Where, from 1.
    pub column: usize,
}

impl Definition {
    /// Reads the JSON text of one definition. What the types cannot tell, [`Definition::check`] does.
    ///
    /// # Errors
    /// The text is not JSON, a key is unknown, or a value has the wrong form.
    pub fn from_json(text: &str) -> Result<Self, InvalidDefinition> {
        serde_json::from_str(text).map_err(|error| {
            let whole = error.to_string();
            let message = whole.rsplit_once(" at line ").map_or(whole.as_str(), |(message, _)| message);
            InvalidDefinition { message: message.to_owned(), line: error.line(), column: error.column() }
        })
    }

    /// What a call is taken to use of a unit when nothing is declared and nothing learned.
    #[must_use]
    pub fn first_estimate(&self, unit: &str) -> u64 {
        let usual = if unit.ends_with("tokens") { 1_000 } else { 1 };
        self.default_estimate.get(unit).copied().unwrap_or(usual)
    }

    /// How failures of this class are retried, as far as the service says.
    #[must_use]
    pub fn retry_of(&self, class: ErrorClass) -> RetryPolicy {
        self.per_class.get(&class).map_or_else(|| self.retry.clone(), |policy| policy.or(&self.retry))
    }

    /// The templates that it makes: name and compiled text ([`TierRules`]).
    #[must_use]
    pub fn templates(&self, name: &str) -> Vec<(String, String)> {
        let mut own = TierRules::new(&self.limits, self.concurrency);
        if !name.starts_with('@') {
            own.breaker = BreakerRules::of(&self.breaker);
            own.retry_budget = BudgetRules::of(&self.retry_budget);
        }
        let mut templates = vec![(tier::template(name), own.to_string())];
        for (kind, scopes) in self.scopes() {
            templates.extend(scopes.iter().map(|(scope, tiered)| {
                let rules = TierRules::new(&tiered.limits, tiered.concurrency);
                (tier::scoped(name, kind, scope), rules.to_string())
            }));
        }
        templates
    }

    /// The scopes inside the service, by their word in tier names.
    pub(crate) const fn scopes(&self) -> [(&'static str, &BTreeMap<String, Tiered>); 4] {
        [
            ("tenant", &self.per_tenant),
            ("user", &self.per_user),
            ("model", &self.per_model),
            ("credential", &self.per_credential),
        ]
    }
}
