//! One step: its members, and which of them go with what it does.

mod action;
mod call;
mod loops;
mod switch;
mod wait;

use serde_json::Value;

pub(super) use self::action::steps;
use super::fields::{Fields, Reader};
use crate::definition::{ActionDefinition, Join, OnError, StepDefinition};
use crate::problem::ProblemCode;
use crate::source::{Kind, Node};

const MEMBERS: &[&str] = &[
    "id",
    "tool",
    "workflow",
    "steps",
    "race",
    "switch",
    "wait",
    "approval",
    "needs",
    "join",
    "when",
    "with",
    "output",
    "detached",
    "for_each",
    "repeat",
    "retry",
    "timeout_ms",
    "on_error",
    "continue_on_error",
    "compensate",
    "queue",
    "match",
];
/// Members that later versions carry out.
const LATER: &[&str] = &["fallback", "cache", "concurrency_key"];
/// Members of something else, and of what.
const ELSEWHERE: &[(&str, &str)] = &[
    ("while", "`repeat`"),
    ("until", "`repeat` or `wait`"),
    ("signal", "`wait`"),
    ("goto", "`on_error`"),
    ("finally", "the workflow"),
    ("of", "`approval`"),
];

/// What a step may do; it does one of these, or calls a tool and then waits.
const ACTIONS: [&str; 7] = ["switch", "tool", "workflow", "steps", "race", "wait", "approval"];

/// Members that have a meaning with some actions only.
const OF_ACTIONS: &[(&str, &[&str])] = &[
    ("with", &["tool", "workflow", "steps"]),
    ("for_each", &["tool", "workflow", "steps"]),
    ("repeat", &["tool", "workflow", "steps"]),
    ("retry", &["tool"]),
    ("timeout_ms", &["tool", "steps"]),
    ("output", &["steps"]),
    ("detached", &["workflow"]),
    ("match", &["switch"]),
    ("compensate", &["tool", "workflow", "steps", "race", "wait", "approval"]),
];

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Among the steps of a workflow or block.
    Ordinary,
    /// In a race.
    Branch,
    /// Among those at the end of a run.
    Closing,
}

impl Role {
    /// Members that it has no use for, and why.
    const fn refused(self) -> (&'static [&'static str], &'static str) {
        match self {
            Self::Ordinary => (&[], ""),
            Self::Branch => (
                &["needs", "join", "when", "on_error", "continue_on_error", "compensate", "switch", "match"],
                "has no meaning in a branch of a race",
            ),
            Self::Closing => (
                &[
                    "needs",
                    "join",
                    "workflow",
                    "steps",
                    "race",
                    "switch",
                    "match",
                    "wait",
                    "approval",
                    "for_each",
                    "repeat",
                    "on_error",
                    "continue_on_error",
                    "compensate",
                ],
                "is not possible in `finally`, whose steps call tools, one by one",
            ),
        }
    }
}

/// Reads a step. One without a valid id is dropped: nothing could name it.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node, role: Role) -> Option<StepDefinition> {
    let fields = reader.object_with(node, MEMBERS, LATER, ELSEWHERE)?;
    let (refused, why) = role.refused();
    reader.refuse(&fields, refused, why);
    let id = reader.required(&fields, "id", Reader::step_id);
    let kind = kind(reader, &fields, role);
    let fields = fields.without(refused);
    if let Some(kind) = kind {
        fitting(reader, &fields, kind);
    }
    let action = action::read(reader, &fields, kind);
    let then_wait = match &action {
        ActionDefinition::Tool { .. } => reader.optional(&fields, "wait", wait::wait),
        _ => None,
    };
    let step = StepDefinition {
        id: id.clone().unwrap_or_default(),
        action,
        needs: reader.optional(&fields, "needs", needs).unwrap_or_default(),
        join: reader.optional(&fields, "join", join).unwrap_or_default(),
        when: reader.optional(&fields, "when", |_, node| Some(node.to_value())),
        for_each: reader.optional(&fields, "for_each", loops::for_each),
        repeat: reader.optional(&fields, "repeat", loops::repeat),
        then_wait,
        retry: reader.optional(&fields, "retry", call::retry).unwrap_or_default(),
        timeout_ms: reader.optional(&fields, "timeout_ms", Reader::milliseconds),
        on_error: on_error(reader, &fields),
        compensate: reader.optional(&fields, "compensate", call::call),
        queue: reader.optional(&fields, "queue", Reader::queue_name),
    };
    combined(reader, &fields);
    id.map(|_| step)
}

