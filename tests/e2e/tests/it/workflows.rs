use serde_json::json;
use tidemill_protocol::{RunState, StepState};
use tidemill_worker::Settings;

use crate::pool::Pool;

const ORDER: &str = r#"
name: order
input: { type: object, required: [n] }
steps:
  - id: start
    tool: echo
    with: { n: "${ .input.n }" }
  - { id: double, tool: jq.transform, needs: [start], with: { filter: ".n * 2", input: "${ .steps.start.output }" } }
  - { id: square, tool: jq.transform, needs: [start], with: { filter: ".n * .n", input: "${ .steps.start.output }" } }
  - { id: big, tool: echo, needs: [double], when: "${ .steps.double.output > 100 }", with: { big: true } }
  - { id: join, tool: echo, needs: [double, square, big], with: { sum: "${ .steps.double.output + .steps.square.output }", big: "${ .steps.big.output }" } }
output: "${ .steps.join.output }"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_fans_out_decides_and_joins() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    pool.publish(ORDER).await;
    pool.run("order", "small", "{\"n\":3}").await;
    let run = pool.ended("small").await;
    assert_eq!(run.state, RunState::Succeeded);
    assert_eq!(Pool::output(&run), json!({"sum": 15, "big": null}));
    assert_eq!(run.steps[&3].state, StepState::Skipped);
    pool.run("order@1", "large", "{\"n\":60}").await;
    assert_eq!(Pool::output(&pool.ended("large").await), json!({"sum": 3720, "big": {"big": true}}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_step_that_ends_before_others_gives_the_output_nevertheless() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    pool.publish(
        "name: early\nsteps:\n  - { id: quick, tool: echo, with: 1 }\n  - { id: slow, tool: sleep, with: { ms: 200 } }\n  \
         - { id: first, tool: echo, needs: [quick, slow], join: any, with: { of: \"${ .steps.quick.output }\" } }\n",
    )
    .await;
    pool.run("early", "early", "{}").await;
    let run = pool.ended("early").await;
    assert!(run.steps[&2].ended_ms < run.steps[&1].ended_ms, "it did not wait for the slow one");
    assert_eq!(Pool::output(&run), json!({ "of": 1 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_cannot_start_leaves_a_letter() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    pool.publish(ORDER).await;
    pool.run("order", "bad", "{}").await;
    pool.run("nope", "unknown", "{}").await;
    tidemill_testkit::wait_until(crate::pool::LONG, "two letters", async || {
        pool.store.home().letter_count().await.unwrap() == 2
    })
    .await
    .unwrap();
    let letters = pool.store.home().letters(None, 10).await.unwrap();
    assert!(
        letters.iter().any(|letter| letter.reason.contains('n') && letter.code.contains("input")),
        "{letters:?}"
    );
    assert!(letters.iter().any(|letter| letter.reason.contains("nope")), "{letters:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_for_each_keeps_order_and_bounds_its_width() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    pool.publish(
        r#"
name: each
steps:
  - id: all
    tool: jq.transform
    for_each: { items: "${ [range(.input.n)] }", concurrency: 7 }
    with: { filter: ". * 10", input: "${ .item + .index }" }
"#,
    )
    .await;
    pool.run("each", "e1", "{\"n\":300}").await;
    let run = pool.ended("e1").await;
    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
    let output = Pool::output(&run);
    assert_eq!(output.as_array().map(Vec::len), Some(300));
    assert_eq!(output[299], json!(5980));
    pool.run("each", "none", "{\"n\":0}").await;
    assert_eq!(Pool::output(&pool.ended("none").await), json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_fails_fails_the_step_unless_it_is_tolerated() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    for (name, tolerate) in [("strict", 0), ("lenient", 2)] {
        pool.publish(&format!(
            "
name: {name}
steps:
  - id: all
    tool: jq.transform
    for_each: {{ items: \"${{ [1,2,3,4] }}\", concurrency: 2, tolerate: {tolerate} }}
    retry: {{ max_attempts: 1 }}
    with: {{ filter: 'if . == 2 then error(\"two\") else . end', input: \"${{ .item }}\" }}
"
        ))
        .await;
        pool.run(name, name, "{}").await;
    }
    let strict = pool.ended("strict").await;
    assert_eq!(strict.state, RunState::Failed);
    assert!(strict.error.unwrap().contains("items_failed"));
    assert_eq!(Pool::output(&pool.ended("lenient").await), json!([1, null, 3, 4]));
}

const FAILING: &str = r#"
name: NAME
failure: POLICY
steps:
  - { id: bad, tool: jq.transform, retry: { max_attempts: 2, base_ms: 1 }, with: { filter: "error(\"no\")", input: 1 } CONTINUE }
  - { id: after, tool: echo, needs: [bad], with: { error: "${ .steps.bad.error }" } }
  - { id: aside, tool: sleep, with: { ms: 200 } }
  - { id: beyond, tool: echo, needs: [aside], with: 1 }
output: { after: "${ .steps.after.output }", beyond: "${ .steps.beyond.output }" }
"#;

fn failing(name: &str, policy: &str, go_on: &str) -> String {
    FAILING.replace("NAME", name).replace("POLICY", policy).replace("CONTINUE", go_on)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_step_stops_the_run_or_lets_the_rest_finish() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    pool.publish(&failing("fast", "fail_fast", "")).await;
    pool.run("fast", "fast", "{}").await;
    let fast = pool.ended("fast").await;
    assert_eq!(fast.state, RunState::Failed);
    assert!(!fast.steps.contains_key(&1) && !fast.steps.contains_key(&3), "{:?}", fast.steps);

    pool.publish(&failing("slow", "finish", "")).await;
    pool.run("slow", "slow", "{}").await;
    let slow = pool.ended("slow").await;
    assert_eq!(slow.state, RunState::Failed);
    assert_eq!(slow.steps[&1].state, StepState::Skipped);
    assert_eq!(slow.steps[&3].state, StepState::Succeeded);
    assert!(slow.error.unwrap().contains("no"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_may_fail_and_the_run_goes_on_with_its_error() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    pool.publish(&failing("go-on", "fail_fast", ", continue_on_error: true")).await;
    pool.run("go-on", "r", "{}").await;
    let run = pool.ended("r").await;
    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
    assert!(Pool::output(&run)["after"]["error"]["message"].as_str().unwrap().contains("no"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_runs_what_it_chooses_and_skips_the_rest() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    pool.publish(
        r#"
name: route
steps:
  - { id: size, tool: jq.transform, with: { filter: ".n * 2", input: "${ .input }" } }
  - id: choose
    needs: [size]
    switch:
      - { when: "${ .steps.size.output > 100 }", then: [large] }
      - { when: "${ .steps.size.output > 10 }", then: [medium] }
      - { default: [small, tiny] }
  - { id: large, tool: echo, with: large }
  - { id: medium, tool: echo, with: medium }
  - { id: small, tool: echo, with: small }
  - { id: tiny, tool: echo, when: "${ .steps.size.output < 2 }", with: tiny }
  - { id: join, tool: echo, needs: [large, medium, small, tiny], with: "${ [.steps[].output | strings] }" }
output: { chosen: "${ .steps.choose.output.chosen }", ran: "${ .steps.join.output }" }
"#,
    )
    .await;
    for (n, chosen, ran) in [
        (60, json!(["large"]), json!(["large"])),
        (6, json!(["medium"]), json!(["medium"])),
        (5, json!(["small", "tiny"]), json!(["small"])),
        (0, json!(["small", "tiny"]), json!(["small", "tiny"])),
    ] {
        let id = format!("r{n}");
        pool.run("route", &id, &format!("{{\"n\":{n}}}")).await;
        let run = pool.ended(&id).await;
        assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
        assert_eq!(Pool::output(&run), json!({ "chosen": chosen, "ran": ran }));
        assert_eq!(run.steps[&1].state, StepState::Succeeded);
        let skipped = run.steps.values().filter(|step| step.state == StepState::Skipped).count();
        assert_eq!(skipped, 4 - ran.as_array().unwrap().len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_that_was_skipped_or_failed_chooses_nothing() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    pool.publish(
        r#"
name: none
steps:
  - { id: choose, when: "${ .input.wanted }", switch: [{ when: "${ .input.n > 1 }", then: [a] }, { default: [b] }], on_error: continue }
  - { id: a, tool: echo }
  - { id: b, tool: echo }
  - { id: end, tool: echo, needs: [a, b] }
output: "${ [.steps[].state] }"
"#,
    )
    .await;
    for (id, input, states) in [
        ("skipped", "{\"wanted\":false}", json!(["skipped", "skipped", "skipped", "skipped"])),
        ("failed", "{\"wanted\":1}", json!(["failed", "skipped", "skipped", "skipped"])),
        ("chosen", "{\"wanted\":true,\"n\":0}", json!(["succeeded", "skipped", "succeeded", "succeeded"])),
    ] {
        pool.run("none", id, input).await;
        let run = pool.ended(id).await;
        assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
        assert_eq!(Pool::output(&run), states, "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_chooses_among_a_thousand() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    let ids: Vec<String> = (0..1000).map(|n| format!("s{n}")).collect();
    let cases = ids.chunks(500).enumerate();
    let cases: Vec<_> =
        cases.map(|(at, ids)| json!({ "when": format!("${{ .input == {at} }}"), "then": ids })).collect();
    let mut steps = vec![json!({ "id": "choose", "switch": cases })];
    steps.extend(ids.iter().map(|id| json!({ "id": id, "tool": "echo" })));
    steps.push(json!({ "id": "end", "tool": "echo", "needs": ids }));
    pool.publish(&format!("name: wide\nsteps: {}\n", json!(steps))).await;
    pool.run("wide", "r", "1").await;
    let run = pool.ended("r").await;
    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
    let ran = |steps: std::ops::Range<u32>| {
        steps.filter(|step| run.steps[step].state == StepState::Succeeded).count()
    };
    assert_eq!((ran(1..501), ran(501..1001), ran(1001..1002)), (0, 500, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_in_braces_is_followed_or_fails_its_step() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    pool.publish(
        r#"
name: paths
steps:
  - { id: list, tool: jq.transform, with: { filter: "[{y: .}, {y: . + 1}]", input: "{{ input.x }}" } }
  - { id: pick, tool: echo, needs: [list], with: { last: "{{ steps.list.output[-1].y }}", text: "{{ input.x }} and {{ steps.list.output[0].y }}" } }
"#,
    )
    .await;
    pool.run("paths", "there", "{\"x\":4}").await;
    let run = pool.ended("there").await;
    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
    assert_eq!(Pool::output(&run), json!({ "last": 5, "text": "4 and 4" }));
    pool.run("paths", "nowhere", "{}").await;
    let run = pool.ended("nowhere").await;
    assert_eq!(run.state, RunState::Failed);
    let error = run.error.unwrap();
    assert!(error.contains("{{ input.x }}") && error.contains("has no"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_whose_condition_fails_fails_the_run() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    pool.publish(
        "name: w\nsteps:\n  - { id: r, switch: [{ when: '${ .input.n }', then: [a] }] }\n  - { id: a, tool: echo }\n",
    )
    .await;
    pool.run("w", "r", "{\"n\":1}").await;
    let run = pool.ended("r").await;
    assert_eq!(run.state, RunState::Failed);
    assert!(run.error.unwrap().contains("true or false"));
    assert!(!run.steps.contains_key(&1), "{:?}", run.steps);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_stops_what_runs() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    pool.publish(
        "name: long\nsteps:\n  - { id: nap, tool: sleep, with: { ms: 60000 }, timeout_ms: 70000 }\n",
    )
    .await;
    pool.run("long", "r", "{}").await;
    tidemill_testkit::wait_until(crate::pool::LONG, "the step in flight", async || {
        pool.store.home().depth("default").await.unwrap().running == 1
    })
    .await
    .unwrap();
    let end = tidemill_store::EndRun {
        id: "r",
        to: RunState::Cancelled,
        who: "tester",
        code: "cancelled",
        reason: "enough",
        only_past_deadline: false,
        spares: false,
        by_force: false,
        home: None,
        reply_to: None,
    };
    assert_eq!(pool.store.home().end_run(&end).await.unwrap(), Some(true));
    assert_eq!(pool.store.home().end_run(&end).await.unwrap(), Some(false), "an ended run stays as it is");
    tidemill_testkit::wait_until(crate::pool::LONG, "the stopped step", async || {
        pool.store.home().run("r").await.unwrap().unwrap().steps[&0].state == StepState::Cancelled
    })
    .await
    .unwrap();
    pool.check_audit("r").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_past_its_deadline_times_out() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    pool.publish("name: late\ntimeout_ms: 300\nsteps:\n  - { id: nap, tool: sleep, with: { ms: 60000 }, timeout_ms: 70000 }\n").await;
    pool.run("late", "r", "{}").await;
    assert_eq!(pool.ended("r").await.state, RunState::TimedOut);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_roots_start_and_join_once() {
    let mut pool = Pool::start().await;
    pool.worker(Settings { max_parallel: 500, ..Settings::default() });
    let mut source = "name: wide\nsteps:\n".to_owned();
    let mut all = Vec::new();
    for n in 0..1_200 {
        source.push_str(&format!("  - {{ id: s{n}, tool: echo, with: {n} }}\n"));
        all.push(format!("s{n}"));
    }
    source.push_str(&format!("  - {{ id: join, tool: echo, needs: [{}], with: done }}\n", all.join(", ")));
    source.push_str("  - { id: fan0, tool: echo, needs: [join] }\n");
    pool.publish(&source).await;
    pool.run("wide", "r", "{}").await;
    let run = pool.ended("r").await;
    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
    assert_eq!(run.done, 1_202);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_runs_at_the_first_success_and_once() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    pool.publish(
        r#"
name: race
steps:
  - { id: quick, tool: echo, with: quick }
  - { id: slow, tool: sleep, with: { ms: 300 } }
  - { id: first, tool: echo, needs: [quick, slow], join: any, with: "${ .steps.quick.output }" }
"#,
    )
    .await;
    pool.run("race", "r", "{}").await;
    let run = pool.ended("r").await;
    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
    assert_eq!(run.steps[&2].attempt, 1);
    assert!(run.steps[&2].ended_ms < run.steps[&1].ended_ms, "it did not wait for the slow one");
}
