//! Reading services: definitions, rules, states, outlooks and lines, put together.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::try_join_all;
use tidemill_policy::service::{Backpressure, Definition, TierRules, clean, template_names};
use tidemill_store::{Error, Forecast, Outlook, Store, TierState};

use super::expect::prospect;
use super::usage::{breaker, budget, limit, ms, whole};
use super::view::{ConcurrencyView, LearnedView, LineView, ServiceView, TierView};
use crate::refusal::Refusal;

/// Tiers asked about in one call.
const CALL_TIERS: usize = 100;
/// Tiers shown of one service.
const MOST_TIERS: usize = 1_000;

/// Every service and scope with its own tier, by name.
///
/// # Errors
/// Redis is not available.
pub async fn list(store: &Store) -> Result<Vec<ServiceView>, Refusal> {
    let (read, (_, texts), rules) = basics(store).await?;
    let names: Vec<String> = texts.keys().cloned().collect();
    let tiers = tiers_by(store, &rules, &names.iter().map(|name| own_tier(name)).collect::<Vec<_>>()).await?;
    let views = names.into_iter().zip(tiers);
    Ok(views.map(|(name, tier)| view(&name, &texts[&name], &read.left_out, vec![tier])).collect())
}

/// One service with its tiers; `also` are tiers to show besides. `None`: there is no such service.
///
/// # Errors
/// Redis is not available.
pub async fn show(store: &Store, name: &str, also: &[String]) -> Result<Option<ServiceView>, Refusal> {
    let (read, (_, texts), rules) = basics(store).await?;
    let Some(text) = texts.get(name) else { return Ok(None) };
    let lined = lines(store).await?;
    let of_service = |tier: &&String| tier.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'));
    let scoped = rules.keys().filter(|template| !template.ends_with('*'));
    let more: BTreeSet<&String> = scoped.chain(lined.keys()).filter(of_service).chain(also).collect();
    let mut names = vec![own_tier(name)];
    names.extend(more.into_iter().filter(|tier| *tier != name).take(MOST_TIERS).cloned());
    let tiers = tiers_by(store, &rules, &names).await?;
    let mut view = view(name, text, &read.left_out, tiers);
    view.definition = serde_json::from_str(text).ok();
    view.learned = learned(store, name).await?;
    Ok(Some(view))
}

/// The own tiers of all services and scopes, and every tier with a line, by name.
///
/// # Errors
/// Redis is not available.
pub async fn overview(store: &Store) -> Result<Vec<TierView>, Refusal> {
    let services = store.services();
    let ((_, texts), rules, lined) =
        tokio::try_join!(services.definitions(), services.rules(), lines(store))?;
    let own = texts.keys().filter(|name| !name.ends_with('*')).map(|name| own_tier(name));
    let names: BTreeSet<String> = own.chain(lined.into_keys()).take(MOST_TIERS).collect();
    Ok(tiers_by(store, &rules, &Vec::from_iter(names)).await?)
}

/// Tiers by their names; what has no rules is shown without any.
///
/// # Errors
/// Redis is not available.
pub async fn tiers(store: &Store, names: &[String]) -> Result<Vec<TierView>, Refusal> {
    let rules = store.services().rules().await?;
    Ok(tiers_by(store, &rules, names).await?)
}

type Basics = (tidemill_store::CatalogRead, (u64, BTreeMap<String, String>), BTreeMap<String, String>);

async fn basics(store: &Store) -> Result<Basics, Error> {
    let services = store.services();
    tokio::try_join!(services.catalog(), services.definitions(), services.rules())
}

/// The tier that a definition's own limits make.
fn own_tier(name: &str) -> String {
    match name.split_once(':') {
        Some((kind, rest)) if kind.starts_with('@') && rest != "*" => format!("{kind}:{}", clean(rest)),
        _ => name.to_owned(),
    }
}

fn view(name: &str, text: &str, left_out: &[(String, String)], tiers: Vec<TierView>) -> ServiceView {
    let definition = Definition::from_json(text).unwrap_or_default();
    let backpressure = match definition.backpressure {
        Backpressure::Queue => "queue",
        Backpressure::Reject => "reject",
        Backpressure::Adaptive => "adaptive",
    };
    ServiceView {
        name: name.to_owned(),
        description: definition.description,
        tools: definition.tools,
        backpressure: backpressure.to_owned(),
        problem: left_out.iter().find(|(out, _)| out == name || out == "*").map(|(_, why)| why.clone()),
        tiers,
        learned: Vec::new(),
        definition: None,
    }
}

