use serde_json::json;

use super::bench::signal;
use super::{Bench, step, template};
use crate::orchestrate::{Event, Then};
use crate::plan::{Action, PlanStep, Signal, Wait};
use crate::schema::Schema;

fn waiting(wait: Wait) -> PlanStep {
    step(Action::Wait(wait), &json!({}))
}

fn paid(timeout_ms: Option<u64>, continue_on_timeout: bool) -> Wait {
    let schema = json!({ "type": "object", "required": ["amount"] });
    let schema = Some(Schema::compile(&schema).unwrap());
    Wait::Signal(Box::new(Signal { name: "paid".to_owned(), schema, timeout_ms, continue_on_timeout }))
}

fn calls_then(wait: Wait) -> PlanStep {
    let action = Action::Tool { tool: "http.request".into() };
    PlanStep { then_wait: Some(wait), ..step(action, &json!({ "reply_to": "${ .run.id }" })) }
}

#[test]
fn a_timer_ends_at_its_time_and_not_before() {
    let mut bench = Bench::begun(waiting(Wait::For(template(&json!("${ .input.order * 10 }")))));
    assert_eq!(bench.alarm.map(|alarm| (alarm.at_ms, alarm.generation)), Some((1_420, 1)));
    assert_eq!(bench.why, "waits until 1970-01-01T00:00:01.42Z");
    bench.now_ms = 1_419;
    bench.mail = vec![Event::Due { generation: 0 }, Event::Due { generation: 2 }];
    let turn = bench.look();
    assert_eq!((turn.then, turn.alarm), (Then::Wait, bench.alarm), "alarms of others mean nothing");
    bench.ring();
    assert_eq!(bench.output(), json!({ "at_ms": 1_420 }));
}

#[test]
fn an_alarm_counts_where_the_clock_that_is_read_has_gone_back() {
    let mut bench = Bench::begun(waiting(Wait::For(template(&json!(500)))));
    bench.now_ms = 200;
    bench.mail.push(Event::Due { generation: 1 });
    bench.look();
    assert_eq!(bench.output(), json!({ "at_ms": 1_500 }));
}

#[test]
fn a_time_in_the_past_is_no_wait() {
    let until =
        Wait::Until { at: template(&json!("1970-01-01T00:00:00")), time_zone: Some("UTC".to_owned()) };
    assert_eq!(Bench::begun(waiting(until)).output(), json!({ "at_ms": 0 }));
    assert_eq!(Bench::begun(waiting(Wait::For(template(&json!(0))))).output(), json!({ "at_ms": 1_000 }));
}

#[test]
fn a_time_that_is_none_fails_the_step() {
    for (wait, message) in [
        (Wait::For(template(&json!("${ .input }"))), "wait.for_ms gives an object"),
        (Wait::For(template(&json!(9e15))), "wait lies more than 100 years ahead"),
        (Wait::For(template(&json!(1e300))), "wait.for_ms gives 1e+300 where"),
        (Wait::Until { at: template(&json!("noon")), time_zone: None }, "wait.until gives \"noon\""),
    ] {
        let bench = Bench::begun(waiting(wait));
        let (state, code, told) = bench.failure();
        assert_eq!((state, code), ("failed", "bad_wait"));
        assert!(told.contains(message), "{told}");
    }
}

