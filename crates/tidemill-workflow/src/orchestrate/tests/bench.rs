//! A step on the bench: events go into its mailbox, a look takes them all, and what must hold at any time is checked at every look.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use tidemill_protocol::RunState;

use crate::expr::Limits;
use crate::orchestrate::{
    Alarm, ChildRequest, ChildTarget, Event, Moment, Then, Turn, advance, open_children, wanted_items,
};
use crate::plan::{Action, Child, PlanStep};
use crate::scope::{LOCALS, RunView, Scope, StepView};
use crate::template::{self, Around, Expr, Found, Template};

/// A place in which there is everything.
struct Everywhere;

impl Around for Everywhere {
    fn step(&self, id: &str) -> Option<Found> {
        (id == "draft").then(|| Found::Own(0, "draft".into()))
    }

    fn is_upstream(&self, _: &Found) -> bool {
        true
    }

    fn upstream(&self) -> Vec<Found> {
        Vec::new()
    }

    fn ids(&self) -> Vec<Arc<str>> {
        Vec::new()
    }

    fn has(&self, _: &str) -> bool {
        true
    }

    fn is_closing(&self) -> bool {
        false
    }
}

pub(super) fn template(value: &Value) -> Template {
    let mut complaints = Vec::new();
    let template = template::compile(value, &Everywhere, &mut complaints);
    assert!(complaints.is_empty(), "{}", complaints[0].message);
    template
}

pub(super) fn condition(text: &str) -> Expr {
    let mut complaints = Vec::new();
    let condition = template::compile_condition(&json!(text), &Everywhere, &mut complaints);
    condition.unwrap_or_else(|| panic!("{}", complaints[0].message))
}

pub(super) fn step(action: Action, with: &Value) -> PlanStep {
    PlanStep::new("s", action, template(with))
}

/// A block that reads every local there is.
pub(super) fn block(path: &str) -> Child {
    Child { locals: LOCALS.to_vec(), ..Child::of(ChildTarget::Block(path.to_owned())) }
}

pub(super) fn workflow(name: &str) -> Child {
    Child::of(ChildTarget::Workflow(name.to_owned()))
}

/// See the module.
pub(super) struct Bench {
    pub(super) step: PlanStep,
    pub(super) now_ms: u64,
    pub(super) memo: Option<Vec<u8>>,
    pub(super) mail: Vec<Event>,
    /// All children that were ever asked for.
    pub(super) asked: Vec<ChildRequest>,
    /// Keys of those that have neither ended nor been cancelled, and that are waited for.
    pub(super) open: BTreeSet<String>,
    pub(super) cancelled: Vec<String>,
    pub(super) kept: BTreeMap<u64, Bytes>,
    items: Option<Vec<Bytes>>,
    pub(super) alarm: Option<Alarm>,
    pub(super) listen: Vec<String>,
    pub(super) why: String,
    /// How the step ended.
    pub(super) end: Option<Then>,
    /// The input of the tool under way.
    pub(super) calling: Option<Vec<u8>>,
    pub(super) looks: usize,
    /// What the place of the step sees.
    pub(super) locals: Vec<(&'static str, String)>,
    pub(super) draft_output: &'static str,
}

impl Bench {
    pub(super) fn new(step: PlanStep) -> Self {
        Self {
            step,
            now_ms: 1_000,
            memo: None,
            mail: Vec::new(),
            asked: Vec::new(),
            open: BTreeSet::new(),
            cancelled: Vec::new(),
            kept: BTreeMap::new(),
            items: None,
            alarm: None,
            listen: Vec::new(),
            why: String::new(),
            end: None,
            calling: None,
            looks: 0,
            locals: Vec::new(),
            draft_output: r#"{"text":"v1"}"#,
        }
    }

    /// The step, begun.
    pub(super) fn begun(step: PlanStep) -> Self {
        let mut bench = Self::new(step);
        bench.look();
        bench
    }

