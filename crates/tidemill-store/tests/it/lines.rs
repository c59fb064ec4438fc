//! Lines: the order in which work is called up, what keeps its place, and what leaves early.

use std::collections::BTreeMap;

use tidemill_protocol::StepState;
use tidemill_store::{CalledUp, ClaimedEntry, EndRun, JobStatus, Parking, Settled, keys};

use crate::flow::{WF, audit, moves, outcome, run, slot, start, step_of};
use crate::pool::{Pool, claim, field};

const TIER: &str = "openai/tenant:acme";

fn parking<'a>(entry: &'a ClaimedEntry, id: &'a str, tenant: &'a str, priority: u8) -> Parking<'a> {
    Parking {
        entry: &entry.entry,
        id,
        slot: None,
        note: "limit of requests",
        attempt: 1,
        tier: TIER,
        tenant,
        priority,
        changes: Vec::new(),
    }
}

/// Enqueues and claims jobs with the ids `<prefix>0…`, and parks them for a tenant.
async fn park_jobs(pool: &Pool, prefix: &str, count: usize, tenant: &str, priority: u8) {
    let script =
        "for i = 0, ARGV[1] - 1 do redis.call('XADD', KEYS[1], '*', 'tool', 'echo', 'id', ARGV[2] .. i) end";
    pool.cli(&["EVAL", script, "1", &pool.jobs(), &count.to_string(), prefix]).await;
    let mut worker = pool.worker("w1");
    let mut left = count;
    while left > 0 {
        let held = claim(&mut worker, "default", left.min(500)).await;
        let ids: Vec<String> = held.iter().map(|entry| field(entry, "id").unwrap()).collect();
        let all: Vec<_> =
            held.iter().zip(&ids).map(|(entry, id)| parking(entry, id, tenant, priority)).collect();
        assert!(park(pool, &all).await.iter().all(|parked| *parked));
        left -= held.len();
    }
}

