use std::time::Duration;

use tidemill_protocol::{EntryId, RunState, StepState};
use tidemill_store::{ClaimedEntry, Dependent, Mode, NewRun, RootStep, Settled, Started, StepOutcome, keys};

use crate::pool::{Pool, claim};

const WF: &str = "flow@1";

/// a and b at once, then c; what a plan of three steps makes.
async fn start(pool: &Pool, id: &str) {
    let mut scheduler = pool.scheduler("s1");
    pool.xadd("tm:{0}:runs", &["workflow", "flow", "id", id]).await;
    let asked = claim(&mut scheduler, keys::RUNS, 1).await;
    let roots = [("a", 0), ("b", 1)].map(|(name, step)| RootStep { step, name, target: 0 }).to_vec();
    let run = NewRun {
        entry: &asked[0].entry,
        id,
        workflow: WF,
        deadline_ms: 60_000,
        fields: vec![("in", b"{\"n\":1}")],
        roots,
        more: None,
    };
    let started = pool.home().start("s1", &["default".to_owned()], &[run]).await.unwrap();
    assert_eq!(started, [Started::Started]);
}

fn step_of(entry: &ClaimedEntry) -> u32 {
    let value = entry.fields.iter().find(|(name, _)| &**name == b"step").unwrap().1.clone();
    String::from_utf8_lossy(&value).parse().unwrap()
}

fn outcome<'a>(entry: &'a EntryId, id: &'a str, step: u32, to: StepState) -> StepOutcome<'a> {
    let succeeded = to == StepState::Succeeded;
    StepOutcome {
        entry,
        run: id,
        workflow: WF,
        step: Some(step),
        name: ["a", "b", "c"][step as usize],
        to,
        attempt: 1,
        ran: Duration::from_millis(3),
        output: if succeeded { b"{\"ok\":true}" } else { b"" },
        error: if succeeded { "" } else { "{\"code\":\"boom\",\"message\":\"it broke\"}" },
        code: if succeeded { "" } else { "boom" },
        reason: if succeeded { "" } else { "it broke" },
        steps: 3,
        mode: Mode {
            success: succeeded,
            fails_run_now: !succeeded,
            gives_output: step == 2,
            ..Mode::default()
        },
        retention_ms: 60_000,
        reply_to: None,
        more: None,
        dependents: if step == 2 {
            Vec::new()
        } else {
            vec![Dependent { step: 2, name: "c", ended: 2, ok: 0, target: 0 }]
        },
    }
}

async fn settle(pool: &Pool, outcomes: &[StepOutcome<'_>]) -> Vec<Settled> {
    pool.home().settle_steps("default", "w1", &["default".to_owned()], outcomes).await.unwrap()
}

#[tokio::test]
async fn a_run_goes_through_its_graph_and_its_audit_has_no_gap() {
    let pool = Pool::start().await;
    start(&pool, "r1").await;
    let mut worker = pool.worker("w1");
    let first = claim(&mut worker, "default", 2).await;
    let both: Vec<_> =
        first.iter().map(|e| outcome(&e.entry, "r1", step_of(e), StepState::Succeeded)).collect();
    assert_eq!(settle(&pool, &both).await, [Settled::Recorded, Settled::Recorded]);
    assert_eq!(settle(&pool, &both).await, [Settled::Stale, Settled::Stale], "an outcome counts once");
    let last = claim(&mut worker, "default", 1).await;
    assert_eq!(step_of(&last[0]), 2);
    assert_eq!(
        settle(&pool, &[outcome(&last[0].entry, "r1", 2, StepState::Succeeded)]).await,
        [Settled::RunEnded]
    );

    let run = pool.home().run("r1").await.unwrap().unwrap();
    assert_eq!(run.state, RunState::Succeeded);
    assert_eq!(run.output.as_deref(), Some(&b"{\"ok\":true}"[..]));
    assert_eq!(run.done, 3);
    let audit = pool.home().audit("r1", 0, 1000).await.unwrap();
    let seqs: Vec<u64> = audit.iter().map(|record| record.seq).collect();
    assert_eq!(seqs, (1..=run.seq).collect::<Vec<_>>());
    let moves: Vec<_> = audit.iter().map(|r| format!("{} {} {}", r.subject, r.from, r.to)).collect();
    assert_eq!(moves.len(), 11, "{moves:#?}");
    assert_eq!(moves.last().unwrap(), "@ running succeeded");
    assert_eq!(pool.cli(&["XLEN", "tm:{0}:jobs:default"]).await, "0");
    assert!(pool.cli(&["PTTL", "tm:{0}:run:r1"]).await.parse::<i64>().unwrap() > 0);
}

#[tokio::test]
async fn a_failed_step_ends_the_run_and_leaves_a_letter_that_can_be_replayed() {
    let pool = Pool::start().await;
    start(&pool, "r1").await;
    let mut worker = pool.worker("w1");
    let first = claim(&mut worker, "default", 2).await;
    let failed = outcome(&first[0].entry, "r1", step_of(&first[0]), StepState::Failed);
    assert_eq!(settle(&pool, &[failed]).await, [Settled::RunEnded]);
    let late = outcome(&first[1].entry, "r1", step_of(&first[1]), StepState::Succeeded);
    assert_eq!(settle(&pool, &[late]).await, [Settled::Recorded], "what was in flight records its own end");
    let run = pool.home().run("r1").await.unwrap().unwrap();
    assert_eq!(run.state, RunState::Failed);
    assert!(run.error.unwrap().contains("boom"));
    assert!(!run.steps.contains_key(&2), "nothing is dispatched after the end");
    let letters = pool.home().letters(None, 10).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].field("input").unwrap(), "{\"n\":1}");
    assert_eq!(pool.home().beat("w1", 1, 0).await.unwrap().cancelled, ["r1"]);
}

#[tokio::test]
async fn of_a_thousand_settlers_of_a_step_one_wins() {
    let pool = Pool::start().await;
    start(&pool, "r1").await;
    let mut worker = pool.worker("w1");
    let first = claim(&mut worker, "default", 2).await;
    let race = (0..1_000).map(|_| async {
        settle(&pool, &[outcome(&first[0].entry, "r1", step_of(&first[0]), StepState::Succeeded)]).await[0]
    });
    let replies = futures_util::future::join_all(race).await;
    assert_eq!(replies.iter().filter(|reply| **reply == Settled::Recorded).count(), 1);
    assert_eq!(replies.iter().filter(|reply| **reply == Settled::Stale).count(), 999);
    assert_eq!(pool.home().audit("r1", 0, 1000).await.unwrap().len(), 5);
}

#[tokio::test]
async fn a_second_run_of_the_same_id_is_dropped() {
    let pool = Pool::start().await;
    start(&pool, "r1").await;
    let mut scheduler = pool.scheduler("s2");
    pool.xadd("tm:{0}:runs", &["workflow", "flow", "id", "r1"]).await;
    let asked = claim(&mut scheduler, keys::RUNS, 1).await;
    let again = NewRun {
        entry: &asked[0].entry,
        id: "r1",
        workflow: WF,
        deadline_ms: 0,
        fields: Vec::new(),
        roots: Vec::new(),
        more: None,
    };
    assert_eq!(
        pool.home().start("s2", &["default".to_owned()], &[again]).await.unwrap(),
        [Started::Duplicate]
    );
    assert_eq!(pool.cli(&["XLEN", "tm:{0}:runs"]).await, "0");
}
