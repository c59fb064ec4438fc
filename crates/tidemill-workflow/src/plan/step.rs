//! The steps of a plan, and what they do.

use std::sync::Arc;

use serde_json::value::RawValue;
use tidemill_protocol::RetryPolicy;

use super::wait::{Approval, Signal, Wait};
use super::{ChosenBy, ForEach};
use crate::definition::Join;
use crate::expr::{ExprError, Fault, Limits};
use crate::orchestrate::{ChildTarget, Program};
use crate::scope::Scope;
use crate::template::{Expr, References, Template};

/// One step of a plan.
#[derive(Debug, Clone)]
pub struct PlanStep {
    /// Its id.
    pub id: Arc<str>,
    /// What it does.
    pub action: Action,
    /// The steps that it waits for, with the switch that chooses it.
    pub needs: Vec<u32>,
    /// How many of them.
    pub join: Join,
    /// Condition; where it is false the step is skipped. What switches and failures decide about the step is part of it.
    pub when: Option<Expr>,
    /// The switch that chooses it.
    pub chosen_by: Option<ChosenBy>,
    /// The steps whose failure leads here, by their `on_error: { goto }`.
    pub rescues: Vec<u32>,
    /// Input of the action.
    pub with: Template,
    /// Runs the action once per item.
    pub for_each: Option<ForEach>,
    /// How failed attempts are tried again; members left out are the tool's.
    pub retry: RetryPolicy,
    /// How long an attempt may take, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Whether the steps that need it run on when it failed.
    pub continue_on_error: bool,
    /// Whether its failure has the run undo what was done, at once.
    pub compensate_on_error: bool,
    /// Its own queue.
    pub queue: Option<String>,
    /// Runs the action again and again.
    pub repeat: Option<Repeat>,
    /// What it waits for after its tool has answered.
    pub then_wait: Option<Wait>,
    /// The step that undoes it, at or beyond [`Plan::main`](super::Plan::main).
    pub undo: Option<u32>,
    /// In a plan in order the step whose end dispatches it; it needs what it needs nevertheless.
    pub after: Option<u32>,
    /// Whether what it does side by side elsewhere goes one by one here: the branches of a race, one tried after the other.
    pub one_at_a_time: bool,
}

/// What a step does.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Action {
    /// Calls a tool with `with` as its input.
    Tool {
        /// `name` or `name@version`.
        tool: Arc<str>,
    },
    /// Calls nothing: what `with` renders to is the step's output.
    Decide,
    /// Waits.
    Wait(Wait),
    /// Runs another workflow, or a block of this one, with `with` as its input.
    Child(Child),
    /// Runs blocks side by side; the first success wins.
    Race(Vec<Branch>),
    /// Asks people.
    Approval(Box<Approval>),
    /// What a document of another language says.
    Program(Arc<dyn Program>),
}

/// Another workflow, or a block of this one.
#[derive(Debug, Clone, PartialEq)]
pub struct Child {
    /// Which.
    pub target: ChildTarget,
    /// Whether nobody waits for its end.
    pub detached: bool,
    /// Renders to the local `outer` of a block: records of steps around it that its expressions read, by their ids.
    pub outer: Option<Template>,
    /// Names of the other locals (of [`LOCALS`](crate::LOCALS)) that its expressions read: those that there are go with it.
    pub locals: Vec<&'static str>,
}

/// One of the blocks of a race.
#[derive(Debug, Clone)]
pub struct Branch {
    /// Its id.
    pub id: Arc<str>,
    /// What it runs.
    pub child: Child,
    /// Its input.
    pub with: Template,
}

/// How often an action is run again.
#[derive(Debug, Clone)]
pub struct Repeat {
    /// Asked before each iteration; it ends where this is false.
    pub while_: Option<Expr>,
    /// Asked after each iteration; it ends where this is true.
    pub until: Option<Expr>,
    /// At most so many.
    pub max_iterations: u32,
    /// Between the end of one and the next, in milliseconds.
    pub every_ms: u64,
    /// Whether the step ends well with the last output when there were so many.
    pub continue_when_exhausted: bool,
}

impl Action {
    /// The word in a definition.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Tool { .. } => "tool",
            Self::Decide => "switch",
            Self::Wait(_) => "wait",
            Self::Child(Child { target: ChildTarget::Workflow(_), .. }) => "workflow",
            Self::Child(_) => "steps",
            Self::Race(_) => "race",
            Self::Approval(_) => "approval",
            Self::Program(_) => "program",
        }
    }
}

