//! What is stored about services: definitions, states, changes. All of it is under one tag, so that the tiers of a call are looked
//! at in one atomic function, whatever they are.

mod catalog;

use std::collections::BTreeMap;

use redis::{Cmd, Pipeline};
use serde::Deserialize;

use crate::{Error, Link, Store};

pub use catalog::{ApplyError, CatalogRead};

/// The part of the store that is about services. A cheap handle.
#[derive(Debug, Clone)]
pub struct Services {
    link: Link,
    prefix: String,
}

/// Series of learned amounts that are kept.
const MOST_LEARNED: usize = 5_000;
/// Of them are told in one command.
const LEARNED_AT_ONCE: usize = 500;
/// After so long all that was learned begins anew; workers tell again what is missing.
const LEARNED_KEPT_MS: u64 = 24 * 3_600 * 1_000;

/// Begins the field of a definition as it last stood in a settings file.
const FILE_FIELD: &str = "!file:";

/// The state of a tier as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct TierState {
    /// When it was last looked at, in Redis's microseconds.
    #[serde(rename = "at")]
    pub seen_us: f64,
    /// Paused until then (microseconds); −1: until it is resumed.
    #[serde(rename = "p")]
    pub paused_until_us: Option<f64>,
    /// Why it is paused.
    #[serde(rename = "pw")]
    pub pause_reason: Option<String>,
    /// Calls under way, where there is a cap.
    #[serde(rename = "h")]
    pub held: Option<f64>,
    /// A line exists as long as this is in the future (microseconds).
    #[serde(rename = "li")]
    pub lined_until_us: Option<f64>,
    /// The average latency, in microseconds.
    #[serde(rename = "la")]
    pub latency_us: Option<f64>,
    /// Counters since the last reset: `granted`, `waits`, `retries`, `probes`, `over_budget` and outcomes.
    #[serde(rename = "n")]
    pub counters: Counters,
    /// The breaker, once it has been asked.
    #[serde(rename = "b")]
    pub breaker: Option<BreakerState>,
    /// The retry budget, once it has been asked.
    #[serde(rename = "r")]
    pub budget: Option<BudgetState>,
    /// One per limit of its rules, in their order.
    #[serde(rename = "l")]
    limits: LimitStates,
}

/// Counters by word; empty ones are stored as an empty list.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Counters {
    /// By word.
    Some(BTreeMap<String, f64>),
    /// None yet.
    None(Vec<f64>),
}

impl Default for Counters {
    fn default() -> Self {
        Self::None(Vec::new())
    }
}

