//! A job as its entry says it: the wire contract's fields, read strictly.
//!
//! An entry is a flat list of fields. Names that begin with `_` are Tidemill's own (a job that moved carries its history in
//! them), names that begin with `x-` are the caller's and ignored; any other name that the contract does not know is refused,
//! because a misspelt `delay_ms` that is silently ignored costs more than an error.

use bytes::Bytes;

use crate::ids::{EntryId, check_any_id, check_id, check_queue, check_target, check_tenant, check_user};
use crate::labels::Labels;
use crate::mode::ExecutionMode;
use crate::payload::{Encoding, Payload};

/// What an entry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// One call of a tool.
    Tool(String),
    /// One run of a workflow.
    Workflow(String),
}

impl Target {
    /// The tool's or workflow's name as written.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Tool(name) | Self::Workflow(name) => name,
        }
    }
}

/// What few jobs carry; boxed, so that the many stay small.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extras {
    /// The caller's idempotency id.
    pub id: Option<String>,
    /// Owner for limits and fairness.
    pub tenant: Option<String>,
    /// For whom it is done: an owner for limits, like the tenant.
    pub user: Option<String>,
    /// Its place in a line for a limit, 0 to 9; 9 goes first, and 5 is the default.
    pub priority: Option<u8>,
    /// Queue for a workflow's steps.
    pub queue: Option<String>,
    /// How a workflow's steps are carried out, in place of what the workflow and the pool say.
    pub mode: Option<ExecutionMode>,
    /// What a run is found by.
    pub labels: Labels,
    /// Wait after enqueueing, in milliseconds.
    pub delay_ms: Option<u64>,
    /// Not before this time, in Unix milliseconds.
    pub run_at_ms: Option<u64>,
    /// Longest time of one attempt (of a whole run, for a workflow), in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Nothing starts later than this after enqueueing, in milliseconds.
    pub deadline_ms: Option<u64>,
    /// Attempts in all; overrides the tool's.
    pub max_attempts: Option<u32>,
    /// Keep the result for this long, in milliseconds.
    pub result_ttl_ms: Option<u64>,
    /// Push the result onto this stream.
    pub reply_to: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// W3C trace state.
    pub tracestate: Option<String>,
    /// The job's first entry, when it has moved.
    pub first_entry: Option<EntryId>,
    /// Attempts that were made before this claim.
    pub attempts_before: u32,
    /// How many workers died holding it.
    pub deaths: u32,
    /// When its first attempt began, in Unix milliseconds; only set for a retry.
    pub first_attempt_ms: Option<u64>,
    /// Whether it was put aside before: its time has come, then.
    pub was_put_aside: bool,
    /// The group in which it waited for its turn.
    pub group: Option<String>,
    /// The tiers from whose lines it was called up.
    pub tickets: Vec<String>,
    /// Where it stood in those lines, one number each, in the same order.
    pub line_score: Option<String>,
    /// What a run that another asked for carries.
    pub child: Option<Box<ChildExtras>>,
    /// The run whose ended steps it is given, and the step from which it is done again: `<run>` or `<run> <step>`.
    pub source: Option<String>,
}

/// What a run that another asked for carries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChildExtras {
    /// Who asked: `<run> <step> <key>`; absent for one that nobody waits for.
    pub parent: Option<String>,
    /// The block of the workflow that it runs, by its path.
    pub block: Option<String>,
    /// What its expressions see besides: a JSON object.
    pub locals: Option<Bytes>,
}

impl Extras {
    fn child_mut(&mut self) -> &mut ChildExtras {
        self.child.get_or_insert_with(Box::default)
    }
}

/// The place in a line of work that names none.
pub const DEFAULT_PRIORITY: u8 = 5;

/// One job or run as asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// What to run.
    pub target: Target,
    /// What to run it on.
    pub input: Payload,
    /// Everything that most jobs leave out.
    pub extras: Option<Box<Extras>>,
}

static NONE: std::sync::LazyLock<Extras> = std::sync::LazyLock::new(Extras::default);

impl Job {
    /// A job without extras.
    #[must_use]
    pub const fn new(target: Target, input: Payload) -> Self {
        Self { target, input, extras: None }
    }

    /// The extras, or their defaults.
    #[must_use]
    pub fn extras(&self) -> &Extras {
        self.extras.as_deref().unwrap_or(&NONE)
    }

    /// The extras, to be set.
    pub fn extras_mut(&mut self) -> &mut Extras {
        self.extras.get_or_insert_with(Box::default)
    }

    /// The job's own id: the caller's, else the id of its first entry.
    #[must_use]
    pub fn id<'a>(&'a self, entry: &'a EntryId) -> &'a str {
        let extras = self.extras();
        extras.id.as_deref().unwrap_or_else(|| extras.first_entry.as_ref().unwrap_or(entry).as_str())
    }

