//! What is refused, with which words and where; what is understood.

use serde_json::json;
use tidemill_protocol::ErrorClass;
use tidemill_workflow::{
    Action, ActionDefinition, Decision, Definition, FailurePolicy, Finish, Fires, Join, Need, Plan,
    ProblemCode, Tolerance,
};

use crate::{Tools, has_problem, plan, problems};

const FULL: &str = r#"
name: enrich-order
version: 3
description: An order with its fraud score.
queue: slow
timeout_ms: 300000
failure: finish
input: { type: object, required: [order], properties: { order: { type: integer } } }
retention_ms: 86400000
steps:
  - id: order
    tool: http.request
    with: { url: "https://shop/orders/${ .input.order }" }
    retry: { max_attempts: 5, base_ms: 100, max_ms: 1000, max_elapsed_ms: 60000, on: [timeout, server] }
    timeout_ms: 10000
  - id: parts
    tool: echo
    needs: [order]
    for_each: { items: "${ .steps.order.output.parts }", concurrency: 3, tolerate: 1 }
    with: "${ .item }"
    continue_on_error: true
    queue: gpu
  - id: route
    needs: [order]
    switch:
      - { when: "${ .steps.order.output.score > 0.5 }", then: [review] }
      - { default: [] }
    match: all
  - { id: review, tool: echo, on_error: continue }
  - id: either
    tool: echo
    needs: [order, parts]
    join: any
    when: "${ .steps.order.output.score > 0.8 }"
output: "${ { order: .steps.order.output, parts: .steps.parts.output } }"
"#;

#[test]
fn every_member_is_understood() {
    let definition = Definition::parse(FULL, "w.yaml").unwrap();
    assert_eq!(definition.version, Some(3));
    assert_eq!(definition.steps[0].retry.on, Some(vec![ErrorClass::Timeout, ErrorClass::Server]));
    assert!(matches!(&definition.steps[1].action, ActionDefinition::Tool { tool, .. } if tool == "echo"));

    let plan = plan(FULL);
    assert_eq!((plan.name.as_str(), plan.version, plan.failure), ("enrich-order", 3, FailurePolicy::Finish));
    assert_eq!((plan.timeout_ms, plan.retention_ms), (Some(300_000), Some(86_400_000)));
    assert_eq!((plan.roots(), plan.sinks(), plan.dependents(0)), (&[0][..], &[3, 4][..], &[1, 2, 4][..]));
    assert_eq!((plan.queue_of(0), plan.queue_of(1)), ("slow", "gpu"));
    assert_eq!(plan.step_index("either"), Some(4));
    assert_eq!(plan.step_index("neither"), None);
    let parts = plan.step(1).unwrap();
    assert!(matches!(&parts.action, Action::Tool { tool } if &**tool == "echo"));
    assert!(parts.continue_on_error);
    assert_eq!(
        parts.for_each.as_ref().map(|each| (each.concurrency, each.tolerate)),
        Some((3, Tolerance::Count(1)))
    );
    assert_eq!(plan.fires_when(0), Some(Fires { ended: 0, ok: 0 }));
    assert_eq!(plan.fires_when(4), Some(Fires { ended: 2, ok: 1 }));
    assert_eq!(plan.step(4).unwrap().decide(&[Need::Pending, Need::Succeeded]), Decision::Run);
    assert!(matches!(plan.finish, Finish::Evaluate(_)));
}

#[test]
fn what_is_left_out_has_its_default() {
    let plan = plan("name: w\nsteps:\n  - { id: a, tool: echo }\n");
    assert_eq!((plan.version, plan.queue.as_str(), plan.failure), (1, "default", FailurePolicy::FailFast));
    assert_eq!((plan.timeout_ms, plan.retention_ms), (None, None));
    let step = plan.step(0).unwrap();
    assert_eq!((step.join, step.continue_on_error, step.timeout_ms), (Join::All, false, None));
    assert_eq!(step.with.constant(), Some(&b"{}"[..]));
    assert!(matches!(plan.finish, Finish::Sink(0)));
}