/// What the step does; a problem where it does nothing or more than one thing.
fn kind(reader: &mut Reader<'_>, fields: &Fields<'_>, role: Role) -> Option<&'static str> {
    let mut given = ACTIONS.into_iter().filter(|action| fields.has(action));
    let Some(first) = given.next() else {
        let message = match role {
            Role::Ordinary => {
                "`tool` is missing, or another of `workflow`, `steps`, `race`, `switch`, `wait` and `approval`"
            }
            Role::Branch => {
                "`tool` is missing, or another of `workflow`, `steps`, `race`, `wait` and `approval`"
            }
            Role::Closing => "`tool` is missing",
        };
        let elsewhere = LATER.iter().copied().chain(ELSEWHERE.iter().map(|(name, _)| *name));
        // what stands there instead has its own problem
        if !elsewhere.into_iter().any(|name| fields.has(name)) {
            reader.problem(ProblemCode::MissingMember, message.to_owned());
        }
        return None;
    };
    for other in given.filter(|other| (first, *other) != ("tool", "wait")) {
        reader.refuse(
            fields,
            &[other],
            &format!("has no meaning in a step with `{first}`: a step does one thing"),
        );
    }
    Some(first)
}

/// Says which members have no meaning with what the step does.
fn fitting(reader: &mut Reader<'_>, fields: &Fields<'_>, kind: &str) {
    for (name, kinds) in OF_ACTIONS.iter().filter(|(_, kinds)| !kinds.contains(&kind)) {
        let why = match kinds {
            [only] => format!("has no meaning in a step with `{kind}`, only in one with `{only}`"),
            _ => format!("has no meaning in a step with `{kind}`"),
        };
        reader.refuse(fields, &[name], &why);
    }
}

/// Members that each go with the action, and not with each other.
fn combined(reader: &mut Reader<'_>, fields: &Fields<'_>) {
    for (member, other) in [("for_each", "repeat"), ("for_each", "detached"), ("repeat", "detached")] {
        if fields.has(other) {
            let why = format!(
                "and `{other}` exclude each other; put one of them into a block, `steps`, of the other"
            );
            reader.refuse(fields, &[member], &why);
        }
    }
    if fields.has("tool") && fields.has("wait") {
        let why = "does not go with a `tool` and a `wait`; put these two into a block, `steps`";
        reader.refuse(fields, &["for_each", "repeat"], why);
    }
}

/// `on_error`, or `continue_on_error: true`, which says the same as `on_error: continue`.
fn on_error(reader: &mut Reader<'_>, fields: &Fields<'_>) -> OnError {
    let word = reader.optional(fields, "on_error", on_error_word);
    let continues = reader.optional(fields, "continue_on_error", Reader::boolean);
    let meant = continues.map(|yes| if yes { OnError::Continue } else { OnError::Fail });
    match (word, meant) {
        (Some(word), Some(meant)) if word != meant => {
            reader.refuse(fields, &["continue_on_error"], "says otherwise than `on_error`; leave it out");
            word
        }
        (word, meant) => word.or(meant).unwrap_or_default(),
    }
}

fn on_error_word(reader: &mut Reader<'_>, node: &Node) -> Option<OnError> {
    if matches!(node.kind, Kind::Object(_)) {
        let fields = reader.object(node, &["goto"], &[])?;
        return reader.required(&fields, "goto", Reader::step_id).map(OnError::Goto);
    }
    if matches!(&node.kind, Kind::Scalar(Value::String(text)) if text == "goto") {
        reader.bad_value("needs the step to go to: `on_error: { goto: ID }`".to_owned());
        return None;
    }
    match reader.word(node, &["fail", "continue", "compensate"])? {
        "continue" => Some(OnError::Continue),
        "compensate" => Some(OnError::Compensate),
        _ => Some(OnError::Fail),
    }
}

/// Ids of steps, each once.
fn needs(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<String>> {
    let Kind::Array(nodes) = &node.kind else {
        reader.bad_value(format!("must be an array of step ids, not {}", node.kind_name()));
        return None;
    };
    let mut seen = std::collections::HashSet::new();
    let ids = reader.each(nodes, |reader, node| reader.text(node));
    let mut needs = Vec::with_capacity(ids.len());
    for id in ids {
        if seen.insert(id.clone()) {
            needs.push(id);
        } else {
            reader.problem(ProblemCode::BadValue, format!("names `{id}` twice"));
        }
    }
    Some(needs)
}

fn join(reader: &mut Reader<'_>, node: &Node) -> Option<Join> {
    if matches!(node.kind, Kind::Object(_)) {
        let fields = reader.object(node, &["n_of"], &[])?;
        return reader
            .required(&fields, "n_of", |reader, node| reader.small_number(node, 1, 20_000))
            .map(Join::NOf);
    }
    match &node.kind {
        Kind::Scalar(Value::String(_)) => match reader.word(node, &["all", "any"])? {
            "any" => Some(Join::Any),
            _ => Some(Join::All),
        },
        _ => {
            reader.bad_value(format!("must be `all`, `any` or {{ n_of: number }}, not {}", node.kind_name()));
            None
        }
    }
}
