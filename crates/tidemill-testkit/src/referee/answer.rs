//! The bytes of an answer.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    ledger::{Call, Decision, Standing},
    report::{Rule, Verdict},
    rules::{Dialect, Fault, RetryAfter, RetryForm, Unit, Usage},
};

/// An answer as it goes over the wire.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) bytes: Vec<u8>,
}

/// The answer to a judged call, at this wall-clock time.
pub(super) fn answer(decision: &Decision, call: &Call, now: SystemTime) -> Answer {
    let told = decision.rules.usage;
    let (status, retry_after, body) = match (decision.verdict, decision.fault) {
        (Verdict::Refused(rule), _) => {
            let after = decision.wait.zip(decision.rules.retry_after);
            (429, after.map(|(after, form)| RetryAfter { after, form }), refusal(told, rule, decision.wait))
        }
        (Verdict::Admitted, Some(Fault::Status { status, retry_after })) => {
            (status, retry_after, failure(told, status))
        }
        (Verdict::Admitted, Some(Fault::Garbage)) => (200, None, "{\"ok\": tru\u{fffd}<html>".to_owned()),
        (Verdict::Admitted, _) => (200, None, success(told, call)),
    };
    let mut head = head(status, now);
    for dialect in &decision.rules.headers {
        quotas(&mut head, *dialect, &decision.standing, now);
    }
    if let Some(retry_after) = retry_after {
        wait(&mut head, retry_after, now);
    }
    Answer { status, bytes: whole(head, &body) }
}

/// An answer to what is no call: it is not judged, and the connection ends with it.
pub(super) fn refuse(status: u16, now: SystemTime) -> Vec<u8> {
    let mut head = head(status, now);
    head.push_str("connection: close\r\n");
    whole(head, "{\"error\":{\"message\":\"the referee cannot read this request\"}}")
}

fn head(status: u16, now: SystemTime) -> String {
    let mut head = String::with_capacity(512);
    push(&mut head, format_args!("HTTP/1.1 {status} {}\r\n", reason(status)));
    push(
        &mut head,
        format_args!("content-type: application/json\r\ndate: {}\r\n", httpdate::HttpDate::from(now)),
    );
    head
}

fn whole(mut head: String, body: &str) -> Vec<u8> {
    push(&mut head, format_args!("content-length: {}\r\n\r\n{body}", body.len()));
    head.into_bytes()
}

/// Writing into a string cannot fail.
fn push(to: &mut String, what: std::fmt::Arguments<'_>) {
    to.write_fmt(what).ok();
}

const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        411 => "Length Required",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        529 => "Overloaded",
        _ => "Scripted",
    }
}

fn wait(head: &mut String, RetryAfter { after, form }: RetryAfter, now: SystemTime) {
    match form {
        RetryForm::Seconds => push(head, format_args!("retry-after: {}\r\n", whole_seconds(after))),
        RetryForm::Milliseconds => {
            push(head, format_args!("retry-after-ms: {}\r\n", after.as_nanos().div_ceil(1_000_000)));
        }
        RetryForm::Date => {
            let date = httpdate::HttpDate::from(UNIX_EPOCH + Duration::from_secs(unix_seconds(now + after)));
            push(head, format_args!("retry-after: {date}\r\n"));
        }
    }
}

fn quotas(head: &mut String, dialect: Dialect, standing: &[Standing], now: SystemTime) {
    match dialect {
        Dialect::OpenAi => {
            for one in tightest(standing) {
                let (unit, limit) = (one.quota.unit.as_str(), one.quota.limit);
                push(head, format_args!("x-ratelimit-limit-{unit}: {limit}\r\n"));
                push(head, format_args!("x-ratelimit-remaining-{unit}: {}\r\n", one.remaining));
                push(head, format_args!("x-ratelimit-reset-{unit}: {}\r\n", go_duration(one.empty_in)));
            }
        }
        Dialect::Anthropic => {
            for one in tightest(standing) {
                let (unit, limit) = (one.quota.unit.as_str(), one.quota.limit);
                push(head, format_args!("anthropic-ratelimit-{unit}-limit: {limit}\r\n"));
                push(head, format_args!("anthropic-ratelimit-{unit}-remaining: {}\r\n", one.remaining));
                let reset = timestamp(now + one.empty_in);
                push(head, format_args!("anthropic-ratelimit-{unit}-reset: {reset}\r\n"));
            }
        }
        Dialect::Ietf => ietf(head, standing),
    }
}

/// One policy for each quota; where several have the same unit, its name ends in the seconds of its window.
fn ietf(head: &mut String, standing: &[Standing]) {
    let (mut policies, mut limits) = (Vec::new(), Vec::new());
    for one in standing {
        let (unit, seconds) = (one.quota.unit, whole_seconds(one.quota.window));
        let alone = standing.iter().filter(|other| other.quota.unit == unit).count() == 1;
        let name = if alone { unit.as_str().to_owned() } else { format!("{}-{seconds}", unit.as_str()) };
        policies.push(format!("\"{name}\";q={};w={seconds}", one.quota.limit));
        limits.push(format!("\"{name}\";r={};t={}", one.remaining, whole_seconds(one.empty_in)));
    }
    if !policies.is_empty() {
        let (policies, limits) = (policies.join(", "), limits.join(", "));
        push(head, format_args!("ratelimit-policy: {policies}\r\nratelimit: {limits}\r\n"));
    }
}

