//! Steps that wait when something goes wrong around them: children that are gone, refused or cannot be read, runs that end while much
//! of theirs waits.

use serde_json::json;
use tidemill_protocol::{RunState, StepState};
use tidemill_store::{Content, Delivered, NewSignal, Signalled, Slot, StepLetter, keys};
use tidemill_worker::Settings;

use crate::pool::{LONG, Pool};

const PARENT: &str = r#"
name: parent
steps:
  - id: sub
    steps:
      - { id: asks, wait: { signal: never } }
"#;

impl Pool {
    async fn error(&self, run: &str) -> String {
        self.ended(run).await.error.unwrap_or_default()
    }

    /// Waits until no alarm and no mail is left of anything.
    async fn is_clean(&self) {
        tidemill_testkit::wait_until(LONG, "alarms and mail to be gone", async || {
            let left = self.cli(&["KEYS", "tm:{0}:*"]).await;
            !left.lines().any(|key| key.contains(":mail:") || key.contains("@waits"))
        })
        .await
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_whose_record_is_gone_before_its_end_was_told_ends_the_step_that_waits() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    pool.publish(PARENT).await;
    pool.run("parent", "p", "{}").await;
    pool.stands("p~sub.0", 0, StepState::Waiting).await;
    pool.stands("p", 0, StepState::Waiting).await;
    // its time was over before a scheduler came by
    pool.cli(&["DEL", "tm:{0}:run:p~sub.0", "tm:{0}:audit:p~sub.0"]).await;
    for _ in 0..2 {
        pool.cli(&["XADD", "tm:{0}:runs", "*", "ended", "p~sub.0"]).await;
    }
    let error = pool.error("p").await;
    assert!(error.contains("child_gone"), "{error}");
    pool.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_is_cancelled_while_it_waits_for_its_turn_ends_the_step_that_waits() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    pool.publish("name: one\ngroup: { key: \"${ .input.k }\", limit: 1 }\nsteps:\n  - { id: asks, wait: { signal: never } }\n").await;
    pool.publish("name: asks\nsteps:\n  - { id: sub, workflow: one, with: { k: 1 } }\n").await;
    pool.run("one", "holder", "{\"k\":1}").await;
    pool.stands("holder", 0, StepState::Waiting).await;
    pool.run("asks", "p", "{}").await;
    tidemill_testkit::wait_until(LONG, "the child to wait for its turn", async || {
        !pool.cli(&["ZSCORE", "tm:{0}:due:@runs", "j:p~sub.0"]).await.is_empty()
    })
    .await
    .unwrap();
    assert!(pool.store.home().cancel_job(keys::RUNS, "p~sub.0", "a person wants it").await.unwrap());
    let error = pool.error("p").await;
    assert!(error.contains("child_gone"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn how_a_child_ended_is_heard_even_if_it_cannot_be_read() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    pool.publish(PARENT).await;
    pool.run("parent", "p", "{}").await;
    pool.stands("p", 0, StepState::Waiting).await;
    let slot = Slot { run: "p".to_owned(), step: 0, item: None, name: "sub".to_owned() };
    let broken = br#"{"type":"ended","child":"0","state":"succeeded","output":{"a":#}"#;
    let content = Content::News { key: "ended.0", payload: broken };
    let letter = StepLetter { slot: &slot, workflow: "parent@1", queue: "default", content };
    assert_eq!(pool.store.home().deliver(&[letter]).await.unwrap(), [Delivered::Woke]);
    let error = pool.error("p").await;
    assert!(error.contains("damaged_value"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_far_ahead_goes_with_its_run() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    pool.publish("name: far\nsteps:\n  - { id: asks, wait: { signal: go, timeout_ms: 3600000 } }\n").await;
    pool.run("far", "r", "{}").await;
    pool.stands("r", 0, StepState::Waiting).await;
    assert_eq!(pool.cli(&["ZCARD", "tm:{0}:due:@waits"]).await, "1");
    let letter = json!({ "type": "signal", "name": "go", "id": "1", "payload": 5, "by": "test", "at_ms": 1 });
    let letter = letter.to_string();
    let signal = NewSignal {
        run: "r",
        workflow: "far@1",
        name: "go",
        id: "1",
        letter: letter.as_bytes(),
        candidates: &[(0, "asks", "default")],
    };
    assert_eq!(pool.store.home().signal(&signal).await.unwrap(), Signalled::Taken);
    assert_eq!(Pool::output(&pool.ended("r").await), json!(5));
    pool.is_clean().await;
}

const MANY: &str = r#"
name: many
timeout_ms: 2000
steps:
  - { id: done, tool: echo, with: 1, compensate: { tool: echo, with: { undone: "${ .steps.done.output }" } } }
  - id: each
    needs: [done]
    for_each: { items: "${ [range(6)] }", concurrency: 3 }
    steps: [ { id: one, wait: { signal: never } } ]
  - id: race
    needs: [done]
    race: [ { id: x, wait: { signal: never } }, { id: y, workflow: strict } ]
  - { id: ask, needs: [done], approval: { prompt: "Well?", timeout_ms: 3600000 } }
  - { id: loop, needs: [done], repeat: { until: "${ .output.n == 3 }", every_ms: 3600000 }, tool: echo, with: { n: "${ .iteration }" } }
finally:
  - { id: tell, tool: echo, with: { end: "${ .run.state }" } }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_run_past_its_deadline_is_undone_though_all_of_it_waits() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    // a branch that is refused does not lose the race for the others
    pool.publish(
        "name: strict\ninput: { type: object, required: [n] }\nsteps:\n  - { id: a, tool: echo, with: 1 }\n",
    )
    .await;
    pool.publish(MANY).await;
    pool.run("many", "m", "{}").await;
    for step in 1..5 {
        pool.stands("m", step, StepState::Waiting).await;
    }
    let run = pool.ended("m").await;
    assert_eq!(run.state, RunState::Compensated, "{:?}", run.error);
    assert!(run.error.is_some_and(|error| error.contains("timeout")));
    assert!(run.steps.values().all(|step| step.state.is_terminal()), "{:#?}", run.steps);
    for child in ["m~each.0", "m~each.1", "m~each.2", "m~race.x"] {
        assert_eq!(pool.ended(child).await.state, RunState::Cancelled, "{child}");
    }
    assert_eq!(pool.cli(&["EXISTS", "tm:{0}:run:m~each.3", "tm:{0}:run:m~race.y"]).await, "0");
    pool.is_clean().await;
}
