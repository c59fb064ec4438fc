use super::{hear, is_throttled, retry_after};
use crate::http::head::Head;
use proptest::prelude::*;
use std::time::Duration;
use tidemill_tool::feedback::{Advertised, Feedback, MAX_AMOUNT, MAX_RETRY_AFTER, MAX_WINDOW, Observed};

const DATE: &str = "Date: Sat, 21 Nov 2026 12:00:00 GMT\r\n";
/// The same, as an epoch.
const DATE_EPOCH: u64 = 1_795_262_400;

fn head(status: u16, fields: &str) -> Head {
    let text = format!("HTTP/1.1 {status} x\r\n{DATE}{}\r\n\r\n", fields.trim().replace('\n', "\r\n"));
    Head::parse(text.as_bytes()).expect("a head").expect("a whole head").0
}

fn observed(status: u16, fields: &str) -> Observed {
    let (feedback, listener) = Feedback::listening();
    hear(&head(status, fields), &feedback);
    listener.take()
}

/// Limit, remaining, seconds to the reset, window in seconds; -1 for what is not said.
fn limit(unit: &'static str, [limit, remaining, reset_in, window]: [f64; 4]) -> Advertised {
    let said = |number: f64| (number >= 0.0).then_some(number);
    let duration = |number| said(number).map(Duration::from_secs_f64);
    Advertised {
        unit: unit.into(),
        limit: said(limit),
        remaining: said(remaining),
        reset_in: duration(reset_in),
        window: duration(window),
    }
}

#[test]
fn the_fields_of_language_model_services_are_read() {
    // the values of OpenAI's guide on rate limits
    let openai =
        "x-ratelimit-limit-requests: 60\nx-ratelimit-limit-tokens: 150000\nx-ratelimit-remaining-requests: 59
x-ratelimit-remaining-tokens: 149984\nx-ratelimit-reset-requests: 1s\nx-ratelimit-reset-tokens: 6m0s";
    assert_eq!(
        observed(200, openai).advertised,
        [
            limit("requests", [60.0, 59.0, 1.0, -1.0]),
            limit("total_tokens", [150_000.0, 149_984.0, 360.0, -1.0])
        ]
    );
    let anthropic = "anthropic-ratelimit-requests-limit: 50\nanthropic-ratelimit-requests-remaining: 49
anthropic-ratelimit-requests-reset: 2026-11-21T12:00:01Z\nanthropic-ratelimit-tokens-limit: 38000
anthropic-ratelimit-tokens-remaining: 37000\nanthropic-ratelimit-tokens-reset: 2026-11-21T12:00:02Z
anthropic-ratelimit-input-tokens-limit: 30000\nanthropic-ratelimit-input-tokens-remaining: 29000
anthropic-ratelimit-input-tokens-reset: 2026-11-21T13:00:03+01:00\nanthropic-ratelimit-output-tokens-limit: 8000
anthropic-ratelimit-output-tokens-remaining: 8000\nanthropic-ratelimit-output-tokens-reset: 2026-11-21T11:59:59Z";
    assert_eq!(
        observed(200, anthropic).advertised,
        [
            limit("requests", [50.0, 49.0, 1.0, 60.0]),
            limit("total_tokens", [38_000.0, 37_000.0, 2.0, 60.0]),
            limit("input_tokens", [30_000.0, 29_000.0, 3.0, 60.0]),
            limit("output_tokens", [8_000.0, 8_000.0, 0.0, 60.0]),
        ]
    );
}

#[test]
fn three_plain_fields_are_read_however_their_reset_is_written() {
    for (reset, seconds) in [
        ("30", 30.0),
        ("0.5", 0.5),
        ("1795264200", 1_800.0),
        ("1795264200.5", 1_800.5),
        ("1795264200000", 1_800.0),
        ("1795262000", 0.0),
        ("1m30s", 90.0),
        ("Sat, 21 Nov 2026 12:01:00 GMT", 60.0),
        ("2026-11-21T12:02:00Z", 120.0),
        ("1795264200000000", -1.0),
        ("4000000000", -1.0),
        ("soon", -1.0),
        ("-5", -1.0),
    ] {
        for prefix in ["X-RateLimit", "X-Rate-Limit", "RateLimit"] {
            let fields = format!("{prefix}-Limit: 5000\n{prefix}-Remaining: 4999\n{prefix}-Reset: {reset}");
            let expected = [limit("requests", [5_000.0, 4_999.0, seconds, -1.0])];
            assert_eq!(observed(200, &fields).advertised, expected, "{fields}");
        }
    }
    assert_eq!(
        observed(200, "x-ratelimit-limit: 15").advertised,
        [limit("requests", [15.0, -1.0, -1.0, -1.0])]
    );
    // Envoy's
    let fields = "x-ratelimit-limit: 4, 4;w=60;name=\"a, b\", 100;w=3600\nx-ratelimit-remaining: 3\nx-ratelimit-reset: 9";
    assert_eq!(
        observed(200, fields).advertised,
        [limit("requests", [4.0, 3.0, 9.0, 60.0]), limit("requests", [100.0, -1.0, -1.0, 3_600.0])]
    );
}

