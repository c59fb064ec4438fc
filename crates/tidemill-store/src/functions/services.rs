//! Admission and what is around it: the functions under the tag of services.

use std::time::Duration;

use redis::Value;

use super::{Function, FunctionCall};
use crate::{Error, Services};

pub(super) const ADMIT: Function = Function {
    name: "tm1_admit",
    keys: &["config", "changes"],
    args: &["who", "seq", "dice", "tier_count", "reports", "requests"],
};
pub(super) const FORECAST: Function =
    Function { name: "tm1_forecast", keys: &["config"], args: &["reserve", "horizon_us", "tiers"] };
pub(super) const DEFINE: Function = Function {
    name: "tm1_define",
    keys: &["definitions", "config", "changes"],
    args: &["who", "why", "origin", "name", "text", "templates"],
};
pub(super) const CONTROL: Function = Function {
    name: "tm1_control",
    keys: &["changes", "state_key", "held_key", "sums_key"],
    args: &["who", "why", "action", "name", "until_us"],
};

/// A tier that an exchange names, with what the worker holds in it.
#[derive(Debug, Clone, Copy)]
pub struct TierUse<'a> {
    /// The tier.
    pub name: &'a str,
    /// Whose rules it follows.
    pub template: &'a str,
    /// Calls that this worker has under way in it, the reported ones not counted.
    pub held: u32,
}

/// How a call ended, for breaker and counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallOutcome {
    /// It succeeded, or failed through no fault of the service.
    Ok,
    /// The service's fault.
    Failed,
    /// The service asked for less.
    Throttled,
    /// It says nothing about the service.
    Ignored,
    /// It was never made.
    Unsent,
}

impl CallOutcome {
    /// The word in counters and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Throttled => "throttled",
            Self::Ignored => "ignored",
            Self::Unsent => "unsent",
        }
    }
}

/// What was used, less what was reserved, of one unit in one tier (an index into [`Exchange::tiers`]).
#[derive(Debug, Clone, Copy)]
pub struct Correction<'a> {
    /// The tier's index.
    pub tier: usize,
    /// The unit.
    pub unit: &'a str,
    /// Used less reserved.
    pub delta: f64,
    /// When it was granted, in Redis's microseconds.
    pub granted_us: u64,
}

/// What a service says of its own limit.
#[derive(Debug, Clone, Copy)]
pub struct Notice<'a> {
    /// The tier's index.
    pub tier: usize,
    /// The unit.
    pub unit: &'a str,
    /// The limit; 0: not told.
    pub limit: f64,
    /// What is left; absent: not told.
    pub remaining: Option<f64>,
    /// When it is whole again, if told.
    pub reset_in: Option<Duration>,
    /// The limit's window, if told.
    pub window: Option<Duration>,
}

/// One call that has ended.
#[derive(Debug, Clone)]
pub struct CallReport<'a> {
    /// The service's own tier, if it has one.
    pub service: Option<usize>,
    /// How it ended.
    pub outcome: CallOutcome,
    /// How long it took.
    pub latency: Duration,
    /// [`Answer::Granted::epoch`] of its grant.
    pub epoch: i64,
    /// Whether it was a probe.
    pub probe: bool,
    /// The tier that the service asked to wait, and for how long.
    pub pause: Option<(usize, Duration)>,
    /// All of its tiers.
    pub tiers: Vec<usize>,
    /// Amounts that came out otherwise than reserved.
    pub corrections: Vec<Correction<'a>>,
    /// What the service said.
    pub notices: Vec<Notice<'a>>,
}

/// One call that wants to be made.
#[derive(Debug, Clone)]
pub struct CallRequest<'a> {
    /// Whether it is another attempt.
    pub is_retry: bool,
    /// Whether it repeats a call that is late: granted only where there is plenty.
    pub is_hedge: bool,
    /// How long it would (still) wait in the worker.
    pub patience: Duration,
    /// The service's own tier, if it has one.
    pub service: Option<usize>,
    /// The job's id; what needs much at once is recognised by it.
    pub id: &'a str,
    /// Its tiers, and whether it has a ticket for each.
    pub tiers: Vec<(usize, bool)>,
    /// What it will use, by unit.
    pub amounts: Vec<(&'a str, f64)>,
}

