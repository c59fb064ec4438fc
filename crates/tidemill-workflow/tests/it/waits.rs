//! Waiting for times, signals and people.

use serde_json::{Value, json};
use tidemill_workflow::{
    Action, Approval, ChildTarget, Limits, OnReject, OnTimeout, Plan, ProblemCode, Scope, StepView, Wait,
};

use crate::{has_problem, plan, problems};

fn waiting(wait: &str) -> Plan {
    plan(&format!("name: w\nsteps:\n  - {{ id: a, wait: {wait} }}\n"))
}

fn approval(plan: &Plan, index: usize) -> &Approval {
    match &plan.steps[index].action {
        Action::Approval(approval) => approval,
        other => panic!("no approval: {other:?}"),
    }
}

#[test]
fn a_step_waits_for_a_time() {
    let for_ms = waiting("{ for_ms: 1500 }");
    assert!(matches!(&for_ms.steps[0].action, Action::Wait(Wait::For(ms)) if ms.constant() == Some(b"1500")));
    assert!(for_ms.steps[0].is_orchestrated() && for_ms.waits());
    let computed = waiting("{ for_ms: \"${ .input.ms * 2 }\" }");
    assert!(computed.steps[0].references().input);
    for until in [
        "until: \"2030-01-01T00:00:00Z\"",
        "until: \"2030-01-01T00:00:00+01:00\"",
        "until: \"2030-01-01T09:00\", time_zone: Europe/Berlin",
        "until: \"2030-01-01 09:00:30\", time_zone: America/Sao_Paulo",
        "until: \"${ .input.at }\"",
        "until: \"{{ input.at }}\", time_zone: UTC",
    ] {
        let plan = waiting(&format!("{{ {until} }}"));
        assert!(matches!(&plan.steps[0].action, Action::Wait(Wait::Until { .. })), "{until}");
    }
}

#[test]
fn a_step_waits_for_a_signal() {
    let plan = waiting(
        "{ signal: paid.v1, schema: { type: object, required: [sum] }, timeout_ms: 60000, on_timeout: continue }",
    );
    let Action::Wait(Wait::Signal(signal)) = &plan.steps[0].action else { panic!("it waits for a signal") };
    assert_eq!(
        (signal.name.as_str(), signal.timeout_ms, signal.continue_on_timeout),
        ("paid.v1", Some(60_000), true)
    );
    let schema = signal.schema.as_ref().expect("it has one");
    assert!(schema.check(&json!({ "sum": 1 })).is_ok() && schema.check(&json!({})).is_err());
    let plain = waiting("{ signal: go }");
    let Action::Wait(Wait::Signal(signal)) = &plain.steps[0].action else { panic!("it waits for a signal") };
    assert!(signal.schema.is_none() && signal.timeout_ms.is_none() && !signal.continue_on_timeout);
}

