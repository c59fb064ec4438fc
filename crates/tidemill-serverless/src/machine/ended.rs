//! A child has ended.

use serde::Deserialize;
use serde_json::{Value, json};
use tidemill_protocol::RunState;

use super::data::Spot;
use super::http;
use super::memory::{Asked, Doing, ThreadId};
use super::{Machine, Next, Stop};
use crate::document::{Action, Gives, Output, Task};
use crate::fault::{Fault, Standard};

/// An error of a run.
#[derive(Default, Deserialize)]
struct RunError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Machine<'_> {
    pub(super) fn child_ended(
        &mut self,
        key: &str,
        state: RunState,
        (output, error): (Option<&[u8]>, Option<&[u8]>),
    ) {
        let waits = |doing: &Doing| matches!(doing, Doing::Child { key: own, .. } if own == key);
        let mut threads = self.memory.threads.iter();
        let found = threads.find(|(_, thread)| thread.frames.last().is_some_and(|frame| waits(&frame.doing)));
        let Some(thread) = found.map(|(id, _)| *id) else { return };
        self.memory.open.retain(|open| open != key);
        let parsed = |text: Option<&[u8]>| {
            text.and_then(|text| serde_json::from_slice(text).ok()).unwrap_or(Value::Null)
        };
        let next = if state == RunState::Succeeded {
            self.answered(thread, &parsed(output))
        } else {
            let error =
                error.and_then(|text| serde_json::from_slice::<RunError>(text).ok()).unwrap_or_default();
            self.failed(thread, state, &error)
        };
        match next {
            Ok(next) => self.work.push_back((thread, next)),
            Err(Stop::Fault(fault)) => self.work.push_back((thread, Next::Raise(fault))),
            // the worker asks again with more fuel, from the same memo
            Err(Stop::Fuel(error)) => self.out_of_fuel = Some(error),
        }
    }

    fn answered(&mut self, thread: ThreadId, output: &Value) -> Result<Next, Stop> {
        let document = self.document;
        let Some(frame) = self.memory.top(thread).cloned() else { return Ok(Next::Wait) };
        let Some(task) = document.task(frame.task) else { return Ok(Next::Wait) };
        let Doing::Child { asked, .. } = &frame.doing else { return Ok(Next::Wait) };
        let finish = |output: Value| Ok(Next::Finish { output, flow: None });
        match (asked, &task.action) {
            (Asked::Http { request }, action) => {
                finish(http::answered(task, output, request, wanted(action))?)
            }
            (Asked::Description, Action::OpenApi(call)) => {
                let (doing, next) = self.described(call, output, &Spot::within(thread, task, &frame))?;
                self.set_doing(thread, doing);
                Ok(next)
            }
            (Asked::Process, Action::Process(process)) => finish(match process.gives {
                Gives::Stdout => output.get("stdout").cloned().unwrap_or_default(),
                Gives::Code => output.get("exit_code").cloned().unwrap_or_default(),
                Gives::Nothing => json!({}),
            }),
            (Asked::Workflow, Action::Workflow { output: false, .. }) => finish(json!({})),
            _ => finish(output.clone()),
        }
    }

    fn failed(&self, thread: ThreadId, state: RunState, error: &RunError) -> Result<Next, Stop> {
        let frame = self.memory.top(thread);
        let Some(task) = frame.and_then(|frame| self.task(frame.task)) else { return Ok(Next::Wait) };
        Err(fault_of(task, state, error).into())
    }
}

fn wanted(action: &Action) -> (Output, bool) {
    match action {
        Action::Http(call) => (call.output, call.redirect),
        Action::OpenApi(call) => (call.output, call.redirect),
        _ => (Output::Content, false),
    }
}

/// The error of a run as one of the document. What a document raised comes through as it was, apart from its place.
fn fault_of(task: &Task, state: RunState, error: &RunError) -> Fault {
    if error.code.starts_with("sw_")
        && let Ok(fault) = serde_json::from_str::<Fault>(&error.message)
    {
        return Fault { instance: task.reference.clone(), ..fault };
    }
    let standard = |kind: Standard, detail: String| Fault::standard(kind, &task.reference, detail);
    let said = if error.code.is_empty() {
        error.message.clone()
    } else {
        format!("{}: {}", error.code, error.message)
    };
    if state == RunState::Cancelled {
        return standard(Standard::Runtime, "it was cancelled".to_owned());
    }
    let kind = match error.code.as_str() {
        _ if state == RunState::TimedOut => Standard::Timeout,
        "timeout" | "connect_timeout" => Standard::Timeout,
        "invalid_input" => Standard::Validation,
        "unknown_tool" | "unknown_workflow" => Standard::Configuration,
        "address_refused" | "scheme_refused" | "redirect_refused" | "program_refused" => {
            Standard::Authorization
        }
        _ => match &task.action {
            Action::Http(_) | Action::OpenApi(_) | Action::Tool { .. } => Standard::Communication,
            _ => Standard::Runtime,
        },
    };
    standard(kind, said)
}