    /// What a look would do now.
    pub(super) fn peek(&self) -> Turn {
        let wanted = wanted_items(&self.step, self.memo.as_deref());
        let stored = self.items.as_deref().unwrap_or_default();
        let items: Vec<(u64, Bytes)> =
            wanted.filter_map(|item| Some((item, stored.get(item as usize)?.clone()))).collect();
        let scope = Scope {
            input: br#"{"order":42}"#,
            steps: vec![(
                0,
                StepView { state: "succeeded", output: Some(self.draft_output.as_bytes()), error: None },
            )],
            run: RunView { id: "r", workflow: "w", version: 3, ..RunView::default() },
            locals: self.locals.iter().map(|(name, text)| (*name, text.as_bytes())).collect(),
            ..Scope::default()
        };
        let memo = self.memo.as_deref();
        let moment = Moment {
            now_ms: self.now_ms,
            scope: &scope,
            limits: &Limits::default(),
            memo,
            events: &self.mail,
            items: &items,
        };
        advance(&self.step, &moment).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Looks, and carries out what comes of it. The same look gives the same turn, and all that must hold does.
    pub(super) fn look(&mut self) -> Turn {
        assert_eq!(self.end, None, "an ended step is not looked at");
        let turn = self.peek();
        assert_eq!(turn, self.peek(), "the same look gives the same turn");
        for event in self.mail.drain(..) {
            if let Event::Ended { child, .. } = event {
                self.open.remove(&child);
            }
        }
        self.looks += 1;
        for key in &turn.cancel {
            assert!(self.open.remove(key), "{key} is open when it is cancelled");
        }
        self.cancelled.extend(turn.cancel.iter().cloned());
        for child in &turn.children {
            assert!(self.asked.iter().all(|asked| asked.key != child.key), "{} is asked for once", child.key);
            if !child.detached {
                self.open.insert(child.key.clone());
            }
            self.asked.push(child.clone());
        }
        self.items = turn.items.clone().or_else(|| self.items.take());
        self.kept.extend(turn.keep.iter().cloned());
        self.calling = None;
        match &turn.then {
            Then::Wait | Then::Run { .. } => {
                let open: BTreeSet<String> = open_children(&turn.memo).into_iter().collect();
                assert_eq!(open, self.open, "the memo knows what is open");
                let wakes = turn.alarm.is_some() || !turn.listen.is_empty() || !open.is_empty();
                let is_called = matches!(turn.then, Then::Run { .. });
                let asks = matches!(self.step.action, Action::Approval(_));
                assert!(wakes || is_called || asks, "something can wake it: {turn:?}");
                assert!(is_called || !turn.why.is_empty() && turn.why.chars().count() <= 300, "{}", turn.why);
                if let Then::Run { input } = &turn.then {
                    self.calling = Some(input.clone());
                }
                if let (Some(before), Some(now)) = (self.alarm, turn.alarm) {
                    assert!(
                        now.generation > before.generation || now == before,
                        "an alarm is not changed, but set anew"
                    );
                }
                self.memo = Some(turn.memo.clone());
                self.alarm = turn.alarm;
                self.listen.clone_from(&turn.listen);
                self.why.clone_from(&turn.why);
            }
            Then::End(_) | Then::Gather { .. } | Then::Fail { .. } | Then::Skip => {
                assert!(turn.children.is_empty() && turn.publish.is_empty(), "an end starts nothing");
                assert!(self.open.is_empty(), "an end leaves nothing behind: {:?}", self.open);
                self.end = Some(turn.then.clone());
            }
        }
        turn
    }

    /// The alarm comes at its time.
    pub(super) fn ring(&mut self) -> Turn {
        let alarm = self.alarm.expect("an alarm is set");
        self.now_ms = self.now_ms.max(alarm.at_ms);
        self.mail.push(Event::Due { generation: alarm.generation });
        self.look()
    }

    pub(super) fn ended(&mut self, key: &str, state: RunState, output: &str) -> Turn {
        self.mail.push(ended(key, state, output));
        self.look()
    }

    pub(super) fn succeeded(&mut self, key: &str, output: &str) -> Turn {
        self.ended(key, RunState::Succeeded, output)
    }

    pub(super) fn failed(&mut self, key: &str) -> Turn {
        self.ended(key, RunState::Failed, "")
    }

    /// The step's own tool ends well.
    pub(super) fn answered(&mut self, output: &str) -> Turn {
        assert!(self.calling.is_some(), "a tool is under way");
        self.mail.push(Event::Answered { output: Bytes::copy_from_slice(output.as_bytes()) });
        self.look()
    }

    pub(super) fn signal(&mut self, name: &str, payload: &str) -> Turn {
        self.mail.push(signal(name, payload, self.now_ms));
        self.look()
    }

    pub(super) fn forget_items(&mut self) {
        self.items = None;
    }

    /// How many items there are.
    pub(super) fn total(&self) -> u64 {
        self.items.as_ref().map_or(0, Vec::len) as u64
    }

    /// The output that it ended with.
    pub(super) fn output(&self) -> Value {
        match &self.end {
            Some(Then::End(output)) => serde_json::from_slice(output).expect("it is JSON"),
            Some(Then::Gather { total }) => (0..*total)
                .map(|item| {
                    self.kept
                        .get(&item)
                        .map_or(Value::Null, |text| serde_json::from_slice(text).expect("it is JSON"))
                })
                .collect(),
            other => panic!("it ended well, not {other:?} ({})", self.why),
        }
    }

    /// The state, code and message that it ended with.
    pub(super) fn failure(&self) -> (&'static str, &str, &str) {
        match &self.end {
            Some(Then::Fail { state, code, message }) => (state.as_str(), code, message),
            other => panic!("it failed, not {other:?} ({})", self.why),
        }
    }

    pub(super) fn keys(&self) -> Vec<&str> {
        self.asked.iter().map(|child| child.key.as_str()).collect()
    }

    /// What the last child that was asked for is given: its input, and what it sees.
    pub(super) fn last_child(&self) -> (Value, Value) {
        let child = self.asked.last().expect("a child was asked for");
        let locals = child
            .locals
            .as_deref()
            .map_or(Value::Null, |locals| serde_json::from_slice(locals).expect("it is JSON"));
        (serde_json::from_slice(&child.input).expect("it is JSON"), locals)
    }

    pub(super) fn call(&self) -> Value {
        serde_json::from_slice(self.calling.as_ref().expect("a tool is under way")).expect("it is JSON")
    }
}

pub(super) fn ended(key: &str, state: RunState, output: &str) -> Event {
    let is_well = state == RunState::Succeeded;
    let error = Bytes::from_static(br#"{"code":"broken","message":"it broke"}"#);
    Event::Ended {
        child: key.to_owned(),
        state,
        output: is_well.then(|| Bytes::copy_from_slice(output.as_bytes())),
        error: (!is_well).then_some(error),
    }
}

pub(super) fn signal(name: &str, payload: &str, at_ms: u64) -> Event {
    let payload = Bytes::copy_from_slice(payload.as_bytes());
    Event::Signal { name: name.to_owned(), id: format!("{at_ms}"), payload, by: "bob".to_owned(), at_ms }
}
