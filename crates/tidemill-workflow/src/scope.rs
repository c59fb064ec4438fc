//! What an expression sees: JSON texts borrowed from whoever holds them, read only where an expression asks for them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

use serde_json::value::RawValue;

use crate::expr::{Fault, Members, Val, read};
use crate::template::References;

/// Names of what an expression sees of the place of its step or block. What is not there is null.
pub const LOCALS: [&str; 6] = ["item", "index", "iteration", "previous", "feedback", "output"];

/// What is known when a step's expressions are evaluated. All texts are JSON.
#[derive(Debug, Clone, Default)]
pub struct Scope<'a> {
    /// The run's input.
    pub input: &'a [u8],
    /// Records of steps, by their index in the plan; at least those that the references name, in any order.
    pub steps: Vec<(u32, StepView<'a>)>,
    /// The run itself.
    pub run: RunView<'a>,
    /// Index and text of the item, inside of `for_each`.
    pub item: Option<(u64, &'a [u8])>,
    /// What is known of the place of a step or block, by the names of [`LOCALS`], as JSON texts; under `outer` the records of
    /// the steps around a block, by their ids. What stands in [`Self::item`] goes before; of two with one name, the first.
    pub locals: Vec<(&'a str, &'a [u8])>,
}

/// What is known of a step.
#[derive(Debug, Clone, Copy, Default)]
pub struct StepView<'a> {
    /// Its state, by the word of the protocol.
    pub state: &'a str,
    /// Its output, where it has one.
    pub output: Option<&'a [u8]>,
    /// Its error, where it failed.
    pub error: Option<&'a [u8]>,
}

/// What is known of the run.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunView<'a> {
    /// The run's id.
    pub id: &'a str,
    /// The workflow's name.
    pub workflow: &'a str,
    /// The workflow's version.
    pub version: u32,
    /// The tenant, where there is one.
    pub tenant: Option<&'a str>,
    /// What its end was decided to be, where that is so: a state by the word of the protocol.
    pub state: Option<&'a str>,
    /// The error that ends it, as JSON text.
    pub error: Option<&'a [u8]>,
}

const NOTHING: &[u8] = b"null";

impl<'a> Scope<'a> {
    /// The record of a step; one that was not given is pending, without output and error.
    pub(crate) fn step(&self, index: u32) -> StepView<'a> {
        let pending = StepView { state: "pending", output: None, error: None };
        self.steps.iter().find(|(step, _)| *step == index).map_or(pending, |(_, view)| *view)
    }

    /// The document that expressions run on, with what `references` ask for.
    pub(crate) fn document(&self, references: &References) -> Result<Val, Fault> {
        let mut document = Members::new();
        if references.input {
            document.insert("input".into(), read("the run's input", text_or_null(self.input))?);
        }
        if !references.steps.is_empty() || !references.outer.is_empty() {
            document.insert("steps".into(), Val::obj(self.records(references)?));
        }
        if references.run {
            document.insert("run".into(), self.run_value()?);
        }
        if references.item {
            let (item, index) = match self.item {
                Some((index, item)) => {
                    (read("the item", item)?, i64::try_from(index).map_or(Val::Null, Val::Int))
                }
                None => (self.local_value("item")?, self.local_value("index")?),
            };
            document.insert("item".into(), item);
            document.insert("index".into(), index);
        }
        for name in &references.locals {
            document.insert(Rc::from(*name), self.local_value(name)?);
        }
        Ok(Val::obj(document))
    }

    /// The text of a local; null where it is not there.
    pub(crate) fn local(&self, name: &str) -> &'a [u8] {
        self.locals.iter().find(|(known, _)| *known == name).map_or(NOTHING, |(_, text)| text_or_null(text))
    }

    /// The text of a member of the record of a step around the block, as it was given.
    pub(crate) fn outer(&self, id: &str, member: &str) -> Option<&'a [u8]> {
        type Texts<'a> = HashMap<Cow<'a, str>, &'a RawValue>;
        let records: Texts<'a> = serde_json::from_slice(self.local("outer")).ok()?;
        let record: Texts<'a> = serde_json::from_str(records.get(id)?.get()).ok()?;
        record.get(member).map(|text| text.get().as_bytes())
    }

    fn local_value(&self, name: &str) -> Result<Val, Fault> {
        read(&format!("`.{name}`"), self.local(name))
    }

    fn records(&self, references: &References) -> Result<Members, Fault> {
        let mut steps = Members::new();
        if !references.outer.is_empty() {
            let outer = read("the steps around the block", self.local("outer"))?;
            for id in &references.outer {
                let record = outer.member(id).cloned();
                steps.insert(Rc::from(&**id), record.unwrap_or_else(pending));
            }
        }
        for (index, id) in references.named() {
            steps.insert(Rc::from(id), self.step_value(index, id)?);
        }
        Ok(steps)
    }

    fn step_value(&self, index: u32, id: &str) -> Result<Val, Fault> {
        let view = self.step(index);
        let part = |what: &str, text: Option<&[u8]>| {
            read(&format!("the {what} of step `{id}`"), text.map_or(NOTHING, text_or_null))
        };
        Ok(Val::obj(Members::from_iter([
            ("state".into(), Val::str(view.state)),
            ("output".into(), part("output", view.output)?),
            ("error".into(), part("error", view.error)?),
        ])))
    }

    fn run_value(&self) -> Result<Val, Fault> {
        let run = &self.run;
        let mut members = Members::from_iter([
            ("id".into(), Val::str(run.id)),
            ("workflow".into(), Val::str(run.workflow)),
            ("version".into(), Val::Int(run.version.into())),
            ("tenant".into(), run.tenant.map_or(Val::Null, Val::str)),
        ]);
        if let Some(state) = run.state {
            members.insert("state".into(), Val::str(state));
            members.insert("error".into(), read("the run's error", run.error.map_or(NOTHING, text_or_null))?);
        }
        Ok(Val::obj(members))
    }
}

/// The record of a step around a block that was not given.
fn pending() -> Val {
    let members = [("state", Val::str("pending")), ("output", Val::Null), ("error", Val::Null)];
    Val::obj(members.into_iter().map(|(name, value)| (Rc::from(name), value)).collect())
}

/// An empty text, as a caller without a value has it, stands for null.
pub(crate) const fn text_or_null(text: &[u8]) -> &[u8] {
    if text.is_empty() { NOTHING } else { text }
}
