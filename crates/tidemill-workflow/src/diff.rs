//! What differs between two definitions, member by member, and for whom a difference may break something.
//!
//! It compares what was written ([`Definition::to_value`]), so a new member of the language needs no change here.

mod audience;
mod members;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::any_tool::AnyTool;
use crate::definition::Definition;

/// What differs between two definitions; their versions are no difference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diff {
    /// Each difference: those of the workflow itself, then by step, in the order of the definitions.
    pub changes: Vec<Change>,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// The step; none: the workflow itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The member, like `with.order.id` or `needs`; empty for a step as a whole.
    pub path: String,
    /// What happened to it.
    pub kind: ChangeKind,
    /// What stood there before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    /// What stands there since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
    /// For whom it may break something.
    pub breaks: Vec<Audience>,
}

/// What happened to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It has another value.
    Changed,
    /// The same steps or values stand in another order.
    Reordered,
}

/// For whom a difference may break something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    /// Who starts runs: an input that was taken may be refused.
    Callers,
    /// Who reads results: the output may have another form.
    Readers,
    /// Runs under way, if they were to go on with the other definition. (They never do: a run is pinned to its version.)
    Runs,
    /// Workers: a tool or a queue is needed that was not needed before.
    Workers,
}

impl Audience {
    /// The word in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Callers => "callers",
            Self::Readers => "readers",
            Self::Runs => "runs",
            Self::Workers => "workers",
        }
    }
}

impl Diff {
    /// Compares two definitions.
    #[must_use]
    pub fn of(from: &Definition, to: &Definition) -> Self {
        let (old, new) = (Written::of(from), Written::of(to));
        let mut changes = Vec::new();
        members::compare("", &old.rest, &new.rest, &mut changes);
        if !old.has_output() && !new.has_output() {
            changes.extend(last_steps(from, to));
        }
        changes.extend(order(&old, &new));
        for (id, step) in &old.steps {
            match new.step(id) {
                Some(after) => {
                    let start = changes.len();
                    members::compare("", step, after, &mut changes);
                    changes[start..].iter_mut().for_each(|change| change.step = Some(id.clone()));
                }
                None => changes.push(Change::whole(id, ChangeKind::Removed, step)),
            }
        }
        for (id, step) in &new.steps {
            if old.step(id).is_none() {
                changes.push(Change::whole(id, ChangeKind::Added, step));
            }
        }
        for change in &mut changes {
            change.breaks.extend(audience::of(change, &old, &new));
        }
        Self { changes }
    }

    /// Whether there is no difference.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// How many differences may break something for somebody.
    #[must_use]
    pub fn breaking(&self) -> usize {
        self.changes.iter().filter(|change| !change.breaks.is_empty()).count()
    }
}

impl Change {
    fn whole(step: &str, kind: ChangeKind, value: &Map<String, Value>) -> Self {
        let value = Some(Value::Object(value.clone()));
        let (from, to) = if kind == ChangeKind::Removed { (value, None) } else { (None, value) };
        Self { step: Some(step.to_owned()), path: String::new(), kind, from, to, breaks: Vec::new() }
    }
}

/// A definition as it is written, with its steps apart.
struct Written {
    rest: Map<String, Value>,
    steps: Vec<(String, Map<String, Value>)>,
}

impl Written {
    fn of(definition: &Definition) -> Self {
        let mut rest = match definition.to_value() {
            Value::Object(members) => members,
            _ => Map::new(),
        };
        rest.remove("version");
        let steps = match rest.remove("steps") {
            Some(Value::Array(steps)) => steps.into_iter().filter_map(named).collect(),
            _ => Vec::new(),
        };
        Self { rest, steps }
    }

    fn step(&self, id: &str) -> Option<&Map<String, Value>> {
        self.steps.iter().find(|(found, _)| found == id).map(|(_, step)| step)
    }

    fn has_output(&self) -> bool {
        self.rest.contains_key("output")
    }

    /// Whether a step has this value under this member.
    fn uses(&self, member: &str, value: &Value) -> bool {
        self.rest.get(member) == Some(value)
            || self.steps.iter().any(|(_, step)| step.get(member) == Some(value))
    }
}

fn named(step: Value) -> Option<(String, Map<String, Value>)> {
    let Value::Object(mut members) = step else { return None };
    match members.remove("id") {
        Some(Value::String(id)) => Some((id, members)),
        _ => None,
    }
}

/// Without `output` a run gives what its last steps give: other last steps are another output.
fn last_steps(from: &Definition, to: &Definition) -> Option<Change> {
    let ids = |definition: &Definition| -> Option<Vec<Value>> {
        let plan = definition.clone().compile(&AnyTool).ok()?;
        let ids = plan.sinks().iter().filter_map(|sink| plan.step(*sink));
        Some(ids.map(|step| Value::from(&*step.id)).collect())
    };
    let (from, to) = (ids(from)?, ids(to)?);
    (from != to).then(|| Change {
        step: None,
        path: "output".to_owned(),
        kind: ChangeKind::Changed,
        from: Some(from.into()),
        to: Some(to.into()),
        breaks: vec![Audience::Readers],
    })
}

/// Steps that both have, in another order.
fn order(old: &Written, new: &Written) -> Option<Change> {
    let common = |these: &Written, those: &Written| -> Vec<Value> {
        let ids = these.steps.iter().filter(|(id, _)| those.step(id).is_some());
        ids.map(|(id, _)| Value::from(id.as_str())).collect()
    };
    let (from, to) = (common(old, new), common(new, old));
    (from != to).then(|| Change {
        step: None,
        path: "steps".to_owned(),
        kind: ChangeKind::Reordered,
        from: Some(from.into()),
        to: Some(to.into()),
        breaks: Vec::new(),
    })
}
