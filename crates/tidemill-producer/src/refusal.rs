//! Why a request is refused: a stable code for programs, a sentence for people.

use std::time::Duration;

use serde_json::Value;
use tidemill_store::{Error, Fault};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $status:literal, $title:literal;)*) => {
        /// The stable words of refusals, with their HTTP status and title.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// The HTTP status that it goes with.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// What it means in a few words, the same each time.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

codes! {
    /// The text is not JSON.
    InvalidJson = "invalid_json", 400, "The text is not valid JSON";
    /// The JSON is not what this place takes.
    InvalidRequest = "invalid_request", 400, "The request does not have the expected form";
    /// A member or parameter that does not exist.
    UnknownMember = "unknown_member", 400, "A member is unknown";
    /// A member that must be there is not.
    MissingMember = "missing_member", 400, "A member is missing";
    /// A member has a value that it cannot have.
    InvalidMember = "invalid_member", 400, "A member has a bad value";
    /// A query parameter is unknown or has a bad value.
    InvalidQuery = "invalid_query", 400, "A query parameter is unknown or has a bad value";
    /// Somebody else may do this.
    NotAllowed = "not_allowed", 403, "Others may do this";
    /// Nothing under this path.
    UnknownPath = "unknown_path", 404, "There is nothing under this path";
    /// No such workflow or version.
    UnknownWorkflow = "unknown_workflow", 404, "No such workflow is published";
    /// The workflow has versions, and none is active.
    NoActiveVersion = "no_active_version", 404, "No version of the workflow is active";
    /// No such job.
    UnknownJob = "unknown_job", 404, "No such job is known";
    /// No such run.
    UnknownRun = "unknown_run", 404, "No such run is known";
    /// No such group has runs.
    UnknownGroup = "unknown_group", 404, "No such group has runs";
    /// No such step.
    UnknownStep = "unknown_step", 404, "The run has no such step";
    /// No step of the run waits for such a signal.
    UnknownSignal = "unknown_signal", 404, "No step of the run waits for such a signal";
    /// No such service.
    UnknownService = "unknown_service", 404, "No such service is defined";
    /// The path does not take this method.
    MethodNotAllowed = "method_not_allowed", 405, "The path does not take this method";
    /// The client sent too slowly.
    RequestTimeout = "request_timeout", 408, "The request took too long to arrive";
    /// It has ended already.
    AlreadyEnded = "already_ended", 409, "It has ended already";
    /// This version is published with another text.
    VersionTaken = "version_taken", 409, "This version is published with another text";
    /// Somebody else has moved it meanwhile.
    Conflict = "conflict", 409, "It stands otherwise than the request expects";
    /// The mode was never switched.
    NothingToRollBack = "nothing_to_roll_back", 409, "There is nothing to go back to";
    /// The step asks nothing, or waits for nothing.
    NotWaiting = "not_waiting", 409, "The step does not wait for this";
    /// A worker runs the step.
    StepRuns = "step_runs", 409, "A worker runs the step";
    /// The step has not become ready.
    StepPending = "step_pending", 409, "The step's turn has not come";
    /// The run has not ended.
    StillRuns = "still_runs", 409, "The run has not ended";
    /// There is nothing to be done again.
    NothingToRetry = "nothing_to_retry", 409, "There is nothing to be done again";
    /// There is no such move.
    IllegalMove = "illegal_move", 409, "The version cannot become that";
    /// Runs of the version are under way.
    LiveRuns = "live_runs", 409, "Runs of the version are under way";
    /// Live runs do not fit the definition.
    Incompatible = "incompatible", 409, "Live runs would not be possible under the definition";
    /// The version is a draft.
    WorkflowDraft = "workflow_draft", 409, "The version is a draft";
    /// The version is archived.
    WorkflowArchived = "workflow_archived", 410, "The version is archived";
    /// The body is too large.
    BodyTooLarge = "body_too_large", 413, "The request's body is too large";
    /// The input is too large.
    InputTooLarge = "input_too_large", 413, "The input is too large";
    /// The batch has too many lines.
    BatchTooLarge = "batch_too_large", 413, "The batch has too many lines";
    /// The body's type is not one that this path takes.
    UnsupportedType = "unsupported_type", 415, "The body's content type is not supported here";
    /// The workflow's schema refuses the input.
    InvalidInput = "invalid_input", 422, "The workflow refuses this input";
    /// The payload of a signal does not fit.
    InvalidPayload = "invalid_payload", 422, "The step that waits refuses this payload";
    /// The definition has problems.
    InvalidWorkflow = "invalid_workflow", 422, "The workflow definition has problems";
    /// The definition of a service has problems.
    InvalidService = "invalid_service", 422, "The definition of the service has problems";
    /// The queue has reached its bound.
    QueueFull = "queue_full", 429, "The queue is full";
    /// The job's service would let it wait too long.
    ServiceBusy = "service_busy", 429, "The service would let the job wait too long";
    /// The run keeps as many signals as it may.
    TooManySignals = "too_many_signals", 429, "The run keeps as many signals as it may";
    /// The client asks too often.
    TooManyRequests = "too_many_requests", 429, "The client asks more often than it may";
    /// A fault of the producer itself.
    Internal = "internal", 500, "The producer met a fault of its own";
    /// What is stored of a workflow is not what was published.
    DamagedDefinition = "damaged_definition", 500, "A stored definition is not the one that was published";
    /// Redis is nearly out of memory.
    RedisMemory = "redis_memory", 503, "Redis is nearly out of memory";
    /// Redis did not answer, or refused.
    RedisUnavailable = "redis_unavailable", 503, "Redis is not available";
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", code.as_str())]
pub struct Refusal {
    /// The stable code.
    pub code: Code,
    /// What is wrong, where, and what to do.
    pub detail: String,
    /// When asking again makes sense.
    pub retry_after: Option<Duration>,
    /// Single problems, when there are several.
    pub problems: Vec<Value>,
}

impl Refusal {
    /// A refusal with its words.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), retry_after: None, problems: Vec::new() }
    }

    pub(crate) fn again_after(mut self, pause: Duration) -> Self {
        self.retry_after = Some(pause);
        self
    }

    pub(crate) fn with_problems(mut self, problems: Vec<Value>) -> Self {
        self.problems = problems;
        self
    }

    /// The problem document (RFC 9457) without `instance`.
    #[must_use]
    pub fn document(&self) -> Value {
        let mut document = serde_json::json!({
            "type": format!("urn:tidemill:problem:{}", self.code.as_str()),
            "title": self.code.title(),
            "status": self.code.status(),
            "code": self.code.as_str(),
            "detail": self.detail,
        });
        if let Some(pause) = self.retry_after {
            document["retry_after_ms"] = tidemill_runtime::clock::milliseconds(pause).into();
        }
        if !self.problems.is_empty() {
            document["problems"] = Value::Array(self.problems.clone());
        }
        document
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error.fault() {
            Some(Fault::OutOfMemory) => Self::new(
                Code::RedisMemory,
                format!(
                    "Redis has reached its maxmemory: nothing was taken in; make room or try later ({error})"
                ),
            )
            .again_after(Duration::from_secs(5)),
            Some(_) if error.is_transient() => {
                Self::new(Code::RedisUnavailable, error.to_string()).again_after(Duration::from_secs(1))
            }
            Some(_) => Self::new(Code::RedisUnavailable, error.to_string()),
            None if matches!(error, Error::Damaged(_)) => {
                Self::new(Code::DamagedDefinition, error.to_string())
            }
            None => Self::new(Code::Internal, error.to_string()),
        }
    }
}

/// The known name that was most likely meant.
pub(crate) fn nearest<'n>(wanted: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let allowed = wanted.chars().count() / 3 + 1;
    names
        .map(|name| (strsim::damerau_levenshtein(wanted, name), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::Code;

    #[test]
    fn no_two_codes_share_a_word() {
        let mut words: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Code::ALL.len());
    }
}
