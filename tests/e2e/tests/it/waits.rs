//! Steps that wait, runs that ask for runs, and what is done at a run's end.

use serde_json::{Value, json};
use tidemill_protocol::{RunState, StepRecord, StepState};
use tidemill_store::{Content, Delivered, NewSignal, RunRecord, Signalled, Slot, StepLetter, StopRun};
use tidemill_worker::Settings;

use crate::pool::{LONG, Pool};

impl Pool {
    /// Waits until a step is in a state.
    pub(crate) async fn stands(&self, run: &str, step: u32, state: StepState) -> RunRecord {
        let mut found = None;
        let done = tidemill_testkit::wait_until(LONG, &format!("step {step} of {run}"), async || {
            found = self.store.home().run(run).await.unwrap();
            found.as_ref().is_some_and(|run| run.steps.get(&step).is_some_and(|step| step.state == state))
        })
        .await;
        if done.is_err() {
            panic!("step {step} of {run} is not {state:?}: {found:#?}");
        }
        found.unwrap()
    }

    async fn signal(
        &self,
        (run, workflow): (&str, &str),
        name: &str,
        id: &str,
        payload: &Value,
    ) -> Signalled {
        let letter =
            json!({ "type": "signal", "name": name, "id": id, "payload": payload, "by": "test", "at_ms": 1 })
                .to_string();
        // every step may listen
        let candidates: Vec<(u32, String)> = (0..8).map(|step| (step, format!("s{step}"))).collect();
        let names: Vec<(u32, &str, &str)> =
            candidates.iter().map(|(step, name)| (*step, name.as_str(), "default")).collect();
        let signal = NewSignal { run, workflow, name, id, letter: letter.as_bytes(), candidates: &names };
        self.store.home().signal(&signal).await.unwrap()
    }

    async fn cancel(&self, run: &str) -> Option<bool> {
        let stop = StopRun {
            id: run,
            to: RunState::Cancelled,
            who: "test",
            code: "cancelled",
            reason: "a test wants it",
            only_past_deadline: false,
            spares: false,
            by_force: false,
        };
        self.store.home().stop_run(&stop).await.unwrap()
    }

    async fn field(&self, run: &str, field: &str) -> String {
        self.cli(&["HGET", &format!("tm:{{0}}:run:{run}"), field]).await
    }