#[test]
fn json_and_yaml_are_the_same() {
    let definition = Definition::parse(FULL, "w.yaml").unwrap();
    let text = serde_json::to_string_pretty(&definition.to_value()).unwrap();
    assert_eq!(Definition::parse(&text, "w.json").unwrap(), definition);
    assert_eq!(Definition::parse(&text.replace("  ", "\t"), "w.json").unwrap(), definition);
}

#[test]
fn an_unknown_member_is_told_with_its_place_and_the_nearest_name() {
    let text = "name: w\nsteps:\n  - id: a\n    tool: echo\n    timeout: 5\n";
    has_problem(
        text,
        ProblemCode::UnknownMember,
        (5, 5),
        "w.yaml:5:5: steps[0]: `timeout` is not known here; did you mean `timeout_ms`?",
    );
    has_problem(
        "name: w\nstesp: []\nsteps: [{id: a, tool: echo}]",
        ProblemCode::UnknownMember,
        (2, 1),
        "did you mean `steps`?",
    );
    let json = "{\n  \"name\": \"w\",\n  \"steps\": [\n    {\"id\": \"a\", \"tool\": \"echo\", \"wiht\": {}}\n  ]\n}";
    has_problem(json, ProblemCode::UnknownMember, (4, 41), "did you mean `with`?");
    has_problem(
        "name: w\nsteps: [{id: a, tool: echo, retry: {attempts: 2}}]",
        ProblemCode::UnknownMember,
        (2, 37),
        "max_attempts",
    );
}

#[test]
fn members_of_later_versions_are_refused_by_name() {
    let text = "name: w\nsteps:\n  - id: a\n    tool: echo\n    fallback: { tool: echo }\n";
    has_problem(text, ProblemCode::NotSupported, (5, 5), "`fallback` is not supported yet in this version");
    let text = "name: w\non_failure: []\nsteps: [{id: a, tool: echo}]\n";
    has_problem(text, ProblemCode::NotSupported, (2, 1), "`on_failure` is not supported yet");
}

#[test]
fn a_member_in_the_wrong_place_is_told_where_it_belongs() {
    for (member, owner) in [
        ("signal: go", "`wait`"),
        ("finally: []", "the workflow"),
        ("while: true", "`repeat`"),
        ("goto: a", "`on_error`"),
    ] {
        let text = format!("name: w\nsteps:\n  - id: a\n    {member}\n");
        has_problem(&text, ProblemCode::UnknownMember, (4, 5), &format!("it is a member of {owner}"));
    }
}

#[test]
fn what_an_error_means_is_told_in_one_way() {
    let continues = |members: &str| {
        plan(&format!("name: w\nsteps: [{{id: a, tool: echo{members}}}]")).steps[0].continue_on_error
    };
    for (members, expected) in [
        ("", false),
        (", on_error: fail", false),
        (", on_error: continue", true),
        (", continue_on_error: true", true),
        (", continue_on_error: true, on_error: continue", true),
        (", on_error: fail, continue_on_error: false", false),
    ] {
        assert_eq!(continues(members), expected, "{members}");
    }
    let refused = |members: &str, code, column, message| {
        has_problem(
            &format!("name: w\nsteps: [{{id: a, tool: echo, {members}}}]"),
            code,
            (2, column),
            message,
        );
    };
    refused(
        "on_error: fail, continue_on_error: true",
        ProblemCode::BadValue,
        45,
        "says otherwise than `on_error`",
    );
    refused("continue_on_error: false, on_error: continue", ProblemCode::BadValue, 29, "leave it out");
    refused("on_error: goto", ProblemCode::BadValue, 29, "`on_error: { goto: ID }`");
    refused("on_error: { goto: a }", ProblemCode::Cycle, 41, "step `a` comes before this one");
    refused("on_error: { goto: b }", ProblemCode::UnknownStepReference, 41, "there is no step `b`");
    refused("on_error: contineu", ProblemCode::BadValue, 29, "did you mean `continue`?");
    refused("on_error: {}", ProblemCode::MissingMember, 29, "`goto` is missing");
    refused("on_error: [fail]", ProblemCode::BadValue, 29, "must be a string");
}

