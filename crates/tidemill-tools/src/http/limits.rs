//! What the head of a response says about the limits of its service.
//!
//! Read are `Retry-After` and `retry-after-ms`; `RateLimit` and `RateLimit-Policy` of the IETF's draft (revision 11, and
//! what its earlier revisions and their implementations send: a dictionary, or three fields); the three fields
//! `X-RateLimit-Limit`, `-Remaining` and `-Reset` with the variants of GitHub, Twitter, Envoy and others; those of OpenAI
//! and Anthropic, which count requests and tokens apart. Malformed fields are ignored, each by itself: a service's slip
//! must not stop a pool.

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;
use tidemill_tool::feedback::{Advertised, Feedback, MAX_RETRY_AFTER, REQUESTS};

use super::head::Head;
use structured::{Member, members, unquote};
use times::{milliseconds, number, seconds, until, until_date};

mod structured;
#[cfg(test)]
mod tests;
mod times;

const INPUT_TOKENS: &str = "input_tokens";
const OUTPUT_TOKENS: &str = "output_tokens";
const TOTAL_TOKENS: &str = "total_tokens";

/// Anthropic's limits are documented as per minute; nothing in the fields says so.
const ANTHROPIC_WINDOW: Option<Duration> = Some(Duration::from_secs(60));

/// Units that stand in the name of a field, with the three fields: limit, remaining, reset.
const BY_UNIT: [(&str, [&str; 3], Option<Duration>); 6] = [
    (
        REQUESTS,
        ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"],
        None,
    ),
    (
        TOTAL_TOKENS,
        ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"],
        None,
    ),
    (
        REQUESTS,
        [
            "anthropic-ratelimit-requests-limit",
            "anthropic-ratelimit-requests-remaining",
            "anthropic-ratelimit-requests-reset",
        ],
        ANTHROPIC_WINDOW,
    ),
    (
        TOTAL_TOKENS,
        [
            "anthropic-ratelimit-tokens-limit",
            "anthropic-ratelimit-tokens-remaining",
            "anthropic-ratelimit-tokens-reset",
        ],
        ANTHROPIC_WINDOW,
    ),
    (
        INPUT_TOKENS,
        [
            "anthropic-ratelimit-input-tokens-limit",
            "anthropic-ratelimit-input-tokens-remaining",
            "anthropic-ratelimit-input-tokens-reset",
        ],
        ANTHROPIC_WINDOW,
    ),
    (
        OUTPUT_TOKENS,
        [
            "anthropic-ratelimit-output-tokens-limit",
            "anthropic-ratelimit-output-tokens-remaining",
            "anthropic-ratelimit-output-tokens-reset",
        ],
        ANTHROPIC_WINDOW,
    ),
];

/// Says to whoever listens what the response tells about limits. A wait is said only where it is meant for the whole
/// service: with a 429 (and what stands for one) or a 5xx. A `Retry-After` of a redirect or of a 202 is about one thing.
pub(crate) fn hear(head: &Head, feedback: &Feedback) {
    if !feedback.has_listener() || !mentions_limits(head) {
        return;
    }
    let limits = advertised(head);
    let is_meant_for_all = is_throttled(head) || head.status.is_server_error();
    if let Some(wait) = wait(head, &limits).filter(|_| is_meant_for_all) {
        feedback.retry_after(wait);
    }
    if !is_from_cache(head) {
        for limit in limits {
            feedback.advertise(limit);
        }
    }
}

/// How long the service wants to wait before the call is made again.
pub(crate) fn retry_after(head: &Head) -> Option<Duration> {
    wait(head, &advertised(head))
}

/// Whether the service refused the call because there were too many: a 429, or a 403 that says when to come back or that
/// nothing is left, as GitHub's does.
pub(crate) fn is_throttled(head: &Head) -> bool {
    match head.status {
        StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::FORBIDDEN => stated_wait(head).is_some() || until_reset(&advertised(head)).is_some(),
        _ => false,
    }
}

