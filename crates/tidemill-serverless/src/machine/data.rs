//! Data flow: what expressions see, and what they make.

use serde_json::{Value, json};
use tidemill_workflow::{BoundFilter, Schema};

use super::memory::{Doing, Frame, ThreadId};
use super::{Machine, Stop, expression_stop};
use crate::document::{Action, Task, Transform};
use crate::duration::iso_time;
use crate::dynamic::{Dynamic, View};
use crate::fault::{Fault, Standard};

/// Where an expression stands.
pub(super) struct Spot<'s> {
    pub(super) thread: ThreadId,
    pub(super) task: &'s Task,
    /// `.`
    pub(super) dot: &'s Value,
    pub(super) raw: &'s Value,
    pub(super) input: &'s Value,
    /// Raw and transformed, once there is one.
    pub(super) output: Option<(&'s Value, Option<&'s Value>)>,
    pub(super) started_ms: u64,
    /// Variables of its own.
    pub(super) local: &'s [(&'s str, &'s Value)],
}

impl<'s> Spot<'s> {
    /// In the definition of a task under way, on its input.
    pub(super) fn within(thread: ThreadId, task: &'s Task, frame: &'s Frame) -> Self {
        Self {
            thread,
            task,
            dot: frame.input(),
            raw: &frame.raw,
            input: frame.input(),
            output: None,
            started_ms: frame.started_ms,
            local: &[],
        }
    }
}

impl Machine<'_> {
    pub(super) fn evaluate(&self, dynamic: &Dynamic, spot: &Spot<'_>) -> Result<Value, Stop> {
        let variable = |name: &str| self.variable(name, spot);
        let view = View { dot: spot.dot, variable: &variable, limits: self.moment.limits };
        dynamic.evaluate(&view).map_err(|error| expression_stop(error, &spot.task.reference))
    }

    pub(super) fn filter(&self, filter: &BoundFilter, spot: &Spot<'_>) -> Result<Value, Stop> {
        let variable = |name: &str| self.variable(name, spot);
        let view = View { dot: spot.dot, variable: &variable, limits: self.moment.limits };
        view.run(filter).map_err(|error| expression_stop(error, &spot.task.reference))
    }

    pub(super) fn decide(&self, filter: &BoundFilter, spot: &Spot<'_>) -> Result<bool, Stop> {
        let variable = |name: &str| self.variable(name, spot);
        let view = View { dot: spot.dot, variable: &variable, limits: self.moment.limits };
        view.decide(filter).map_err(|error| expression_stop(error, &spot.task.reference))
    }

    /// Makes a value as `transform` says; `None` where it makes nothing.
    pub(super) fn made(&self, transform: &Transform, spot: &Spot<'_>) -> Result<Option<Value>, Stop> {
        transform.make.as_ref().map(|make| self.evaluate(make, spot)).transpose()
    }

    fn variable(&self, name: &str, spot: &Spot<'_>) -> Value {
        if let Some((_, value)) = spot.local.iter().find(|(known, _)| *known == name) {
            return (*value).clone();
        }
        match name {
            "context" => self.memory.context.clone(),
            "input" => spot.input.clone(),
            "output" => spot.output.and_then(|(_, made)| made).cloned().unwrap_or_default(),
            "task" => self.task_value(spot),
            "workflow" => self.workflow_value(),
            "runtime" => json!({
                "name": "tidemill",
                "version": env!("CARGO_PKG_VERSION"),
                "metadata": { "tenant": self.moment.scope.run.tenant },
            }),
            _ => self.scoped(name, spot.thread),
        }
    }

    /// The variable of the innermost loop, listener or handler that has it.
    fn scoped(&self, name: &str, thread: ThreadId) -> Value {
        for frame in self.memory.around(thread) {
            let Some(task) = self.task(frame.task) else { continue };
            match (&task.action, &frame.doing) {
                (Action::For(repeated), Doing::For { items, index, .. }) => {
                    if repeated.each == name {
                        return items.get(*index).cloned().unwrap_or_default();
                    }
                    if repeated.at == name {
                        return (*index).into();
                    }
                }
                (Action::Try(attempt), Doing::Catch { error, .. }) if attempt.name == name => {
                    return error.to_value();
                }
                (Action::Listen(listen), Doing::Listen(listening)) => {
                    let Some((each, (_, event))) = listen.each.as_ref().zip(listening.at.as_ref()) else {
                        continue;
                    };
                    if each.item == name {
                        return event.clone();
                    }
                    if each.at == name {
                        return listening.taken.len().into();
                    }
                }
                _ => {}
            }
        }
        Value::Null
    }

    fn task_value(&self, spot: &Spot<'_>) -> Value {
        let definition = self.document.definition.pointer(&spot.task.reference).cloned().unwrap_or_default();
        json!({
            "name": spot.task.name,
            "reference": spot.task.reference,
            "definition": definition,
            "input": spot.raw,
            "output": spot.output.map(|(raw, _)| raw),
            "startedAt": time_value(spot.started_ms),
        })
    }

    fn workflow_value(&self) -> Value {
        json!({
            "id": self.moment.scope.run.id,
            "definition": self.document.definition,
            "input": self.input,
            "startedAt": time_value(self.memory.started_ms),
        })
    }
}

fn time_value(at_ms: u64) -> Value {
    json!({ "iso8601": iso_time(at_ms), "epoch": { "seconds": at_ms / 1000, "milliseconds": at_ms } })
}

/// Checks a value against a schema; `what` names it.
pub(super) fn check(schema: Option<&Schema>, value: &Value, (task, what): (&Task, &str)) -> Result<(), Stop> {
    let Some(Err(violations)) = schema.map(|schema| schema.check(value)) else { return Ok(()) };
    let detail = format!("the {what} does not fit its schema: {}", violations.join("; "));
    Err(Fault::standard(Standard::Validation, &task.reference, detail).into())
}