#[test]
fn every_problem_is_told_at_once_in_the_order_of_the_text() {
    let text = "
name: W
colour: red
steps:
  - { id: a, tool: nope, needs: [b] }
  - { id: b, tool: echo, needs: [a], when: '${ .steps.c.output }' }
  - { id: a, tool: echo, with: '${ 1 + }' }
  - { tool: echo }
input: { type: 7 }
";
    let problems = problems(text);
    let codes: Vec<_> = problems.iter().map(|problem| (problem.line, problem.code.as_str())).collect();
    assert_eq!(
        codes,
        [
            (2, "bad_value"),
            (3, "unknown_member"),
            (5, "unknown_tool"),
            (5, "cycle"),
            (6, "unknown_step_reference"),
            (7, "duplicate_id"),
            (7, "bad_expression"),
            (8, "missing_member"),
            (9, "bad_schema"),
        ],
        "{problems}"
    );
}

#[test]
fn names_are_checked() {
    for (name, valid) in [
        ("a", true),
        ("0-a.b_c", true),
        ("A", false),
        ("-a", false),
        ("ä", false),
        ("''", false),
        ("'a b'", false),
        (&"x".repeat(64), true),
        (&"x".repeat(65), false),
    ] {
        let parsed = Definition::parse(&format!("name: {name}\nsteps: [{{id: a, tool: echo}}]"), "w");
        assert_eq!(parsed.is_ok(), valid, "{name}");
    }
    for (id, valid) in [("a", true), ("A_b-1", true), ("1a", false), ("_a", false), ("a.b", false)] {
        let parsed = Definition::parse(&format!("name: w\nsteps: [{{id: {id}, tool: echo}}]"), "w");
        assert_eq!(parsed.is_ok(), valid, "{id}");
    }
}

#[test]
fn wrong_kinds_and_ranges_are_told() {
    for (member, message) in [
        ("timeout_ms: 0", "from 1 to"),
        ("timeout_ms: -5", "not -5"),
        ("timeout_ms: 1.5", "not 1.5"),
        ("timeout_ms: soon", "not a string"),
        ("version: 0", "from 1 to 4294967295"),
        ("failure: fail_fats", "did you mean `fail_fast`?"),
        ("input: 5", "must be a JSON Schema"),
        ("description: []", "must be a string, not an array"),
        ("queue: ''", "no valid name"),
    ] {
        let text = format!("name: w\nsteps: [{{id: a, tool: echo}}]\n{member}\n");
        has_problem(&text, ProblemCode::BadValue, (3, 1), message);
    }
    for (member, message) in [
        ("join: { n_of: 0 }", "from 1"),
        ("join: some", "one of all, any"),
        ("needs: a", "must be an array of step ids"),
        ("needs: [b, b]", "names `b` twice"),
        ("continue_on_error: maybe", "true or false"),
        ("retry: { on: [timeuot] }", "did you mean `timeout`?"),
        ("retry: { max_attempts: 0 }", "from 1"),
        ("for_each: { items: 5 }", "an array or an expression"),
        ("for_each: { items: [1], concurrency: 0 }", "from 1"),
        ("when: 5", "must be an expression"),
        ("when: 'a ${ true }'", "nothing around it"),
        ("when: .input.x", "must be one expression"),
        ("tool: 'a b'", "the name of a tool"),
    ] {
        let tool = if member.starts_with("tool") { "" } else { "tool: echo, " };
        let text = format!("name: w\nsteps: [{{id: b, tool: echo}}, {{id: a, {tool}{member}}}]\n");
        let problems = problems(&text);
        assert!(
            problems.has(ProblemCode::BadValue) && problems.to_string().contains(message),
            "{member}: {problems}"
        );
    }
}