#[test]
fn the_drafts_of_the_ietf_are_read() {
    let requests = |numbers| limit("requests", numbers);
    for (fields, expected) in [
        // the newest draft's examples
        (r#"RateLimit: "default";r=50;t=30"#, vec![requests([-1.0, 50.0, 30.0, -1.0])]),
        (r#"RateLimit: "default";r=999;pk=:dHJpYWwxMjEzMjM=:"#, vec![requests([-1.0, 999.0, -1.0, -1.0])]),
        (
            r#"RateLimit-Policy: "burst";q=100;w=60,"daily";q=1000;w=86400"#,
            vec![requests([100.0, -1.0, -1.0, 60.0]), requests([1_000.0, -1.0, -1.0, 86_400.0])],
        ),
        (
            r#"RateLimit-Policy: "peruser";q=65535;qu="content-bytes";w=10;pk=:sdfjLJUOUH==:"#,
            vec![limit("content_bytes", [65_535.0, -1.0, -1.0, 10.0])],
        ),
        (
            "RateLimit-Policy: \"permin\";q=50;w=60\nRateLimit-Policy: \"perhr\";q=1000;w=3600\nRateLimit: \"perhr\";r=7;t=9, \"permin\";r=5;t=8",
            vec![requests([1_000.0, 7.0, 9.0, 3_600.0]), requests([50.0, 5.0, 8.0, 60.0])],
        ),
        (
            "RateLimit-Policy: \"p\";q=10;w=1;pk=:YQ==:, \"p\";q=20;w=1;pk=:Yg==:\nRateLimit: \"p\";r=3;t=1;pk=:Yg==:",
            vec![requests([20.0, 3.0, 1.0, 1.0]), requests([10.0, -1.0, -1.0, 1.0])],
        ),
        // names as tokens, blanks after semicolons
        (
            "RateLimit-Policy: 5-in-1min; q=5; w=60\nRateLimit: 5-in-1min; r=4; t=60",
            vec![requests([5.0, 4.0, 60.0, 60.0])],
        ),
        // a dictionary
        (
            "RateLimit: limit=10, remaining=1, reset=7\nRateLimit-Policy: 10;w=60",
            vec![requests([10.0, 1.0, 7.0, 60.0])],
        ),
        // three fields
        (
            "RateLimit-Limit: 100, 100;w=60, 1000;w=3600\nRateLimit-Remaining: 99\nRateLimit-Reset: 50",
            vec![requests([100.0, 99.0, 50.0, 60.0]), requests([1_000.0, -1.0, -1.0, 3_600.0])],
        ),
        (
            "RateLimit-Limit: 10\nRateLimit-Remaining: 9\nRateLimit-Reset: 4\nRateLimit-Policy: 10;window=1",
            vec![requests([10.0, 9.0, 4.0, 1.0])],
        ),
        // malformed
        (r#"RateLimit: "default";r=-1;t=30"#, vec![]),
        (r#"RateLimit: "default";t=30"#, vec![]),
        (r#"RateLimit-Policy: "default";q=1e9;w=60"#, vec![]),
        (r#"RateLimit-Policy: "default";q=9999999999999999;w=60"#, vec![]),
        (r#"RateLimit-Policy: "default";q=5;qu="no unit";w=60"#, vec![]),
        (r#"RateLimit-Policy: "default";q=5;w=0"#, vec![requests([5.0, -1.0, -1.0, -1.0])]),
    ] {
        assert_eq!(observed(200, fields).advertised, expected, "{fields}");
    }
}

#[test]
fn a_wait_is_read_in_every_form() {
    for (fields, milliseconds) in [
        ("Retry-After: 7", Some(7_000)),
        ("Retry-After: 1.5", Some(1_500)),
        ("Retry-After: Sat, 21 Nov 2026 12:01:30 GMT", Some(90_000)),
        ("Retry-After: Saturday, 21-Nov-26 12:01:30 GMT", Some(90_000)),
        ("Retry-After: Sat, 21 Nov 2026 11:00:00 GMT", Some(0)),
        ("Retry-After: 7\nretry-after-ms: 250", Some(250)),
        ("Retry-After: 7\nretry-after-ms: -1", Some(7_000)),
        ("Retry-After: 7\nx-ms-retry-after-ms: 251", Some(251)),
        ("Retry-After: 99999999", Some(86_400_000)),
        ("Retry-After: -7", None),
        ("Retry-After: NaN", None),
        ("Retry-After: inf", None),
        ("Retry-After: 1e3", None),
        ("Retry-After: soon", None),
        ("Retry-After: 999999999999999999999999999", None),
        ("x-ratelimit-remaining: 0\nx-ratelimit-reset: 1795262460", Some(60_000)),
        ("x-ratelimit-remaining: 1\nx-ratelimit-reset: 1795262460", None),
        ("x-rate-limit-limit: 15\nx-rate-limit-remaining: 0\nx-rate-limit-reset: 1795262460", Some(60_000)),
        (
            "x-ratelimit-remaining-requests: 0\nx-ratelimit-reset-requests: 20ms\nx-ratelimit-remaining-tokens: 0\nx-ratelimit-reset-tokens: 1s",
            Some(1_000),
        ),
        ("RateLimit: \"a\";r=0;t=9\nRetry-After: 4", Some(4_000)),
    ] {
        let wait = milliseconds.map(Duration::from_millis);
        assert_eq!(observed(429, fields).retry_after, wait, "{fields}");
        assert_eq!(retry_after(&head(429, fields)), wait, "{fields}");
    }
}

#[test]
fn only_what_the_whole_service_asks_for_is_a_wait_for_all() {
    for (status, fields, is_for_all) in [
        (429, "Retry-After: 7", true),
        (503, "Retry-After: 7", true),
        (529, "retry-after-ms: 7000", true),
        (500, "Retry-After: 7", true),
        (403, "Retry-After: 7", true),
        (403, "x-ratelimit-remaining: 0\nx-ratelimit-reset: 7", true),
        (403, "x-ratelimit-remaining: 3\nx-ratelimit-reset: 7", false),
        (200, "x-ratelimit-remaining: 0\nx-ratelimit-reset: 7", false),
        (503, "x-ratelimit-remaining: 0\nx-ratelimit-reset: 7", false),
        (202, "Retry-After: 7", false),
        (301, "Retry-After: 7", false),
        (409, "Retry-After: 7", false),
    ] {
        let wait = is_for_all.then_some(Duration::from_secs(7));
        assert_eq!(observed(status, fields).retry_after, wait, "{status} {fields}");
    }
    assert!(is_throttled(&head(403, "Retry-After: 1")));
    assert!(!is_throttled(&head(403, "Server: x")) && !is_throttled(&head(529, "Retry-After: 1")));
}

#[test]
fn what_a_cache_answers_tells_nothing_about_limits() {
    assert_eq!(observed(200, "Age: 0\nRateLimit: \"a\";r=5").advertised.len(), 1);
    assert!(observed(200, "Age: 12\nRateLimit: \"a\";r=5").is_empty());
}

#[test]
fn the_epoch_of_the_tests_is_their_date() {
    let fields = format!("x-ratelimit-limit: 1\nx-ratelimit-reset: {DATE_EPOCH}");
    assert_eq!(observed(200, &fields).advertised, [limit("requests", [1.0, -1.0, 0.0, -1.0])]);
}

/// Text that is near to what the fields hold, and text that is not.
fn value() -> impl Strategy<Value = String> {
    let near = prop::sample::select(vec![
        "5",
        "0",
        "-1",
        "1e400",
        ",",
        ";",
        "=",
        "\"",
        "\\",
        "w=60",
        "q=5",
        "r=0",
        "t=9",
        "pk=:YQ==:",
        "qu=\"x\"",
        "limit=1",
        "remaining=0",
        "reset=9",
        "\"a\"",
        "6m0s",
        "20ms",
        "1795264200",
        "2026-11-21T12:02:00Z",
        "9999-99-99T99:99:99+99:99",
        "Sat, 21 Nov 2026 12:01:30 GMT",
        " ",
        "NaN",
        ".",
        "18446744073709551616",
        "é",
        "µs",
    ]);
    prop_oneof![
        prop::collection::vec(near, 0..12).prop_map(|parts| parts.concat()),
        "[\\t -~\u{80}-\u{ff}]{0,60}",
    ]
}

proptest! {
    #[test]
    fn no_text_of_a_field_panics_or_gets_past_the_bounds(
        status in 200_u16..600,
        fields in prop::collection::vec((prop::sample::select(vec![
            "date", "age", "retry-after", "retry-after-ms", "x-ms-retry-after-ms", "ratelimit", "ratelimit-policy", "ratelimit-limit",
            "ratelimit-remaining", "ratelimit-reset", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset",
            "x-rate-limit-reset", "x-ratelimit-limit-requests", "x-ratelimit-reset-requests", "x-ratelimit-remaining-tokens",
            "anthropic-ratelimit-requests-limit", "anthropic-ratelimit-requests-reset", "anthropic-ratelimit-tokens-remaining",
        ]), value()), 0..12),
    ) {
        let mut text = format!("HTTP/1.1 {status} x\r\n");
        for (name, value) in fields {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        let parsed = Head::parse(format!("{text}\r\n").as_bytes());
        let Ok(Some((head, _))) = parsed else { return Ok(()) };
        let (feedback, listener) = Feedback::listening();
        hear(&head, &feedback);
        let heard = listener.take();
        prop_assert!(heard.retry_after.unwrap_or_default() <= MAX_RETRY_AFTER);
        prop_assert!(retry_after(&head).unwrap_or_default() <= MAX_RETRY_AFTER);
        for limit in heard.advertised {
            for number in [limit.limit, limit.remaining].into_iter().flatten() {
                prop_assert!((0.0..=MAX_AMOUNT).contains(&number));
            }
            for time in [limit.reset_in, limit.window].into_iter().flatten() {
                prop_assert!(time <= MAX_WINDOW);
            }
        }
    }
}
