//! The same workflow in order and side by side: whatever its steps give, whoever is quicker, the same comes of it.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{Action, AnyTool, FailurePolicy, Limits, Need, Plan, Scope, StepView};

/// How a run ended: its state, and of each step that was decided on its state and output.
#[derive(Debug, Clone, PartialEq)]
struct Ended {
    succeeded: bool,
    steps: BTreeMap<u32, (&'static str, Option<String>)>,
    /// In which order they ended.
    order: Vec<u32>,
    /// Most steps that were dispatched and had not ended.
    widest: usize,
}

/// Carries a plan out as the pool does: ends are counted at dependents, which are dispatched when their counters say so and then
/// decided on by their needs. `gives` is what a step's tool answers, and nothing where it fails; `luck` picks who ends next.
fn run(plan: &Plan, gives: &[Option<i64>], luck: &mut dyn FnMut(usize) -> usize) -> Ended {
    let mut ready: Vec<u32> = plan.roots().to_vec();
    let mut counters: BTreeMap<u32, (u32, u32)> = BTreeMap::new();
    let mut ended = Ended { succeeded: true, steps: BTreeMap::new(), order: Vec::new(), widest: 0 };
    while !ready.is_empty() {
        ended.widest = ended.widest.max(ready.len());
        let step = ready.remove(luck(ready.len()));
        let (state, output) = carry_out(plan, step, gives, &ended.steps);
        assert!(ended.steps.insert(step, (state, output)).is_none(), "step {step} was dispatched twice");
        ended.order.push(step);
        if state == "failed" && !plan.steps[step as usize].continue_on_error {
            ended.succeeded = false;
            if plan.failure == FailurePolicy::FailFast {
                return ended;
            }
        }
        for dependent in plan.dependents(step) {
            let (all, ok) = counters.entry(*dependent).or_default();
            let fires = plan.fires_when(*dependent).unwrap();
            let (before_all, before_ok) = (*all, *ok);
            *all += 1;
            *ok += u32::from(state == "succeeded");
            let by_all = *all == fires.ended && !(fires.ok > 0 && before_ok >= fires.ok);
            let by_ok = fires.ok > 0 && *ok == fires.ok && before_ok < fires.ok && before_all < fires.ended;
            if by_all || by_ok {
                ready.push(*dependent);
            }
        }
    }
    assert_eq!(ended.steps.len(), plan.main() as usize, "every step is decided on");
    ended
}

fn carry_out(
    plan: &Plan,
    step: u32,
    gives: &[Option<i64>],
    steps: &BTreeMap<u32, (&'static str, Option<String>)>,
) -> (&'static str, Option<String>) {
    let planned = &plan.steps[step as usize];
    let stand = |need: &u32| match steps.get(need).map(|(state, _)| *state) {
        Some("succeeded") => Need::Succeeded,
        Some("skipped") => Need::Skipped,
        Some(_) if plan.steps[*need as usize].continue_on_error => Need::Continued,
        Some(_) => Need::Failed,
        None => Need::Pending,
    };
    let needs: Vec<Need> = planned.needs.iter().map(stand).collect();
    match planned.decide(&needs) {
        crate::Decision::Skip => return ("skipped", None),
        crate::Decision::Wait => panic!("step {step} was dispatched before its needs let it be decided on"),
        crate::Decision::Run => {}
    }
    let views = steps.iter().map(|(step, (state, output))| {
        (*step, StepView { state, output: output.as_deref().map(str::as_bytes), error: None })
    });
    let scope = Scope { input: b"{}", steps: views.collect(), ..Scope::default() };
    if planned.when.as_ref().is_some_and(|when| !when.is_true(&scope, &Limits::default()).unwrap()) {
        return ("skipped", None);
    }
    if matches!(planned.action, Action::Decide) {
        let chosen = planned.with.render(&scope, &Limits::default()).unwrap();
        return ("succeeded", Some(String::from_utf8(chosen).unwrap()));
    }
    gives[step as usize].map_or(("failed", None), |output| ("succeeded", Some(output.to_string())))
}

/// A workflow whose steps stand in any order, with joins, conditions, tolerated failures and switches, and what its tools give.
fn workflows() -> impl Strategy<Value = (Value, Vec<Option<i64>>)> {
    let step = (
        prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        0..5_u8,
        any::<bool>(),
        any::<bool>(),
        prop::option::weighted(0.8, 0..10_i64),
    );
    (prop::collection::vec((step, any::<u64>()), 1..14), any::<bool>()).prop_map(|(steps, fail_fast)| {
        let mut gives = Vec::new();
        let mut written: Vec<(u64, Value)> = Vec::new();
        for (at, ((needs, join, continues, asks, given), place)) in steps.iter().enumerate() {
            let mut needs: Vec<usize> =
                needs.iter().filter(|_| at > 0).map(|need| need.index(at.max(1))).collect();
            needs.sort_unstable();
            needs.dedup();
            let join = match (join, needs.len()) {
                (1, 1..) => json!("any"),
                (2, n @ 1..) => json!({ "n_of": n.div_ceil(2) }),
                _ => json!("all"),
            };
            let mut step = json!({ "id": format!("s{at}"), "tool": "echo", "join": join,
                "on_error": if *continues { "continue" } else { "fail" },
                "needs": needs.iter().map(|need| format!("s{need}")).collect::<Vec<_>>() });
            // what a step of another join sees of its needs depends on who is quicker
            if let (true, "all", Some(need)) = (*asks, join.as_str().unwrap_or_default(), needs.first()) {
                step["when"] = json!(format!(
                    "${{ (.steps.s{need}.output | type) != \"number\" or .steps.s{need}.output > 3 }}"
                ));
            }
            written.push((*place, step));
            gives.push(*given);
        }
        choose_between(&mut written);
        // the order in the file is another one than that of the needs
        let mut order: Vec<usize> = (0..written.len()).collect();
        order.sort_by_key(|at| written[*at].0);
        let gives = order.iter().map(|at| gives[*at]).collect();
        let steps: Vec<Value> = order.into_iter().map(|at| written[at].1.take()).collect();
        let failure = if fail_fast { "fail_fast" } else { "finish" };
        (json!({ "name": "w", "failure": failure, "steps": steps }), gives)
    })
}

/// Every fifth step that may chooses between the next two.
fn choose_between(written: &mut [(u64, Value)]) {
    for at in (0..written.len().saturating_sub(2)).step_by(5) {
        if written[at + 1..at + 3].iter().all(|(_, step)| step["join"] == "all") {
            let [a, b] = [at + 1, at + 2].map(|next| json!([format!("s{next}")]));
            let first = at % 2 == 0;
            written[at].1["switch"] =
                json!([{ "when": format!("${{ {first} }}"), "then": a }, { "default": b }]);
            written[at].1.as_object_mut().unwrap().remove("tool");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn in_order_the_same_steps_run_with_the_same_results((definition, gives) in workflows(), seed in any::<u64>()) {
        let plan = Plan::from_source(&definition.to_string(), "w", &AnyTool);
        // a random graph may promise more successes than its switches let through
        prop_assume!(plan.is_ok());
        let plan = plan.unwrap();
        let mut state = seed;
        let mut luck = |count: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % count
        };
        let in_order = plan.in_order();
        let (wide, narrow) = (run(&plan, &gives, &mut luck), run(&in_order, &gives, &mut luck));
        prop_assert!(narrow.widest <= 1, "one step at a time");
        prop_assert_eq!(wide.succeeded, narrow.succeeded);
        if plan.failure == FailurePolicy::Finish {
            prop_assert_eq!(&wide.steps, &narrow.steps);
        }
        for (at, step) in narrow.order.iter().enumerate() {
            let before = &narrow.order[..at];
            prop_assert!(plan.steps[*step as usize].needs.iter().all(|need| before.contains(need)));
        }
        prop_assert_eq!(run(&in_order, &gives, &mut |_| 0).order, narrow.order, "luck has no part in it");
    }
}

#[test]
fn of_the_steps_that_could_come_next_the_first_in_the_file_does() {
    let text = "name: w\nsteps:\n- { id: last, tool: echo, needs: [b] }\n- { id: c, tool: echo }\n\
                - { id: b, tool: echo, for_each: \"${ [1, 2] }\" }\n- { id: a, tool: echo }\n";
    let plan = Plan::from_source(text, "w", &AnyTool).unwrap();
    let in_order = plan.in_order();
    assert_eq!((in_order.roots(), in_order.sinks()), (&[1][..], plan.sinks()));
    assert_eq!(
        [1, 2, 0, 3].map(|step| in_order.dependents(step).to_vec()),
        [vec![2], vec![0], vec![3], vec![]]
    );
    assert_eq!(in_order.steps[0].dispatched_by(), [2]);
    assert_eq!(in_order.steps[3].dispatched_by(), [0], "it needs nothing, and waits for its turn");
    assert!(in_order.steps[3].is_due(&[Need::Failed]) && !in_order.steps[3].is_due(&[Need::Pending]));
    assert_eq!(in_order.steps[2].for_each.as_ref().unwrap().concurrency, 1);
    assert!(plan.steps.iter().all(|step| step.after.is_none() && !step.one_at_a_time));
    assert!(std::sync::Arc::ptr_eq(&in_order, &plan.in_order()), "it is made once");
}
