//! A tool that does as its input says, and the same told to the reference interpreter.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tidemill_tool::{Call as ToolCall, ErrorClass, Payload, Registry, Tool, ToolError, ToolFuture};
use tidemill_workflow::Plan;
use tidemill_workflow::reference::{Answer, Call, Script, Verdict};
use tokio::sync::watch;

use super::shape::Book;

/// One piece of work: run, step with its item, iteration.
pub(super) type Work = (String, String, u64);

/// What the tool comes to.
fn answer(input: &Value, attempt: u32) -> Answer {
    let out = json!((weigh(&input["out"]) * 31 + weigh(&input["seen"]) + weigh(&input["it"])) % 9_973);
    match input["do"].as_str().unwrap_or_default() {
        "ok" => Answer::Output(out),
        "flaky" if u64::from(attempt) > input["fails"].as_u64().unwrap_or(0) => Answer::Output(out),
        "flaky" | "never" => Answer::Fails,
        _ => Answer::Refuses,
    }
}

/// A number that tells values apart, whatever the order of their members.
fn weigh(value: &Value) -> u64 {
    let text = |text: &str| text.bytes().fold(5_u64, |sum, byte| (sum * 33 + u64::from(byte)) % 9_973);
    match value {
        Value::Null => 7,
        Value::Bool(yes) => 11 + u64::from(*yes),
        Value::Number(number) => number.as_f64().map_or(0, |number| number.abs() as u64) + 13,
        Value::String(word) => text(word),
        Value::Array(list) => (17..).zip(list).map(|(at, one)| at * weigh(one)).sum::<u64>() % 9_973,
        Value::Object(members) => {
            members.iter().map(|(name, one)| text(name) * (weigh(one) + 3)).sum::<u64>() % 9_973
        }
    }
}

/// Every call of the tool, in all workers.
pub(super) struct Ledger {
    calls: Mutex<BTreeMap<Work, Vec<u32>>>,
    /// Idempotency keys and the work that came with them.
    keys: Mutex<BTreeMap<String, Vec<u64>>>,
    total: watch::Sender<usize>,
}

impl Ledger {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { calls: Mutex::default(), keys: Mutex::default(), total: watch::Sender::new(0) })
    }

    /// Tools of a worker that writes here.
    pub(super) fn registry(self: &Arc<Self>) -> Registry {
        let mut registry = Registry::new();
        registry.register("act", Arc::new(Act(Arc::clone(self)))).unwrap();
        registry
    }

    fn note(&self, call: &ToolCall, input: &Value) {
        let step = call.context.step.as_deref().unwrap_or_default().to_owned();
        let work = (call.context.id.to_string(), step, input["it"].as_u64().unwrap_or(0));
        let key = call.context.idempotency_key().into_owned();
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().push(work.2);
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.entry(work).or_default().push(call.context.attempt);
        drop(calls);
        self.total.send_modify(|total| *total += 1);
    }

    /// Attempts by the work that they are of, of the runs whose ids begin so.
    pub(super) fn of(&self, run: &str) -> BTreeMap<Work, Vec<u32>> {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls
            .iter()
            .filter(|((id, ..), _)| id.starts_with(run))
            .map(|(work, calls)| (work.clone(), calls.clone()))
            .collect()
    }

    pub(super) fn count(&self, run: &str) -> usize {
        self.of(run).values().map(Vec::len).sum()
    }

    /// Keys under which more than one piece of work was done.
    pub(super) fn shared_keys(&self) -> Vec<String> {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let is_shared = |work: &[u64]| work.iter().any(|one| *one != work[0]);
        keys.iter().filter(|(_, work)| is_shared(work)).map(|(key, _)| key.clone()).collect()
    }

    /// Waits until so many calls were made in all.
    pub(super) async fn reaches(&self, count: usize) {
        let mut total = self.total.subscribe();
        total.wait_for(|total| *total >= count).await.unwrap();
    }
}

struct Act(Arc<Ledger>);

impl Tool for Act {
    fn kind(&self) -> &'static str {
        "test"
    }

    fn call(self: Arc<Self>, call: ToolCall) -> ToolFuture {
        Box::pin(async move {
            let input: Value = call.input.parse().unwrap();
            self.0.note(&call, &input);
            // what is done takes a while, so that whoever dies may die in the midst of it
            tokio::time::sleep(Duration::from_millis(weigh(&input) % 4)).await;
            match answer(&input, call.context.attempt) {
                Answer::Output(output) => Ok(Payload::json(output.to_string())),
                Answer::Fails => Err(ToolError::new(ErrorClass::Server, "scripted", "it fails")),
                Answer::Refuses => Err(ToolError::invalid_input("it refuses")),
            }
        })
    }
}

/// What the reference asks, and was told.
pub(super) struct Told<'a> {
    id: &'a str,
    book: &'a Book,
    others: &'a BTreeMap<String, Arc<Plan>>,
    asked: RefCell<Asked>,
}

/// What a run will ask of the world around it.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    pub(super) calls: BTreeMap<Work, Vec<u32>>,
    /// Run, step and payload.
    pub(super) signals: Vec<(String, String, Value)>,
    /// Run, step, number of the question, and what is decided.
    pub(super) questions: Vec<(String, String, u32, bool)>,
}

impl<'a> Told<'a> {
    pub(super) fn new(id: &'a str, book: &'a Book, others: &'a BTreeMap<String, Arc<Plan>>) -> Self {
        Self { id, book, others, asked: RefCell::default() }
    }

    pub(super) fn asked(self) -> Asked {
        self.asked.into_inner()
    }

    /// The reference calls the run itself `run`.
    fn id(&self, run: &str) -> String {
        run.replacen("run", self.id, 1)
    }
}

impl Script for Told<'_> {
    fn call(&self, call: &Call<'_>) -> Answer {
        let step = call.item.map_or_else(|| call.step.to_owned(), |item| format!("{}[{item}]", call.step));
        let work = (self.id(call.run), step, call.input["it"].as_u64().unwrap_or(0));
        self.asked.borrow_mut().calls.entry(work).or_default().push(call.attempt);
        answer(call.input, call.attempt)
    }

    fn signal(&self, run: &str, step: &str) -> Option<Value> {
        let payload = self.book.signals.get(step)?.clone();
        self.asked.borrow_mut().signals.push((self.id(run), step.to_owned(), payload.clone()));
        Some(payload)
    }

    fn decide(&self, run: &str, step: &str, iteration: u32) -> Option<Verdict> {
        let approve = *self.book.verdicts.get(step)?.get(iteration as usize - 1)?;
        self.asked.borrow_mut().questions.push((self.id(run), step.to_owned(), iteration, approve));
        Some(Verdict { approve, by: "ada".to_owned(), feedback: json!(format!("round {iteration}")) })
    }

    fn workflow(&self, reference: &str) -> Option<Arc<Plan>> {
        self.others.get(reference).cloned()
    }
}
