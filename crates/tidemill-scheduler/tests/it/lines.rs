//! Lines: called up as the limits let them go, once over all schedulers, and left by those who need not wait.

use std::collections::BTreeSet;
use std::time::Duration;

use tidemill_protocol::{RunState, StepState};
use tidemill_scheduler::Setup;
use tidemill_store::{
    Answer, Author, CallRequest, ClaimedEntry, Control, Exchange, Parking, Partition, Slot, Store, TierUse,
    keys,
};
use tidemill_testkit::wait_for;

use crate::pool::{Pool, SOON, Working, claim, field, quick, sum_is};

const ONE: &str = "{\"name\":\"one\",\"steps\":[{\"id\":\"a\",\"tool\":\"echo\"}]}";
const AUTHOR: Author<'static> = Author { who: "ada", why: "test", is_file: false };

fn parking<'a>(entry: &'a ClaimedEntry, id: &'a str, tier: &'a str) -> Parking<'a> {
    Parking {
        entry: &entry.entry,
        id,
        slot: None,
        note: "test",
        attempt: 1,
        tier,
        tenant: "",
        priority: 5,
        changes: Vec::new(),
    }
}

async fn define(store: &Store, tier: &str, rules: &str) {
    let templates = [(tier.to_owned(), rules.to_owned())];
    assert!(store.services().define(AUTHOR, tier, "{}", &templates).await.unwrap());
}

async fn pause(store: &Store, tier: &str) {
    // the line of a tier that has no definition is let go
    let service = tier.split('/').next().unwrap();
    let rules = [service, tier].map(|template| (template.to_owned(), "c=1000000".to_owned()));
    store.services().define(AUTHOR, service, "{}", &rules).await.unwrap();
    store.services().control(AUTHOR, tier, Control::Pause(None)).await.unwrap();
}

/// Parks so many new jobs of a partition in a tier's line.
async fn park_in(pool: &Pool, store: &Store, at: u32, tier: &str, count: usize) {
    let partition: &Partition = &store.partitions()[at as usize];
    let jobs = partition.keys().jobs("default");
    let script =
        "for i = 1, ARGV[1] do redis.call('XADD', KEYS[1], '*', 'tool', 'echo', 'id', ARGV[2] .. i) end";
    pool.cli(&["EVAL", script, "1", &jobs, &count.to_string(), &format!("{tier}-{at}-")]).await;
    let mut worker = store.claimer(at, keys::WORKERS, "w1", Duration::from_millis(500)).unwrap();
    let held = claim(&mut worker, "default", count).await;
    let ids: Vec<String> = held.iter().map(|entry| field(entry, "id").unwrap()).collect();
    let all: Vec<_> = held.iter().zip(&ids).map(|(entry, id)| parking(entry, id, tier)).collect();
    for some in all.chunks(200) {
        let parked = partition.park("default", keys::WORKERS, "w1", some).await.unwrap();
        assert!(parked.iter().all(|parked| *parked));
    }
}

async fn park(pool: &Pool, tier: &str, count: usize) {
    park_in(pool, &pool.store, 0, tier, count).await;
}

#[tokio::test]
async fn each_in_a_line_is_called_up_once_over_two_schedulers() {
    const JOBS: usize = 3_000;
    let pool = Pool::start().await;
    let (one, two) = (pool.schedule(quick()).await, pool.schedule(quick()).await);
    park(&pool, "free", JOBS).await;
    let called = claim(&mut pool.worker("w2"), "default:first", JOBS).await;
    let ids: BTreeSet<String> = called.iter().map(|entry| field(entry, "id").unwrap()).collect();
    assert_eq!(ids.len(), JOBS);
    assert!(called.iter().all(|entry| field(entry, "_ticket").as_deref() == Some("free")));
    sum_is(&one, &two, "tidemill_called_up_total{service=\"free\"}", JOBS as u64).await;
    assert!(pool.home().lines().await.unwrap().is_empty());
    assert_eq!(pool.cli(&["XLEN", "tm:{0}:jobs:default:first"]).await, JOBS.to_string());
}

