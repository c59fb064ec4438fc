//! Reading members one by one: kinds, ranges, words and names, each problem with its place and the nearest known name.

use std::collections::HashSet;

use serde_json::Value;

use crate::nearest::nearest;
use crate::problem::{Problem, ProblemCode};
use crate::source::{Kind, Member, Node, Segment, path_text};

/// Longest time that can be given: about 300 years, so that adding it to a time cannot overflow.
pub(super) const MAX_MS: u64 = 10_000_000_000_000;

/// The members of an object whose names have been checked.
pub(super) struct Fields<'n> {
    members: &'n [Member],
    /// Names that have been refused.
    refused: &'static [&'static str],
}

impl<'n> Fields<'n> {
    fn get(&self, name: &str) -> Option<&'n Member> {
        self.members.iter().find(|member| member.name == name && !self.refused.contains(&name))
    }

    /// The members but these, which have been refused.
    pub(super) const fn without(&self, refused: &'static [&'static str]) -> Self {
        Self { members: self.members, refused }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }
}

/// Where reading stands, and what was wrong so far.
pub(super) struct Reader<'n> {
    root: &'n Node,
    file: &'n str,
    path: Vec<Segment>,
    problems: Vec<Problem>,
    /// How many blocks it is inside of.
    depth: usize,
}

