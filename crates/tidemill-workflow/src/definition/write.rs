//! A definition back as JSON: what was given, nothing that is only a default.

use serde_json::{Map, Value, json};
use tidemill_protocol::RetryPolicy;

use super::{
    ActionDefinition, CaseDefinition, Definition, FailurePolicy, ForEachDefinition, Join, OnError, Pick,
    StepDefinition, SwitchDefinition,
};

impl Definition {
    /// The definition as JSON; parsing that gives an equal definition.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut out = Object::default();
        out.set("name", Some(self.name.as_str()));
        out.set("version", self.version);
        out.set("description", self.description.as_deref());
        out.set("queue", self.queue.as_deref());
        out.set("timeout_ms", self.timeout_ms);
        out.set("failure", (self.failure != FailurePolicy::default()).then(|| self.failure.as_str()));
        out.set("input", self.input.clone());
        out.set("retention_ms", self.retention_ms);
        out.set("steps", Some(self.steps.iter().map(step).collect::<Vec<_>>()));
        out.set("output", self.output.clone());
        Value::Object(out.0)
    }
}

#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn set(&mut self, name: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.0.insert(name.to_owned(), value.into());
        }
    }
}

fn step(step: &StepDefinition) -> Value {
    let mut out = Object::default();
    out.set("id", Some(step.id.as_str()));
    match &step.action {
        ActionDefinition::Tool { tool, with } => {
            out.set("tool", Some(tool.as_str()));
            out.set("with", (*with != json!({})).then(|| with.clone()));
        }
        ActionDefinition::Switch(choice) => {
            out.set("switch", Some(switch(choice)));
            out.set("match", (choice.pick == Pick::All).then_some("all"));
        }
        _ => {}
    }
    out.set("needs", (!step.needs.is_empty()).then(|| step.needs.clone()));
    out.set("join", join(step.join));
    out.set("when", step.when.clone());
    out.set("for_each", step.for_each.as_ref().map(for_each));
    out.set("retry", (step.retry != RetryPolicy::default()).then(|| retry(&step.retry)));
    out.set("timeout_ms", step.timeout_ms);
    out.set("on_error", (step.on_error == OnError::Continue).then_some("continue"));
    out.set("queue", step.queue.as_deref());
    Value::Object(out.0)
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
