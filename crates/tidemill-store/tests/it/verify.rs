//! Stored state against its audit: what fits is left in peace, whatever is changed by hand is found.

use std::sync::Arc;
use std::time::Duration;

use tidemill_protocol::{EntryId, StepState};
use tidemill_store::{
    ClaimedEntry, Claimer, DeferState, Deferral, Drift, Due, Error, Expansion, ItemOutcome, RunWalk, Settled,
    Shape, Shapes, StepShape, Verdict, keys,
};

use crate::flow::{NAMES, WF, outcome, run, settle, slot, start, step_of};
use crate::model::STEPS;
use crate::pool::{Pool, claim, field};

/// The shape of the flow; its step `a` may have items.
struct Flow;

impl Shapes for Flow {
    async fn of(&self, workflow: &str) -> Result<Option<Arc<Shape>>, Error> {
        let step = |id: &str| StepShape { id: id.to_owned(), ..StepShape::default() };
        let mut steps = NAMES.map(step).to_vec();
        steps[0].has_items = true;
        steps[2].needs = vec![0, 1];
        Ok((workflow == WF).then(|| Arc::new(Shape { steps })))
    }
}

/// The shape of the run that random sequences are made with.
struct Four;

impl Shapes for Four {
    async fn of(&self, workflow: &str) -> Result<Option<Arc<Shape>>, Error> {
        let step = |id: &str| StepShape { id: id.to_owned(), ..StepShape::default() };
        let mut steps = STEPS.map(step).to_vec();
        for step in &mut steps[2..] {
            step.needs = vec![0, 1];
        }
        steps[3].counts_successes = true;
        Ok((workflow == WF).then(|| Arc::new(Shape { steps })))
    }
}

/// What does not fit in the run of a random sequence. Which of its ends make it fail is drawn by lot, so that count is left out.
pub(crate) async fn misfits(pool: &Pool) -> Vec<(Drift, String)> {
    let verdict = pool.home().verify("r1", &Four).await.unwrap().unwrap();
    assert!(!verdict.moving);
    let findings = verdict.findings.into_iter().map(|finding| (finding.kind, finding.place));
    findings.filter(|(_, place)| place != "run f").collect()
}

async fn verify(pool: &Pool, id: &str) -> Verdict {
    pool.home().verify(id, &Flow).await.unwrap().unwrap()
}

async fn is_clean(pool: &Pool, id: &str, when: &str) {
    let verdict = verify(pool, id).await;
    assert!(verdict.is_clean() && !verdict.moving, "{when}: {verdict:?}");
}

async fn finds(pool: &Pool, id: &str, drift: Drift, place: &str) -> bool {
    let verdict = verify(pool, id).await;
    let found = verdict.findings.iter().find(|finding| finding.kind == drift && finding.place == place);
    let Some(found) = found else { panic!("{id}: no {drift:?} at {place:?} in {verdict:?}") };
    found.repairable
}

/// Settles every step of a run as succeeded.
async fn to_its_end(pool: &Pool, id: &str) {
    let mut worker = pool.worker("w1");
    for _ in 0..3 {
        let claimed = claim(&mut worker, "default", 1).await;
        let done = outcome(&claimed[0].entry, id, step_of(&claimed[0]), StepState::Succeeded);
        settle(pool, &[done]).await;
    }
}

pub(crate) async fn a_run_fits_its_audit_at_every_point_of_its_life(pool: &Pool) {
    assert_eq!(pool.home().verify("r1", &Flow).await.unwrap(), None);
    start(pool, "r1").await;
    is_clean(pool, "r1", "started").await;
    let mut worker = pool.worker("w1");
    let claimed = claim(&mut worker, "default", 2).await;
    is_clean(pool, "r1", "claimed").await;
    let (id, step) = (&claimed[0].entry, step_of(&claimed[0]));
    let retry = Deferral {
        entry: id,
        id: "",
        slot: Some(slot("r1", step)),
        state: DeferState::Retrying,
        due: Due::In(Duration::ZERO),
        note: "test",
        ran: Duration::from_millis(2),
        attempt: 1,
        changes: vec![("attempt", "2".into())],
    };
    assert_eq!(pool.home().defer("default", keys::WORKERS, "w1", &[retry]).await.unwrap(), [true]);
    is_clean(pool, "r1", "retrying").await;
    let due = pool.becomes_due("default").await;
    pool.home().promote("default", &due).await.unwrap();
    is_clean(pool, "r1", "promoted").await;
    let again = claim(&mut worker, "default", 1).await;
    let second = outcome(&again[0].entry, "r1", step, StepState::Succeeded);
    settle(pool, &[tidemill_store::StepOutcome { attempt: 2, ..second }]).await;
    is_clean(pool, "r1", "settled").await;
    settle(pool, &[outcome(&claimed[1].entry, "r1", step_of(&claimed[1]), StepState::Succeeded)]).await;
    is_clean(pool, "r1", "joined").await;
    pool.interruption().await;
    is_clean(pool, "r1", "after the interruption").await;
    let last = claim(&mut worker, "default", 1).await;
    settle(pool, &[outcome(&last[0].entry, "r1", 2, StepState::Succeeded)]).await;
    is_clean(pool, "r1", "ended").await;
    assert_eq!(run(pool, "r1").await.state.as_str(), "succeeded");
    let verdict = verify(pool, "r1").await;
    assert_eq!((verdict.records, verdict.unsettled), (14, 0));
}