impl Counters {
    /// A counter's value.
    #[must_use]
    pub fn get(&self, word: &str) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "counters are whole and small"
        )]
        match self {
            Self::Some(counters) => counters.get(word).map_or(0, |count| *count as u64),
            Self::None(_) => 0,
        }
    }

    /// Every counter by its word.
    #[must_use]
    pub fn all(&self) -> BTreeMap<String, u64> {
        match self {
            Self::Some(counters) => counters.keys().map(|word| (word.clone(), self.get(word))).collect(),
            Self::None(_) => BTreeMap::new(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
enum LimitStates {
    List(Vec<Option<LimitState>>),
    Sparse(BTreeMap<u32, LimitState>),
}

impl Default for LimitStates {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

/// The state of one limit.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct LimitState {
    /// GCRA's theoretical arrival time, in microseconds.
    #[serde(rename = "t")]
    pub arrival_us: f64,
    /// The limit in force.
    #[serde(rename = "e")]
    pub limit: Option<f64>,
    /// The sum over the sliding window, where one is kept.
    #[serde(rename = "s")]
    pub sum: Option<f64>,
    /// What was used in the fixed window `w`.
    #[serde(rename = "n")]
    pub used: Option<f64>,
    /// Which fixed window that is.
    #[serde(rename = "w")]
    pub window: Option<f64>,
    /// The limit that was told by the service.
    #[serde(rename = "v")]
    pub advertised: Option<f64>,
    /// Until when that counts, in microseconds.
    #[serde(rename = "x")]
    pub advertised_until_us: Option<f64>,
}

/// The state of a breaker.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct BreakerState {
    /// `closed`, `open`, `half_open`, `forced_open`, `disabled`.
    #[serde(rename = "s")]
    pub state: String,
    /// Openings in a row.
    #[serde(rename = "o")]
    pub openings: f64,
    /// Open until then, in microseconds.
    #[serde(rename = "u")]
    pub open_until_us: Option<f64>,
    /// Probes granted in this half-open period.
    #[serde(rename = "g")]
    pub probes_granted: Option<f64>,
    /// Probes that have reported.
    #[serde(rename = "d")]
    pub probes_done: Option<f64>,
    /// Probes that failed.
    #[serde(rename = "x")]
    pub probes_failed: Option<f64>,
    /// A window by time: the number of its newest bucket; that bucket is at index `number % 10` of the three lists.
    #[serde(rename = "i")]
    pub bucket: Option<f64>,
    /// Calls by bucket.
    #[serde(rename = "c")]
    pub calls: Vec<f64>,
    /// Failures by bucket.
    #[serde(rename = "f")]
    pub failures: Vec<f64>,
    /// Slow calls by bucket.
    #[serde(rename = "l")]
    pub slow: Vec<f64>,
    /// A window by count: one letter a call, the newest last: `o` good, `f` failed, `l` slow, `b` both.
    #[serde(rename = "h")]
    pub marks: Option<String>,
}

/// The state of a retry budget.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct BudgetState {
    /// Retries that may be made now.
    #[serde(rename = "t")]
    pub tokens: f64,
}

impl TierState {
    /// The state of the limit at an index of the rules.
    #[must_use]
    pub fn limit(&self, index: usize) -> Option<&LimitState> {
        match &self.limits {
            LimitStates::List(list) => list.get(index).and_then(Option::as_ref),
            LimitStates::Sparse(map) => map.get(&u32::try_from(index + 1).ok()?),
        }
    }

    /// One word: `paused`, or the breaker's state, or `running`.
    #[must_use]
    pub fn word(&self, now_us: f64) -> &str {
        if self.paused_until_us.is_some_and(|until| until < 0.0 || until > now_us) {
            return "paused";
        }
        match self.breaker.as_ref().map(|breaker| breaker.state.as_str()) {
            None | Some("closed" | "") => "running",
            Some(state) => state,
        }
    }
}

/// Something that happened to a service.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ServiceChange {
    /// Its place in the stream.
    pub entry: String,
    /// `set`, `remove`, `pause`, `resume`, `isolate`, `disable`, `close`, `reset`, `breaker`.
    pub kind: String,
    /// The service or tier.
    pub service: String,
    /// What was before.
    pub from: String,
    /// What is since.
    pub to: String,
    /// Why.
    pub why: String,
    /// Who did it.
    pub by: String,
    /// When, in Unix milliseconds.
    pub at_ms: u64,
}

impl Store {
    /// What is stored about services.
    #[must_use]
    pub fn services(&self) -> Services {
        Services { link: self.link().clone(), prefix: format!("{}:{{services}}:", self.namespace()) }
    }
}

impl Services {
    pub(crate) const fn link(&self) -> &Link {
        &self.link
    }

