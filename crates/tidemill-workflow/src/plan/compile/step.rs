//! One step.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::{Compiler, Entry, Level, name};
use crate::definition::{ActionDefinition, Join, OnError, RepeatDefinition, StepDefinition, WaitDefinition};
use crate::plan::spot::{Locals, Spot};
use crate::plan::{Action, ForEach, Plan, PlanStep, Repeat, Tolerance};
use crate::source::Segment;
use crate::template::{self, Expr, Gate, Template};

/// Items that `for_each` runs at once where the definition does not say.
const CONCURRENCY: u32 = 10;
/// Iterations of `repeat` where the definition does not say.
const ITERATIONS: u32 = 100;

/// Blocks by their paths.
pub(super) type Blocks = HashMap<String, Arc<Plan>>;

impl Compiler<'_> {
    pub(super) fn step(
        &mut self,
        level: &Level<'_>,
        (at, entry): (u32, &Entry<'_>),
        blocks: &mut Blocks,
    ) -> PlanStep {
        let step: &StepDefinition = &entry.step;
        let graph = level.graph;
        let spot = Spot::of_step(graph, at, level.around);
        let condition =
            step.when.as_ref().and_then(|when| self.condition(when, &spot, &entry.member("when")));
        let for_each = self.for_each(entry, &spot);
        let inside = spot.with(Locals {
            item: for_each.is_some(),
            repeats: step.repeat.is_some(),
            feedback: level.revised.contains(&at),
            output: false,
        });
        let repeat = step.repeat.as_ref().map(|repeat| self.repeat(repeat, entry, &inside));
        let after = spot.with(Locals { output: true, ..Locals::default() });
        let wait: Option<&WaitDefinition> = step.then_wait.as_ref();
        let then_wait = wait.map(|wait| self.wait(wait, &after, &entry.member("wait")));
        let (action, with) = self.action(level, entry, &inside, blocks);
        PlanStep {
            needs: graph.needs_of(at).to_vec(),
            join: step.join,
            when: Expr::behind(gates(level, (at, step.join)), condition),
            chosen_by: level.choices.of(at),
            rescues: level.gotos.to(at).to_vec(),
            for_each,
            repeat,
            then_wait,
            continue_on_error: matches!(step.on_error, OnError::Continue | OnError::Goto(_)),
            compensate_on_error: step.on_error == OnError::Compensate,
            ..of_call(step, PlanStep::new(&graph.id(at), action, with))
        }
    }

    /// A step that only calls a tool, for the end of a run.
    pub(super) fn call(&mut self, entry: &Entry<'_>, id: Arc<str>, spot: &Spot<'_>) -> PlanStep {
        let step: &StepDefinition = &entry.step;
        let when = step.when.as_ref().and_then(|when| self.condition(when, spot, &entry.member("when")));
        let (action, with) = match &step.action {
            ActionDefinition::Tool { tool, with } => self.tool_call(tool, with, spot, &entry.path),
            // which has been refused
            _ => (Action::Decide, self.template(&Value::Null, spot, &entry.path)),
        };
        PlanStep { when, ..of_call(step, PlanStep { id, ..PlanStep::new("", action, with) }) }
    }

    pub(super) fn tool_call(
        &mut self,
        tool: &str,
        with: &Value,
        spot: &Spot<'_>,
        path: &[Segment],
    ) -> (Action, Template) {
        let before = self.problems.len();
        let below: Vec<Segment> = path.iter().cloned().chain([name("with")]).collect();
        let with = self.template(with, spot, &below);
        // what did not compile stands in it as null, which nobody wrote
        self.tool(tool, Some(&with).filter(|_| self.problems.len() == before), path);
        (Action::Tool { tool: tool.into() }, with)
    }

    pub(super) fn condition(&mut self, value: &Value, spot: &Spot<'_>, path: &[Segment]) -> Option<Expr> {
        let mut complaints = Vec::new();
        let condition = template::compile_condition(value, spot, &mut complaints);
        self.complaints(path, complaints);
        condition
    }

    fn for_each(&mut self, entry: &Entry<'_>, spot: &Spot<'_>) -> Option<ForEach> {
        let for_each = entry.step.for_each.as_ref()?;
        let mut path = entry.member("for_each");
        // it may be the items themselves
        if self.origin.root.member_at(&path).is_some_and(|node| node.member("items").is_some()) {
            path.push(name("items"));
        }
        Some(ForEach {
            items: self.template(&for_each.items, spot, &path),
            concurrency: for_each.concurrency.unwrap_or(CONCURRENCY),
            batch: for_each.batch.unwrap_or(0),
            tolerate: for_each.tolerate.unwrap_or(Tolerance::Count(0)),
        })
    }

    fn repeat(&mut self, repeat: &RepeatDefinition, entry: &Entry<'_>, inside: &Spot<'_>) -> Repeat {
        let spot = inside.with(Locals { output: true, ..Locals::default() });
        let mut asked = |value: &Option<Value>, member: &str| {
            let mut path = entry.member("repeat");
            path.push(name(member));
            value.as_ref().and_then(|value| self.condition(value, &spot, &path))
        };
        Repeat {
            while_: asked(&repeat.while_, "while"),
            until: asked(&repeat.until, "until"),
            max_iterations: repeat.max_iterations.unwrap_or(ITERATIONS),
            every_ms: repeat.every_ms.unwrap_or(0),
            continue_when_exhausted: repeat.continue_when_exhausted,
        }
    }
}

/// What has to be so for the step to run, besides its condition.
fn gates(level: &Level<'_>, (at, join): (u32, Join)) -> Vec<Gate> {
    let named = |step: u32| (step, level.graph.id(step));
    let chosen =
        level.choices.of(at).map(|by| Gate::Chosen { switch: named(by.switch), step: level.graph.id(at) });
    let rescues = level.gotos.to(at);
    let failed = (!rescues.is_empty()).then(|| Gate::Failed(rescues.iter().copied().map(named).collect()));
    // a join that does not wait for all counts a failed need as failed; whether it has failed already would be a matter of time
    let spared = if join == Join::All { level.gotos.spared(level.graph, at) } else { Vec::new() };
    let spared = spared.into_iter().map(|step| Gate::Spared(named(step)));
    chosen.into_iter().chain(failed).chain(spared).collect()
}

/// What a step has of a call.
fn of_call(step: &StepDefinition, planned: PlanStep) -> PlanStep {
    PlanStep { retry: step.retry.clone(), timeout_ms: step.timeout_ms, queue: step.queue.clone(), ..planned }
}
