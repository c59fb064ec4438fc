//! Steps that choose which others are run.

use proptest::prelude::*;
use serde_json::{Value, json};
use tidemill_workflow::{Action, ChosenBy, Decision, Limits, Need, Plan, ProblemCode, Scope, StepView};

use crate::{has_problem, plan, problems};

/// A switch over `.input.n` whose cases choose `a` and `b`, and whose default chooses `c`.
fn route(pick: &str) -> Plan {
    plan(&format!(
        r#"
name: w
steps:
  - id: route
    switch:
      - {{ when: "${{ .input.n > 10 }}", then: [a] }}
      - {{ when: "${{ .input.n > 5 }}", then: [b, b2] }}
      - {{ default: [c] }}
    match: {pick}
  - {{ id: a, tool: echo, when: "${{ .input.n != 99 }}" }}
  - {{ id: b, tool: echo }}
  - {{ id: b2, tool: echo, needs: [b] }}
  - {{ id: c, tool: echo }}
  - {{ id: end, tool: echo, needs: [a, b, c] }}
"#
    ))
}

fn chosen(plan: &Plan, input: &str) -> Value {
    let scope = Scope { input: input.as_bytes(), ..Scope::default() };
    let output = plan.steps[0].with.render(&scope, &Limits::default()).expect("it decides");
    serde_json::from_slice(&output).expect("it is JSON")
}

/// Whether the condition of a step holds, when the switch had this output.
fn is_run(plan: &Plan, step: usize, input: &str, output: Option<&[u8]>) -> bool {
    let steps = vec![(0, StepView { state: "succeeded", output, error: None })];
    let scope = Scope { input: input.as_bytes(), steps, ..Scope::default() };
    plan.steps[step]
        .when
        .as_ref()
        .is_none_or(|when| when.is_true(&scope, &Limits::default()).expect("it decides"))
}

