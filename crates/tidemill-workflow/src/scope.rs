//! What an expression sees: JSON texts borrowed from whoever holds them, read only where an expression asks for them.

use std::rc::Rc;

use crate::expr::{Fault, Members, Val, read};
use crate::template::References;

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
        if !references.steps.is_empty() {
            let mut steps = Members::new();
            for (index, id) in references.named() {
                steps.insert(Rc::from(id), self.step_value(index, id)?);
            }
            document.insert("steps".into(), Val::obj(steps));
        }
        if references.run {
            document.insert("run".into(), self.run_value());
        }
        if let Some((index, item)) = self.item.filter(|_| references.item) {
            document.insert("item".into(), read("the item", item)?);
            document.insert("index".into(), i64::try_from(index).map_or(Val::Null, Val::Int));
        }
        Ok(Val::obj(document))
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

    fn run_value(&self) -> Val {
        let run = &self.run;
        Val::obj(Members::from_iter([
            ("id".into(), Val::str(run.id)),
            ("workflow".into(), Val::str(run.workflow)),
            ("version".into(), Val::Int(run.version.into())),
            ("tenant".into(), run.tenant.map_or(Val::Null, Val::str)),
        ]))
    }
}

/// An empty text, as a caller without a value has it, stands for null.
pub(crate) const fn text_or_null(text: &[u8]) -> &[u8] {
    if text.is_empty() { NOTHING } else { text }
}
