use bytes::Bytes;
use serde_json::{Value, json};

use super::{Bench, block, step, template};
use crate::orchestrate::{Event, Then, may_decide};
use crate::plan::{Action, Approval, OnReject, OnTimeout, PlanStep, Reminder};

fn approval() -> Approval {
    Approval {
        of: Some(0),
        subject: Some(template(&json!("${ .steps.draft.output }"))),
        revise: Some(block("review/revise")),
        who: vec!["alice".to_owned(), "editors".to_owned()],
        prompt: Some(template(&json!("Publish ${ .previous.text? // .previous }?"))),
        remind: None,
        timeout_ms: None,
        on_timeout: OnTimeout::Fail,
        max_iterations: 3,
        on_reject: OnReject::Revise,
    }
}

fn asking(approval: Approval) -> PlanStep {
    step(Action::Approval(Box::new(approval)), &json!({}))
}

fn decision(approve: bool, by: &str, feedback: &str, at_ms: u64) -> Event {
    let feedback = Bytes::copy_from_slice(feedback.as_bytes());
    Event::Decision { approve, by: by.to_owned(), roles: Vec::new(), feedback, at_ms }
}

fn decides(bench: &mut Bench, approve: bool, feedback: &str) -> Then {
    bench.now_ms += 10;
    bench.mail.push(decision(approve, "alice", feedback, bench.now_ms));
    bench.look().then
}

#[test]
fn an_approval_gives_what_was_approved() {
    let mut bench = Bench::begun(asking(approval()));
    assert_eq!(bench.why, "waits for approval by alice, editors (1 of 3): Publish v1?");
    decides(&mut bench, true, "");
    let output = json!({ "approved": true, "by": "alice", "feedback": null, "iterations": 1, "output": { "text": "v1" } });
    assert_eq!(bench.output(), output);
}

