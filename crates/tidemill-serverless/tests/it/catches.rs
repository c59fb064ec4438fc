//! Errors, and what is done about them.

use serde_json::{Value, json};
use tidemill_protocol::RunState;

use crate::host::{Ended, Host, document, fault, output};

const TRY: &str = r#"
- risky:
    try:
      - call: { call: echo, with: { n: 1 } }
      - after: { set: { reached: true } }
    catch:
      errors: { with: { type: https://serverlessworkflow.io/spec/1.0.0/errors/communication } }
      as: problem
      do:
        - tell: { set: { status: "${ $problem.status }", at: "${ $problem.instance }", input: "${ . }" } }
- next: { set: { then: "${ . }" } }
"#;

fn failing(code: &'static str) -> impl FnMut(&str, &Value) -> Option<crate::host::Answer> {
    move |_, _| Some(Err((RunState::Failed, code, "it broke".to_owned())))
}

#[test]
fn an_error_that_fits_is_handled_with_the_input_of_the_try() {
    let mut host = Host::new(&document(TRY), &json!({"x": 1})).answering(failing("connect_failed"));
    let expected = json!({"then": {"status": 500, "at": "/do/0/risky/try/0/call", "input": {"x": 1}}});
    assert_eq!(host.run(), Ended::Output(expected));
}

#[test]
fn an_error_that_does_not_fit_goes_further() {
    let mut host = Host::new(&document(TRY), &json!({})).answering(failing("invalid_input"));
    let Ended::Fault(fault) = host.run() else { panic!("it was caught") };
    assert_eq!((&fault["status"], &fault["detail"]), (&json!(400), &json!("invalid_input: it broke")));
}

#[test]
fn conditions_decide_about_the_error_that_they_see() {
    for (condition, is_caught) in [
        ("when: $error.status == 418", true),
        ("when: $error.status == 1", false),
        ("exceptWhen: $error.status == 418", false),
        ("exceptWhen: '$error.title == \"Other\"'", true),
    ] {
        let tasks = format!(
            "- a:\n    try: [ {{ b: {{ raise: {{ error: {{ type: 'urn:tea', status: 418, title: Tea }} }} }} }} ]\n    catch: {{ {condition}, do: [ {{ c: {{ set: {{ caught: true }} }} }} ] }}"
        );
        let ended = Host::new(&document(&tasks), &json!({})).run();
        assert_eq!(matches!(ended, Ended::Output(_)), is_caught, "{condition}");
    }
}

#[test]
fn what_is_caught_without_a_handler_is_forgotten() {
    let tasks = "- a:\n    try: [ { b: { raise: { error: { type: 'urn:x', status: 500 } } } } ]\n    catch: {}\n- c: { set: { n: \"${ .n + 1 }\" } }";
    assert_eq!(output(tasks, &json!({"n": 1})), json!({"n": 2}));
}

#[test]
fn the_inner_try_comes_first_and_a_handler_may_raise_anew() {
    let tasks = r#"
- outer:
    try:
      - inner:
          try: [ { a: { raise: { error: { type: "urn:first", status: 1 } } } } ]
          catch: { as: e, do: [ { again: { raise: { error: { type: "${ $e.type + \":second\" }", status: 2 } } } } ] }
    catch: { errors: { with: { type: "urn:first:second" } }, do: [ { ok: { set: { by: "${ $error.instance }" } } } ] }
"#;
    assert_eq!(output(tasks, &json!({})), json!({"by": "/do/0/outer/try/0/inner/catch/do/0/again"}));
}

/// When each attempt was made, from the start.
fn attempts(retry: &str, failures: usize) -> (Vec<u64>, Ended) {
    let tasks = format!("- a:\n    try: [ {{ b: {{ call: echo }} }} ]\n    catch: {{ retry: {retry} }}");
    let mut count = 0;
    let mut host = Host::new(&document(&tasks), &json!({})).answering(move |_, _| {
        count += 1;
        if count <= failures {
            return Some(Err((RunState::Failed, "http_status", "no".to_owned())));
        }
        Some(Ok(json!({ "attempts": count })))
    });
    let start_ms = host.now_ms;
    let mut times = Vec::new();
    loop {
        let asked = host.asked.len();
        let ended = host.turn();
        times.extend((asked..host.asked.len()).map(|_| host.now_ms - start_ms));
        if let Some(ended) = ended {
            return (times, ended);
        }
    }
}

#[test]
fn delays_grow_as_the_policy_says() {
    let ok = |n: u64| Ended::Output(json!({ "attempts": n }));
    let all = "limit: { attempt: { count: 9 } }";
    assert_eq!(attempts(&format!("{{ delay: PT1S, {all} }}"), 3), (vec![0, 1000, 2000, 3000], ok(4)));
    assert_eq!(
        attempts(&format!("{{ delay: PT1S, backoff: {{ linear: {{}} }}, {all} }}"), 3),
        (vec![0, 1000, 3000, 6000], ok(4))
    );
    assert_eq!(
        attempts(&format!("{{ delay: PT1S, backoff: {{ exponential: {{}} }}, {all} }}"), 3),
        (vec![0, 1000, 3000, 7000], ok(4))
    );
}

#[test]
fn limits_of_retries_hold() {
    let (times, ended) = attempts("{ delay: PT1S, limit: { attempt: { count: 2 } } }", 9);
    assert_eq!(times, [0, 1000, 2000]);
    assert!(matches!(ended, Ended::Fault(_)), "{ended:?}");
    let (times, _) = attempts("{ delay: PT10S, limit: { duration: PT25S } }", 9);
    assert_eq!(times, [0, 10_000, 20_000]);
    let (times, _) = attempts("{ delay: PT1S, when: $error.status == 503 }", 9);
    assert_eq!(times, [0]);
}

#[test]
fn jitter_stays_in_its_range() {
    let (times, _) = attempts(
        "{ delay: PT1S, jitter: { from: { milliseconds: 100 }, to: { milliseconds: 200 } }, limit: { attempt: { count: 8 } } }",
        9,
    );
    let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| (1100..=1200).contains(gap)), "{gaps:?}");
    assert!(gaps.iter().any(|gap| gap != &gaps[0]), "{gaps:?}");
}

