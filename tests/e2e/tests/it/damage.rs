//! Values that were changed in Redis behind Tidemill's back: they are told, and never executed.

use serde_json::json;
use tidemill_protocol::{RunState, StepState};
use tidemill_store::{Content, StepLetter};
use tidemill_worker::Settings;

use crate::pool::{LONG, Pool};

const FLOW: &str = r#"
name: flow
steps:
  - { id: a, tool: echo, with: { card: "${ .input.card }" } }
  - { id: gate, needs: [a], wait: { signal: go } }
  - { id: b, needs: [gate], tool: echo, with: { pays: "${ .steps.a.output.card }", from: "${ .input.card }" } }
"#;

impl Pool {
    /// Lets the step `gate` of [`FLOW`] go on.
    async fn open_the_gate(&self, run: &str) {
        let slot = tidemill_store::Slot { run: run.to_owned(), step: 1, item: None, name: "gate".to_owned() };
        let payload = br#"{"type":"signal","name":"go","id":"1","payload":1,"by":"test","at_ms":1}"#;
        let content = Content::News { key: "signal.1", payload };
        let letter = StepLetter { slot: &slot, workflow: "flow@1", queue: "default", content };
        let _ = self.store.home().deliver(&[letter]).await.unwrap();
    }

    async fn gate_is_shut(&self, run: &str) {
        tidemill_testkit::wait_until(LONG, "the gate", async || {
            let found = self.store.home().run(run).await.unwrap();
            found.is_some_and(|run| run.steps.get(&1).is_some_and(|step| step.state == StepState::Waiting))
        })
        .await
        .unwrap();
    }

    async fn change(&self, run: &str, field: &str, to: &str) {
        self.cli(&["HSET", &format!("tm:{{0}}:run:{run}"), field, to]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_or_output_that_was_changed_is_never_executed() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    pool.publish(FLOW).await;
    let input = r#"{"card":"4111"}"#;
    for (run, field, to) in [
        ("flipped", "o0", r#"{"card":"5111"}"#),
        ("cut", "o0", r#"{"card":"41"#),
        ("input", "in", r#"{"card":"4112"}"#),
        ("record", "s0", "succeeded"),
        ("whole", "o0", input),
    ] {
        pool.run("flow", run, input).await;
        pool.gate_is_shut(run).await;
        pool.change(run, field, to).await;
        pool.open_the_gate(run).await;
        let ended = if field == "s0" { pool.ended_unchecked(run).await } else { pool.ended(run).await };
        if run == "whole" {
            assert_eq!(Pool::output(&ended), json!({ "pays": "4111", "from": "4111" }));
            continue;
        }
        assert_eq!(ended.state, RunState::Failed, "{run}");
        let error = ended.error.unwrap();
        assert!(error.contains("damaged_value"), "{run}: {error}");
        assert!(!ended.outputs.contains_key(&2), "{run}: it was executed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_was_changed_is_never_executed() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    pool.publish(
        r#"
name: each
steps:
  - { id: each, for_each: { items: "${ [1,2,3] }", concurrency: 1, tolerate: 3 }, retry: { max_attempts: 1 }, tool: sleep, with: { ms: "${ 700 + .item }" } }
"#,
    )
    .await;
    pool.run("each", "e", "{}").await;
    tidemill_testkit::wait_until(LONG, "the items", async || {
        pool.cli(&["HEXISTS", "tm:{0}:items:e:0", "i2"]).await == "1"
    })
    .await
    .unwrap();
    let text = pool.cli(&["HGET", "tm:{0}:items:e:0", "i2"]).await;
    pool.cli(&["HSET", "tm:{0}:items:e:0", "i2", &text.replacen('3', "9", 1)]).await;
    let run = pool.ended("e").await;
    assert_eq!(Pool::output(&run).as_array().map(Vec::len), Some(3));
    let audit = pool.store.home().audit("e", 0, usize::MAX).await.unwrap();
    assert!(audit.iter().any(|record| record.subject == "each[2]" && record.to == "failed"));
    assert_eq!(run.items[&0][3], 1, "one failed");
}