#[test]
fn a_tool_is_called_and_then_waited_for() {
    let plan = plan(
        "name: w\nsteps:\n  - { id: a, tool: http.request, with: { url: \"https://x/?reply=${ .run.id }\" }, wait: { signal: reply } }\n  \
         - { id: b, tool: http.request, with: { url: \"https://x\" }, wait: { for_ms: \"${ .output.retry_after_ms }\" } }\n",
    );
    let a = &plan.steps[0];
    assert!(matches!(a.action, Action::Tool { .. }) && a.is_orchestrated());
    assert!(matches!(&a.then_wait, Some(Wait::Signal(signal)) if signal.name == "reply"));
    let Some(Wait::For(ms)) = &plan.steps[1].then_wait else { panic!("it waits for a time") };
    let scope = Scope { locals: vec![("output", br#"{"retry_after_ms":70}"#)], ..Scope::default() };
    assert_eq!(ms.render(&scope, &Limits::default()).unwrap(), b"70");
}

#[test]
fn waits_that_cannot_end_well_are_refused() {
    for (wait, code, message) in [
        ("{}", ProblemCode::MissingMember, "`for_ms` is missing, or one of `until` and `signal`"),
        ("{ for_ms: soon }", ProblemCode::BadValue, "must be a whole number"),
        ("{ for_ms: -1 }", ProblemCode::BadValue, "must be a whole number"),
        ("{ for_ms: 1, signal: go }", ProblemCode::BadValue, "`signal` has no meaning beside `for_ms`"),
        (
            "{ for_ms: 1, time_zone: UTC }",
            ProblemCode::BadValue,
            "`time_zone` has no meaning beside `for_ms`",
        ),
        ("{ signal: go, until: x }", ProblemCode::BadValue, "`signal` has no meaning beside `until`"),
        ("{ until: tomorrow }", ProblemCode::BadValue, "`tomorrow` is no time"),
        ("{ until: \"2030-01-01T09:00\" }", ProblemCode::BadValue, "says no offset"),
        ("{ until: \"2030-13-01T09:00Z\" }", ProblemCode::BadValue, "is no time"),
        (
            "{ until: \"2030-01-01T09:00\", time_zone: Europe/Berln }",
            ProblemCode::BadValue,
            "did you mean `Europe/Berlin`?",
        ),
        ("{ signal: \"a b\" }", ProblemCode::BadValue, "is no valid name"),
        ("{ signal: go, schema: { type: nothing } }", ProblemCode::BadSchema, "is not a valid JSON Schema"),
        ("{ signal: go, on_timeout: fail }", ProblemCode::BadValue, "has no meaning without `timeout_ms`"),
        ("{ for: 5 }", ProblemCode::MissingMember, "`for_ms` is missing"),
    ] {
        let problems = problems(&format!("name: w\nsteps:\n  - {{ id: a, wait: {wait} }}\n"));
        assert!(
            problems.iter().any(|problem| problem.code == code && problem.message.contains(message)),
            "{wait}: {problems}"
        );
    }
}

const REVIEW: &str = r#"
name: w
steps:
  - { id: topic, tool: echo }
  - id: draft
    needs: [topic]
    tool: llm.chat
    with: { prompt: "Write about ${ .steps.topic.output }. ${ .feedback // \"\" }", last: "${ .previous }", round: "${ .iteration }" }
    retry: { max_attempts: 4 }
    queue: gpu
    compensate: { tool: echo }
  - id: review
    needs: [draft]
    approval:
      of: draft
      who: [editor, ann]
      prompt: "Round {{ iteration }}: {{ previous.text }}"
      remind: { every_ms: 60000, tool: http.request, with: { url: "https://chat/?q=${ .steps.topic.output }" } }
      timeout_ms: 3600000
      on_timeout: reject
      max_iterations: 5
  - { id: publish, tool: echo, needs: [review], with: "${ .steps.review.output.output }" }
"#;

#[test]
fn an_approval_can_have_its_subject_made_again() {
    let plan = plan(REVIEW);
    let review = approval(&plan, 2);
    assert_eq!((review.of, review.max_iterations, review.timeout_ms), (Some(1), 5, Some(3_600_000)));
    assert_eq!((review.on_timeout, review.on_reject), (OnTimeout::Reject, OnReject::Revise));
    assert_eq!(review.who, ["editor", "ann"]);
    let revise = review.revise.as_ref().expect("it can be revised");
    assert_eq!(revise.target, ChildTarget::Block("review/revise".into()));
    assert_eq!(revise.locals, ["feedback", "iteration", "previous"]);
    let block = plan.block("review/revise").expect("it exists");
    let again = &block.steps[0];
    assert_eq!((&*again.id, again.needs.len(), again.retry.max_attempts), ("draft", 0, Some(4)));
    assert_eq!((block.queue.as_str(), block.closes()), ("gpu", false));
    let outer = br#"{"topic":{"state":"succeeded","output":"tides","error":null}}"#;
    let scope = Scope {
        locals: vec![
            ("outer", outer),
            ("feedback", b"\"Shorter.\""),
            ("previous", b"{}"),
            ("iteration", b"2"),
        ],
        ..Scope::default()
    };
    let with = again.with.render(&scope, &Limits::default()).unwrap();
    let with: Value = serde_json::from_slice(&with).unwrap();
    assert_eq!(with, json!({ "prompt": "Write about tides. Shorter.", "last": {}, "round": 2 }));
}

#[test]
fn what_an_approval_is_of_runs_without_feedback_at_first() {
    let plan = plan(REVIEW);
    let scope = Scope {
        steps: vec![(0, StepView { state: "succeeded", output: Some(b"\"tides\""), error: None })],
        ..Scope::default()
    };
    let with = plan.steps[1].with.render(&scope, &Limits::default()).unwrap();
    let with: Value = serde_json::from_slice(&with).unwrap();
    assert_eq!(with, json!({ "prompt": "Write about tides. ", "last": null, "round": null }));
    assert!(!plan.steps[1].is_orchestrated(), "it is a plain call");
}

#[test]
fn an_approval_reads_what_it_asks_about_and_what_its_blocks_need() {
    let plan = plan(REVIEW);
    let references = plan.steps[2].references();
    assert_eq!(references.steps, [0, 1]);
    assert!(references.input, "the blocks get the run's input");
    let review = approval(&plan, 2);
    let scope = Scope {
        steps: vec![(1, StepView { state: "succeeded", output: Some(br#"{"text":"t"}"#), error: None })],
        locals: vec![("iteration", b"1"), ("previous", br#"{"text":"t"}"#)],
        ..Scope::default()
    };
    let limits = Limits::default();
    assert_eq!(review.subject.as_ref().unwrap().render(&scope, &limits).unwrap(), br#"{"text":"t"}"#);
    assert_eq!(review.prompt.as_ref().unwrap().render(&scope, &limits).unwrap(), b"\"Round 1: t\"");
    let remind = review.remind.as_ref().unwrap();
    assert_eq!((remind.every_ms, remind.child.detached), (60_000, true));
    assert_eq!(remind.child.target, ChildTarget::Block("review/remind".into()));
    assert!(remind.child.outer.is_some());
    assert_eq!(plan.block("review/remind").map(|block| block.steps.len()), Some(1));
}

#[test]
fn an_approval_of_nothing_has_the_defaults_of_a_question() {
    let plan = plan("name: w\nsteps: [{ id: a, approval: {} }]\n");
    let asked = approval(&plan, 0);
    assert_eq!((asked.of, asked.on_reject, asked.on_timeout), (None, OnReject::Fail, OnTimeout::Fail));
    assert!(asked.subject.is_none() && asked.revise.is_none() && asked.who.is_empty());
}

#[test]
fn a_block_can_be_made_again() {
    let plan = plan(
        "name: w\nsteps:\n  - id: a\n    steps: [{ id: b, tool: echo, with: \"${ .feedback }\" }]\n  \
         - { id: c, needs: [a], approval: { of: a } }\n",
    );
    assert!(plan.block("c/revise").is_some() && plan.block("c/revise/a").is_some());
    let locals = &approval(&plan, 1).revise.as_ref().unwrap().locals;
    assert_eq!(locals, &["feedback"]);
}

#[test]
fn approvals_that_make_no_sense_are_refused() {
    let text = |approval: &str| {
        format!(
            "name: w\nsteps:\n  - {{ id: a, tool: echo }}\n  - {{ id: s, switch: [{{ default: [] }}] }}\n  - {{ id: b, tool: echo }}\n  \
             - id: c\n    needs: [a, s]\n    approval: {approval}\n"
        )
    };
    for (approval, code, message) in [
        ("{ of: aa }", ProblemCode::UnknownStepReference, "did you mean `a`?"),
        ("{ of: b }", ProblemCode::NotUpstream, "step `b` need not have ended by then"),
        ("{ of: c }", ProblemCode::NotUpstream, "step `c` need not have ended by then"),
        ("{ of: s }", ProblemCode::BadValue, "step `s` with `switch` cannot be run again"),
        ("{ on_reject: revise }", ProblemCode::BadValue, "`revise` needs `of`"),
        ("{ max_iterations: 2 }", ProblemCode::BadValue, "has no meaning without `of`"),
        ("{ on_timeout: approve }", ProblemCode::BadValue, "has no meaning without `timeout_ms`"),
        ("{ who: [] }", ProblemCode::BadValue, "leave it out to let anybody decide"),
        ("{ who: [\"\"] }", ProblemCode::BadValue, "1 to 128 bytes"),
        ("{ remind: { tool: echo } }", ProblemCode::MissingMember, "`every_ms` is missing"),
        ("{ remind: { every_ms: 5000, tool: ehco } }", ProblemCode::UnknownTool, "did you mean `echo`?"),
        ("{ remind: { every_ms: 5, tool: echo } }", ProblemCode::BadValue, "from 1000"),
        ("{ of: a, on_reject: retry }", ProblemCode::BadValue, "must be one of fail, continue, revise"),
        ("{ prompt: \"${ .steps.b.output }\" }", ProblemCode::NotUpstream, "step `b`"),
    ] {
        let problems = problems(&text(approval));
        let first = problems.iter().next().expect("there is a problem");
        assert_eq!((problems.len(), first.code), (1, code), "{approval}: {problems}");
        assert!(first.message.contains(message), "{approval}: {first}");
    }
}

#[test]
fn what_is_wrong_with_a_step_that_is_made_again_is_told_once() {
    has_problem(
        "name: w\nsteps:\n  - { id: a, tool: echo, with: \"${ .inptu }\" }\n  - { id: b, needs: [a], approval: { of: a } }\n",
        ProblemCode::BadExpression,
        (3, 26),
        "did you mean `.input`?",
    );
}