    /// What every key of services begins with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    fn key(&self, name: &str) -> String {
        [&self.prefix, name].concat()
    }

    /// Hash: definitions by name, as JSON; `!file:<name>` is what a settings file last said.
    #[must_use]
    pub fn definitions_key(&self) -> String {
        self.key("definitions")
    }

    /// Hash: compiled rules by template; `!generation` counts changes.
    #[must_use]
    pub fn config(&self) -> String {
        self.key("config")
    }

    /// Stream: what happened to services. Bounded by count.
    #[must_use]
    pub fn changes(&self) -> String {
        self.key("changes")
    }

    /// Hash: what calls use, learned, by `<service> <tool> <model> <unit>`.
    #[must_use]
    pub fn learned_key(&self) -> String {
        self.key("learned")
    }

    /// String: a tier's state as `MessagePack`. Expires a day after it was last used.
    #[must_use]
    pub fn tier(&self, tier: &str) -> String {
        self.key(&["tier:", tier].concat())
    }

    /// Hash: each worker's calls under way in a tier. Fields go when they are not renewed.
    #[must_use]
    pub fn held(&self, tier: &str) -> String {
        self.key(&["held:", tier].concat())
    }

    /// Hash: the slots of a tier's sliding sums. Expires after the window.
    #[must_use]
    pub fn sums(&self, tier: &str) -> String {
        self.key(&["sums:", tier].concat())
    }

    /// The generation of the definitions.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn generation(&self) -> Result<u64, Error> {
        let mut ask = Cmd::new();
        ask.arg("HGET").arg(self.config()).arg("!generation");
        let known: Option<u64> = self.link.query("asking for the generation of services", &ask).await?;
        Ok(known.unwrap_or(0))
    }

    /// Every definition by name, as JSON text, with the generation that it belongs to (or an older one).
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn definitions(&self) -> Result<(u64, BTreeMap<String, String>), Error> {
        let mut both = Pipeline::with_capacity(2);
        both.cmd("HGET").arg(self.config()).arg("!generation");
        both.cmd("HGETALL").arg(self.definitions_key());
        let (generation, mut all): (Option<u64>, BTreeMap<String, String>) =
            self.link.pipeline("reading services", &both).await?;
        all.retain(|name, _| !name.starts_with(FILE_FIELD));
        Ok((generation.unwrap_or(0), all))
    }

    /// The compiled rules of every template.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn rules(&self) -> Result<BTreeMap<String, String>, Error> {
        let mut ask = Cmd::new();
        ask.arg("HGETALL").arg(self.config());
        let mut rules: BTreeMap<String, String> = self.link.query("reading rules", &ask).await?;
        rules.retain(|template, _| !template.starts_with('!'));
        Ok(rules)
    }

    /// The states of tiers; absent where a tier was never used.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn states(&self, tiers: &[&str]) -> Result<Vec<Option<TierState>>, Error> {
        if tiers.is_empty() {
            return Ok(Vec::new());
        }
        let mut ask = Cmd::new();
        ask.arg("MGET");
        for tier in tiers {
            ask.arg(self.tier(tier));
        }
        let found: Vec<Option<Vec<u8>>> = self.link.query("reading the states of services", &ask).await?;
        Ok(found.into_iter().map(|packed| rmp_serde::from_slice(&packed?).ok()).collect())
    }

    /// What happened lately, newest first; `before` goes on from an entry of an earlier page.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn history(&self, before: Option<&str>, limit: usize) -> Result<Vec<ServiceChange>, Error> {
        let mut ask = Cmd::new();
        let from = before.map_or_else(|| "+".to_owned(), |entry| format!("({entry}"));
        ask.arg("XREVRANGE").arg(self.changes()).arg(from).arg("-").arg("COUNT").arg(limit);
        let found: Vec<(String, BTreeMap<String, String>)> =
            self.link.query("reading the changes of services", &ask).await?;
        Ok(found
            .into_iter()
            .map(|(entry, mut fields)| {
                let mut take = |name: &str| fields.remove(name).unwrap_or_default();
                ServiceChange {
                    kind: take("kind"),
                    service: take("service"),
                    from: take("from"),
                    to: take("to"),
                    why: take("why"),
                    by: take("by"),
                    at_ms: take("at_ms").parse().unwrap_or(0),
                    entry,
                }
            })
            .collect())
    }

    /// What calls are known to use.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn learned(&self) -> Result<BTreeMap<String, f64>, Error> {
        let mut ask = Cmd::new();
        ask.arg("HGETALL").arg(self.learned_key());
        self.link.query("reading what was learned", &ask).await
    }

    /// Tells others what calls use. Models come from inputs: of more than 5,000 only those that are known already are
    /// kept, and each day all begins anew.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn learn(&self, amounts: &[(String, f64)]) -> Result<(), Error> {
        for some in amounts.chunks(LEARNED_AT_ONCE) {
            let key = self.learned_key();
            let mut ask = Pipeline::with_capacity(2);
            ask.cmd("HLEN").arg(&key);
            ask.cmd("HMGET").arg(&key).arg(some.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>());
            let (count, known): (usize, Vec<Option<f64>>) =
                self.link.pipeline("reading what was learned", &ask).await?;
            let mut room = MOST_LEARNED.saturating_sub(count);
            let mut tell = Cmd::new();
            tell.arg("HSET").arg(&key);
            let mut tells = false;
            for ((name, amount), known) in some.iter().zip(known) {
                if known.is_none() && room == 0 {
                    continue;
                }
                room -= usize::from(known.is_none());
                tells = true;
                tell.arg(name).arg(format!("{amount:.3}"));
            }
            if tells {
                let mut write = Pipeline::with_capacity(2);
                write.add_command(tell);
                write.cmd("PEXPIRE").arg(&key).arg(LEARNED_KEPT_MS).arg("NX");
                let (_, _): (i64, i64) = self.link.pipeline("telling what was learned", &write).await?;
            }
        }
        Ok(())
    }
}
