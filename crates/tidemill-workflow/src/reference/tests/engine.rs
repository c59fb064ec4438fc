//! All that carries runs out, in memory: streams, workers, timers. What happens next is drawn; workers die before they tell, and what is
//! told is told twice.

mod claim;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use tidemill_protocol::{RunState, StepState};

use self::claim::{output_of, stands};
use crate::orchestrate::{Alarm, ChildRequest, ChildTarget, Close, Event, Standing, Then, Turn, closing};
use crate::plan::{Action, Decision, Need, Plan};
use crate::reference::{Answer, Call, Script};

/// A step of a run.
#[derive(Default)]
struct Slot {
    state: Option<StepState>,
    output: Option<Vec<u8>>,
    error: Option<Vec<u8>>,
    ended: u64,
    memo: Option<Vec<u8>>,
    mail: Vec<Event>,
    told: Vec<Event>,
    items: Vec<Bytes>,
    kept: BTreeMap<u64, Bytes>,
    alarm: Option<Alarm>,
    listen: Vec<String>,
    attempt: u32,
    /// How often its tool has answered.
    answered: u32,
    questions: u32,
    open: HashSet<String>,
    then: Option<Then>,
}

struct Run {
    plan: Arc<Plan>,
    input: Vec<u8>,
    locals: Value,
    slots: Vec<Slot>,
    parent: Option<(String, u32, String)>,
    to: Option<RunState>,
    end: Option<RunState>,
    output: Option<Value>,
}

/// See the module.
pub(super) struct Engine<'s> {
    script: &'s dyn Script,
    runs: BTreeMap<String, Run>,
    /// Steps that are in their queues, or waited for an attempt.
    ready: Vec<(String, u32)>,
    now_ms: u64,
    ends: u64,
    dice: Box<dyn FnMut(usize) -> usize + 's>,
}

impl<'s> Engine<'s> {
    pub(super) fn new(script: &'s dyn Script, dice: impl FnMut(usize) -> usize + 's) -> Self {
        Self {
            script,
            runs: BTreeMap::new(),
            ready: Vec::new(),
            now_ms: 1_000,
            ends: 0,
            dice: Box::new(dice),
        }
    }

    /// Carries a run out to its end; gives how it and those that it started ended, and how their steps did.
    #[expect(clippy::type_complexity, reason = "it is told to one test")]
    pub(super) fn run(
        mut self,
        plan: &Arc<Plan>,
        input: &Value,
    ) -> BTreeMap<String, (RunState, Option<Value>, BTreeMap<String, StepState>)> {
        self.start("run", plan, (input.to_string().into_bytes(), Value::Null), None);
        let mut moves = 0;
        while self.step() {
            moves += 1;
            assert!(moves < 100_000, "it does not end");
        }
        let told = self.runs.into_iter().map(|(id, run)| {
            let state = |slot: &Slot| slot.state.unwrap_or(StepState::Pending);
            let steps =
                run.plan.steps.iter().zip(&run.slots).map(|(step, slot)| (step.id.to_string(), state(slot)));
            let end = run.end.unwrap_or_else(|| panic!("run {id} has not ended"));
            (id, (end, run.output, steps.collect()))
        });
        told.collect()
    }

    fn start(
        &mut self,
        id: &str,
        plan: &Arc<Plan>,
        (input, locals): (Vec<u8>, Value),
        parent: Option<(String, u32, String)>,
    ) {
        assert!(!self.runs.contains_key(id), "{id} is started once");
        let slots = plan.steps.iter().map(|_| Slot::default()).collect();
        let (to, end, output) = (None, None, None);
        self.runs.insert(
            id.to_owned(),
            Run { plan: Arc::clone(plan), input, locals, slots, parent, to, end, output },
        );
        for root in plan.roots() {
            self.dispatch(id, *root);
        }
    }

