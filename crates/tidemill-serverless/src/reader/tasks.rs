//! Lists of tasks, and what all tasks have.

use tidemill_workflow::source::{Kind, Node};
use tidemill_workflow::{ProblemCode, nearest};

use super::fields::{Fields, MAX_MS, Reader};
use super::{TASK_VARIABLES, calls, data, events, processes, tries};
use crate::document::{Action, Case, Flow, Loop, Task, TaskId};
use crate::duration::iso_ms;

/// Members of every task.
const COMMON: &[&str] = &["if", "input", "output", "export", "timeout", "then", "metadata"];
/// What tells what a task does, with its further members. `for` goes before `do`.
const KINDS: &[(&str, &[&str])] = &[
    ("call", &["with"]),
    ("for", &["while", "do"]),
    ("fork", &[]),
    ("do", &[]),
    ("set", &[]),
    ("switch", &[]),
    ("raise", &[]),
    ("try", &["catch"]),
    ("wait", &[]),
    ("emit", &[]),
    ("listen", &["foreach"]),
    ("run", &[]),
];

/// A list of tasks that come one after another.
pub(super) fn list(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<TaskId>> {
    let names = names(reader, node)?;
    let outer = std::mem::replace(&mut reader.siblings, names);
    let tasks = each(reader, node);
    reader.siblings = outer;
    Some(tasks)
}

/// A list of tasks that run side by side: `then` leads nowhere in it.
fn branches(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<TaskId>> {
    names(reader, node)?;
    let outer = std::mem::take(&mut reader.siblings);
    let tasks = each(reader, node);
    reader.siblings = outer;
    Some(tasks)
}

fn each(reader: &mut Reader<'_>, node: &Node) -> Vec<TaskId> {
    let Kind::Array(nodes) = &node.kind else { return Vec::new() };
    let mut tasks = Vec::with_capacity(nodes.len());
    for (at, node) in nodes.iter().enumerate() {
        let Kind::Object(members) = &node.kind else { continue };
        let Some(member) = members.first() else { continue };
        let id = reader.inside_at(at, |reader| {
            reader.inside(&member.name, |reader| {
                reader.add_task(|reader, _| task(reader, &member.name, &member.value))
            })
        });
        tasks.push(id);
    }
    tasks
}

/// The names of a list's tasks, each an object with one member.
fn names(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<String>> {
    let nodes = reader.array(node)?;
    if nodes.is_empty() {
        reader.bad_value("must hold at least one task".to_owned());
    }
    let mut names: Vec<String> = Vec::with_capacity(nodes.len());
    for (at, node) in nodes.iter().enumerate() {
        reader.inside_at(at, |reader| match &node.kind {
            Kind::Object(members) if members.len() == 1 => {
                let name = members.first().map(|member| member.name.clone()).unwrap_or_default();
                if names.contains(&name) {
                    let message = format!("another task of this list has the name `{name}` already");
                    reader.problem(ProblemCode::DuplicateId, message);
                }
                names.push(name);
            }
            Kind::Object(members) => {
                let message = format!("must name one task, `- name: {{ … }}`, not {}", members.len());
                reader.bad_value(message);
            }
            _ => reader.bad_value(format!("must be a task, `- name: {{ … }}`, not {}", node.kind_name())),
        });
    }
    Some(names)
}

/// A task.
pub(super) fn task(reader: &mut Reader<'_>, name: &str, node: &Node) -> Option<Task> {
    let kind = KINDS.iter().find(|(kind, _)| node.member(kind).is_some());
    let Some((kind, members)) = kind else {
        if let Kind::Object(members) = &node.kind {
            let words = KINDS.iter().map(|(kind, _)| *kind);
            let near = members.iter().find_map(|member| nearest(&member.name, words.clone()));
            let hint = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            let all: Vec<&str> = words.clone().collect();
            reader.problem(
                ProblemCode::MissingMember,
                format!("does nothing; a task has one of {}{hint}", all.join(", ")),
            );
        } else {
            reader.bad_value(format!("must be an object, not {}", node.kind_name()));
        }
        return None;
    };
    let known: Vec<&str> =
        [*kind].into_iter().chain(members.iter().copied()).chain(COMMON.iter().copied()).collect();
    let fields = reader.object(node, &known, &[])?;
    reader.optional(&fields, "metadata", |reader, node| reader.any_object(node));
    let task = Task {
        name: name.to_owned(),
        reference: reader.pointer(),
        condition: reader.optional(&fields, "if", |reader, node| reader.expression(node, TASK_VARIABLES)),
        input: reader
            .optional(&fields, "input", |reader, node| {
                data::transform(reader, node, "from", &["context", "task", "workflow", "runtime"])
            })
            .unwrap_or_default(),
        output: reader
            .optional(&fields, "output", |reader, node| data::transform(reader, node, "as", TASK_VARIABLES))
            .unwrap_or_default(),
        export: reader.optional(&fields, "export", data::export).unwrap_or_default(),
        timeout_ms: reader.optional(&fields, "timeout", data::timeout),
        then: reader.optional(&fields, "then", flow).unwrap_or_default(),
        action: action(reader, kind, name, &fields)?,
    };
    Some(task)
}

fn action(reader: &mut Reader<'_>, kind: &str, name: &str, fields: &Fields<'_>) -> Option<Action> {
    match kind {
        "call" => calls::call(reader, name, fields),
        "for" => repeated(reader, fields),
        "fork" => reader.required(fields, "fork", fork),
        "do" => reader.required(fields, "do", list).map(Action::Do),
        "set" => reader.required(fields, "set", set),
        "switch" => reader.required(fields, "switch", cases).map(Action::Switch),
        "raise" => reader.required(fields, "raise", tries::raise),
        "try" => tries::attempt(reader, fields),
        "wait" => {
            let wait_ms = reader.required(fields, "wait", duration)?;
            Some(Action::Wait { wait_ms })
        }
        "emit" => reader.required(fields, "emit", events::emit),
        "listen" => events::listen(reader, fields),
        _ => reader.required(fields, "run", |reader, node| processes::run(reader, name, node)),
    }
}

/// A flow directive.
fn flow(reader: &mut Reader<'_>, node: &Node) -> Option<Flow> {
    let text = reader.text(node)?;
    match text.as_str() {
        "continue" => Some(Flow::Continue),
        "exit" => Some(Flow::Exit),
        "end" => Some(Flow::End),
        name => {
            if let Some(at) = reader.siblings.iter().position(|sibling| sibling == name) {
                return Some(Flow::To(at));
            }
            let words = reader.siblings.iter().map(String::as_str).chain(["continue", "exit", "end"]);
            let hint =
                nearest(name, words).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            let message = format!(
                "there is no task `{name}` in this list; a flow directive cannot leave its list{hint}"
            );
            reader.problem(ProblemCode::UnknownStepReference, message);
            None
        }
    }
}

/// A duration, as an object or as ISO 8601 text, in milliseconds.
pub(super) fn duration(reader: &mut Reader<'_>, node: &Node) -> Option<u64> {
    const UNITS: [(&str, u64); 5] = [
        ("days", 86_400_000),
        ("hours", 3_600_000),
        ("minutes", 60_000),
        ("seconds", 1000),
        ("milliseconds", 1),
    ];
    let total = if let Kind::Object(members) = &node.kind {
        let fields = reader.object(node, &UNITS.map(|(unit, _)| unit), &[])?;
        if members.is_empty() {
            reader.bad_value(
                "must hold at least one of days, hours, minutes, seconds, milliseconds".to_owned(),
            );
        }
        let mut total = 0_u64;
        for (unit, unit_ms) in UNITS {
            let count =
                reader.optional(&fields, unit, |reader, node| reader.number(node, MAX_MS)).unwrap_or(0);
            total = total.saturating_add(count.saturating_mul(unit_ms));
        }
        total
    } else {
        let text = reader.text(node)?;
        iso_ms(&text).map_err(|message| reader.bad_value(message)).ok()?
    };
    if total > MAX_MS {
        reader.bad_value(format!("is longer than {MAX_MS} milliseconds"));
        return None;
    }
    Some(total)
}

fn set(reader: &mut Reader<'_>, node: &Node) -> Option<Action> {
    match &node.kind {
        Kind::Object(_) => {}
        Kind::Scalar(serde_json::Value::String(text)) if text.trim_start().starts_with("${") => {}
        _ => {
            reader.bad_value(format!("must be an object or an expression, not {}", node.kind_name()));
            return None;
        }
    }
    reader.template(node, TASK_VARIABLES).map(Action::Set)
}

fn cases(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<Case>> {
    let nodes = reader.array(node)?;
    if nodes.is_empty() {
        reader.bad_value("must hold at least one case".to_owned());
    }
    let mut cases = Vec::with_capacity(nodes.len());
    let mut defaults = 0;
    for (at, node) in nodes.iter().enumerate() {
        reader.inside_at(at, |reader| {
            let case = case(reader, node)?;
            defaults += usize::from(case.when.is_none());
            if defaults > 1 && case.when.is_none() {
                reader.bad_value("is a second case without `when`; only one can be the default".to_owned());
            }
            cases.push(case);
            Some(())
        });
    }
    Some(cases)
}

fn case(reader: &mut Reader<'_>, node: &Node) -> Option<Case> {
    let Kind::Object(members) = &node.kind else {
        reader
            .bad_value(format!("must be a case, `- name: {{ when: …, then: … }}`, not {}", node.kind_name()));
        return None;
    };
    let [member] = members.as_slice() else {
        reader.bad_value(format!("must name one case, not {}", members.len()));
        return None;
    };
    reader.inside(&member.name, |reader| {
        let fields = reader.object(&member.value, &["when", "then"], &[])?;
        let had = fields.has("when");
        let when = reader.optional(&fields, "when", |reader, node| reader.expression(node, TASK_VARIABLES));
        let then = reader.required(&fields, "then", flow)?;
        // a condition that does not compile must not make a default of its case
        (when.is_some() == had).then_some(Case { when, then })
    })
}

fn repeated(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<Action> {
    let (each, at, items) = reader.required(fields, "for", |reader, node| {
        let fields = reader.object(node, &["each", "in", "at"], &[])?;
        let each = reader.optional(&fields, "each", Reader::variable).unwrap_or_else(|| "item".to_owned());
        let at = reader.optional(&fields, "at", Reader::variable).unwrap_or_else(|| "index".to_owned());
        let items = reader.required(&fields, "in", |reader, node| reader.expression(node, TASK_VARIABLES))?;
        Some((each, at, items))
    })?;
    let (while_, tasks) = reader.with_local(&[&each, &at], |reader| {
        let while_ = reader.optional(fields, "while", |reader, node| reader.expression(node, TASK_VARIABLES));
        (while_, reader.required(fields, "do", list))
    });
    Some(Action::For(Box::new(Loop { each, at, items, while_, tasks: tasks? })))
}

fn fork(reader: &mut Reader<'_>, node: &Node) -> Option<Action> {
    let fields = reader.object(node, &["branches", "compete"], &[])?;
    let branches = reader.required(&fields, "branches", branches)?;
    let compete = reader.optional(&fields, "compete", Reader::boolean).unwrap_or(false);
    Some(Action::Fork { branches, compete })
}
