//! What a call has to be admitted for: its tiers and what it will use of them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tidemill_policy::service::{Scope, Tier, clean};
use tidemill_protocol::Payload;
use tidemill_workflow::Limits;

use super::learned::Learned;
use super::snapshot::{ServiceFacts, Snapshot};
use crate::assignment::Assignment;

/// A wanted call.
#[derive(Debug, Clone)]
pub(crate) struct Need {
    pub(crate) service: Option<Arc<ServiceFacts>>,
    pub(crate) tool: Arc<str>,
    pub(crate) model: Option<Arc<str>>,
    pub(crate) id: Arc<str>,
    pub(crate) tiers: Arc<[Tier]>,
    /// Whether it has a ticket, by tier.
    pub(crate) tickets: Vec<bool>,
    /// What it is taken to use, by unit.
    pub(crate) amounts: Vec<(Arc<str>, f64)>,
    pub(crate) is_retry: bool,
    pub(crate) patience: Duration,
    /// How old its grant may be when it begins.
    pub(crate) fresh_for: Option<Duration>,
    /// How often its grants were too old.
    pub(crate) stale_grants: u32,
}

/// Without a service, a call waits so long in the worker before it goes into a line.
const PATIENCE: Duration = Duration::from_millis(50);
/// Steps of jq that are spent on the expressions of a service: they run where jobs are started.
const FUEL: u64 = 100_000;
const REQUESTS: &str = "requests";

impl Need {
    pub(super) fn of(snapshot: &Snapshot, learned: &Learned, assignment: &Assignment) -> Option<Self> {
        let (tool, named) = (&assignment.target.name, assignment.target.service.as_deref());
        if !snapshot.catalog.affects(tool, named) {
            return None;
        }
        let service = snapshot.service_of(tool, named);
        let input = &assignment.call.input;
        let facts = service.as_deref();
        let told = Told::of(facts, input);
        let (model, credential) = (told.text("model"), told.text("credential"));
        let user =
            told.text("user").or_else(|| assignment.standing.as_ref()?.user.as_deref().map(str::to_owned));
        let tiers: Arc<[Tier]> = snapshot
            .catalog
            .tiers(&Scope {
                tool,
                service: facts.map(|facts| &*facts.name),
                tenant: assignment.call.context.tenant.as_deref(),
                user: user.as_deref(),
                model: model.as_deref(),
                credential: credential.as_deref(),
            })
            .into();
        if tiers.is_empty() {
            return None;
        }
        // as in the tier's name: what is learned of it has a name, too
        let model: Option<Arc<str>> = model.map(|model| Arc::from(&*clean(&model)));
        let amounts = amounts_of(snapshot, (learned, facts), (tool, model.as_deref()), (&tiers, &told));
        let held = assignment.standing.as_ref().map_or(&[][..], |standing| &standing.tickets);
        let tickets = tiers.iter().map(|tier| held.iter().any(|ticket| **ticket == *tier.name)).collect();
        let fresh = tiers.iter().filter_map(|tier| snapshot.template(&tier.template)?.fresh_for).min();
        Some(Self {
            tool: Arc::clone(tool),
            model,
            id: Arc::clone(&assignment.call.context.id),
            tickets,
            amounts,
            is_retry: assignment.attempt > 1 && !assignment.is_fallback(),
            patience: facts.map_or(PATIENCE, |facts| Duration::from_millis(facts.definition.patience_ms)),
            fresh_for: fresh,
            tiers,
            service,
            stale_grants: 0,
        })
    }

    /// The service's own tier.
    pub(crate) fn own_tier(&self) -> Option<usize> {
        let service = self.service.as_ref()?;
        self.tiers.iter().position(|tier| tier.name == service.name)
    }

    /// The tier that a service means when it asks to wait: that of the credential or the model, if there is one.
    pub(crate) fn told_tier(&self) -> Option<usize> {
        let narrow = |tier: &Tier| tier.name.contains("/credential:") || tier.name.contains("/model:");
        self.tiers.iter().rposition(narrow).or_else(|| self.own_tier())
    }

    /// The service's name for metrics; a call without one is limited by the pool's own scopes.
    pub(crate) fn service_name(&self) -> &str {
        self.service.as_ref().map_or("@pool", |service| &service.name)
    }
}

/// What an input says about its call.
#[derive(Default)]
struct Told(serde_json::Map<String, Value>);

impl Told {
    fn of(facts: Option<&ServiceFacts>, input: &Payload) -> Self {
        let asked = || {
            let filter = facts?.asked.as_ref()?;
            let json = input.clone().into_json().ok()?.into_bytes();
            let limits = Limits { fuel: FUEL, output_bytes: 16 * 1024, ..Limits::default() };
            let output = filter.run(&json, &limits).inspect_err(|error| {
                tracing::debug!(%error, "the expressions of a service give nothing for this input");
            });
            serde_json::from_slice(&output.ok()?).ok().map(Self)
        };
        asked().unwrap_or_default()
    }

    fn text(&self, what: &str) -> Option<String> {
        match self.0.get(what)? {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    fn amount(&self, unit: &str) -> Option<f64> {
        let amount = self.0.iter().find(|(name, _)| name.strip_prefix(':') == Some(unit))?.1.as_f64()?;
        Some(amount).filter(|amount| amount.is_finite() && *amount >= 0.0)
    }
}

fn amounts_of(
    snapshot: &Snapshot,
    (learned, facts): (&Learned, Option<&ServiceFacts>),
    (tool, model): (&str, Option<&str>),
    (tiers, told): (&[Tier], &Told),
) -> Vec<(Arc<str>, f64)> {
    let mut amounts: Vec<(Arc<str>, f64)> = Vec::with_capacity(2);
    for tier in tiers {
        let Some(template) = snapshot.template(&tier.template) else { continue };
        if template.has_requests && !amounts.iter().any(|(unit, _)| &**unit == REQUESTS) {
            amounts.push((Arc::from(REQUESTS), 1.0));
        }
        for unit in &template.units {
            if !amounts.iter().any(|(known, _)| known == unit) {
                let declared =
                    told.amount(unit).or_else(|| facts.and_then(|facts| facts.fixed.get(&**unit).copied()));
                let service = facts.map_or("@pool", |facts| &facts.name);
                let amount = declared
                    .or_else(|| learned.usual((service, tool, model), unit))
                    .unwrap_or_else(|| first(facts, unit));
                amounts.push((Arc::clone(unit), amount));
            }
        }
    }
    amounts
}

#[expect(clippy::cast_precision_loss, reason = "amounts are small beside 2^52")]
fn first(facts: Option<&ServiceFacts>, unit: &str) -> f64 {
    facts.map_or(1.0, |facts| facts.definition.first_estimate(unit) as f64)
}
