//! A turn while it is made, and what a kind of step looks at to make it.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::value::RawValue;
use tidemill_protocol::{RunState, StepState};

use super::memo::raw;
use super::{ChildRequest, ChildTarget, Event, Moment, Then};
use crate::expr::{ExprError, Fault, Limits};
use crate::plan::{Child, PlanStep};
use crate::scope::Scope;
use crate::template::Template;

/// The longest sentence about what a step waits for, in characters.
const LONGEST_WHY: usize = 300;
/// The longest note about one failure among several, in characters.
const LONGEST_NOTE: usize = 160;

/// What a step is looked at with.
#[derive(Clone, Copy)]
pub(super) struct Look<'a> {
    pub(super) step: &'a PlanStep,
    pub(super) scope: &'a Scope<'a>,
    pub(super) limits: &'a Limits,
    pub(super) events: &'a [Event],
    pub(super) items: &'a [(u64, Bytes)],
    /// Redis's time, or that of the alarm that is due if that is later.
    pub(super) now_ms: u64,
    round: u32,
}

/// A child that has ended since the last look.
#[derive(Clone, Copy)]
pub(super) struct EndedChild<'a> {
    pub(super) key: &'a str,
    pub(super) state: RunState,
    pub(super) output: Option<&'a Bytes>,
    error: Option<&'a Bytes>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Draft {
    /// Keys of the children that have not ended, with those that this turn starts.
    pub(super) open: Vec<String>,
    pub(super) children: Vec<ChildRequest>,
    pub(super) cancel: Vec<String>,
    /// When to look again.
    pub(super) wake_ms: Option<u64>,
    pub(super) listen: Vec<String>,
    pub(super) keep: Vec<(u64, Bytes)>,
    pub(super) items: Option<Vec<Bytes>>,
    pub(super) why: String,
    pub(super) round: u32,
}

/// The key that the world knows a child by: a step that was begun anew has other children than before.
fn key_of(key: &str, round: u32) -> String {
    if round == 0 { key.to_owned() } else { format!("{key}-{round}") }
}

/// Names and JSON texts.
pub(super) type Locals<'a> = [(&'a str, &'a [u8])];

impl<'a> Look<'a> {
    pub(super) fn new(step: &'a PlanStep, moment: &Moment<'a>, (now_ms, round): (u64, u32)) -> Self {
        let Moment { scope, limits, events, items, .. } = *moment;
        Self { step, scope, limits, events, items, now_ms, round }
    }

    /// The scope, with more in it.
    pub(super) fn scope_with<'s>(&self, locals: &Locals<'s>) -> Scope<'s>
    where
        'a: 's,
    {
        let mut scope: Scope<'s> = self.scope.clone();
        scope.locals.retain(|(name, _)| locals.iter().all(|(own, _)| own != name));
        scope.locals.extend_from_slice(locals);
        scope
    }

    pub(super) fn render(&self, template: &Template, locals: &Locals<'_>) -> Result<Vec<u8>, ExprError> {
        if locals.is_empty() {
            return template.render(self.scope, self.limits);
        }
        template.render(&self.scope_with(locals), self.limits)
    }

    /// The id of the run that a child of this key is.
    pub(super) fn child_id(&self, key: &str) -> String {
        format!("{}~{}.{}", self.scope.run.id, self.step.id, key_of(key, self.round))
    }

    /// The JSON text that stands for a child nobody waits for.
    pub(super) fn detached_output(&self, key: &str) -> Vec<u8> {
        let id = serde_json::Value::from(self.child_id(key));
        format!("{{\"id\":{id}}}").into_bytes()
    }

    /// A request for a child. What a block sees of this place is what it reads: of `own` first, then of what this place sees itself.
    pub(super) fn request(
        &self,
        child: &Child,
        key: String,
        input: Vec<u8>,
        own: &Locals<'_>,
    ) -> Result<ChildRequest, ExprError> {
        let locals = match child.target {
            ChildTarget::Block(_) => self.locals_of(child, own)?,
            ChildTarget::Workflow(_) => None,
        };
        Ok(ChildRequest { key, target: child.target.clone(), input, locals, detached: child.detached })
    }

    fn locals_of(&self, child: &Child, own: &Locals<'_>) -> Result<Option<Vec<u8>>, ExprError> {
        let mut locals: BTreeMap<&str, Box<RawValue>> = BTreeMap::new();
        for name in &child.locals {
            let seen = own.iter().chain(&self.scope.locals).find(|(known, _)| known == name);
            if let Some((_, text)) = seen {
                locals.insert(name, raw(&format!(".{name}"), text)?);
            }
        }
        if let Some(outer) = &child.outer {
            locals.insert("outer", raw(".outer", &self.render(outer, own)?)?);
        }
        if locals.is_empty() {
            return Ok(None);
        }
        serde_json::to_vec(&locals).map(Some).map_err(|error| {
            let (what, reason) = ("what a block sees".to_owned(), error.to_string());
            ExprError::new("locals", Fault::BadScope { what, reason })
        })
    }

    /// The first answer of the step's own tool among the events.
    pub(super) fn answer(&self) -> Option<&'a Bytes> {
        self.events.iter().find_map(|event| match event {
            Event::Answered { output } => Some(output),
            Event::Due { .. } | Event::Ended { .. } | Event::Signal { .. } | Event::Decision { .. } => None,
        })
    }
}

