mod engine;
mod laws;

use std::sync::Arc;

use serde_json::{Value, json};
use tidemill_protocol::{RunState, StepState};

use super::{Answer, Call, Prediction, Script, Verdict, predict};
use crate::any_tool::AnyTool;
use crate::plan::Plan;

/// Tools echo their input; `fail` fails, `flaky` succeeds at the third attempt, `poll` gives the number of its iteration.
struct Echoes {
    plan: Arc<Plan>,
}

impl Script for Echoes {
    fn call(&self, call: &Call<'_>) -> Answer {
        let word = call.input["do"].as_str().unwrap_or_default();
        match word {
            "fail" => Answer::Refuses,
            "flaky" if call.attempt < 3 => Answer::Fails,
            "poll" => Answer::Output(json!(call.iteration)),
            _ => Answer::Output(call.input.clone()),
        }
    }

    fn signal(&self, run: &str, step: &str) -> Option<Value> {
        (step != "never").then(|| json!({ "run": run }))
    }

    fn decide(&self, _: &str, _: &str, iteration: u32) -> Option<Verdict> {
        Some(Verdict {
            approve: iteration == 2,
            by: "alice".to_owned(),
            feedback: json!(format!("no {iteration}")),
        })
    }

    fn workflow(&self, reference: &str) -> Option<Arc<Plan>> {
        (reference == "sub").then(|| Arc::clone(&self.plan))
    }

    fn attempts(&self) -> u32 {
        3
    }
}

fn plan(text: &str) -> Plan {
    Plan::from_source(text, "w.yaml", &AnyTool).unwrap_or_else(|problems| panic!("{problems}"))
}

fn predicted(text: &str) -> Prediction {
    let sub = plan("name: sub\nsteps: [{ id: one, tool: echo, with: { doubled: '${ .input.n * 2 }' } }]");
    let script = Echoes { plan: Arc::new(sub) };
    predict(&plan(text), &json!({ "n": 4 }), &script).unwrap()
}

#[test]
fn steps_run_when_what_they_need_has_ended_well_enough() {
    let prediction = predicted(
        "
name: w
failure: finish
steps:
  - { id: a, tool: echo, with: { do: fail } }
  - { id: b, tool: echo, with: { do: flaky, n: '${ .input.n }' } }
  - { id: c, tool: echo, needs: [a, b] }
  - { id: d, tool: echo, needs: [a, b], join: any }
  - { id: e, tool: echo, needs: [b], when: '${ .steps.b.output.n > 4 }' }
",
    );
    let states = ["a", "b", "c", "d", "e"].map(|id| prediction.steps[id].as_str());
    assert_eq!(states, ["failed", "succeeded", "skipped", "succeeded", "skipped"]);
    assert_eq!((prediction.state, prediction.is_certain), (RunState::Failed, true));
}

#[test]
fn blocks_items_and_loops_are_runs_of_their_own() {
    let prediction = predicted(
        "
name: w
steps:
  - { id: each, for_each: { items: '${ [1, 2] }', tolerate: 1 }, workflow: sub, with: { n: '${ .item }' } }
  - id: loop
    repeat: { until: '${ .output.at >= 3 }' }
    steps: [{ id: inner, tool: echo, with: { at: '${ .iteration }', each: '${ .steps.each.output }' } }]
    needs: [each]
output: { each: '${ .steps.each.output }', loop: '${ .steps.loop.output }' }
",
    );
    let each = json!([{ "doubled": 2 }, { "doubled": 4 }]);
    assert_eq!(prediction.output, Some(json!({ "each": each, "loop": { "at": 3, "each": each } })));
    let runs: Vec<&String> = prediction.runs.keys().collect();
    assert_eq!(runs, ["run~each.0", "run~each.1", "run~loop.1", "run~loop.2", "run~loop.3"]);
}

#[test]
fn what_was_done_is_undone_when_the_run_fails() {
    let text = |undo: &str, last: &str| {
        format!(
            "
name: w
failure: finish
steps:
  - {{ id: a, tool: echo, compensate: {{ tool: echo, with: {{ do: {undo} }} }} }}
  - {{ id: b, tool: echo, needs: [a], with: {{ do: {last} }}, compensate: {{ tool: echo }} }}
finally:
  - {{ id: mail, tool: echo, with: {{ do: fail }} }}
"
        )
    };
    let prediction = predicted(&text("undo", "work"));
    assert_eq!((prediction.state, prediction.steps["a!undo"]), (RunState::Succeeded, StepState::Pending));
    assert_eq!(prediction.steps["mail"], StepState::Failed, "which changes nothing");
    let prediction = predicted(&text("undo", "fail"));
    assert_eq!(prediction.state, RunState::Compensated);
    assert_eq!(
        (prediction.steps["a!undo"], prediction.steps["b!undo"]),
        (StepState::Succeeded, StepState::Pending)
    );
    assert_eq!(predicted(&text("fail", "fail")).state, RunState::CompensationFailed);
}

#[test]
fn waits_end_as_the_script_says() {
    let prediction = predicted(
        "
name: w
steps:
  - { id: draft, tool: echo, with: { text: '${ .feedback? // \"v1\" }' } }
  - { id: go, wait: { signal: go } }
  - { id: never, wait: { signal: go, timeout_ms: 5, on_timeout: continue } }
  - { id: review, needs: [draft], approval: { of: draft, on_reject: revise } }
  - { id: poll, tool: echo, with: { do: poll }, repeat: { while: '${ .iteration < 3 }' } }
output: { go: '${ .steps.go.output.run }', never: '${ .steps.never.output }', review: '${ .steps.review.output.iterations }', poll: '${ .steps.poll.output }' }
",
    );
    assert_eq!(prediction.output, Some(json!({ "go": "run", "never": null, "review": 2, "poll": 2 })));
    assert!(prediction.is_certain && prediction.runs.contains_key("run~review.r1"));
}

#[test]
fn who_wins_a_race_is_certain_where_one_would() {
    let race = |a: &str, b: &str| {
        let branch = |id, does| format!("{{ id: {id}, tool: echo, with: {{ do: {does} }} }}");
        predicted(&format!("name: w\nsteps: [{{ id: r, race: [{}, {}] }}]", branch("a", a), branch("b", b)))
    };
    let prediction = race("fail", "work");
    assert_eq!(prediction.output, Some(json!({ "winner": "b", "output": { "do": "work" } })));
    assert!(
        prediction.is_certain
            && prediction.runs["run~r.b"].is_certain
            && !prediction.runs["run~r.a"].is_certain
    );
    assert!(!race("work", "work").is_certain);
    let prediction = race("fail", "fail");
    assert_eq!((prediction.state, prediction.is_certain), (RunState::Failed, true));
}