/// Starts a run, ends its step `b` and expands its step `a`; replies the items that may run at once, claimed.
async fn expanded(pool: &Pool, worker: &mut Claimer, total: u64, concurrency: u64) -> Vec<ClaimedEntry> {
    start(pool, "r1").await;
    let first = claim(worker, "default", 2).await;
    let (each, other) = if step_of(&first[0]) == 0 { (&first[0], &first[1]) } else { (&first[1], &first[0]) };
    settle(pool, &[outcome(&other.entry, "r1", 1, StepState::Succeeded)]).await;
    let expansion = Expansion {
        entry: &each.entry,
        run: "r1",
        workflow: WF,
        step: 0,
        name: "a",
        attempt: 1,
        total,
        concurrency,
        queue: "default",
        keep_ms: 60_000,
    };
    assert!(pool.home().expand("default", "w1", &expansion).await.unwrap());
    claim(worker, "default", usize::try_from(concurrency).unwrap()).await
}

fn item(entry: &ClaimedEntry) -> u64 {
    field(entry, "item").unwrap().parse().unwrap()
}

fn succeeded(entry: &EntryId, item: u64) -> ItemOutcome<'_> {
    ItemOutcome {
        entry,
        run: "r1",
        workflow: WF,
        step: 0,
        item,
        name: "a",
        queue: "default",
        to: StepState::Succeeded,
        attempt: 1,
        ran: Duration::from_millis(1),
        output: b"1",
        error: "",
        failed: false,
        did_not_run: false,
        tolerate: "1".to_owned(),
    }
}

#[tokio::test]
async fn a_for_each_fits_while_its_items_run_and_when_they_are_gathered() {
    let pool = Pool::start().await;
    let mut worker = pool.worker("w1");
    let mut held = expanded(&pool, &mut worker, 3, 2).await;
    is_clean(&pool, "r1", "expanded").await;
    for (done, to) in [StepState::Succeeded, StepState::Failed, StepState::Succeeded].into_iter().enumerate()
    {
        let entry = held.remove(0);
        let ended =
            ItemOutcome { to, failed: to == StepState::Failed, ..succeeded(&entry.entry, item(&entry)) };
        assert_eq!(pool.home().settle_items("default", "w1", &[ended]).await.unwrap(), [Settled::Recorded]);
        is_clean(&pool, "r1", &format!("{done} items done")).await;
        if done == 0 {
            held.extend(claim(&mut worker, "default", 1).await);
        }
    }
    let run_key = pool.keys().run("r1");
    for (count, wrong, place) in [
        ("g0", "2", "step a, g0"),
        ("h0", "0", "step a, h0"),
        ("u0", "2", "step a, u0"),
        ("u0", "9000000000000000000", "step a, u0"),
    ] {
        let right = pool.cli(&["HGET", &run_key, count]).await;
        pool.cli(&["HSET", &run_key, count, wrong]).await;
        finds(&pool, "r1", Drift::ItemCount, place).await;
        pool.cli(&["HSET", &run_key, count, &right]).await;
    }
    let items = pool.keys().items("r1", 0);
    let right = pool.cli(&["HGET", &items, "s1"]).await;
    pool.cli(&["HSET", &items, "s1", &right.replace("failed", "skipped")]).await;
    finds(&pool, "r1", Drift::StepState, "item a[1]").await;
    pool.cli(&["HSET", &items, "s1", &right]).await;
    is_clean(&pool, "r1", "put right").await;
    let right = pool.cli(&["HGET", &run_key, "s0"]).await;
    let entry = run(&pool, "r1").await.steps[&0].entry.clone().unwrap();
    pool.cli(&["HSET", &run_key, "s0", &right.replace(&entry, "-")]).await;
    assert!(finds(&pool, "r1", Drift::Lost, "step a").await, "its gathering was never asked for");
    pool.cli(&["HSET", &run_key, "s0", &right]).await;
    pool.cli(&["HDEL", &run_key, "n0", "u0", "g0", "h0"]).await;
    finds(&pool, "r1", Drift::ItemCount, "step a, u0").await;
    pool.cli(&["HSET", &run_key, "n0", "3", "u0", "3", "g0", "3", "h0", "1"]).await;
    is_clean(&pool, "r1", "put right again").await;
    let gather = claim(&mut worker, "default", 1).await;
    settle(&pool, &[outcome(&gather[0].entry, "r1", 0, StepState::Succeeded)]).await;
    is_clean(&pool, "r1", "gathered").await;
    pool.cli(&["HSET", &run_key, "st", "succeeded"]).await;
    pool.cli(&["DEL", &items]).await;
    let verdict = verify(&pool, "r1").await;
    assert!(verdict.findings.iter().all(|finding| finding.kind != Drift::ItemCount), "{verdict:?}");
}

