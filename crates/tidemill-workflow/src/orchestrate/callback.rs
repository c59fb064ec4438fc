//! Calling the step's tool, then waiting: for what was asked to call back, or for some time.
//!
//! An answer can be there before the tool has ended; it is kept.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Then;
use super::draft::{Draft, Look, fail};
use super::memo::{raw, text};
use super::signal::{Listening, first_fitting};
use super::timer::Timer;
use crate::expr::ExprError;
use crate::plan::Wait;

/// See the module.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Callback {
    /// The tool is under way.
    Calling {
        /// Payload of a signal that came already.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        early: Option<Box<RawValue>>,
    },
    /// It has ended.
    Listening(Listening),
    /// It has ended with this output.
    Resting { timer: Timer, output: Box<RawValue> },
}

impl Callback {
    pub(super) const fn new() -> Self {
        Self::Calling { early: None }
    }

    pub(super) fn look(&mut self, look: &Look<'_>, draft: &mut Draft) -> Result<Then, ExprError> {
        let Some(wait) = &look.step.then_wait else {
            return Ok(fail("memo_corrupt", "its memo waits for what the step does not wait for".to_owned()));
        };
        if let Self::Calling { early } = self {
            if early.is_none()
                && let Wait::Signal(signal) = wait
                && let Ok(Some(payload)) = first_fitting(signal, look.events)
            {
                *early = Some(raw("a signal's payload", payload)?);
            }
            let Some(output) = look.answer() else { return calling(wait, look, draft) };
            if let Some(early) = early {
                return Ok(Then::End(text(Some(early)).to_vec()));
            }
            *self = match wait {
                Wait::Signal(signal) => Self::Listening(Listening::begin(signal, look.now_ms)),
                Wait::For(_) | Wait::Until { .. } => match Timer::begin(wait, look, &[("output", output)])? {
                    Ok(timer) => Self::Resting { timer, output: raw("the tool's output", output)? },
                    Err(then) => return Ok(then),
                },
            };
        }
        Ok(match (self, wait) {
            (Self::Listening(listening), Wait::Signal(signal)) => listening.look(signal, look, draft),
            (Self::Resting { timer, output }, Wait::For(_) | Wait::Until { .. }) => {
                match timer.look(look, draft) {
                    Then::End(_) => Then::End(text(Some(output)).to_vec()),
                    then => then,
                }
            }
            (Self::Calling { .. } | Self::Listening(_) | Self::Resting { .. }, _) => {
                fail("memo_corrupt", "its memo waits for what the step does not wait for".to_owned())
            }
        })
    }
}

fn calling(wait: &Wait, look: &Look<'_>, draft: &mut Draft) -> Result<Then, ExprError> {
    if let Wait::Signal(signal) = wait {
        draft.listen.push(signal.name.clone());
    }
    Ok(Then::Run { input: look.render(&look.step.with, &[])? })
}
