//! Backups: all that a pool has to do comes back, whatever it did while it was read.

use std::sync::Arc;
use std::time::Duration;

use tidemill_protocol::{RunState, StepState};
use tidemill_store::backup::{self, BackupError, Checked, Options, Restored, Target};
use tidemill_store::{
    ClaimedEntry, Claimer, Cron, DeferState, Deferral, Due, Error, Expansion, ItemOutcome, Parking, Settled,
    Shape, Shapes, StepShape, keys,
};

use crate::flow::{NAMES, WF, outcome, run, settle, slot, start, step_of};
use crate::pool::{Pool, claim, claim_now, field};

const TIER: &str = "openai/tenant:acme";

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

async fn backup_of(pool: &Pool) -> (Vec<u8>, Checked) {
    let created = backup::create(&pool.store, &Flow, Vec::new(), Options { results: true }).await.unwrap();
    assert_eq!(created.left_out, backup::LeftOut::default());
    let checked = backup::check(&*created.out).unwrap();
    assert_eq!((&checked.header, &checked.counts), (&created.header, &created.counts));
    (created.out, checked)
}

/// The backup in a namespace of its own, in which every run fits its audit.
async fn restored(pool: &Pool, bytes: &[u8], partitions: u32) -> (Pool, Restored) {
    let target = Pool::on(Arc::clone(&pool.place), "other", partitions).await;
    let restored = backup::restore(&target.store, bytes, Target::Replaced).await.unwrap();
    for partition in target.store.partitions() {
        let prefix = partition.keys().run("");
        let found = target.cli(&["KEYS", &format!("{prefix}*")]).await;
        let ids: Vec<String> =
            found.lines().map(|key| key.strip_prefix(&prefix).unwrap().to_owned()).collect();
        let verdicts = partition.verify_all(&ids, &Flow).await.unwrap();
        assert_eq!(verdicts.len(), ids.len());
        for verdict in verdicts {
            assert!(verdict.is_clean() && !verdict.moving, "{verdict:?}");
        }
    }
    (target, restored)
}

fn retried<'a>(entry: &'a ClaimedEntry, id: &'a str, due: Due) -> Deferral<'a> {
    Deferral {
        entry: &entry.entry,
        id,
        slot: None,
        state: DeferState::Retrying,
        due,
        note: "test",
        ran: Duration::from_millis(2),
        attempt: 1,
        changes: vec![("_attempts", "1".into())],
    }
}

fn parked(entry: &ClaimedEntry) -> Parking<'_> {
    Parking {
        entry: &entry.entry,
        id: "",
        slot: None,
        note: "limit of requests",
        attempt: 1,
        tier: TIER,
        tenant: "acme",
        priority: 5,
        changes: Vec::new(),
    }
}

/// Starts a run and claims its steps `a` and `b`.
async fn begun(pool: &Pool, worker: &mut Claimer, id: &str) -> [ClaimedEntry; 2] {
    start(pool, id).await;
    let mut both = claim(worker, "default", 2).await;
    both.sort_by_key(step_of);
    both.try_into().unwrap()
}