impl PlanStep {
    /// A step that does just this, starts with the run and has the default of everything else.
    #[must_use]
    pub fn new(id: &str, action: Action, with: Template) -> Self {
        Self {
            id: id.into(),
            action,
            needs: Vec::new(),
            join: Join::All,
            when: None,
            chosen_by: None,
            rescues: Vec::new(),
            with,
            for_each: None,
            retry: RetryPolicy::default(),
            timeout_ms: None,
            continue_on_error: false,
            compensate_on_error: false,
            queue: None,
            repeat: None,
            then_wait: None,
            undo: None,
            after: None,
            one_at_a_time: false,
        }
    }

    /// The signal that it waits for, at once or behind its tool.
    #[must_use]
    pub fn signal(&self) -> Option<&Signal> {
        let ((Action::Wait(wait), _) | (_, Some(wait))) = (&self.action, &self.then_wait) else {
            return None;
        };
        match wait {
            Wait::Signal(signal) => Some(signal),
            Wait::For(_) | Wait::Until { .. } => None,
        }
    }

    /// Whether it is carried out by [`crate::advance`].
    #[must_use]
    pub const fn is_orchestrated(&self) -> bool {
        let waits = match self.action {
            Action::Tool { .. } | Action::Decide => false,
            Action::Wait(_)
            | Action::Child(_)
            | Action::Race(_)
            | Action::Approval(_)
            | Action::Program(_) => true,
        };
        waits || self.repeat.is_some() || self.then_wait.is_some()
    }

    /// What must be in scope for all of its expressions.
    #[must_use]
    pub fn references(&self) -> References {
        let mut all = self.with.references().clone();
        self.visit(&mut |references| all.add(references));
        // what an approval has done anew gets the run's input
        all.input |= match &self.action {
            Action::Approval(approval) => approval.revise.is_some() || approval.remind.is_some(),
            Action::Program(_) => true,
            _ => false,
        };
        all
    }

    fn visit(&self, add: &mut dyn FnMut(&References)) {
        self.when.iter().for_each(|when| add(when.references()));
        self.for_each.iter().for_each(|for_each| add(for_each.items.references()));
        if let Some(repeat) = &self.repeat {
            repeat.while_.iter().chain(&repeat.until).for_each(|asked| add(asked.references()));
        }
        self.then_wait.iter().for_each(|wait| wait.visit(add));
        match &self.action {
            Action::Tool { .. } | Action::Decide | Action::Program(_) => {}
            Action::Wait(wait) => wait.visit(add),
            Action::Child(child) => child.visit(add),
            Action::Race(branches) => {
                for branch in branches {
                    add(branch.with.references());
                    branch.child.visit(add);
                }
            }
            Action::Approval(approval) => approval.visit(add),
        }
    }
}

impl Child {
    /// A child without anything of its surroundings.
    #[must_use]
    pub const fn of(target: ChildTarget) -> Self {
        Self { target, detached: false, outer: None, locals: Vec::new() }
    }

    pub(super) fn visit(&self, add: &mut dyn FnMut(&References)) {
        self.outer.iter().for_each(|outer| add(outer.references()));
        if !self.locals.is_empty() {
            add(&References::of_locals(&self.locals));
        }
    }
}

impl ForEach {
    /// The items, each as JSON text; with `batch`, arrays of so many of them.
    ///
    /// # Errors
    /// When the expression fails or gives no array.
    pub fn items(&self, scope: &Scope<'_>, limits: &Limits) -> Result<Vec<Box<RawValue>>, ExprError> {
        let text = self.items.render(scope, limits)?;
        let bad = |reason: String| {
            ExprError::new("for_each.items", Fault::BadScope { what: "for_each.items".to_owned(), reason })
        };
        let got = match text.trim_ascii_start().first() {
            Some(b'[') => {
                let items: Vec<Box<RawValue>> =
                    serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
                return self.batches(items).map_err(|error| bad(error.to_string()));
            }
            Some(b'{') => "object",
            Some(b'"') => "string",
            Some(b't' | b'f') => "boolean",
            Some(b'n') | None => "null",
            Some(_) => "number",
        };
        Err(ExprError::new("for_each.items", Fault::NotArray { got }))
    }

    fn batches(&self, items: Vec<Box<RawValue>>) -> serde_json::Result<Vec<Box<RawValue>>> {
        if self.batch == 0 {
            return Ok(items);
        }
        items.chunks(self.batch as usize).map(serde_json::value::to_raw_value).collect()
    }
}