fn wait(head: &Head, limits: &[Advertised]) -> Option<Duration> {
    stated_wait(head).or_else(|| if is_throttled(head) { until_reset(limits) } else { None })
}

/// The wait that the service states; milliseconds are the finer statement of the same.
fn stated_wait(head: &Head) -> Option<Duration> {
    let stated = |name: &str, read: fn(&str) -> Option<Duration>| head.get(name).and_then(read);
    stated("retry-after-ms", milliseconds)
        .or_else(|| stated("x-ms-retry-after-ms", milliseconds))
        .or_else(|| stated("retry-after", seconds))
        .or_else(|| head.get("retry-after").and_then(|text| until_date(text, head)))
        .map(|wait| wait.min(MAX_RETRY_AFTER))
}

/// When everything that is used up is replenished.
fn until_reset(limits: &[Advertised]) -> Option<Duration> {
    limits
        .iter()
        .filter(|limit| limit.remaining == Some(0.0))
        .filter_map(|limit| limit.reset_in)
        .max()
        .map(|wait| wait.min(MAX_RETRY_AFTER))
}

/// Spares the responses of services that advertise nothing all the looking.
fn mentions_limits(head: &Head) -> bool {
    head.fields().any(|(name, _)| {
        name.contains("ratelimit") || name.contains("rate-limit") || name.contains("retry-after")
    })
}

/// Numbers out of a cache tell of the past (draft-ietf-httpapi-ratelimit-headers §7.3).
fn is_from_cache(head: &Head) -> bool {
    head.get("age").and_then(number).is_some_and(|age| age > 0.0)
}

fn advertised(head: &Head) -> Vec<Advertised> {
    let mut limits = ietf(head);
    for names in [
        ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"],
        ["x-rate-limit-limit", "x-rate-limit-remaining", "x-rate-limit-reset"],
    ] {
        let (policies, state) = three_fields(head, names);
        combine(&policies, state, &mut limits);
    }
    for (unit, [limit, remaining, reset], window) in BY_UNIT {
        let limit = head.get(limit).and_then(number);
        let remaining = head.get(remaining).and_then(number);
        if limit.is_some() || remaining.is_some() {
            let reset_in = head.get(reset).and_then(|text| until(text, head));
            limits.push(Advertised { limit, remaining, reset_in, window, ..Advertised::of(unit) });
        }
    }
    limits
}

/// A limit as a server sets it.
#[derive(Debug)]
struct Policy<'a> {
    /// Empty when it has none.
    name: &'a str,
    /// Whose limit it is; empty when it is not said.
    partition: &'a str,
    unit: Cow<'static, str>,
    quota: f64,
    window: Option<Duration>,
}

impl<'a> Policy<'a> {
    /// Reads `"name";q=100;w=60` and the older `100;w=60`.
    fn read(member: &Member<'a>) -> Option<Self> {
        let parameter = |key| member.parameter(key);
        let (name, quota) = match parameter("q") {
            Some(quota) => (unquote(member.item), number(quota)?),
            None => ("", number(member.item)?),
        };
        let unit = match parameter("qu") {
            None | Some(REQUESTS) => Cow::Borrowed(REQUESTS),
            Some(unit) => Cow::Owned(unit.replace('-', "_")),
        };
        let window = parameter("w").or_else(|| parameter("window")).and_then(seconds);
        Some(Self { name, partition: parameter("pk").unwrap_or_default(), unit, quota, window })
    }

    /// Whether the state tells what is left of this limit.
    fn governs(&self, state: &State<'_>) -> bool {
        if state.name.is_empty() || self.name.is_empty() {
            return state.limit == Some(self.quota);
        }
        let is_same_partition =
            self.partition == state.partition || self.partition.is_empty() || state.partition.is_empty();
        self.name == state.name && is_same_partition
    }
}

