//! Folding a run's audit: what its records say in their order, and whether that could have happened.
//!
//! A record may leave only the state that its subject is in, by a move of the table, in the attempt that it is in, as the next of
//! the run. So the end of the fold is the one state that the run and each of its steps must be stored in. What a record says
//! of who and when is taken as it stands.

use std::collections::HashMap;
use std::fmt;

use serde::Serialize;

use crate::audit::AuditRecord;
use crate::state::{RunState, StepState};

/// The subject of the run's own records.
pub const RUN_SUBJECT: &str = "@";

/// Where a step or an item stands after what was folded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Course {
    /// The state that it is in.
    pub state: StepState,
    /// The state that it came from.
    pub from: StepState,
    /// The attempt under way, or the last one.
    pub attempt: u32,
    /// When it became ready for the last time, in Unix milliseconds.
    pub ready_ms: u64,
    /// When its last attempt began, if any did.
    pub started_ms: Option<u64>,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// Who made the last move.
    pub who: Option<Box<str>>,
}

impl Course {
    const fn pending() -> Self {
        Self {
            state: StepState::Pending,
            from: StepState::Pending,
            attempt: 1,
            ready_ms: 0,
            started_ms: None,
            ended_ms: None,
            who: None,
        }
    }

    /// The attempt that a move from here belongs to. Only what waited for its next attempt begins one; brought back by somebody
    /// before that was due, it is still the attempt before. A step whose tool has answered, and that goes on, has all its attempts
    /// before it again.
    fn next_attempt(&self, record: &AuditRecord) -> u32 {
        if self.state == StepState::Waiting && record.to == "ready" && record.attempt == 1 {
            1
        } else if self.state == StepState::Retrying && record.to == "ready" && record.who.is_none() {
            self.attempt.saturating_add(1)
        } else {
            self.attempt
        }
    }

    fn take(&mut self, to: StepState, record: &AuditRecord) {
        (self.from, self.state, self.attempt) = (self.state, to, record.attempt);
        self.who = record.who.as_deref().map(Into::into);
        match to {
            StepState::Ready => self.ready_ms = record.at_ms,
            StepState::Running => self.started_ms = Some(record.at_ms),
            StepState::Succeeded
            | StepState::Failed
            | StepState::Skipped
            | StepState::Cancelled
            | StepState::TimedOut => self.ended_ms = Some(record.at_ms),
            StepState::Pending | StepState::Parked | StepState::Retrying | StepState::Waiting => {}
        }
    }
}

/// What cannot have happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "flaw", rename_all = "snake_case")]
pub enum Flaw {
    /// Records are missing, doubled or out of order.
    Sequence {
        /// The number that should have come.
        expected: u64,
        /// The number that came.
        found: u64,
    },
    /// The table has no such move, or no such state.
    Illegal {
        /// The record's number.
        seq: u64,
        /// Whose move.
        subject: String,
        /// `from → to`.
        step: String,
    },
    /// It leaves a state that its subject was not in.
    Broken {
        /// The record's number.
        seq: u64,
        /// Whose move.
        subject: String,
        /// Where the records before leave it.
        expected: &'static str,
        /// Where this record says that it was.
        found: String,
    },
    /// It belongs to another attempt than the records before it lead to.
    Attempt {
        /// The record's number.
        seq: u64,
        /// Whose move.
        subject: String,
        /// The attempt that should have been.
        expected: u32,
        /// The attempt that it names.
        found: u32,
    },
    /// It begins something while what it belongs to is not running: before the run began, after it ended, outside its `for_each`.
    OutOfPlace {
        /// The record's number.
        seq: u64,
        /// What began.
        subject: String,
        /// Why it could not.
        reason: &'static str,
    },
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sequence { expected, found } => write!(f, "record {found} stands where {expected} should"),
            Self::Illegal { seq, subject, step } => {
                write!(f, "record {seq}: {subject} made a move that does not exist: {step}")
            }
            Self::Broken { seq, subject, expected, found } => {
                write!(f, "record {seq}: {subject} was {expected}, and leaves {found}")
            }
            Self::Attempt { seq, subject, expected, found } => {
                write!(f, "record {seq}: {subject} was in attempt {expected}, and moves in attempt {found}")
            }
            Self::OutOfPlace { seq, subject, reason } => write!(f, "record {seq}: {subject} began {reason}"),
        }
    }
}

/// The end of what was folded so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fold {
    run: RunState,
    started_ms: Option<u64>,
    ended_ms: Option<u64>,
    last_ms: u64,
    seq: u64,
    courses: HashMap<Box<str>, Course>,
}

