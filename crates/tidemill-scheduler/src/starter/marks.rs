//! What a workflow says of each of its runs by their input: labels, and the group that it belongs to.

use serde_json::Value;
use tidemill_protocol::Labels;
use tidemill_workflow::{ExprError, Limits, Plan, RunView, Scope, Template};

use super::group::Membership;
use super::request::{Refusal, Request};
use crate::groups;

/// The longest key of a group, in bytes.
const MAX_KEY_BYTES: usize = 256;
/// What one expression may take: it runs beside the starting of other runs.
const FUEL: u64 = 100_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Marks {
    pub(super) labels: Labels,
    pub(super) membership: Option<Membership>,
}

/// What is said of this run. Labels of the request go before those of the workflow.
pub(super) fn of(request: &Request, plan: &Plan, input: &[u8]) -> Result<Marks, Box<Refusal>> {
    let extras = request.job.extras();
    if plan.labels.is_empty() && plan.group.is_none() {
        return Ok(Marks { labels: extras.labels.clone(), membership: None });
    }
    let run = RunView {
        id: &request.id,
        workflow: &plan.name,
        version: plan.version,
        tenant: extras.tenant.as_deref(),
        ..RunView::default()
    };
    let scope = Scope { input, run, ..Scope::default() };
    let mut labels = Labels::default();
    for (name, template) in &plan.labels {
        let value = value_of(template, &scope);
        let value = value.map_err(|error| request.refuse("invalid_labels", error.to_string()))?;
        // what an input does not say is no label
        if value != Value::Null {
            labels
                .insert(name, &value)
                .map_err(|error| request.refuse("invalid_labels", error.to_string()))?;
        }
    }
    for (name, value) in extras.labels.iter() {
        let added = labels.insert(name, &Value::from(value));
        added.map_err(|error| request.refuse("invalid_labels", error.to_string()))?;
    }
    Ok(Marks { labels, membership: membership(request, plan, &scope)? })
}

fn value_of(template: &Template, scope: &Scope<'_>) -> Result<Value, ExprError> {
    let text = template.render(scope, &Limits::default().with_fuel(FUEL))?;
    Ok(serde_json::from_slice(&text).unwrap_or(Value::Null))
}

fn membership(request: &Request, plan: &Plan, scope: &Scope<'_>) -> Result<Option<Membership>, Box<Refusal>> {
    let Some(group) = &plan.group else { return Ok(None) };
    let value = value_of(&group.key, scope);
    let key = match value.map_err(|error| request.refuse("invalid_group", error.to_string()))? {
        Value::Null => return Ok(None),
        Value::String(text) => text,
        other => other.to_string(),
    };
    if key.is_empty() || key.len() > MAX_KEY_BYTES || key.chars().any(char::is_control) {
        let shown: String = key.chars().take(40).collect();
        let reason = format!(
            "the key of the group of workflow {:?} is {shown:?}: it must have 1 to {MAX_KEY_BYTES} bytes and no control characters",
            plan.name
        );
        return Err(request.refuse("invalid_group", reason));
    }
    Ok(Some(Membership {
        name: groups::name_of(&plan.name, &key),
        limit: group.limit.max(1),
        on_full: group.on_full,
        asked: request.asked(),
    }))
}
