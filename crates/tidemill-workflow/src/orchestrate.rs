//! Steps that wait: for a time, a signal, a person, or other runs.
//!
//! Such a step is a small actor. What it has to remember between two looks is its *memo*, JSON text that only this module reads;
//! what has happened since the last look are *events*. [`advance`] says what to do next. It is pure, so that every history can
//! be tried, and idempotent, because an event can come twice: what it knows already it ignores.

mod approval;
mod callback;
mod child;
mod closing;
mod draft;
mod each;
mod look;
mod memo;
mod race;
mod repeat;
mod signal;
#[cfg(test)]
mod tests;
mod timer;

use std::ops::Range;

use bytes::Bytes;
use tidemill_protocol::{RunState, StepState};

pub use approval::{Question, may_decide};
pub use closing::{Close, Standing, closing};
pub use repeat::iteration;

use crate::expr::{ExprError, Limits};
use crate::plan::PlanStep;
use crate::scope::Scope;

/// What is known when an orchestrated step is looked at.
#[derive(Debug)]
pub struct Moment<'a> {
    /// Redis's time, in Unix milliseconds.
    pub now_ms: u64,
    /// What its expressions see, apart from what the memo holds.
    pub scope: &'a Scope<'a>,
    /// Bounds of its expressions.
    pub limits: &'a Limits,
    /// What it remembers; `None` at its first look.
    pub memo: Option<&'a [u8]>,
    /// What has happened since the last look, in no certain order.
    pub events: &'a [Event],
    /// The items that [`wanted_items`] asked for, as JSON text by their index.
    pub items: &'a [(u64, Bytes)],
}

/// Something that happened to a waiting step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The time of the alarm of this generation has come.
    Due {
        /// As in [`Alarm::generation`].
        generation: u64,
    },
    /// A child has ended.
    Ended {
        /// As in [`ChildRequest::key`].
        child: String,
        /// How.
        state: RunState,
        /// JSON text.
        output: Option<Bytes>,
        /// JSON text of code and message.
        error: Option<Bytes>,
    },
    /// A signal that it listens for.
    Signal {
        /// The signal's name.
        name: String,
        /// The sender's id of it: a second one of the same id is the same signal.
        id: String,
        /// JSON text.
        payload: Bytes,
        /// Who sent it.
        by: String,
        /// When it was taken in, in Unix milliseconds.
        at_ms: u64,
    },
    /// A person has decided.
    Decision {
        /// Whether it is approved.
        approve: bool,
        /// Who decided.
        by: String,
        /// The roles that the decider is known to have.
        roles: Vec<String>,
        /// JSON text; `null` for none.
        feedback: Bytes,
        /// When, in Unix milliseconds.
        at_ms: u64,
    },
    /// The step's own tool has ended well.
    Answered {
        /// JSON text.
        output: Bytes,
    },
}

/// What a step does next.
///
/// A turn that waits or calls the step's tool says in full what it wants to be woken by (`alarm`, `listen`): what it does not name any
/// more is not wanted any more. What it starts, cancels, puts by and publishes is new each time. A turn that ends the step starts and
/// publishes nothing, and names in `cancel` every child that is still open.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// What it remembers until the next look: JSON text. Not used when it ends.
    pub memo: Vec<u8>,
    /// Children to start.
    pub children: Vec<ChildRequest>,
    /// Keys of children to cancel.
    pub cancel: Vec<String>,
    /// When it is to be looked at again; replaces an earlier one.
    pub alarm: Option<Alarm>,
    /// Names of signals that it listens for; one that came before is given at once.
    pub listen: Vec<String>,
    /// Outputs put by until the end, as JSON text by their index; those of a turn that gathers belong to it.
    pub keep: Vec<(u64, Bytes)>,
    /// The items that it is about, each as JSON text: stored before anything else of the turn, to be given back when
    /// [`wanted_items`] asks for them.
    pub items: Option<Vec<Bytes>>,
    /// Events for whoever listens outside of the run, as JSON text.
    pub publish: Vec<Bytes>,
    /// What it waits for, as a person reads it.
    pub why: String,
    /// And then.
    pub then: Then,
}