/// A worker's one call under way.
#[derive(Debug, Clone, Default)]
pub struct Exchange<'a> {
    /// Every tier that is named, each once.
    pub tiers: Vec<TierUse<'a>>,
    /// Ended calls.
    pub reports: Vec<CallReport<'a>>,
    /// Wanted calls.
    pub requests: Vec<CallRequest<'a>>,
}

/// What is said to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It may be made.
    Granted {
        /// To be told when it ends.
        epoch: i64,
        /// Whether the breaker is half-open and this is one of its probes.
        probe: bool,
    },
    /// Ask again after this.
    Wait(Hindrance),
    /// It belongs into the line of the tier.
    Line(Hindrance),
    /// Put it aside for so long.
    Aside(Hindrance),
    /// It will never be granted as it is (`why`: `too_large:<unit>`, or `busy` for a hedge).
    Never(Hindrance),
}

/// What keeps a call from being made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hindrance {
    /// For how long, as far as that is known.
    pub wait: Duration,
    /// The tier's index in [`Exchange::tiers`].
    pub tier: usize,
    /// `limit:<unit>`, `concurrency`, `breaker`, `pause`, `line`, `retry_budget`, `too_large:<unit>`, `busy`.
    pub why: String,
}

/// The reply to an [`Exchange`].
#[derive(Debug, Clone)]
pub struct Exchanged {
    /// The generation of the definitions: when it has changed, they are to be read anew.
    pub generation: u64,
    /// Redis's time, in microseconds.
    pub now_us: u64,
    /// False: a newer call of this worker was there before, and nothing was done.
    pub accepted: bool,
    /// Places under a cap are short: ends are to be reported at once.
    pub pressed: bool,
    /// One per request.
    pub answers: Vec<Answer>,
}

/// A tier that a [`Services::forecast`] asks about.
#[derive(Debug, Clone, Copy)]
pub struct Forecast<'a> {
    /// The tier.
    pub tier: &'a str,
    /// Jobs that wait in its lines.
    pub waiting: u64,
    /// Calls of an earlier allowance that were not called up.
    pub unused: u64,
}

/// What can be expected of a tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlook {
    /// Jobs that may be called up now.
    pub allowance: u64,
    /// For how long nothing goes at all, if so.
    pub blocked_for: Option<Duration>,
    /// What bounds it: `limit:<unit>`, `concurrency`, `breaker`, `pause`, or nothing.
    pub why: String,
    /// Calls in 1,000 s that it lets go; `None`: without bound, or not known.
    pub per_1000_s: Option<u64>,
    /// Calls under way, where there is a cap.
    pub in_use: u64,
    /// Whether jobs wait in a line.
    pub lined: bool,
}

/// What people do to a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Nothing is granted until then (Unix milliseconds), or until it is resumed.
    Pause(Option<u64>),
    /// Takes back a pause, an isolation or a disabling.
    Resume,
    /// Its breaker is held open.
    Isolate,
    /// Its breaker is held closed.
    Disable,
    /// Its breaker closes.
    Close,
    /// Forgets use, breaker, budget and counters; a pause stays.
    Reset,
}

impl Control {
    const fn word(self) -> &'static str {
        match self {
            Self::Pause(_) => "pause",
            Self::Resume => "resume",
            Self::Isolate => "isolate",
            Self::Disable => "disable",
            Self::Close => "close",
            Self::Reset => "reset",
        }
    }
}

/// Who changes something, and why: for the audit.
#[derive(Debug, Clone, Copy)]
pub struct Author<'a> {
    /// Who.
    pub who: &'a str,
    /// Why.
    pub why: &'a str,
    /// Whether it comes from a settings file: then a change made by hand since stays, unless the file has changed too.
    pub is_file: bool,
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Amounts are written so that Lua reads them as they are.
fn amount(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.6}") }
}

