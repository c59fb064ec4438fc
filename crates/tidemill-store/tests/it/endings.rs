//! Promises about how runs end.

use tidemill_protocol::{RunState, StepState};
use tidemill_store::{EndRun, FinishRun, Settled, StepOutcome};

use crate::flow::{WF, audit, moves, outcome, run, settle, start, start_with, step_of};
use crate::pool::{Pool, claim, field};

fn end(id: &str, to: RunState) -> EndRun<'_> {
    EndRun {
        id,
        to,
        who: "ada",
        code: "cancelled",
        reason: "not wanted",
        only_past_deadline: false,
        spares: false,
        by_force: false,
        home: None,
        reply_to: None,
    }
}

pub(crate) async fn a_computed_output_ends_the_run_once(pool: &Pool) {
    let replies = pool.replies();
    let fields: Vec<(&str, &[u8])> = vec![("in", b"1"), ("rt", b"60000"), ("rp", replies.as_bytes())];
    start_with(pool, "r1", 0, fields).await;
    let mut worker = pool.worker("w1");
    for count in [2, 1] {
        for entry in claim(&mut worker, "default", count).await {
            let mut ended = outcome(&entry.entry, "r1", step_of(&entry), StepState::Succeeded);
            ended.mode.gives_output = false;
            assert_eq!(settle(pool, &[ended]).await, [Settled::Recorded]);
        }
    }
    let asked = claim(&mut worker, "default", 1).await;
    assert_eq!(field(&asked[0], "finish").unwrap(), "1", "the last end asks for the output");
    pool.interruption().await;
    let finish = FinishRun {
        home: "q",
        entry: &asked[0].entry,
        id: "r1",
        workflow: WF,
        to: RunState::Succeeded,
        output: b"[1]",
        error: "",
        code: "",
        reason: "",
        retention_ms: 60_000,
        reply_to: Some(&replies),
    };
    assert!(pool.home().finish("default", "w1", &finish).await.unwrap());
    assert!(!pool.home().finish("default", "w1", &finish).await.unwrap(), "a second time is stale");
    let ended = run(pool, "r1").await;
    assert_eq!((ended.state, ended.output.as_deref()), (RunState::Succeeded, Some(&b"[1]"[..])));
    assert_eq!(moves(&audit(pool, "r1").await, "@"), ["queued running", "running succeeded"]);
    let result: serde_json::Value =
        serde_json::from_str(&pool.home().result("r1").await.unwrap().unwrap()).unwrap();
    assert_eq!((&result["state"], &result["output"][0]), (&"succeeded".into(), &1.into()));
    assert_eq!(pool.length(&replies).await, "1");
    assert_eq!(pool.home().run_counts().await.unwrap(), (0, 1));
    assert_eq!(pool.home().ended_runs(0, 10).await.unwrap(), ["r1"]);
}

pub(crate) async fn a_run_is_cancelled_once_and_its_steps_record_their_own_end(pool: &Pool) {
    start(pool, "r1").await;
    let mut worker = pool.worker("w1");
    let held = claim(&mut worker, "default", 2).await;
    pool.interruption().await;
    assert_eq!(pool.home().end_run(&end("r1", RunState::Cancelled)).await.unwrap(), Some(true));
    assert_eq!(pool.home().end_run(&end("r1", RunState::Failed)).await.unwrap(), Some(false), "it has ended");
    assert_eq!(pool.home().beat("w1", 1, 0).await.unwrap().cancelled, ["run r1"]);
    let stopped: Vec<StepOutcome<'_>> =
        held.iter().map(|e| outcome(&e.entry, "r1", step_of(e), StepState::Cancelled)).collect();
    assert_eq!(settle(pool, &stopped).await, [Settled::Recorded, Settled::Recorded]);
    let ended = run(pool, "r1").await;
    assert_eq!(ended.state, RunState::Cancelled);
    assert!(ended.error.unwrap().contains("not wanted"));
    assert_eq!(ended.steps[&0].state, StepState::Cancelled);
    assert!(!ended.steps.contains_key(&2), "nothing is dispatched after the end");
    assert_eq!(pool.home().letter_count().await.unwrap(), 0, "who cancels wants no letter");
    audit(pool, "r1").await;
    assert_eq!(pool.length(&pool.jobs()).await, "0");
}

pub(crate) async fn a_run_ends_at_its_deadline_and_not_before(pool: &Pool) {
    start_with(pool, "late", 30, vec![("in", b"7"), ("rms", b"60000")]).await;
    start_with(pool, "early", 3_600_000, vec![("in", b"7")]).await;
    pool.interruption().await;
    let past = |id| EndRun { only_past_deadline: true, code: "deadline", ..end(id, RunState::TimedOut) };
    let now = pool.home().now_ms().await.unwrap();
    pool.passes(now + 40).await;
    let now = pool.home().now_ms().await.unwrap();
    assert_eq!(pool.home().overdue_runs(now, 10).await.unwrap(), ["late"]);
    assert_eq!(pool.home().end_run(&past("early")).await.unwrap(), Some(false));
    assert_eq!(pool.home().end_run(&past("late")).await.unwrap(), Some(true));
    assert_eq!(run(pool, "late").await.state, RunState::TimedOut);
    assert_eq!(run(pool, "early").await.state, RunState::Running);
    let letters = pool.home().letters(None, 10).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!((&*letters[0].code, letters[0].field("input").unwrap().as_str()), ("deadline", "7"));
    assert_eq!(pool.home().live_runs(0, 10).await.unwrap(), ["early"]);
    let left: i64 = pool.cli(&["PTTL", &pool.keys().run("late")]).await.parse().unwrap();
    assert!((1..=60_000).contains(&left), "the retention is the run's own: {left}");
}

pub(crate) async fn a_run_that_is_gone_refuses_everything(pool: &Pool) {
    start(pool, "r1").await;
    let held = claim(&mut pool.worker("w1"), "default", 2).await;
    pool.interruption().await;
    pool.cli(&["DEL", &pool.keys().run("r1"), &pool.keys().audit("r1")]).await;
    let late = outcome(&held[0].entry, "r1", step_of(&held[0]), StepState::Succeeded);
    assert_eq!(settle(pool, &[late]).await, [Settled::RunGone]);
    assert_eq!(pool.home().end_run(&end("r1", RunState::Cancelled)).await.unwrap(), None);
    assert!(pool.home().live_runs(0, 10).await.unwrap().is_empty(), "and is taken off the live ones");
    assert!(pool.home().run("r1").await.unwrap().is_none(), "no half of a run is left");
    assert_eq!(pool.length(&pool.jobs()).await, "1", "only the entry that nobody settled");
}
