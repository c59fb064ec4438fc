//! Waiting for a signal.
//!
//! The first one whose payload fits the schema ends the wait; one that does not fit is dropped, and said so. A signal that came is worth
//! more than a time that has passed: where both are there, the signal counts.

use serde::{Deserialize, Serialize};

use super::draft::{Draft, Look, line, time_out};
use super::timer::shown;
use super::{Event, Then};
use crate::plan::Signal;

/// See the module.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listening {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deadline_ms: Option<u64>,
    /// What was dropped last, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dropped: Option<String>,
}

impl Listening {
    pub(super) fn begin(signal: &Signal, now_ms: u64) -> Self {
        Self { deadline_ms: signal.timeout_ms.map(|ms| now_ms.saturating_add(ms)), dropped: None }
    }

    pub(super) fn look(&mut self, signal: &Signal, look: &Look<'_>, draft: &mut Draft) -> Then {
        match first_fitting(signal, look.events) {
            Ok(Some(payload)) => return Then::End(payload.to_vec()),
            Ok(None) => {}
            Err(why) => self.dropped = Some(why),
        }
        let name = &signal.name;
        let deadline_ms = match self.deadline_ms {
            Some(deadline_ms) if look.now_ms < deadline_ms => Some(deadline_ms),
            None => None,
            Some(_) if signal.continue_on_timeout => return Then::End(b"null".to_vec()),
            Some(_) => {
                let limit_ms = signal.timeout_ms.unwrap_or_default();
                let dropped = self.dropped.as_ref().map_or_else(String::new, |why| format!("; {why}"));
                return time_out(
                    "signal_timeout",
                    format!("signal `{name}` did not come within {limit_ms} ms{dropped}"),
                );
            }
        };
        draft.listen.push(name.clone());
        let mut why = format!("waits for signal `{name}`");
        if let Some(deadline_ms) = deadline_ms {
            draft.wake_at(deadline_ms);
            why.push_str(&format!(" until {}", shown(deadline_ms)));
        }
        if let Some(dropped) = &self.dropped {
            why.push_str(&format!("; {dropped}"));
        }
        draft.waits(&why)
    }
}

/// The payload of the earliest signal that fits; or why the last that came does not.
pub(super) fn first_fitting<'e>(signal: &Signal, events: &'e [Event]) -> Result<Option<&'e [u8]>, String> {
    let mut named: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Signal { name, id, payload, by, at_ms } if *name == signal.name => {
                Some((at_ms, id, payload, by))
            }
            Event::Signal { .. }
            | Event::Due { .. }
            | Event::Ended { .. }
            | Event::Decision { .. }
            | Event::Answered { .. } => None,
        })
        .collect();
    named.sort_by_key(|(at_ms, id, ..)| (*at_ms, *id));
    let mut dropped = None;
    for (_, _, payload, by) in named {
        match check(signal, payload) {
            Ok(()) => return Ok(Some(crate::scope::text_or_null(payload))),
            Err(why) => dropped = Some(line(&format!("one of {by} was dropped, {why}"), 160)),
        }
    }
    dropped.map_or(Ok(None), Err)
}

fn check(signal: &Signal, payload: &[u8]) -> Result<(), String> {
    let payload = crate::scope::text_or_null(payload);
    let value =
        serde_json::from_slice(payload).map_err(|error| format!("its payload is no JSON: {error}"))?;
    let Some(schema) = &signal.schema else { return Ok(()) };
    schema.check(&value).map_err(|violations| format!("its payload does not fit: {}", violations.join("; ")))
}