impl<'n> Reader<'n> {
    pub(super) const fn new(root: &'n Node, file: &'n str) -> Self {
        Self { root, file, path: Vec::new(), problems: Vec::new(), depth: 0 }
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    pub(super) const fn depth(&self) -> usize {
        self.depth
    }

    /// Reads inside of a block.
    pub(super) fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    /// Reads below this member or position.
    pub(super) fn enter<T>(&mut self, segment: Segment, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(segment);
        let value = read(self);
        self.path.pop();
        value
    }

    pub(super) fn problem(&mut self, code: ProblemCode, message: String) {
        let place = self.root.place_of(&self.path);
        self.problems.push(Problem {
            file: self.file.to_owned(),
            line: place.line,
            column: place.column,
            path: path_text(&self.path),
            code,
            message,
        });
    }

    pub(super) fn bad_value(&mut self, message: String) {
        self.problem(ProblemCode::BadValue, message);
    }

    /// An object with members of these names only.
    pub(super) fn object<'o>(
        &mut self,
        node: &'o Node,
        known: &[&str],
        later: &[&str],
    ) -> Option<Fields<'o>> {
        self.object_with(node, known, later, &[])
    }

    /// The same, where some other names belong into something else.
    pub(super) fn object_with<'o>(
        &mut self,
        node: &'o Node,
        known: &[&str],
        later: &[&str],
        elsewhere: &[(&str, &str)],
    ) -> Option<Fields<'o>> {
        let Kind::Object(members) = &node.kind else {
            self.bad_value(format!("must be an object, not {}", node.kind_name()));
            return None;
        };
        let mut seen = HashSet::new();
        for member in members {
            let name = member.name.as_str();
            let twice = !seen.insert(name);
            let (code, message) = if twice {
                (ProblemCode::DuplicateMember, format!("`{name}` is given twice"))
            } else if later.contains(&name) {
                (ProblemCode::NotSupported, format!("`{name}` is not supported yet in this version"))
            } else if known.contains(&name) {
                continue;
            } else if let Some((_, owner)) = elsewhere.iter().find(|(other, _)| *other == name) {
                (ProblemCode::UnknownMember, format!("`{name}` is not known here; it is a member of {owner}"))
            } else {
                let hint = match nearest(name, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("known are {}", known.join(", ")),
                };
                (ProblemCode::UnknownMember, format!("`{name}` is not known here; {hint}"))
            };
            self.problems.push(Problem {
                file: self.file.to_owned(),
                line: member.place.line,
                column: member.place.column,
                path: path_text(&self.path),
                code,
                message,
            });
        }
        Some(Fields { members, refused: &[] })
    }

    /// Reads a member that may be left out. Null counts as left out, except where the reader takes any value.
    pub(super) fn optional<T>(
        &mut self,
        fields: &Fields<'_>,
        name: &str,
        read: impl FnOnce(&mut Self, &Node) -> Option<T>,
    ) -> Option<T> {
        let member = fields.get(name)?;
        self.path.push(Segment::Name(name.to_owned()));
        let value = read(self, &member.value);
        self.path.pop();
        value
    }

    /// Says of each of these members that is there why it must not be.
    pub(super) fn refuse(&mut self, fields: &Fields<'_>, names: &[&str], why: &str) {
        for name in names.iter().filter(|name| fields.has(name)) {
            self.path.push(Segment::Name((*name).to_owned()));
            self.bad_value(format!("`{name}` {why}"));
            self.path.pop();
        }
    }

    /// Reads a member that must be there.
    pub(super) fn required<T>(
        &mut self,
        fields: &Fields<'_>,
        name: &str,
        read: impl FnOnce(&mut Self, &Node) -> Option<T>,
    ) -> Option<T> {
        if !fields.has(name) {
            self.problem(ProblemCode::MissingMember, format!("`{name}` is missing"));
        }
        self.optional(fields, name, read)
    }

    /// Reads each value of an array that can be read.
    pub(super) fn each<T>(&mut self, nodes: &[Node], read: impl Fn(&mut Self, &Node) -> Option<T>) -> Vec<T> {
        let mut values = Vec::with_capacity(nodes.len());
        for (at, node) in nodes.iter().enumerate() {
            self.path.push(Segment::At(at));
            values.extend(read(self, node));
            self.path.pop();
        }
        values
    }

    pub(super) fn text(&mut self, node: &Node) -> Option<String> {
        self.str(node).map(str::to_owned)
    }

    fn str<'o>(&mut self, node: &'o Node) -> Option<&'o str> {
        match &node.kind {
            Kind::Scalar(Value::String(text)) => Some(text),
            _ => {
                self.bad_value(format!("must be a string, not {}", node.kind_name()));
                None
            }
        }
    }

    pub(super) fn boolean(&mut self, node: &Node) -> Option<bool> {
        match &node.kind {
            Kind::Scalar(Value::Bool(value)) => Some(*value),
            _ => {
                self.bad_value(format!("must be true or false, not {}", node.kind_name()));
                None
            }
        }
    }

    /// A whole number from `least` to `most`.
    pub(super) fn number(&mut self, node: &Node, least: u64, most: u64) -> Option<u64> {
        let number = match &node.kind {
            Kind::Scalar(value) => value.as_u64(),
            _ => None,
        };
        if let Some(number) = number.filter(|number| (least..=most).contains(number)) {
            return Some(number);
        }
        let got = match &node.kind {
            Kind::Scalar(value @ Value::Number(_)) => value.to_string(),
            _ => node.kind_name().to_owned(),
        };
        self.bad_value(format!("must be a whole number from {least} to {most}, not {got}"));
        None
    }

    pub(super) fn small_number(&mut self, node: &Node, least: u32, most: u32) -> Option<u32> {
        self.number(node, least.into(), most.into()).and_then(|number| u32::try_from(number).ok())
    }

    pub(super) fn milliseconds(&mut self, node: &Node) -> Option<u64> {
        self.number(node, 1, MAX_MS)
    }

    /// One of some words.
    pub(super) fn word<'w>(&mut self, node: &Node, words: &[&'w str]) -> Option<&'w str> {
        let text = self.str(node)?;
        let found = words.iter().find(|word| **word == text).copied();
        if found.is_none() {
            let hint = nearest(text, words.iter().copied())
                .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            self.bad_value(format!("must be one of {}, not `{text}`{hint}", words.join(", ")));
        }
        found
    }

    pub(super) fn workflow_name(&mut self, node: &Node) -> Option<String> {
        let first = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let rest = |c: char| first(c) || matches!(c, '.' | '_' | '-');
        self.name(
            node,
            "lower-case letters, digits, `.`, `_` and `-`, starting with a letter or digit",
            first,
            rest,
        )
    }

    pub(super) fn queue_name(&mut self, node: &Node) -> Option<String> {
        let first = |c: char| c.is_ascii_alphanumeric();
        let rest = |c: char| first(c) || matches!(c, '.' | '_' | '-');
        self.name(node, "letters, digits, `.`, `_` and `-`, starting with a letter or digit", first, rest)
    }

    pub(super) fn step_id(&mut self, node: &Node) -> Option<String> {
        let first = |c: char| c.is_ascii_alphabetic();
        let rest = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        self.name(node, "letters, digits, `_` and `-`, starting with a letter", first, rest)
    }

    /// `name` or `name@version` of a workflow.
    pub(super) fn workflow_target(&mut self, node: &Node) -> Option<String> {
        let text = self.str(node)?;
        let (name, version) =
            text.split_once('@').map_or((text, None), |(name, version)| (name, Some(version)));
        let bare = Node { place: node.place, kind: Kind::Scalar(Value::from(name)) };
        self.workflow_name(&bare)?;
        if version.is_some_and(|version| version.parse::<u32>().ok().is_none_or(|version| version == 0)) {
            self.bad_value(format!("`{text}` names no version: it is a whole number from 1 behind the `@`"));
            return None;
        }
        Some(text.to_owned())
    }

    pub(super) fn signal_name(&mut self, node: &Node) -> Option<String> {
        let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        self.name(node, "letters, digits, `.`, `_` and `-`", valid, valid)
    }

    /// A JSON Schema; whether it compiles is seen later.
    pub(super) fn schema(&mut self, node: &Node) -> Option<Value> {
        match &node.kind {
            Kind::Object(_) | Kind::Scalar(Value::Bool(_)) => Some(node.to_value()),
            _ => {
                self.bad_value(format!("must be a JSON Schema, not {}", node.kind_name()));
                None
            }
        }
    }

    /// The name of a zone that the time-zone database has.
    pub(super) fn time_zone(&mut self, node: &Node) -> Option<String> {
        let name = self.text(node)?;
        if jiff::tz::TimeZone::get(&name).is_ok() {
            return Some(name);
        }
        let names: Vec<String> = jiff::tz::db().available().map(|name| name.as_str().to_owned()).collect();
        let hint = nearest(&name, names.iter().map(String::as_str))
            .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        self.bad_value(format!("there is no time zone `{name}`{hint}"));
        None
    }

    fn name(
        &mut self,
        node: &Node,
        rule: &str,
        first: impl Fn(char) -> bool,
        rest: impl Fn(char) -> bool,
    ) -> Option<String> {
        const LONGEST: usize = 64;
        let text = self.str(node)?;
        let mut chars = text.chars();
        if text.len() <= LONGEST && chars.next().is_some_and(first) && chars.all(rest) {
            return Some(text.to_owned());
        }
        let shown: String = text.chars().take(LONGEST + 1).collect();
        self.bad_value(format!("`{shown}` is no valid name: 1 to {LONGEST} {rule}"));
        None
    }
}
