//! A pool of one run: it answers tools, keeps the memo as text, and moves its clock when nothing else happens.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use serde_json::{Value, json};
use tidemill_protocol::RunState;
use tidemill_workflow::orchestrate::{ChildTarget, Event, Moment, Then, Turn, anew, open_children};
use tidemill_workflow::{Limits, Plan, RunView, Scope, ToolCatalog, advance};

/// A time that is easy to read: 2026-11-21T12:00:00Z.
pub const NOON_MS: u64 = 1_795_262_400_000;

/// The tools of the pool.
pub struct Tools;

impl ToolCatalog for Tools {
    fn knows(&self, tool: &str) -> bool {
        ["http.request", "exec.run", "echo", "shop.hold"].contains(&tool)
    }

    fn input_schema(&self, tool: &str) -> Option<Value> {
        (tool == "shop.hold").then(|| json!({ "type": "object", "required": ["order"] }))
    }

    fn names(&self) -> Vec<String> {
        ["http.request", "exec.run", "echo", "shop.hold"].map(str::to_owned).to_vec()
    }
}

/// What a child gives: an output, or state, code and message.
pub type Answer = Result<Value, (RunState, &'static str, String)>;

type Answers<'h> = Box<dyn FnMut(&str, &Value) -> Option<Answer> + 'h>;

/// How a document ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ended {
    Output(Value),
    Fault(Value),
    /// It waits for what nobody sends.
    Stuck,
}

pub struct Host<'h> {
    plan: Plan,
    input: Vec<u8>,
    pub now_ms: u64,
    memo: Option<Vec<u8>>,
    mail: VecDeque<Event>,
    alarm_ms: Option<u64>,
    waiting: BTreeMap<String, (String, Value)>,
    signals: VecDeque<(String, Value)>,
    /// What children were asked to do: tool or workflow, and input, in order.
    pub asked: Vec<(String, Value)>,
    pub cancelled: Vec<String>,
    pub published: Vec<Value>,
    pub listened: Vec<String>,
    pub whys: Vec<String>,
    /// Answers a child by what it runs and its input; `None` leaves it running.
    answer: Answers<'h>,
}

impl<'h> Host<'h> {
    pub fn new(document: &str, input: &Value) -> Self {
        let plan = match tidemill_serverless::plan(document, "test.sw.yaml", &Tools) {
            Ok(plan) => plan,
            Err(problems) => panic!("the document is refused:\n{problems}"),
        };
        Self {
            plan,
            input: input.to_string().into_bytes(),
            now_ms: NOON_MS,
            memo: None,
            mail: VecDeque::new(),
            alarm_ms: None,
            waiting: BTreeMap::new(),
            signals: VecDeque::new(),
            asked: Vec::new(),
            cancelled: Vec::new(),
            published: Vec::new(),
            listened: Vec::new(),
            whys: Vec::new(),
            answer: Box::new(|_, input| Some(Ok(input.clone()))),
        }
    }

    pub fn answering(mut self, answer: impl FnMut(&str, &Value) -> Option<Answer> + 'h) -> Self {
        self.answer = Box::new(answer);
        self
    }

    pub fn signal(mut self, kind: &str, payload: Value) -> Self {
        self.signals.push_back((format!("event:{kind}"), payload));
        self
    }

    /// Runs the document until it ends or waits for what nobody sends.
    pub fn run(&mut self) -> Ended {
        for _ in 0..10_000 {
            if let Some(ended) = self.turn() {
                return ended;
            }
        }
        panic!("the document goes on for ever");
    }

    /// One turn, and whatever happens next.
    pub fn turn(&mut self) -> Option<Ended> {
        let ended = self.step();
        if ended.is_some() || !self.mail.is_empty() || self.answered() || self.signalled() {
            return ended;
        }
        match self.alarm_ms {
            Some(at_ms) => self.now_ms = self.now_ms.max(at_ms),
            None => return Some(Ended::Stuck),
        }
        None
    }