#[tokio::test]
async fn whatever_is_changed_in_an_ended_run_is_found() {
    let pool = Pool::start().await;
    start(&pool, "r1").await;
    to_its_end(&pool, "r1").await;
    let key = pool.keys().run("r1");
    let c = pool.cli(&["HGET", &key, "s2"]).await;
    let words: Vec<&str> = c.split(' ').collect();
    let with = |at: usize, word: &str| {
        let mut words = words.clone();
        words[at] = word;
        words.join(" ")
    };
    let changes = [
        ("st", "failed".to_owned(), Drift::RunState, "run"),
        ("st", "broken".to_owned(), Drift::Unreadable, "run"),
        ("q", "9".to_owned(), Drift::AuditLength, "audit"),
        ("d", "2".to_owned(), Drift::EndedCount, "run d"),
        ("f", "1".to_owned(), Drift::EndedCount, "run f"),
        ("t1", "5".to_owned(), Drift::RunTime, "run t1"),
        ("t2", "5".to_owned(), Drift::RunTime, "run t2"),
        ("c2", "1".to_owned(), Drift::NeedsCount, "step c, c2"),
        ("k2", "1".to_owned(), Drift::NeedsCount, "step c, k2"),
        ("s2", "nonsense".to_owned(), Drift::Unreadable, "step c"),
        ("s2", with(0, "failed"), Drift::StepState, "step c"),
        ("s2", with(1, "2"), Drift::StepAttempt, "step c"),
        ("s2", with(2, "5"), Drift::StepTime, "step c"),
        ("s2", with(3, "5"), Drift::StepTime, "step c"),
        ("s2", with(4, "5"), Drift::StepTime, "step c"),
        ("s2", with(5, "w9"), Drift::StepTime, "step c"),
        ("wf", "flaw@1".to_owned(), Drift::Workflow, "run"),
    ];
    for (name, wrong, drift, place) in changes {
        let right = pool.cli(&["HGET", &key, name]).await;
        pool.cli(&["HSET", &key, name, &wrong]).await;
        assert!(!finds(&pool, "r1", drift, place).await, "{name}");
        if right.is_empty() {
            pool.cli(&["HDEL", &key, name]).await;
        } else {
            pool.cli(&["HSET", &key, name, &right]).await;
        }
        is_clean(&pool, "r1", name).await;
    }
    pool.cli(&["HDEL", &key, "s0"]).await;
    finds(&pool, "r1", Drift::StepState, "step a").await;
}

