//! Lists, jumps, loops, forks and the flow of data.

use serde_json::json;

use crate::host::{Ended, Host, document, fault, given, output};

#[test]
fn tasks_follow_each_other_and_data_flows_through_them() {
    let tasks = r#"
- a: { set: { x: "${ .n + 1 }" } }
- b: { set: { y: "${ .x * 2 }", was: "${ $input.x }" }, output: { as: ".y + 1" } }
- c: { input: { from: "{ z: . }" }, set: { z: "${ .z }", raw: "${ $task.input }" } }
"#;
    assert_eq!(output(tasks, &json!({"n": 1})), json!({"z": 5, "raw": 5}));
}

#[test]
fn then_leads_forward_and_back_within_its_list() {
    let tasks = r#"
- count: { set: { n: "${ .n + 1 }" } }
- again: { switch: [ { more: { when: ".n < 5", then: count } }, { enough: { then: last } } ] }
- never: { raise: { error: { type: "urn:never", status: 500 } } }
- last: { set: { total: "${ .n }" }, then: end }
- nor: { raise: { error: { type: "urn:nor", status: 500 } } }
"#;
    assert_eq!(output(tasks, &json!({"n": 0})), json!({"total": 5}));
}

#[test]
fn exit_leaves_a_list_and_end_leaves_the_document() {
    let exit = r#"
- outer:
    do:
      - first: { set: { a: 1 }, then: exit }
      - second: { set: { a: 2 } }
- after: { set: { after: "${ .a }" } }
"#;
    assert_eq!(output(exit, &json!({})), json!({"after": 1}));
    let end = exit.replace("then: exit", "then: end");
    assert_eq!(output(&end, &json!({})), json!({"a": 1}));
}

#[test]
fn a_switch_without_a_case_that_holds_goes_on() {
    let tasks = r#"
- choose: { switch: [ { no: { when: ".x", then: end } } ] }
- after: { set: { seen: "${ .x }" } }
"#;
    assert_eq!(output(tasks, &json!({"x": false})), json!({"seen": false}));
    assert_eq!(output(tasks, &json!({"x": true})), json!({"x": true}));
}

#[test]
fn a_task_whose_condition_is_false_is_skipped_with_its_directive() {
    let tasks = r#"
- maybe: { if: .go, set: { done: true }, output: { as: "{ as: . }" }, export: { as: "." }, then: end }
- after: { set: { input: "${ . }", context: "${ $context }" } }
"#;
    assert_eq!(output(tasks, &json!({"go": false})), json!({"input": {"go": false}, "context": null}));
    assert_eq!(output(tasks, &json!({"go": true})), json!({"as": {"done": true}}));
}

#[test]
fn a_condition_is_true_or_false_and_nothing_else() {
    let fault = fault("- a: { if: .x, set: { y: 1 } }", &json!({"x": "yes"}));
    assert_eq!((fault["status"].as_u64(), fault["instance"].as_str()), (Some(400), Some("/do/0/a")));
    assert_eq!(fault["type"], json!("https://serverlessworkflow.io/spec/1.0.0/errors/expression"));
}

#[test]
fn a_loop_hands_its_data_from_one_iteration_to_the_next() {
    let tasks = r#"
- sum:
    for: { each: n, in: .numbers, at: i }
    while: $n < 10
    do:
      - add: { set: { total: "${ .total + $n * ($i + 1) }", numbers: "${ .numbers }" } }
    output: { as: .total }
"#;
    assert_eq!(output(tasks, &json!({"numbers": [1, 2, 3, 99, 4], "total": 0})), json!(14));
    assert_eq!(output(tasks, &json!({"numbers": [], "total": 7})), json!(7));
    assert_eq!(output(tasks, &json!({"total": 7})), json!(7));
    assert!(matches!(given(tasks, &json!({"numbers": 3})), Ended::Fault(_)));
}

#[test]
fn exit_in_a_loop_leaves_the_loop() {
    let tasks = r#"
- find:
    for: { in: . }
    do:
      - look: { switch: [ { found: { when: "$item == 3", then: exit } }, { no: { then: keep } } ] }
      - keep: { set: { last: "${ $item }", at: "${ $index }" } }
"#;
    assert_eq!(output(tasks, &json!([1, 2, 3, 4])), json!({"last": 2, "at": 1}));
}

#[test]
fn loops_within_loops_see_both_variables() {
    let tasks = r#"
- outer:
    for: { each: row, in: "[1, 2]" }
    do:
      - inner:
          for: { each: column, in: "[10, 20]" }
          do:
            - cell: { set: { cells: "${ .cells + [$row * $column] }" } }
"#;
    assert_eq!(output(tasks, &json!({})), json!({"cells": [10, 20, 20, 40]}));
}