    /// Its place in a line for a limit: 9 goes first.
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.extras().priority.unwrap_or(DEFAULT_PRIORITY)
    }

    /// Whether the result must be kept or sent.
    #[must_use]
    pub fn wants_result(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.result_ttl_ms.is_some() || extras.reply_to.is_some())
    }
}

/// Why an entry is no job. It goes to the dead letters with this code and sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Malformed {
    /// Stable word: `malformed`, `unknown_field`, `too_large`, `unsupported_version`.
    pub code: &'static str,
    /// What is wrong, and what to do.
    pub message: String,
}

fn malformed(message: impl Into<String>) -> Malformed {
    Malformed { code: "malformed", message: message.into() }
}

/// The public fields, in the order of the protocol page.
pub const FIELDS: [&str; 22] = [
    "tool",
    "workflow",
    "input",
    "enc",
    "id",
    "tenant",
    "user",
    "priority",
    "queue",
    "mode",
    "labels",
    "delay_ms",
    "run_at_ms",
    "timeout_ms",
    "deadline_ms",
    "max_attempts",
    "result_ttl_ms",
    "reply_to",
    "traceparent",
    "tracestate",
    "v",
    "x-*",
];

/// The largest input, in bytes, unless a queue says otherwise.
pub const DEFAULT_MAX_INPUT_BYTES: usize = 1024 * 1024;

/// More fields than this is no job.
pub const MAX_FIELDS: usize = 64;

fn text(name: &str, value: Bytes) -> Result<String, Malformed> {
    String::from_utf8(value.into()).map_err(|_| malformed(format!("field {name:?} is not UTF-8")))
}

fn number<N: std::str::FromStr>(name: &str, value: Bytes) -> Result<N, Malformed> {
    let written = text(name, value)?;
    // `parse` alone would take a plus sign too
    let digits = written.len() <= 20 && written.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| written.parse().ok()).flatten().ok_or_else(|| {
        let shown: String = written.chars().take(40).collect();
        malformed(format!("field {name:?} is {shown:?}; expected a whole number that is not negative"))
    })
}

/// One digit, as the contract wants it.
fn priority(value: Bytes) -> Result<u8, Malformed> {
    match &*value {
        [digit @ b'0'..=b'9'] => Ok(digit - b'0'),
        _ => {
            let shown: String = text("priority", value)?.chars().take(40).collect();
            Err(malformed(format!(
                "field \"priority\" is {shown:?}; expected one digit, 0 to 9 (9 goes first)"
            )))
        }
    }
}

fn named(value: String, rule: fn(&str) -> Result<(), crate::ids::InvalidName>) -> Result<String, Malformed> {
    rule(&value).map_err(|error| malformed(error.to_string()))?;
    Ok(value)
}

/// Reads entries into jobs under a limit on input size.
#[derive(Debug, Clone, Copy)]
pub struct Reader {
    /// The largest accepted input, in bytes.
    pub max_input_bytes: usize,
}

impl Default for Reader {
    fn default() -> Self {
        Self { max_input_bytes: DEFAULT_MAX_INPUT_BYTES }
    }
}

#[derive(Default)]
struct Draft {
    tool: Option<String>,
    workflow: Option<String>,
    input: Option<Bytes>,
    encoding: Encoding,
    extras: Option<Box<Extras>>,
    seen: u32,
}

impl Reader {
    /// Reads the fields of one entry.
    ///
    /// # Errors
    /// See [`Malformed`]: a required field is missing, a field is unknown, repeated or has a bad value, the input is not
    /// well-formed in its encoding or is too large, or the contract version is not 1.
    pub fn read(self, fields: impl IntoIterator<Item = (Bytes, Bytes)>) -> Result<Job, Malformed> {
        let mut draft = Draft::default();
        for (count, (name, value)) in fields.into_iter().enumerate() {
            if count >= MAX_FIELDS {
                return Err(malformed(format!("the entry has more than {MAX_FIELDS} fields")));
            }
            self.field(&mut draft, &name, value)?;
        }
        let target = match (draft.tool, draft.workflow) {
            (Some(tool), None) => Target::Tool(named(tool, check_target)?),
            (None, Some(workflow)) => Target::Workflow(named(workflow, check_target)?),
            (None, None) => {
                return Err(malformed(
                    "the entry has neither a field \"tool\" nor \"workflow\"; it needs one",
                ));
            }
            (Some(_), Some(_)) => {
                return Err(malformed("the entry has both \"tool\" and \"workflow\"; it needs exactly one"));
            }
        };
        let input =
            draft.input.map_or_else(Payload::empty_object, |bytes| Payload::encoded(draft.encoding, bytes));
        check_input(&input)?;
        Ok(Job { target, input, extras: draft.extras })
    }