/// For each unit the quota of which the least is left: the header names have room for one.
fn tightest(standing: &[Standing]) -> impl Iterator<Item = &Standing> {
    [Unit::Requests, Unit::Tokens].into_iter().filter_map(|unit| {
        standing.iter().filter(|one| one.quota.unit == unit).min_by_key(|one| one.remaining)
    })
}

fn whole_seconds(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}

/// Rounded up: what is told to come later never lies in the past.
fn unix_seconds(time: SystemTime) -> u64 {
    whole_seconds(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// RFC 3339 to the second.
fn timestamp(time: SystemTime) -> String {
    let seconds = i64::try_from(unix_seconds(time)).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX).to_string()
}

/// As Go prints a duration, to the millisecond: `0s`, `12ms`, `4.253s`, `1m30s`, `2h5m0s`.
fn go_duration(span: Duration) -> String {
    let millis = span.as_nanos().div_ceil(1_000_000);
    if millis == 0 {
        return "0s".to_owned();
    }
    if millis < 1_000 {
        return format!("{millis}ms");
    }
    let (hours, minutes) = (millis / 3_600_000, millis / 60_000 % 60);
    let (seconds, rest) = (millis / 1_000 % 60, millis % 1_000);
    let fraction = format!(".{rest:03}");
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    match (hours, minutes) {
        (0, 0) => format!("{seconds}{fraction}s"),
        (0, _) => format!("{minutes}m{seconds}{fraction}s"),
        _ => format!("{hours}h{minutes}m{seconds}{fraction}s"),
    }
}

fn success(told: Usage, call: &Call) -> String {
    let (input, output) = (call.input_tokens, call.output_tokens);
    let total = input + output;
    match told {
        Usage::None => "{\"ok\":true}".to_owned(),
        Usage::OpenAi => format!(
            "{{\"id\":\"chatcmpl-0\",\"object\":\"chat.completion\",\"model\":\"referee\",\"choices\":[{{\"index\":0,\
             \"message\":{{\"role\":\"assistant\",\"content\":\"ok\"}},\"finish_reason\":\"stop\"}}],\"usage\":\
             {{\"prompt_tokens\":{input},\"completion_tokens\":{output},\"total_tokens\":{total}}}}}"
        ),
        Usage::Anthropic => format!(
            "{{\"id\":\"msg_0\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"referee\",\"content\":\
             [{{\"type\":\"text\",\"text\":\"ok\"}}],\"stop_reason\":\"end_turn\",\"usage\":\
             {{\"input_tokens\":{input},\"output_tokens\":{output}}}}}"
        ),
    }
}

fn refusal(told: Usage, rule: Rule, wait: Option<Duration>) -> String {
    let broken = match rule {
        Rule::Requests => "requests",
        Rule::Tokens => "tokens",
        Rule::Concurrency => "concurrency",
    };
    let wait = wait.map_or_else(|| "never passes".to_owned(), |wait| format!("in {}", go_duration(wait)));
    let text = format!("Rate limit reached on {broken}; this call passes {wait}");
    match told {
        Usage::Anthropic => {
            format!(
                "{{\"type\":\"error\",\"error\":{{\"type\":\"rate_limit_error\",\"message\":\"{text}\"}}}}"
            )
        }
        Usage::None | Usage::OpenAi => format!(
            "{{\"error\":{{\"message\":\"{text}\",\"type\":\"{broken}\",\"param\":null,\"code\":\"rate_limit_exceeded\"}}}}"
        ),
    }
}

fn failure(told: Usage, status: u16) -> String {
    let text = format!("status {status} by script");
    match told {
        Usage::Anthropic => {
            format!("{{\"type\":\"error\",\"error\":{{\"type\":\"api_error\",\"message\":\"{text}\"}}}}")
        }
        Usage::None | Usage::OpenAi => {
            format!(
                "{{\"error\":{{\"message\":\"{text}\",\"type\":\"server_error\",\"param\":null,\"code\":null}}}}"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_go() {
        let cases = [
            (0, "0s"),
            (12, "12ms"),
            (1_000, "1s"),
            (4_250, "4.25s"),
            (90_000, "1m30s"),
            (90_007, "1m30.007s"),
            (7_500_000, "2h5m0s"),
        ];
        for (millis, text) in cases {
            assert_eq!(go_duration(Duration::from_millis(millis)), text);
        }
        assert_eq!(go_duration(Duration::from_nanos(1)), "1ms", "never earlier than it is");
    }

    #[test]
    fn times_are_told_rounded_up_to_the_second() {
        let now = UNIX_EPOCH + Duration::from_millis(1_769_860_799_400);
        assert_eq!(timestamp(now), "2026-01-31T12:00:00Z");
        let mut head = String::new();
        wait(&mut head, RetryAfter { after: Duration::from_millis(700), form: RetryForm::Date }, now);
        assert_eq!(head, "retry-after: Sat, 31 Jan 2026 12:00:01 GMT\r\n");
    }
}