#[test]
fn what_was_tried_in_vain_is_handled_if_there_is_a_handler() {
    let tasks = r#"
- a:
    try: [ { b: { raise: { error: { type: "urn:x", status: 500 } } } } ]
    catch: { retry: { delay: PT1S, limit: { attempt: { count: 1 } } }, do: [ { c: { set: { gave: up } } } ] }
"#;
    assert_eq!(output(tasks, &json!({})), json!({"gave": "up"}));
}

#[test]
fn an_attempt_that_takes_too_long_is_stopped_and_tried_again() {
    let tasks = r#"
- a:
    try: [ { b: { call: echo } } ]
    catch: { retry: { limit: { attempt: { count: 2, duration: PT5S } } } }
"#;
    let mut host = Host::new(&document(tasks), &json!({})).answering(|_, _| None);
    let start_ms = host.now_ms;
    let Ended::Fault(fault) = host.run() else { panic!("nothing answered") };
    assert_eq!(fault["type"], json!("https://serverlessworkflow.io/spec/1.0.0/errors/timeout"));
    assert_eq!(host.cancelled, ["0.b", "1.b", "2.b"]);
    assert_eq!(host.now_ms - start_ms, 15_002, "three attempts of 5 s and two delays");
}

#[test]
fn a_task_that_times_out_takes_all_within_it_along() {
    let tasks = r#"
- outer:
    timeout: { after: { seconds: 10 } }
    do:
      - inner:
          try: [ { hang: { call: echo } } ]
          catch: { do: [ { never: { set: { x: 1 } } } ] }
"#;
    let mut host = Host::new(&document(tasks), &json!({})).answering(|_, _| None);
    let Ended::Fault(fault) = host.run() else { panic!("nothing answered") };
    assert_eq!((&fault["status"], &fault["instance"]), (&json!(408), &json!("/do/0/outer")));
    assert_eq!(host.cancelled, ["0.hang"]);
}

#[test]
fn a_timeout_can_be_caught_and_named() {
    let text = r#"
document: { dsl: 1.0.0, namespace: test, name: doc, version: 1.0.0 }
use: { timeouts: { brief: { after: PT2S } } }
timeout: { after: PT1H }
do:
  - a:
      try: [ { b: { timeout: brief, wait: PT1M } } ]
      catch: { errors: { with: { status: 408 } }, do: [ { c: { set: { late: "${ $error.instance }" } } } ] }
"#;
    assert_eq!(Host::new(text, &json!({})).run(), Ended::Output(json!({"late": "/do/0/a/try/0/b"})));
    let whole = text.replace("PT1H", "PT1S");
    let Ended::Fault(fault) = Host::new(&whole, &json!({})).run() else { panic!("the document had time") };
    assert_eq!((&fault["status"], &fault["instance"]), (&json!(408), &json!("")));
}

#[test]
fn errors_and_policies_can_be_reused_by_name() {
    let text = r#"
document: { dsl: 1.0.0, namespace: test, name: doc, version: 1.0.0 }
use:
  errors: { tea: { type: "urn:tea", status: 418, title: "${ .name }", detail: "${ \"at \\($task.name)\" }" } }
  retries: { once: { delay: PT1S, when: $error.status == 418, limit: { attempt: { count: 1 } } } }
do:
  - a:
      try: [ { b: { raise: { error: tea } } } ]
      catch: { as: e, retry: once }
"#;
    let mut host = Host::new(text, &json!({"name": "Teapot"}));
    let expected = json!({"type": "urn:tea", "status": 418, "title": "Teapot", "detail": "at b", "instance": "/do/0/a/try/0/b"});
    assert_eq!(host.run(), Ended::Fault(expected));
    assert_eq!(host.now_ms, crate::host::NOON_MS + 1000);
}

#[test]
fn a_status_that_is_none_is_an_error_itself() {
    let fault =
        fault("- a: { raise: { error: { type: 'urn:x', status: \"${ .s }\" } } }", &json!({"s": "many"}));
    assert_eq!(fault["type"], json!("https://serverlessworkflow.io/spec/1.0.0/errors/validation"));
}
