//! What a call really used: told by its tool, or read from its answer.

use std::sync::Arc;

use tidemill_policy::usage::{self, Shape};
use tidemill_protocol::Payload;
use tidemill_tool::Observed;
use tidemill_workflow::Limits;

use super::need::Need;

/// Steps of jq for one expression over an output.
const FUEL: u64 = 200_000;

/// What a call used, by the units that it was admitted for.
pub(crate) fn used(need: &Need, output: Option<&Payload>, observed: &Observed) -> Vec<(Arc<str>, f64)> {
    let wanted: Vec<&Arc<str>> =
        need.amounts.iter().map(|(unit, _)| unit).filter(|unit| &***unit != "requests").collect();
    if wanted.is_empty() {
        return Vec::new();
    }
    let mut known: Vec<(Arc<str>, f64)> = Vec::new();
    let mut add = |unit: &str, amount: f64| {
        if let Some(unit) = wanted.iter().find(|wanted| ****wanted == *unit)
            && amount.is_finite()
            && amount >= 0.0
            && !known.iter().any(|(other, _)| other == *unit)
        {
            known.push((Arc::clone(unit), amount));
        }
    };
    for (unit, amount) in &observed.used {
        add(unit, *amount);
    }
    let (Some(service), Some(output)) = (&need.service, output) else { return known };
    let Ok(json) = output.clone().into_json().map(Payload::into_bytes) else { return known };
    let limits = Limits { fuel: FUEL, output_bytes: 4096, ..Limits::default() };
    for (unit, filter) in &service.usage {
        if let Ok(text) = filter.run(&json, &limits)
            && let Ok(amount) = serde_json::from_slice::<f64>(&text)
        {
            add(unit, amount);
        }
    }
    let Some(shape) = Shape::of(&service.definition.usage) else { return known };
    for (unit, amount) in usage::read(&json, shape) {
        add(unit, amount);
    }
    known
}
