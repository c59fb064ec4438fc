//! What a waiting step remembers between two looks.
//!
//! JSON text of one shape with a version. Outputs stand in it as they are, unread. It never holds more than what is open: what is large
//! (items, their outputs) is put by elsewhere.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::approval::Asking;
use super::callback::Callback;
use super::child::Awaiting;
use super::draft::fail;
use super::each::Each;
use super::race::Race;
use super::repeat::Looping;
use super::signal::Listening;
use super::timer::Timer;
use super::{Alarm, Then};
use crate::expr::{ExprError, Fault};

/// The version that is written, and the only one that is read.
const VERSION: u32 = 1;

/// See the module.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Memo {
    v: u32,
    /// How often the step has been begun anew.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) round: u32,
    /// Keys of the children that have not ended.
    pub(super) open: Vec<String>,
    /// When the step times out as a whole, in Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) deadline_ms: Option<u64>,
    /// The alarm that is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) alarm: Option<SetAlarm>,
    /// Generation of the last alarm that was ever set.
    #[serde(default)]
    pub(super) generation: u64,
    pub(super) actor: Actor,
}

/// An alarm as it is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SetAlarm {
    pub(super) at_ms: u64,
    pub(super) generation: u64,
}

impl From<SetAlarm> for Alarm {
    fn from(set: SetAlarm) -> Self {
        Self { at_ms: set.at_ms, generation: set.generation }
    }
}

/// What the kind of step remembers for itself.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Actor {
    Timer(Timer),
    Signal(Listening),
    Callback(Callback),
    Child(Awaiting),
    Each(Each),
    Race(Race),
    Repeat(Looping),
    Approval(Box<Asking>),
}

/// The members that can be read of any version.
#[derive(Deserialize)]
struct Known {
    #[serde(default)]
    v: Option<u32>,
    #[serde(default)]
    open: Vec<String>,
    #[serde(default)]
    round: u32,
    /// The round to begin with, and nothing else to remember.
    #[serde(default)]
    anew: Option<u32>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_zero(round: &u32) -> bool {
    *round == 0
}

impl Memo {
    /// A memo that remembers nothing but this.
    pub(super) fn new(actor: Actor, round: u32, deadline_ms: Option<u64>) -> Self {
        // alarms of before, of a step begun anew, are none of its own
        let generation = u64::from(round) << 32;
        Self { v: VERSION, round, open: Vec::new(), deadline_ms, alarm: None, generation, actor }
    }

    /// Reads a memo; otherwise says how the step ends.
    pub(super) fn read(text: &[u8]) -> Result<Self, Then> {
        let known: Known = serde_json::from_slice(text).map_err(|error| corrupt(&error))?;
        if known.v != Some(VERSION) {
            let has = known.v.map_or_else(|| "no version".to_owned(), |version| format!("version {version}"));
            let message = format!(
                "its memo has {has}, and this program reads version {VERSION}; upgrade all workers, then retry the step"
            );
            return Err(fail("memo_version", message));
        }
        serde_json::from_slice(text).map_err(|error| corrupt(&error))
    }

    /// Sets the alarm, or takes it back. One of the same time stays the same alarm, so that a look done twice says the same.
    pub(super) fn set_alarm(&mut self, at_ms: Option<u64>) {
        if self.alarm.map(|alarm| alarm.at_ms) == at_ms {
            return;
        }
        self.alarm = at_ms.map(|at_ms| {
            self.generation = self.generation.saturating_add(1);
            SetAlarm { at_ms, generation: self.generation }
        });
    }

    /// As JSON text.
    ///
    /// # Errors
    /// What it holds is no JSON, which cannot be for what was read as such.
    pub(super) fn write(&self) -> Result<Vec<u8>, ExprError> {
        serde_json::to_vec(self).map_err(|error| {
            ExprError::new(
                "memo",
                Fault::BadScope { what: "the step's memo".to_owned(), reason: error.to_string() },
            )
        })
    }
}

fn corrupt(error: &serde_json::Error) -> Then {
    fail("memo_corrupt", format!("its memo cannot be read ({error}); retry the step from its beginning"))
}

pub(super) fn open_children(memo: &[u8]) -> Vec<String> {
    serde_json::from_slice::<Known>(memo).map(|known| known.open).unwrap_or_default()
}

/// The question that stands open in the memo of an approval.
pub(super) fn question(memo: &[u8]) -> Option<super::Question> {
    match Memo::read(memo).ok()?.actor {
        Actor::Approval(asking) => asking.question(),
        Actor::Timer(_)
        | Actor::Signal(_)
        | Actor::Callback(_)
        | Actor::Child(_)
        | Actor::Each(_)
        | Actor::Race(_)
        | Actor::Repeat(_) => None,
    }
}

/// The memo of a step that is to begin anew after one that remembered this.
pub(super) fn anew(memo: Option<&[u8]>) -> Vec<u8> {
    let known = memo.and_then(|memo| serde_json::from_slice::<Known>(memo).ok());
    let round = known.map_or(0, |known| known.anew.unwrap_or(known.round)).saturating_add(1);
    format!("{{\"v\":{VERSION},\"open\":[],\"anew\":{round}}}").into_bytes()
}

/// The round that a memo says to begin.
pub(super) fn begins_anew(memo: &[u8]) -> Option<u32> {
    serde_json::from_slice::<Known>(memo).ok()?.anew
}

/// A JSON text as it is; an empty one is null.
pub(super) fn raw(what: &str, text: &[u8]) -> Result<Box<RawValue>, ExprError> {
    let text = crate::scope::text_or_null(text);
    serde_json::from_slice(text).map_err(|error| {
        ExprError::new(what, Fault::BadScope { what: what.to_owned(), reason: error.to_string() })
    })
}

/// The text of a value that may be missing.
pub(super) fn text(value: Option<&RawValue>) -> &[u8] {
    value.map_or(b"null", |value| value.get().as_bytes())
}
