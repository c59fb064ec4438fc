//! Services: what becomes of limits, caps and lines while programs and servers die, as a referee outside the pool sees it.
//!
//! Every test asks the same: did any sliding window hold more than the limit, did the calls at once pass the cap, did every job end
//! once, and is each repeated call explained by a death?

use std::time::Duration;

use serde_json::{Value, json};
use tidemill_policy::service::Definition;
use tidemill_store::{Author, keys};
use tidemill_testkit::referee::{Latency, Referee, Report, Rules, Usage};
use tidemill_testkit::{FaultProxy, Traffic, wait_for, wait_until};
use tokio::time::Instant;

use crate::ledger::{ended_once, nothing_is_left};
use crate::pool::{LONG, Pool, Program};

const SERVICE: &str = "vendor";
const AUTHOR: Author<'static> = Author { who: "test", why: "a test", is_file: false };
/// The limits of these tests stand in a short window, so that a run sees several of them; the slack is what a busy machine needs on
/// the way from a grant to the call.
const WINDOW: Duration = Duration::from_secs(4);
const SLACK_MS: u64 = 150;

/// What each call uses.
const TOKENS: u64 = 8;

/// A strict limit of requests, as a definition says it.
fn strict(limit: u64) -> Value {
    let window_ms = u64::try_from(WINDOW.as_millis()).unwrap();
    json!({ "unit": "requests", "limit": limit, "window_ms": window_ms, "slack_ms": SLACK_MS })
}

fn taking(ms: u64) -> Rules {
    Rules::default().latency(Latency::Fixed(Duration::from_millis(ms)))
}

impl Pool {
    /// Puts a definition for the tool `http.request` in force.
    async fn define(&self, mut rules: Value) {
        rules["tools"] = json!(["http.request"]);
        // nothing here is about failures, and what kills cut off must not open anything
        rules["breaker"] = json!({ "enabled": false });
        let definition = Definition::from_json(&rules.to_string()).unwrap();
        self.store.services().apply(AUTHOR, SERVICE, Some(&definition)).await.unwrap();
    }

    /// A worker that may call the referee.
    async fn caller(&self) -> Program {
        let settings = [
            ("TIDEMILL_HTTP_REQUEST__ALLOW_NETWORKS", "127.0.0.0/8"),
            ("TIDEMILL_WORKER__CRASH_BUDGET", "50"),
        ];
        self.worker_with(20, &settings, None).await
    }

    /// Enqueues calls of so many tokens each.
    async fn calls(&self, referee: &Referee, count: usize) {
        let input = json!({ "url": referee.url(), "json": { "tokens": TOKENS }, "max_redirects": 0 });
        self.jobs("call", count, "http.request", &input.to_string()).await;
    }

    /// How many calls were granted so far.
    async fn granted(&self) -> usize {
        let states = self.store.services().states(&[SERVICE]).await.unwrap();
        states[0].as_ref().map_or(0, |state| usize::try_from(state.counters.get("granted")).unwrap())
    }

    /// Lets a worker ask for calls and not hear what it is granted: until then the proxy in front of it is opened again and again.
    async fn grant_unheard(&self, proxy: &FaultProxy, referee: &Referee) {
        for _ in 0..50 {
            proxy.set(Traffic::HoldReplies);
            let (mut before, mut since) = ((0, 0), Instant::now());
            let unheard = async || {
                let seen = (self.granted().await, referee.calls());
                if std::mem::replace(&mut before, seen) != seen {
                    since = Instant::now();
                }
                // what was heard of is a call by then
                let is_still = since.elapsed() > Duration::from_millis(300);
                if is_still && seen.0 > seen.1 { Ok(()) } else { Err(format!("{seen:?}")) }
            };
            if wait_for(Duration::from_millis(800), "a grant that is not used", unheard).await.is_ok() {
                return;
            }
            proxy.set(Traffic::Pass);
            referee.await_calls(referee.calls() + 2).await;
        }
        panic!("every grant was heard: {}", referee.report());
    }