#[tokio::test]
async fn what_was_in_flight_is_claimed_again_and_goes_on_to_its_end() {
    let pool = Pool::start().await;
    let mut worker = pool.worker("w1");
    // `held` has one step done and one with a worker, `aside` one that is retried and one that stands in line
    let held = begun(&pool, &mut worker, "held").await;
    settle(&pool, &[outcome(&held[0].entry, "held", 0, StepState::Succeeded)]).await;
    let aside = begun(&pool, &mut worker, "aside").await;
    let due = Due::In(Duration::from_secs(3_600));
    let retry = Deferral {
        slot: Some(slot("aside", 0)),
        changes: vec![("attempt", "2".into())],
        ..retried(&aside[0], "", due)
    };
    assert_eq!(pool.home().defer("default", keys::WORKERS, "w1", &[retry]).await.unwrap(), [true]);
    let park = Parking { slot: Some(slot("aside", 1)), ..parked(&aside[1]) };
    assert_eq!(pool.home().park("default", keys::WORKERS, "w1", &[park]).await.unwrap(), [true]);
    let over = begun(&pool, &mut worker, "over").await;
    settle(&pool, &[outcome(&over[0].entry, "over", 0, StepState::Failed)]).await;
    assert_eq!(run(&pool, "over").await.state, RunState::Failed);
    let (bytes, checked) = backup_of(&pool).await;
    assert_eq!(checked.faults, []);
    assert_eq!((checked.counts.runs, checked.counts.live_runs, checked.counts.in_flight), (3, 2, 4));

    let (target, restored) = restored(&pool, &bytes, 1).await;
    assert_eq!((restored.runs, restored.live_runs, restored.in_flight), (3, 2, 4));
    let mut worker = target.worker("w9");
    let two = claim(&mut worker, "default", 2).await;
    let of = |id: &str| two.iter().find(|entry| field(entry, "run").unwrap() == id).unwrap();
    settle(&target, &[outcome(&of("held").entry, "held", 1, StepState::Succeeded)]).await;
    let last = claim(&mut worker, "default", 1).await;
    settle(&target, &[outcome(&last[0].entry, "held", 2, StepState::Succeeded)]).await;
    assert_eq!(run(&target, "held").await.state, RunState::Succeeded);
    let late = [outcome(&of("over").entry, "over", 1, StepState::Succeeded)];
    assert_eq!(settle(&target, &late).await, [Settled::Recorded], "the last of a run that has ended");

    let (of_member, at) = (slot("aside", 0).member(), "default");
    let due = target.home().due_at(at, std::slice::from_ref(&of_member)).await.unwrap();
    assert_eq!(due, pool.home().due_at(at, std::slice::from_ref(&of_member)).await.unwrap());
    assert!(due[0].is_some(), "its due time is what it was");
    let soon = target.home().now_ms().await.unwrap().to_string();
    target.cli(&["ZADD", &target.keys().due("default"), &soon, &of_member]).await;
    target.home().promote("default", &target.becomes_due("default").await).await.unwrap();
    let second = claim(&mut worker, "default", 1).await;
    let again = outcome(&second[0].entry, "aside", 0, StepState::Succeeded);
    settle(&target, &[tidemill_store::StepOutcome { attempt: 2, ..again }]).await;
    let heads = target.home().line_heads(TIER, 9).await.unwrap();
    assert_eq!(heads, pool.home().line_heads(TIER, 9).await.unwrap());
    assert_eq!(target.home().lines().await.unwrap(), [TIER]);
    let places: Vec<String> = heads.into_iter().map(|(place, _)| place).collect();
    target.home().call_up(TIER, &places, |_| true).await.unwrap();
    let called = claim(&mut worker, "default:first", 1).await;
    assert_eq!(field(&called[0], "_ticket").unwrap(), TIER);
    let ends = outcome(&called[0].entry, "aside", 1, StepState::Succeeded);
    target.home().settle_steps("default:first", "w9", &["default".to_owned()], &[ends]).await.unwrap();
    let last = claim(&mut worker, "default", 1).await;
    settle(&target, &[outcome(&last[0].entry, "aside", 2, StepState::Succeeded)]).await;
    assert_eq!(run(&target, "aside").await.state, RunState::Succeeded);
    assert_eq!(target.length(&target.jobs()).await, "0");
    assert!(target.home().verify("aside", &Flow).await.unwrap().unwrap().is_clean());
}

#[tokio::test]
async fn times_are_kept_as_they_should_be() {
    let pool = Pool::start().await;
    let mut worker = pool.worker("w1");
    let over = begun(&pool, &mut worker, "over").await;
    settle(&pool, &[outcome(&over[0].entry, "over", 0, StepState::Failed)]).await;
    start(&pool, "lives").await;
    let (run, live) = (pool.keys().run("over"), pool.keys().live());
    pool.cli(&["PEXPIRE", &run, "500000"]).await;
    let (deadline, ended) = (
        pool.cli(&["ZSCORE", &live, "lives"]).await,
        pool.cli(&["ZSCORE", &pool.keys().ended(), "over"]).await,
    );
    let (bytes, checked) = backup_of(&pool).await;
    let (target, _) = restored(&pool, &bytes, 1).await;
    let left: u64 = target.cli(&["PTTL", &target.keys().run("over")]).await.parse().unwrap();
    assert!((400_000..=500_000).contains(&left), "{left}");
    assert_eq!(target.cli(&["PTTL", &target.keys().run("lives")]).await, "-1");
    assert_eq!(target.cli(&["ZSCORE", &target.keys().ended(), "over"]).await, ended);
    let moved: u64 = target.cli(&["ZSCORE", &target.keys().live(), "lives"]).await.parse().unwrap();
    let passed = moved - deadline.parse::<u64>().unwrap();
    let now = target.home().now_ms().await.unwrap();
    assert!(passed <= now - checked.header.created_ms, "{passed}");
}