/// A worker that shows its tickets until all of so many are granted; replies when each was, in Redis's microseconds.
async fn granted(pool: &Pool, tier: &str, count: usize) -> Vec<u64> {
    let (services, mut worker) = (pool.store.services(), pool.worker("w2"));
    worker.create_groups(std::iter::once("default:first")).await.unwrap();
    let (mut waiting, mut granted, mut seq) = (Vec::new(), Vec::new(), 0);
    while granted.len() < count {
        let more = worker.claim(&[("default:first", count)], waiting.is_empty()).await.unwrap();
        waiting.extend(more.into_iter().flat_map(|(_, entries)| entries));
        let requests: Vec<CallRequest<'_>> = waiting
            .iter()
            .map(|entry| CallRequest {
                is_retry: false,
                is_hedge: false,
                patience: Duration::from_secs(1),
                service: None,
                id: entry.entry.as_str(),
                tiers: vec![(0, true)],
                amounts: vec![("requests", 1.0)],
            })
            .collect();
        seq += 1;
        let exchange = Exchange {
            tiers: vec![TierUse { name: tier, template: tier, held: 0 }],
            reports: Vec::new(),
            requests,
        };
        let reply = services.admit("w2", seq, 0.5, &exchange).await.unwrap();
        assert!(reply.accepted);
        let mut answers = reply.answers.into_iter();
        waiting.retain(|_| {
            let is_granted = matches!(answers.next(), Some(Answer::Granted { .. }));
            if is_granted {
                granted.push(reply.now_us);
            }
            !is_granted
        });
    }
    granted
}

#[tokio::test]
async fn a_line_is_called_up_at_the_pace_of_its_limit() {
    const JOBS: usize = 400;
    let pool = Pool::start().await;
    define(&pool.store, "api", "d=requests,a,200,1000000,10,0,0,0,0").await;
    park(&pool, "api", JOBS).await;
    let (_one, _two) = (pool.schedule(quick()).await, pool.schedule(quick()).await);
    let granted = granted(&pool, "api", JOBS).await;
    let took_us = granted[JOBS - 1] - granted[0];
    // 390 behind the burst, at 200 a second
    assert!(took_us >= 1_940_000, "too fast: {took_us} us");
    assert!(took_us < 3_000_000, "too slow: {took_us} us");
    // no herd: what comes in one second is never more than the limit and its burst
    for (at, from) in granted.iter().enumerate() {
        let within = granted[at..].iter().take_while(|time| **time < from + 1_000_000).count();
        assert!(within <= 211, "{within} in a second");
    }
}

#[tokio::test]
async fn partitions_have_their_turns() {
    let pool = Pool::start().await;
    let three = || Store::new(pool.store.settings(), "tm3", 3).unwrap();
    let store = three();
    store.check().await.unwrap();
    define(&store, "slow", "d=requests,a,60,60000000,6,0,0,0,0").await;
    for at in 0..3 {
        park_in(&pool, &store, at, "slow", 50).await;
    }
    let settings = tidemill_scheduler::Settings { pace_horizon_ms: 1, ..quick() };
    let _scheduler = pool.schedule_with(Setup { store: three(), ..pool.setup(settings) }).await;
    for at in 0..3 {
        pool.count_is("XLEN", &format!("tm3:{{{at}}}:jobs:default:first"), 2).await;
    }
}

async fn counts(scheduler: &Working, line: &str, wanted: u64) {
    scheduler.count_is(line, wanted).await;
}

