//! Audit records: one per transition, in the order of the run.

use serde::Serialize;

/// One transition of a run or of one of its steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditRecord {
    /// Position in the run, from 1, without gaps.
    pub seq: u64,
    /// The step's id (`order`, `order[3]`), or `@` for the run itself.
    pub subject: String,
    /// The state left.
    pub from: String,
    /// The state entered.
    pub to: String,
    /// When, in Unix milliseconds by Redis's clock.
    pub at_ms: u64,
    /// The attempt it belongs to; 0 for the run itself.
    pub attempt: u32,
    /// The process or person who did it; absent when it followed from another transition.
    pub who: Option<String>,
}

impl AuditRecord {
    /// Reads a record as the function library writes it: `subject from to at_ms attempt who`.
    #[must_use]
    pub fn parse(seq: u64, text: &str) -> Option<Self> {
        let mut words = text.splitn(6, ' ');
        let record = Self {
            seq,
            subject: words.next()?.to_owned(),
            from: words.next()?.to_owned(),
            to: words.next()?.to_owned(),
            at_ms: words.next()?.parse().ok()?,
            attempt: words.next()?.parse().ok()?,
            who: words.next().filter(|who| *who != "-").map(ToOwned::to_owned),
        };
        Some(record)
    }
}

/// The stored record of a step: `state attempt ready started ended worker entry queue`, a dash for nothing; behind it, where it has
/// ended with an output, that output's checksum in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepRecord {
    /// The stored state (`running` is stored only for a `for_each`; a claimed step is `ready` until it settles).
    pub state: crate::state::StepState,
    /// The attempt under way, or the last one.
    pub attempt: u32,
    /// When it became ready, in Unix milliseconds.
    pub ready_ms: Option<u64>,
    /// When its last attempt began.
    pub started_ms: Option<u64>,
    /// When it ended; while it is put aside, when it is due.
    pub ended_ms: Option<u64>,
    /// Who ran it last.
    pub worker: Option<String>,
    /// Its entry while it is in flight.
    pub entry: Option<String>,
    /// Its queue.
    pub queue: String,
    /// The checksum of its output ([`checksum`](crate::checksum)).
    #[serde(skip)]
    pub sum: Option<u32>,
}

impl StepRecord {
    /// Reads a stored record.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ').map(|word| (word != "-").then_some(word));
        let state = crate::state::StepState::parse(words.next()??)?;
        let attempt = words.next()??.parse().ok()?;
        let mut time = || words.next().map(|word| word.and_then(|ms| ms.parse::<u64>().ok()));
        let (ready_ms, started_ms, ended_ms) = (time()?, time()?, time()?);
        Some(Self {
            state,
            attempt,
            ready_ms,
            started_ms,
            ended_ms,
            worker: words.next()?.map(ToOwned::to_owned),
            entry: words.next()?.map(ToOwned::to_owned),
            queue: words.next()??.to_owned(),
            sum: match words.next().flatten() {
                None => None,
                Some(sum) => Some(u32::from_str_radix(sum, 16).ok()?),
            },
        })
    }
}
