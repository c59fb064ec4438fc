//! What a step does: what it waits for, what it has run, whom it asks.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::DateTime;
use serde_json::{Map, Value, json};

use super::list::entries;
use super::step::Blocks;
use super::{Compiler, Entry, Level, List, name};
use crate::definition::{
    ActionDefinition, ApprovalDefinition, BlockDefinition, Join, OnError, SignalDefinition, StepDefinition,
    WaitDefinition,
};
use crate::orchestrate::ChildTarget;
use crate::plan::spot::{Locals, Spot};
use crate::plan::{Action, Approval, Branch, Child, OnReject, Reminder, Signal, Wait};
use crate::problem::ProblemCode;
use crate::source::Segment;
use crate::template::{Around, Found, Template};

/// How often an approval asks where the definition does not say.
const ITERATIONS: u32 = 3;

impl Compiler<'_> {
    pub(super) fn action(
        &mut self,
        level: &Level<'_>,
        entry: &Entry<'_>,
        spot: &Spot<'_>,
        blocks: &mut Blocks,
    ) -> (Action, Template) {
        let nothing = json!({});
        match &entry.step.action {
            ActionDefinition::Tool { tool, with } => self.tool_call(tool, with, spot, &entry.path),
            ActionDefinition::Switch(switch) => (Action::Decide, self.switch(entry, switch, spot)),
            ActionDefinition::Workflow { workflow, with, detached } => {
                let target = ChildTarget::Workflow(workflow.clone());
                let child = Child { detached: *detached, ..Child::of(target) };
                (Action::Child(child), self.template(with, spot, &entry.member("with")))
            }
            ActionDefinition::Steps(block) => {
                let list = block_list(block, entry, level, &entry.step.id);
                let child = self.block(&list, spot, blocks);
                (Action::Child(child), self.block_input(block, spot, entry))
            }
            ActionDefinition::Race(branches) => {
                let branches = entries(branches, &entry.member("race"));
                let branches =
                    branches.iter().map(|branch| self.branch(level, (entry, branch), spot, blocks));
                let branches = branches.collect();
                (Action::Race(branches), self.template(&nothing, spot, &entry.path))
            }
            ActionDefinition::Wait(wait) => {
                let wait = self.wait(wait, spot, &entry.member("wait"));
                (Action::Wait(wait), self.template(&nothing, spot, &entry.path))
            }
            ActionDefinition::Approval(approval) => {
                let approval = self.approval(level, (entry, approval), spot, blocks);
                (Action::Approval(Box::new(approval)), self.template(&nothing, spot, &entry.path))
            }
        }
    }

    pub(super) fn wait(&mut self, wait: &WaitDefinition, spot: &Spot<'_>, path: &[Segment]) -> Wait {
        let below = |member: &str| path.iter().cloned().chain([name(member)]).collect::<Vec<_>>();
        match wait {
            WaitDefinition::For(ms) => Wait::For(self.template(ms, spot, &below("for_ms"))),
            WaitDefinition::Until { at, time_zone } => {
                let template = self.template(at, spot, &below("until"));
                if let (true, Some(text)) = (template.is_constant(), at.as_str()) {
                    self.time(text, time_zone.is_some(), &below("until"));
                }
                Wait::Until { at: template, time_zone: time_zone.clone() }
            }
            WaitDefinition::Signal(SignalDefinition { name, schema, timeout_ms, continue_on_timeout }) => {
                let schema = schema.as_ref().and_then(|schema| self.schema(schema, &below("schema")));
                let (timeout_ms, continue_on_timeout) = (*timeout_ms, *continue_on_timeout);
                Wait::Signal(Box::new(Signal { name: name.clone(), schema, timeout_ms, continue_on_timeout }))
            }
        }
    }

    /// A time that is known already must be one.
    fn time(&mut self, text: &str, has_zone: bool, path: &[Segment]) {
        let text = text.trim();
        let message = match (text.parse::<Timestamp>().is_ok(), text.parse::<DateTime>().is_ok()) {
            (true, _) => return,
            (false, true) if has_zone => return,
            (false, true) => {
                format!("`{text}` says no offset; add one (`Z`, `+01:00`), or give `time_zone`")
            }
            (false, false) => format!(
                "`{text}` is no time: write it as 2026-03-01T09:00:00+01:00, or as 2026-03-01T09:00 with `time_zone`"
            ),
        };
        self.problem(path, ProblemCode::BadValue, message);
    }

    /// The input of a block, which is the input of what it stands in where none is given.
    fn block_input(&mut self, block: &BlockDefinition, spot: &Spot<'_>, entry: &Entry<'_>) -> Template {
        match &block.with {
            Some(with) => self.template(with, spot, &entry.member("with")),
            None => self.own_input(spot),
        }
    }

    fn own_input(&mut self, spot: &Spot<'_>) -> Template {
        self.template(&json!("${ .input }"), spot, &[])
    }

    /// Compiles a block, and finds what has to be given to it.
    fn block(&mut self, list: &List<'_>, spot: &Spot<'_>, blocks: &mut Blocks) -> Child {
        let plan = self.list(list, Some(spot));
        let path = list.block.clone().unwrap_or_default();
        let reads = plan.reads();
        let record = |id: &Arc<str>| {
            let part = |part: &str| format!("${{ .steps[\"{id}\"].{part} }}");
            let record = json!({ "state": part("state"), "output": part("output"), "error": part("error") });
            (id.to_string(), record)
        };
        let outer = (!reads.outer.is_empty()).then(|| {
            let records = Value::Object(reads.outer.iter().map(record).collect::<Map<_, _>>());
            self.template(&records, spot, &[])
        });
        let mut locals = reads.locals;
        if reads.item {
            locals.extend(["item", "index"]);
        }
        // its steps have names of their own, and what they do for each item is theirs
        locals.retain(|local| spot.has(local));
        blocks.extend(plan.blocks.iter().map(|(path, block)| (path.clone(), Arc::clone(block))));
        blocks.insert(path.clone(), Arc::new(plan));
        Child { outer, locals, ..Child::of(ChildTarget::Block(path)) }
    }

    /// A branch of a race: a block or a workflow as it is, anything else as a block of one step.
    fn branch(
        &mut self,
        level: &Level<'_>,
        (race, entry): (&Entry<'_>, &Entry<'_>),
        spot: &Spot<'_>,
        blocks: &mut Blocks,
    ) -> Branch {
        let step: &StepDefinition = &entry.step;
        let id: Arc<str> = step.id.as_str().into();
        let path = format!("{}/{}", race.step.id, step.id);
        let once = step.for_each.is_none() && step.repeat.is_none();
        match &step.action {
            ActionDefinition::Steps(block) if once => {
                let list = block_list(block, entry, level, &path);
                let with = self.block_input(block, spot, entry);
                Branch { id, child: self.block(&list, spot, blocks), with }
            }
            ActionDefinition::Workflow { workflow, with, detached: false }
                if once && step.queue.is_none() =>
            {
                let child = Child::of(ChildTarget::Workflow(workflow.clone()));
                Branch { id, child, with: self.template(with, spot, &entry.member("with")) }
            }
            _ => {
                let child = self.block(&one_step(entry.clone(), level, &path), spot, blocks);
                Branch { id, child, with: self.own_input(spot) }
            }
        }
    }

    fn approval(
        &mut self,
        level: &Level<'_>,
        (entry, approval): (&Entry<'_>, &ApprovalDefinition),
        spot: &Spot<'_>,
        blocks: &mut Blocks,
    ) -> Approval {
        let id = &entry.step.id;
        let of = approval.of.as_deref().and_then(|of| self.approved(level, (entry, of), spot));
        let asking = spot.with(Locals { feedback: true, ..Locals::default() });
        let default = if of.is_some() { OnReject::Revise } else { OnReject::Fail };
        let on_reject = approval.on_reject.unwrap_or(default);
        let again = of.filter(|_| on_reject == OnReject::Revise);
        let revise = again.and_then(|of| level.list.steps.get(of as usize)).map(|of| {
            let list = one_step(again_step(of), level, &format!("{id}/revise"));
            self.block(&list, &asking, blocks)
        });
        let path = entry.member("approval");
        let below = |member: &str| path.iter().cloned().chain([name(member)]).collect::<Vec<_>>();
        let remind = approval.remind.as_ref().map(|remind| {
            let step = Cow::Owned(remind.call.step(format!("{id}!remind")));
            let list = one_step(Entry { step, path: below("remind") }, level, &format!("{id}/remind"));
            let child = self.block(&list, &asking, blocks);
            Reminder { every_ms: remind.every_ms, child: Child { detached: true, ..child } }
        });
        let subject = of.map(|of| {
            let of = level.graph.id(of);
            self.template(&json!(format!("${{ .steps[\"{of}\"].output }}")), spot, &[])
        });
        Approval {
            of,
            subject,
            revise,
            who: approval.who.clone(),
            prompt: approval.prompt.as_ref().map(|prompt| self.template(prompt, &asking, &below("prompt"))),
            remind,
            timeout_ms: approval.timeout_ms,
            on_timeout: approval.on_timeout,
            max_iterations: approval.max_iterations.unwrap_or(ITERATIONS),
            on_reject,
        }
    }

    /// The step that is asked about; it has to have ended by then, and to be one that can be run again.
    fn approved(
        &mut self,
        level: &Level<'_>,
        (entry, of): (&Entry<'_>, &str),
        spot: &Spot<'_>,
    ) -> Option<u32> {
        let mut path = entry.member("approval");
        path.push(name("of"));
        let Some(index) = level.graph.main_index(of) else {
            self.problem(&path, ProblemCode::UnknownStepReference, level.graph.unknown(of));
            return None;
        };
        if !spot.is_upstream(&Found::Own(index, level.graph.id(index))) {
            let message = format!("step `{of}` need not have ended by then; add it to `needs`");
            self.problem(&path, ProblemCode::NotUpstream, message);
            return None;
        }
        let action = level.list.steps.get(index as usize).map(|entry| &entry.step.action)?;
        match action {
            ActionDefinition::Tool { .. }
            | ActionDefinition::Workflow { detached: false, .. }
            | ActionDefinition::Steps(_) => Some(index),
            other => {
                let message = format!(
                    "step `{of}` with `{}` cannot be run again; it must have a `tool`, a `workflow` or `steps`",
                    other.kind()
                );
                self.problem(&path, ProblemCode::BadValue, message);
                None
            }
        }
    }
}

/// The steps of a block of a step.
fn block_list<'d>(block: &'d BlockDefinition, entry: &Entry<'d>, level: &Level<'_>, path: &str) -> List<'d> {
    List {
        steps: entries(&block.steps, &entry.member("steps")),
        output: block.output.as_ref().map(|output| (output, entry.member("output"))),
        timeout_ms: entry.step.timeout_ms,
        queue: entry.step.queue.clone().or_else(|| level.list.queue.clone()),
        block: Some(level.list.path_of(path)),
        ..List::default()
    }
}

/// A block of one step.
fn one_step<'d>(entry: Entry<'d>, level: &Level<'_>, path: &str) -> List<'d> {
    let queue = entry.step.queue.clone().or_else(|| level.list.queue.clone());
    List { steps: vec![entry], queue, block: Some(level.list.path_of(path)), ..List::default() }
}

/// A step as an approval runs it again: what it does, without what decided that it is done.
fn again_step(of: &Entry<'_>) -> Entry<'static> {
    let step = StepDefinition {
        needs: Vec::new(),
        join: Join::All,
        when: None,
        on_error: OnError::Fail,
        compensate: None,
        ..StepDefinition::clone(&of.step)
    };
    Entry { step: Cow::Owned(step), path: of.path.clone() }
}
