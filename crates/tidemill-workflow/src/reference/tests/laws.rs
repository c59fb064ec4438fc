//! Any workflow, whatever its tools do and in whatever order things happen, comes to what the reference says.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use tidemill_protocol::RunState;

use super::engine::Engine;
use super::{plan, predict};
use crate::plan::Plan;
use crate::reference::{Answer, Call, Script, Verdict};

/// What everything does is drawn from a number and from who asks, so that the order of asking does not matter.
struct Drawn(u64);

impl Drawn {
    fn draw(&self, who: impl Hash, sides: u64) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.0, who).hash(&mut hasher);
        hasher.finish() % sides
    }
}

impl Script for Drawn {
    fn call(&self, call: &Call<'_>) -> Answer {
        match self.draw((call.run, call.step, call.item, call.iteration, call.attempt), 20) {
            0..=2 => Answer::Fails,
            3 => Answer::Refuses,
            n => Answer::Output(json!(n)),
        }
    }

    fn signal(&self, run: &str, step: &str) -> Option<Value> {
        (self.draw((run, step), 3) > 0).then(|| json!({}))
    }

    fn decide(&self, run: &str, step: &str, iteration: u32) -> Option<Verdict> {
        let drawn = self.draw((run, step, iteration), 5);
        let verdict = Verdict { approve: drawn > 2, by: "alice".to_owned(), feedback: json!(drawn) };
        (drawn > 0).then_some(verdict)
    }

    fn workflow(&self, _: &str) -> Option<Arc<Plan>> {
        None
    }

    fn attempts(&self) -> u32 {
        2
    }
}

/// What a step does: its members.
fn actions() -> impl Strategy<Value = Value> {
    let words = |words: &'static [&'static str]| prop::sample::select(words);
    let leaf = prop_oneof![
        4 => Just(json!({ "tool": "echo", "with": "${ .input }" })),
        1 => (0..4_u32, 0..5_usize).prop_map(|(tolerate, items)| {
            json!({ "tool": "echo", "with": "${ .item }", "for_each": { "items": (0..items).collect::<Vec<_>>(), "tolerate": tolerate } })
        }),
        1 => (1..5_u32, words(&["fail", "continue"]), 4..20_u32).prop_map(|(most, on_exhausted, enough)| {
            json!({ "tool": "echo", "with": "${ .iteration }", "repeat": { "until": format!("${{ .output >= {enough} }}"), "max_iterations": most, "on_exhausted": on_exhausted } })
        }),
        1 => Just(json!({ "wait": { "for_ms": 50 } })),
        1 => words(&["fail", "continue"]).prop_map(|on_timeout| json!({ "wait": { "signal": "go", "timeout_ms": 20, "on_timeout": on_timeout } })),
        1 => Just(json!({ "tool": "echo", "wait": { "signal": "go", "timeout_ms": 20 } })),
        1 => (words(&["fail", "approve", "reject"]), words(&["fail", "continue"])).prop_map(|(on_timeout, on_reject)| {
            json!({ "approval": { "timeout_ms": 20, "on_timeout": on_timeout, "on_reject": on_reject } })
        }),
    ];
    leaf.prop_recursive(2, 12, 3, |inner| {
        prop_oneof![
            lists(inner.clone(), 1..4).prop_map(|steps| json!({ "steps": steps })),
            (lists(inner.clone(), 1..3), 0..4_usize, 1..4_u32, 0..3_u32).prop_map(|(steps, items, concurrency, tolerate)| {
                json!({ "steps": steps, "for_each": { "items": (0..items).collect::<Vec<_>>(), "concurrency": concurrency, "tolerate": tolerate } })
            }),
            (lists(inner.clone(), 1..3), 1..4_u32).prop_map(|(steps, most)| {
                json!({ "steps": steps, "repeat": { "while": format!("${{ .iteration <= {most} }}") } })
            }),
            prop::collection::vec(inner, 2..4).prop_filter_map("branches run tools and blocks", |branches| {
                let branches: Vec<Value> = branches.into_iter().map(|branch| match branch {
                    branch if branch["tool"].is_string() && branch.as_object().is_some_and(|members| members.len() == 2) && branch["with"].is_string() => branch,
                    other => json!({ "steps": [other] }),
                }).collect();
                Some(json!({ "race": branches }))
            }),
        ]
    })
}