impl Draft {
    /// Asks for a child; from now on it is open, unless nobody waits for it.
    pub(super) fn start(&mut self, mut request: ChildRequest) {
        request.key = key_of(&request.key, self.round);
        if !request.detached {
            self.open.push(request.key.clone());
        }
        self.children.push(request);
    }

    /// Takes note of the children that ended, each once; what was not open is known already.
    pub(super) fn ended<'e>(&mut self, events: &'e [Event]) -> Vec<EndedChild<'e>> {
        let mut ended = Vec::new();
        let round = key_of("", self.round);
        for event in events {
            if let Event::Ended { child, state, output, error } = event
                && let Some(at) = self.open.iter().position(|open| open == child)
            {
                self.open.remove(at);
                ended.push(EndedChild {
                    key: child.strip_suffix(&round).unwrap_or(child),
                    state: *state,
                    output: output.as_ref(),
                    error: error.as_ref(),
                });
            }
        }
        ended
    }

    /// Has the step looked at again at this time, or earlier where that was said.
    pub(super) fn wake_at(&mut self, at_ms: u64) {
        self.wake_ms = Some(self.wake_ms.map_or(at_ms, |earlier| earlier.min(at_ms)));
    }

    pub(super) fn waits(&mut self, why: &str) -> Then {
        self.why = line(why, LONGEST_WHY);
        Then::Wait
    }
}

impl EndedChild<'_> {
    pub(super) fn succeeded(&self) -> bool {
        self.state == RunState::Succeeded
    }

    pub(super) fn output(&self) -> &[u8] {
        self.output.map_or(b"null", |output| crate::scope::text_or_null(output))
    }

    /// Its error's code, and a sentence about how it ended.
    pub(super) fn failure(&self, id: &str) -> (String, String) {
        #[derive(serde::Deserialize)]
        struct Body {
            code: String,
            message: String,
        }
        let state = self.state.as_str();
        match self.error.and_then(|error| serde_json::from_slice::<Body>(error).ok()) {
            Some(Body { code, message }) => (code, format!("run {id} ended {state}: {message}")),
            None => ("child_failed".to_owned(), format!("run {id} ended {state}")),
        }
    }

    /// In a few words, as one failure among several.
    pub(super) fn note(&self, id: &str) -> String {
        line(&self.failure(id).1, LONGEST_NOTE)
    }

    /// The end of a step that stands or falls with this child.
    pub(super) fn end(&self, id: &str) -> Then {
        if self.succeeded() {
            return Then::End(self.output().to_vec());
        }
        let (code, message) = self.failure(id);
        Then::Fail { state: StepState::Failed, code, message }
    }
}

pub(super) fn fail(code: &str, message: String) -> Then {
    Then::Fail { state: StepState::Failed, code: code.to_owned(), message }
}

pub(super) fn time_out(code: &str, message: String) -> Then {
    Then::Fail { state: StepState::TimedOut, code: code.to_owned(), message }
}

/// One line of at most so many characters.
pub(super) fn line(text: &str, longest: usize) -> String {
    let mut chars = text.chars().map(|next| if next.is_control() { ' ' } else { next });
    let mut line: String = chars.by_ref().take(longest).collect();
    if chars.next().is_some() {
        line.pop();
        line.push('…');
    }
    line
}
