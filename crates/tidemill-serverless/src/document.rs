//! A document, read and compiled: tasks in one table, named by their number, and what they hold.

use serde_json::Value;
use tidemill_workflow::{BoundFilter, Problems, Schema, ToolCatalog};

use crate::dynamic::Dynamic;
use crate::reader;

/// Number of a task in its document.
pub(crate) type TaskId = usize;

/// A document of the DSL 1.0 that is valid and holds nothing that is not carried out.
#[derive(Debug)]
pub struct Document {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its version, where it gives one.
    pub version: Option<String>,
    /// For people.
    pub title: Option<String>,
    /// Whether lifecycle events are published: `document.metadata.lifecycleEvents`.
    pub(crate) announces: bool,
    /// The document itself, as expressions see it.
    pub(crate) definition: Value,
    /// Tasks; the first is the document as a whole.
    pub(crate) tasks: Vec<Task>,
}

/// The task that stands for the document as a whole.
pub(crate) const ROOT: TaskId = 0;

impl Document {
    /// Reads a document from YAML, or from JSON where the text starts with `{`. `file` names it in problems;
    /// `catalog` knows the tools that calls may name.
    ///
    /// # Errors
    /// All that is wrong with it, and all in it that Tidemill does not carry out.
    pub fn parse(text: &str, file: &str, catalog: &dyn ToolCatalog) -> Result<Self, Problems> {
        reader::read(text, file, catalog)
    }

    /// What Tidemill calls it: `namespace.name`, in lower case.
    #[must_use]
    pub fn workflow_name(&self) -> String {
        workflow_name(&self.namespace, &self.name)
    }

    /// Its version as Tidemill counts them; see [`version_number`].
    #[must_use]
    pub fn version_number(&self) -> Option<u32> {
        self.version.as_deref().and_then(|version| version_number(version).ok())
    }

    pub(crate) fn task(&self, id: TaskId) -> Option<&Task> {
        self.tasks.get(id)
    }
}

/// What Tidemill calls the workflow of this name in this namespace.
pub(crate) fn workflow_name(namespace: &str, name: &str) -> String {
    format!("{namespace}.{name}").to_ascii_lowercase()
}

/// A semantic version as the whole number that keeps its order: `major × 1,000,000 + minor × 1,000 + patch`.
pub(crate) fn version_number(version: &str) -> Result<u32, String> {
    let mut parts = version.split('.').map(|part| {
        let is_plain =
            part.bytes().all(|byte| byte.is_ascii_digit()) && (part.len() == 1 || !part.starts_with('0'));
        part.parse::<u32>().ok().filter(|_| is_plain)
    });
    let numbers = (parts.next(), parts.next(), parts.next(), parts.next());
    let (Some(Some(major)), Some(Some(minor)), Some(Some(patch)), None) = numbers else {
        return Err(format!(
            "`{version}` is no version `major.minor.patch`; pre-releases and build metadata are not supported"
        ));
    };
    if major > 4_000 || minor > 999 || patch > 999 || (major, minor, patch) == (0, 0, 0) {
        return Err(format!(
            "`{version}` is out of range: from 0.0.1, majors to 4000, minors and patches to 999"
        ));
    }
    Ok(major * 1_000_000 + minor * 1_000 + patch)
}

/// One task.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) name: String,
    /// JSON pointer into the document.
    pub(crate) reference: String,
    /// Asked on the raw input; where it gives false the task is skipped.
    pub(crate) condition: Option<BoundFilter>,
    pub(crate) input: Transform,
    pub(crate) output: Transform,
    /// Makes the context anew.
    pub(crate) export: Transform,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) then: Flow,
    pub(crate) action: Action,
}

/// A value made from another, and what it must look like.
#[derive(Debug, Default)]
pub(crate) struct Transform {
    pub(crate) schema: Option<Schema>,
    pub(crate) make: Option<Dynamic>,
}

/// What comes after a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub(crate) enum Flow {
    /// The next task of its list.
    #[default]
    Continue,
    /// The task that holds its list is done.
    Exit,
    /// The workflow is done.
    End,
    /// The task at this position of its list.
    To(usize),
}

/// What a task does.
#[derive(Debug)]
pub(crate) enum Action {
    Do(Vec<TaskId>),
    Set(Dynamic),
    Switch(Vec<Case>),
    Raise(Raised),
    For(Box<Loop>),
    Fork { branches: Vec<TaskId>, compete: bool },
    Try(Box<Attempt>),
    Wait { wait_ms: u64 },
    Http(Box<HttpCall>),
    OpenApi(Box<OpenApiCall>),
    Function { task: TaskId, with: Option<Dynamic> },
    Tool { block: String, tool: String, with: Dynamic },
    Process(Box<Process>),
    Workflow { target: String, input: Option<Dynamic>, awaits: bool, output: bool },
    Emit(Dynamic),
    Listen(Box<Listen>),
}

/// A case of a `switch`; without a condition it holds where no other does.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) when: Option<BoundFilter>,
    pub(crate) then: Flow,
}

/// An error to raise.
#[derive(Debug, Clone)]
pub(crate) struct Raised {
    pub(crate) kind: Dynamic,
    pub(crate) status: Dynamic,
    pub(crate) title: Option<Dynamic>,
    pub(crate) detail: Option<Dynamic>,
}

