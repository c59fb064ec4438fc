//! Promises about runs and their steps.

use std::time::Duration;

use tidemill_protocol::{RunState, StepState};
use tidemill_store::{
    DeferState, Deferral, Dependent, Due, Held, Mode, NewRun, Released, RootStep, Settled, Started,
    StepOutcome, keys,
};

use crate::flow::{WF, audit, moves, outcome, run, settle, slot, start, step_of};
use crate::pool::{Pool, claim, field};

pub(crate) async fn a_run_goes_through_its_graph_and_its_audit_has_no_gap(pool: &Pool) {
    start(pool, "r1").await;
    let mut worker = pool.worker("w1");
    let first = claim(&mut worker, "default", 2).await;
    pool.interruption().await;
    let both: Vec<_> =
        first.iter().map(|e| outcome(&e.entry, "r1", step_of(e), StepState::Succeeded)).collect();
    assert_eq!(settle(pool, &both).await, [Settled::Recorded, Settled::Recorded]);
    assert_eq!(settle(pool, &both).await, [Settled::Stale, Settled::Stale], "an outcome counts once");
    let last = claim(&mut worker, "default", 1).await;
    assert_eq!(step_of(&last[0]), 2);
    assert_eq!(
        settle(pool, &[outcome(&last[0].entry, "r1", 2, StepState::Succeeded)]).await,
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
    assert_eq!(pool.length(&pool.jobs()).await, "0");
    assert!(pool.cli(&["PTTL", &pool.keys().run("r1")]).await.parse::<i64>().unwrap() > 0);
}

pub(crate) async fn a_failed_step_ends_the_run_and_leaves_a_letter_that_can_be_replayed(pool: &Pool) {
    start(pool, "r1").await;
    let mut worker = pool.worker("w1");
    let first = claim(&mut worker, "default", 2).await;
    pool.interruption().await;
    let failed = outcome(&first[0].entry, "r1", step_of(&first[0]), StepState::Failed);
    assert_eq!(settle(pool, &[failed]).await, [Settled::RunEnded]);
    let late = outcome(&first[1].entry, "r1", step_of(&first[1]), StepState::Succeeded);
    assert_eq!(settle(pool, &[late]).await, [Settled::Recorded], "what was in flight records its own end");
    let run = pool.home().run("r1").await.unwrap().unwrap();
    assert_eq!(run.state, RunState::Failed);
    assert!(run.error.unwrap().contains("boom"));
    assert!(!run.steps.contains_key(&2), "nothing is dispatched after the end");
    let letters = pool.home().letters(None, 10).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].field("input").unwrap(), "{\"n\":1}");
    assert_eq!(pool.home().beat("w1", 1, 0).await.unwrap().cancelled, ["run r1"]);
}

pub(crate) async fn of_a_thousand_settlers_of_a_step_one_wins(pool: &Pool) {
    start(pool, "r1").await;
    let mut worker = pool.worker("w1");
    let first = claim(&mut worker, "default", 2).await;
    pool.interruption().await;
    let race = (0..1_000).map(|_| async {
        settle(pool, &[outcome(&first[0].entry, "r1", step_of(&first[0]), StepState::Succeeded)]).await[0]
    });
    let replies = futures_util::future::join_all(race).await;
    assert_eq!(replies.iter().filter(|reply| **reply == Settled::Recorded).count(), 1);
    assert_eq!(replies.iter().filter(|reply| **reply == Settled::Stale).count(), 999);
    assert_eq!(pool.home().audit("r1", 0, 1000).await.unwrap().len(), 5);
}

pub(crate) async fn a_second_run_of_the_same_id_is_dropped(pool: &Pool) {
    start(pool, "r1").await;
    let mut scheduler = pool.scheduler("s2");
    pool.xadd(&pool.keys().runs(), &["workflow", "flow", "id", "r1"]).await;
    let asked = claim(&mut scheduler, keys::RUNS, 1).await;
    let again = NewRun {
        entry: &asked[0].entry,
        id: "r1",
        workflow: WF,
        deadline_ms: 0,
        fields: Vec::new(),
        labels: &tidemill_protocol::NO_LABELS,
        parent: None,
        given: Vec::new(),
        roots: Vec::new(),
        more: None,
    };
    assert_eq!(
        pool.home().start("s2", &["default".to_owned()], &[again]).await.unwrap(),
        [Started::Duplicate]
    );
    assert_eq!(pool.length(&pool.keys().runs()).await, "0");
}

pub(crate) async fn a_step_that_is_retried_or_parked_comes_back_with_its_record(pool: &Pool) {
    start(pool, "r1").await;
    let mut worker = pool.worker("w1");
    for (state, attempt) in [(DeferState::Parked, 1), (DeferState::Retrying, 2)] {
        let held = claim(&mut worker, "default", if attempt == 1 { 2 } else { 1 }).await;
        let entry = &held.iter().find(|entry| step_of(entry) == 0).unwrap().entry;
        pool.interruption().await;
        let aside = Deferral {
            entry,
            id: "",
            slot: Some(slot("r1", 0)),
            state,
            due: Due::In(Duration::from_millis(5)),
            note: "service is paused",
            ran: Duration::from_millis(2),
            attempt: 1,
            changes: vec![("attempt", attempt.to_string())],
        };
        assert_eq!(
            pool.home().defer("default", keys::WORKERS, "w1", std::slice::from_ref(&aside)).await.unwrap(),
            [true]
        );
        assert_eq!(pool.home().defer("default", keys::WORKERS, "w1", &[aside]).await.unwrap(), [false]);
        let record = run(pool, "r1").await.steps[&0].clone();
        let wanted = if attempt == 1 { StepState::Parked } else { StepState::Retrying };
        assert_eq!((record.state, record.attempt, record.entry), (wanted, 1, None));
        let members = pool.becomes_due("default").await;
        assert_eq!(members, [slot("r1", 0).member()]);
        assert_eq!(pool.home().promote("default", &members).await.unwrap(), [true]);
        let record = run(pool, "r1").await.steps[&0].clone();
        assert_eq!((record.state, record.attempt), (StepState::Ready, attempt), "parking costs no attempt");
    }
    let back = claim(&mut worker, "default", 1).await;
    assert_eq!(field(&back[0], "attempt").unwrap(), "2");
    let end = StepOutcome { attempt: 2, ..outcome(&back[0].entry, "r1", 0, StepState::Succeeded) };
    assert_eq!(settle(pool, &[end]).await, [Settled::Recorded]);
    let expected = "pending ready,ready parked,parked ready,ready running,running retrying,retrying ready,\
                    ready running,running succeeded";
    assert_eq!(moves(&audit(pool, "r1").await, "a").join(","), expected);
}