#[test]
fn needs_must_exist_and_not_go_in_circles() {
    has_problem(
        "name: w\nsteps:\n  - { id: fetch, tool: echo }\n  - { id: b, tool: echo, needs: [fecth] }\n",
        ProblemCode::UnknownNeed,
        (4, 34),
        "there is no step `fecth`; did you mean `fetch`?",
    );
    has_problem(
        "name: w\nsteps:\n  - { id: a, tool: echo, needs: [a] }\n",
        ProblemCode::Cycle,
        (3, 26),
        "a → a",
    );
    let text = "name: w\nsteps: [{id: a, tool: echo, needs: [c]}, {id: b, tool: echo, needs: [a]}, {id: c, tool: echo, needs: [b]}, {id: d, tool: echo, needs: [c]}]";
    assert!(problems(text).to_string().contains("a → c → b → a"));
    let two = "name: w\nsteps: [{id: a, tool: echo, needs: [b]}, {id: b, tool: echo, needs: [a]}, {id: c, tool: echo, needs: [d]}, {id: d, tool: echo, needs: [c]}]";
    assert_eq!(problems(two).len(), 2);
}

#[test]
fn a_join_that_can_never_be_met_is_unreachable() {
    has_problem(
        "name: w\nsteps: [{id: a, tool: echo}, {id: b, tool: echo, needs: [a], join: {n_of: 2}}]",
        ProblemCode::UnreachableStep,
        (2, 62),
        "waits for 2 of 1 needs",
    );
    assert!(problems("name: w\nsteps: [{id: a, tool: echo, join: any}]").has(ProblemCode::UnreachableStep));
}

#[test]
fn a_tool_must_exist_and_its_constant_input_must_fit() {
    has_problem(
        "name: w\nsteps: [{id: a, tool: http.requets}]",
        ProblemCode::UnknownTool,
        (2, 17),
        "did you mean `http.request`?",
    );
    has_problem(
        "name: w\nsteps: [{id: a, tool: sleep, with: {ms: soon}}]",
        ProblemCode::BadToolInput,
        (2, 30),
        "/ms",
    );
    has_problem("name: w\nsteps: [{id: a, tool: sleep}]", ProblemCode::BadToolInput, (2, 9), "ms");
    has_problem(
        "name: w\nsteps: [{id: a, tool: sleep, with: {ms: '{{ inputs.x }}'}}]",
        ProblemCode::BadExpression,
        (2, 37),
        "did you mean `input`?",
    );
    plan("name: w\nsteps: [{id: a, tool: sleep, with: {ms: 50}}]");
    plan("name: w\nsteps: [{id: a, tool: sleep, with: {ms: '${ .input.ms }'}}]");
}

#[test]
fn expressions_are_checked_with_their_place() {
    let text = "name: w\nsteps:\n  - id: a\n    tool: echo\n    with:\n      deep:\n        - ok\n        - '${ .input.x | lenght }'\n";
    has_problem(
        text,
        ProblemCode::BadExpression,
        (8, 11),
        "steps[0].with.deep[1]: expression `.input.x | lenght`: column 12: filter `lenght` does not exist",
    );
    let with = |expression: &str| {
        format!(
            "name: w\nsteps: [{{id: a, tool: echo}}, {{id: b, tool: echo, needs: [a], with: '${{ {expression} }}'}}, {{id: c, tool: echo}}]"
        )
    };
    has_problem(
        &with(".steps.c.output"),
        ProblemCode::NotUpstream,
        (2, 62),
        "step `c` need not have ended by then; add it to `needs`",
    );
    has_problem(&with(".steps.b.output"), ProblemCode::NotUpstream, (2, 62), "add it to `needs`");
    has_problem(&with(".steps.aa.output"), ProblemCode::UnknownStepReference, (2, 62), "did you mean `a`?");
    has_problem(&with(".inputs.x"), ProblemCode::BadExpression, (2, 62), "did you mean `.input`?");
    assert!(
        problems("name: w\nsteps: [{id: a, tool: echo, with: 'x ${ y'}]")
            .to_string()
            .contains("closing brace")
    );
    plan(
        "name: w\nsteps: [{id: a, tool: echo}, {id: b, tool: echo, needs: [a]}, {id: c, tool: echo, needs: [b], with: '${ .steps.a.output }'}]",
    );
}