    /// How many entries a consumer holds, those called up from lines among them.
    async fn all_held_by(&self, consumer: &str) -> usize {
        let first = self.home().keys().jobs(&format!("default{}", keys::FIRST));
        let called =
            self.home().pending((&first, keys::WORKERS), Some(consumer), None, 10_000).await.unwrap();
        called.len() + self.held_by(consumer).await.len()
    }

    /// Waits until so many stand in the service's line.
    async fn line_is(&self, least: u64) {
        let long_enough = async || match self.home().line_length(SERVICE).await {
            Ok(length) if length >= least => Ok(()),
            other => Err(format!("{other:?}")),
        };
        wait_for(LONG, &format!("{least} jobs in line"), long_enough).await.unwrap();
    }
}

/// No window, however it lies, holds more than the limit, and nobody was refused.
fn limit_held(report: &Report) {
    println!("{report}");
    assert!(report.worst_window.requests_share <= 1.0, "{report}");
    assert_eq!(report.violations, 0, "{report}");
}

/// Every job was called for, and again at most `excused` times in all.
fn repeated_at_most(report: &Report, jobs: usize, excused: usize) {
    let keys = report.per_idempotency_key();
    assert_eq!(keys.len(), jobs, "{report}");
    let repeated = report.calls - jobs;
    println!("{repeated} calls were made again, at most {excused} are explained");
    assert!(repeated <= excused, "{repeated} calls were made again, {excused} are explained: {report}");
}

/// The longest silence between two calls that came after a time.
fn longest_silence(report: &Report, since: Duration) -> Duration {
    let times: Vec<Duration> = report.arrivals.iter().map(|call| call.at).filter(|at| *at >= since).collect();
    times.windows(2).map(|two| two[1] - two[0]).max().unwrap_or_default()
}

