//! For whom a difference may break something. When in doubt it may.

use serde_json::Value;

use super::{Audience, Change, ChangeKind, Written};

/// Members of a step that decide when it runs and what its record means.
const STRUCTURE: [&str; 5] = ["needs", "join", "for_each", "switch", "match"];
/// Members of a schema that only tell people something.
const REMARKS: [&str; 6] = ["title", "description", "default", "examples", "deprecated", "$comment"];

pub(super) fn of(change: &Change, old: &Written, new: &Written) -> Vec<Audience> {
    let head = head_of(&change.path);
    let Some(_) = &change.step else {
        return match head {
            "input" if narrows(change) => vec![Audience::Callers],
            "output" if change.breaks.is_empty() => vec![Audience::Readers],
            "queue" => needs_queue(change.to.as_ref(), old).collect(),
            _ => Vec::new(),
        };
    };
    if change.path.is_empty() {
        return whole_step(change, old);
    }
    let mut breaks = Vec::new();
    // items may run otherwise wide; that there are items at all is what counts
    let inside_items = change.path.starts_with("for_each.");
    if STRUCTURE.contains(&head) && change.kind != ChangeKind::Reordered && !inside_items {
        breaks.push(Audience::Runs);
    }
    match head {
        "tool" => breaks.extend(needs_tool(change.to.as_ref(), old)),
        "queue" => breaks.extend(needs_queue(change.to.as_ref(), old)),
        _ => {}
    }
    if gives_other_output(change, new) {
        breaks.push(Audience::Readers);
    }
    breaks
}

fn whole_step(change: &Change, old: &Written) -> Vec<Audience> {
    if change.kind == ChangeKind::Removed {
        return vec![Audience::Runs];
    }
    let member = |name: &str| change.to.as_ref().and_then(|step| step.get(name));
    let mut breaks: Vec<Audience> =
        needs_tool(member("tool"), old).chain(needs_queue(member("queue"), old)).collect();
    breaks.dedup();
    breaks
}

fn needs_tool(tool: Option<&Value>, old: &Written) -> impl Iterator<Item = Audience> {
    tool.filter(|tool| !old.uses("tool", tool)).map(|_| Audience::Workers).into_iter()
}

fn needs_queue(queue: Option<&Value>, old: &Written) -> impl Iterator<Item = Audience> {
    let is_new = |queue: &&Value| *queue != "default" && !old.uses("queue", queue);
    queue.filter(is_new).map(|_| Audience::Workers).into_iter()
}

/// A step that becomes many, or one instead of many, gives an array or does not; without an `output` that may be what a run gives.
fn gives_other_output(change: &Change, new: &Written) -> bool {
    change.path == "for_each" && !new.has_output()
}

/// Whether an input that was taken may be refused since.
fn narrows(change: &Change) -> bool {
    let last = change.path.rsplit('.').next().unwrap_or_default();
    let holder = change.path.rsplit('.').nth(1);
    // a property may have any of these names
    let is_keyword = holder != Some("properties");
    if is_keyword && REMARKS.contains(&last) {
        return false;
    }
    let number = |value: &Option<Value>| value.as_ref().and_then(Value::as_f64);
    let (from, to) = (number(&change.from), number(&change.to));
    match (last, change.kind) {
        ("input", ChangeKind::Removed) | (_, ChangeKind::Reordered) => false,
        ("required", kind) if is_keyword => kind != ChangeKind::Removed || is_list(change.to.as_ref()),
        ("enum", kind) if is_keyword => kind != ChangeKind::Added || is_list(change.to.as_ref()),
        (_, ChangeKind::Added) if holder == Some("properties") => false,
        (name, ChangeKind::Removed) if is_keyword => !is_bound(name) && name != "pattern" && name != "format",
        (name, ChangeKind::Changed) if is_keyword && name.starts_with("min") => to >= from,
        (name, ChangeKind::Changed) if is_keyword && name.starts_with("max") => to <= from,
        _ => true,
    }
}

fn is_bound(name: &str) -> bool {
    ["min", "max", "exclusiveM"].iter().any(|prefix| name.starts_with(prefix)) || name == "multipleOf"
}

fn is_list(value: Option<&Value>) -> bool {
    value.is_some_and(Value::is_array)
}

fn head_of(path: &str) -> &str {
    path.split(['.', '[']).next().unwrap_or(path)
}
