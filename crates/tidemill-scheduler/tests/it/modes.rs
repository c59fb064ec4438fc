//! Execution modes where runs start.

use tidemill_protocol::ExecutionMode::{self, Classic, Hybrid, Optimized};
use tidemill_scheduler::Settings;
use tidemill_store::ModeMove;
use tidemill_testkit::wait_until;

use crate::pool::{Pool, SOON, quick};

async fn begun(pool: &Pool, id: &str) -> (String, String) {
    wait_until(SOON, &format!("the start of {id}"), async || pool.home().run(id).await.unwrap().is_some())
        .await
        .unwrap();
    let field = async |name| pool.server.cli(&["HGET", &pool.home().keys().run(id), name]).await.unwrap();
    (field("md").await.trim().to_owned(), field("s1").await.trim().to_owned())
}

async fn ask(pool: &Pool, workflow: &str, id: &str, more: &[&str]) {
    let runs = pool.home().keys().runs();
    let words = [&["XADD", &runs, "*", "workflow", workflow, "id", id], more].concat();
    pool.server.cli(&words).await.unwrap();
}

#[tokio::test]
async fn what_the_settings_say_is_put_in_force_once() {
    let pool = Pool::start().await;
    let settings = |mode: ExecutionMode| Settings { mode: Some(mode), ..quick() };
    let first = pool.schedule(settings(Classic)).await;
    assert_eq!(pool.home().execution_mode().await.unwrap(), Classic);
    wait_until(SOON, "the gauge", async || {
        first.metrics.text().contains("tidemill_execution_mode{mode=\"classic\"} 1")
    })
    .await
    .unwrap();
    pool.home().switch_mode(("ada", "by hand"), ModeMove::Switch(Optimized), None).await.unwrap();
    let again = pool.schedule(settings(Classic)).await;
    assert_eq!(
        pool.home().execution_mode().await.unwrap(),
        Optimized,
        "a start does not undo what people have switched"
    );
    let other = pool.schedule(settings(Hybrid)).await;
    assert_eq!(pool.home().execution_mode().await.unwrap(), Hybrid, "other settings are followed");
    let told: Vec<String> =
        pool.home().mode_changes(10).await.unwrap().into_iter().map(|change| change.by).collect();
    assert_eq!(told.len(), 3);
    assert!(told[0].contains(&other.name) && told[1] == "ada" && told[2].contains(&first.name), "{told:?}");
    drop(again);
}

#[tokio::test]
async fn the_request_goes_before_the_workflow_and_the_workflow_before_the_pool() {
    let pool = Pool::start().await;
    let steps = "steps: [{ id: a, tool: echo }, { id: b, tool: echo }]\n";
    pool.home().publish("plain", 1, &format!("name: plain\n{steps}")).await.unwrap();
    pool.home().publish("own", 1, &format!("name: own\nmode: classic\n{steps}")).await.unwrap();
    let _scheduler = pool.schedule(quick()).await;
    ask(&pool, "plain", "p0", &[]).await;
    let (mode, second) = begun(&pool, "p0").await;
    assert!(mode.is_empty() && second.starts_with("ready"), "hybrid by default: {mode} {second}");
    pool.home().switch_mode(("ada", "x"), ModeMove::Switch(Optimized), None).await.unwrap();
    for (workflow, id, more, expected) in [
        ("plain", "p1", &[][..], "optimized"),
        ("own", "o1", &[], "classic"),
        ("own", "o2", &["mode", "state_machine"], "state_machine"),
    ] {
        ask(&pool, workflow, id, more).await;
        let (mode, second) = begun(&pool, id).await;
        assert_eq!(
            (mode.as_str(), second.as_str()),
            (expected, ""),
            "{id}: in order, the second step waits for its turn"
        );
    }
    ask(&pool, "own", "o3", &["mode", "hybrid"]).await;
    let (mode, second) = begun(&pool, "o3").await;
    assert!(mode.is_empty() && second.starts_with("ready"), "{mode} {second}");
}

#[tokio::test]
async fn a_mode_that_is_damaged_stops_no_run_and_a_bound_is_given_to_who_has_none() {
    let pool = Pool::start().await;
    pool.home().publish("plain", 1, "name: plain\nsteps: [{ id: a, tool: echo }]\n").await.unwrap();
    pool.home()
        .publish("own", 1, "name: own\ntimeout_ms: 5000\nsteps: [{ id: a, tool: echo }]\n")
        .await
        .unwrap();
    let _scheduler = pool.schedule(Settings { run_timeout_ms: Some(60_000), ..quick() }).await;
    pool.server.cli(&["SET", &pool.home().keys().mode(), "x"]).await.unwrap();
    for (workflow, least, most) in [("plain", 50_000, 60_000), ("own", 1, 5_000)] {
        ask(&pool, workflow, workflow, &[]).await;
        assert_eq!(begun(&pool, workflow).await.0, "");
        let score = pool.server.cli(&["ZSCORE", &pool.home().keys().live(), workflow]).await.unwrap();
        let left = score.trim().parse::<f64>().unwrap() - pool.home().now_ms().await.unwrap() as f64;
        assert!((f64::from(least)..=f64::from(most)).contains(&left), "{workflow}: {left}");
    }
}