#[tokio::test]
async fn an_audit_with_a_record_less_or_too_many_or_changed_is_found() {
    let pool = Pool::start().await;
    start(&pool, "r1").await;
    to_its_end(&pool, "r1").await;
    let audit = pool.keys().audit("r1");
    let copy = pool.cli(&["COPY", &audit, &format!("{audit}x")]).await;
    assert_eq!(copy, "1");
    let entries = pool.cli(&["XRANGE", &audit, "-", "+"]).await;
    let ids: Vec<&str> = entries
        .lines()
        .filter(|line| tidemill_protocol::EntryId::parse((*line).to_owned()).is_ok())
        .collect();
    for id in &ids {
        pool.cli(&["XDEL", &audit, id]).await;
        let verdict = verify(&pool, "r1").await;
        assert!(!verdict.is_clean(), "without {id}");
        pool.cli(&["COPY", &format!("{audit}x"), &audit, "REPLACE"]).await;
        is_clean(&pool, "r1", "put back").await;
    }
    for (seq, text) in
        [("11", "c running failed 1 1 w1"), ("12", "x pending ready 1 1 -"), ("11", "no record")]
    {
        pool.cli(&["XADD", &audit, "*", seq, text]).await;
        assert!(!verify(&pool, "r1").await.is_clean(), "{seq} {text}");
        pool.cli(&["COPY", &format!("{audit}x"), &audit, "REPLACE"]).await;
    }
    pool.cli(&["DEL", &audit]).await;
    finds(&pool, "r1", Drift::AuditLength, "audit").await;
}

#[tokio::test]
async fn work_that_is_lost_is_found_and_can_be_repaired_only_while_its_run_lives() {
    let pool = Pool::start().await;
    start(&pool, "r1").await;
    let entry = run(&pool, "r1").await.steps[&0].entry.clone().unwrap();
    pool.cli(&["XDEL", &pool.jobs(), &entry]).await;
    assert!(finds(&pool, "r1", Drift::Lost, "step a").await);
    let other = pool.cli(&["XADD", &pool.jobs(), "*", "tool", "echo"]).await;
    let key = pool.keys().run("r1");
    let text = pool.cli(&["HGET", &key, "s0"]).await;
    pool.cli(&["HSET", &key, "s0", &text.replace(&entry, &other)]).await;
    assert!(!finds(&pool, "r1", Drift::Foreign, "step a").await);
    pool.cli(&["HSET", &key, "s0", &text]).await;
    let end = tidemill_store::EndRun {
        id: "r1",
        to: tidemill_protocol::RunState::Cancelled,
        who: "me",
        code: "cancelled",
        reason: "enough",
        only_past_deadline: false,
        spares: false,
        by_force: false,
        home: None,
        reply_to: None,
    };
    pool.home().end_run(&end).await.unwrap();
    assert!(!finds(&pool, "r1", Drift::Lost, "step a").await, "its run has ended");
    assert_eq!(verify(&pool, "r1").await.unsettled, 1, "step b ends when its entry is met");
}

#[tokio::test]
async fn a_run_that_stands_still_with_nothing_in_flight_is_found() {
    let pool = Pool::start().await;
    let keys = pool.keys();
    // begun half a century ago, and nothing of it was ever dispatched
    pool.cli(&["HSET", &keys.run("r1"), "st", "running", "wf", WF, "t1", "1000", "q", "1"]).await;
    pool.cli(&["XADD", &keys.audit("r1"), "*", "1", "@ queued running 1000 0 s1"]).await;
    pool.cli(&["ZADD", &keys.live(), "+inf", "r1"]).await;
    assert!(finds(&pool, "r1", Drift::Still, "run").await);
    let now = pool.home().now_ms().await.unwrap().to_string();
    pool.cli(&["HSET", &keys.run("r1"), "t1", &now]).await;
    pool.cli(&["DEL", &keys.audit("r1")]).await;
    let begun = format!("@ queued running {now} 0 s1");
    pool.cli(&["XADD", &keys.audit("r1"), "*", "1", &begun]).await;
    is_clean(&pool, "r1", "between two steps for a moment").await;
}

