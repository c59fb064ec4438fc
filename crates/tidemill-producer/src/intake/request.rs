//! A request for a job or a run, as JSON: one object whose members are the contract's fields.
//!
//! Nothing is built from the input: its text is checked and passed on as it stands.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use tidemill_protocol::{Labels, check_id, check_queue, check_target, check_tenant, check_user};

use crate::refusal::{Code, Refusal, nearest};

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One call of a tool.
    Job,
    /// One run of a workflow.
    Run,
}

impl Kind {
    /// The word in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Run => "run",
        }
    }

    /// The field that names what to run.
    #[must_use]
    pub const fn target_field(self) -> &'static str {
        match self {
            Self::Job => "tool",
            Self::Run => "workflow",
        }
    }
}

/// A whole number with its text, so that it need not be written again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number<'a> {
    /// Its decimal digits.
    pub text: Cow<'a, str>,
    /// Its value.
    pub value: u64,
}

impl From<u64> for Number<'_> {
    fn from(value: u64) -> Self {
        Self { text: value.to_string().into(), value }
    }
}

/// A request for a job or a run. Fields that are `None` were not given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// What is asked for.
    pub kind: Kind,
    /// The tool or workflow, with or without `@version`.
    pub target: Cow<'a, str>,
    /// JSON text; `{}` if absent.
    pub input: Option<Cow<'a, str>>,
    /// The caller's id.
    pub id: Option<Cow<'a, str>>,
    /// Owner for limits and fairness.
    pub tenant: Option<Cow<'a, str>>,
    /// For whom it is done; owner for limits.
    pub user: Option<Cow<'a, str>>,
    /// Place in a line for a limit, 0 to 9; 9 goes first.
    pub priority: Option<Number<'a>>,
    /// Queue of the job, or of the run's steps.
    pub queue: Option<Cow<'a, str>>,
    /// How the run's steps are carried out, in place of what its workflow and the pool say.
    pub mode: Option<Cow<'a, str>>,
    /// What the run is found by: the text of a JSON object.
    pub labels: Option<Cow<'a, str>>,
    /// Wait before it may begin, in milliseconds.
    pub delay_ms: Option<Number<'a>>,
    /// Not before this time, in Unix milliseconds.
    pub run_at_ms: Option<Number<'a>>,
    /// Longest time of one attempt (of the whole run), in milliseconds.
    pub timeout_ms: Option<Number<'a>>,
    /// Nothing starts later than this, in milliseconds.
    pub deadline_ms: Option<Number<'a>>,
    /// Attempts in all.
    pub max_attempts: Option<Number<'a>>,
    /// Keep the result for this long, in milliseconds.
    pub result_ttl_ms: Option<Number<'a>>,
    /// A stream that gets the result.
    pub reply_to: Option<Cow<'a, str>>,
    /// W3C trace context.
    pub traceparent: Option<Cow<'a, str>>,
    /// W3C trace state.
    pub tracestate: Option<Cow<'a, str>>,
    /// The caller's own fields, each beginning with `x-`.
    pub own: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

/// The members that a request may have, besides those that begin with `x-`.
const MEMBERS: [&str; 19] = [
    "tool",
    "workflow",
    "input",
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
];

/// Most fields of the caller's own.
const MAX_OWN: usize = 32;
/// Longest text of a member other than `input`, in bytes.
const MAX_TEXT_BYTES: usize = 4_096;

impl<'a> Request<'a> {
    /// A request with nothing but its target.
    pub fn new(kind: Kind, target: impl Into<Cow<'a, str>>) -> Self {
        Self {
            kind,
            target: target.into(),
            input: None,
            id: None,
            tenant: None,
            user: None,
            priority: None,
            queue: None,
            mode: None,
            labels: None,
            delay_ms: None,
            run_at_ms: None,
            timeout_ms: None,
            deadline_ms: None,
            max_attempts: None,
            result_ttl_ms: None,
            reply_to: None,
            traceparent: None,
            tracestate: None,
            own: Vec::new(),
        }
    }

