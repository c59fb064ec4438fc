use serde_json::{Value, json};
use tidemill_protocol::RunState;

use super::bench::ended;
use super::{Bench, block, step, template, workflow};
use crate::orchestrate::{Event, Then, anew, begins_anew, open_children};
use crate::plan::{Action, Branch, Child, ForEach, PlanStep, Tolerance};

fn each(child: Child, items: &Value, (concurrency, tolerate): (u32, Tolerance)) -> PlanStep {
    let for_each = ForEach { items: template(items), concurrency, batch: 0, tolerate };
    PlanStep {
        for_each: Some(for_each),
        ..step(Action::Child(child), &json!({ "x": "${ .item }", "at": "${ .index }" }))
    }
}

fn race(branches: &[(&str, Value)]) -> PlanStep {
    let branches = branches.iter().map(|(id, with)| Branch {
        id: (*id).into(),
        child: block(&format!("s/{id}")),
        with: template(with),
    });
    step(Action::Race(branches.collect()), &json!({}))
}

fn two_vendors() -> PlanStep {
    race(&[("slow", json!({ "of": "${ .input.order }" })), ("fast", json!({}))])
}

#[test]
fn a_child_s_output_is_the_step_s() {
    let mut child = block("s");
    child.outer = Some(template(&json!({ "draft": "${ .steps.draft }" })));
    let mut bench = Bench::begun(step(Action::Child(child), &json!("${ .input }")));
    let draft = json!({ "state": "succeeded", "output": { "text": "v1" }, "error": null });
    assert_eq!(bench.last_child(), (json!({ "order": 42 }), json!({ "outer": { "draft": draft } })));
    assert_eq!((bench.keys(), bench.why.as_str()), (vec!["0"], "waits for run r~s.0"));
    bench.mail = vec![ended("1", RunState::Failed, ""), Event::Due { generation: 1 }];
    assert_eq!(bench.look().then, Then::Wait, "what it does not know means nothing");
    bench.mail = vec![ended("0", RunState::Succeeded, "[1]"), ended("0", RunState::Failed, "")];
    bench.look();
    assert_eq!(bench.output(), json!([1]), "a run ends once");
}

#[test]
fn a_child_that_did_not_succeed_fails_the_step() {
    for state in
        RunState::ALL.into_iter().filter(|state| state.is_terminal() && *state != RunState::Succeeded)
    {
        let mut bench = Bench::begun(step(Action::Child(workflow("w")), &json!({})));
        bench.ended("0", state, "");
        let told = format!("run r~s.0 ended {}: it broke", state.as_str());
        assert_eq!(bench.failure(), ("failed", "broken", told.as_str()));
    }
    let mut bench = Bench::begun(step(Action::Child(workflow("w")), &json!({})));
    bench.mail.push(Event::Ended {
        child: "0".to_owned(),
        state: RunState::Cancelled,
        output: None,
        error: None,
    });
    bench.look();
    assert_eq!(bench.failure(), ("failed", "child_failed", "run r~s.0 ended cancelled"));
}

#[test]
fn a_child_without_output_gives_null() {
    let mut bench = Bench::begun(step(Action::Child(workflow("w")), &json!({})));
    bench.succeeded("0", "");
    assert_eq!(bench.output(), Value::Null);
}

#[test]
fn a_detached_child_is_started_and_left_alone() {
    let child = Child { detached: true, ..workflow("w@2") };
    let mut bench = Bench::begun(PlanStep { timeout_ms: Some(1), ..step(Action::Child(child), &json!({})) });
    assert!(bench.asked[0].detached && bench.open.is_empty());
    bench.ring();
    assert_eq!(bench.output(), json!({ "id": "r~s.0" }));
}

#[test]
fn a_child_that_takes_too_long_is_cancelled() {
    let mut bench =
        Bench::begun(PlanStep { timeout_ms: Some(500), ..step(Action::Child(workflow("w")), &json!({})) });
    bench.now_ms = 1_499;
    assert_eq!(bench.look().alarm.map(|alarm| alarm.at_ms), Some(1_500));
    bench.ring();
    assert_eq!(bench.failure(), ("timed_out", "timeout", "did not end within 500 ms (timeout_ms)"));
    assert_eq!(bench.cancelled, ["0"]);
}

#[test]
fn an_end_that_came_counts_more_than_a_time_that_has_passed() {
    let mut bench =
        Bench::begun(PlanStep { timeout_ms: Some(500), ..step(Action::Child(workflow("w")), &json!({})) });
    bench.mail.push(ended("0", RunState::Succeeded, "1"));
    bench.ring();
    assert_eq!(bench.output(), json!(1));
}