#[test]
fn a_schema_may_not_reach_out() {
    for reference in ["https://example.com/schema.json", "file:///etc/passwd", "other.json"] {
        let text = format!("name: w\ninput: {{ $ref: '{reference}' }}\nsteps: [{{id: a, tool: echo}}]");
        has_problem(&text, ProblemCode::BadSchema, (2, 1), "is not a valid JSON Schema");
    }
    plan(
        "name: w\ninput: { $ref: '#/$defs/o', $defs: { o: { type: object } } }\nsteps: [{id: a, tool: echo}]",
    );
}

#[test]
fn input_is_checked_with_the_place_of_each_violation() {
    let plan = plan(FULL);
    assert_eq!(plan.validate_input(&json!({ "order": 42 })), Ok(()));
    let violations = plan.validate_input(&json!({ "order": "my secret" })).unwrap_err();
    assert!(violations[0].starts_with("/order: ") && !violations[0].contains("secret"), "{violations:?}");
    let violations = plan.validate_input(&json!({})).unwrap_err();
    assert!(violations[0].starts_with("/: ") && violations[0].contains("order"), "{violations:?}");
}

#[test]
fn patterns_of_a_schema_do_not_backtrack() {
    let plan =
        plan("name: w\ninput: { properties: { s: { pattern: '^(a+)+$' } } }\nsteps: [{id: a, tool: echo}]");
    assert!(plan.validate_input(&json!({ "s": format!("{}b", "a".repeat(50_000)) })).is_err());
}

#[test]
fn broken_text_is_told_with_its_place() {
    for (text, line, message) in [
        ("name: w\nsteps: [", 3, "not YAML"),
        ("", 1, "empty"),
        ("name: w\n---\nname: x\n", 2, "one workflow"),
        ("- a\n", 1, "must be an object"),
        ("{\n \"name\": \"w\",\n \"steps\": [}", 3, "not JSON"),
        ("name: w\nname: x\nsteps: [{id: a, tool: echo}]", 2, "given twice"),
        (
            "{\"name\": \"w\", \"name\": \"x\", \"steps\": [{\"id\": \"a\", \"tool\": \"echo\"}]}",
            1,
            "given twice",
        ),
        ("name: !secret w\nsteps: [{id: a, tool: echo}]", 1, "tag"),
        ("a: &a\n  b: *a\n", 2, "alias"),
        ("x: &x {id: a}\ny:\n  <<: *x\n", 3, "merge keys"),
        ("? [a]\n: b\n", 1, "plain text"),
    ] {
        let problems = problems(text);
        assert!(
            problems.iter().any(|p| p.line == line && p.message.contains(message)),
            "{text:?}: {problems}"
        );
    }
}

#[test]
fn size_depth_and_aliases_are_bounded() {
    let long = format!("name: w\ndescription: {}\nsteps: [{{id: a, tool: echo}}]", "x".repeat(1 << 20));
    assert!(problems(&long).has(ProblemCode::TooLarge));
    for open in ["[", "{a: ", "- "] {
        let deep = format!("name: w\ndescription: {}", open.repeat(5000));
        assert!(!problems(&deep).is_empty());
    }
    assert!(problems(&format!("{{\"a\":{}", "[".repeat(100_000))).len() == 1);
    assert!(
        problems(&format!("{{\"a\":{}1{}}}", "[".repeat(100), "]".repeat(100))).has(ProblemCode::TooLarge)
    );
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for n in 1..12 {
        let alias = format!("*a{}", n - 1);
        laughs.push_str(&format!("a{n}: &a{n} [{}]\n", [alias.as_str(); 10].join(", ")));
    }
    assert!(problems(&laughs).has(ProblemCode::TooLarge));
    let many: String = (0..20_001).map(|n| format!("  - {{id: s{n}, tool: echo}}\n")).collect();
    assert!(problems(&format!("name: w\nsteps:\n{many}")).has(ProblemCode::TooManySteps));
}

