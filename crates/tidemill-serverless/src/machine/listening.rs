//! Events: which a listener takes, and when it has had enough.

use bytes::Bytes;
use serde_json::{Value, json};

use super::data::{Spot, check};
use super::finish::following;
use super::memory::{Doing, Frame, Listening, Memory, ThreadId};
use super::{Machine, Next, Stop};
use crate::document::{Action, Attribute, Document, EventFilter, Flow, Listen, Read, Strategy, Task, Until};
use crate::duration::iso_time;

/// The signal under which events of a type come.
pub(crate) fn signal_of(kind: &str) -> String {
    format!("event:{kind}")
}

/// A signal that came.
pub(super) struct Came<'c> {
    pub(super) signal: &'c str,
    pub(super) id: &'c str,
    pub(super) payload: &'c Bytes,
    pub(super) by: &'c str,
    pub(super) at_ms: u64,
}

/// What an event means to a listener.
enum Meaning {
    /// It is none of its.
    Nothing,
    Taken,
    /// It was waited for to end the listening, and is not part of the output.
    Ends,
}

/// The signals that are waited for now.
pub(super) fn names(document: &Document, memory: &Memory) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let frames = memory.threads.values().flat_map(|thread| &thread.frames);
    for frame in frames {
        let action = document.task(frame.task).map(|task| &task.action);
        let (Some(Action::Listen(listen)), Doing::Listen(listening)) = (action, &frame.doing) else {
            continue;
        };
        if listening.is_over {
            continue;
        }
        let ending: &[EventFilter] =
            if let Until::Events(_, filters) = &listen.until { filters } else { &[] };
        names.extend(listen.filters.iter().chain(ending).map(|filter| filter.signal.clone()));
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// The event of a signal: its payload where that is one, else an event around it.
fn event_of(came: &Came<'_>) -> Value {
    let payload: Value = serde_json::from_slice(came.payload).unwrap_or_default();
    if payload.get("specversion").is_some_and(Value::is_string)
        && payload.get("type").is_some_and(Value::is_string)
    {
        return payload;
    }
    json!({
        "specversion": "1.0",
        "id": came.id,
        "source": came.by,
        "type": came.signal.strip_prefix("event:").unwrap_or(came.signal),
        "time": iso_time(came.at_ms),
        "data": payload,
    })
}

impl Machine<'_> {
    /// Gives a signal to every listener that means it.
    pub(super) fn signal(&mut self, came: &Came<'_>) {
        let event = event_of(came);
        let mut places = Vec::new();
        for (id, thread) in &self.memory.threads {
            for (depth, frame) in thread.frames.iter().enumerate() {
                if matches!(&frame.doing, Doing::Listen(listening) if !listening.is_over) {
                    places.push((*id, depth));
                }
            }
        }
        for (thread, depth) in places {
            match self.hear(thread, depth, (came, &event)) {
                Ok(()) => {}
                Err(Stop::Fault(fault)) => {
                    self.end_inner(thread, depth);
                    self.work.push_back((thread, Next::Raise(fault)));
                }
                Err(Stop::Fuel(error)) => self.out_of_fuel = Some(error),
            }
        }
    }

    /// Ends what a listener's `foreach` is doing.
    fn end_inner(&mut self, thread: ThreadId, depth: usize) {
        let inner = self.memory.threads.get_mut(&thread).map(|thread| thread.frames.split_off(depth + 1));
        inner.into_iter().flatten().rev().for_each(|frame| self.give_up(frame));
    }

    fn hear(
        &mut self,
        thread: ThreadId,
        depth: usize,
        (came, event): (&Came<'_>, &Value),
    ) -> Result<(), Stop> {
        let document = self.document;
        let Some(frame) =
            self.memory.threads.get(&thread).and_then(|thread| thread.frames.get(depth)).cloned()
        else {
            return Ok(());
        };
        let Some(task) = document.task(frame.task) else { return Ok(()) };
        let (Action::Listen(listen), Doing::Listen(listening)) = (&task.action, &frame.doing) else {
            return Ok(());
        };
        let mut listening = (**listening).clone();
        if listening.seen.iter().any(|seen| seen == came.id) {
            return Ok(());
        }
        let spot = Spot::within(thread, task, &frame);
        let meaning = self.meaning(listen, &mut listening, (came.signal, event), &spot)?;
        if matches!(meaning, Meaning::Nothing) {
            return Ok(());
        }
        listening.seen.push(came.id.to_owned());
        if matches!(meaning, Meaning::Taken) {
            let value = match listen.read {
                Read::Data => event.get("data").cloned().unwrap_or_default(),
                Read::Envelope => event.clone(),
            };
            listening.queue.push(value);
            self.enough(listen, &mut listening, &spot)?;
        } else {
            listening.is_over = true;
        }
        let is_idle = listening.at.is_none();
        if let Some(frame) =
            self.memory.threads.get_mut(&thread).and_then(|thread| thread.frames.get_mut(depth))
        {
            frame.doing = Doing::Listen(Box::new(listening));
        }
        if is_idle {
            let next = self.next_event(thread, listen);
            self.work.push_back((thread, next));
        }
        Ok(())
    }

    fn meaning(
        &self,
        listen: &Listen,
        listening: &mut Listening,
        (signal, event): (&str, &Value),
        spot: &Spot<'_>,
    ) -> Result<Meaning, Stop> {
        if let Until::Events(strategy, filters) = &listen.until {
            for (number, filter) in filters.iter().enumerate() {
                if self.fits(filter, &format!("u{number}"), (signal, event), (listening, spot))? {
                    if !listening.until_met.contains(&number) {
                        listening.until_met.push(number);
                    }
                    let is_met = *strategy != Strategy::All || listening.until_met.len() == filters.len();
                    return Ok(if is_met { Meaning::Ends } else { Meaning::Nothing });
                }
            }
        }
        for (number, filter) in listen.filters.iter().enumerate() {
            // with `all`, each filter has one event
            if listen.strategy == Strategy::All && listening.met.contains(&number) {
                continue;
            }
            if self.fits(filter, &number.to_string(), (signal, event), (listening, spot))? {
                listening.met.push(number);
                return Ok(Meaning::Taken);
            }
        }
        Ok(Meaning::Nothing)
    }

    /// Whether the event is of those that a filter means. What it correlates by is remembered if so.
    fn fits(
        &self,
        filter: &EventFilter,
        key: &str,
        (signal, event): (&str, &Value),
        (listening, spot): (&mut Listening, &Spot<'_>),
    ) -> Result<bool, Stop> {
        if filter.signal != signal {
            return Ok(false);
        }
        for (name, attribute) in &filter.attributes {
            let value = event.get(name).unwrap_or(&Value::Null);
            let fits = match attribute {
                Attribute::Is(wanted) => value == wanted,
                Attribute::Matches(pattern) => value.as_str().is_some_and(|text| pattern.is_match(text)),
                Attribute::Fits(dynamic) => {
                    let made = self.evaluate(dynamic, &Spot { dot: value, ..*spot })?;
                    made.as_bool().unwrap_or(made == *value)
                }
            };
            if !fits {
                return Ok(false);
            }
        }
        let mut found = Vec::new();
        for correlation in &filter.correlations {
            let value = self.filter(&correlation.from, &Spot { dot: event, ..*spot })?;
            let key = format!("{key}.{}", correlation.name);
            let expected = match &correlation.expect {
                Some(expect) => Some(self.evaluate(expect, spot)?),
                None => listening.correlated.get(&key).cloned(),
            };
            if expected.is_some_and(|expected| expected != value) {
                return Ok(false);
            }
            found.push((key, value));
        }
        listening.correlated.extend(found);
        Ok(true)
    }

    /// Whether the listener has had all that it waits for.
    fn enough(&self, listen: &Listen, listening: &mut Listening, spot: &Spot<'_>) -> Result<(), Stop> {
        listening.is_over = match (listen.strategy, &listen.until) {
            (Strategy::One, _) | (Strategy::Any, Until::First) => true,
            (Strategy::All, _) => listening.met.len() == listen.filters.len(),
            (Strategy::Any, Until::Events(..)) => false,
            (Strategy::Any, Until::Condition(condition)) => {
                // asked about all events so far
                let under_way = listening.at.iter().map(|(_, event)| event);
                let all: Value =
                    listening.taken.iter().chain(under_way).chain(&listening.queue).cloned().collect();
                self.decide(condition, &Spot { dot: &all, ..*spot })?
            }
        };
        Ok(())
    }

    /// What an idle listener does next: the tasks of `foreach` with the next event, or its end, or waiting.
    fn next_event(&mut self, thread: ThreadId, listen: &Listen) -> Next {
        let Some(Frame { doing: Doing::Listen(listening), raw, transformed, .. }) =
            self.memory.top_mut(thread)
        else {
            return Next::Wait;
        };
        let first = listen.each.as_ref().and_then(|each| each.tasks.first());
        while !listening.queue.is_empty() {
            let event = listening.queue.remove(0);
            if let Some(first) = first {
                let raw = transformed.as_ref().unwrap_or(raw).clone();
                listening.at = Some((0, event));
                return Next::Enter { task: *first, raw };
            }
            if listen.each.is_some() {
                // an iterator without tasks still makes its output
                listening.at = Some((0, event.clone()));
                return Next::Leave { output: event, flow: Flow::Exit };
            }
            listening.taken.push(event);
        }
        if !listening.is_over {
            return Next::Wait;
        }
        let output = Value::Array(std::mem::take(&mut listening.taken));
        Next::Finish { output, flow: None }
    }

    /// A task of `foreach` has ended.
    pub(super) fn event_done(
        &mut self,
        thread: ThreadId,
        listen: &Listen,
        output: Value,
        flow: Flow,
    ) -> Result<Next, Stop> {
        let document = self.document;
        let Some(each) = &listen.each else { return Ok(Next::Wait) };
        let Some(frame) = self.memory.top_mut(thread) else { return Ok(Next::Wait) };
        let Doing::Listen(listening) = &mut frame.doing else { return Ok(Next::Wait) };
        let Some((at, _)) = &mut listening.at else { return Ok(Next::Wait) };
        if let Some((position, task)) = following(&each.tasks, *at, flow) {
            *at = position;
            return Ok(Next::Enter { task, raw: output });
        }
        let frame = frame.clone();
        let Some(task) = document.task(frame.task) else { return Ok(Next::Wait) };
        let made = self.each_made(each, (task, &frame), &output, thread)?;
        if let Some(Frame { doing: Doing::Listen(listening), .. }) = self.memory.top_mut(thread) {
            listening.taken.push(made);
            listening.at = None;
        }
        Ok(self.next_event(thread, listen))
    }

    /// What an event comes to, and the context after it.
    fn each_made(
        &mut self,
        each: &crate::document::EachEvent,
        (task, frame): (&Task, &Frame),
        output: &Value,
        thread: ThreadId,
    ) -> Result<Value, Stop> {
        let spot = Spot { dot: output, output: Some((output, None)), ..Spot::within(thread, task, frame) };
        let made = self.made(&each.output, &spot)?.unwrap_or_else(|| output.clone());
        check(each.output.schema.as_ref(), &made, (task, "output of an event"))?;
        let spot = Spot { dot: &made, output: Some((output, Some(&made))), ..spot };
        if let Some(context) = self.made(&each.export, &spot)? {
            check(each.export.schema.as_ref(), &context, (task, "context"))?;
            self.memory.context = context;
        }
        Ok(made)
    }
}
