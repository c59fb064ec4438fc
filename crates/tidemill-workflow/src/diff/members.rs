//! Comparing members: objects by their members, arrays by their places, or as sets where they are lists of words.

use serde_json::{Map, Value};

use super::{Change, ChangeKind};

/// All differences between two objects.
pub(super) fn compare(
    path: &str,
    from: &Map<String, Value>,
    to: &Map<String, Value>,
    changes: &mut Vec<Change>,
) {
    for (name, old) in from {
        match to.get(name) {
            Some(new) => compare_values(&below(path, name), old, new, changes),
            None => changes.push(change(&below(path, name), ChangeKind::Removed, Some(old), None)),
        }
    }
    for (name, new) in to {
        if !from.contains_key(name) {
            changes.push(change(&below(path, name), ChangeKind::Added, None, Some(new)));
        }
    }
}

fn compare_values(path: &str, from: &Value, to: &Value, changes: &mut Vec<Change>) {
    if from == to {
        return;
    }
    match (from, to) {
        (Value::Object(old), Value::Object(new)) => compare(path, old, new, changes),
        (Value::Array(old), Value::Array(new)) if are_words(old) && are_words(new) => {
            compare_words(path, old, new, changes);
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (at, (old, new)) in old.iter().zip(new).enumerate() {
                compare_values(&format!("{path}[{at}]"), old, new, changes);
            }
        }
        _ => changes.push(change(path, ChangeKind::Changed, Some(from), Some(to))),
    }
}

fn are_words(values: &[Value]) -> bool {
    values.iter().all(Value::is_string)
}

fn compare_words(path: &str, from: &[Value], to: &[Value], changes: &mut Vec<Change>) {
    let start = changes.len();
    for word in from.iter().filter(|word| !to.contains(word)) {
        changes.push(change(path, ChangeKind::Removed, Some(word), None));
    }
    for word in to.iter().filter(|word| !from.contains(word)) {
        changes.push(change(path, ChangeKind::Added, None, Some(word)));
    }
    if changes.len() == start {
        let (from, to) = (Value::from(from), Value::from(to));
        changes.push(change(path, ChangeKind::Reordered, Some(&from), Some(&to)));
    }
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn change(path: &str, kind: ChangeKind, from: Option<&Value>, to: Option<&Value>) -> Change {
    let (from, to) = (from.cloned(), to.cloned());
    Change { step: None, path: path.to_owned(), kind, from, to, breaks: Vec::new() }
}