/// `for`
#[derive(Debug)]
pub(crate) struct Loop {
    pub(crate) each: String,
    pub(crate) at: String,
    pub(crate) items: BoundFilter,
    pub(crate) while_: Option<BoundFilter>,
    pub(crate) tasks: Vec<TaskId>,
}

/// `try` and its `catch`
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) tasks: Vec<TaskId>,
    /// Members that an error must have to be caught.
    pub(crate) errors: serde_json::Map<String, Value>,
    pub(crate) name: String,
    pub(crate) when: Option<BoundFilter>,
    pub(crate) except_when: Option<BoundFilter>,
    pub(crate) retry: Option<Retry>,
    /// What is done about an error; empty where it is only caught.
    pub(crate) handler: Vec<TaskId>,
}

/// How a `try` is tried again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Retry {
    pub(crate) when: Option<BoundFilter>,
    pub(crate) except_when: Option<BoundFilter>,
    pub(crate) delay_ms: u64,
    pub(crate) backoff: Backoff,
    pub(crate) jitter_ms: Option<(u64, u64)>,
    /// At most so many retries.
    pub(crate) most: Option<u64>,
    /// For so long after the first attempt began.
    pub(crate) within_ms: Option<u64>,
    /// Bound of each attempt.
    pub(crate) attempt_ms: Option<u64>,
}

/// How delays grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Backoff {
    #[default]
    Constant,
    Linear,
    Exponential,
}

/// Where something is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) uri: Dynamic,
    pub(crate) authentication: Option<Authentication>,
}

#[derive(Debug, Clone)]
pub(crate) enum Authentication {
    Basic { username: Dynamic, password: Dynamic },
    Bearer { token: Dynamic },
}

/// What an HTTP call gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Output {
    Raw,
    #[default]
    Content,
    Response,
}

/// `call: http`
#[derive(Debug)]
pub(crate) struct HttpCall {
    pub(crate) block: String,
    pub(crate) method: Dynamic,
    pub(crate) endpoint: Endpoint,
    pub(crate) headers: Option<Dynamic>,
    pub(crate) query: Option<Dynamic>,
    pub(crate) body: Option<Dynamic>,
    pub(crate) output: Output,
    pub(crate) redirect: bool,
}

/// `call: openapi`
#[derive(Debug)]
pub(crate) struct OpenApiCall {
    pub(crate) block: String,
    pub(crate) document: Endpoint,
    pub(crate) operation: Dynamic,
    pub(crate) parameters: Option<Dynamic>,
    pub(crate) authentication: Option<Authentication>,
    pub(crate) output: Output,
    pub(crate) redirect: bool,
}

/// `run: shell` and `run: script`
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) block: String,
    pub(crate) command: Command,
    pub(crate) awaits: bool,
    pub(crate) gives: Gives,
}

#[derive(Debug)]
pub(crate) enum Command {
    Shell { command: Dynamic, arguments: Option<Dynamic> },
    JavaScript { code: Dynamic, arguments: Option<Dynamic> },
    Python { code: Dynamic, arguments: Option<Dynamic> },
}

/// What a process gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Gives {
    #[default]
    Stdout,
    Code,
    Nothing,
}

/// `listen`
#[derive(Debug)]
pub(crate) struct Listen {
    pub(crate) strategy: Strategy,
    pub(crate) filters: Vec<EventFilter>,
    pub(crate) until: Until,
    pub(crate) read: Read,
    pub(crate) each: Option<EachEvent>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strategy {
    One,
    Any,
    All,
}

/// When listening to any event ends.
#[derive(Debug, Default)]
pub(crate) enum Until {
    /// After the first.
    #[default]
    First,
    /// When this holds of an event that has been taken.
    Condition(BoundFilter),
    /// When events came that are not taken.
    Events(Strategy, Vec<EventFilter>),
}

/// Which part of an event is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Read {
    #[default]
    Data,
    Envelope,
}

/// Which events are meant.
#[derive(Debug)]
pub(crate) struct EventFilter {
    /// The signal under which such an event comes.
    pub(crate) signal: String,
    pub(crate) attributes: Vec<(String, Attribute)>,
    pub(crate) correlations: Vec<Correlation>,
}

#[derive(Debug)]
pub(crate) enum Attribute {
    Is(Value),
    Matches(regex::Regex),
    Fits(Dynamic),
}

#[derive(Debug)]
pub(crate) struct Correlation {
    pub(crate) name: String,
    pub(crate) from: BoundFilter,
    pub(crate) expect: Option<Dynamic>,
}

/// What is done with each event.
#[derive(Debug)]
pub(crate) struct EachEvent {
    pub(crate) item: String,
    pub(crate) at: String,
    pub(crate) tasks: Vec<TaskId>,
    pub(crate) output: Transform,
    pub(crate) export: Transform,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_keep_their_order_as_numbers() {
        let numbers: Vec<_> = ["0.0.1", "0.1.0", "0.10.2", "1.0.0", "1.0.3", "2.0.0", "4000.999.999"]
            .map(|v| version_number(v).unwrap())
            .into();
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        assert_eq!(version_number("1.2.3"), Ok(1_002_003));
    }

    #[test]
    fn versions_that_have_no_number_are_refused() {
        for version in [
            "1",
            "1.0",
            "1.0.0-rc1",
            "1.0.0+5",
            "0.0.0",
            "1.1000.0",
            "4001.0.0",
            "01.0.0",
            "a.b.c",
            "1.0.0.0",
        ] {
            assert!(version_number(version).is_err(), "{version}");
        }
    }
}