async fn park(pool: &Pool, all: &[Parking<'_>]) -> Vec<bool> {
    pool.home().park("default", keys::WORKERS, "w1", all).await.unwrap()
}

async fn heads(pool: &Pool, count: usize) -> Vec<String> {
    let heads = pool.home().line_heads(TIER, count).await.unwrap();
    heads.into_iter().map(|(place, _)| place).collect()
}

async fn call_up(pool: &Pool, places: &[String]) -> Vec<CalledUp> {
    pool.home().call_up(TIER, places, |_| true).await.unwrap()
}

/// Calls the next `count` up, one after the other as a pacer would, and claims them.
async fn next(pool: &Pool, count: usize) -> Vec<ClaimedEntry> {
    for _ in 0..count {
        assert_eq!(call_up(pool, &heads(pool, 1).await).await, [CalledUp::Called]);
    }
    claim(&mut pool.worker("w2"), "default:first", count).await
}

async fn next_ids(pool: &Pool, count: usize) -> Vec<String> {
    next(pool, count).await.iter().map(|entry| field(entry, "id").unwrap()).collect()
}

pub(crate) async fn a_line_goes_by_priority_then_in_turns_between_tenants_then_by_age(pool: &Pool) {
    park_jobs(pool, "a", 6, "acme", 5).await;
    park_jobs(pool, "b", 2, "bolt", 5).await;
    park_jobs(pool, "low", 1, "acme", 0).await;
    pool.interruption().await;
    assert_eq!(next_ids(pool, 3).await, ["a0", "b0", "a1"]);
    // who comes later begins where the line is now
    park_jobs(pool, "c", 2, "cord", 5).await;
    park_jobs(pool, "high", 1, "acme", 9).await;
    assert_eq!(next_ids(pool, 1).await, ["high0"]);
    let mut rest = next_ids(pool, 8).await;
    assert_eq!(rest.pop().unwrap(), "low0");
    let at = |id: &str| rest.iter().position(|found| found == id).unwrap();
    assert!(at("c1") < at("a5") && at("b1") < at("a3"), "{rest:?}");
    for prefix in ["a", "b", "c"] {
        let own: Vec<&String> = rest.iter().filter(|id| id.starts_with(prefix)).collect();
        assert!(own.is_sorted(), "{rest:?}");
    }
    // an empty line leaves nothing
    assert!(pool.home().lines().await.unwrap().is_empty());
    for key in [pool.keys().line(TIER), pool.keys().turns(TIER), pool.keys().deferred("default")] {
        assert_eq!(pool.cli(&["EXISTS", &key]).await, "0", "{key}");
    }
}

pub(crate) async fn a_called_up_job_brings_its_ticket_and_goes_back_to_its_place(pool: &Pool) {
    park_jobs(pool, "a", 3, "acme", 5).await;
    let called = next(pool, 1).await;
    assert_eq!(field(&called[0], "id").unwrap(), "a0");
    assert_eq!(field(&called[0], "_ticket").unwrap(), TIER);
    assert_eq!(field(&called[0], "_line"), None);
    park_jobs(pool, "b", 1, "bolt", 5).await;
    pool.interruption().await;
    let back = [parking(&called[0], "a0", "acme", 5)];
    let parked = pool.home().park("default:first", keys::WORKERS, "w2", &back).await.unwrap();
    assert_eq!(parked, [true]);
    assert_eq!(heads(pool, 4).await[0], "default|j:a0");
    let again = next(pool, 1).await;
    assert_eq!(field(&again[0], "id").unwrap(), "a0");
    assert_eq!(field(&again[0], "_ticket").unwrap(), TIER, "one ticket a tier");
    assert_eq!(field(&again[0], "_parked_ms"), field(&called[0], "_parked_ms"), "it waits since then");

    // it may wait in several lines, and has a place of its own in each
    let other = Parking { tier: "@pool", ..parking(&again[0], "a0", "acme", 5) };
    assert_eq!(pool.home().park("default:first", keys::WORKERS, "w2", &[other]).await.unwrap(), [true]);
    let place = pool.home().line_heads("@pool", 1).await.unwrap().remove(0).0;
    assert_eq!(pool.home().call_up("@pool", &[place], |_| false).await.unwrap(), [CalledUp::Called]);
    let both = claim(&mut pool.worker("w2"), "default", 1).await;
    assert_eq!(field(&both[0], "_ticket").unwrap(), format!("{TIER} @pool"), "in the queue's own stream");
    assert_eq!(park(pool, &[parking(&both[0], "a0", "acme", 5)]).await, [true]);
    assert_eq!(heads(pool, 4).await[0], "default|j:a0");
    // a line that began anew does not put it behind its newcomers
    assert_eq!(next(pool, 4).await.len(), 4);
}

pub(crate) async fn a_place_of_a_line_that_is_gone_is_not_worse_than_a_new_one(pool: &Pool) {
    park_jobs(pool, "a", 50, "acme", 5).await;
    let mut called = next(pool, 50).await;
    let last = called.pop().unwrap();
    assert_eq!(field(&last, "_score").unwrap(), "4000000000049");
    park_jobs(pool, "b", 10, "bolt", 5).await;
    assert_eq!(
        pool.home()
            .park("default:first", keys::WORKERS, "w2", &[parking(&last, "a49", "acme", 5)])
            .await
            .unwrap(),
        [true]
    );
    pool.interruption().await;
    assert_eq!(heads(pool, 1).await, ["default|j:a49"]);
}

pub(crate) async fn a_member_is_called_up_once_and_only_its_owner_parks_it(pool: &Pool) {
    park_jobs(pool, "a", 20, "acme", 5).await;
    let places = heads(pool, 20).await;
    let (one, other) = tokio::join!(call_up(pool, &places), call_up(pool, &places));
    for (one, other) in one.iter().zip(&other) {
        assert_eq!([one, other].iter().filter(|reply| ***reply == CalledUp::Called).count(), 1);
    }
    let held = claim(&mut pool.worker("w2"), "default:first", 20).await;
    pool.home().acknowledge("default:first", &[held[0].entry.clone()]).await.unwrap();
    pool.interruption().await;
    let back: Vec<_> = held.iter().map(|entry| parking(entry, "x", "", 5)).take(1).collect();
    assert_eq!(
        pool.home().park("default:first", keys::WORKERS, "w2", &back).await.unwrap(),
        [false],
        "it is settled"
    );
    assert_eq!(pool.home().line_length(TIER).await.unwrap(), 0);
}

pub(crate) async fn a_parked_step_comes_back_with_its_record(pool: &Pool) {
    start(pool, "r1").await;
    let held = claim(&mut pool.worker("w1"), "default", 2).await;
    let first = held.iter().find(|entry| step_of(entry) == 0).unwrap();
    let aside = Parking { slot: Some(slot("r1", 0)), ..parking(first, "", "", 5) };
    assert_eq!(park(pool, std::slice::from_ref(&aside)).await, [true]);
    assert_eq!(park(pool, &[aside]).await, [false], "stale");
    let record = run(pool, "r1").await.steps[&0].clone();
    assert_eq!((record.state, record.entry, record.ended_ms), (StepState::Parked, None, None));
    let depth = pool.home().depth("default").await.unwrap();
    assert_eq!((depth.running, depth.deferred, depth.parked), (1, 0, 1));
    let member = [slot("r1", 0).member()];
    assert_eq!(pool.home().in_line("default", &member).await.unwrap(), [true]);
    let seen = format!("parked 1 {} - - w1 - default", record.ready_ms.unwrap());
    assert!(
        !pool.home().repair(&slot("r1", 0), WF, "default", &seen, "s1").await.unwrap(),
        "it is not lost: it stands in line"
    );
    pool.interruption().await;
    let called = next(pool, 1).await;
    assert_eq!(field(&called[0], "_ticket").unwrap(), TIER);
    let record = run(pool, "r1").await.steps[&0].clone();
    assert_eq!(record.state, StepState::Ready);
    assert_eq!((record.queue.as_str(), record.attempt), ("default:first", 1));
    let end = outcome(&called[0].entry, "r1", 0, StepState::Succeeded);
    let settled =
        pool.home().settle_steps("default:first", "w2", &["default".to_owned()], &[end]).await.unwrap();
    assert_eq!(settled, [Settled::Recorded]);
    assert_eq!(
        moves(&audit(pool, "r1").await, "a"),
        ["pending ready", "ready parked", "parked ready", "ready running", "running succeeded"]
    );
    assert_eq!(run(pool, "r1").await.steps[&0].queue, "default");
}

pub(crate) async fn a_step_lost_from_its_line_is_dispatched_again(pool: &Pool) {
    start(pool, "r1").await;
    let held = claim(&mut pool.worker("w1"), "default", 2).await;
    let first = held.iter().find(|entry| step_of(entry) == 0).unwrap();
    assert_eq!(
        park(pool, &[Parking { slot: Some(slot("r1", 0)), ..parking(first, "", "", 5) }]).await,
        [true]
    );
    let seen = pool.home().fields_of("r1", None, &["s0".to_owned()]).await.unwrap().remove(0).unwrap();
    let seen = String::from_utf8_lossy(&seen).into_owned();
    pool.cli(&["DEL", &pool.keys().line(TIER)]).await;
    pool.interruption().await;
    assert_eq!(pool.home().in_line("default", &[slot("r1", 0).member()]).await.unwrap(), [false]);
    assert!(pool.home().repair(&slot("r1", 0), WF, "default", &seen, "s1").await.unwrap());
    assert_eq!(pool.cli(&["HLEN", &pool.keys().deferred("default")]).await, "0", "nothing is left behind");
    assert_eq!(step_of(&claim(&mut pool.worker("w2"), "default", 1).await[0]), 0);
}

pub(crate) async fn a_job_is_cancelled_in_line_and_tells_where_it_stands(pool: &Pool) {
    park_jobs(pool, "a", 3, "acme", 5).await;
    let JobStatus::InLine { queue, place, why } = pool.home().job_status(None, "a1").await.unwrap() else {
        panic!("not in line")
    };
    assert_eq!((queue.as_str(), place.tier.as_str(), place.ahead, place.length), ("default", TIER, 1, 3));
    assert_eq!(why.unwrap(), "limit of requests");
    assert!(place.since_ms.unwrap() > 1_600_000_000_000);
    pool.interruption().await;
    assert!(pool.home().cancel_job("default", "a1", "not wanted").await.unwrap(), "gone at once");
    assert_eq!(heads(pool, 9).await, ["default|j:a0", "default|j:a2"]);
    assert_eq!(pool.home().depth("default").await.unwrap().parked, 2);
    assert_eq!(
        pool.home().call_up(TIER, &["default|j:a1".to_owned()], |_| true).await.unwrap(),
        [CalledUp::Gone]
    );
}

pub(crate) async fn a_step_of_an_ended_run_is_called_up_only_to_end(pool: &Pool) {
    for id in ["r1", "r2"] {
        start(pool, id).await;
    }
    let held = claim(&mut pool.worker("w1"), "default", 4).await;
    for entry in held.iter().filter(|entry| step_of(entry) == 0) {
        let id = field(entry, "run").unwrap();
        let aside = Parking { slot: Some(slot(&id, 0)), ..parking(entry, "", "", 5) };
        assert_eq!(park(pool, &[aside]).await, [true]);
    }
    let end = EndRun {
        id: "r1",
        to: tidemill_protocol::RunState::Cancelled,
        who: "ada",
        code: "c",
        reason: "r",
        only_past_deadline: false,
        spares: false,
        by_force: false,
        home: None,
        reply_to: None,
    };
    let now = pool.home().now_ms().await.unwrap();
    assert_eq!(pool.home().end_run(&end).await.unwrap(), Some(true));
    pool.cli(&["DEL", &pool.keys().run("r2")]).await;
    pool.interruption().await;
    let (cut, next) = pool.home().runs_cut_short(now, 10).await.unwrap();
    assert_eq!(next, None);
    assert_eq!(cut.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["r1"]);
    let (next, all) = pool.home().walk_line(TIER, 0, 100).await.unwrap();
    assert_eq!((next, all.len()), (0, 2));
    let mut answers: Vec<CalledUp> = call_up(pool, &all).await;
    answers.sort_by_key(|answer| *answer != CalledUp::Ended);
    assert_eq!(answers, [CalledUp::Ended, CalledUp::Dropped]);
    let called = claim(&mut pool.worker("w2"), "default:first", 1).await;
    assert_eq!(field(&called[0], "run").unwrap(), "r1");
}

pub(crate) async fn foreign_keys_hold_up_their_own_line_only(pool: &Pool) {
    park_jobs(pool, "a", 2, "acme", 5).await;
    // a key of the line itself: what is there cannot be called up, and what comes is put aside for a moment
    pool.cli(&["SET", &pool.keys().line("broken"), "x"]).await;
    pool.cli(&["SADD", &pool.keys().lines(), "broken"]).await;
    let tiers = pool.home().lines().await.unwrap();
    assert_eq!(tiers, ["broken", TIER]);
    assert_eq!(pool.home().line_lengths(&tiers).await.unwrap(), [None, Some(2)]);
    let entry = pool.xadd(&pool.jobs(), &["tool", "echo", "id", "b0"]).await;
    let held = claim(&mut pool.worker("w1"), "default", 1).await;
    assert_eq!(held[0].entry, entry);
    pool.interruption().await;
    let broken = Parking { tier: "broken", ..parking(&held[0], "b0", "", 5) };
    assert_eq!(park(pool, &[broken]).await, [true]);
    assert_eq!(pool.becomes_due("default").await, ["j:b0"]);
    assert!(pool.home().call_up("broken", &["default|j:b0".to_owned()], |_| true).await.is_err());
    // the stream of one member's queue: it makes room for the next
    let held = {
        pool.xadd(&pool.keys().jobs("other"), &["tool", "echo", "id", "c0"]).await;
        claim(&mut pool.worker("w1"), "other", 1).await
    };
    let first = Parking { priority: 9, ..parking(&held[0], "c0", "", 9) };
    assert_eq!(pool.home().park("other", keys::WORKERS, "w1", &[first]).await.unwrap(), [true]);
    pool.cli(&["SET", &pool.keys().jobs("other:first"), "x"]).await;
    let places = heads(pool, 2).await;
    assert_eq!(places, ["other|j:c0", "default|j:a0"]);
    assert_eq!(call_up(pool, &places).await, [CalledUp::Stuck, CalledUp::Called]);
    assert_eq!(pool.home().line_length(TIER).await.unwrap(), 2, "it still waits");
    pool.cli(&["DEL", &pool.keys().jobs("other:first")]).await;
    assert_eq!(call_up(pool, &["other|j:c0".to_owned()]).await, [CalledUp::Called]);
}

/// Microseconds that Redis spent in functions since this was asked last.
async fn function_time(pool: &Pool) -> u64 {
    let stats = pool.cli(&["INFO", "commandstats"]).await;
    let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_fcall:"));
    let spent = line.and_then(|line| line.split("usec=").nth(1)?.split(',').next()?.parse().ok());
    pool.cli(&["CONFIG", "RESETSTAT"]).await;
    spent.unwrap_or(0)
}

#[tokio::test]
async fn a_tenant_with_ten_jobs_does_not_wait_behind_one_with_a_hundred_thousand() {
    const MANY: usize = 100_000;
    let pool = Pool::start().await;
    let before = pool.store.facts().await.unwrap().used_memory_bytes;
    function_time(&pool).await;
    park_jobs(&pool, "a", MANY, "acme", 5).await;
    let parking_us = function_time(&pool).await;
    let used = pool.store.facts().await.unwrap().used_memory_bytes - before;
    println!("memory of a parked job: {} bytes", used / MANY as u64);
    println!("time of Redis to park one: {} ns", parking_us * 1_000 / MANY as u64);
    assert!(used / (MANY as u64) < 1_000, "{used} bytes for {MANY}");
    assert_eq!(next(&pool, 5).await.len(), 5);
    park_jobs(&pool, "b", 10, "bolt", 5).await;
    let ids = next_ids(&pool, 21).await;
    let small = ids.iter().filter(|id| id.starts_with('b')).count();
    assert_eq!(small, 10, "{ids:?}");
    let alternate = ids.windows(2).filter(|pair| pair[0].as_bytes()[0] != pair[1].as_bytes()[0]).count();
    assert!(alternate >= 18, "one and one: {ids:?}");
    function_time(&pool).await;
    for _ in 0..50 {
        assert_eq!(call_up(&pool, &heads(&pool, 200).await).await, [CalledUp::Called; 200]);
    }
    println!("time of Redis to call one up: {} ns", function_time(&pool).await * 1_000 / 10_000);
}

#[tokio::test]
async fn the_clocks_of_tenants_who_are_through_are_forgotten() {
    let pool = Pool::start().await;
    park_jobs(&pool, "stays", 600, "acme", 0).await;
    for n in 0..6 {
        let script =
            "for i = 0, 99 do redis.call('XADD', KEYS[1], '*', 'tool', 'echo', 'id', ARGV[1] .. i) end";
        let prefix = format!("t{n}-");
        pool.cli(&["EVAL", script, "1", &pool.jobs(), &prefix]).await;
        let held = claim(&mut pool.worker("w1"), "default", 100).await;
        let ids: Vec<String> = held.iter().map(|entry| field(entry, "id").unwrap()).collect();
        let all: Vec<_> = held.iter().zip(&ids).map(|(entry, id)| parking(entry, id, id, 5)).collect();
        assert_eq!(park(&pool, &all).await, [true; 100]);
        let places = heads(&pool, 100).await;
        assert_eq!(call_up(&pool, &places).await, [CalledUp::Called; 100]);
        // the front moves on only with a tenant's second job
        park_jobs(&pool, &format!("m{n}-"), 20, "more", 5).await;
        let places = heads(&pool, 20).await;
        assert_eq!(call_up(&pool, &places).await, [CalledUp::Called; 20]);
    }
    let left: u64 = pool.cli(&["HLEN", &pool.keys().turns(TIER)]).await.parse().unwrap();
    assert!(left < 300, "{left} of 600 tenants are remembered");
}

/// Start-time fair queueing by the book, for one partition's line.
#[derive(Default)]
struct Model {
    clock: BTreeMap<u8, u64>,
    next: BTreeMap<(u8, String), u64>,
    waiting: Vec<((u8, u64), String)>,
}

impl Model {
    fn park(&mut self, id: String, tenant: &str, priority: u8) {
        let clock = self.clock.get(&priority).copied().unwrap_or(0);
        let next = self.next.entry((priority, tenant.to_owned())).or_default();
        let start = clock.max(*next);
        *next = start + 1;
        self.waiting.push(((9 - priority, start), id));
    }

    fn call_up(&mut self) -> String {
        let at = (0..self.waiting.len()).min_by_key(|at| self.waiting[*at].clone()).unwrap();
        let ((band, start), id) = self.waiting.remove(at);
        let clock = self.clock.entry(9 - band).or_default();
        *clock = start.max(*clock);
        if self.waiting.is_empty() {
            (self.clock, self.next) = Default::default();
        }
        id
    }
}

#[tokio::test]
async fn any_sequence_is_called_up_as_start_time_fair_queueing_says() {
    let pool = Pool::start().await;
    let (mut model, mut seed, mut number) = (Model::default(), 0x2545_f491_4f6c_dd1d_u64, 0);
    let mut random = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let mut worker = pool.worker("w1");
    for _ in 0..600 {
        if model.waiting.is_empty() || random(100) < 52 {
            let id = format!("n{number:04}");
            number += 1;
            let (tenant, priority) = (format!("t{}", random(4)), [5, 5, 5, 9, 1][random(5) as usize]);
            pool.xadd(&pool.jobs(), &["tool", "echo", "id", &id]).await;
            let held = claim(&mut worker, "default", 1).await;
            assert_eq!(park(&pool, &[parking(&held[0], &id, &tenant, priority)]).await, [true]);
            model.park(format!("default|j:{id}"), &tenant, priority);
        } else {
            let wanted = model.call_up();
            let head = heads(&pool, 1).await;
            assert_eq!(head, [wanted]);
            assert_eq!(call_up(&pool, &head).await, [CalledUp::Called]);
        }
    }
}

#[tokio::test]
async fn what_a_dead_worker_had_been_called_up_with_keeps_its_ticket() {
    let pool = Pool::start().await;
    park_jobs(&pool, "a", 1, "acme", 5).await;
    let called = next(&pool, 1).await;
    pool.home().beat("w2", 1, 0).await.unwrap();
    let held = [tidemill_store::Held { entry: called[0].entry.clone(), slot: None, attempt: 1 }];
    let moved = pool.home().reclaim("default:first", "s1", ("w2", "1"), &held).await.unwrap();
    assert!(matches!(moved[..], [tidemill_store::Released::Moved(_)]));
    let again = claim(&mut pool.worker("w3"), "default:first", 1).await;
    assert_eq!(field(&again[0], "_ticket").unwrap(), TIER);
    assert_eq!(field(&again[0], "_score"), field(&called[0], "_score"));
    // and whoever has it now may park it again
    let back = [parking(&again[0], "a0", "acme", 5)];
    let late = [parking(&called[0], "a0", "acme", 5)];
    assert_eq!(pool.home().park("default:first", keys::WORKERS, "w2", &late).await.unwrap(), [false]);
    assert_eq!(pool.home().park("default:first", keys::WORKERS, "w3", &back).await.unwrap(), [true]);
}