/// Steps that need earlier ones.
fn lists(
    action: impl Strategy<Value = Value>,
    size: std::ops::Range<usize>,
) -> impl Strategy<Value = Vec<Value>> {
    let needs = prop::collection::vec(any::<prop::sample::Index>(), 0..3);
    prop::collection::vec((action, needs, 0..4_u8, 0..4_u8), size).prop_map(|steps| {
        let steps = steps.into_iter().enumerate().map(|(at, (mut step, needs, join, on_error))| {
            let mut needs: Vec<usize> =
                if at == 0 { Vec::new() } else { needs.iter().map(|need| need.index(at)).collect() };
            needs.sort_unstable();
            needs.dedup();
            if join == 0 && !needs.is_empty() {
                step["join"] = json!("any");
            }
            if on_error == 0 {
                step["on_error"] = json!("continue");
            }
            step["needs"] = json!(needs);
            step
        });
        steps.collect()
    })
}

/// Gives all steps ids of their own, and needs that name them.
fn named(steps: &mut [Value], count: &mut usize) {
    let first = *count;
    for step in steps.iter_mut() {
        step["id"] = json!(format!("s{count}"));
        *count += 1;
    }
    for step in steps {
        if let Some(needs) = step.get_mut("needs") {
            let ids: Vec<String> = needs
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|need| Some(format!("s{}", first + need.as_u64()? as usize)))
                .collect();
            *needs = json!(ids);
        }
        for block in ["steps", "race"] {
            if let Some(Value::Array(inner)) = step.get_mut(block) {
                named(inner, count);
            }
        }
        if step["steps"].is_array() {
            step["output"] = json!("${ .input }");
        }
    }
}

/// The definition of a workflow.
fn workflows() -> impl Strategy<Value = Value> {
    let undo = prop::collection::vec(any::<bool>(), 6);
    (lists(actions(), 1..6), undo, any::<bool>(), prop::bool::weighted(0.8)).prop_map(
        |(mut steps, undo, closes, finishes)| {
            named(&mut steps, &mut 0);
            let ids: Vec<String> =
                steps.iter().filter_map(|step| Some(step["id"].as_str()?.to_owned())).collect();
            for (step, undo) in steps.iter_mut().zip(undo) {
                if undo && closes {
                    step["compensate"] = json!({ "tool": "echo" });
                }
            }
            let output: serde_json::Map<_, _> =
                ids.iter().map(|id| (id.clone(), json!(format!("${{ .steps.{id}.state }}")))).collect();
            let failure = if finishes { "finish" } else { "fail_fast" };
            let mut workflow = json!({ "name": "w", "failure": failure, "steps": steps, "output": output });
            if closes {
                workflow["finally"] =
                    json!([{ "id": "last", "tool": "echo" }, { "id": "very_last", "tool": "echo" }]);
            }
            workflow
        },
    )
}

proptest! {
    #[test]
    fn every_run_comes_to_what_the_reference_says(workflow in workflows(), seed in any::<u64>(), draws in prop::collection::vec(any::<u32>(), 64)) {
        let (plan, script) = (Arc::new(plan(&workflow.to_string())), Drawn(seed));
        let predicted = predict(&plan, &json!(7), &script).unwrap();
        let mut draws = draws.into_iter().cycle();
        let mut turns = 0_usize;
        let dice = move |sides: usize| {
            turns += 1;
            (draws.next().unwrap_or(0) as usize).wrapping_add(turns / 64) % sides
        };
        let mut came = Engine::new(&script, dice).run(&plan, &json!(7));
        let (state, output, steps) = came.remove("run").unwrap();
        prop_assert_eq!(state == RunState::Succeeded, predicted.state == RunState::Succeeded);
        if predicted.is_certain {
            prop_assert_eq!((state, &output, &steps), (predicted.state, &predicted.output, &predicted.steps));
            for (id, child) in predicted.runs.iter().filter(|(_, child)| child.is_certain) {
                let (state, output, steps) = came.remove(id).unwrap_or_else(|| panic!("{id} is run"));
                prop_assert_eq!((state, &output, &steps), (child.state, &child.output, &child.steps), "{}", id);
            }
        }
    }
}