impl Default for Fold {
    fn default() -> Self {
        Self {
            run: RunState::Queued,
            started_ms: None,
            ended_ms: None,
            last_ms: 0,
            seq: 0,
            courses: HashMap::new(),
        }
    }
}

impl Fold {
    /// Where the run stands.
    #[must_use]
    pub const fn run(&self) -> RunState {
        self.run
    }

    /// When the run began, in Unix milliseconds.
    #[must_use]
    pub const fn started_ms(&self) -> Option<u64> {
        self.started_ms
    }

    /// When the run ended.
    #[must_use]
    pub const fn ended_ms(&self) -> Option<u64> {
        self.ended_ms
    }

    /// The time of the last record.
    #[must_use]
    pub const fn last_ms(&self) -> u64 {
        self.last_ms
    }

    /// The number of the last record; 0 before the first.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// Where a step (`order`) or an item (`order[3]`) stands; `None`: it never began.
    #[must_use]
    pub fn course(&self, subject: &str) -> Option<&Course> {
        self.courses.get(subject)
    }

    /// Every step and item that began, in no order.
    pub fn courses(&self) -> impl Iterator<Item = (&str, &Course)> {
        self.courses.iter().map(|(subject, course)| (&**subject, course))
    }

    /// Takes in the next record; replies what is wrong with it. It is taken in all the same, so that one wrong record makes one
    /// flaw wherever that is possible.
    pub fn apply(&mut self, record: &AuditRecord) -> Vec<Flaw> {
        let mut flaws = Vec::new();
        if record.seq != self.seq + 1 {
            flaws.push(Flaw::Sequence { expected: self.seq + 1, found: record.seq });
        }
        self.seq = record.seq;
        self.last_ms = self.last_ms.max(record.at_ms);
        if record.subject == RUN_SUBJECT {
            flaws.extend(self.move_run(record));
        } else {
            flaws.extend(self.move_step(record));
        }
        flaws
    }

    fn move_run(&mut self, record: &AuditRecord) -> Option<Flaw> {
        let Some(to) = RunState::parse(&record.to) else { return Some(illegal(record)) };
        let was = std::mem::replace(&mut self.run, to);
        if was == RunState::Queued {
            self.started_ms = Some(record.at_ms);
        }
        if to.is_terminal() {
            self.ended_ms = Some(record.at_ms);
        }
        if was.as_str() != record.from {
            return Some(broken(record, was.as_str()));
        }
        if !was.may_become(to) {
            return Some(illegal(record));
        }
        (record.attempt != 0).then(|| attempt(record, 0))
    }

    fn move_step(&mut self, record: &AuditRecord) -> Option<Flaw> {
        let Some(to) = StepState::parse(&record.to) else { return Some(illegal(record)) };
        let place =
            if to == StepState::Ready && record.from == "pending" { self.place(record) } else { None };
        let course = self.courses.entry(record.subject.as_str().into()).or_insert_with(Course::pending);
        let (was, expected) = (course.state, course.next_attempt(record));
        course.take(to, record);
        if was.as_str() != record.from {
            return Some(broken(record, was.as_str()));
        }
        if !was.may_become(to) {
            return Some(illegal(record));
        }
        if record.attempt != expected {
            return Some(attempt(record, expected));
        }
        place.map(|reason| Flaw::OutOfPlace { seq: record.seq, subject: record.subject.clone(), reason })
    }

    /// Why something may not begin now.
    fn place(&self, record: &AuditRecord) -> Option<&'static str> {
        if self.run == RunState::Queued {
            return Some("before its run");
        }
        if self.run.is_terminal() {
            return Some("after its run had ended");
        }
        let (step, _) = item_of(&record.subject)?;
        let runs = self.course(step).is_some_and(|course| course.state == StepState::Running);
        (!runs).then_some("while its for_each was not running")
    }
}

/// The step and the number of an item's subject (`order[3]`); `None` for a step's.
#[must_use]
pub fn item_of(subject: &str) -> Option<(&str, u64)> {
    let (step, item) = subject.strip_suffix(']')?.rsplit_once('[')?;
    Some((step, item.parse().ok()?))
}

fn illegal(record: &AuditRecord) -> Flaw {
    let step = format!("{} → {}", record.from, record.to);
    Flaw::Illegal { seq: record.seq, subject: record.subject.clone(), step }
}

fn broken(record: &AuditRecord, expected: &'static str) -> Flaw {
    let (subject, found) = (record.subject.clone(), record.from.clone());
    Flaw::Broken { seq: record.seq, subject, expected, found }
}

fn attempt(record: &AuditRecord, expected: u32) -> Flaw {
    let subject = record.subject.clone();
    Flaw::Attempt { seq: record.seq, subject, expected, found: record.attempt }
}