pub(crate) async fn a_step_of_a_dead_worker_moves_with_its_record(pool: &Pool) {
    start(pool, "r1").await;
    let held = claim(&mut pool.worker("w1"), "default", 2).await;
    let lost = held.iter().find(|entry| step_of(entry) == 0).unwrap();
    pool.home().beat("w1", 3, 0).await.unwrap();
    pool.interruption().await;
    let jobs = pool.jobs();
    let moving = [Held { entry: lost.entry.clone(), slot: Some(slot("r1", 0)), attempt: 1 }];
    let take = async |who| pool.home().release((&jobs, keys::WORKERS), who, ("w1", Some("3")), &moving).await;
    let (one, other) = tokio::join!(take("s1"), take("s2"));
    let mut taken = [one.unwrap().remove(0), other.unwrap().remove(0)];
    taken.sort_by_key(|taken| *taken == Released::Gone);
    let [Released::Moved(new), Released::Gone] = &taken else { panic!("{taken:?}") };
    assert_eq!(run(pool, "r1").await.steps[&0].entry.as_ref(), Some(new));
    let late = outcome(&lost.entry, "r1", 0, StepState::Succeeded);
    assert_eq!(settle(pool, &[late]).await, [Settled::Stale], "the zombie settles nothing");
    let again = claim(&mut pool.worker("w2"), "default", 1).await;
    assert_eq!((again[0].entry.as_str(), &*field(&again[0], "_deaths").unwrap()), (new.as_str(), "1"));
    assert_eq!(
        settle(pool, &[outcome(&again[0].entry, "r1", 0, StepState::Succeeded)]).await,
        [Settled::Recorded]
    );
    let expected = ["pending ready", "ready running", "running ready", "ready running", "running succeeded"];
    assert_eq!(moves(&audit(pool, "r1").await, "a"), expected);
}

/// What carries a fan-out on: from step `from`, `here` of them and then `more`.
fn stretch<'a>(
    entry: &'a tidemill_protocol::EntryId,
    names: &'a [String],
    (from, here): (usize, usize),
    more: Option<u32>,
) -> StepOutcome<'a> {
    let dependents = (from..from + here).map(|step| Dependent {
        step: u32::try_from(step).unwrap(),
        name: &names[step],
        ended: 0,
        ok: 0,
        target: 0,
    });
    StepOutcome {
        step: None,
        name: "roots",
        steps: names.len(),
        mode: Mode::default(),
        more,
        dependents: dependents.collect(),
        ..outcome(entry, "wide", 0, StepState::Succeeded)
    }
}

pub(crate) async fn a_fan_out_wider_than_one_call_goes_on_where_it_stopped(pool: &Pool) {
    let names: Vec<String> = (0..1_200).map(|step| format!("step{step}")).collect();
    pool.xadd(&pool.keys().runs(), &["workflow", "flow", "id", "wide"]).await;
    let asked = claim(&mut pool.scheduler("s1"), keys::RUNS, 1).await;
    let roots = (0..500).map(|step: u32| RootStep { step, name: &names[step as usize], target: 0 }).collect();
    let wide = NewRun {
        entry: &asked[0].entry,
        id: "wide",
        workflow: WF,
        deadline_ms: 0,
        fields: Vec::new(),
        labels: &tidemill_protocol::NO_LABELS,
        parent: None,
        given: Vec::new(),
        roots,
        more: Some(500),
    };
    pool.home().start("s1", &["default".to_owned()], &[wide]).await.unwrap();
    let mut worker = pool.worker("w1");
    let held = claim(&mut worker, "default", 501).await;
    let fan = held.iter().find(|entry| field(entry, "fan").is_some()).unwrap();
    assert_eq!((&*field(fan, "fan").unwrap(), &*field(fan, "from").unwrap()), ("roots", "500"));
    pool.interruption().await;
    let next = stretch(&fan.entry, &names, (500, 500), Some(1_000));
    assert_eq!(settle(pool, std::slice::from_ref(&next)).await, [Settled::Recorded]);
    assert_eq!(settle(pool, &[next]).await, [Settled::Stale], "a stretch is dispatched once");
    let held = claim(&mut worker, "default", 501).await;
    let fan = held.iter().find(|entry| field(entry, "fan").is_some()).unwrap();
    assert_eq!(field(fan, "from").unwrap(), "1000");
    assert_eq!(settle(pool, &[stretch(&fan.entry, &names, (1_000, 200), None)]).await, [Settled::Recorded]);
    assert_eq!(claim(&mut worker, "default", 200).await.len(), 200);
    assert_eq!(run(pool, "wide").await.steps.len(), 1_200);
    assert_eq!(audit(pool, "wide").await.len(), 1_201);
}
