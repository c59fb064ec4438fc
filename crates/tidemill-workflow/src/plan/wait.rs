//! What steps wait for: times, signals, people.

use super::step::Child;
use crate::schema::Schema;
use crate::template::{References, Template};

/// What a step waits for.
#[derive(Debug, Clone)]
pub enum Wait {
    /// For so many milliseconds: a number.
    For(Template),
    /// Until a time: text as RFC 3339, or a local time in the zone.
    Until {
        /// The time.
        at: Template,
        /// IANA name.
        time_zone: Option<String>,
    },
    /// For a signal.
    Signal(Box<Signal>),
}

/// A signal that a step waits for.
#[derive(Debug, Clone)]
pub struct Signal {
    /// Its name.
    pub name: String,
    /// JSON Schema of its payload.
    pub schema: Option<Schema>,
    /// How long it waits, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Whether the step ends well, with the output null, when nothing has come by then.
    pub continue_on_timeout: bool,
}

/// What a step asks people.
#[derive(Debug, Clone)]
pub struct Approval {
    /// The step whose output is to be approved, and which is run again after a rejection.
    pub of: Option<u32>,
    /// That output; null where nothing is asked about.
    pub subject: Option<Template>,
    /// The block that runs it again, with the run's input.
    pub revise: Option<Child>,
    /// Who may decide; empty for anybody.
    pub who: Vec<String>,
    /// What they are asked.
    pub prompt: Option<Template>,
    /// How they are reminded.
    pub remind: Option<Reminder>,
    /// How long it waits for each decision, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// What then.
    pub on_timeout: OnTimeout,
    /// How often it asks.
    pub max_iterations: u32,
    /// What a rejection means.
    pub on_reject: OnReject,
}

/// What it means that nobody has decided in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnTimeout {
    /// The step times out.
    #[default]
    Fail,
    /// As if it were approved.
    Approve,
    /// As if it were rejected for good.
    Reject,
}

/// What a rejection means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnReject {
    /// The step fails.
    #[default]
    Fail,
    /// The step ends well, with `approved` false.
    Continue,
    /// What was asked about is run again with the feedback.
    Revise,
}

/// How people are reminded.
#[derive(Debug, Clone)]
pub struct Reminder {
    /// How often, in milliseconds.
    pub every_ms: u64,
    /// The block that reminds, detached, with the run's input.
    pub child: Child,
}

impl OnTimeout {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Fail, Self::Approve, Self::Reject];

    /// The word in a definition.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Approve => "approve",
            Self::Reject => "reject",
        }
    }
}

impl OnReject {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Fail, Self::Continue, Self::Revise];

    /// The word in a definition.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Continue => "continue",
            Self::Revise => "revise",
        }
    }
}

impl Wait {
    pub(super) fn visit(&self, add: &mut dyn FnMut(&References)) {
        match self {
            Self::For(template) | Self::Until { at: template, .. } => add(template.references()),
            Self::Signal(_) => {}
        }
    }
}

impl Approval {
    pub(super) fn visit(&self, add: &mut dyn FnMut(&References)) {
        self.subject.iter().chain(&self.prompt).for_each(|template| add(template.references()));
        self.revise.iter().for_each(|child| child.visit(add));
        self.remind.iter().for_each(|remind| remind.child.visit(add));
    }
}
