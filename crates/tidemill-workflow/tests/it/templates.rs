//! What templates need and what they render to.

use serde_json::{Value, json};
use tidemill_workflow::{Fault, Finish, Limits, Plan, RunView, Scope, StepView};

use crate::plan;

/// A plan whose step `c` has this input; it needs `a`, which ended after `z`, and `b`.
pub(super) fn with(with: &Value) -> Plan {
    let step = |id: &str, needs: Value| json!({ "id": id, "tool": "echo", "needs": needs });
    let definition = json!({
        "name": "w",
        "steps": [
            step("z", json!([])),
            step("a", json!(["z"])),
            step("b", json!([])),
            { "id": "c", "tool": "echo", "needs": ["a", "b"], "with": with },
        ]
    });
    plan(&definition.to_string())
}

pub(super) fn scope() -> Scope<'static> {
    let ended = |output: &'static [u8]| StepView { state: "succeeded", output: Some(output), error: None };
    Scope {
        input: br#"{ "order": 42, "name": "A \"b\"" }"#,
        steps: vec![
            (2, StepView { state: "failed", output: None, error: Some(br#"{"code":"http_500"}"#) }),
            (1, ended(br#"{"score":0.9, "tags":["x","y"]}"#)),
            (0, ended(br#""plain \u00e9 text""#)),
        ],
        run: RunView { id: "r1", workflow: "w", version: 3, tenant: None, ..RunView::default() },
        item: None,
        locals: Vec::new(),
    }
}

pub(super) fn renders(value: &Value, expected: &Value) {
    let plan = with(value);
    let template = &plan.steps[3].with;
    let text = template.render(&scope(), &Limits::default()).expect("it renders");
    assert_eq!(serde_json::from_slice::<Value>(&text).expect("it is JSON"), *expected, "{value}");
}

fn references(expression: &str) -> (bool, Vec<u32>) {
    let plan = with(&json!({ "x": format!("${{ {expression} }}") }));
    let references = plan.steps[3].with.references();
    (references.input, references.steps.clone())
}

#[test]
fn an_expression_that_is_the_whole_string_keeps_its_type() {
    renders(&json!("${ .input.order }"), &json!(42));
    renders(
        &json!({ "a": ["${ .steps.a.output.tags }", "${ .steps.a.state }"] }),
        &json!({ "a": [["x", "y"], "succeeded"] }),
    );
    renders(&json!("${ .run }"), &json!({ "id": "r1", "workflow": "w", "version": 3, "tenant": null }));
    renders(&json!("${\n .input.order\n}\n"), &json!(42));
}

#[test]
fn an_expression_inside_of_text_is_interpolated() {
    renders(&json!("order ${ .input.order } of ${ .input.name }!"), &json!("order 42 of A \"b\"!"));
    renders(&json!("tags ${ .steps.a.output.tags }"), &json!("tags [\"x\",\"y\"]"));
    renders(&json!("${ .steps.a.output.score } "), &json!("0.9 "));
    renders(&json!("costs $5, $${ not } \u{1} \"q\""), &json!("costs $5, ${ not } \u{1} \"q\""));
}

#[test]
fn whole_documents_are_passed_on_as_they_are() {
    let text = |value: &Value| {
        String::from_utf8(with(value).steps[3].with.render(&scope(), &Limits::default()).unwrap()).unwrap()
    };
    assert_eq!(text(&json!({ "i": "${ .input }" })), r#"{"i":{ "order": 42, "name": "A \"b\"" }}"#);
    assert_eq!(text(&json!("${ .steps.a.output }")), r#"{"score":0.9, "tags":["x","y"]}"#);
    assert_eq!(text(&json!("<${ .steps.z.output }>")), r#""<plain \u00e9 text>""#);
    assert_eq!(text(&json!("e: ${ .steps.b.error }")), r#""e: {\"code\":\"http_500\"}""#);
    assert_eq!(
        text(&json!(["${ .steps.b.output }", "${ .steps.b.error }"])),
        r#"[null,{"code":"http_500"}]"#
    );
}

#[test]
fn only_what_is_read_is_referenced() {
    assert_eq!(references(".input.a"), (true, vec![]));
    assert_eq!(references(".steps.a.output + .steps[\"b\"].output"), (false, vec![1, 2]));
    assert_eq!(references("1 + 1"), (false, vec![]));
    assert_eq!(references("[.steps.z.output[] | select(.ok) | .steps]"), (false, vec![0]));
    assert_eq!(references("{a: .steps.a.output} | .a.b"), (false, vec![1]));
    assert_eq!(references("\"\\(.steps.b.output) \\(.input.x)\""), (true, vec![2]));
    assert_eq!(references(".steps.a.output as $x | .steps.b.output | . + $x"), (false, vec![1, 2]));
    assert_eq!(references("if .input.x then .steps.a.output else .steps.z.output end"), (true, vec![0, 1]));
    assert_eq!(references("reduce .steps.a.output[] as $i (.input.start; . + $i)"), (true, vec![1]));
    assert_eq!(references(".steps.a.output // .input.default"), (true, vec![1]));
    assert_eq!(references("first(.steps.a.output[])").1, [0, 1, 2]);
}

#[test]
fn where_the_text_does_not_show_what_is_read_everything_upstream_is() {
    for expression in [
        ".",
        ".steps",
        ".steps[.input.which].output",
        ".steps | keys",
        ".steps[] | .output",
        "[..] | length",
        "keys",
        ". as $all | $all.steps.a.output",
        "def f: .steps; f",
        "getpath([\"steps\",\"a\"])",
        ".steps.a = 1",
        "tojson",
        "{steps}",
        "if .input then 1 end",
        "[.[]]",
        "to_entries",
        "map(.a)",
        ". as {$steps} | $steps.a",
    ] {
        assert_eq!(references(expression).1, [0, 1, 2], "{expression}");
    }
}

#[test]
fn what_a_template_references_is_enough_to_render_it() {
    for expression in [
        ".steps.a.output.score",
        "[.steps[] | .state]",
        ". as {$steps} | $steps.a.output",
        "def f: .steps.a; f.output",
        "first(.steps.a.output.tags[])",
        "[.steps.a, .steps.z | .output]",
        "any(.steps[]; .state == \"failed\")",
        "{steps} | .steps.b.error.code",
        ".steps | to_entries | map(.key)",
        "[paths] | length",
        "any(.input; .order == 42)",
        "[limit(2; .steps.a.output.tags[] | {t: ., n: 1})]",
        "with_entries(.value |= length)",
        "[..|strings]|length",
    ] {
        let plan = with(&json!(format!("${{ {expression} }}")));
        let template = &plan.steps[3].with;
        let all = scope();
        let mut needed = scope();
        needed.steps.retain(|(step, _)| template.references().steps.contains(step));
        if !template.references().input {
            needed.input = b"";
        }
        let limits = Limits::default();
        assert_eq!(
            template.render(&needed, &limits).unwrap(),
            template.render(&all, &limits).unwrap(),
            "{expression}"
        );
    }
}

#[test]
fn an_item_is_in_scope_inside_of_for_each_only() {
    let plan = plan(
        "name: w\nsteps:\n  - id: a\n    tool: echo\n    for_each: '${ .input.list }'\n    with: { item: '${ .item }', at: '${ .index }', n: 'no ${ .item.n }' }\n",
    );
    let step = &plan.steps[0];
    let for_each = step.for_each.as_ref().unwrap();
    let scope = Scope { input: br#"{"list":[{"n":1},{"n":2}]}"#, ..Scope::default() };
    let items = for_each.items(&scope, &Limits::default()).unwrap();
    let items: Vec<&str> = items.iter().map(|item| item.get()).collect();
    assert_eq!(items, [r#"{"n":1}"#, r#"{"n":2}"#]);
    let scope = Scope { item: Some((1, items[1].as_bytes())), ..scope };
    let text = step.with.render(&scope, &Limits::default()).unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(&text).unwrap(),
        json!({ "item": { "n": 2 }, "at": 1, "n": "no 2" })
    );

    for (input, got) in [(r#"{"list":5}"#, "number"), (r#"{"list":{}}"#, "object"), ("{}", "null")] {
        let error = for_each
            .items(&Scope { input: input.as_bytes(), ..Scope::default() }, &Limits::default())
            .unwrap_err();
        assert_eq!(error.fault, Fault::NotArray { got });
    }
    let outside = crate::problems("name: w\nsteps: [{id: a, tool: echo, with: '${ .item }'}]");
    assert!(outside.to_string().contains("outside of `for_each`"), "{outside}");
    let items = crate::problems("name: w\nsteps: [{id: a, tool: echo, for_each: '${ .item }'}]");
    assert!(items.to_string().contains("outside of `for_each`"), "{items}");
}

#[test]
fn a_condition_is_true_or_false_and_nothing_else() {
    let when = |when: &str| {
        let plan = plan(&format!("name: w\nsteps: [{{id: a, tool: echo, when: {}}}]", json!(when)));
        plan.steps[0].when.as_ref().unwrap().is_true(&scope(), &Limits::default())
    };
    assert_eq!(when("${ .input.order > 10 }"), Ok(true));
    assert_eq!(when("${ .input.order > 100 }"), Ok(false));
    for (expression, got) in [(".input.none", "null"), ("0", "number"), ("\"\"", "string"), ("[]", "array")] {
        let error = when(&format!("${{ {expression} }}")).unwrap_err();
        assert_eq!(error.fault, Fault::NotBoolean { got });
    }
    let constant = plan("name: w\nsteps: [{id: a, tool: echo, when: false}]");
    assert_eq!(constant.steps[0].when.as_ref().unwrap().is_true(&scope(), &Limits::default()), Ok(false));
}

#[test]
fn limits_hold_for_the_whole_of_a_template() {
    let heavy = json!(vec!["${ [range(20000)] | length }"; 50]);
    let plan = with(&heavy);
    let error = plan.steps[3].with.render(&scope(), &Limits::default()).unwrap_err();
    assert_eq!(error.fault, Fault::OutOfFuel { fuel: 1_000_000 });
    let plan = with(&json!(vec!["${ .input }"; 100]));
    let limits = Limits { output_bytes: 1000, ..Limits::default() };
    assert_eq!(
        plan.steps[3].with.render(&scope(), &limits).unwrap_err().fault,
        Fault::OutputTooLarge { limit_bytes: 1000 }
    );
    let plan = with(&json!("${ \"x\" * 2000 } and more"));
    assert_eq!(
        plan.steps[3].with.render(&scope(), &limits).unwrap_err().fault,
        Fault::OutputTooLarge { limit_bytes: 1000 }
    );
}

#[test]
fn broken_records_are_an_error_that_names_them() {
    let plan = with(&json!("${ .steps.a.output.x }"));
    let scope = Scope {
        steps: vec![(1, StepView { state: "succeeded", output: Some(b"{"), error: None })],
        ..scope()
    };
    let error = plan.steps[3].with.render(&scope, &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("the output of step `a`, which is not valid JSON"), "{error}");
    assert_eq!(error.code(), "expression_bad_scope");
}

#[test]
fn several_sinks_give_an_object_of_their_outputs() {
    let plan = plan("name: w\nsteps: [{id: a, tool: echo}, {id: b-c, tool: echo}]");
    let Finish::Evaluate(output) = &plan.finish else { panic!("two sinks need evaluating") };
    assert_eq!(output.references().steps, [0, 1]);
    let view = |output: &'static [u8]| StepView { state: "succeeded", output: Some(output), error: None };
    let scope = Scope { steps: vec![(0, view(b"1")), (1, view(b"[2]"))], ..Scope::default() };
    assert_eq!(output.render(&scope, &Limits::default()).unwrap(), br#"{"a":1,"b-c":[2]}"#);
}
