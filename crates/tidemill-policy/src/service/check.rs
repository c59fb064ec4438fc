//! What the types of a definition cannot tell.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use tidemill_protocol::{RetryPolicy, check_service, check_target};

use super::tier::clean;
use super::{Definition, Estimate, Fallback, FallbackOn, HedgeAfter, RedisLoss, Usage};

mod limits;
mod parts;
#[cfg(test)]
mod tests;

use self::limits::limits;

/// The largest amount of a limit: sums of them stay exact in Lua's numbers.
const AMOUNT_MAX: u64 = 1_000_000_000_000;
/// The longest window and the longest time of any kind, in milliseconds: a year.
const TIME_MAX_MS: u64 = 366 * 24 * 3600 * 1000;
/// The longest jq expression, in bytes.
const JQ_MAX_BYTES: usize = 4096;

/// One thing that is wrong with a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The name of the definition.
    pub definition: String,
    /// The key, with dots, from the name of the definition on: `openai.limits.0.burst`.
    pub path: String,
    /// What is wrong, and what is possible.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "services.{}: {}", self.path, self.message)
    }
}

/// Problems as they are found, each at its key.
struct Found {
    definition: String,
    at: Vec<String>,
    problems: Vec<Problem>,
}

impl Found {
    fn new(name: &str) -> Self {
        Self { definition: name.to_owned(), at: vec![quoted(name)], problems: Vec::new() }
    }

    fn add(&mut self, key: &str, message: impl Into<String>) {
        let mut path = self.at.join(".");
        if !key.is_empty() {
            path.push('.');
            path.push_str(key);
        }
        self.problems.push(Problem { definition: self.definition.clone(), path, message: message.into() });
    }

    fn within(&mut self, key: &str, look: impl FnOnce(&mut Self)) {
        self.at.push(quoted(key));
        look(self);
        self.at.pop();
    }

    fn range(&mut self, key: &str, value: u64, least: u64, most: u64) {
        if value < least || value > most {
            self.add(key, format!("{value} is not between {least} and {most}"));
        }
    }

    fn ratio(&mut self, key: &str, value: f64, least: f64, most: f64) {
        // also refuses NaN
        if !(value >= least && value <= most) {
            self.add(key, format!("{value} is not between {least} and {most}"));
        }
    }

    fn share(&mut self, key: &str, value: f64) {
        if !(value > 0.0 && value <= 1.0) {
            self.add(key, format!("{value} is not above 0 and at most 1"));
        }
    }

    fn jq(&mut self, key: &str, text: &str) {
        if text.trim().is_empty() {
            self.add(key, "the expression is empty; leave the key out, or write jq such as `.model`");
        } else if text.len() > JQ_MAX_BYTES {
            self.add(key, format!("the expression has {} bytes; {JQ_MAX_BYTES} are allowed", text.len()));
        }
    }
}

fn quoted(key: &str) -> String {
    if key.contains('.') { format!("\"{key}\"") } else { key.to_owned() }
}