#[test]
fn the_first_signal_that_fits_is_the_output() {
    let mut bench = Bench::begun(waiting(paid(None, false)));
    assert_eq!((bench.listen.as_slice(), bench.alarm), (["paid".to_owned()].as_slice(), None));
    bench.signal("refunded", r#"{"amount":1}"#);
    bench.signal("paid", "[]");
    assert!(bench.why.contains("one of bob was dropped, its payload does not fit: /: "), "{}", bench.why);
    bench.mail = vec![
        signal("paid", r#"{"amount":3}"#, 30),
        signal("paid", r#"{"amount":2}"#, 20),
        signal("paid", "5", 10),
    ];
    bench.look();
    assert_eq!(bench.output(), json!({ "amount": 2 }));
}

#[test]
fn a_signal_without_schema_may_carry_nothing() {
    let signal = Signal { name: "go".to_owned(), schema: None, timeout_ms: None, continue_on_timeout: false };
    let mut bench = Bench::begun(waiting(Wait::Signal(Box::new(signal))));
    bench.signal("go", "");
    assert_eq!(bench.output(), json!(null));
}

#[test]
fn a_signal_that_does_not_come_in_time_fails_the_step_or_is_null() {
    let mut bench = Bench::begun(waiting(paid(Some(500), false)));
    bench.ring();
    let told = "signal `paid` did not come within 500 ms";
    assert_eq!(bench.failure(), ("timed_out", "signal_timeout", told));
    let mut bench = Bench::begun(waiting(paid(Some(500), true)));
    bench.ring();
    assert_eq!(bench.output(), json!(null));
}

#[test]
fn a_signal_counts_more_than_a_time_that_has_passed() {
    let mut bench = Bench::begun(waiting(paid(Some(500), false)));
    bench.mail.push(signal("paid", r#"{"amount":2}"#, 1_600));
    bench.ring();
    assert_eq!(bench.output(), json!({ "amount": 2 }));
}

#[test]
fn a_callback_calls_then_listens() {
    let mut bench = Bench::begun(calls_then(paid(Some(500), false)));
    assert_eq!(bench.call(), json!({ "reply_to": "r" }));
    assert_eq!((bench.listen.len(), bench.alarm), (1, None), "its time begins when the tool has answered");
    bench.now_ms = 9_000;
    bench.look();
    assert_eq!(bench.call(), json!({ "reply_to": "r" }), "taken up again, it calls again");
    bench.answered(r#"{"status":202}"#);
    assert_eq!(bench.alarm.map(|alarm| alarm.at_ms), Some(9_500));
    bench.signal("paid", r#"{"amount":2}"#);
    assert_eq!(bench.output(), json!({ "amount": 2 }));
}

#[test]
fn a_callback_that_was_faster_than_the_answer_is_kept() {
    let mut bench = Bench::begun(calls_then(paid(None, false)));
    bench.signal("paid", r#"{"amount":2}"#);
    bench.signal("paid", r#"{"amount":7}"#);
    assert!(bench.calling.is_some());
    bench.answered("{}");
    assert_eq!(bench.output(), json!({ "amount": 2 }));
}

#[test]
fn a_pause_after_a_tool_keeps_its_output() {
    let mut bench = Bench::begun(calls_then(Wait::For(template(&json!("${ .output.retry_ms }")))));
    bench.answered(r#"{"retry_ms":50}"#);
    assert_eq!(bench.alarm.map(|alarm| alarm.at_ms), Some(1_050));
    bench.ring();
    assert_eq!(bench.output(), json!({ "retry_ms": 50 }));
}

#[test]
fn a_memo_that_cannot_be_read_ends_the_step_and_what_it_has_open() {
    for (memo, code) in [
        (r#"{"v":1,"open":[],"actor":{"timer":{}}}"#, "memo_corrupt"),
        (r#"{"v":1,"open":[],"actor":{"race":{"begun":2,"lost":[]}}}"#, "memo_corrupt"),
        (r#"{"v":2,"open":["0"],"anything":true}"#, "memo_version"),
        (r#"{"open":[]}"#, "memo_version"),
        ("{\"v\":1", "memo_corrupt"),
        ("", "memo_corrupt"),
    ] {
        let mut bench = Bench::new(waiting(paid(None, false)));
        bench.memo = Some(memo.as_bytes().to_vec());
        bench.open.extend(memo.contains("\"0\"").then(|| "0".to_owned()));
        bench.look();
        assert_eq!(bench.failure().1, code, "{memo}");
    }
}
