//! Reading members one by one, each problem with its place.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tidemill_workflow::source::{Kind, Member, Node, Segment, path_text};
use tidemill_workflow::{BoundFilter, Problem, ProblemCode, ToolCatalog, nearest};

use crate::document::{Authentication, Raised, Retry, Task, TaskId};
use crate::dynamic::{self, Dynamic};

/// Longest time that can be given: about 300 years.
pub(super) const MAX_MS: u64 = 10_000_000_000_000;

/// The members of an object whose names have been checked.
#[derive(Clone, Copy)]
pub(super) struct Fields<'n> {
    members: &'n [Member],
}

impl<'n> Fields<'n> {
    pub(super) fn get(&self, name: &str) -> Option<&'n Member> {
        self.members.iter().find(|member| member.name == name)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }
}

/// Where reading stands, what was wrong so far, and what was read that others may name.
pub(super) struct Reader<'n> {
    root: &'n Node,
    file: &'n str,
    pub(super) catalog: &'n dyn ToolCatalog,
    path: Vec<Segment>,
    problems: Vec<Problem>,
    /// Tasks by their number; a place is taken before its task is read.
    pub(super) tasks: Vec<Option<Task>>,
    /// Variables of the loops and handlers around, besides those of every task.
    pub(super) local: Vec<String>,
    /// Names of the tasks of the list that is read, where `then` may lead.
    pub(super) siblings: Vec<String>,
    /// Ids of blocks that are taken.
    pub(super) blocks: BTreeSet<String>,
    pub(super) authentications: BTreeMap<String, Authentication>,
    pub(super) errors: BTreeMap<String, Raised>,
    pub(super) retries: BTreeMap<String, Retry>,
    pub(super) timeouts: BTreeMap<String, u64>,
    pub(super) functions: BTreeMap<String, TaskId>,
}