#[test]
fn aliases_repeat_what_they_name() {
    let plan = plan(
        "name: w\nsteps:\n  - { id: a, tool: echo, retry: &r { max_attempts: 2 } }\n  - { id: b, tool: echo, retry: *r }\n",
    );
    assert_eq!(plan.step(1).unwrap().retry.max_attempts, Some(2));
}

#[test]
fn a_run_of_ten_thousand_steps_compiles() {
    let steps: String = (0..10_000)
        .map(|n| match n {
            0 => "  - {id: s0, tool: echo}\n".to_owned(),
            _ => format!(
                "  - {{id: s{n}, tool: echo, needs: [s{}], with: '${{ .steps.s{}.output }}'}}\n",
                n - 1,
                n - 1
            ),
        })
        .collect();
    let plan = plan(&format!("name: w\nsteps:\n{steps}"));
    assert_eq!((plan.steps.len(), plan.roots(), plan.sinks()), (10_000, &[0][..], &[9_999][..]));
}

#[test]
fn a_plan_is_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>(_: &T) {}
    shared(&plan(FULL));
}

#[test]
fn a_plan_can_be_drawn() {
    let plan = plan(FULL);
    let mermaid = plan.to_mermaid();
    assert!(mermaid.starts_with("flowchart TD\n    n0[\"order<br/>http.request\"]\n"), "{mermaid}");
    assert!(mermaid.contains("    n1 -->|any| n4\n") && mermaid.contains("    n0 --> n1\n"), "{mermaid}");
    let dot = plan.to_dot();
    assert!(
        dot.contains("n0 -> n4 [label=\"any\"];") && dot.contains("n1 [label=\"parts\\necho (for each)\"];"),
        "{dot}"
    );
}

#[test]
fn parse_alone_tells_only_what_single_members_show() {
    let text = "name: w\nsteps: [{id: a, tool: nope, needs: [b]}]";
    let definition = Definition::parse(text, "w").unwrap();
    let problems = definition.compile(&Tools).unwrap_err();
    assert!(problems.has(ProblemCode::UnknownTool) && problems.has(ProblemCode::UnknownNeed));
    assert!(Plan::from_source(text, "w", &Tools).is_err());
}

#[test]
fn a_definition_in_which_all_is_wrong_is_refused_in_time() {
    let step = |at: usize| json!({ "id": format!("step{at}"), "tool": "echo", "needs": [format!("stop{at}")], "with": format!("${{ .steps.stap{at} }}") });
    let steps: Vec<_> = (0..5_000).map(step).collect();
    // each name compared with all others, this takes minutes
    let problems = problems(&json!({ "name": "w", "steps": steps }).to_string());
    assert_eq!(problems.len(), 10_000);
    assert!(problems.iter().next().unwrap().message.contains("did you mean `step0`?"));
    let circles = (0..5_000)
        .map(|at| json!({ "id": format!("s{at}"), "tool": "echo", "needs": [format!("s{}", at ^ 1)] }));
    let problems = crate::problems(&json!({ "name": "w", "steps": circles.collect::<Vec<_>>() }).to_string());
    assert_eq!(problems.len(), 20);
}

#[test]
fn ten_thousand_steps_are_compiled_in_time() {
    let step = |at: usize| {
        let needs: Vec<String> = (at.saturating_sub(3)..at).map(|need| format!("s{need}")).collect();
        let with =
            if at < 4 { "${ .input }".to_owned() } else { format!("${{ .steps.s{}.output }}", at - 4) };
        json!({ "id": format!("s{at}"), "tool": "echo", "needs": needs, "with": with })
    };
    let plan = plan(&json!({ "name": "w", "steps": (0..10_000).map(step).collect::<Vec<_>>() }).to_string());
    assert_eq!((plan.steps.len(), plan.sinks()), (10_000, &[9_999][..]));
}