#[test]
fn a_fork_gives_the_outputs_of_its_branches_in_their_order() {
    let tasks = r#"
- both:
    fork:
      branches:
        - slow: { wait: { seconds: 5 }, output: { as: "{ slow: .n }" } }
        - fast: { call: echo, with: { n: "${ .n + 1 }" } }
        - nothing: { set: "${ null }" }
"#;
    assert_eq!(output(tasks, &json!({"n": 1})), json!([{"slow": 1}, {"n": 2}, null]));
}

#[test]
fn of_branches_that_compete_the_first_wins_and_the_others_are_cancelled() {
    let tasks = r#"
- race:
    fork:
      compete: true
      branches:
        - never: { call: shop.hold, with: { order: 1 } }
        - late: { wait: PT1H }
        - fails: { raise: { error: { type: "urn:no", status: 500 } } }
        - wins: { do: [ { rest: { wait: { seconds: 1 } } }, { say: { set: { winner: true } } } ] }
"#;
    let mut host = Host::new(&document(tasks), &json!({})).answering(|_, _| None);
    let start_ms = host.now_ms;
    assert_eq!(host.run(), Ended::Output(json!({"winner": true})));
    assert_eq!(host.now_ms - start_ms, 1000);
    assert_eq!(host.cancelled, ["0.never"]);
}

#[test]
fn a_branch_that_fails_fails_the_fork_and_stops_the_others() {
    let tasks = r#"
- both:
    fork:
      branches:
        - never: { call: echo }
        - fails: { do: [ { bad: { raise: { error: { type: "urn:no", status: 418, title: No } } } } ] }
"#;
    let mut host = Host::new(&document(tasks), &json!({})).answering(|_, _| None);
    let expected = json!({"type": "urn:no", "status": 418, "title": "No", "instance": "/do/0/both/fork/branches/1/fails/do/0/bad"});
    assert_eq!(host.run(), Ended::Fault(expected));
    let all_fail = r#"
- race: { fork: { compete: true, branches: [ { a: { raise: { error: { type: "urn:a", status: 1 } } } }, { b: { raise: { error: { type: "urn:b", status: 2 } } } } ] } }
"#;
    assert_eq!(fault(all_fail, &json!({}))["type"], json!("urn:b"));
}

#[test]
fn end_in_a_branch_ends_the_document() {
    let tasks = r#"
- both:
    fork:
      branches:
        - never: { wait: PT1H }
        - ends: { set: { ended: true }, then: end }
- after: { set: { after: true } }
"#;
    assert_eq!(output(tasks, &json!({})), json!({"ended": true}));
}

#[test]
fn the_context_is_what_tasks_export() {
    let tasks = r#"
- a: { set: { x: 1 }, export: { as: "$context + { a: .x }" } }
- b: { set: { y: 2 }, export: { as: { b: "${ .y }", before: "${ $context.a }", output: "${ $output.y }" } } }
- c: { set: { context: "${ $context }" } }
"#;
    assert_eq!(output(tasks, &json!({})), json!({"context": {"b": 2, "before": 1, "output": 2}}));
}

#[test]
fn the_document_transforms_its_own_input_and_output() {
    let text = r#"
document: { dsl: 1.0.0, namespace: test, name: doc, version: 1.2.3 }
input: { schema: { document: { type: object, required: [order] } }, from: .order }
do:
  - a: { set: { id: "${ .id }", raw: "${ $workflow.input.order.id }" }, export: { as: .id } }
output: { as: "{ id: .id, raw: .raw, context: $context }", schema: { document: { required: [id] } } }
"#;
    let mut host = Host::new(text, &json!({"order": {"id": 7}}));
    assert_eq!(host.run(), Ended::Output(json!({"id": 7, "raw": 7, "context": 7})));
    let Ended::Fault(fault) = Host::new(text, &json!({})).run() else { panic!("the input fits its schema") };
    assert_eq!(fault["type"], json!("https://serverlessworkflow.io/spec/1.0.0/errors/validation"));
    assert!(fault["detail"].as_str().expect("a sentence").contains("order"), "{fault}");
}