    fn dispatch(&mut self, run: &str, step: u32) {
        let slot = self.slot(run, step);
        assert_eq!(slot.state, None, "a step is dispatched once");
        slot.state = Some(StepState::Ready);
        slot.attempt = 1;
        self.ready.push((run.to_owned(), step));
    }

    fn slot(&mut self, run: &str, step: u32) -> &mut Slot {
        let run = self.runs.get_mut(run).expect("the run exists");
        &mut run.slots[step as usize]
    }

    /// One thing happens; false when nothing is left.
    fn step(&mut self) -> bool {
        if !self.ready.is_empty() && (self.dice)(4) > 0 {
            let at = (self.dice)(self.ready.len());
            let (run, step) = self.ready.swap_remove(at);
            if (self.dice)(10) == 0 {
                // the worker dies before it has told what it did
                drop(self.claim(&run, step));
                self.ready.push((run, step));
                return true;
            }
            self.work(&run, step);
            return true;
        }
        let waiting: Vec<(String, u32)> = self
            .runs
            .iter()
            .flat_map(|(id, run)| {
                (0_u32..)
                    .zip(&run.slots)
                    .map(move |(step, slot)| (id.clone(), step, slot.then == Some(Then::Wait)))
            })
            .filter_map(|(id, step, waits)| waits.then_some((id, step)))
            .collect();
        if waiting.is_empty() {
            return !self.ready.is_empty();
        }
        let (run, step) = waiting[(self.dice)(waiting.len())].clone();
        self.happen(&run, step);
        true
    }

    /// Something happens to a step that waits.
    fn happen(&mut self, id: &str, step: u32) {
        let run = &self.runs[id];
        let (slot, planned) = (&run.slots[step as usize], &run.plan.steps[step as usize]);
        if !slot.told.is_empty() && (self.dice)(4) == 0 {
            let again = slot.told[(self.dice)(slot.told.len())].clone();
            return self.tell(id, step, again);
        }
        if let [name] = slot.listen.as_slice()
            && let Some(payload) = self.script.signal(id, &planned.id)
        {
            let payload = Bytes::from(payload.to_string());
            let (name, at_ms) = (name.clone(), self.now_ms);
            return self.tell(
                id,
                step,
                Event::Signal { name, id: "1".to_owned(), payload, by: "bob".to_owned(), at_ms },
            );
        }
        if matches!(planned.action, Action::Approval(_))
            && slot.open.is_empty()
            && let Some(verdict) = self.script.decide(id, &planned.id, slot.questions + 1)
        {
            self.now_ms += 1;
            let (approve, by, at_ms) = (verdict.approve, verdict.by, self.now_ms);
            let feedback = Bytes::from(verdict.feedback.to_string());
            self.slot(id, step).questions += 1;
            return self.tell(id, step, Event::Decision { approve, by, roles: Vec::new(), feedback, at_ms });
        }
        if let Some(alarm) = slot.alarm {
            self.now_ms = self.now_ms.max(alarm.at_ms);
            self.tell(id, step, Event::Due { generation: alarm.generation });
        }
    }

    fn tell(&mut self, id: &str, step: u32, event: Event) {
        let slot = self.slot(id, step);
        slot.mail.push(event.clone());
        slot.told.push(event);
        if slot.then.take_if(|then| *then == Then::Wait).is_some() {
            slot.state = Some(StepState::Ready);
            self.ready.push((id.to_owned(), step));
        }
    }

