//! One step of a run that is worked out.

use std::sync::Arc;

use serde_json::{Value, json};
use tidemill_protocol::{RunState, StepState};

use super::{Answer, Call, Locals, Prediction, Record, Unpredictable, Verdict, Walk};
use crate::definition::Join;
use crate::orchestrate::ChildTarget;
use crate::plan::{
    Action, Approval, Branch, Child, Decision, ForEach, Need, OnReject, OnTimeout, Plan, PlanStep, Repeat,
    Signal, Wait,
};
use crate::scope::Scope;
use crate::template::Template;

/// An expression failed.
const EXPRESSION: &str = "expression";

/// The text of a value, or how the step ends without it.
type Text = Result<Vec<u8>, Record>;

/// What an action sees besides: names and texts.
type Own<'a> = [(&'a str, &'a [u8])];

impl Walk<'_> {
    /// How a step ends whose needs have.
    pub(super) fn decide(&mut self, index: u32) -> Result<Record, Unpredictable> {
        let Some(step) = self.plan.step(index) else { return Ok(Record::skipped()) };
        let needs: Vec<Need> = step.needs.iter().map(|need| self.need(*need)).collect();
        if step.decide(&needs) == Decision::Skip {
            return Ok(Record::skipped());
        }
        // it may run before all that it reads has ended
        if step.join != Join::All && !step.references().steps.is_empty() {
            self.is_certain = false;
        }
        if let Some(when) = &step.when {
            match when.is_true(&self.scope(), &self.limits) {
                Ok(true) => {}
                Ok(false) => return Ok(Record::skipped()),
                Err(_) => return Ok(Record::failed(EXPRESSION)),
            }
        }
        self.act(index)
    }

    /// How a step ends that runs.
    pub(super) fn act(&mut self, index: u32) -> Result<Record, Unpredictable> {
        let plan = self.plan;
        let Some(step) = plan.step(index) else { return Ok(Record::skipped()) };
        if let Some(for_each) = &step.for_each {
            return self.each(step, for_each);
        }
        if let Some(repeat) = &step.repeat {
            return self.repeat(step, repeat);
        }
        Ok(match &step.action {
            Action::Tool { .. } => {
                let called = self.call(step, None, 1, &[]);
                match (&step.then_wait, called.state) {
                    (Some(wait), StepState::Succeeded) => self.callback(step, wait, called),
                    _ => called,
                }
            }
            Action::Decide => self.render(&step.with, &[]).map_or_else(|record| record, Record::succeeded),
            Action::Wait(wait) => self.wait(step, wait),
            Action::Child(child) => {
                let with = self.render(&step.with, &[]);
                self.child(step, child, ("0", with), &[])?
            }
            Action::Race(branches) => self.race(step, branches)?,
            Action::Approval(approval) => self.approval(step, approval)?,
            Action::Program(_) => return Err(Unpredictable::Program(step.id.to_string())),
        })
    }

    fn render(&self, template: &Template, own: &Own<'_>) -> Text {
        let mut scope = self.scope();
        scope.locals.retain(|(name, _)| own.iter().all(|(known, _)| known != name));
        let mut scope: Scope<'_> = scope;
        scope.locals.extend_from_slice(own);
        template.render(&scope, &self.limits).map_err(|_| Record::failed(EXPRESSION))
    }

    /// Calls the step's tool as often as it takes.
    fn call(&self, step: &PlanStep, item: Option<u64>, iteration: u32, own: &Own<'_>) -> Record {
        let input: Value = match self.render(&step.with, own) {
            Ok(input) => serde_json::from_slice(&input).unwrap_or_default(),
            Err(record) => return record,
        };
        let attempts = step.retry.max_attempts.unwrap_or_else(|| self.script.attempts()).max(1);
        for attempt in 1..=attempts {
            let call = Call { run: &self.run, step: &step.id, item, iteration, attempt, input: &input };
            match self.script.call(&call) {
                Answer::Output(output) => return Record::succeeded(output.to_string().into_bytes()),
                Answer::Fails => {}
                Answer::Refuses => break,
            }
        }
        Record::failed("failed")
    }

    fn each(&mut self, step: &PlanStep, for_each: &ForEach) -> Result<Record, Unpredictable> {
        let Ok(items) = for_each.items(&self.scope(), &self.limits) else {
            return Ok(Record::failed(EXPRESSION));
        };
        let (total, mut failed, mut outputs) = (items.len() as u64, 0, Vec::new());
        for (index, item) in (0_u64..).zip(&items) {
            let key = index.to_string();
            let own: [(&str, &[u8]); 2] = [("item", item.get().as_bytes()), ("index", key.as_bytes())];
            let record = match &step.action {
                Action::Child(child) => {
                    let with = self.render(&step.with, &own);
                    self.child(step, child, (&key, with), &own)?
                }
                _ => self.call(step, Some(index), 1, &own),
            };
            failed += u64::from(record.state != StepState::Succeeded);
            outputs.push(record.output.map_or(Value::Null, |output| value(&output)));
        }
        if failed > for_each.tolerate.of(total) {
            self.is_certain = self.is_certain && total == 1;
            return Ok(Record::failed("items_failed"));
        }
        Ok(Record::succeeded(Value::from(outputs).to_string().into_bytes()))
    }

    fn repeat(&mut self, step: &PlanStep, repeat: &Repeat) -> Result<Record, Unpredictable> {
        let mut last = b"null".to_vec();
        for iteration in 1..=repeat.max_iterations.saturating_add(1) {
            let number = iteration.to_string();
            if let Some(while_) = &repeat.while_ {
                match self.is_true(
                    while_,
                    &[("iteration", number.as_bytes()), ("previous", &last), ("output", &last)],
                ) {
                    Ok(true) => {}
                    Ok(false) => return Ok(Record::succeeded(last)),
                    Err(record) => return Ok(record),
                }
            }
            if iteration > repeat.max_iterations {
                break;
            }
            let own: [(&str, &[u8]); 2] = [("iteration", number.as_bytes()), ("previous", &last)];
            let record = match &step.action {
                Action::Child(child) => {
                    let with = self.render(&step.with, &own);
                    self.child(step, child, (&number, with), &own)?
                }
                _ => self.call(step, None, iteration, &own),
            };
            let (StepState::Succeeded, Some(output)) = (record.state, record.output.clone()) else {
                return Ok(record);
            };
            if let Some(until) = &repeat.until {
                match self.is_true(
                    until,
                    &[("iteration", number.as_bytes()), ("previous", &last), ("output", &output)],
                ) {
                    Ok(true) => return Ok(Record::succeeded(output)),
                    Ok(false) => {}
                    Err(record) => return Ok(record),
                }
            }
            last = output;
        }
        let is_counted = repeat.while_.is_none() && repeat.until.is_none();
        if repeat.continue_when_exhausted || is_counted {
            return Ok(Record::succeeded(last));
        }
        Ok(Record::failed("max_iterations"))
    }

    fn is_true(&self, condition: &crate::template::Expr, own: &Own<'_>) -> Result<bool, Record> {
        let mut scope = self.scope();
        scope.locals.retain(|(name, _)| own.iter().all(|(known, _)| known != name));
        let mut scope: Scope<'_> = scope;
        scope.locals.extend_from_slice(own);
        condition.is_true(&scope, &self.limits).map_err(|_| Record::failed(EXPRESSION))
    }

    /// Times come.
    fn wait(&self, step: &PlanStep, wait: &Wait) -> Record {
        match wait {
            Wait::For(at) | Wait::Until { at, .. } => match self.render(at, &[]) {
                // when it was is not known here
                Ok(_) => Record::succeeded(b"null".to_vec()),
                Err(record) => record,
            },
            Wait::Signal(signal) => self.signal(step, signal),
        }
    }

    fn signal(&self, step: &PlanStep, signal: &Signal) -> Record {
        match self.script.signal(&self.run, &step.id) {
            Some(payload) => Record::succeeded(payload.to_string().into_bytes()),
            None if signal.continue_on_timeout => Record::succeeded(b"null".to_vec()),
            None => Record::ended_badly(StepState::TimedOut, "signal_timeout"),
        }
    }

    fn callback(&self, step: &PlanStep, wait: &Wait, called: Record) -> Record {
        match wait {
            Wait::For(_) | Wait::Until { .. } => called,
            Wait::Signal(signal) => self.signal(step, signal),
        }
    }

    /// Runs a child to its end. Nobody waits for a detached one, but it ends all the same.
    fn child(
        &mut self,
        step: &PlanStep,
        child: &Child,
        (key, with): (&str, Text),
        own: &Own<'_>,
    ) -> Result<Record, Unpredictable> {
        let input = match with {
            Ok(input) => input,
            Err(record) => return Ok(record),
        };
        let (plan, locals) = match &child.target {
            ChildTarget::Block(path) => {
                let plan = self.plan.block(path).cloned();
                match self.locals_of(child, own) {
                    Ok(locals) => (plan.ok_or_else(|| format!("block `{path}`")), locals),
                    Err(record) => return Ok(record),
                }
            }
            ChildTarget::Workflow(name) => {
                (self.script.workflow(name).ok_or_else(|| format!("workflow `{name}`")), Locals::new())
            }
        };
        let plan: Arc<Plan> = plan.map_err(Unpredictable::Missing)?;
        let id = format!("{}~{}.{key}", self.run, step.id);
        let mut predicted = Walk::new(&plan, &id, (input, locals), self.script).walk()?;
        let record = if child.detached {
            Record::succeeded(json!({ "id": id }).to_string().into_bytes())
        } else {
            self.is_certain = self.is_certain && predicted.is_certain;
            ended(&predicted)
        };
        self.runs.append(&mut predicted.runs);
        self.runs.insert(id, predicted);
        Ok(record)
    }

    fn locals_of(&self, child: &Child, own: &Own<'_>) -> Result<Locals, Record> {
        let scope = self.scope();
        let mut locals = Locals::new();
        for name in &child.locals {
            if let Some((_, text)) = own.iter().chain(&scope.locals).find(|(known, _)| known == name) {
                locals.push(((*name).to_owned(), text.to_vec()));
            }
        }
        if let Some(outer) = &child.outer {
            locals.push(("outer".to_owned(), self.render(outer, own)?));
        }
        Ok(locals)
    }

    /// All branches are run to their ends. If more than one would win, who does is not certain; of losers it is not how far they get.
    fn race(&mut self, step: &PlanStep, branches: &[Branch]) -> Result<Record, Unpredictable> {
        let mut winners = Vec::new();
        for branch in branches {
            let with = self.render(&branch.with, &[]);
            let child = Child { detached: false, ..branch.child.clone() };
            let record = self.child(step, &child, (&branch.id, with), &[])?;
            if let (StepState::Succeeded, Some(output)) = (record.state, record.output) {
                winners.push((&branch.id, output));
                if step.one_at_a_time {
                    break;
                }
            }
        }
        self.is_certain = self.is_certain && winners.len() < 2;
        let Some((winner, output)) = winners.first() else { return Ok(Record::failed("race_lost")) };
        if !step.one_at_a_time {
            let own = |key: &str| format!("{}~{}.{key}", self.run, step.id);
            let (all, won) = (own(""), own(winner));
            let is_of = |id: &str, run: &str| id == run || id.starts_with(&format!("{run}~"));
            for (_, lost) in self.runs.iter_mut().filter(|(id, _)| id.starts_with(&all) && !is_of(id, &won)) {
                lost.is_certain = false;
            }
        }
        let output = json!({ "winner": &***winner, "output": value(output) });
        Ok(Record::succeeded(output.to_string().into_bytes()))
    }

    fn approval(&mut self, step: &PlanStep, approval: &Approval) -> Result<Record, Unpredictable> {
        let mut subject = match &approval.subject {
            Some(subject) => match self.render(subject, &[]) {
                Ok(subject) => subject,
                Err(record) => return Ok(record),
            },
            None => b"null".to_vec(),
        };
        let output = |approved: bool, verdict: Option<&Verdict>, iterations: u32, subject: &[u8]| {
            let (by, feedback) = verdict.map_or((Value::Null, &Value::Null), |verdict| {
                (verdict.by.as_str().into(), &verdict.feedback)
            });
            let output = json!({ "approved": approved, "by": by, "feedback": feedback, "iterations": iterations, "output": value(subject) });
            Record::succeeded(output.to_string().into_bytes())
        };
        let rejected = || Record::failed("approval_rejected");
        for iteration in 1.. {
            let verdict = self.script.decide(&self.run, &step.id, iteration);
            let is_approved = match (&verdict, approval.on_timeout) {
                (Some(verdict), _) => verdict.approve,
                (None, OnTimeout::Fail) => {
                    return Ok(Record::ended_badly(StepState::TimedOut, "approval_timeout"));
                }
                (None, OnTimeout::Approve) => true,
                (None, OnTimeout::Reject) => false,
            };
            if is_approved || approval.on_reject == OnReject::Continue {
                return Ok(output(is_approved, verdict.as_ref(), iteration, &subject));
            }
            let (Some(verdict), OnReject::Revise, Some(revise), true) =
                (verdict, approval.on_reject, &approval.revise, iteration < approval.max_iterations)
            else {
                break;
            };
            let (next, feedback) = ((iteration + 1).to_string(), verdict.feedback.to_string());
            let own: [(&str, &[u8]); 3] =
                [("iteration", next.as_bytes()), ("previous", &subject), ("feedback", feedback.as_bytes())];
            let with = Ok(self.input.clone());
            let record = self.child(step, revise, (&format!("r{iteration}"), with), &own)?;
            match (record.state, &record.output) {
                (StepState::Succeeded, Some(output)) => subject.clone_from(output),
                _ => return Ok(record),
            }
        }
        Ok(rejected())
    }
}

/// How a step ends whose child ended so.
fn ended(child: &Prediction) -> Record {
    match (child.state, &child.output) {
        (RunState::Succeeded, Some(output)) => Record::succeeded(output.to_string().into_bytes()),
        (RunState::Succeeded, None) => Record::succeeded(b"null".to_vec()),
        _ => Record::failed("child_failed"),
    }
}

fn value(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap_or_default()
}