/// How a turn ends.
#[derive(Debug, Clone, PartialEq)]
pub enum Then {
    /// It waits.
    Wait,
    /// Its own tool is called with this input (JSON text); the memo of the turn is kept.
    Run {
        /// JSON text.
        input: Vec<u8>,
    },
    /// It ends well with this output (JSON text).
    End(Vec<u8>),
    /// It ends well; its output is the array of what was put by, from 0 to so many, `null` for what is missing.
    Gather {
        /// How many.
        total: u64,
    },
    /// It ends badly.
    Fail {
        /// `Failed` or `TimedOut`.
        state: StepState,
        /// The error's code.
        code: String,
        /// The error's sentence.
        message: String,
    },
    /// It is skipped.
    Skip,
}

/// When a waiting step is to be looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alarm {
    /// In Unix milliseconds.
    pub at_ms: u64,
    /// Tells it from earlier ones, whose coming late means nothing.
    pub generation: u64,
}

/// A run that a step asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct ChildRequest {
    /// Unique within the step, of `0-9 a-z A-Z . _ -`; asking twice for the same starts one run.
    pub key: String,
    /// What to run.
    pub target: ChildTarget,
    /// JSON text.
    pub input: Vec<u8>,
    /// What its expressions see besides (`item`, `index`, `iteration`, `previous`, `feedback`, `outer`): a JSON object.
    pub locals: Option<Vec<u8>>,
    /// Whether nobody waits for its end.
    pub detached: bool,
}

/// What a child runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChildTarget {
    /// A block of the same workflow and version, by its path.
    Block(String),
    /// A workflow: `name` or `name@version`.
    Workflow(String),
}

impl Turn {
    /// A turn that does nothing but this.
    #[must_use]
    pub const fn then(then: Then) -> Self {
        Self {
            memo: Vec::new(),
            children: Vec::new(),
            cancel: Vec::new(),
            alarm: None,
            listen: Vec::new(),
            keep: Vec::new(),
            items: None,
            publish: Vec::new(),
            why: String::new(),
            then,
        }
    }
}

/// Something other than the members of a step that decides what it does: a whole document of another language.
pub trait Program: std::fmt::Debug + Send + Sync {
    /// As [`advance`]. Its scope has the run's input.
    ///
    /// # Errors
    /// An expression of it fails.
    fn advance(&self, moment: &Moment<'_>) -> Result<Turn, ExprError>;
}

/// What a step does, given what it remembers and what has happened.
///
/// Whether it runs at all (its needs, its `when`) has been decided before. While its own tool is under way it answers
/// [`Then::Run`] with the same input, however often it is asked, until there is an [`Event::Answered`].
///
/// A memo that cannot be read ends the step with the code `memo_corrupt` or `memo_version`.
///
/// # Errors
/// An expression of it fails.
pub fn advance(step: &PlanStep, moment: &Moment<'_>) -> Result<Turn, ExprError> {
    look::advance(step, moment)
}

/// The memo of a step that is to begin anew, by hand, where it remembered `memo` before: it remembers nothing but that it has been begun
/// so often, which tells its children from those of before.
#[must_use]
pub fn anew(memo: Option<&[u8]>) -> Vec<u8> {
    memo::anew(memo)
}

/// The number of the round that a memo of [`anew`] begins, from 1; `None` for any other memo.
#[must_use]
pub fn begins_anew(memo: &[u8]) -> Option<u32> {
    memo::begins_anew(memo)
}

/// Keys of the children that a memo knows as not ended: whoever gives the step up cancels them.
///
/// Every memo, that of a [`Program`] too, is a JSON object that has them in its member `open`.
#[must_use]
pub fn open_children(memo: &[u8]) -> Vec<String> {
    memo::open_children(memo)
}

/// The question that stands open in the memo of an approval; `None` where nothing is asked now, or the memo is another's.
#[must_use]
pub fn question(memo: &[u8]) -> Option<Question> {
    memo::question(memo)
}

/// The items whose texts the next look at a step needs; empty for nearly all steps.
#[must_use]
pub fn wanted_items(step: &PlanStep, memo: Option<&[u8]>) -> Range<u64> {
    memo.map_or(0..0, |memo| each::wanted(step, memo))
}