    fn work(&mut self, id: &str, step: u32) {
        let run = &self.runs[id];
        if run.end.is_some() || (run.to.is_some() && step < run.plan.main()) {
            return self.end_step(id, step, (StepState::Cancelled, None, None));
        }
        let turn = self.claim(id, step);
        let Turn { memo, children, cancel, alarm, listen, keep, items, then, .. } = turn;
        for key in &cancel {
            let name = self.runs[id].plan.steps[step as usize].id.clone();
            self.stop(&format!("{id}~{name}.{key}"), RunState::Cancelled);
        }
        let slot = self.slot(id, step);
        slot.mail.clear();
        slot.kept.extend(keep);
        slot.open.retain(|key| !cancel.contains(key));
        if let Some(items) = items {
            slot.items = items;
        }
        if matches!(then, Then::Wait | Then::Run { .. }) {
            slot.memo = (!memo.is_empty()).then_some(memo);
            (slot.alarm, slot.listen, slot.then) = (alarm, listen, Some(then.clone()));
            slot.state = Some(StepState::Running);
            for child in children {
                self.ask(id, step, child);
            }
        } else {
            assert!(children.is_empty());
        }
        match then {
            Then::Wait => {}
            Then::Run { input } => self.call(id, step, &input),
            Then::End(output) => self.end_step(id, step, (StepState::Succeeded, Some(output), None)),
            Then::Gather { total } => {
                let kept = &self.slot(id, step).kept;
                let outputs: Value = (0..total)
                    .map(|item| {
                        kept.get(&item)
                            .map_or(Value::Null, |text| serde_json::from_slice(text).expect("it is JSON"))
                    })
                    .collect();
                self.end_step(id, step, (StepState::Succeeded, Some(outputs.to_string().into_bytes()), None));
            }
            Then::Fail { state, code, message } => {
                let error = serde_json::json!({ "code": code, "message": message }).to_string().into_bytes();
                self.end_step(id, step, (state, None, Some(error)));
            }
            Then::Skip => self.end_step(id, step, (StepState::Skipped, None, None)),
        }
    }

    fn call(&mut self, id: &str, step: u32, input: &[u8]) {
        let input: Value = serde_json::from_slice(input).expect("it is JSON");
        let planned = self.runs[id].plan.steps[step as usize].clone();
        let slot = self.slot(id, step);
        let (attempt, iteration) = (slot.attempt, slot.answered + 1);
        let answer = self.script.call(&Call {
            run: id,
            step: &planned.id,
            item: None,
            iteration,
            attempt,
            input: &input,
        });
        let most = planned.retry.max_attempts.unwrap_or_else(|| self.script.attempts());
        match answer {
            Answer::Output(output) if planned.is_orchestrated() => {
                let slot = self.slot(id, step);
                (slot.answered, slot.attempt, slot.then) = (iteration, 1, None);
                slot.mail.push(Event::Answered { output: Bytes::from(output.to_string()) });
                self.ready.push((id.to_owned(), step));
            }
            Answer::Output(output) => {
                self.end_step(id, step, (StepState::Succeeded, Some(output.to_string().into_bytes()), None));
            }
            Answer::Fails if attempt < most => {
                self.slot(id, step).attempt += 1;
                self.ready.push((id.to_owned(), step));
            }
            Answer::Fails | Answer::Refuses => {
                let error = br#"{"code":"failed","message":"failed"}"#.to_vec();
                self.end_step(id, step, (StepState::Failed, None, Some(error)));
            }
        }
    }

    fn ask(&mut self, id: &str, step: u32, child: ChildRequest) {
        let plan = &self.runs[id].plan;
        let wanted = match &child.target {
            ChildTarget::Block(path) => plan.block(path).cloned(),
            ChildTarget::Workflow(name) => self.script.workflow(name),
        };
        let name = plan.steps[step as usize].id.clone();
        if !child.detached {
            self.slot(id, step).open.insert(child.key.clone());
        }
        let parent = (!child.detached).then(|| (id.to_owned(), step, child.key.clone()));
        let locals =
            child.locals.map_or(Value::Null, |locals| serde_json::from_slice(&locals).expect("it is JSON"));
        self.start(
            &format!("{id}~{name}.{}", child.key),
            &wanted.expect("it exists"),
            (child.input, locals),
            parent,
        );
    }