#[test]
fn the_first_case_that_holds_chooses() {
    let plan = route("first");
    assert!(matches!(plan.steps[0].action, Action::Decide));
    assert_eq!(chosen(&plan, r#"{"n":20}"#), json!({ "chosen": ["a"] }));
    assert_eq!(chosen(&plan, r#"{"n":7}"#), json!({ "chosen": ["b", "b2"] }));
    assert_eq!(chosen(&plan, r#"{"n":1}"#), json!({ "chosen": ["c"] }));
}

#[test]
fn every_case_that_holds_chooses_where_all_count() {
    let plan = route("all");
    assert_eq!(chosen(&plan, r#"{"n":20}"#), json!({ "chosen": ["a", "b", "b2"] }));
    assert_eq!(chosen(&plan, r#"{"n":7}"#), json!({ "chosen": ["b", "b2"] }));
    assert_eq!(chosen(&plan, r#"{"n":1}"#), json!({ "chosen": ["c"] }));
}

#[test]
fn where_no_case_holds_and_there_is_no_default_nothing_is_chosen() {
    let plan = plan(
        "name: w\nsteps:\n  - { id: r, switch: [{ when: false, then: [a] }, { when: '${ false }', then: [] }], match: all }\n  - { id: a, tool: echo }\n",
    );
    assert_eq!(chosen(&plan, "{}"), json!({ "chosen": [] }));
}

#[test]
fn an_empty_case_leaves_no_comma_behind() {
    let plan = plan(
        "name: w\nsteps:\n  - { id: r, switch: [{ when: true, then: [] }, { when: true, then: [a] }, { when: true, then: [] }, { when: true, then: [b] }], match: all }\n  - { id: a, tool: echo }\n  - { id: b, tool: echo }\n",
    );
    assert_eq!(chosen(&plan, "{}"), json!({ "chosen": ["a", "b"] }));
}

#[test]
fn a_step_of_a_case_needs_the_switch_and_is_run_where_it_is_chosen() {
    let plan = route("first");
    assert_eq!((plan.roots(), plan.dependents(0)), (&[0][..], &[1, 2, 3, 4][..]));
    assert_eq!(plan.steps[3].needs, [2, 0]);
    assert_eq!(plan.steps[1].chosen_by, Some(ChosenBy { switch: 0, case: Some(0) }));
    assert_eq!(plan.steps[4].chosen_by, Some(ChosenBy { switch: 0, case: None }));
    assert_eq!(plan.steps[5].chosen_by, None);
    for step in 1..=4 {
        let references = plan.steps[step].when.as_ref().unwrap().references();
        assert_eq!((references.steps.as_slice(), references.input), (&[0][..], step == 1), "{step}");
    }
    let output = br#"{"chosen": ["b", "b2"]}"#;
    assert!(!is_run(&plan, 1, "{}", Some(output)) && is_run(&plan, 2, "{}", Some(output)));
    assert!(!is_run(&plan, 4, "{}", Some(output)) && is_run(&plan, 5, "{}", Some(output)));
    // its own condition holds as well
    assert!(is_run(&plan, 1, r#"{"n":20}"#, Some(br#"{"chosen":["a"]}"#)));
    assert!(!is_run(&plan, 1, r#"{"n":99}"#, Some(br#"{"chosen":["a"]}"#)));
    // a switch that was skipped or failed chose nothing
    for output in [None, Some(&b""[..]), Some(b"null")] {
        assert!(!is_run(&plan, 2, "{}", output));
    }
}

#[test]
fn a_join_behind_a_switch_runs_with_what_was_chosen() {
    let plan = route("first");
    let end = &plan.steps[5];
    assert_eq!(end.decide(&[Need::Succeeded, Need::Skipped, Need::Skipped]), Decision::Run);
    assert_eq!(end.decide(&[Need::Skipped, Need::Skipped, Need::Skipped]), Decision::Skip);
}

#[test]
fn a_broken_output_of_a_switch_is_an_error_that_names_it() {
    let plan = route("first");
    let steps = vec![(0, StepView { state: "succeeded", output: Some(br#"{"chosen":7}"#), error: None })];
    let scope = Scope { steps, ..Scope::default() };
    let error = plan.steps[2].when.as_ref().unwrap().is_true(&scope, &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("the output of the switch `route`"), "{error}");
}

#[test]
fn a_case_that_gives_neither_true_nor_false_is_an_error() {
    let plan = route("first");
    let scope = Scope { input: br#"{"n":20}"#, ..Scope::default() };
    assert!(plan.steps[0].with.render(&scope, &Limits::default()).is_ok());
    let text = "name: w\nsteps:\n  - { id: r, switch: [{ when: '${ .input.n }', then: [a] }] }\n  - { id: a, tool: echo }\n";
    let error = crate::plan(text).steps[0].with.render(&scope, &Limits::default()).unwrap_err();
    assert_eq!(error.code(), "expression_wrong_output", "{error}");
}

#[test]
fn the_fuel_of_a_switch_holds_for_all_of_its_cases() {
    let case = "{ when: '${ [range(20000)] | length == 0 }', then: [] }";
    let text = format!("name: w\nsteps:\n  - {{ id: r, switch: [{}] }}\n", [case; 50].join(", "));
    let error = plan(&text).steps[0].with.render(&Scope::default(), &Limits::default()).unwrap_err();
    assert!(error.is_out_of_fuel() && error.to_string().contains("1000000"), "{error}");
}

#[test]
fn a_switch_that_cannot_be_meant_is_refused_with_its_place() {
    let refused = |switch: &str, code, place, message: &str| {
        let text = format!("name: w\nsteps:\n  - id: r\n{switch}\n  - {{ id: a, tool: echo }}\n");
        has_problem(&text, code, place, message);
    };
    let bad = ProblemCode::BadValue;
    refused("    switch: a", bad, (4, 5), "an array of cases");
    refused("    switch: []", bad, (4, 5), "at least one case");
    refused("    switch: [a]", bad, (4, 14), "must be an object");
    refused("    switch: [{}]", ProblemCode::MissingMember, (4, 14), "`{ when, then }` or `{ default }`");
    refused("    switch: [{ when: true }]", ProblemCode::MissingMember, (4, 14), "`then` is missing");
    refused("    switch: [{ then: [a] }]", ProblemCode::MissingMember, (4, 14), "`when` is missing");
    refused("    switch: [{ default: [a], when: true }]", bad, (4, 30), "exclude each other");
    refused(
        "    switch: [{ default: [a] }, { when: '${ .input }', then: [] }]",
        bad,
        (4, 5),
        "behind `default`",
    );
    refused("    switch: [{ when: yes, then: [a] }]", bad, (4, 16), "must be one expression");
    refused("    switch: [{ when: true, then: [a, a] }]", bad, (4, 28), "names `a` twice");
    refused(
        "    switch: [{ when: true, them: [a], then: [] }]",
        ProblemCode::UnknownMember,
        (4, 28),
        "`then`?",
    );
    refused("    switch: [{ when: true, then: [a] }]\n    match: any", bad, (5, 5), "one of first, all");
    for member in ["tool: echo", "with: {}", "for_each: [1]", "retry: {}", "timeout_ms: 5"] {
        let switch = format!("    switch: [{{ when: true, then: [a] }}]\n    {member}");
        refused(&switch, bad, (5, 5), "has no meaning in a step with `switch`");
    }
    refused(
        "    switch: [{ when: '${ .steps.a.output }', then: [] }]",
        ProblemCode::NotUpstream,
        (4, 16),
        "steps[0].switch[0].when: step `a` need not have ended",
    );
    has_problem(
        "name: w\nsteps: [{ id: a, tool: echo, match: all }]",
        bad,
        (2, 30),
        "only in one with `switch`",
    );
}

#[test]
fn what_a_switch_names_must_exist_once_and_lie_behind_it() {
    let text = |steps: &str| format!("name: w\nsteps:\n{steps}");
    has_problem(
        &text(
            "  - id: r\n    switch:\n      - { when: true, then: [fetch, fecth] }\n  - { id: fetch, tool: echo }\n",
        ),
        ProblemCode::UnknownStepReference,
        (5, 37),
        "steps[0].switch[0].then[1]: there is no step `fecth`; did you mean `fetch`?",
    );
    has_problem(
        &text(
            "  - id: r\n    switch:\n      - { when: '${ .input }', then: [a] }\n      - { default: [a] }\n  - { id: a, tool: echo }\n",
        ),
        ProblemCode::DuplicateChoice,
        (6, 21),
        "chosen by the switch `r` already",
    );
    has_problem(
        &text(
            "  - { id: r, switch: [{ default: [a] }] }\n  - { id: s, switch: [{ default: [a] }] }\n  - { id: a, tool: echo }\n",
        ),
        ProblemCode::DuplicateChoice,
        (4, 35),
        "chosen by the switch `r` already",
    );
    has_problem(&text("  - { id: r, switch: [{ default: [r] }] }\n"), ProblemCode::Cycle, (3, 5), "r → r");
    has_problem(
        &text("  - { id: r, needs: [a], switch: [{ default: [a] }] }\n  - { id: a, tool: echo }\n"),
        ProblemCode::Cycle,
        (3, 14),
        "circle",
    );
}

#[test]
fn joins_that_a_switch_makes_impossible_are_refused() {
    let steps = "  - { id: r, switch: [{ when: '${ .input }', then: [a] }, { when: '${ .input }', then: [b, c] }] }\n  - { id: a, tool: echo }\n  - { id: b, tool: echo }\n  - { id: c, tool: echo }\n  - { id: d, tool: echo }\n";
    let join = |n: u32| {
        format!(
            "name: w\nsteps:\n{steps}  - {{ id: j, tool: echo, needs: [a, b, c, d], join: {{ n_of: {n} }} }}\n"
        )
    };
    plan(&join(3));
    has_problem(&join(4), ProblemCode::UnreachableStep, (8, 47), "at most 3 run");
    plan(&join(4).replace("then: [b, c] }]", "then: [b, c] }], match: all"));
    has_problem(
        "name: w\nsteps:\n  - { id: r, switch: [{ default: [b] }] }\n  - { id: a, tool: echo }\n  - { id: b, tool: echo, needs: [a], join: any }\n",
        ProblemCode::BadValue,
        (5, 38),
        "`b` is chosen by the switch `r` and so waits for all of its needs",
    );
}

#[test]
fn a_case_behind_one_that_always_holds_is_unreachable() {
    let text = "name: w\nsteps:\n  - id: r\n    switch:\n      - { when: true, then: [] }\n      - { when: '${ .input }', then: [] }\n      - { default: [] }\n";
    let found: Vec<_> = problems(text).iter().map(|problem| (problem.line, problem.code)).collect();
    assert_eq!(found, [(6, ProblemCode::UnreachableStep), (7, ProblemCode::UnreachableStep)]);
    let all = text.replace("      - { default: [] }\n", "    match: all\n");
    plan(&all);
}

#[test]
fn a_switch_is_drawn_with_its_cases() {
    let plan = route("first");
    let mermaid = plan.to_mermaid();
    for line in [
        "n0{\"route<br/>switch\"}",
        "n1[\"a<br/>echo (if)\"]",
        "n2[\"b<br/>echo\"]",
        "n0 -->|case 1| n1",
        "n0 -->|case 2| n3",
        "n2 --> n3",
        "n0 -->|default| n4",
        "n4 --> n5",
    ] {
        assert!(mermaid.contains(&format!("    {line}\n")), "{line}\n{mermaid}");
    }
    let dot = plan.to_dot();
    assert!(dot.contains("n0 [label=\"route\\nswitch\", shape=diamond];"), "{dot}");
    assert!(dot.contains("n0 -> n4 [label=\"default\"];") && dot.contains("n2 -> n3;"), "{dot}");
}

proptest! {
    #[test]
    fn what_is_chosen_follows_from_what_holds(
        cases in prop::collection::vec((any::<bool>(), 0..3_usize), 1..6),
        default in proptest::option::of(0..3_usize),
        all in any::<bool>(),
    ) {
        let mut ids = (0..).map(|n| format!("s{n}"));
        let mut take = |count: usize| ids.by_ref().take(count).collect::<Vec<_>>();
        let lists: Vec<Vec<String>> = cases.iter().map(|(_, count)| take(*count)).collect();
        let default = default.map(&mut take);
        let entries = lists.iter().enumerate();
        let mut switch: Vec<Value> =
            entries.map(|(at, ids)| json!({ "when": format!("{{{{ input[{at}] }}}}"), "then": ids })).collect();
        switch.extend(default.iter().map(|ids| json!({ "default": ids })));
        let named: Vec<&String> = lists.iter().chain(&default).flatten().collect();
        let mut steps = vec![json!({ "id": "route", "switch": switch, "match": if all { "all" } else { "first" } })];
        steps.extend(named.iter().map(|id| json!({ "id": id, "tool": "echo" })));
        let plan = plan(&json!({ "name": "w", "steps": steps }).to_string());

        let holding = lists.iter().zip(&cases).filter(|(_, (holds, _))| *holds).map(|(ids, _)| ids);
        let mut expected: Vec<&String> = holding.take(if all { usize::MAX } else { 1 }).flatten().collect();
        if cases.iter().all(|(holds, _)| !holds) {
            expected.extend(default.iter().flatten());
        }
        let input = Value::from(cases.iter().map(|(holds, _)| *holds).collect::<Vec<_>>()).to_string();
        let output = chosen(&plan, &input);
        prop_assert_eq!(&output, &json!({ "chosen": &expected }));
        let output = output.to_string();
        for (at, id) in (1..).zip(&named) {
            prop_assert_eq!(is_run(&plan, at, &input, Some(output.as_bytes())), expected.contains(id), "{}", id);
        }
    }
}