impl CallReport<'_> {
    fn write(&self, call: &mut FunctionCall) {
        call.arg(self.service.map_or(0, |at| at + 1)).arg(self.outcome.as_str());
        call.arg(micros(self.latency)).arg(self.epoch).arg(u8::from(self.probe));
        let (paused, pause) = self.pause.map_or((0, 0), |(tier, wait)| (tier + 1, micros(wait)));
        call.arg(pause).arg(paused).arg(self.tiers.len());
        for tier in &self.tiers {
            call.arg(tier + 1);
        }
        call.arg(self.corrections.len());
        for one in &self.corrections {
            call.arg(one.tier + 1).arg(one.unit).arg(amount(one.delta)).arg(one.granted_us);
        }
        call.arg(self.notices.len());
        for one in &self.notices {
            call.arg(one.tier + 1).arg(one.unit).arg(amount(one.limit));
            call.arg(one.remaining.map_or_else(|| "-1".to_owned(), amount));
            call.arg(one.reset_in.map_or(0, micros)).arg(one.window.map_or(0, micros));
        }
    }
}

impl CallRequest<'_> {
    fn write(&self, call: &mut FunctionCall) {
        let flags = u8::from(self.is_retry) + 2 * u8::from(self.is_hedge);
        call.arg(flags).arg(micros(self.patience)).arg(self.service.map_or(0, |at| at + 1)).arg(self.id);
        call.arg(self.tiers.len());
        for (tier, has_ticket) in &self.tiers {
            let index = i64::try_from(tier + 1).unwrap_or(i64::MAX);
            call.arg(if *has_ticket { -index } else { index });
        }
        call.arg(self.amounts.len());
        for (unit, value) in &self.amounts {
            call.arg(*unit).arg(amount(*value));
        }
    }
}

impl Services {
    /// Asks for grants and reports ended calls, of one worker, in one atomic call. A worker has one such call under way at a time;
    /// `seq` grows from call to call. `dice` is a random number from 0 to 1, for jitter.
    ///
    /// # Errors
    /// Redis is not reachable or refuses. Grants may have been given then; the next call says that nobody holds them.
    pub async fn admit(
        &self,
        who: &str,
        seq: u64,
        dice: f64,
        exchange: &Exchange<'_>,
    ) -> Result<Exchanged, Error> {
        let mut call = FunctionCall::new(&ADMIT, 2 + exchange.tiers.len() * 3);
        call.key(&self.config()).key(&self.changes());
        for tier in &exchange.tiers {
            self.tier_keys(&mut call, tier.name);
        }
        call.arg(who).arg(seq).arg(format!("{dice:.6}")).arg(exchange.tiers.len());
        call.arg(exchange.reports.len()).arg(exchange.requests.len());
        for tier in &exchange.tiers {
            call.arg(tier.name).arg(tier.template).arg(tier.held);
        }
        for report in &exchange.reports {
            report.write(&mut call);
        }
        for request in &exchange.requests {
            request.write(&mut call);
        }
        let reply: Vec<Value> = self.link().query("asking for admission", call.command()).await?;
        read_exchanged(&reply)
            .ok_or_else(|| Error::Corrupt("the reply of tm1_admit is not what was asked for".to_owned()))
    }

    /// What the tiers would let go until the horizon. With `reserve` the allowance is the caller's to call up: two that ask do
    /// not get the same.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn forecast(
        &self,
        horizon: Duration,
        reserve: bool,
        tiers: &[Forecast<'_>],
    ) -> Result<Vec<Outlook>, Error> {
        if tiers.is_empty() {
            return Ok(Vec::new());
        }
        let mut call = FunctionCall::new(&FORECAST, 1 + tiers.len() * 3);
        call.key(&self.config());
        for one in tiers {
            self.tier_keys(&mut call, one.tier);
        }
        call.arg(u8::from(reserve)).arg(micros(horizon)).arg(tiers.len());
        for one in tiers {
            let starred = starred(one.tier);
            call.arg(one.tier).arg(one.tier).arg(starred).arg(one.waiting).arg(one.unused);
        }
        let reply: Vec<Value> = self.link().query("asking for an outlook", call.command()).await?;
        Ok(reply.chunks_exact(6).map(read_outlook).collect())
    }

