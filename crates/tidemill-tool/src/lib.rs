//! What a tool is: the one trait that a user of Tidemill's Rust API implements.
//!
//! A tool gets a [`Call`] and returns a future of its output. **Stopping a tool is dropping its future**: on a timeout, on
//! a cancelled job and at the end of a drain the worker drops the future, and whatever the tool holds (a request,
//! a child process) must be released by its `Drop`. A tool never retries by itself; it returns a [`ToolError`] whose
//! class says whether a retry can help, and the worker decides.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub mod feedback;
mod registry;

pub use bytes::Bytes;
pub use feedback::{Advertised, Feedback, Listener, Observed};
pub use registry::{DEFAULT_TIMEOUT, Registry, RegistryError, ToolEntry, UnknownTool};
pub use tidemill_protocol::{Encoding, ErrorClass, Payload, RetryPolicy};

/// The future of one attempt.
pub type ToolFuture = Pin<Box<dyn Future<Output = Result<Payload, ToolError>> + Send + 'static>>;

/// Something that a worker can run.
pub trait Tool: Send + Sync + 'static {
    /// The kind, for caps per kind and for metrics (`http`, `exec`, `inline`, …); a short constant word.
    fn kind(&self) -> &'static str;

    /// The JSON Schema (draft 2020-12) of the input, for validation when a workflow is published and for `tidemill tools`.
    fn input_schema(&self) -> serde_json::Value {
        serde_json::json!({})
    }

    /// Starts one attempt. Must not block the thread; see the module's words on stopping.
    fn call(self: Arc<Self>, call: Call) -> ToolFuture;
}

/// One attempt: its input and what is known about it.
#[derive(Debug, Clone)]
pub struct Call {
    /// What to work on.
    pub input: Payload,
    /// Whose attempt this is.
    pub context: Context,
}

/// Whose attempt it is.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// Id of the job; for a workflow step, of its run.
    pub id: Arc<str>,
    /// The step's id inside its run (`order`, or `order[3]` for the fourth item of a `for_each`); absent for a plain job.
    pub step: Option<Arc<str>>,
    /// Of a step with `repeat`: the iteration, from 1.
    pub iteration: Option<u32>,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// Owner of the job, for limits and fairness.
    pub tenant: Option<Arc<str>>,
    /// W3C trace context of the caller, to be sent on.
    pub traceparent: Option<Arc<str>>,
    /// Where to say what the service tells about its limits and about what the call used.
    pub feedback: Feedback,
}

impl Context {
    /// The same over all attempts of one piece of work, another for each iteration of a step: send it to services that can recognise a
    /// repetition.
    #[must_use]
    pub fn idempotency_key(&self) -> Cow<'_, str> {
        match (&self.step, self.iteration) {
            (None, _) => Cow::Borrowed(&*self.id),
            (Some(step), None) => Cow::Owned(format!("{}/{step}", self.id)),
            (Some(step), Some(iteration)) => Cow::Owned(format!("{}/{step}#{iteration}", self.id)),
        }
    }
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolError {
    /// Whether and how a retry may help.
    pub class: ErrorClass,
    /// A stable word for programs (`http_status`, `exec_exit`, …), snake case.
    pub code: Cow<'static, str>,
    /// A sentence for people: what is wrong, where, what to do. Never holds a secret.
    pub message: String,
    /// A floor for the wait before the next attempt, as the service asked for it.
    pub retry_after: Option<Duration>,
}

impl ToolError {
    /// A failure of a class, with a stable code and a sentence.
    pub fn new(class: ErrorClass, code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { class, code: code.into(), message: message.into(), retry_after: None }
    }

    /// The input does not fit; never retried unless configured.
    pub fn invalid_input(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::InvalidInput, "invalid_input", message)
    }

    /// Sets the floor for the next attempt.
    #[must_use]
    pub const fn with_retry_after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait;
        self
    }
}

impl fmt::Display for ToolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.code, self.class.as_str(), self.message)
    }
}

impl std::error::Error for ToolError {}