/// What waits for each tier that has a line, over all partitions.
async fn lines(store: &Store) -> Result<BTreeMap<String, LineView>, Error> {
    let of_partition = |partition: tidemill_store::Partition| async move {
        let tiers = partition.lines().await?;
        let (lengths, oldest, now_ms) = tokio::try_join!(
            partition.line_lengths(&tiers),
            partition.oldest_in_lines(&tiers),
            partition.now_ms()
        )?;
        let ages = oldest.into_iter().map(move |since| since.map(|since| now_ms.saturating_sub(since)));
        let rows = tiers.into_iter().zip(lengths).zip(ages);
        Ok::<_, Error>(rows.map(|((tier, length), age)| (tier, length.unwrap_or(0), age)).collect::<Vec<_>>())
    };
    let mut all: BTreeMap<String, LineView> = BTreeMap::new();
    for rows in try_join_all(store.partitions().iter().cloned().map(of_partition)).await? {
        for (tier, length, age) in rows {
            let line = all.entry(tier).or_default();
            line.length += length;
            line.oldest_ms = line.oldest_ms.max(age);
        }
    }
    Ok(all)
}

async fn tiers_by(
    store: &Store,
    rules: &BTreeMap<String, String>,
    names: &[String],
) -> Result<Vec<TierView>, Error> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let lines = lines(store).await?;
    let now_us = store.home().now_ms().await? as f64 * 1_000.0;
    let services = store.services();
    let mut views = Vec::with_capacity(names.len());
    for chunk in names.chunks(CALL_TIERS) {
        let length = |name: &String| lines.get(name).map_or(0, |line| line.length);
        let wanted: Vec<&str> = chunk.iter().map(String::as_str).collect();
        let asked: Vec<Forecast<'_>> =
            chunk.iter().map(|name| Forecast { tier: name, waiting: length(name), unused: 0 }).collect();
        // the outlook lets sums forget what has left their windows: the states are read after it
        let outlooks = services.forecast(Duration::ZERO, false, &asked).await?;
        let states = services.states(&wanted).await?;
        for ((name, outlook), state) in chunk.iter().zip(outlooks).zip(states) {
            let line = lines.get(name).cloned().unwrap_or_default();
            views.push(tier(name, &rules_of(rules, name), state.as_ref(), (&outlook, line), now_us));
        }
    }
    Ok(views)
}

/// The rules that a tier follows.
fn rules_of(rules: &BTreeMap<String, String>, tier: &str) -> TierRules {
    let (exact, any) = template_names(tier);
    let text = rules.get(exact).or_else(|| rules.get(&any?));
    text.and_then(|text| TierRules::parse(text).ok()).unwrap_or_default()
}

fn tier(
    name: &str,
    rules: &TierRules,
    state: Option<&TierState>,
    (outlook, line): (&Outlook, LineView),
    now_us: f64,
) -> TierView {
    let prospect = prospect(rules, state, outlook, line.length);
    let unknown = TierState::default();
    let known = state.unwrap_or(&unknown);
    let now_us = now_us.max(known.seen_us);
    let word = known.word(now_us);
    let breaker =
        rules.breaker.as_ref().map(|breaker_rules| breaker(breaker_rules, known.breaker.as_ref(), now_us));
    let until = match word {
        "paused" => known.paused_until_us.filter(|until| *until >= 0.0).map(ms),
        "open" => breaker.as_ref().and_then(|breaker| breaker.open_until_ms),
        _ => None,
    };
    TierView {
        tier: name.to_owned(),
        state: word.to_owned(),
        state_why: known.pause_reason.clone().filter(|why| word == "paused" && !why.is_empty()),
        state_until_ms: until,
        limits: rules
            .limits
            .iter()
            .enumerate()
            .map(|(at, rule)| limit(rule, known.limit(at), now_us))
            .collect(),
        concurrency: rules
            .concurrency
            .map(|cap| ConcurrencyView { used: whole(known.held.unwrap_or(0.0)), cap }),
        breaker,
        retry_budget: rules.retry_budget.as_ref().map(|rules| budget(rules, known.budget.as_ref())),
        counters: known.counters.all(),
        latency_ms: known.latency_us.map(|us| us / 1_000.0),
        per_second: prospect.per_second,
        line,
        expected_wait_ms: prospect.wait.map(tidemill_runtime::clock::milliseconds),
        bound_by: Some(prospect.why).filter(|why| !why.is_empty()),
    }
}

async fn learned(store: &Store, service: &str) -> Result<Vec<LearnedView>, Error> {
    let all = store.services().learned().await?;
    let rows = all.into_iter().filter_map(|(name, p99)| {
        // names are `<service> <tool> <model> <unit>`
        let mut words = name.split(' ');
        let (of, tool, model, unit) = (words.next()?, words.next()?, words.next()?, words.next()?);
        (of == service).then(|| LearnedView {
            tool: tool.to_owned(),
            model: Some(model.to_owned()).filter(|model| !model.is_empty() && model != "-"),
            unit: unit.to_owned(),
            p99,
        })
    });
    Ok(rows.collect())
}
