use serde_json::{Value, json};

use super::{Bench, block, condition, step, workflow};
use crate::orchestrate::Then;
use crate::plan::{Action, Child, PlanStep, Repeat};

fn repeat() -> Repeat {
    Repeat { while_: None, until: None, max_iterations: 100, every_ms: 0, continue_when_exhausted: false }
}

fn polls(repeat: Repeat) -> PlanStep {
    let with = json!({ "n": "${ .iteration }", "last": "${ .previous }" });
    PlanStep { repeat: Some(repeat), ..step(Action::Tool { tool: "http.request".into() }, &with) }
}

fn runs(child: Child, repeat: Repeat) -> PlanStep {
    PlanStep { repeat: Some(repeat), ..step(Action::Child(child), &json!({ "n": "${ .iteration }" })) }
}

fn until(text: &str) -> Repeat {
    Repeat { until: Some(condition(text)), ..repeat() }
}

#[test]
fn a_tool_is_called_until_it_gave_what_is_waited_for() {
    let mut bench =
        Bench::begun(polls(Repeat { every_ms: 50, ..until("${ .output.done and .iteration > 1 }") }));
    assert_eq!(bench.call(), json!({ "n": 1, "last": null }));
    bench.answered(r#"{"done":false}"#);
    assert_eq!(bench.why, "waits until 1970-01-01T00:00:01.05Z for iteration 2");
    bench.ring();
    assert_eq!(bench.call(), json!({ "n": 2, "last": { "done": false } }));
    bench.look();
    assert_eq!(
        bench.call(),
        json!({ "n": 2, "last": { "done": false } }),
        "taken up again, it is the same iteration"
    );
    bench.answered(r#"{"done":true}"#);
    assert_eq!(bench.output(), json!({ "done": true }));
    assert!(bench.asked.is_empty());
}

#[test]
fn until_sees_the_output_before_the_last() {
    let mut bench = Bench::begun(polls(until("${ .output == .previous }")));
    for output in ["1", "2"] {
        bench.answered(output);
        assert_eq!(bench.end, None);
    }
    bench.answered("2");
    assert_eq!(bench.output(), json!(2));
}

#[test]
fn while_is_asked_before_each_iteration() {
    let while_ = |text| Repeat { while_: Some(condition(text)), ..repeat() };
    let bench = Bench::begun(polls(while_("${ .iteration < 1 }")));
    assert_eq!(bench.output(), Value::Null, "never run");
    let mut bench = Bench::begun(polls(while_("${ (.output // 0) < 2 and .previous == .output }")));
    bench.answered("1");
    assert_eq!(bench.call(), json!({ "n": 2, "last": 1 }));
    bench.answered("2");
    assert_eq!(bench.output(), json!(2));
}

#[test]
fn a_loop_is_bounded() {
    let never = || Repeat { max_iterations: 3, every_ms: 1_000, ..until("${ false }") };
    let mut bench = Bench::begun(polls(never()));
    for _ in 0..2 {
        bench.answered("7");
        bench.ring();
    }
    bench.answered("7");
    assert_eq!(
        bench.failure(),
        ("failed", "max_iterations", "was not done after 3 iterations (repeat.max_iterations)"),
        "at once: nothing follows the last one"
    );
    let mut bench = Bench::begun(polls(Repeat { every_ms: 0, continue_when_exhausted: true, ..never() }));
    for n in 1..=3 {
        assert_eq!(bench.call()["n"], n);
        bench.answered(&n.to_string());
    }
    assert_eq!(bench.output(), json!(3));
    let mut bench = Bench::begun(polls(Repeat { max_iterations: 2, ..repeat() }));
    bench.answered("1");
    bench.answered("2");
    assert_eq!(bench.output(), json!(2), "without a condition it is done so often");
}

#[test]
fn a_loop_whose_last_iteration_was_enough_is_not_exhausted() {
    let while_ = Repeat { while_: Some(condition("${ .iteration <= 2 }")), max_iterations: 2, ..repeat() };
    let mut bench = Bench::begun(polls(while_));
    bench.answered("1");
    bench.answered("2");
    assert_eq!(bench.output(), json!(2));
}

#[test]
fn a_block_is_run_once_per_iteration_and_sees_which() {
    let mut bench = Bench::new(runs(block("s"), until("${ .output >= 2 }")));
    bench.locals = vec![("item", "\"a\"".to_owned()), ("iteration", "9".to_owned())];
    bench.look();
    assert_eq!(
        bench.last_child(),
        (json!({ "n": 1 }), json!({ "item": "a", "iteration": 1, "previous": null }))
    );
    assert_eq!(bench.why, "waits for run r~s.1 (iteration 1)");
    bench.succeeded("1", "1");
    assert_eq!(
        bench.last_child(),
        (json!({ "n": 2 }), json!({ "item": "a", "iteration": 2, "previous": 1 }))
    );
    let turn = bench.succeeded("1", "5");
    assert_eq!(turn.then, Then::Wait, "the end of an iteration that is over means nothing");
    bench.succeeded("2", "2");
    assert_eq!(bench.output(), json!(2));
    assert_eq!(bench.keys(), ["1", "2"]);
}

#[test]
fn a_workflow_sees_nothing_of_its_place() {
    let mut bench = Bench::new(runs(workflow("poll@2"), until("${ true }")));
    bench.locals = vec![("item", "\"a\"".to_owned())];
    bench.look();
    assert_eq!(bench.last_child(), (json!({ "n": 1 }), Value::Null));
}

#[test]
fn an_iteration_that_failed_fails_the_step() {
    let mut bench = Bench::begun(runs(block("s"), until("${ true }")));
    bench.failed("1");
    assert_eq!(bench.failure(), ("failed", "broken", "run r~s.1 ended failed: it broke"));
}

#[test]
fn a_loop_of_blocks_ends_with_the_step_s_time() {
    let mut bench = Bench::begun(PlanStep {
        timeout_ms: Some(70),
        ..runs(block("s"), Repeat { every_ms: 50, ..until("${ false }") })
    });
    bench.now_ms = 1_010;
    bench.succeeded("1", "1");
    assert_eq!(bench.alarm.map(|alarm| alarm.at_ms), Some(1_060));
    bench.ring();
    assert_eq!(bench.alarm.map(|alarm| alarm.at_ms), Some(1_070));
    bench.ring();
    assert_eq!(bench.failure(), ("timed_out", "timeout", "did not end within 70 ms (timeout_ms)"));
    assert_eq!(bench.cancelled, ["2"]);
}