    fn step(&mut self) -> Option<Ended> {
        let events: Vec<Event> = self.mail.drain(..).collect();
        let turn = self.look(&events);
        assert_eq!(turn, self.look(&events), "a turn that is taken again is the same");
        self.cancelled.extend(turn.cancel.iter().cloned());
        for key in &turn.cancel {
            self.waiting.remove(key);
        }
        match turn.then {
            Then::Wait => {}
            Then::End(ref output) => {
                assert!(turn.children.is_empty() && turn.publish.is_empty(), "a last turn asks for nothing");
                return Some(Ended::Output(serde_json::from_slice(output).expect("the output is JSON")));
            }
            Then::Fail { message, .. } => {
                return Some(Ended::Fault(serde_json::from_str(&message).unwrap_or_else(|_| message.into())));
            }
            other => panic!("a program never does {other:?}"),
        }
        for child in turn.children {
            let input: Value = serde_json::from_slice(&child.input).expect("an input is JSON");
            let what = match &child.target {
                ChildTarget::Workflow(name) => name.clone(),
                ChildTarget::Block(path) => self.tool_of(path),
            };
            self.asked.push((what.clone(), input.clone()));
            if !child.detached {
                let twice = self.waiting.insert(child.key, (what, input));
                assert!(twice.is_none(), "a key stands for one child");
            }
        }
        self.published.extend(
            turn.publish.iter().map(|event| serde_json::from_slice(event).expect("an event is JSON")),
        );
        self.alarm_ms = turn.alarm.map(|alarm| alarm.at_ms);
        self.listened = turn.listen;
        self.whys.push(turn.why);
        self.memo = Some(turn.memo);
        None
    }

    /// Somebody has it begin again from the start.
    pub fn anew(&mut self) {
        self.memo = self.memo.as_deref().map(|memo| anew(Some(memo)));
        self.waiting.clear();
    }

    /// Children that have not ended, as the memo tells.
    pub fn open(&self) -> Vec<String> {
        open_children(self.memo.as_deref().unwrap_or_default())
    }

    fn look(&self, events: &[Event]) -> Turn {
        let run = RunView {
            id: "r1",
            workflow: &self.plan.name,
            version: 1,
            tenant: Some("acme"),
            ..RunView::default()
        };
        let scope = Scope { input: &self.input, run, ..Scope::default() };
        let moment = Moment {
            now_ms: self.now_ms,
            scope: &scope,
            limits: &Limits::default(),
            memo: self.memo.as_deref(),
            events,
            items: &[],
        };
        advance(&self.plan.steps[0], &moment).expect("fuel is enough")
    }

    fn tool_of(&self, path: &str) -> String {
        let block = self.plan.block(path).unwrap_or_else(|| panic!("there is no block {path}"));
        assert_eq!(block.reference(), format!("{}@{}#{path}", self.plan.name, self.plan.version));
        block.tools().first().map(ToString::to_string).unwrap_or_default()
    }

    /// Answers the children that have an answer.
    fn answered(&mut self) -> bool {
        let keys: Vec<String> = self.waiting.keys().cloned().collect();
        for key in keys {
            let Some((what, input)) = self.waiting.get(&key) else { continue };
            let Some(answer) = (self.answer)(what, input) else { continue };
            self.waiting.remove(&key);
            let event = match answer {
                Ok(output) => Event::Ended {
                    child: key,
                    state: RunState::Succeeded,
                    output: Some(Bytes::from(output.to_string())),
                    error: None,
                },
                Err((state, code, message)) => Event::Ended {
                    child: key,
                    state,
                    output: None,
                    error: Some(Bytes::from(json!({ "code": code, "message": message }).to_string())),
                },
            };
            // whatever comes may come twice
            self.mail.push_back(event.clone());
            self.mail.push_back(event);
        }
        !self.mail.is_empty()
    }

    /// Sends the first signal that is listened for.
    fn signalled(&mut self) -> bool {
        let at = self.signals.iter().position(|(name, _)| self.listened.contains(name));
        let Some((name, payload)) = at.and_then(|at| self.signals.remove(at)) else { return false };
        let id = format!("s{}", self.signals.len());
        let payload = Bytes::from(payload.to_string());
        let event = Event::Signal { name, id, payload, by: "tester".into(), at_ms: self.now_ms };
        self.mail.push_back(event.clone());
        self.mail.push_back(event);
        true
    }
}

/// A document of this `do`.
pub fn document(tasks: &str) -> String {
    let indented: String = tasks.trim_matches('\n').lines().map(|line| format!("  {line}\n")).collect();
    format!("document: {{ dsl: '1.0.1', namespace: test, name: doc, version: '0.1.0' }}\ndo:\n{indented}")
}

/// What a document of this `do` gives, with tools that echo.
pub fn given(tasks: &str, input: &Value) -> Ended {
    Host::new(&document(tasks), input).run()
}

/// Its output.
pub fn output(tasks: &str, input: &Value) -> Value {
    match given(tasks, input) {
        Ended::Output(output) => output,
        other => panic!("no output but {other:?}"),
    }
}

/// Its fault.
pub fn fault(tasks: &str, input: &Value) -> Value {
    match given(tasks, input) {
        Ended::Fault(fault) => fault,
        other => panic!("no fault but {other:?}"),
    }
}
