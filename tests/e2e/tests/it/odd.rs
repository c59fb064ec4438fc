//! What is odd, hostile or only unlucky must not hold up, lose or double anything else.

use serde_json::json;
use tidemill_protocol::RunState;
use tidemill_worker::Settings;

use crate::pool::{LONG, Pool};

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_is_to_be_kept_for_ever_holds_nobody_up() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    let ever = u64::MAX.to_string();
    let key = "tm:{0}:jobs:default";
    pool.cli(&["XADD", key, "*", "tool", "echo", "id", "ever", "result_ttl_ms", &ever]).await;
    pool.cli(&["XADD", key, "*", "tool", "nope", "id", "bad", "result_ttl_ms", &ever]).await;
    assert_eq!(pool.result("ever").await["state"], "succeeded");
    assert_eq!(pool.result("bad").await["error"]["code"], "unknown_tool");
    let most = u32::MAX.to_string();
    pool.job("default", "often", &["tool", "echo", "_attempts", &most]).await;
    assert_eq!(pool.result("often").await["state"], "succeeded");
    pool.publish("name: one\nsteps: [{ id: a, tool: echo }]\n").await;
    let runs = "tm:{0}:runs";
    pool.cli(&[
        "XADD",
        runs,
        "*",
        "workflow",
        "one",
        "id",
        "r1",
        "result_ttl_ms",
        &ever,
        "timeout_ms",
        &ever,
    ])
    .await;
    assert_eq!(pool.ended("r1").await.state, RunState::Succeeded);
    assert_eq!(pool.result("r1").await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_job_sends_no_reply_into_the_pools_own_streams() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    let (key, own) = ("tm:{0}:jobs:default", "tm:{0}:jobs:other");
    for odd in [["tool", "nope"], ["workflow", "nope"]] {
        pool.cli(&["XADD", key, "*", odd[0], odd[1], "reply_to", own]).await;
    }
    pool.cli(&["XADD", key, "*", "tool", "echo", "_deaths", "9", "reply_to", own]).await;
    tidemill_testkit::wait_until(LONG, "three letters", async || {
        pool.store.home().letter_count().await.unwrap() == 3
    })
    .await
    .unwrap();
    assert_eq!(pool.cli(&["EXISTS", own]).await, "0");
    let letters = pool.store.home().letters(None, 10).await.unwrap();
    assert!(letters.iter().all(|letter| letter.code == "invalid_reply_to"), "{letters:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_run_does_not_cancel_the_job_of_the_same_id() {
    let mut pool = Pool::start().await;
    let worker = pool.worker(Settings::default());
    pool.publish("name: fails\nsteps: [{ id: a, tool: nope }]\n").await;
    pool.run("fails", "twin", "{}").await;
    assert_eq!(pool.ended("twin").await.state, RunState::Failed);
    let beat = async || {
        let beats = pool.store.home().beats().await.unwrap();
        beats.get(&worker).and_then(|beat| beat.parse::<u64>().ok()).unwrap_or(0)
    };
    let seen = beat().await;
    tidemill_testkit::wait_until(LONG, "the worker to have heard of it", async || beat().await >= seen + 3)
        .await
        .unwrap();
    pool.job("default", "twin", &["tool", "echo", "input", "7"]).await;
    assert_eq!(pool.result("twin").await["output"], json!(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_job_that_was_handed_back_before_it_was_put_aside_still_waits() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    let first = format!("{}-0", pool.store.home().now_ms().await.unwrap());
    pool.job("default", "late", &["tool", "echo", "delay_ms", "60000", "_entry", &first]).await;
    tidemill_testkit::wait_until(LONG, "the job to wait", async || {
        pool.store.home().depth("default").await.unwrap().deferred == 1
    })
    .await
    .unwrap();
    assert!(pool.store.home().result("late").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn items_that_end_while_they_are_audited_are_all_waited_for() {
    let mut pool = Pool::start().await;
    for _ in 0..3 {
        pool.scheduler_with(tidemill_scheduler::Settings {
            audit_every_ms: 20,
            audit_runs_per_second: 10_000,
            ..tidemill_scheduler::Settings::default()
        });
    }
    pool.worker(Settings::default());
    pool.publish(
        r#"
name: each
steps:
  - id: all
    tool: echo
    for_each: { items: "${ [range(400)] }", concurrency: 1 }
    with: { n: "${ .item }" }
output: "${ [.steps.all.output[] | .n] }"
"#,
    )
    .await;
    for run in ["e1", "e2", "e3"] {
        pool.run("each", run, "{}").await;
    }
    for run in ["e1", "e2", "e3"] {
        let ended = pool.ended(run).await;
        assert_eq!(ended.state, RunState::Succeeded, "{:?}", ended.error);
        assert_eq!(Pool::output(&ended), json!((0..400).collect::<Vec<_>>()), "none is missing");
        let key = format!("tm:{{0}}:items:{run}:0");
        let left = async || pool.cli(&["PTTL", &key]).await.parse::<u64>().unwrap();
        tidemill_testkit::wait_until(LONG, "the items to be kept as long as the run", async || {
            left().await <= 24 * 3600 * 1000
        })
        .await
        .unwrap();
    }
}