    /// Reads one JSON object.
    ///
    /// # Errors
    /// It is not JSON, not an object, or a member is unknown, repeated, missing or has a value of the wrong form.
    pub fn parse(kind: Kind, text: &'a str) -> Result<Self, Refusal> {
        let mut request = Self::new(kind, "");
        let mut json = serde_json::Deserializer::from_str(text);
        let mut fault = None;
        let members = Members { request: &mut request, fault: &mut fault, seen: 0 };
        let read = json.deserialize_map(members).and_then(|()| json.end());
        if let Err(error) = read {
            return Err(not_read(&error));
        }
        if let Some(fault) = fault {
            return Err(fault);
        }
        if request.target.is_empty() {
            let field = kind.target_field();
            return Err(Refusal::new(
                Code::MissingMember,
                format!("the member {field:?} is missing: it names the {field} to run"),
            ));
        }
        Ok(request)
    }

    fn member(&mut self, name: &str, value: &'a RawValue) -> Result<(), Refusal> {
        match name {
            "tool" | "workflow" if name == self.kind.target_field() => self.target = text(name, value)?,
            "tool" => return Err(misplaced(name, "/v1/jobs")),
            "workflow" => return Err(misplaced(name, "/v1/runs")),
            "input" => self.input = Some(value.get().into()),
            "id" => self.id = Some(text(name, value)?),
            "tenant" => self.tenant = Some(text(name, value)?),
            "user" => self.user = Some(text(name, value)?),
            "priority" => self.priority = Some(number(name, value)?),
            "queue" => self.queue = Some(text(name, value)?),
            "mode" if self.kind == Kind::Run => self.mode = Some(text(name, value)?),
            "mode" => return Err(misplaced(name, "/v1/runs")),
            "labels" if self.kind == Kind::Run => self.labels = Some(value.get().into()),
            "labels" => return Err(misplaced(name, "/v1/runs")),
            "delay_ms" => self.delay_ms = Some(number(name, value)?),
            "run_at_ms" => self.run_at_ms = Some(number(name, value)?),
            "timeout_ms" => self.timeout_ms = Some(number(name, value)?),
            "deadline_ms" => self.deadline_ms = Some(number(name, value)?),
            "max_attempts" => self.max_attempts = Some(number(name, value)?),
            "result_ttl_ms" => self.result_ttl_ms = Some(number(name, value)?),
            "reply_to" => self.reply_to = Some(text(name, value)?),
            "traceparent" => self.traceparent = Some(text(name, value)?),
            "tracestate" => self.tracestate = Some(text(name, value)?),
            "v" if value.get() == "1" || value.get() == "\"1\"" => {}
            "v" => return Err(bad(name, "it names a contract version that is not known; known is 1")),
            "enc" if value.get() == "\"json\"" => {}
            "enc" => {
                return Err(bad(
                    name,
                    "over HTTP an input is always JSON; MessagePack goes to the stream itself",
                ));
            }
            own if own.starts_with("x-") => self.own.push((own.to_owned().into(), text(own, value)?)),
            unknown => return Err(unknown_member(unknown)),
        }
        Ok(())
    }

    /// Checks names, ids and limits.
    ///
    /// # Errors
    /// The first member that is not valid.
    pub fn check(&self, max_input_bytes: usize) -> Result<(), Refusal> {
        let named =
            |error: tidemill_protocol::InvalidName| Refusal::new(Code::InvalidMember, error.to_string());
        check_target(&self.target).map_err(named)?;
        self.id.as_deref().map_or(Ok(()), check_id).map_err(named)?;
        self.queue.as_deref().map_or(Ok(()), check_queue).map_err(named)?;
        self.mode.as_deref().map_or(Ok(()), |mode| crate::modes::mode_of(mode).map(drop))?;
        if let Some(labels) = &self.labels {
            Labels::parse(labels.as_bytes()).map_err(|error| bad("labels", &error.to_string()))?;
        }
        self.tenant.as_deref().map_or(Ok(()), check_tenant).map_err(named)?;
        self.user.as_deref().map_or(Ok(()), check_user).map_err(named)?;
        let size = self.input.as_deref().map_or(2, str::len);
        if size > max_input_bytes {
            return Err(Refusal::new(
                Code::InputTooLarge,
                format!(
                    "the input has {size} bytes; {max_input_bytes} are allowed: store it elsewhere and pass a reference"
                ),
            ));
        }
        if self.delay_ms.is_some() && self.run_at_ms.is_some() {
            return Err(Refusal::new(Code::InvalidMember, "give \"delay_ms\" or \"run_at_ms\", not both"));
        }
        if self.priority.as_ref().is_some_and(|priority| priority.value > 9 || priority.text.len() > 1) {
            return Err(bad("priority", "it must be one digit, 0 to 9; 9 goes first"));
        }
        let attempts = self.max_attempts.as_ref().map_or(1, |attempts| attempts.value);
        if !(1..=u64::from(u32::MAX)).contains(&attempts) {
            return Err(bad("max_attempts", "it must be at least 1 and fit 32 bits"));
        }
        if self.reply_to.as_deref().is_some_and(str::is_empty) {
            return Err(bad("reply_to", "it is empty: name a stream or leave it out"));
        }
        self.traceparent.as_deref().map_or(Ok(()), check_traceparent)?;
        if self.own.len() > MAX_OWN {
            return Err(Refusal::new(
                Code::InvalidMember,
                format!("there are {} members of your own; {MAX_OWN} are allowed", self.own.len()),
            ));
        }
        Ok(())
    }
}