#[test]
fn a_rejection_has_it_made_again_with_the_feedback() {
    let mut bench = Bench::begun(asking(approval()));
    decides(&mut bench, false, r#""shorter""#);
    let locals = json!({ "feedback": "shorter", "iteration": 2, "previous": { "text": "v1" } });
    assert_eq!(bench.last_child(), (json!({ "order": 42 }), locals));
    assert_eq!(bench.why, "waits for run r~s.r1, after the rejection of iteration 1");
    bench.succeeded("r1", r#"{"text":"v2"}"#);
    assert_eq!(bench.why, "waits for approval by alice, editors (2 of 3): Publish v2?");
    decides(&mut bench, false, r#"{"tone":"kind"}"#);
    assert_eq!(bench.last_child().1["previous"], json!({ "text": "v2" }));
    bench.succeeded("r2", r#"{"text":"v3"}"#);
    decides(&mut bench, true, r#""thanks""#);
    let output = json!({ "approved": true, "by": "alice", "feedback": "thanks", "iterations": 3, "output": { "text": "v3" } });
    assert_eq!(bench.output(), output);
    assert_eq!(bench.keys(), ["r1", "r2"]);
}

#[test]
fn it_is_asked_so_often_and_not_again() {
    let mut bench = Bench::begun(asking(Approval { max_iterations: 2, ..approval() }));
    decides(&mut bench, false, "null");
    bench.succeeded("r1", "2");
    decides(&mut bench, false, r#""still no""#);
    let told = r#"was rejected by alice, after 2 iterations: "still no""#;
    assert_eq!(bench.failure(), ("failed", "approval_rejected", told));
}

#[test]
fn a_rejection_fails_the_step_or_is_its_output() {
    let mut bench = Bench::begun(asking(Approval { on_reject: OnReject::Fail, ..approval() }));
    assert_eq!(bench.why, "waits for approval by alice, editors: Publish v1?");
    decides(&mut bench, false, "");
    assert_eq!(bench.failure(), ("failed", "approval_rejected", "was rejected by alice"));
    let mut bench = Bench::begun(asking(Approval { on_reject: OnReject::Continue, ..approval() }));
    decides(&mut bench, false, "7");
    let output = json!({ "approved": false, "by": "alice", "feedback": 7, "iterations": 1, "output": { "text": "v1" } });
    assert_eq!(bench.output(), output);
}

#[test]
fn a_decision_that_comes_twice_decides_one_question() {
    let mut bench = Bench::begun(asking(approval()));
    bench.mail = vec![decision(false, "alice", "1", 5_000), decision(false, "alice", "1", 5_000)];
    bench.look();
    assert_eq!(bench.keys(), ["r1"]);
    bench.mail.push(decision(true, "alice", "1", 5_100));
    assert_eq!(bench.look().then, Then::Wait, "nothing is asked now");
    bench.succeeded("r1", "2");
    bench.mail.push(decision(false, "alice", "1", 5_000));
    assert_eq!((bench.look().then, bench.keys()), (Then::Wait, vec!["r1"]));
    assert!(bench.why.contains("(2 of 3)"), "{}", bench.why);
    bench.mail.push(decision(true, "alice", "1", 5_000 + 200));
    bench.look();
    assert_eq!(bench.output()["iterations"], 2);
}

#[test]
fn the_first_who_may_decides() {
    let mut bench = Bench::begun(asking(approval()));
    bench.mail.push(decision(true, "mallory", "", 1_001));
    bench.look();
    assert!(bench.why.contains("; mallory may not decide: Publish v1?"), "{}", bench.why);
    let roles = vec!["editors".to_owned()];
    let by_role =
        Event::Decision { approve: false, by: "eve".to_owned(), roles, feedback: Bytes::new(), at_ms: 1_003 };
    bench.mail = vec![decision(true, "alice", "", 1_004), by_role, decision(true, "mallory", "", 1_002)];
    bench.look();
    assert_eq!(bench.keys(), ["r1"], "eve was first");
}

#[test]
fn who_may_decide_is_named_or_has_a_named_role() {
    let named = approval();
    let roles = |roles: &[&str]| roles.iter().map(|role| (*role).to_owned()).collect::<Vec<_>>();
    assert!(may_decide(&named, "alice", &[]));
    assert!(may_decide(&named, "eve", &roles(&["readers", "editors"])));
    assert!(!may_decide(&named, "eve", &roles(&["readers"])));
    assert!(!may_decide(&named, "Alice", &[]));
    assert!(may_decide(&Approval { who: Vec::new(), ..approval() }, "anybody", &[]));
}

#[test]
fn what_it_means_that_nobody_decides_is_said_before() {
    let bench = |on_timeout, on_reject| {
        let mut bench =
            Bench::begun(asking(Approval { timeout_ms: Some(100), on_timeout, on_reject, ..approval() }));
        bench.ring();
        bench
    };
    let told = "nobody decided within 100 ms";
    assert_eq!(bench(OnTimeout::Fail, OnReject::Revise).failure(), ("timed_out", "approval_timeout", told));
    let output = |approved| json!({ "approved": approved, "by": null, "feedback": null, "iterations": 1, "output": { "text": "v1" } });
    assert_eq!(bench(OnTimeout::Approve, OnReject::Fail).output(), output(true));
    assert_eq!(bench(OnTimeout::Reject, OnReject::Continue).output(), output(false));
    assert_eq!(bench(OnTimeout::Reject, OnReject::Revise).failure().1, "approval_rejected");
}

#[test]
fn each_question_has_its_own_time() {
    let mut bench = Bench::begun(asking(Approval { timeout_ms: Some(100), ..approval() }));
    bench.now_ms = 1_050;
    decides(&mut bench, false, "1");
    assert_eq!(bench.alarm, None, "while it is made again nobody is waited for");
    bench.now_ms = 5_000;
    bench.succeeded("r1", "2");
    assert_eq!(bench.alarm.map(|alarm| alarm.at_ms), Some(5_100));
}

#[test]
fn people_are_reminded_until_they_decide() {
    let remind = Some(Reminder { every_ms: 30, child: block("review/remind") });
    let mut bench = Bench::begun(asking(Approval { remind, timeout_ms: Some(100), ..approval() }));
    bench.ring();
    bench.ring();
    assert_eq!(bench.keys(), ["m1", "m2"]);
    assert!(bench.asked.iter().all(|child| child.detached));
    assert_eq!(
        bench.last_child().1,
        json!({ "feedback": null, "iteration": 1, "previous": { "text": "v1" } })
    );
    assert_eq!(bench.alarm.map(|alarm| alarm.at_ms), Some(1_090));
    bench.now_ms = 1_095;
    decides(&mut bench, false, "1");
    assert_eq!(bench.alarm, None);
    bench.succeeded("r1", "2");
    bench.now_ms = 1_195;
    bench.look();
    assert_eq!(bench.keys(), ["m1", "m2", "r1", "m3"], "one, for three that were missed");
    assert_eq!(bench.alarm.map(|alarm| alarm.at_ms), Some(1_205), "and its deadline comes first");
    bench.ring();
    assert_eq!(bench.failure().1, "approval_timeout");
}

#[test]
fn a_revision_that_failed_fails_the_step() {
    let mut bench = Bench::begun(asking(approval()));
    decides(&mut bench, false, "1");
    bench.failed("r1");
    assert_eq!(bench.failure(), ("failed", "broken", "run r~s.r1 ended failed: it broke"));
}

#[test]
fn what_is_asked_about_nothing_is_a_question_all_the_same() {
    let plain = Approval {
        of: None,
        subject: None,
        revise: None,
        prompt: None,
        who: Vec::new(),
        on_reject: OnReject::Fail,
        ..approval()
    };
    let mut bench = Bench::begun(asking(plain));
    assert_eq!(bench.why, "waits for approval");
    bench.mail.push(decision(true, "anybody", "", 1));
    bench.look();
    assert_eq!(bench.output()["output"], Value::Null);
}
