//! How work ended, and the result document of the wire contract.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::payload::Payload;
use crate::state::StepState;

/// An error as results, dead letters and the API show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// Stable word for programs.
    pub code: String,
    /// Sentence for people.
    pub message: String,
}

/// That something else answered in place of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Degraded {
    /// The service whose call was given up.
    pub service: String,
    /// What answered: `tool <name>`, `service <name>`, `a constant`, `an old answer`.
    pub answered_by: String,
    /// Why the call was given up: stable word.
    pub code: String,
    /// The same for people.
    pub reason: String,
}

/// A result: the value of `result:<id>`, the field `result` of a reply, the answer of the API.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResultDocument {
    /// The job's or run's id.
    pub id: String,
    /// Its terminal state.
    pub state: String,
    /// What it gave; `null` unless it succeeded.
    pub output: Box<RawValue>,
    /// Why it did not succeed.
    pub error: Option<ErrorBody>,
    /// Attempts made.
    pub attempts: u32,
    /// Set where something else answered in place of a service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degraded: Option<Degraded>,
    /// When it ended, in Unix milliseconds by Redis's clock.
    pub finished_at_ms: u64,
}

/// The result's JSON without its end time and closing brace, which the settling function adds.
#[must_use]
pub fn result_head(
    id: &str,
    state: StepState,
    output: Option<&Payload>,
    error: Option<&ErrorBody>,
    attempts: u32,
) -> Vec<u8> {
    let mut head = Vec::with_capacity(96 + id.len() + output.map_or(4, Payload::len));
    head.extend_from_slice(b"{\"id\":\"");
    // ids are checked when they enter: none needs escaping
    head.extend_from_slice(id.as_bytes());
    head.extend_from_slice(b"\",\"state\":\"");
    head.extend_from_slice(state.as_str().as_bytes());
    head.extend_from_slice(b"\",\"output\":");
    head.extend_from_slice(output.map_or(b"null", |payload| payload.bytes()));
    head.extend_from_slice(b",\"error\":");
    head.extend_from_slice(&error.map_or_else(
        || b"null".to_vec(),
        |error| serde_json::to_vec(error).unwrap_or_else(|_| b"null".to_vec()),
    ));
    head.extend_from_slice(b",\"attempts\":");
    head.extend_from_slice(attempts.to_string().as_bytes());
    head
}