    fn field(self, draft: &mut Draft, name: &[u8], value: Bytes) -> Result<(), Malformed> {
        let known = FIELDS.iter().position(|field| field.as_bytes() == name);
        if let Some(index) = known {
            if draft.seen & (1 << index) != 0 {
                return Err(malformed(format!("field {:?} is there twice", FIELDS[index])));
            }
            draft.seen |= 1 << index;
        }
        match name {
            b"tool" => draft.tool = Some(text("tool", value)?),
            b"workflow" => draft.workflow = Some(text("workflow", value)?),
            b"input" => {
                if value.len() > self.max_input_bytes {
                    return Err(Malformed {
                        code: "too_large",
                        message: format!(
                            "the input has {} bytes; {} are allowed: store it elsewhere and pass a reference",
                            value.len(),
                            self.max_input_bytes
                        ),
                    });
                }
                draft.input = Some(value);
            }
            b"enc" => draft.encoding = encoding(value)?,
            b"v" if &*value != b"1" => {
                return Err(Malformed {
                    code: "unsupported_version",
                    message:
                        "field \"v\" names a contract version that this worker does not know; it knows 1"
                            .to_owned(),
                });
            }
            b"v" => {}
            name if name.starts_with(b"x-") => {}
            name => extra(draft.extras.get_or_insert_with(Box::default), name, value)?,
        }
        Ok(())
    }
}

fn encoding(value: Bytes) -> Result<Encoding, Malformed> {
    match &*value {
        b"json" => Ok(Encoding::Json),
        b"msgpack" => Ok(Encoding::MsgPack),
        _ => {
            Err(malformed(format!("field \"enc\" is {:?}; known are json and msgpack", text("enc", value)?)))
        }
    }
}

fn extra(extras: &mut Extras, name: &[u8], value: Bytes) -> Result<(), Malformed> {
    match name {
        b"id" => extras.id = Some(named(text("id", value)?, check_id)?),
        b"tenant" => extras.tenant = Some(named(text("tenant", value)?, check_tenant)?),
        b"user" => extras.user = Some(named(text("user", value)?, check_user)?),
        b"priority" => extras.priority = Some(priority(value)?),
        b"queue" => extras.queue = Some(named(text("queue", value)?, check_queue)?),
        b"mode" => {
            let mode = text("mode", value)?.parse::<ExecutionMode>();
            extras.mode = Some(mode.map_err(|error| malformed(format!("field \"mode\": {error}")))?);
        }
        b"labels" => {
            let labels = Labels::parse(&value);
            extras.labels = labels.map_err(|error| malformed(format!("field \"labels\": {error}")))?;
        }
        b"delay_ms" => extras.delay_ms = Some(number("delay_ms", value)?),
        b"run_at_ms" => extras.run_at_ms = Some(number("run_at_ms", value)?),
        b"timeout_ms" => extras.timeout_ms = Some(number("timeout_ms", value)?),
        b"deadline_ms" => extras.deadline_ms = Some(number("deadline_ms", value)?),
        b"max_attempts" => extras.max_attempts = Some(number("max_attempts", value)?),
        b"result_ttl_ms" => extras.result_ttl_ms = Some(number("result_ttl_ms", value)?),
        b"reply_to" => extras.reply_to = Some(text("reply_to", value)?),
        b"traceparent" => extras.traceparent = Some(text("traceparent", value)?),
        b"tracestate" => extras.tracestate = Some(text("tracestate", value)?),
        b"_entry" => {
            extras.first_entry =
                Some(EntryId::parse(text("_entry", value)?).map_err(|error| malformed(error.to_string()))?);
        }
        b"_attempts" => extras.attempts_before = number("_attempts", value)?,
        b"_deaths" => extras.deaths = number("_deaths", value)?,
        b"_first_ms" => extras.first_attempt_ms = Some(number("_first_ms", value)?),
        b"_why" => extras.was_put_aside = true,
        b"_group" => extras.group = Some(text("_group", value)?),
        b"_ticket" => extras.tickets = tickets(&text("_ticket", value)?),
        b"_id" => extras.id = Some(named(text("_id", value)?, check_any_id)?),
        b"_parent" => extras.child_mut().parent = Some(text("_parent", value)?),
        b"_block" => extras.child_mut().block = Some(text("_block", value)?),
        b"_locals" => extras.child_mut().locals = Some(value),
        b"_source" => extras.source = Some(text("_source", value)?),
        b"_score" => extras.line_score = Some(text("_score", value)?),
        name if name.starts_with(b"_") => {}
        name => {
            let shown: String = String::from_utf8_lossy(name).chars().take(40).collect();
            return Err(Malformed {
                code: "unknown_field",
                message: format!(
                    "field {shown:?} is unknown; known are {}; give fields of your own the prefix \"x-\"",
                    FIELDS.join(", ")
                ),
            });
        }
    }
    Ok(())
}

/// The tiers named in a `_ticket`.
pub(crate) fn tickets(text: &str) -> Vec<String> {
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

fn check_input(input: &Payload) -> Result<(), Malformed> {
    input.check().map_err(|fault| malformed(format!("the input is not well-formed: {fault}")))
}