    /// What it left behind beside its hash and audit.
    async fn leftovers(&self) -> Vec<String> {
        let keys = self.cli(&["KEYS", "tm:{0}:*"]).await;
        keys.lines()
            .filter(|key| key.contains(":mail:") || key.contains("@waits"))
            .map(str::to_owned)
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_waits_without_a_slot_and_its_run_says_so() {
    let mut pool = Pool::start().await;
    pool.worker(Settings { max_parallel: 1, ..Settings::default() });
    pool.publish("name: nap\nsteps:\n  - { id: nap, wait: { for_ms: 1500 } }\n  - { id: s1, needs: [nap], tool: echo, with: { at: \"${ .steps.nap.output }\" } }\n").await;
    for n in 0..5 {
        pool.run("nap", &format!("n{n}"), "{}").await;
    }
    let run = pool.stands("n0", 0, StepState::Waiting).await;
    assert_eq!(run.state, RunState::Waiting);
    for n in 0..5 {
        let run = pool.ended(&format!("n{n}")).await;
        assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
        assert!(Pool::output(&run)["at"]["at_ms"].as_u64().unwrap() >= run.started_ms + 1_400);
    }
    // one slot, and five that wait side by side
    assert!(pool.leftovers().await.is_empty(), "{:?}", pool.leftovers().await);
}

const SIGNALLED: &str = r#"
name: paid
steps:
  - { id: s0, wait: { signal: paid, schema: { type: object, required: [amount] } } }
  - { id: s1, needs: [s0], tool: echo, with: { got: "${ .steps.s0.output.amount }" } }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_is_taken_once_whether_it_comes_early_or_late() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    pool.publish(SIGNALLED).await;
    pool.run("paid", "late", "{}").await;
    pool.stands("late", 0, StepState::Waiting).await;
    let late = ("late", "paid@1");
    assert_eq!(pool.signal(late, "other", "a", &json!(1)).await, Signalled::Kept);
    assert_eq!(pool.signal(late, "paid", "b", &json!({ "amount": 5 })).await, Signalled::Taken);
    assert_eq!(pool.signal(late, "paid", "b", &json!({ "amount": 6 })).await, Signalled::Duplicate);
    let run = pool.ended("late").await;
    assert_eq!((run.state, Pool::output(&run)), (RunState::Succeeded, json!({ "got": 5 })));
    assert_eq!(pool.signal(late, "paid", "c", &json!(1)).await, Signalled::RunEnded);
    assert_eq!(pool.signal(("gone", "paid@1"), "paid", "c", &json!(1)).await, Signalled::RunGone);
    assert!(pool.leftovers().await.is_empty());

    pool.publish("name: early\nsteps:\n  - { id: s0, wait: { for_ms: 600 } }\n  - { id: s1, needs: [s0], wait: { signal: go } }\n").await;
    pool.run("early", "early", "{}").await;
    pool.stands("early", 0, StepState::Waiting).await;
    assert_eq!(pool.signal(("early", "early@1"), "go", "a", &json!("first")).await, Signalled::Kept);
    assert_eq!(pool.signal(("early", "early@1"), "go", "b", &json!("second")).await, Signalled::Kept);
    assert_eq!(Pool::output(&pool.ended("early").await), json!("first"));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_deciders_one_wins_and_a_rejection_runs_the_draft_again() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    pool.publish(
        r#"
name: review
steps:
  - { id: draft, tool: echo, with: { text: "draft", note: "${ .input.note }" } }
  - id: review
    needs: [draft]
    approval: { of: draft, max_iterations: 3, on_reject: revise }
  - { id: done, needs: [review], tool: echo, with: { approved: "${ .steps.review.output.approved }", n: "${ .steps.review.output.iterations }", by: "${ .steps.review.output.by }" } }
"#,
    )
    .await;
    pool.run("review", "r", "{\"note\":\"x\"}").await;
    for (round, approve) in [(1, false), (2, true)] {
        // while a revision runs the step waits, too: wait until it asks
        tidemill_testkit::wait_until(LONG, "the question", async || {
            let (record, memo) = (pool.field("r", "s1").await, pool.field("r", "w1").await);
            let count = pool.cli(&["KEYS", "tm:{0}:run:r~*"]).await.lines().count();
            record.starts_with("waiting ") && memo.contains("\"open\":[]") && count == round - 1
        })
        .await
        .unwrap();
        let mut won = 0;
        tidemill_testkit::wait_until(LONG, "a decision to be taken", async || {
            let seen = pool.field("r", "s1").await;
            if StepRecord::parse(&seen).is_none_or(|record| record.state != StepState::Waiting) {
                return false;
            }
            let slot = Slot { run: "r".to_owned(), step: 1, item: None, name: "review".to_owned() };
            let texts: Vec<String> = (0..20)
                .map(|n| json!({ "type": "decision", "approve": approve, "by": format!("p{n}"), "roles": [], "feedback": "better", "at_ms": round * 1000 + n }).to_string())
                .collect();
            let keys: Vec<String> = (0..20).map(|n| format!("decision.{round}.{n}")).collect();
            for (text, key) in texts.iter().zip(&keys) {
                let content = Content::IfUnchanged { key, payload: text.as_bytes(), seen: &seen };
                let letter = StepLetter { slot: &slot, workflow: "review@1", queue: "default", content };
                let answer = pool.store.home().deliver(&[letter]).await.unwrap();
                won += usize::from(answer == [Delivered::Woke]);
            }
            won > 0
        })
        .await
        .unwrap();
        assert_eq!(won, 1, "round {round}");
    }
    let run = pool.ended("r").await;
    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
    let output = Pool::output(&run);
    assert_eq!((output["approved"].clone(), output["n"].clone()), (json!(true), json!(2)), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_sub_workflows_and_loops_run_as_runs_of_their_own() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    pool.publish("name: square\ninput: { type: object, required: [n] }\nsteps:\n  - { id: sq, tool: jq.transform, with: { filter: \". * .\", input: \"${ .input.n }\" } }\n").await;
    pool.publish(
        r#"
name: outer
steps:
  - { id: first, tool: echo, with: { base: 10 } }
  - id: sub
    needs: [first]
    workflow: square
    with: { n: "${ .steps.first.output.base }" }
  - id: block
    needs: [sub]
    steps:
      - { id: a, tool: echo, with: { seen: "${ .steps.sub.output }" } }
      - { id: b, needs: [a], tool: jq.transform, with: { filter: ". + 1", input: "${ .steps.a.output.seen }" } }
  - id: each
    needs: [block]
    for_each: { items: "${ [1,2,3,4,5,6,7] }", concurrency: 2 }
    workflow: square
    with: { n: "${ .item }" }
  - id: loop
    needs: [block]
    repeat: { until: "${ .output >= 5 }", max_iterations: 10 }
    tool: jq.transform
    with: { filter: ". + 2", input: "${ .previous // 0 }" }
  - id: looped
    needs: [block]
    repeat: { while: "${ .iteration <= 3 }" }
    steps:
      - { id: x, tool: echo, with: { i: "${ .iteration }" } }
output: { sub: "${ .steps.sub.output }", block: "${ .steps.block.output }", each: "${ .steps.each.output }", loop: "${ .steps.loop.output }", looped: "${ .steps.looped.output }" }
"#,
    )
    .await;
    pool.run("outer", "o", "{}").await;
    let run = pool.ended("o").await;
    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
    assert_eq!(
        Pool::output(&run),
        json!({ "sub": 100, "block": 101, "each": [1, 4, 9, 16, 25, 36, 49], "loop": 6, "looped": { "i": 3 } })
    );
    let child = pool.ended("o~sub.0").await;
    assert_eq!((child.state, child.workflow.as_str()), (RunState::Succeeded, "square@1"));
    assert!(pool.leftovers().await.is_empty());

    // what a child is refused for, its parent hears
    pool.publish("name: bad\nsteps:\n  - { id: sub, workflow: square, with: { m: 1 } }\n").await;
    pool.run("bad", "bad", "{}").await;
    let run = pool.ended("bad").await;
    assert_eq!(run.state, RunState::Failed);
    assert!(run.error.unwrap().contains("invalid_input"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_race_has_one_winner_and_the_others_are_cancelled() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    pool.publish(
        r#"
name: race
steps:
  - id: race
    race:
      - { id: slow, tool: sleep, with: { ms: 20000 } }
      - { id: bad, tool: jq.transform, retry: { max_attempts: 1 }, with: { filter: "error(\"no\")" } }
      - { id: fast, steps: [ { id: a, tool: sleep, with: { ms: 100 } }, { id: b, needs: [a], tool: echo, with: { v: 1 } } ] }
"#,
    )
    .await;
    pool.run("race", "r", "{}").await;
    let run = pool.ended("r").await;
    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
    assert_eq!(Pool::output(&run), json!({ "winner": "fast", "output": { "v": 1 } }));
    let children = pool.cli(&["KEYS", "tm:{0}:run:r~*"]).await;
    assert_eq!(children.lines().count(), 3, "{children}");
    let mut states = Vec::new();
    for key in children.lines() {
        states.push(pool.ended(key.trim_start_matches("tm:{0}:run:")).await.state);
    }
    states.sort_by_key(|state| state.as_str());
    assert_eq!(states, [RunState::Cancelled, RunState::Failed, RunState::Succeeded]);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_a_run_reaches_everything_that_it_asked_for() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    pool.publish("name: deep\nsteps:\n  - id: a\n    steps:\n      - id: b\n        steps:\n          - { id: c, wait: { signal: never } }\n          - { id: d, tool: sleep, with: { ms: 60000 } }\n").await;
    pool.run("deep", "r", "{}").await;
    pool.stands("r~a.0~b.0", 0, StepState::Waiting).await;
    assert_eq!(pool.cancel("r").await, Some(true));
    for id in ["r", "r~a.0", "r~a.0~b.0"] {
        assert_eq!(pool.ended(id).await.state, RunState::Cancelled, "{id}");
    }
    tidemill_testkit::wait_until(LONG, "every step to end", async || {
        let mut all = true;
        for id in ["r", "r~a.0", "r~a.0~b.0"] {
            let run = pool.store.home().run(id).await.unwrap().unwrap();
            all &= run.steps.values().all(|step| step.state.is_terminal());
        }
        all && pool.leftovers().await.is_empty()
    })
    .await
    .unwrap();
}

const SAGA: &str = r#"
name: NAME
steps:
  - { id: hotel, tool: echo, with: { booked: hotel }, compensate: { tool: echo, with: { undo: "${ .steps.hotel.output.booked }" } } }
  - { id: flight, needs: [hotel], tool: echo, with: { booked: flight }, compensate: { tool: UNDO, retry: { max_attempts: 1 }, with: UNDOWITH } }
  - { id: car, needs: [flight], tool: TOOL, retry: { max_attempts: 1 }, with: WITH }
finally:
  - { id: tell, tool: echo, with: { end: "${ .run.state }", error: "${ .run.error.code }" } }
"#;

fn saga(name: &str, (tool, with): (&str, &str), (undo, undo_with): (&str, &str)) -> String {
    let text = SAGA.replace("NAME", name).replace("UNDOWITH", undo_with).replace("UNDO", undo);
    text.replace("TOOL", tool).replace("WITH", with)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_run_is_undone_in_reverse_order_and_then_told() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    let (echo, fail) = (("echo", "{ ok: 1 }"), ("jq.transform", "{ filter: 'error(\"no car\")', input: 1 }"));
    for (name, end, undo) in [("good", echo, echo), ("failed", fail, echo), ("stuck", fail, fail)] {
        pool.publish(&saga(name, end, undo)).await;
        pool.run(name, name, "{}").await;
    }
    let good = pool.ended("good").await;
    assert_eq!(good.state, RunState::Succeeded, "{:?}", good.error);
    assert_eq!(Pool::output(&good), json!({ "ok": 1 }));
    let failed = pool.ended("failed").await;
    assert_eq!(failed.state, RunState::Compensated, "{:?}", failed.error);
    let audit = pool.store.home().audit("failed", 0, usize::MAX).await.unwrap();
    let order: Vec<&str> = audit
        .iter()
        .filter(|record| record.to == "succeeded" && record.from == "running")
        .map(|record| &*record.subject)
        .collect();
    assert_eq!(order, ["hotel", "flight", "flight!undo", "hotel!undo", "tell"]);
    let told: Value = serde_json::from_slice(failed.outputs.values().last().unwrap()).unwrap();
    assert_eq!(told["end"], json!("failed"), "{told}");
    let stuck = pool.ended("stuck").await;
    assert_eq!(stuck.state, RunState::CompensationFailed);
    let audit = pool.store.home().audit("stuck", 0, usize::MAX).await.unwrap();
    assert!(audit.iter().any(|record| record.subject == "hotel!undo" && record.to == "succeeded"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_when_a_run_begins_to_end_is_stopped_before_anything_is_undone() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    pool.publish(
        r#"
name: busy
timeout_ms: 60000
steps:
  - { id: done, tool: echo, with: 1, compensate: { tool: echo, with: { undone: true } } }
  - { id: busy, needs: [done], tool: sleep, with: { ms: 60000 } }
  - { id: waits, needs: [done], wait: { signal: never } }
  - { id: each, needs: [done], for_each: { items: "${ [range(20)] }", concurrency: 3 }, tool: sleep, with: { ms: 60000 } }
"#,
    )
    .await;
    pool.run("busy", "b", "{}").await;
    pool.stands("b", 2, StepState::Waiting).await;
    assert_eq!(pool.cancel("b").await, Some(true));
    let run = pool.ended("b").await;
    assert_eq!(run.state, RunState::Compensated, "{:?}", run.error);
    assert!(run.steps.values().all(|step| step.state.is_terminal()), "{run:#?}");
}