/// What is left of a limit.
#[derive(Debug, Default)]
struct State<'a> {
    name: &'a str,
    partition: &'a str,
    limit: Option<f64>,
    remaining: Option<f64>,
    reset_in: Option<Duration>,
}

impl State<'_> {
    const fn says_something(&self) -> bool {
        self.limit.is_some() || self.remaining.is_some()
    }
}

/// Puts limits and what is left of them together.
fn combine<'a>(
    policies: &[Policy<'a>],
    states: impl IntoIterator<Item = State<'a>>,
    limits: &mut Vec<Advertised>,
) {
    let mut is_told = vec![false; policies.len()];
    for state in states {
        let State { limit, remaining, reset_in, .. } = state;
        let mut advertised = Advertised { limit, remaining, reset_in, ..Advertised::of(REQUESTS) };
        if let Some(index) = policies.iter().position(|policy| policy.governs(&state)) {
            let Policy { unit, quota, window, .. } = &policies[index];
            is_told[index] = true;
            advertised =
                Advertised { unit: unit.clone(), limit: Some(*quota), window: *window, ..advertised };
        }
        limits.push(advertised);
    }
    for (policy, _) in policies.iter().zip(is_told).filter(|(_, is_told)| !is_told) {
        let Policy { unit, quota, window, .. } = policy;
        limits.push(Advertised { limit: Some(*quota), window: *window, ..Advertised::of(unit.clone()) });
    }
}

/// The IETF's fields, in the form of their newest draft or of an earlier one.
fn ietf(head: &Head) -> Vec<Advertised> {
    let mut policies: Vec<_> =
        list(head, "ratelimit-policy").filter_map(|member| Policy::read(&member)).collect();
    let mut states = Vec::new();
    let mut dictionary = State::default();
    for member in list(head, "ratelimit") {
        match member.entry() {
            Some(("limit", value)) => dictionary.limit = number(value),
            Some(("remaining", value)) => dictionary.remaining = number(value),
            Some(("reset", value)) => dictionary.reset_in = until(value, head),
            Some(_) => {}
            None => states.extend(state_of(&member)),
        }
    }
    let (more_policies, three) =
        three_fields(head, ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"]);
    policies.extend(more_policies);
    states.extend([dictionary].into_iter().filter(State::says_something));
    if states.is_empty() {
        states.extend(three);
    }
    let mut limits = Vec::new();
    combine(&policies, states, &mut limits);
    limits
}

/// Reads `"name";r=50;t=30`.
fn state_of<'a>(member: &Member<'a>) -> Option<State<'a>> {
    let remaining = member.parameter("r").and_then(number)?;
    Some(State {
        name: unquote(member.item),
        partition: member.parameter("pk").unwrap_or_default(),
        limit: None,
        remaining: Some(remaining),
        reset_in: member.parameter("t").and_then(seconds),
    })
}

/// Three fields, the first of which may list policies after its number: `100, 100;w=60, 1000;w=3600`.
fn three_fields<'a>(head: &'a Head, names: [&'a str; 3]) -> (Vec<Policy<'a>>, Option<State<'a>>) {
    let [limit, remaining, reset] = names;
    let mut listed = list(head, limit);
    let first = listed.next();
    let state = State {
        limit: first.and_then(|member| number(member.item)),
        remaining: head.get(remaining).and_then(number),
        reset_in: head.get(reset).and_then(|text| until(text, head)),
        ..State::default()
    };
    let has_window = |policy: &Policy<'_>| policy.window.is_some();
    let policies = first
        .into_iter()
        .chain(listed)
        .filter_map(|member| Policy::read(&member))
        .filter(has_window)
        .collect();
    (policies, Some(state).filter(State::says_something))
}

/// The members of a field, which may stand on several lines.
fn list<'a>(head: &'a Head, name: &'a str) -> impl Iterator<Item = Member<'a>> {
    head.all(name).filter_map(|value| std::str::from_utf8(value).ok()).flat_map(members)
}
