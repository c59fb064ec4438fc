//! A definition back as JSON: what was given, nothing that is only a default.

mod step;

use serde_json::{Map, Value};

use self::step::step;
use super::{Definition, FailurePolicy, GroupDefinition};
use crate::plan::{Budget, OnFull};

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
        out.set(
            "finally",
            (!self.finally.is_empty()).then(|| self.finally.iter().map(step).collect::<Vec<_>>()),
        );
        let labels = || self.labels.iter().cloned().collect::<Map<_, _>>();
        out.set("labels", (!self.labels.is_empty()).then(labels));
        out.set("group", self.group.as_ref().map(group));
        out.set("budget", self.budget.map(budget));
        out.set("mode", self.mode.as_deref());
        Value::Object(out.0)
    }
}

#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    /// Adds a member, if there is one.
    fn set(&mut self, name: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.0.insert(name.to_owned(), value.into());
        }
    }
}

fn group(group: &GroupDefinition) -> Value {
    let mut out = Object::default();
    out.set("key", Some(group.key.clone()));
    out.set("limit", Some(group.limit));
    out.set("on_full", (group.on_full != OnFull::default()).then(|| group.on_full.as_str()));
    Value::Object(out.0)
}

fn budget(budget: Budget) -> Value {
    let mut out = Object::default();
    out.set("steps", budget.steps);
    #[expect(clippy::cast_precision_loss, reason = "at most 1e15, which a float holds exactly")]
    out.set("cost", budget.cost_micros.map(|micros| micros as f64 / 1e6));
    out.set("duration_ms", budget.duration_ms);
    Value::Object(out.0)
}