#[tokio::test]
async fn a_paused_line_waits_and_goes_on_when_resumed() {
    let pool = Pool::start().await;
    pause(&pool.store, "api/tenant:acme").await;
    park(&pool, "api/tenant:acme", 5).await;
    park(&pool, "other", 1).await;
    let scheduler = pool.schedule(quick()).await;
    // the other one shows that the pacer has been here
    claim(&mut pool.worker("w2"), "default:first", 1).await;
    counts(&scheduler, "tidemill_line_length{service=\"api\"}", 5).await;
    scheduler.count_at_least("tidemill_line_oldest_ms{service=\"api\"}", 100).await;
    assert_eq!(scheduler.count("tidemill_called_up_total{service=\"api\"}"), 0);
    pool.store.services().control(AUTHOR, "api/tenant:acme", Control::Resume).await.unwrap();
    assert_eq!(claim(&mut pool.worker("w2"), "default:first", 5).await.len(), 5);
    counts(&scheduler, "tidemill_line_length{service=\"api\"}", 0).await;
    scheduler.stop().await;
}

/// A run whose step is parked in a paused line.
async fn park_step(pool: &Pool, id: &str, more: &[&str]) -> Slot {
    pool.ask(&[&["workflow", "one", "id", id], more].concat()).await;
    let held = claim(&mut pool.worker("w1"), "default", 1).await;
    let slot = Slot { run: id.to_owned(), step: 0, item: None, name: "a".to_owned() };
    let aside = Parking { slot: Some(slot.clone()), ..parking(&held[0], "", "api") };
    let parked = pool.home().park("default", keys::WORKERS, "w1", &[aside]).await.unwrap();
    assert_eq!(parked, [true]);
    slot
}

#[tokio::test]
async fn a_step_whose_run_ended_leaves_its_line_and_the_others_stay() {
    let pool = Pool::start().await;
    pool.publish(ONE).await;
    pause(&pool.store, "api").await;
    let scheduler = pool.schedule(quick()).await;
    park(&pool, "api", 20).await;
    park_step(&pool, "late", &["timeout_ms", "1500"]).await;
    park_step(&pool, "stays", &[]).await;
    assert_eq!(pool.run_when("late", |run| run.state.is_terminal()).await.state, RunState::TimedOut);
    let called = claim(&mut pool.worker("w2"), "default:first", 1).await;
    assert_eq!(field(&called[0], "run").unwrap(), "late");
    counts(&scheduler, "tidemill_left_lines_total", 1).await;
    assert_eq!(pool.run("late").await.steps[&0].state, StepState::Ready);
    assert_eq!(pool.home().line_length("api").await.unwrap(), 21);
    scheduler.stop().await;
}

#[tokio::test]
async fn the_audit_leaves_a_parked_step_alone_and_brings_a_lost_one_back() {
    let pool = Pool::start().await;
    pool.publish(ONE).await;
    pause(&pool.store, "api").await;
    let scheduler = pool.schedule(quick()).await;
    park_step(&pool, "waits", &[]).await;
    let lost = park_step(&pool, "lost", &[]).await;
    pool.cli(&["ZREM", "tm:{0}:line:api", &format!("default|{}", lost.member())]).await;
    let again = claim(&mut pool.worker("w2"), "default", 1).await;
    assert_eq!(field(&again[0], "run").unwrap(), "lost");
    // the walk is in order of ids, and begins anew after its pause: `waits` is looked at by the time that a second one is repaired
    park_step_again(&pool, &again[0], &lost).await;
    pool.cli(&["ZREM", "tm:{0}:line:api", &format!("default|{}", lost.member())]).await;
    claim(&mut pool.worker("w2"), "default", 1).await;
    // the entry is there before the scheduler has counted it
    tidemill_testkit::wait_until(crate::pool::SOON, "both repairs to be counted", async || {
        scheduler.count("tidemill_repaired_total{what=\"step\"}") == 2
    })
    .await
    .unwrap();
    assert_eq!(pool.run("waits").await.steps[&0].state, StepState::Parked);
    assert_eq!(pool.home().line_length("api").await.unwrap(), 1);
    assert_eq!(pool.cli(&["HLEN", "tm:{0}:deferred:default"]).await, "1");
    scheduler.stop().await;
}