#[tokio::test]
async fn plain_jobs_keep_their_ids_and_what_happened_to_them() {
    let pool = Pool::start().await;
    let first = pool.xadd(&pool.jobs(), &["tool", "echo", "input", "{\"n\":1}"]).await;
    pool.xadd(&pool.jobs(), &["tool", "echo", "id", "mine", "input", "{}"]).await;
    let asked = pool.xadd(&pool.keys().runs(), &["workflow", "flow"]).await;
    let held = claim(&mut pool.worker("w1"), "default", 1).await;
    assert_eq!(held[0].entry, first);
    pool.xadd(&pool.keys().jobs("unserved"), &["tool", "echo", "id", "alone"]).await;
    pool.xadd(&pool.keys().jobs("b"), &["tool", "echo", "id", "later"]).await;
    let later = claim(&mut pool.worker("w1"), "b", 1).await;
    let retry = retried(&later[0], "later", Due::At(9_000_000_000_000));
    assert_eq!(pool.home().defer("b", keys::WORKERS, "w1", &[retry]).await.unwrap(), [true]);
    let (bytes, checked) = backup_of(&pool).await;
    assert_eq!(checked.counts.jobs, 5);
    let (target, restored) = restored(&pool, &bytes, 1).await;
    assert_eq!((restored.jobs, restored.repeated), (5, 0));
    let two = claim(&mut target.worker("w1"), "default", 2).await;
    assert_eq!(field(&two[0], "_entry").unwrap(), first.as_str(), "its id is what it was");
    assert_eq!(field(&two[0], "input").unwrap(), "{\"n\":1}");
    assert_eq!(field(&two[1], "id").unwrap(), "mine");
    let request = claim(&mut target.scheduler("s1"), keys::RUNS, 1).await;
    assert_eq!(field(&request[0], "_entry").unwrap(), asked.as_str());
    assert_eq!(target.home().due_at("b", &["j:later".to_owned()]).await.unwrap(), [Some(9_000_000_000_000)]);
    assert_eq!(target.home().queues().await.unwrap(), ["b", "default", "unserved"]);
    assert_eq!(target.cli(&["EXISTS", &target.keys().restored()]).await, "0");
}