    /// Sets a definition (`text` JSON; empty: removes it) and the rules of its templates. Replies whether anything changed.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn define(
        &self,
        author: Author<'_>,
        name: &str,
        text: &str,
        templates: &[(String, String)],
    ) -> Result<bool, Error> {
        let mut call = FunctionCall::new(&DEFINE, 3);
        call.key(&self.definitions_key()).key(&self.config()).key(&self.changes());
        call.arg(author.who).arg(author.why).arg(if author.is_file { "file" } else { "hand" });
        call.arg(name).arg(text).arg(templates.len());
        for (template, rules) in templates {
            call.arg(template).arg(rules);
        }
        let changed: i64 = self.link().query("defining a service", call.command()).await?;
        Ok(changed == 1)
    }

    /// Does something to a tier. Replies its state before and after (`running`, `paused`, `open`, `half_open`, `forced_open`,
    /// `disabled`).
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn control(
        &self,
        author: Author<'_>,
        tier: &str,
        control: Control,
    ) -> Result<(String, String), Error> {
        let mut call = FunctionCall::new(&CONTROL, 4);
        call.key(&self.changes());
        self.tier_keys(&mut call, tier);
        let until =
            if let Control::Pause(Some(until_ms)) = control { until_ms.saturating_mul(1_000) } else { 0 };
        call.arg(author.who).arg(author.why).arg(control.word()).arg(tier).arg(until);
        self.link().query("changing a service's state", call.command()).await
    }

    fn tier_keys(&self, call: &mut FunctionCall, tier: &str) {
        call.key(&self.tier(tier)).key(&self.held(tier)).key(&self.sums(tier));
    }
}

/// The template that tiers of the same kind share: the last name replaced by a star.
fn starred(tier: &str) -> String {
    tier.rsplit_once(':').map_or_else(|| tier.to_owned(), |(kind, _)| format!("{kind}:*"))
}

fn integer(value: &Value) -> Option<i64> {
    if let Value::Int(number) = value { Some(*number) } else { None }
}

fn word(value: &Value) -> String {
    match value {
        Value::BulkString(text) => String::from_utf8_lossy(text).into_owned(),
        Value::SimpleString(text) => text.clone(),
        _ => String::new(),
    }
}

fn read_exchanged(reply: &[Value]) -> Option<Exchanged> {
    let (head, answers) = reply.split_at_checked(4)?;
    let number = |at: usize| integer(&head[at]).and_then(|number| u64::try_from(number).ok());
    let answers = answers.chunks_exact(4).map(read_answer).collect::<Option<Vec<_>>>()?;
    Some(Exchanged {
        generation: number(0)?,
        now_us: number(1)?,
        accepted: number(2)? == 1,
        pressed: number(3)? == 1,
        answers,
    })
}

fn read_answer(row: &[Value]) -> Option<Answer> {
    let (code, value, tier) = (integer(&row[0])?, integer(&row[1])?, integer(&row[2])?);
    if code == 1 {
        return Some(Answer::Granted { epoch: value, probe: tier == 1 });
    }
    let hindrance = Hindrance {
        wait: Duration::from_micros(u64::try_from(value).unwrap_or(0)),
        tier: usize::try_from(tier - 1).ok()?,
        why: word(&row[3]),
    };
    match code {
        0 => Some(Answer::Wait(hindrance)),
        2 => Some(Answer::Line(hindrance)),
        3 => Some(Answer::Aside(hindrance)),
        -1 => Some(Answer::Never(hindrance)),
        _ => None,
    }
}

fn read_outlook(row: &[Value]) -> Outlook {
    let number = |at: usize| integer(&row[at]).and_then(|number| u64::try_from(number).ok()).unwrap_or(0);
    let some = |number: u64| (number > 0).then_some(number);
    Outlook {
        allowance: number(0),
        blocked_for: some(number(1)).map(Duration::from_micros),
        why: word(&row[2]),
        per_1000_s: some(number(3)),
        in_use: number(4),
        lined: number(5) == 1,
    }
}