#[tokio::test]
async fn every_run_is_met_wherever_it_is_listed_or_not() {
    let pool = Pool::start().await;
    for id in ["r1", "r2", "r3", "r4"] {
        start(&pool, id).await;
    }
    let keys = pool.keys();
    pool.cli(&["ZREM", &keys.live(), "r2"]).await;
    pool.cli(&["DEL", &keys.run("r3")]).await;
    pool.cli(&["ZADD", &keys.ended(), "1", "r4"]).await;
    let (mut walk, mut met) = (Some(RunWalk::default()), Vec::new());
    while let Some(from) = walk {
        let (ids, next) = pool.home().walk_runs(from, 10).await.unwrap();
        met.extend(pool.home().verify_all(&ids, &Flow).await.unwrap());
        walk = next;
    }
    met.sort_by(|one, other| one.run.cmp(&other.run));
    met.dedup();
    let listings = |verdict: &Verdict| {
        let all =
            verdict.findings.iter().map(|finding| (finding.kind, finding.stored.clone(), finding.repairable));
        all.collect::<Vec<_>>()
    };
    let ids: Vec<&str> = met.iter().map(|verdict| &*verdict.run).collect();
    assert_eq!(ids, ["r1", "r2", "r3", "r4"]);
    assert_eq!(listings(&met[0]), []);
    assert_eq!(listings(&met[1]), [(Drift::Listing, "not in the set of live runs".to_owned(), false)]);
    assert_eq!(
        listings(&met[2]),
        [(Drift::Listing, "in the set of live runs, without a record".to_owned(), true)]
    );
    assert_eq!(listings(&met[3]), [(Drift::Listing, "in the set of ended runs".to_owned(), false)]);
}

#[tokio::test]
async fn a_key_of_another_type_is_a_finding_of_its_run_and_not_the_end_of_the_look() {
    let pool = Pool::start().await;
    start(&pool, "r1").await;
    start(&pool, "r2").await;
    pool.cli(&["SET", &pool.keys().audit("r1"), "mine"]).await;
    let both = pool.home().verify_all(&["r1".to_owned(), "r2".to_owned()], &Flow).await.unwrap();
    assert_eq!(both.len(), 2);
    finds(&pool, "r1", Drift::Unreadable, "run").await;
    is_clean(&pool, "r2", "beside it").await;
    pool.cli(&["HDEL", &pool.keys().run("r2"), "st"]).await;
    finds(&pool, "r2", Drift::Unreadable, "run").await;
}

#[tokio::test]
async fn many_items_are_read_in_slices_and_each_is_looked_at() {
    const ITEMS: u64 = 1_200;
    let pool = Pool::start().await;
    let mut worker = pool.worker("w1");
    let held = expanded(&pool, &mut worker, ITEMS, 400).await;
    is_clean(&pool, "r1", "expanded").await;
    let mut held: Vec<_> = held.into_iter().map(|entry| (item(&entry), entry)).collect();
    let mut done = 0;
    while done < ITEMS {
        let outcomes: Vec<_> = held.iter().map(|(n, entry)| succeeded(&entry.entry, *n)).collect();
        let settled = pool.home().settle_items("default", "w1", &outcomes).await.unwrap();
        assert!(settled.iter().all(|settled| *settled == Settled::Recorded));
        done += settled.len() as u64;
        if done < ITEMS {
            let next = claim(&mut worker, "default", 400).await;
            held = next.into_iter().map(|entry| (item(&entry), entry)).collect();
        }
    }
    is_clean(&pool, "r1", "all items ended").await;
    let items = pool.keys().items("r1", 0);
    let right = pool.cli(&["HGET", &items, "s1150"]).await;
    pool.cli(&["HSET", &items, "s1150", &right.replace(" 1 ", " 3 ")]).await;
    finds(&pool, "r1", Drift::StepAttempt, "item a[1150]").await;
    pool.cli(&["HDEL", &items, "s1150"]).await;
    finds(&pool, "r1", Drift::StepState, "item a[1150]").await;
}

#[tokio::test]
async fn a_run_that_goes_on_all_the_time_is_never_taken_for_a_broken_one() {
    let pool = Arc::new(Pool::start().await);
    for n in 0..20 {
        start(&pool, &format!("r{n}")).await;
    }
    let at_work = async {
        let mut worker = pool.worker("w1");
        for _ in 0..60 {
            let claimed = claim(&mut worker, "default", 1).await;
            let id = field(&claimed[0], "run").unwrap();
            settle(&pool, &[outcome(&claimed[0].entry, &id, step_of(&claimed[0]), StepState::Succeeded)])
                .await;
        }
    };
    let ids: Vec<String> = (0..20).map(|n| format!("r{n}")).collect();
    let watched = async {
        let mut looks = 0;
        while !pool.home().live_runs(0, 1).await.unwrap().is_empty() {
            for verdict in pool.home().verify_all(&ids, &Flow).await.unwrap() {
                assert!(verdict.is_clean(), "{verdict:?}");
                looks += 1;
            }
        }
        looks
    };
    let ((), looks) = tokio::join!(at_work, watched);
    assert!(looks > 20);
}
