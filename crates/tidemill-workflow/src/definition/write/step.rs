//! A step back as JSON.

use serde_json::{Value, json};
use tidemill_protocol::RetryPolicy;

use super::Object;
use crate::definition::{
    ActionDefinition, ApprovalDefinition, BlockDefinition, CallDefinition, CaseDefinition, ForEachDefinition,
    Join, OnError, Pick, RepeatDefinition, SignalDefinition, StepDefinition, SwitchDefinition,
    WaitDefinition,
};
use crate::plan::{OnTimeout, Tolerance};

pub(super) fn step(step: &StepDefinition) -> Value {
    let mut out = Object::default();
    out.set("id", Some(step.id.as_str()));
    action(&mut out, &step.action);
    out.set("needs", (!step.needs.is_empty()).then(|| step.needs.clone()));
    out.set("join", join(step.join));
    out.set("when", step.when.clone());
    out.set("for_each", step.for_each.as_ref().map(for_each));
    out.set("repeat", step.repeat.as_ref().map(repeat));
    out.set("wait", step.then_wait.as_ref().map(wait));
    out.set("retry", (step.retry != RetryPolicy::default()).then(|| retry(&step.retry)));
    out.set("timeout_ms", step.timeout_ms);
    out.set("on_error", on_error(&step.on_error));
    out.set("compensate", step.compensate.as_ref().map(|undo| Value::Object(call(undo).0)));
    out.set("queue", step.queue.as_deref());
    Value::Object(out.0)
}

fn action(out: &mut Object, action: &ActionDefinition) {
    let given = |with: &Value| (*with != json!({})).then(|| with.clone());
    match action {
        ActionDefinition::Tool { tool, with } => {
            out.set("tool", Some(tool.as_str()));
            out.set("with", given(with));
        }
        ActionDefinition::Switch(choice) => {
            out.set("switch", Some(switch(choice)));
            out.set("match", (choice.pick == Pick::All).then_some("all"));
        }
        ActionDefinition::Workflow { workflow, with, detached } => {
            out.set("workflow", Some(workflow.as_str()));
            out.set("with", given(with));
            out.set("detached", detached.then_some(true));
        }
        ActionDefinition::Steps(BlockDefinition { steps, with, output }) => {
            out.set("steps", Some(steps.iter().map(step).collect::<Vec<_>>()));
            out.set("with", with.clone());
            out.set("output", output.clone());
        }
        ActionDefinition::Race(branches) => {
            out.set("race", Some(branches.iter().map(step).collect::<Vec<_>>()));
        }
        ActionDefinition::Wait(waits) => out.set("wait", Some(wait(waits))),
        ActionDefinition::Approval(asks) => out.set("approval", Some(approval(asks))),
    }
}

fn on_error(on_error: &OnError) -> Option<Value> {
    match on_error {
        OnError::Fail => None,
        OnError::Continue => Some("continue".into()),
        OnError::Compensate => Some("compensate".into()),
        OnError::Goto(step) => Some(json!({ "goto": step })),
    }
}

fn call(call: &CallDefinition) -> Object {
    let mut out = Object::default();
    out.set("tool", Some(call.tool.as_str()));
    out.set("with", (call.with != json!({})).then(|| call.with.clone()));
    out.set("retry", (call.retry != RetryPolicy::default()).then(|| retry(&call.retry)));
    out.set("timeout_ms", call.timeout_ms);
    out
}

fn switch(switch: &SwitchDefinition) -> Vec<Value> {
    let case = |case: &CaseDefinition| json!({ "when": case.when, "then": case.then });
    let default = switch.default.iter().map(|ids| json!({ "default": ids }));
    switch.cases.iter().map(case).chain(default).collect()
}

fn join(join: Join) -> Option<Value> {
    match join {
        Join::All => None,
        Join::Any => Some("any".into()),
        Join::NOf(n) => Some(json!({ "n_of": n })),
    }
}

fn for_each(for_each: &ForEachDefinition) -> Value {
    let mut out = Object::default();
    out.set("items", Some(for_each.items.clone()));
    out.set("concurrency", for_each.concurrency);
    out.set("batch", for_each.batch);
    out.set(
        "tolerate",
        for_each.tolerate.map(|tolerate| match tolerate {
            Tolerance::Count(count) => Value::from(count),
            Tolerance::Percent(percent) => Value::from(format!("{percent}%")),
        }),
    );
    Value::Object(out.0)
}

fn repeat(repeat: &RepeatDefinition) -> Value {
    let mut out = Object::default();
    out.set("while", repeat.while_.clone());
    out.set("until", repeat.until.clone());
    out.set("max_iterations", repeat.max_iterations);
    out.set("every_ms", repeat.every_ms);
    out.set("on_exhausted", repeat.continue_when_exhausted.then_some("continue"));
    Value::Object(out.0)
}

fn wait(wait: &WaitDefinition) -> Value {
    let mut out = Object::default();
    match wait {
        WaitDefinition::For(ms) => out.set("for_ms", Some(ms.clone())),
        WaitDefinition::Until { at, time_zone } => {
            out.set("until", Some(at.clone()));
            out.set("time_zone", time_zone.as_deref());
        }
        WaitDefinition::Signal(SignalDefinition { name, schema, timeout_ms, continue_on_timeout }) => {
            out.set("signal", Some(name.as_str()));
            out.set("schema", schema.clone());
            out.set("timeout_ms", *timeout_ms);
            out.set("on_timeout", continue_on_timeout.then_some("continue"));
        }
    }
    Value::Object(out.0)
}

fn approval(approval: &ApprovalDefinition) -> Value {
    let mut out = Object::default();
    out.set("of", approval.of.as_deref());
    out.set("who", (!approval.who.is_empty()).then(|| approval.who.clone()));
    out.set("prompt", approval.prompt.clone());
    out.set(
        "remind",
        approval.remind.as_ref().map(|remind| {
            let mut out = call(&remind.call);
            out.set("every_ms", Some(remind.every_ms));
            Value::Object(out.0)
        }),
    );
    out.set("timeout_ms", approval.timeout_ms);
    let on_timeout = approval.on_timeout;
    out.set("on_timeout", (on_timeout != OnTimeout::default()).then(|| on_timeout.as_str()));
    out.set("max_iterations", approval.max_iterations);
    out.set("on_reject", approval.on_reject.map(|on_reject| on_reject.as_str()));
    Value::Object(out.0)
}

fn retry(retry: &RetryPolicy) -> Value {
    let mut out = Object::default();
    out.set("max_attempts", retry.max_attempts);
    out.set("base_ms", retry.base_ms);
    out.set("max_ms", retry.max_ms);
    out.set("max_elapsed_ms", retry.max_elapsed_ms);
    out.set(
        "on",
        retry.on.as_ref().map(|on| on.iter().map(|class| Value::from(class.as_str())).collect::<Vec<_>>()),
    );
    Value::Object(out.0)
}