/// Whether a text is a W3C `traceparent`.
pub(crate) fn is_traceparent(text: &str) -> bool {
    let mut parts = text.split('-');
    let mut part = |length: usize| {
        parts.next().is_some_and(|part| {
            part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        })
    };
    part(2) && part(32) && part(16) && part(2)
}

fn check_traceparent(text: &str) -> Result<(), Refusal> {
    if is_traceparent(text) {
        return Ok(());
    }
    Err(bad("traceparent", "it is not of the form 00-<32 hex digits>-<16 hex digits>-<2 hex digits>"))
}

fn bad(name: &str, why: &str) -> Refusal {
    Refusal::new(Code::InvalidMember, format!("the member {name:?} is not valid: {why}"))
}

fn misplaced(name: &str, path: &str) -> Refusal {
    Refusal::new(Code::InvalidRequest, format!("a request with a member {name:?} belongs to {path}"))
}

fn unknown_member(name: &str) -> Refusal {
    let shown: String = name.chars().take(60).collect();
    let hint = match nearest(name, MEMBERS.into_iter()) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("known are {}; members of your own begin with \"x-\"", MEMBERS.join(", ")),
    };
    Refusal::new(Code::UnknownMember, format!("the member {shown:?} is unknown; {hint}"))
}

fn not_read(error: &serde_json::Error) -> Refusal {
    if error.is_data() {
        return Refusal::new(Code::InvalidRequest, format!("expected one JSON object: {error}"));
    }
    Refusal::new(Code::InvalidJson, error.to_string())
}

fn text<'a>(name: &str, value: &'a RawValue) -> Result<Cow<'a, str>, Refusal> {
    let raw = value.get();
    if raw.len() > MAX_TEXT_BYTES {
        return Err(bad(name, &format!("it is longer than {MAX_TEXT_BYTES} bytes")));
    }
    // a string without an escape is its own text
    let plain = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    if let Some(plain) = plain
        && !plain.contains('\\')
    {
        return Ok(plain.into());
    }
    serde_json::from_str::<String>(raw).map(Cow::Owned).map_err(|_| bad(name, "expected a string"))
}

fn number<'a>(name: &str, value: &'a RawValue) -> Result<Number<'a>, Refusal> {
    let raw = value.get();
    let read = raw.bytes().all(|b| b.is_ascii_digit()).then(|| raw.parse::<u64>().ok()).flatten();
    // Redis's Lua counts milliseconds in doubles
    match read {
        Some(value) if value <= (1 << 53) => Ok(Number { text: raw.into(), value }),
        _ => Err(bad(name, "expected a whole number that is not negative, below 2^53")),
    }
}

struct Members<'r, 'a> {
    request: &'r mut Request<'a>,
    fault: &'r mut Option<Refusal>,
    seen: u32,
}

impl<'de> Visitor<'de> for Members<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Name<'de>>()? {
            let value = map.next_value::<&'de RawValue>()?;
            // the rest is still read, so that text that is not JSON is told first
            if self.fault.is_some() {
                continue;
            }
            let known = MEMBERS.iter().position(|member| *member == name.0);
            if let Some(at) = known {
                if self.seen & (1 << at) != 0 {
                    let twice = format!("the member {:?} is there twice", name.0);
                    *self.fault = Some(Refusal::new(Code::InvalidMember, twice));
                    continue;
                }
                self.seen |= 1 << at;
            }
            if let Err(fault) = self.request.member(&name.0, value) {
                *self.fault = Some(fault);
            }
        }
        Ok(())
    }
}

/// A member's name, borrowed where it has no escape.
struct Name<'a>(Cow<'a, str>);

impl<'de> serde::Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member's name")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(text.into()))
            }
            fn visit_str<E>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(text.to_owned().into()))
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}

#[cfg(test)]
mod tests;
