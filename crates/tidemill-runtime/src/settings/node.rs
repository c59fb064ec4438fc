//! The tree in which all sources meet: values as they were written, each with its origin.

use super::origin::Origin;

/// A value and where it came from.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

/// A value before anybody has asked for its type: `8` may become a number or a text.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    /// `plain` scalars may be read as numbers, booleans or null where any type will do.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key with its value, in the order of the source.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) origin: Origin,
    pub(crate) node: Node,
}

impl Node {
    pub(crate) const fn empty_map(origin: Origin) -> Self {
        Self { value: Value::Map(Vec::new()), origin }
    }

    /// Maps within maps along `path`, with `leaf` at their end.
    pub(crate) fn at(path: &[String], leaf: Self) -> Self {
        let origin = leaf.origin.clone();
        path.iter().rev().fold(leaf, |node, key| {
            let entry = Entry { key: key.clone(), origin: origin.clone(), node };
            Self { value: Value::Map(vec![entry]), origin: origin.clone() }
        })
    }

    /// Lays `over` on top: maps are joined key by key, anything else is replaced, nothing replaces nothing.
    pub(crate) fn overlay(&mut self, over: Self) {
        match (&mut self.value, over.value) {
            (_, Value::Null) => {}
            (Value::Map(entries), Value::Map(added)) => {
                for entry in added {
                    match entries.iter_mut().find(|known| known.key == entry.key) {
                        Some(known) => {
                            known.node.overlay(entry.node);
                            known.origin = entry.origin;
                        }
                        None => entries.push(entry),
                    }
                }
            }
            (slot, value) => {
                *slot = value;
                self.origin = over.origin;
            }
        }
    }

    /// The node at `path`; list elements are named by their index.
    pub(crate) fn get(&self, path: &[String]) -> Option<&Self> {
        let Some((key, rest)) = path.split_first() else { return Some(self) };
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == *key)?.node.get(rest),
            Value::List(nodes) => nodes.get(key.parse::<usize>().ok()?)?.get(rest),
            Value::Null | Value::Scalar { .. } => None,
        }
    }

    /// The origin of the key at `path`, or that of the nearest key above it which a source has given.
    pub(crate) fn origin_of(&self, path: &[String]) -> Origin {
        let mut node = self;
        let mut origin = &self.origin;
        for key in path {
            match &node.value {
                Value::Map(entries) => {
                    let Some(entry) = entries.iter().find(|entry| entry.key == *key) else { break };
                    (origin, node) = (&entry.origin, &entry.node);
                }
                Value::List(nodes) => {
                    let Some(next) = key.parse::<usize>().ok().and_then(|index| nodes.get(index)) else {
                        break;
                    };
                    (origin, node) = (&next.origin, next);
                }
                Value::Null | Value::Scalar { .. } => break,
            }
        }
        origin.clone()
    }

    /// Takes out what stands at `path`; an element of a list takes the whole list with it. `false` if nothing did.
    pub(crate) fn remove(&mut self, path: &[String]) -> bool {
        let Some((key, rest)) = path.split_first() else { return false };
        let Value::Map(entries) = &mut self.value else { return false };
        let Some(position) = entries.iter().position(|entry| entry.key == *key) else { return false };
        let inner_removed = entries.get_mut(position).is_some_and(|entry| entry.node.remove(rest));
        if !inner_removed {
            entries.remove(position);
        }
        true
    }
}