async fn park_step_again(pool: &Pool, entry: &ClaimedEntry, slot: &Slot) {
    let aside = Parking { slot: Some(slot.clone()), ..parking(entry, "", "api") };
    assert_eq!(pool.home().park("default", keys::WORKERS, "w2", &[aside]).await.unwrap(), [true]);
}

#[tokio::test]
async fn a_foreign_key_in_the_place_of_a_line_does_not_stop_the_others() {
    let pool = Pool::start().await;
    for tier in ["broken", "bent"] {
        pool.cli(&["SADD", "tm:{0}:lines", tier]).await;
    }
    pool.cli(&["SET", "tm:{0}:line:broken", "x"]).await;
    pool.cli(&["ZADD", "tm:{0}:line:bent", "4000000000000", "default|j:never"]).await;
    pool.cli(&["SET", "tm:{0}:turns:bent", "x"]).await;
    let scheduler = pool.schedule(quick()).await;
    for round in 1..=3 {
        park(&pool, "sound", 10).await;
        assert_eq!(claim(&mut pool.worker("w2"), "default:first", 10).await.len(), 10, "round {round}");
    }
    assert_eq!(scheduler.count("tidemill_duty_errors_total{duty=\"pacer\"}"), 0);
    // mended by hand, the line goes on: its one member has nothing behind it
    pool.cli(&["DEL", "tm:{0}:turns:bent", "tm:{0}:line:broken"]).await;
    wait_for(SOON, "no line", async || {
        let lines = pool.home().lines().await.unwrap();
        if lines.is_empty() { Ok(()) } else { Err(format!("{lines:?}")) }
    })
    .await
    .unwrap();
    scheduler.stop().await;
}

#[tokio::test]
async fn a_ticket_in_the_hands_of_a_dead_worker_goes_to_another() {
    let pool = Pool::start().await;
    let scheduler = pool.schedule(quick()).await;
    park(&pool, "free", 1).await;
    let called = claim(&mut pool.worker("w2"), "default:first", 1).await;
    // `w2` never beats again; somebody who reads what comes first is there
    let member = tidemill_store::Member {
        consumer: "w3".to_owned(),
        role: "worker".to_owned(),
        host: String::new(),
        pid: 1,
        version: "0".to_owned(),
        queues: vec!["default".to_owned()],
        reads_first: true,
        slots: 1,
        started_at_ms: 0,
    };
    pool.home().announce(&member).await.unwrap();
    let again = claim(&mut pool.worker("w3"), "default:first", 1).await;
    assert_ne!(again[0].entry, called[0].entry);
    assert_eq!(field(&again[0], "_ticket").unwrap(), "free");
    assert_eq!(field(&again[0], "_deaths").unwrap(), "1");
    scheduler.stop().await;
}

#[tokio::test]
async fn a_queue_whose_workers_do_not_read_what_comes_first_gets_it_in_its_own_stream() {
    let pool = Pool::start().await;
    let member = tidemill_store::Member {
        consumer: "foreign".to_owned(),
        role: "worker".to_owned(),
        host: String::new(),
        pid: 1,
        version: "0".to_owned(),
        queues: vec!["default".to_owned()],
        reads_first: false,
        slots: 1,
        started_at_ms: 0,
    };
    pool.home().announce(&member).await.unwrap();
    pool.home().beat("foreign", 1, 0).await.unwrap();
    pause(&pool.store, "api").await;
    park(&pool, "api", 1).await;
    let scheduler = pool.schedule(quick()).await;
    counts(&scheduler, "tidemill_line_length{service=\"api\"}", 1).await;
    pool.store.services().control(AUTHOR, "api", Control::Resume).await.unwrap();
    let called = claim(&mut pool.worker("w2"), "default", 1).await;
    assert_eq!(field(&called[0], "_ticket").unwrap(), "api");
    scheduler.stop().await;
}