#[tokio::test]
async fn what_is_no_work_comes_back_too() {
    let pool = Pool::start().await;
    let (home, keys) = (pool.home(), pool.keys());
    let cron: Cron = serde_json::from_str(r#"{"name":"nightly","schedule":"@daily","tool":"echo"}"#).unwrap();
    home.set_cron(&cron, Some(9_000_000_000_000)).await.unwrap();
    pool.cli(&["HSET", &keys.tools(), "echo", "{}"]).await;
    pool.cli(&["HSET", &keys.workflow("flow"), "1", "name: flow"]).await;
    pool.cli(&["HSET", &keys.workflows(), "flow", "1"]).await;
    pool.cli(&["SET", &keys.result("mine"), "{\"id\":\"mine\"}", "PX", "600000"]).await;
    pool.cli(&["SET", &keys.id("mine"), "7-0", "PX", "600000"]).await;
    pool.xadd(&keys.dead(), &["code", "boom", "reason", "it broke", "job.id", "j"]).await;
    pool.cli(&["ZADD", &keys.cancelled(), "5", "j9"]).await;
    pool.cli(&["HSET", "tm:{services}:definitions", "openai", "{}"]).await;
    pool.cli(&["HSET", "tm:{services}:learned", "openai echo - requests", "1"]).await;
    pool.cli(&["SET", "tm:{services}:tier:openai", "\u{80}state"]).await;
    pool.cli(&["HSET", &keys.beats(), "w1", "7"]).await;
    let (bytes, checked) = backup_of(&pool).await;
    for kind in [
        "crons",
        "cron_due",
        "tools",
        "workflow",
        "workflows",
        "result",
        "id",
        "dead",
        "definitions_key",
        "tier",
    ] {
        assert_eq!(checked.counts.copied.get(kind), Some(&1), "{kind}");
    }
    let (target, _) = restored(&pool, &bytes, 1).await;
    assert_eq!(target.home().crons().await.unwrap(), home.crons().await.unwrap());
    let letters = home.letters(None, 9).await.unwrap();
    assert_eq!((target.home().letters(None, 9).await.unwrap(), letters.len()), (letters, 1));
    let left: u64 = target.cli(&["PTTL", &target.keys().result("mine")]).await.parse().unwrap();
    assert!((500_000..=600_000).contains(&left), "{left}");
    assert_eq!(target.cli(&["GET", &target.keys().id("mine")]).await, "7-0");
    assert_eq!(target.cli(&["ZSCORE", &target.keys().cancelled(), "j9"]).await, "5");
    assert_eq!(target.cli(&["HGET", "other:{services}:definitions", "openai"]).await, "{}");
    assert_eq!(target.cli(&["EXISTS", "other:{services}:learned", &target.keys().beats()]).await, "0");
    let plain = backup::create(&pool.store, &Flow, Vec::new(), Options::default()).await.unwrap();
    assert_eq!(plain.counts.copied.get("result"), None, "results only where they are wanted");
}

/// Starts a run, ends its step `b` and expands its step `a`; replies the items that may run at once, claimed.
async fn expanded(pool: &Pool, worker: &mut Claimer, total: u64, concurrency: u64) -> Vec<ClaimedEntry> {
    let both = begun(pool, worker, "r1").await;
    settle(pool, &[outcome(&both[1].entry, "r1", 1, StepState::Succeeded)]).await;
    let names: Vec<String> = (0..total).map(|item| format!("i{item}")).collect();
    for names in names.chunks(1_000) {
        let inputs: Vec<(String, &[u8])> =
            names.iter().map(|name| (name.clone(), &b"{\"n\":1}"[..])).collect();
        pool.home().write_items("r1", 0, &inputs, 600_000).await.unwrap();
    }
    let expansion = Expansion {
        entry: &both[0].entry,
        run: "r1",
        workflow: WF,
        step: 0,
        name: "a",
        attempt: 1,
        total,
        concurrency,
        queue: "default",
        keep_ms: 600_000,
    };
    assert!(pool.home().expand("default", "w1", &expansion).await.unwrap());
    claim(worker, "default", usize::try_from(concurrency).unwrap()).await
}

/// Settles items, and claims those that follow.
async fn settle_items(pool: &Pool, worker: &mut Claimer, held: Vec<ClaimedEntry>) -> Vec<ClaimedEntry> {
    let ended = |entry| ItemOutcome {
        entry,
        run: "r1",
        workflow: WF,
        step: 0,
        item: 0,
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
    };
    let all: Vec<_> = held
        .iter()
        .map(|one| ItemOutcome { item: field(one, "item").unwrap().parse().unwrap(), ..ended(&one.entry) })
        .collect();
    let settled = pool.home().settle_items("default", "w1", &all).await.unwrap();
    assert!(settled.iter().all(|settled| *settled == Settled::Recorded), "{settled:?}");
    claim_now(worker, "default", 400).await.unwrap()
}

#[tokio::test]
async fn a_large_run_that_never_stands_still_comes_back_whole() {
    const ITEMS: u64 = 6_000;
    let pool = Arc::new(Pool::start().await);
    let mut worker = pool.worker("w1");
    let mut held = expanded(&pool, &mut worker, ITEMS, 40).await;
    let working = async {
        let mut done = 0;
        while done < ITEMS {
            done += held.len() as u64;
            held = settle_items(&pool, &mut worker, std::mem::take(&mut held)).await;
        }
    };
    let saving = async {
        let mut saved = Vec::new();
        while saved.len() < 3 {
            saved.push(backup_of(&pool).await);
        }
        saved
    };
    let ((), saved) = tokio::join!(working, saving);
    let begun_anew =
        |bytes: &[u8]| zstd::decode_all(bytes).unwrap().windows(6).any(|word| word == b"\xa5Again");
    assert!(saved.iter().any(|(bytes, _)| begun_anew(bytes)), "it moved while it was read in pieces");
    for (at, (bytes, checked)) in saved.into_iter().enumerate() {
        assert_eq!((checked.counts.runs, &*checked.faults), (1, &[][..]), "backup {at}");
        let (target, _) = restored(&pool, &bytes, 1).await;
        let mut worker = target.worker("w1");
        let mut held = claim_now(&mut worker, "default", 400).await.unwrap();
        while !held.is_empty() && field(&held[0], "gather").is_none() {
            held = settle_items(&target, &mut worker, held).await;
        }
        assert_eq!(held.len(), 1, "its gathering is asked for once");
        settle(&target, &[outcome(&held[0].entry, "r1", 0, StepState::Succeeded)]).await;
        let last = claim(&mut worker, "default", 1).await;
        settle(&target, &[outcome(&last[0].entry, "r1", 2, StepState::Succeeded)]).await;
        let verdict = target.home().verify("r1", &Flow).await.unwrap().unwrap();
        assert!(verdict.is_clean() && verdict.state == Some(RunState::Succeeded), "{verdict:?}");
    }
}

#[tokio::test]
async fn jobs_that_move_all_the_time_come_back_once_each() {
    const JOBS: usize = 3_000;
    let pool = Arc::new(Pool::start().await);
    let script =
        "for i = 0, ARGV[1] - 1 do redis.call('XADD', KEYS[1], '*', 'tool', 'echo', 'id', 'j' .. i) end";
    pool.cli(&["EVAL", script, "1", &pool.jobs(), &JOBS.to_string()]).await;
    let stop = tokio_stop();
    let moving = async {
        let mut worker = pool.worker("w1");
        while !stop.load(std::sync::atomic::Ordering::SeqCst) {
            let held = claim_now(&mut worker, "default", 100).await.unwrap();
            let ids: Vec<String> = held.iter().map(|entry| field(entry, "id").unwrap()).collect();
            let all: Vec<_> = held
                .iter()
                .zip(&ids)
                .map(|(entry, id)| retried(entry, id, Due::In(Duration::ZERO)))
                .collect();
            pool.home().defer("default", keys::WORKERS, "w1", &all).await.unwrap();
            let now = pool.home().now_ms().await.unwrap();
            let due = pool.home().due("default", now, 70).await.unwrap();
            pool.home().promote("default", &due).await.unwrap();
        }
    };
    let saving = async {
        let mut saved = Vec::new();
        for _ in 0..5 {
            saved.push(backup_of(&pool).await);
        }
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        saved
    };
    let ((), saved) = tokio::join!(moving, saving);
    for (bytes, _) in saved {
        let (target, restored) = restored(&pool, &bytes, 1).await;
        assert_eq!(restored.jobs, JOBS as u64, "{} came twice", restored.repeated);
        let aside: usize = target.cli(&["HLEN", &target.keys().deferred("default")]).await.parse().unwrap();
        let queued: usize = target.length(&target.jobs()).await.parse().unwrap();
        assert_eq!(aside + queued, JOBS);
    }
}

fn tokio_stop() -> std::sync::atomic::AtomicBool {
    std::sync::atomic::AtomicBool::new(false)
}

#[tokio::test]
async fn only_a_target_that_is_empty_or_may_be_replaced_is_written_to() {
    let pool = Pool::start().await;
    start(&pool, "r1").await;
    let (bytes, _) = backup_of(&pool).await;
    let told = backup::restore(&pool.store, &*bytes, Target::Empty).await.unwrap_err();
    let BackupError::Refused(why) = &told else { panic!("{told}") };
    assert!(why.contains("\"tm\" is not empty"), "{why}");
    pool.cli(&["SET", "tm:{services}:tier:stale", "x"]).await;
    pool.cli(&["HSET", &pool.keys().beats(), "w1", "7"]).await;
    let before = run(&pool, "r1").await;
    let restored = backup::restore(&pool.store, &*bytes, Target::Replaced).await.unwrap();
    assert_eq!(restored.runs, 1, "who has not moved for seconds is dead");
    assert_eq!(pool.cli(&["EXISTS", "tm:{services}:tier:stale"]).await, "0");
    assert_eq!(run(&pool, "r1").await.seq, before.seq);
    pool.cli(&["HSET", &pool.keys().beats(), "w1", "7"]).await;
    let alive = async {
        for n in 8..100 {
            pool.cli(&["HSET", &pool.keys().beats(), "w1", &n.to_string()]).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let told = tokio::select! {
        told = backup::restore(&pool.store, &*bytes, Target::Replaced) => told.unwrap_err().to_string(),
        () = alive => panic!("it took too long"),
    };
    assert!(told.contains("w1 works in the namespace"), "{told}");
    assert_eq!(run(&pool, "r1").await.seq, before.seq, "nothing was touched");
}

#[tokio::test]
async fn a_backup_goes_into_other_partitions_where_its_ids_allow_it() {
    let place = Arc::new(crate::place::Place::redis().await);
    let pool = Pool::on(Arc::clone(&place), "tm", 4).await;
    for n in 0..20 {
        let id = format!("r{n}");
        let partition = pool.store.partition_of(&id);
        let keys = partition.keys();
        pool.cli(&["HSET", &keys.run(&id), "st", "running", "wf", WF, "q", "1", "t1", "1000"]).await;
        pool.cli(&["XADD", &keys.audit(&id), "*", "1", "@ queued running 1000 0 s1"]).await;
        pool.cli(&["ZADD", &keys.live(), "+inf", &id]).await;
        pool.xadd(&keys.jobs("default"), &["tool", "echo", "id", &format!("{id}x")]).await;
        pool.cli(&["SET", &keys.result(&id), "{}"]).await;
        pool.cli(&["ZADD", &keys.started(), "1000", &id]).await;
    }
    let (bytes, checked) = backup_of(&pool).await;
    assert_eq!((checked.misfit(2), checked.misfit(7)), (None, None));
    for partitions in [2, 7] {
        let target = Pool::on(Arc::clone(&place), "other", partitions).await;
        let restored = backup::restore(&target.store, &*bytes, Target::Replaced).await.unwrap();
        assert_eq!((restored.runs, restored.jobs), (20, 20));
        for n in 0..20 {
            let id = format!("r{n}");
            let partition = target.store.partition_of(&id);
            assert!(partition.run(&id).await.unwrap().is_some(), "{id} of {partitions}");
            assert!(partition.result(&id).await.unwrap().is_some(), "{id} of {partitions}");
            assert_ne!(target.cli(&["ZSCORE", &partition.keys().started(), &id]).await, "");
        }
    }
    let last = pool.store.partitions()[3].keys();
    let made = pool.xadd(&last.jobs("default"), &["tool", "echo"]).await;
    let (bytes, checked) = backup_of(&pool).await;
    assert_eq!(checked.misfit(5), None);
    let why = checked.misfit(2).unwrap();
    assert!(why.contains(made.as_str()) && why.contains("at least 4 partitions"), "{why}");
    let more = Pool::on(Arc::clone(&place), "other", 5).await;
    backup::restore(&more.store, &*bytes, Target::Replaced).await.unwrap();
    let there = more.cli(&["XRANGE", &more.store.partitions()[3].keys().jobs("default"), "-", "+"]).await;
    assert!(there.contains(made.as_str()), "{there}");
}

#[tokio::test]
async fn a_cluster_is_saved_and_restored_as_one_pool() {
    let place = Arc::new(crate::place::Place::cluster().await);
    let pool = Pool::on(Arc::clone(&place), "tm", 6).await;
    for partition in pool.store.partitions() {
        let (keys, id) = (partition.keys(), format!("p{}", partition.index()));
        pool.xadd(&keys.jobs("default"), &["tool", "echo", "id", &id]).await;
        pool.cli(&["SET", &keys.result(&id), "{}"]).await;
    }
    start(&pool, "r1").await;
    pool.cli(&["HSET", "tm:{services}:definitions", "openai", "{}"]).await;
    let (bytes, checked) = backup_of(&pool).await;
    assert_eq!((checked.counts.runs, checked.counts.jobs), (1, 6));
    let target = Pool::on(Arc::clone(&place), "other", 6).await;
    let restored = backup::restore(&target.store, &*bytes, Target::Empty).await.unwrap();
    assert_eq!((restored.runs, restored.jobs, restored.in_flight), (1, 6, 2));
    for partition in target.store.partitions() {
        assert!(partition.result(&format!("p{}", partition.index())).await.unwrap().is_some());
        if let Some(verdict) = partition.verify("r1", &Flow).await.unwrap() {
            assert!(verdict.is_clean(), "{verdict:?}");
        }
    }
    assert_eq!(target.cli(&["HGET", "other:{services}:definitions", "openai"]).await, "{}");
    let told = backup::restore(&target.store, &*bytes, Target::Empty).await.unwrap_err().to_string();
    assert!(told.contains("\"other\" is not empty"), "{told}");
    backup::restore(&target.store, &*bytes, Target::Replaced).await.unwrap();
}

#[tokio::test]
async fn a_run_that_does_not_fit_its_audit_is_told_and_one_that_is_none_is_left_out() {
    let pool = Pool::start().await;
    start(&pool, "r1").await;
    start(&pool, "r2").await;
    pool.cli(&["HSET", &pool.keys().run("r1"), "st", "succeeded"]).await;
    pool.cli(&["SET", &pool.keys().audit("r2"), "mine"]).await;
    pool.cli(&["SET", "tm:{0}:foreign", "mine"]).await;
    let created = backup::create(&pool.store, &Flow, Vec::new(), Options::default()).await.unwrap();
    assert_eq!(created.left_out.names, ["tm:{0}:foreign"]);
    assert_eq!(created.left_out.runs.len(), 1);
    assert_eq!(created.left_out.runs[0].0, "r2");
    let checked = backup::check(&*created.out).unwrap();
    let told: Vec<_> = checked.faults.iter().map(|fault| (&*fault.run, &*fault.what)).collect();
    assert_eq!(told, [("r1", "its state is succeeded, its audit leads to running")]);
}

#[tokio::test]
async fn what_waits_keeps_its_alarm_and_its_mail_and_who_waits_for_a_run_hears_of_its_end() {
    let pool = Pool::start().await;
    let mut worker = pool.worker("w1");
    let child = begun(&pool, &mut worker, "child").await;
    pool.cli(&["HSET", &pool.keys().run("child"), "par", "r1 0 0"]).await;
    settle(&pool, &[outcome(&child[0].entry, "child", 0, StepState::Failed)]).await;
    let both = begun(&pool, &mut worker, "r1").await;
    let (run_key, ready) = (pool.keys().run("r1"), run(&pool, "r1").await.steps[&0].ready_ms.unwrap());
    // as the function library writes it when step `a` waits
    pool.home().drop_entries(&pool.jobs(), keys::WORKERS, &[both[0].entry.clone()]).await.unwrap();
    let waiting = format!("waiting 1 {ready} {ready} - w1 - default");
    pool.cli(&["HSET", &run_key, "q", "5", "s0", &waiting, "w0", "{\"since\":1}"]).await;
    let records = [format!("a ready running {ready} 1 w1"), format!("a running waiting {ready} 1 w1")];
    pool.cli(&["XADD", &pool.keys().audit("r1"), "*", "4", &records[0], "5", &records[1]]).await;
    let member = slot("r1", 0).member();
    let alarms = |pool: &Pool| (pool.keys().due(keys::WAITS), pool.keys().deferred(keys::WAITS));
    let (due, deferred) = alarms(&pool);
    pool.cli(&["ZADD", &due, "9000000000000", &member]).await;
    pool.cli(&["HSET", &deferred, &member, "3"]).await;
    pool.cli(&["HSET", &pool.keys().mail("r1"), "l:paid", "0"]).await;
    pool.cli(&["ZADD", &pool.keys().children("r1"), "5", "child"]).await;
    let (bytes, checked) = backup_of(&pool).await;
    assert_eq!(checked.faults, []);
    let (target, _) = restored(&pool, &bytes, 1).await;
    let (due, deferred) = alarms(&target);
    assert_eq!(target.cli(&["ZSCORE", &due, &member]).await, "9000000000000");
    assert_eq!(target.cli(&["HGET", &deferred, &member]).await, "3");
    assert_eq!(target.cli(&["HGET", &target.keys().run("r1"), "s0"]).await, waiting);
    assert_eq!(target.cli(&["HGET", &target.keys().mail("r1"), "l:paid"]).await, "0");
    assert_eq!(target.cli(&["ZSCORE", &target.keys().children("r1"), "child"]).await, "5");
    assert_eq!(target.home().queues().await.unwrap(), ["default"]);
    let told = claim(&mut target.scheduler("s1"), keys::RUNS, 1).await;
    assert_eq!(field(&told[0], "ended").unwrap(), "child");
}