/// Whether a word is a unit: 1 to 32 of `a-z 0-9 _`, a letter first.
fn is_unit(word: &str) -> bool {
    word.len() <= 32
        && word.starts_with(|first: char| first.is_ascii_lowercase())
        && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

const UNIT_RULE: &str =
    "a unit is a snake-case word of at most 32 letters, digits and `_`, such as `total_tokens`";

impl Definition {
    /// Everything that the types cannot tell; empty if it can be used. jq is looked at as text alone.
    #[must_use]
    pub fn check(&self, name: &str) -> Vec<Problem> {
        let mut found = Found::new(name);
        check_name(&mut found, name);
        limits(&mut found, &self.limits, self.concurrency);
        if name.starts_with('@') {
            self.check_pool_scope(&mut found);
        } else {
            self.check_service(&mut found);
        }
        found.problems
    }

    fn check_pool_scope(&self, found: &mut Found) {
        if self.limits.is_empty() && self.concurrency.is_none() {
            found.add("", "it limits nothing; give `limits` or `concurrency`, or leave it out");
        }
        let rest = Self {
            description: self.description.clone(),
            limits: self.limits.clone(),
            concurrency: self.concurrency,
            ..Self::default()
        };
        if *self != rest {
            found.add(
                "",
                "it has more than `description`, `limits` and `concurrency`; a name that begins with `@` is a scope of the \
                 pool and takes nothing else",
            );
        }
    }

    fn check_service(&self, found: &mut Found) {
        self.check_tools(found);
        self.check_scopes(found);
        self.check_usage(found);
        parts::breaker(found, &self.breaker);
        parts::retry_budget(found, &self.retry_budget);
        found.within("retry", |found| retry(found, &self.retry));
        found.within("per_class", |found| {
            for (class, policy) in &self.per_class {
                found.within(class.as_str(), |found| retry(found, policy));
            }
        });
        if let Some(ms) = self.timeout_ms {
            found.range("timeout_ms", ms, 1, TIME_MAX_MS);
        }
        if let Some(hedge) = &self.hedge {
            found.within("hedge", |found| {
                if let HedgeAfter::Ms(ms) = hedge.after {
                    found.range("after", ms, 1, TIME_MAX_MS);
                }
                found.share("max_ratio", hedge.max_ratio);
            });
        }
        if let Some(cache) = &self.cache {
            parts::cache(found, cache);
        }
        self.check_fallback(found);
        found.range("max_wait_ms", self.max_wait_ms, 1, TIME_MAX_MS);
        found.range("patience_ms", self.patience_ms, 0, 10_000);
        if let RedisLoss::LocalShare(share) = self.redis_loss {
            found.within("redis_loss", |found| found.share("local_share", share));
        }
    }

    fn check_tools(&self, found: &mut Found) {
        let mut seen = BTreeSet::new();
        for (index, tool) in self.tools.iter().enumerate() {
            let key = format!("tools.{index}");
            let plain = tool.strip_suffix('*').unwrap_or(tool);
            if plain.contains('*') {
                found.add(&key, format!("{tool:?} has a `*` before its end; only a final one is understood"));
            } else if let Err(error) = check_target(plain)
                && tool != "*"
            {
                found.add(&key, error.to_string());
            } else if !seen.insert(tool) {
                found.add(&key, format!("{tool:?} is there twice"));
            }
        }
    }

    fn check_scopes(&self, found: &mut Found) {
        for (kind, scopes) in self.scopes() {
            found.within(&format!("per_{kind}"), |found| {
                let mut seen = BTreeMap::new();
                for (scope, tiered) in scopes {
                    found.within(scope, |found| {
                        if scope.is_empty() {
                            found.add("", format!("a {kind} has no empty name"));
                        }
                        if tiered.limits.is_empty() && tiered.concurrency.is_none() {
                            found.add(
                                "",
                                "it limits nothing; give `limits` or `concurrency`, or leave it out",
                            );
                        }
                        if let Some(other) =
                            (scope != "*").then(|| seen.insert(clean(scope), scope)).flatten()
                        {
                            found.add("", format!("it shares the tier {:?} with {other:?}", clean(scope)));
                        }
                        limits(found, &tiered.limits, tiered.concurrency);
                    });
                }
            });
        }
        for (key, expression, scopes) in [
            ("model", &self.model, Some(&self.per_model)),
            ("credential", &self.credential, Some(&self.per_credential)),
            ("user", &self.user, None),
        ] {
            match expression {
                Some(expression) => found.jq(key, expression),
                None if scopes.is_some_and(|scopes| !scopes.is_empty()) => {
                    let message =
                        format!("`per_{key}` needs it: say with jq over the input which {key} a call uses");
                    found.add(key, message);
                }
                None => {}
            }
        }
    }

    fn check_usage(&self, found: &mut Found) {
        fn unit(found: &mut Found, unit: &str) {
            if unit == "requests" {
                found.add("requests", "a call always uses 1 request; leave it out");
            } else if !is_unit(unit) {
                found.add(&quoted(unit), UNIT_RULE);
            }
        }
        found.within("estimate", |found| {
            for (name, estimate) in &self.estimate {
                unit(found, name);
                match estimate {
                    Estimate::Fixed(amount) => found.range(name, *amount, 0, AMOUNT_MAX),
                    Estimate::Jq(text) => found.jq(name, text),
                }
            }
        });
        found.within("default_estimate", |found| {
            for (name, amount) in &self.default_estimate {
                unit(found, name);
                found.range(name, *amount, 0, AMOUNT_MAX);
            }
        });
        if let Usage::Jq(units) = &self.usage {
            found.within("usage", |found| {
                for (name, text) in units {
                    unit(found, name);
                    found.jq(name, text);
                }
            });
        }
    }

    fn check_fallback(&self, found: &mut Found) {
        let keeps_stale = self.cache.as_ref().is_some_and(|cache| cache.stale_ms > 0);
        for (index, fallback) in self.fallback.iter().enumerate() {
            let key = format!("fallback.{index}");
            match fallback {
                Fallback::Tool { tool, .. } => {
                    if let Err(error) = check_target(tool) {
                        found.add(&format!("{key}.tool"), error.to_string());
                    }
                }
                Fallback::Service(service) if *service == found.definition => {
                    found.add(&format!("{key}.service"), "a service cannot stand in for itself");
                }
                Fallback::Value(_) if index + 1 < self.fallback.len() => {
                    found.add(&key, "a value always answers: what comes after it is never reached");
                }
                Fallback::Stale if !keeps_stale => {
                    found.add(&key, "no stale answers are kept; set `cache.stale_ms`");
                }
                Fallback::Service(_) | Fallback::Value(_) | Fallback::Stale => {}
            }
        }
        let mut seen: Vec<FallbackOn> = Vec::new();
        for (index, on) in self.fallback_on.iter().enumerate() {
            if seen.contains(on) {
                found.add(&format!("fallback_on.{index}"), "it is there twice");
            }
            seen.push(*on);
        }
        if !self.fallback.is_empty() && self.fallback_on.is_empty() {
            found.add(
                "fallback_on",
                "it is empty: no fallback would ever be taken; remove `fallback` or this key",
            );
        }
    }
}

fn check_name(found: &mut Found, name: &str) {
    match name.split_once(':') {
        None if name == "@pool" => {}
        Some(("@tool" | "@tenant" | "@user", rest)) if !rest.is_empty() => {}
        _ if name.starts_with('@') => {
            found.add(
                "",
                "names with `@` are `@pool`, `@tool:<tool>`, `@tenant:<tenant>` and `@user:<user>` (or `*` in place of the \
                 last)",
            );
        }
        _ => {
            if let Err(error) = check_service(name) {
                found.add("", error.to_string());
            }
        }
    }
}

fn retry(found: &mut Found, policy: &RetryPolicy) {
    if let Some(attempts) = policy.max_attempts {
        found.range("max_attempts", u64::from(attempts), 1, 1_000);
    }
    for (key, value) in
        [("base_ms", policy.base_ms), ("max_ms", policy.max_ms), ("max_elapsed_ms", policy.max_elapsed_ms)]
    {
        if let Some(value) = value {
            found.range(key, value, 0, TIME_MAX_MS);
        }
    }
}

/// All problems of a set of definitions by name: of each, and between them; empty if [`super::Catalog::new`] takes it.
#[must_use]
pub fn check_all(definitions: &BTreeMap<String, Definition>) -> Vec<Problem> {
    let mut problems: Vec<_> =
        definitions.iter().flat_map(|(name, definition)| definition.check(name)).collect();
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    let mut templates: BTreeMap<String, &str> = BTreeMap::new();
    for (name, definition) in definitions {
        let mut found = Found::new(name);
        for (index, tool) in definition.tools.iter().enumerate() {
            if let Some(other) = owners.insert(tool, name).filter(|other| other != name) {
                found.add(
                    &format!("tools.{index}"),
                    format!("{tool:?} depends on {other:?} already; a tool has one service"),
                );
            }
        }
        if let Some(other) = templates.insert(super::tier::template(name), name) {
            found.add("", format!("it shares its tier with {other:?}; keep one"));
        }
        for (index, fallback) in definition.fallback.iter().enumerate() {
            if let Fallback::Service(service) = fallback
                && !definitions.contains_key(service)
            {
                found.add(&format!("fallback.{index}.service"), format!("there is no service {service:?}"));
            }
        }
        problems.extend(found.problems);
    }
    problems
}