#[test]
fn the_first_branch_that_succeeds_wins_and_the_others_are_cancelled() {
    let mut bench = Bench::begun(two_vendors());
    assert_eq!(bench.keys(), ["slow", "fast"]);
    assert_eq!(bench.asked[0].input, br#"{"of":42}"#);
    bench.succeeded("fast", "9");
    assert_eq!(bench.output(), json!({ "winner": "fast", "output": 9 }));
    assert_eq!(bench.cancelled, ["slow"]);
}

#[test]
fn a_loser_does_not_end_the_race_until_all_lost() {
    let mut bench = Bench::begun(two_vendors());
    bench.failed("slow");
    assert_eq!(bench.why, "waits for the first of fast to succeed");
    bench.failed("slow");
    bench.ended("fast", RunState::TimedOut, "");
    let told = "no branch succeeded; slow: run r~s.slow ended failed: it broke; fast: run r~s.fast ended timed_out: it broke";
    assert_eq!(bench.failure(), ("failed", "race_lost", told));
}

#[test]
fn of_two_that_are_found_to_have_won_the_first_of_the_definition_wins() {
    let mut bench = Bench::begun(two_vendors());
    bench.mail = vec![ended("fast", RunState::Succeeded, "1"), ended("slow", RunState::Succeeded, "2")];
    bench.look();
    assert_eq!(bench.output(), json!({ "winner": "slow", "output": 2 }));
    assert!(bench.cancelled.is_empty());
}

#[test]
fn a_branch_that_cannot_begin_has_lost() {
    let mut bench = Bench::begun(race(&[("bad", json!("${ error(\"no\") }")), ("good", json!(1))]));
    assert_eq!(bench.keys(), ["good"]);
    bench.succeeded("good", "1");
    assert_eq!(bench.output()["winner"], "good");
    let bench = Bench::begun(race(&[("bad", json!("${ error(\"no\") }"))]));
    assert_eq!(bench.failure().1, "race_lost");
}

#[test]
fn one_at_a_time_the_next_branch_begins_when_the_one_before_has_lost() {
    let mut bench = Bench::begun(PlanStep { one_at_a_time: true, ..two_vendors() });
    assert_eq!(bench.keys(), ["slow"]);
    bench.failed("slow");
    assert_eq!(bench.keys(), ["slow", "fast"]);
    bench.succeeded("fast", "1");
    assert_eq!(bench.output(), json!({ "winner": "fast", "output": 1 }));
}

#[test]
fn items_are_run_so_many_at_once_and_gathered_in_order() {
    let step = each(block("s"), &json!([10, 11, 12, 13, 14]), (2, Tolerance::Count(0)));
    let mut bench = Bench::begun(step);
    assert_eq!(bench.keys(), ["0", "1"]);
    assert_eq!(bench.why, "0 of 5 items have ended, 2 are under way");
    bench.succeeded("1", "\"b\"");
    assert_eq!(bench.last_child(), (json!({ "x": 12, "at": 2 }), json!({ "item": 12, "index": 2 })));
    bench.mail = vec![ended("2", RunState::Succeeded, "\"c\""), ended("0", RunState::Succeeded, "\"a\"")];
    bench.look();
    assert_eq!(bench.keys(), ["0", "1", "2", "3", "4"]);
    bench.succeeded("4", "\"e\"");
    bench.succeeded("3", "");
    assert_eq!(bench.output(), json!(["a", "b", "c", null, "e"]));
}

#[test]
fn no_items_are_done_at_once() {
    let bench = Bench::begun(each(workflow("w"), &json!([]), (2, Tolerance::Count(0))));
    assert_eq!((bench.output(), bench.end), (json!([]), Some(Then::Gather { total: 0 })));
}

#[test]
fn batches_are_items_of_several() {
    let mut step = each(block("s"), &json!([1, 2, 3]), (9, Tolerance::Count(0)));
    step.for_each.as_mut().unwrap().batch = 2;
    let mut bench = Bench::begun(step);
    assert_eq!(bench.last_child(), (json!({ "x": [3], "at": 1 }), json!({ "item": [3], "index": 1 })));
    bench.succeeded("0", "12");
    bench.succeeded("1", "3");
    assert_eq!(bench.output(), json!([12, 3]));
}

#[test]
fn so_many_items_may_fail_and_one_more_ends_the_step() {
    let five = json!([0, 1, 2, 3, 4]);
    for tolerate in [Tolerance::Count(1), Tolerance::Percent(39.0)] {
        let mut bench = Bench::begun(each(block("s"), &five, (2, tolerate)));
        bench.failed("0");
        bench.failed("0");
        bench.failed("1");
        let told =
            "2 of 3 items failed; 1 may (for_each.tolerate); first item 0: run r~s.0 ended failed: it broke";
        assert_eq!(bench.failure(), ("failed", "items_failed", told));
        assert_eq!(bench.cancelled, ["2"], "and what is under way is cancelled");
    }
    let mut bench = Bench::begun(each(block("s"), &json!([0, 1]), (2, Tolerance::Percent(50.0))));
    bench.failed("0");
    bench.succeeded("1", "1");
    assert_eq!(bench.output(), json!([null, 1]));
}

#[test]
fn an_item_whose_input_cannot_be_made_has_failed() {
    let mut step = each(block("s"), &json!([0, 1]), (2, Tolerance::Count(1)));
    step.with = template(&json!("${ if .item == 0 then error(\"no\") else .item end }"));
    let mut bench = Bench::begun(step);
    assert_eq!(bench.keys(), ["1"]);
    bench.succeeded("1", "1");
    assert_eq!(bench.output(), json!([null, 1]));
}

#[test]
fn many_items_make_no_large_memo_and_a_wide_window_opens_in_parts() {
    let items = json!("${ [range(0; 3000)] }");
    let mut bench = Bench::begun(each(block("s"), &items, (500, Tolerance::Count(0))));
    let mut started = vec![bench.open.len()];
    while bench.open.len() < 500 {
        bench.ring();
        started.push(bench.open.len());
    }
    assert_eq!(started, [200, 400, 500]);
    while bench.end.is_none() {
        let memo = bench.memo.as_ref().unwrap();
        assert!(memo.len() < 500 * 8 + 200, "{} bytes", memo.len());
        assert_eq!(open_children(memo).len(), bench.open.len());
        let some: Vec<String> = bench.open.iter().take(90).cloned().collect();
        bench.mail = some.iter().map(|key| ended(key, RunState::Succeeded, key)).collect();
        bench.look();
    }
    assert_eq!(bench.output(), (0..3000).collect::<Value>());
}

#[test]
fn detached_items_are_all_started_and_none_is_waited_for() {
    let child = Child { detached: true, ..workflow("w") };
    let mut bench = Bench::begun(each(child, &json!("${ [range(0; 450)] }"), (200, Tolerance::Count(0))));
    while bench.end.is_none() {
        bench.ring();
    }
    assert_eq!(bench.asked.len(), 450);
    assert_eq!((bench.output()[449].clone(), bench.looks), (json!({ "id": "r~s.449" }), 4));
}

#[test]
fn an_item_that_is_gone_fails_the_step() {
    let mut bench = Bench::begun(each(block("s"), &json!([0, 1]), (1, Tolerance::Count(5))));
    bench.forget_items();
    bench.succeeded("0", "1");
    assert_eq!(bench.failure(), ("failed", "lost_item", "item 1 is not in Redis any more"));
}

#[test]
fn a_step_that_is_begun_anew_has_other_children() {
    let mut bench = Bench::begun(two_vendors());
    bench.failed("slow");
    let before = bench.memo.clone();
    for round in 1..=2 {
        let asked = bench.asked.len();
        bench.memo = Some(anew(bench.memo.as_deref()));
        assert_eq!(bench.memo.as_deref().and_then(begins_anew), Some(round));
        bench.open.clear();
        bench.look();
        let keys = [format!("slow-{round}"), format!("fast-{round}")];
        assert_eq!(&bench.keys()[asked..], keys);
        assert_eq!(bench.memo.as_deref().and_then(begins_anew), None);
    }
    bench.mail = vec![ended("fast", RunState::Succeeded, "1"), ended("slow-1", RunState::Succeeded, "1")];
    assert_eq!(bench.look().then, Then::Wait, "those of before mean nothing");
    bench.succeeded("fast-2", "2");
    assert_eq!(bench.output(), json!({ "winner": "fast", "output": 2 }));
    assert_eq!(bench.cancelled, ["slow-2"]);
    assert_eq!(anew(None), anew(before.as_deref()));
}

#[test]
fn items_that_are_begun_anew_are_kept_by_their_index() {
    let mut bench = Bench::new(each(block("s"), &json!([7, 8]), (1, Tolerance::Count(0))));
    bench.memo = Some(anew(None));
    bench.look();
    bench.succeeded("0-1", "1");
    bench.succeeded("1-1", "2");
    assert_eq!(bench.output(), json!([1, 2]));
}
