//! Failures that lead elsewhere, what is undone, what comes at the end; and what a definition says about its runs.

use serde_json::{Value, json};
use tidemill_workflow::{
    Budget, Decision, Limits, Need, OnFull, Plan, PlanStep, ProblemCode, RunView, Scope, StepView, Template,
};

use crate::{has_problem, plan, problems};

fn rendered(template: &Template, scope: &Scope<'_>) -> Value {
    let text = template.render(scope, &Limits::default()).expect("it renders");
    serde_json::from_slice(&text).expect("it is JSON")
}

fn runs(step: &PlanStep, states: &[(u32, &'static str)]) -> bool {
    let view = |state: &'static str| StepView { state, ..StepView::default() };
    let scope = Scope {
        steps: states.iter().map(|(step, state)| (*step, view(state))).collect(),
        ..Scope::default()
    };
    step.when.as_ref().is_none_or(|when| when.is_true(&scope, &Limits::default()).expect("it is decided"))
}

const SAGA: &str = r#"
name: w
failure: finish
steps:
  - { id: hotel, tool: echo, compensate: { tool: shop.hold, with: { booking: "${ .steps.hotel.output.id }", why: "${ .run.error.code }" }, retry: { max_attempts: 9 }, timeout_ms: 70 } }
  - { id: plain, tool: echo }
  - { id: flight, needs: [hotel], steps: [{ id: seat, tool: echo }], compensate: { tool: echo, with: "{{ steps.hotel.output }}" }, on_error: compensate }
finally:
  - { id: report, tool: echo, with: { state: "${ .run.state }", hotel: "${ .steps.hotel.state }" } }
  - { id: close, tool: echo, when: "{{ steps.report.output }}", with: "${ [.run.state, .run.error.code, .steps.report.output] }" }
"#;

#[test]
fn what_undoes_and_what_ends_stands_behind_the_steps_of_the_run() {
    let plan = plan(SAGA);
    let ids: Vec<&str> = plan.steps.iter().map(|step| &*step.id).collect();
    assert_eq!(ids, ["hotel", "plain", "flight", "hotel!undo", "flight!undo", "report", "close"]);
    assert_eq!((plan.main(), plan.finally.as_slice(), plan.closes()), (3, &[5, 6][..], true));
    assert_eq!(
        plan.steps.iter().map(|step| step.undo).collect::<Vec<_>>(),
        [Some(3), None, Some(4), None, None, None, None]
    );
    assert_eq!((plan.roots(), plan.sinks()), (&[0, 1][..], &[1, 2][..]));
    assert_eq!(plan.step_index("report"), Some(5));
    assert!(plan.steps[3..].iter().all(|step| step.needs.is_empty()));
    assert!((3..7).all(|step| plan.dependents(step).is_empty()));
    assert!(plan.steps[2].compensate_on_error && !plan.steps[0].compensate_on_error);
    let undo = &plan.steps[3];
    assert_eq!((undo.retry.max_attempts, undo.timeout_ms), (Some(9), Some(70)));
    assert!(!crate::plan("name: w\nsteps: [{ id: a, tool: echo }]").closes());
}

#[test]
fn what_undoes_sees_what_was_done_and_why_it_is_undone() {
    let plan = plan(SAGA);
    let run = RunView { state: Some("failed"), error: Some(br#"{"code":"http_500"}"#), ..RunView::default() };
    let hotel = StepView { state: "succeeded", output: Some(br#"{"id":7}"#), error: None };
    let scope = Scope { run, steps: vec![(0, hotel)], ..Scope::default() };
    assert_eq!(rendered(&plan.steps[3].with, &scope), json!({ "booking": 7, "why": "http_500" }));
    assert_eq!(rendered(&plan.steps[4].with, &scope), json!({ "id": 7 }));
    assert_eq!(rendered(&plan.steps[5].with, &scope), json!({ "state": "failed", "hotel": "succeeded" }));
    let reported = StepView { state: "succeeded", output: Some(b"true"), error: None };
    let scope = Scope { run, steps: vec![(5, reported)], ..Scope::default() };
    assert_eq!(rendered(&plan.steps[6].with, &scope), json!(["failed", "http_500", true]));
    assert!(plan.steps[6].when.as_ref().unwrap().is_true(&scope, &Limits::default()).unwrap());
    assert_eq!(plan.steps[6].references().steps, [5]);
}

#[test]
fn a_block_undoes_its_own_steps() {
    let plan = plan(
        "name: w\nsteps:\n  - { id: a, tool: echo }\n  - id: b\n    needs: [a]\n    steps:\n      \
         - { id: c, tool: echo, compensate: { tool: echo, with: \"${ [.steps.c.output, .steps.a.output] }\" } }\n",
    );
    let block = plan.block("b").unwrap();
    assert_eq!((block.main(), block.steps.len(), block.steps[0].undo), (1, 2, Some(1)));
    let outer = br#"{"a":{"state":"succeeded","output":1,"error":null}}"#;
    let done = StepView { state: "succeeded", output: Some(b"2"), error: None };
    let scope = Scope { steps: vec![(0, done)], locals: vec![("outer", outer)], ..Scope::default() };
    assert_eq!(rendered(&block.steps[1].with, &scope), json!([2, 1]));
    assert_eq!(plan.steps[1].references().steps, [0], "what undoes in it reads the step around it, too");
}

#[test]
fn the_end_of_a_run_is_known_at_its_end_only() {
    for (step, column) in [
        ("{ id: b, tool: echo, with: \"${ .run.state }\" }", 26),
        ("{ id: b, tool: echo, with: \"${ .run.error.code }\" }", 26),
        ("{ id: b, tool: echo, with: \"{{ run.state }}\" }", 26),
    ] {
        has_problem(
            &format!("name: w\nsteps:\n  - {step}\n"),
            ProblemCode::BadExpression,
            (3, column),
            "exists only in `compensate` and `finally`",
        );
    }
}

#[test]
fn an_undo_sees_no_step_that_may_not_have_ended() {
    let text = "name: w\nsteps:\n  - { id: a, tool: echo, compensate: { tool: echo, with: \"${ .steps.b.output }\" } }\n  \
                - { id: b, tool: echo }\n";
    has_problem(text, ProblemCode::NotUpstream, (3, 52), "step `b` need not have ended");
    let text = "name: w\nsteps: [{ id: a, tool: echo }]\nfinally:\n  - { id: b, tool: echo, with: \"${ .steps.c.output }\" }\n  \
                - { id: c, tool: echo }\n";
    has_problem(text, ProblemCode::NotUpstream, (4, 26), "step `c` need not have ended");
}

#[test]
fn nothing_waits_for_what_comes_at_the_end() {
    let text = "name: w\nsteps: [{ id: a, tool: echo, needs: [end] }]\nfinally: [{ id: end, tool: echo }]\n";
    has_problem(text, ProblemCode::UnknownNeed, (2, 38), "there is no step `end`");
    let text =
        "name: w\nsteps: [{ id: a, switch: [{ default: [end] }] }]\nfinally: [{ id: end, tool: echo }]\n";
    has_problem(text, ProblemCode::UnknownStepReference, (2, 39), "there is no step `end`");
}

#[test]
fn what_comes_at_the_end_calls_tools_one_by_one() {
    for (members, message) in [
        ("wait: { for_ms: 5 }", "`wait` is not possible in `finally`"),
        ("tool: echo, needs: [a]", "`needs` is not possible in `finally`"),
        ("tool: echo, on_error: continue", "`on_error` is not possible"),
        ("workflow: other", "`workflow` is not possible"),
        ("tool: echo, for_each: [1]", "`for_each` is not possible"),
        ("tool: echo, compensate: { tool: echo }", "`compensate` is not possible"),
    ] {
        let problems = problems(&format!(
            "name: w\nsteps: [{{ id: a, tool: echo }}]\nfinally: [{{ id: b, {members} }}]\n"
        ));
        assert!(problems.iter().any(|problem| problem.message.contains(message)), "{members}: {problems}");
    }
    has_problem(
        "name: w\nsteps: [{ id: a, tool: echo }]\nfinally: [{ id: b, tool: ehco }]\n",
        ProblemCode::UnknownTool,
        (3, 20),
        "did you mean `echo`?",
    );
    has_problem(
        "name: w\nsteps: [{ id: a, tool: echo, compensate: { tool: ehco } }]\n",
        ProblemCode::UnknownTool,
        (2, 44),
        "did you mean `echo`?",
    );
    has_problem(
        "name: w\nsteps: [{ id: a, tool: echo, compensate: { tool: sleep } }]\n",
        ProblemCode::BadToolInput,
        (2, 30),
        "does not fit the input of `sleep`",
    );
}

const DETOUR: &str = r#"
name: w
steps:
  - { id: pay, tool: echo, on_error: { goto: invoice } }
  - { id: ship, tool: echo, needs: [pay] }
  - { id: invoice, tool: echo, when: "${ .input.company }" }
  - { id: thank, tool: echo, needs: [ship, invoice] }
  - { id: log, tool: echo, needs: [pay, invoice] }
  - { id: either, tool: echo, needs: [pay, ship], join: any }
"#;

fn detour() -> Plan {
    plan(DETOUR)
}

#[test]
fn a_failure_leads_to_another_step() {
    let plan = detour();
    let invoice = &plan.steps[2];
    assert_eq!((invoice.needs.as_slice(), invoice.rescues.as_slice()), (&[0][..], &[0][..]));
    assert_eq!(plan.roots(), [0]);
    assert!(plan.steps[0].continue_on_error);
    assert_eq!(invoice.decide(&[Need::Continued]), Decision::Run);
    assert_eq!(invoice.when.as_ref().and_then(|when| when.source()), Some(".input.company"));
    let asked = |state: &'static str, input: &'static [u8]| {
        let scope =
            Scope { input, steps: vec![(0, StepView { state, ..StepView::default() })], ..Scope::default() };
        invoice.when.as_ref().unwrap().is_true(&scope, &Limits::default()).unwrap()
    };
    assert!(asked("failed", br#"{"company":true}"#) && asked("timed_out", br#"{"company":true}"#));
    assert!(!asked("failed", br#"{"company":false}"#), "its own condition counts, too");
    assert!(!asked("succeeded", b"{}"), "its own condition is not even asked");
    assert!(!asked("skipped", b"{}"));
}

#[test]
fn steps_behind_the_failed_one_are_passed_by_unless_the_detour_leads_to_them() {
    let plan = detour();
    let ship = &plan.steps[1];
    assert!(runs(ship, &[(0, "succeeded")]) && runs(ship, &[(0, "skipped")]));
    assert!(!runs(ship, &[(0, "failed")]) && !runs(ship, &[(0, "timed_out")]));
    for behind in ["thank", "log"] {
        let step = plan.step(plan.step_index(behind).unwrap()).unwrap();
        assert!(runs(step, &[(0, "failed"), (2, "succeeded")]), "{behind} lies behind the detour");
    }
    let either = plan.step(5).unwrap();
    assert!(either.when.is_none(), "it goes by successes, whenever they come");
    assert_eq!(either.decide(&[Need::Continued, Need::Skipped]), Decision::Skip);
    assert_eq!(either.decide(&[Need::Continued, Need::Succeeded]), Decision::Run);
}

#[test]
fn several_failures_can_lead_to_one_step() {
    let plan = plan(
        "name: w\nsteps:\n  - { id: a, tool: echo, on_error: { goto: c } }\n  - { id: b, tool: echo, on_error: { goto: c } }\n  \
         - { id: c, tool: echo }\n",
    );
    let c = &plan.steps[2];
    assert_eq!(c.rescues, [0, 1]);
    assert!(runs(c, &[(0, "failed"), (1, "succeeded")]) && runs(c, &[(0, "succeeded"), (1, "failed")]));
    assert!(!runs(c, &[(0, "succeeded"), (1, "succeeded")]));
}

#[test]
fn a_failure_leads_forward_to_a_step_of_its_own() {
    for (steps, code, place, message) in [
        (
            "  - { id: a, tool: echo }\n  - { id: b, tool: echo, needs: [a], on_error: { goto: a } }\n",
            ProblemCode::Cycle,
            (4, 50),
            "step `a` comes before this one; to run something again, use `repeat`",
        ),
        (
            "  - { id: a, tool: echo, on_error: { goto: bb } }\n  - { id: b, tool: echo }\n",
            ProblemCode::UnknownStepReference,
            (3, 38),
            "did you mean `b`?",
        ),
        (
            "  - { id: a, tool: echo, on_error: { goto: c } }\n  - { id: s, switch: [{ default: [c] }] }\n  - { id: c, tool: echo }\n",
            ProblemCode::DuplicateChoice,
            (3, 38),
            "is chosen by a switch already",
        ),
        (
            "  - { id: a, tool: echo, on_error: { goto: c } }\n  - { id: b, tool: echo }\n  - { id: c, tool: echo, needs: [a, b], join: any }\n",
            ProblemCode::BadValue,
            (5, 41),
            "waits for all of its needs",
        ),
    ] {
        has_problem(&format!("name: w\nsteps:\n{steps}"), code, place, message);
    }
    let circle = "name: w\nsteps:\n  - { id: a, tool: echo, needs: [d], on_error: { goto: b } }\n  - { id: b, tool: echo }\n  \
                  - { id: c, tool: echo, on_error: { goto: d } }\n  - { id: d, tool: echo, needs: [b] }\n";
    assert!(problems(circle).has(ProblemCode::Cycle));
}

#[test]
fn what_holds_for_a_whole_run_is_part_of_the_plan() {
    let plan = plan(
        "name: w\ntimeout_ms: 9000\nlabels: { customer: \"${ .input.customer }\", team: billing, tier: 2, run: \"{{ run.id }}\" }\n\
         group: { key: \"order-${ .input.order }\", limit: 2, on_full: cancel_older }\n\
         budget: { steps: 500, cost: 2.5, duration_ms: 8000 }\nmode: classic\nsteps: [{ id: a, tool: echo }]\n",
    );
    let run = RunView { id: "r1", ..RunView::default() };
    let scope = Scope { input: br#"{"customer":"acme","order":7}"#, run, ..Scope::default() };
    let labels: Vec<(&str, Value)> =
        plan.labels.iter().map(|(name, value)| (name.as_str(), rendered(value, &scope))).collect();
    assert_eq!(
        labels,
        [("customer", json!("acme")), ("team", json!("billing")), ("tier", json!(2)), ("run", json!("r1"))]
    );
    let group = plan.group.as_ref().expect("it has one");
    assert_eq!(
        (rendered(&group.key, &scope), group.limit, group.on_full),
        (json!("order-7"), 2, OnFull::CancelOlder)
    );
    let budget = Budget { steps: Some(500), cost_micros: Some(2_500_000), duration_ms: Some(8_000) };
    assert_eq!((plan.budget, plan.timeout_ms), (Some(budget), Some(8_000)));
    assert_eq!(plan.mode.as_deref(), Some("classic"));
}

#[test]
fn what_cannot_hold_for_a_run_is_refused() {
    for (member, code, message) in [
        ("labels: [a]", ProblemCode::BadValue, "must be an object of labels"),
        ("labels: { \"a b\": x }", ProblemCode::BadValue, "is no name of a label"),
        ("labels: { a: [1] }", ProblemCode::BadValue, "must be a text, a number or a boolean"),
        (
            "labels: { a: \"${ .steps.a.output }\" }",
            ProblemCode::UnknownStepReference,
            "there is no step `a`",
        ),
        ("group: { key: x }", ProblemCode::MissingMember, "`limit` is missing"),
        ("group: { key: x, limit: 0 }", ProblemCode::BadValue, "from 1 to 1000000"),
        ("group: { key: x, limit: 1, on_full: drop }", ProblemCode::BadValue, "must be one of queue"),
        ("group: { key: \"${ .inptu }\", limit: 1 }", ProblemCode::BadExpression, "did you mean `.input`?"),
        ("budget: { cost: 0 }", ProblemCode::BadValue, "must be a number from 0.000001"),
        ("budget: { time: 5 }", ProblemCode::UnknownMember, "`time` is not known here"),
        ("mode: fast", ProblemCode::BadValue, "must be one of classic, state_machine, optimized, hybrid"),
    ] {
        let problems = problems(&format!("name: w\n{member}\nsteps: [{{ id: a, tool: echo }}]\n"));
        let first = problems.iter().next().expect("there is a problem");
        assert_eq!((problems.len(), first.code, first.line), (1, code, 2), "{member}: {problems}");
        assert!(first.message.contains(message), "{member}: {first}");
    }
}

#[test]
fn names_of_a_place_are_refused_elsewhere_with_a_hint() {
    for (expression, message) in [
        ("${ .iteration }", "`.iteration` exists only in a step with `repeat`"),
        ("${ .previous.x }", "`.previous` exists only in a step with `repeat`"),
        ("${ .feedback }", "`.feedback` exists only in the step that an approval is `of`"),
        ("${ .output.x }", "elsewhere it is `.steps.ID.output`"),
        ("${ .index }", "do not exist outside of `for_each`"),
    ] {
        has_problem(
            &format!("name: w\nsteps:\n  - {{ id: a, tool: echo, with: \"{expression}\" }}\n"),
            ProblemCode::BadExpression,
            (3, 26),
            message,
        );
    }
    // in braces such a name is somebody else's where it means nothing of ours
    let plan = plan("name: w\nsteps: [{ id: a, tool: echo, with: \"{{ output }} {{ feedback.x }}\" }]\n");
    assert_eq!(plan.steps[0].with.constant(), Some(&br#""{{ output }} {{ feedback.x }}""#[..]));
}