/// Kills a worker each second and starts another, until nearly all calls have come; tells how many it killed.
async fn kill_every_second(pool: &Pool, referee: &Referee, jobs: usize) -> usize {
    let mut workers = vec![pool.caller().await, pool.caller().await, pool.caller().await];
    pool.calls(referee, jobs).await;
    let (mut kills, mut every) = (0, tokio::time::interval(Duration::from_secs(1)));
    every.tick().await;
    while referee.calls() < jobs * 9 / 10 {
        every.tick().await;
        let mut dead = workers.remove(0);
        dead.process.kill().await.unwrap();
        kills += 1;
        workers.push(pool.caller().await);
    }
    pool.replies_are(jobs).await;
    nothing_is_left(pool).await;
    ended_once(pool, "call", jobs, "succeeded").await;
    println!("{kills} workers were killed");
    assert!(kills >= 5, "{kills}");
    kills
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_holds_while_workers_are_killed_every_second() {
    const JOBS: usize = 500;
    const LIMIT: u64 = 200;
    let pool = Pool::start().await;
    let referee = Referee::start_with(taking(40).requests(LIMIT, WINDOW)).unwrap();
    pool.define(json!({ "limits": [strict(LIMIT)] })).await;
    let _scheduler = pool.scheduler().await;
    let kills = kill_every_second(&pool, &referee, JOBS).await;
    let report = referee.report();
    limit_held(&report);
    assert!(report.worst_window.requests_share > 0.8, "the limit was not in use: {report}");
    // what was cut off, and for each death a call that was answered a moment before and not settled
    repeated_at_most(&report, JOBS, report.unanswered + kills);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_tokens_holds_while_those_who_reserved_them_are_killed() {
    const JOBS: usize = 400;
    const LIMIT: u64 = 1_500;
    let pool = Pool::start().await;
    let rules = taking(60).tokens(LIMIT, WINDOW).usage(Usage::OpenAi);
    let referee = Referee::start_with(rules).unwrap();
    let mut limit = strict(LIMIT);
    limit["unit"] = json!("total_tokens");
    // half as much again is reserved as is used, and given back when the answer tells; what the dead reserved is not
    pool.define(json!({ "limits": [limit], "estimate": { "total_tokens": TOKENS * 3 / 2 } })).await;
    let _scheduler = pool.scheduler().await;
    let kills = kill_every_second(&pool, &referee, JOBS).await;
    let report = referee.report();
    println!("{report}");
    assert!(report.worst_window.tokens_share <= 1.0, "{report}");
    assert!(report.worst_window.tokens_share > 0.8, "the limit was not in use: {report}");
    assert_eq!(report.violations, 0, "{report}");
    repeated_at_most(&report, JOBS, report.unanswered + kills);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cap_holds_while_workers_are_killed_every_second() {
    const JOBS: usize = 200;
    const CAP: u32 = 10;
    let pool = Pool::start().await;
    // the referee counts calls at once and refuses none, so that the largest number shows
    let referee = Referee::start_with(taking(200)).unwrap();
    pool.define(json!({ "concurrency": CAP })).await;
    let _scheduler = pool.scheduler().await;
    let kills = kill_every_second(&pool, &referee, JOBS).await;
    let report = referee.report();
    println!("{report}");
    // The bound: a killed worker's connections close with it, so its calls end at the referee at once, and its places under the cap
    // come back seconds later. There is never a moment with more calls than places; a vendor that works on after its caller has gone
    // would have as many more as the dead had under way, for as long as they take beyond those seconds.
    assert_eq!(report.most_concurrent, CAP, "{report}");
    repeated_at_most(&report, JOBS, report.unanswered + kills);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_and_lines_go_on_when_redis_is_killed_and_comes_back_on_its_file() {
    const JOBS: usize = 400;
    const LIMIT: u64 = 200;
    const CAP: u32 = 10;
    let mut pool = Pool::durable("everysec").await;
    let referee = Referee::start_with(taking(100).requests(LIMIT, WINDOW)).unwrap();
    pool.define(json!({ "limits": [strict(LIMIT)], "concurrency": CAP })).await;
    let scheduler = pool.scheduler().await;
    let workers = [pool.caller().await, pool.caller().await];
    pool.calls(&referee, JOBS).await;
    pool.line_is(100).await;
    for round in 1..=2 {
        referee.await_calls(round * 120).await;
        pool.line_is(50).await;
        pool.server.stop_hard().unwrap();
        pool.server.restart().await.unwrap();
    }
    pool.replies_are(JOBS).await;
    nothing_is_left(&pool).await;
    ended_once(&pool, "call", JOBS, "succeeded").await;
    let report = referee.report();
    limit_held(&report);
    assert!(report.most_concurrent <= CAP, "{report}");
    // nobody died who was calling
    repeated_at_most(&report, JOBS, 0);
    for program in workers.iter().chain([&scheduler]) {
        program.ready_is(200).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_scheduler_goes_on_calling_up_when_one_is_killed() {
    const JOBS: usize = 400;
    const LIMIT: u64 = 200;
    let pool = Pool::start().await;
    let referee = Referee::start_with(taking(20).requests(LIMIT, WINDOW)).unwrap();
    pool.define(json!({ "limits": [strict(LIMIT)] })).await;
    let (mut first, mut second) = (pool.scheduler().await, pool.scheduler().await);
    let _worker = pool.caller().await;
    pool.calls(&referee, JOBS).await;
    pool.line_is(100).await;
    referee.await_calls(100).await;
    let since = referee.elapsed();
    first.process.kill().await.unwrap();
    referee.await_calls(200).await;
    let silence = longest_silence(&referee.report(), since);
    println!("longest silence after the first scheduler's death: {silence:?}");
    // what a dead scheduler had reserved for its tickets is free again after a second
    assert!(silence < Duration::from_secs(2), "{silence:?}");
    // with the last one the lines stand still; nothing is lost, and the next goes on
    second.process.kill().await.unwrap();
    let _third = pool.scheduler().await;
    pool.replies_are(JOBS).await;
    nothing_is_left(&pool).await;
    ended_once(&pool, "call", JOBS, "succeeded").await;
    let report = referee.report();
    limit_held(&report);
    repeated_at_most(&report, JOBS, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_frozen_for_ten_seconds_starts_nothing_on_its_old_grants() {
    const JOBS: usize = 600;
    const LIMIT: u64 = 200;
    const CAP: u32 = 30;
    let mut pool = Pool::start().await;
    let proxy = FaultProxy::start(pool.server.port()).await.unwrap();
    let referee = Referee::start_with(taking(300).requests(LIMIT, WINDOW)).unwrap();
    pool.define(json!({ "limits": [strict(LIMIT)], "concurrency": CAP })).await;
    let _scheduler = pool.scheduler().await;
    pool.url = pool.server.url_through(proxy.port());
    let mut frozen = pool.caller().await;
    pool.url = pool.server.url();
    pool.calls(&referee, JOBS).await;
    referee.await_calls(60).await;
    // it is granted what it does not hear of, and stands still
    proxy.set(Traffic::HoldReplies);
    pool.grant_unheard(&proxy, &referee).await;
    frozen.process.pause().unwrap();
    proxy.set(Traffic::Pass);
    let unheard = pool.granted().await - referee.calls();
    let consumer = frozen.consumer();
    let mut held = pool.all_held_by(&consumer).await;
    assert!(held > 0, "the frozen worker held nothing");

    // the other one takes the whole limit meanwhile; ten seconds are two windows and a half
    let _other = pool.caller().await;
    let until = referee.elapsed() + Duration::from_secs(10);
    let are_over = async || {
        // its last read is still blocked in Redis, and may be given more
        held = held.max(pool.all_held_by(&consumer).await);
        referee.elapsed() >= until
    };
    wait_until(LONG, "ten seconds of the other's calls", are_over).await.unwrap();
    let lately = referee.report().between(until - WINDOW, until).count();
    assert!(lately > 100, "only {lately} calls in the last window: the limit was not in use");
    frozen.process.resume().unwrap();
    pool.replies_are(JOBS).await;
    nothing_is_left(&pool).await;
    ended_once(&pool, "call", JOBS, "succeeded").await;
    let report = referee.report();
    limit_held(&report);
    assert!(report.most_concurrent <= CAP, "{report}");
    println!("the frozen worker held {held} entries and {unheard} grants that it had not heard of");
    let unused = pool.granted().await - report.calls;
    assert!(unused >= unheard, "{unheard} old grants, {unused} were not used");
    // what it held is done by the other, also what it had called for and could not settle
    repeated_at_most(&report, JOBS, held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_is_halved_while_the_pool_runs_holds_from_then_on() {
    const JOBS: usize = 450;
    const LIMIT: u64 = 200;
    let pool = Pool::start().await;
    let referee = Referee::start_with(taking(20).requests(LIMIT, WINDOW)).unwrap();
    pool.define(json!({ "limits": [strict(LIMIT)] })).await;
    let _scheduler = pool.scheduler().await;
    let _workers = [pool.caller().await, pool.caller().await, pool.caller().await];
    pool.calls(&referee, JOBS).await;
    // more than a window's worth, so that the limit is in full use
    referee.await_calls(220).await;
    pool.define(json!({ "limits": [strict(LIMIT / 2)] })).await;
    // what was granted before is on its way for as long as the slack says; the vendor lowers its limit after that
    let told = referee.elapsed();
    let arrived = async || referee.elapsed() >= told + Duration::from_millis(SLACK_MS);
    wait_until(LONG, "what was granted before to arrive", arrived).await.unwrap();
    referee.halve();
    let halved = referee.elapsed();
    pool.replies_are(JOBS).await;
    nothing_is_left(&pool).await;
    ended_once(&pool, "call", JOBS, "succeeded").await;
    let report = referee.report();
    limit_held(&report);
    repeated_at_most(&report, JOBS, 0);
    // the lower limit is used: a window after the change, and before the last calls
    let last = report.arrivals[JOBS - 1].at;
    let used = report.use_share(halved + WINDOW, last).requests_share;
    println!("use of the halved limit: {:.1} %", used * 100.0);
    assert!(used > 0.85, "{used}: {report}");
}