    fn end_step(
        &mut self,
        id: &str,
        step: u32,
        (state, output, error): (StepState, Option<Vec<u8>>, Option<Vec<u8>>),
    ) {
        self.ends += 1;
        let ended = self.ends;
        let slot = self.slot(id, step);
        assert!(!slot.state.is_some_and(StepState::is_terminal), "a step ends once");
        (slot.state, slot.output, slot.error, slot.ended, slot.then) =
            (Some(state), output, error, ended, None);
        let run = &self.runs[id];
        if run.end.is_some() {
            return;
        }
        if run.to.is_some() {
            return self.close(id);
        }
        let plan = Arc::clone(&run.plan);
        let planned = &plan.steps[step as usize];
        let fails = stands(run, step) == Need::Failed;
        if fails
            && (plan.failure == crate::definition::FailurePolicy::FailFast || planned.compensate_on_error)
        {
            return self.decide_end(id, RunState::Failed);
        }
        for dependent in plan.dependents(step) {
            let run = &self.runs[id];
            let needs: Vec<Need> =
                plan.steps[*dependent as usize].needs.iter().map(|need| stands(run, *need)).collect();
            if run.slots[*dependent as usize].state.is_none()
                && plan.steps[*dependent as usize].decide(&needs) != Decision::Wait
            {
                self.dispatch(id, *dependent);
            }
        }
        let run = &self.runs[id];
        let main = 0..plan.main();
        if main.clone().all(|step| run.slots[step as usize].state.is_some_and(StepState::is_terminal)) {
            let any_failed = main.into_iter().any(|step| stands(run, step) == Need::Failed);
            let output = output_of(id, run).filter(|_| !any_failed);
            let to = if output.is_some() { RunState::Succeeded } else { RunState::Failed };
            self.runs.get_mut(id).expect("the run exists").output = output;
            self.decide_end(id, to);
        }
    }

    /// The run's end is decided: what waits is stopped, and what is in flight ends by itself.
    fn decide_end(&mut self, id: &str, to: RunState) {
        self.runs.get_mut(id).expect("the run exists").to = Some(to);
        let count = self.runs[id].plan.main();
        for step in 0..count {
            let slot = self.slot(id, step);
            let waits = slot.then.take_if(|then| *then == Then::Wait).is_some();
            let open: Vec<String> = std::mem::take(&mut slot.open).into_iter().collect();
            let name = self.runs[id].plan.steps[step as usize].id.clone();
            for key in open {
                self.stop(&format!("{id}~{name}.{key}"), RunState::Cancelled);
            }
            if waits {
                self.end_step(id, step, (StepState::Cancelled, None, None));
            }
        }
        self.close(id);
    }

    /// Somebody has no use for a run any more.
    fn stop(&mut self, id: &str, to: RunState) {
        if let Some(run) = self.runs.get(id)
            && run.end.is_none()
            && run.to.is_none()
        {
            self.decide_end(id, to);
        }
    }

    fn close(&mut self, id: &str) {
        let run = &self.runs[id];
        let (Some(to), None) = (run.to, run.end) else { return };
        let standing =
            |slot: &Slot| Standing { state: slot.state.unwrap_or(StepState::Pending), ended: slot.ended };
        let standings: Vec<Standing> = run.slots.iter().map(standing).collect();
        match closing(&run.plan, &standings, to, true) {
            Close::Wait => {}
            Close::Dispatch(step) => self.dispatch(id, step),
            Close::End(state) => self.end_run(id, state),
        }
    }

    fn end_run(&mut self, id: &str, state: RunState) {
        let run = self.runs.get_mut(id).expect("the run exists");
        run.end = Some(state);
        run.output.take_if(|_| state != RunState::Succeeded);
        let output = run.output.as_ref().map(|output| Bytes::from(output.to_string()));
        if let Some((parent, step, key)) = run.parent.clone() {
            self.slot(&parent, step).open.remove(&key);
            let event = Event::Ended { child: key, state, output, error: None };
            let slot = self.slot(&parent, step);
            if !slot.state.is_some_and(StepState::is_terminal) {
                self.tell(&parent, step, event);
            }
        }
    }
}