#[test]
fn schemas_of_tasks_are_checked_where_they_stand() {
    let schema = "{ document: { type: object, required: [x] } }";
    for (tasks, what) in [
        (format!("- a: {{ input: {{ schema: {schema} }}, set: {{ x: 1 }} }}"), "the input"),
        (format!("- a: {{ set: {{ y: 1 }}, output: {{ schema: {schema} }} }}"), "the output"),
        (format!("- a: {{ set: {{ y: 1 }}, export: {{ as: ., schema: {schema} }} }}"), "the context"),
    ] {
        let fault = fault(&tasks, &json!({}));
        assert!(fault["detail"].as_str().expect("a sentence").starts_with(what), "{fault}");
        assert_eq!((&fault["status"], &fault["instance"]), (&json!(400), &json!("/do/0/a")));
    }
}

#[test]
fn expressions_know_task_workflow_and_runtime() {
    let tasks = r#"
- who/is: { set: { t: "${ $task | {name, reference, kind: (.definition | keys), startedAt: .startedAt.iso8601} }", w: "${ $workflow | {id, name: .definition.document.name, started: .startedAt.epoch.seconds} }", r: "${ $runtime.name }", tenant: "${ $runtime.metadata.tenant }" } }
"#;
    let expected = json!({
        "t": { "name": "who/is", "reference": "/do/0/who~1is", "kind": ["set"], "startedAt": "2026-11-21T12:00:00.000Z" },
        "w": { "id": "r1", "name": "doc", "started": 1_795_262_400 },
        "r": "tidemill",
        "tenant": "acme",
    });
    assert_eq!(output(tasks, &json!({})), expected);
}

#[test]
fn a_function_is_a_task_with_the_arguments_as_its_input() {
    let text = r#"
document: { dsl: 1.0.0, namespace: test, name: doc, version: 1.0.0 }
use:
  functions:
    double: { set: { twice: "${ .n * 2 }" } }
    greet: { do: [ { call: { call: double } }, { say: { set: { text: "${ \"n is \\(.twice)\" }" } } } ] }
do:
  - a: { call: greet, with: { n: "${ .start + 1 }" }, output: { as: .text } }
"#;
    assert_eq!(Host::new(text, &json!({"start": 4})).run(), Ended::Output(json!("n is 10")));
}

#[test]
fn a_document_that_computes_for_long_yields_and_goes_on() {
    let tasks = r#"
- count: { set: { n: "${ .n + 1 }" } }
- again: { switch: [ { more: { when: ".n < 3000", then: count } } ] }
"#;
    let mut host = Host::new(&document(tasks), &json!({"n": 0}));
    assert_eq!(host.run(), Ended::Output(json!({"n": 3000})));
    assert_eq!(host.whys.len(), 24, "{:?}", host.whys);
    assert!(host.whys.iter().all(|why| why.starts_with("goes on with")), "{:?}", host.whys);
}

#[test]
fn waits_are_as_long_as_they_say() {
    let tasks =
        "- a: { wait: { minutes: 1, seconds: 5 } }\n- b: { wait: PT10S }\n- c: { wait: { seconds: 0 } }";
    let mut host = Host::new(&document(tasks), &json!({"x": 1}));
    let start_ms = host.now_ms;
    assert_eq!(host.run(), Ended::Output(json!({"x": 1})));
    assert_eq!(host.now_ms - start_ms, 75_000);
    assert_eq!(host.whys, ["waits in `a`", "waits in `b`"]);
}

#[test]
fn branches_that_fail_one_after_the_other_fail_the_fork() {
    for compete in [true, false] {
        let tasks = format!(
            r#"
- race:
    fork:
      compete: {compete}
      branches:
        - loop: {{ for: {{ in: "[1, 2]" }}, do: [ {{ x: {{ wait: PT30S, timeout: {{ after: PT9S }} }} }} ] }}
        - tries: {{ try: [ {{ y: {{ wait: PT30S, timeout: {{ after: PT9S }} }} }} ], catch: {{ retry: {{ limit: {{ attempt: {{ count: 1 }} }} }}, do: [ {{ z: {{ wait: PT30S, timeout: {{ after: PT9S }} }} }} ] }} }}
"#
        );
        let fault = fault(&tasks, &json!({}));
        assert_eq!(fault["status"], json!(408), "{compete}");
    }
}

#[test]
fn a_document_that_is_begun_anew_asks_for_children_of_other_keys() {
    let mut host =
        Host::new(&document("- a: { call: echo, with: { n: 1 } }"), &json!({})).answering(|_, _| None);
    assert_eq!(host.run(), Ended::Stuck);
    let before = host.open();
    host.anew();
    assert_eq!(host.run(), Ended::Stuck);
    assert_eq!((before, host.open()), (vec!["0.a".to_owned()], vec!["0.a-1".to_owned()]));
}