impl<'n> Reader<'n> {
    pub(super) fn new(root: &'n Node, file: &'n str, catalog: &'n dyn ToolCatalog) -> Self {
        Self {
            root,
            file,
            catalog,
            path: Vec::new(),
            problems: Vec::new(),
            tasks: Vec::new(),
            local: Vec::new(),
            siblings: Vec::new(),
            blocks: BTreeSet::new(),
            authentications: BTreeMap::new(),
            errors: BTreeMap::new(),
            retries: BTreeMap::new(),
            timeouts: BTreeMap::new(),
            functions: BTreeMap::new(),
        }
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems
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

    /// JSON pointer of what is being read.
    pub(super) fn pointer(&self) -> String {
        let mut text = String::new();
        for segment in &self.path {
            text.push('/');
            match segment {
                Segment::Name(name) => text.push_str(&name.replace('~', "~0").replace('/', "~1")),
                Segment::At(at) => text.push_str(&at.to_string()),
            }
        }
        text
    }

    /// Takes a number for the task that is read now.
    pub(super) fn add_task(&mut self, read: impl FnOnce(&mut Self, TaskId) -> Option<Task>) -> TaskId {
        let id = self.tasks.len();
        self.tasks.push(None);
        let task = read(self, id);
        if let Some(place) = self.tasks.get_mut(id) {
            *place = task;
        }
        id
    }

    /// An id for the block that carries out the task of this name: what a person knows it again by, and no other has.
    pub(super) fn block(&mut self, name: &str) -> String {
        const LONGEST: usize = 48;
        let legal = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' };
        let mut id: String = name.chars().map(legal).take(LONGEST).collect();
        if !id.starts_with(|c: char| c.is_ascii_alphabetic()) {
            id.insert(0, 't');
        }
        let stem = id.clone();
        let mut number = 1;
        while !self.blocks.insert(id.clone()) {
            number += 1;
            id = format!("{stem}-{number}");
        }
        id
    }

    /// Says where no worker has the tool that carries out a part of the DSL.
    pub(super) fn needs_tool(&mut self, member: &str, tool: &str) {
        if !self.catalog.knows(tool) {
            let message = format!("is carried out by the tool `{tool}`, which does not exist in this pool");
            self.inside(member, |reader| reader.problem(ProblemCode::UnknownTool, message));
        }
    }

    pub(super) fn inside<T>(&mut self, name: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(Segment::Name(name.to_owned()));
        let value = read(self);
        self.path.pop();
        value
    }

    pub(super) fn inside_at<T>(&mut self, at: usize, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(Segment::At(at));
        let value = read(self);
        self.path.pop();
        value
    }

    /// Reads with further variables in scope.
    pub(super) fn with_local<T>(&mut self, names: &[&str], read: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.local.len();
        self.local.extend(names.iter().map(|name| (*name).to_owned()));
        let value = read(self);
        self.local.truncate(before);
        value
    }

    /// An object with members of these names; those of `others` belong to somebody else.
    pub(super) fn object<'o>(
        &mut self,
        node: &'o Node,
        known: &[&str],
        others: &[&str],
    ) -> Option<Fields<'o>> {
        let Kind::Object(members) = &node.kind else {
            self.bad_value(format!("must be an object, not {}", node.kind_name()));
            return None;
        };
        for (at, member) in members.iter().enumerate() {
            let name = member.name.as_str();
            let twice = members.iter().take(at).any(|earlier| earlier.name == name);
            if twice {
                let message = format!("`{name}` is given twice");
                self.inside(name, |reader| reader.problem(ProblemCode::DuplicateMember, message));
            } else if !known.contains(&name) && !others.contains(&name) {
                let hint = match nearest(name, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("known are {}", known.join(", ")),
                };
                let message = format!("`{name}` is not known here; {hint}");
                self.inside(name, |reader| reader.problem(ProblemCode::UnknownMember, message));
            }
        }
        Some(Fields { members })
    }

    pub(super) fn any_object(&mut self, node: &Node) -> Option<Value> {
        if let Kind::Object(_) = &node.kind {
            return Some(node.to_value());
        }
        self.bad_value(format!("must be an object, not {}", node.kind_name()));
        None
    }

    /// Reads each member of an object by its name.
    pub(super) fn each_member(
        &mut self,
        node: &Node,
        mut read: impl FnMut(&mut Self, &str, &Node),
    ) -> Option<()> {
        let Kind::Object(members) = &node.kind else {
            self.bad_value(format!("must be an object, not {}", node.kind_name()));
            return None;
        };
        for member in members {
            self.inside(&member.name, |reader| read(reader, &member.name, &member.value));
        }
        Some(())
    }

    pub(super) fn array<'o>(&mut self, node: &'o Node) -> Option<&'o [Node]> {
        if let Kind::Array(nodes) = &node.kind {
            return Some(nodes);
        }
        self.bad_value(format!("must be an array, not {}", node.kind_name()));
        None
    }

    pub(super) fn optional<T>(
        &mut self,
        fields: &Fields<'_>,
        name: &str,
        read: impl FnOnce(&mut Self, &Node) -> Option<T>,
    ) -> Option<T> {
        let member = fields.get(name)?;
        self.inside(name, |reader| read(reader, &member.value))
    }

    pub(super) fn required<T>(
        &mut self,
        fields: &Fields<'_>,
        name: &str,
        read: impl FnOnce(&mut Self, &Node) -> Option<T>,
    ) -> Option<T> {
        if !fields.has(name) {
            self.problem(ProblemCode::MissingMember, format!("`{name}` is missing"));
            return None;
        }
        self.optional(fields, name, read)
    }

    /// Says of a member of the DSL that it is not carried out, and what to do instead.
    pub(super) fn unsupported(&mut self, fields: &Fields<'_>, name: &str, instead: &str) {
        if fields.has(name) {
            let message = format!("`{name}` is not supported; {instead}");
            self.inside(name, |reader| reader.problem(ProblemCode::NotSupported, message));
        }
    }

    pub(super) fn text(&mut self, node: &Node) -> Option<String> {
        match &node.kind {
            Kind::Scalar(Value::String(text)) => Some(text.clone()),
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

    pub(super) fn number(&mut self, node: &Node, most: u64) -> Option<u64> {
        let number = match &node.kind {
            Kind::Scalar(value) => value.as_u64().filter(|number| *number <= most),
            Kind::Array(_) | Kind::Object(_) => None,
        };
        if number.is_none() {
            self.bad_value(format!("must be a whole number from 0 to {most}"));
        }
        number
    }

    /// One of some words.
    pub(super) fn word<'w>(&mut self, node: &Node, words: &[&'w str]) -> Option<&'w str> {
        let text = self.text(node)?;
        let found = words.iter().find(|word| **word == text).copied();
        if found.is_none() {
            self.bad_value(format!("must be one of {}, not `{text}`", words.join(", ")));
        }
        found
    }

    /// A name as the DSL has them for namespaces and workflows.
    pub(super) fn label(&mut self, node: &Node) -> Option<String> {
        let text = self.text(node)?;
        let is_inside = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let is_edge = |c: char| c.is_ascii_alphanumeric();
        let fits = (1..=63).contains(&text.len())
            && text.chars().all(is_inside)
            && text.starts_with(is_edge)
            && text.ends_with(is_edge);
        if !fits {
            self.bad_value(format!("`{text}` is no name: 1 to 63 letters, digits and `-`, none at an edge"));
        }
        fits.then_some(text)
    }

    /// A name of a variable.
    pub(super) fn variable(&mut self, node: &Node) -> Option<String> {
        let text = self.text(node)?;
        let name = text.strip_prefix('$').unwrap_or(&text);
        let fits = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let is_taken = super::TASK_VARIABLES.contains(&name) || name == "output";
        if !fits || is_taken {
            let why = if is_taken { "is a variable of every task" } else { "is no name of a variable" };
            self.bad_value(format!("`{text}` {why}"));
            return None;
        }
        Some(name.to_owned())
    }

    /// jq text, with `${ … }` around it or without, which may name `variables`, and the local ones.
    pub(super) fn expression(&mut self, node: &Node, variables: &[&str]) -> Option<BoundFilter> {
        let text = match &node.kind {
            Kind::Scalar(Value::Bool(value)) => value.to_string(),
            _ => self.text(node)?,
        };
        let local = self.local.clone();
        let names: Vec<&str> = variables.iter().copied().chain(local.iter().map(String::as_str)).collect();
        let compiled = dynamic::expression(&text, &names);
        compiled.map_err(|message| self.problem(ProblemCode::BadExpression, explained(&message))).ok()
    }

    /// A value with `${ … }` in its strings.
    pub(super) fn template(&mut self, node: &Node, variables: &[&str]) -> Option<Dynamic> {
        let local = self.local.clone();
        let names: Vec<&str> = variables.iter().copied().chain(local.iter().map(String::as_str)).collect();
        match dynamic::template(&node.to_value(), &names) {
            Ok(dynamic) => Some(dynamic),
            Err(refused) => {
                let depth = self.path.len();
                self.path.extend(refused.path);
                self.problem(ProblemCode::BadExpression, explained(&refused.message));
                self.path.truncate(depth);
                None
            }
        }
    }

    /// The same where a string must be.
    pub(super) fn text_template(&mut self, node: &Node, variables: &[&str]) -> Option<Dynamic> {
        self.text(node)?;
        self.template(node, variables)
    }
}

/// What else to say about variables of the DSL that are not given.
fn explained(message: &str) -> String {
    let hint = if message.contains("`$secrets`") {
        "; secrets are given to named tools by an operator"
    } else if message.contains("`$authorization`") {
        "; what a call authenticates with is not shown to expressions"
    } else {
        ""
    };
    format!("the expression {message}{hint}")
}
