use std::collections::BTreeSet;
use std::fmt::Write;

use tidemill_protocol::RunState;
use tidemill_store::{GroupCount, StopRun, keys};
use tidemill_testkit::wait_for;

use crate::pool::{Pool, SOON, claim, quick, sum_is};

const GROUP: &str = "sync:acme";

fn flow(limit: u32, on_full: &str) -> String {
    format!(
        "name: sync\nversion: 1\ngroup: {{ key: \"${{ .input.who }}\", limit: {limit}, on_full: {on_full} }}\nsteps:\n  - {{ id: a, tool: echo }}\n"
    )
}

async fn ask(pool: &Pool, id: &str, who: &str) {
    let input = format!("{{\"who\":\"{who}\"}}");
    pool.ask_in(id, &["workflow", "sync", "id", id, "input", &input]).await;
}

async fn end(pool: &Pool, id: &str) {
    let stop = StopRun {
        id,
        to: RunState::Cancelled,
        who: "ada",
        code: "cancelled",
        reason: "enough",
        only_past_deadline: false,
        spares: false,
        by_force: false,
    };
    assert_eq!(pool.store.partition_of(id).stop_run(&stop).await.unwrap(), Some(true), "{id}");
}

async fn group(pool: &Pool) -> Option<GroupCount> {
    pool.store.partition_of(GROUP).group(GROUP).await.unwrap()
}

/// Waits until so many of the group have a place, and so many wait.
async fn counts_are(pool: &Pool, holders: u64, waiting: u64) {
    wait_for(SOON, &format!("{holders} with a place, {waiting} waiting"), async || {
        let found = group(pool).await.map_or((0, 0), |group| (group.holders, group.waiting));
        if found == (holders, waiting) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await
    .unwrap();
}

async fn state_is(pool: &Pool, id: &str, wanted: RunState) {
    wait_for(SOON, &format!("{id} {wanted:?}"), async || {
        let found = pool.store.partition_of(id).run(id).await.unwrap().map(|run| run.state);
        if found == Some(wanted) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await
    .unwrap();
}

async fn is_not_started(pool: &Pool, id: &str) {
    assert_eq!(pool.store.partition_of(id).run(id).await.unwrap(), None, "{id} waits");
}

#[tokio::test]
async fn of_one_key_so_many_run_at_once_and_the_others_follow_in_the_order_of_their_requests() {
    let pool = Pool::start().await;
    pool.publish(&flow(2, "queue")).await;
    let scheduler = pool.schedule(quick()).await;
    for id in ["r1", "r2", "r3", "r4", "r5"] {
        ask(&pool, id, "acme").await;
    }
    ask(&pool, "other", "globex").await;
    state_is(&pool, "other", RunState::Running).await;
    counts_are(&pool, 2, 3).await;
    for (ended, next, still) in [("r1", "r3", "r4"), ("r3", "r4", "r5"), ("r2", "r5", "")] {
        end(&pool, ended).await;
        state_is(&pool, next, RunState::Running).await;
        if !still.is_empty() {
            is_not_started(&pool, still).await;
        }
    }
    counts_are(&pool, 2, 0).await;
    assert_eq!(pool.cli(&["HGET", "tm:{0}:run:r1", "grp"]).await, GROUP);
    scheduler.count_is("tidemill_group_queued_total{workflow=\"sync\"}", 3).await;
    scheduler.count_is("tidemill_group_holders{workflow=\"sync\"}", 3).await;
    for id in ["r4", "r5", "other"] {
        end(&pool, id).await;
    }
    pool.count_is("EXISTS", "tm:{0}:groups", 0).await;
    scheduler.count_is("tidemill_group_holders{workflow=\"sync\"}", 0).await;
    pool.count_is("XLEN", "tm:{0}:runs", 0).await;
}

#[tokio::test]
async fn over_many_partitions_and_two_schedulers_never_more_run_than_may() {
    const RUNS: u64 = 60;
    let pool = Pool::with_partitions(4).await;
    pool.publish(&flow(3, "queue")).await;
    let (one, two) = (pool.schedule(quick()).await, pool.schedule(quick()).await);
    for at in 0..RUNS {
        ask(&pool, &format!("r{at}"), "acme").await;
    }
    let mut ended = BTreeSet::new();
    while ended.len() < RUNS as usize {
        let mut live = Vec::new();
        for partition in pool.store.partitions() {
            live.extend(partition.live_runs(0, 100).await.unwrap());
        }
        assert!(live.len() <= 3, "{live:?}");
        for id in live {
            end(&pool, &id).await;
            assert!(ended.insert(id));
        }
        tokio::task::yield_now().await;
    }
    sum_is(&one, &two, "tidemill_runs_started_total", RUNS).await;
    counts_are(&pool, 0, 0).await;
}

#[tokio::test]
async fn the_newest_takes_the_place_of_the_oldest_and_all_between_are_told() {
    let pool = Pool::start().await;
    pool.publish(&flow(1, "cancel_older")).await;
    let scheduler = pool.schedule(quick()).await;
    ask(&pool, "r1", "acme").await;
    state_is(&pool, "r1", RunState::Running).await;
    ask(&pool, "r2", "acme").await;
    state_is(&pool, "r1", RunState::Cancelled).await;
    state_is(&pool, "r2", RunState::Running).await;
    let error = pool.run("r1").await.error.unwrap();
    assert!(error.contains("superseded") && error.contains("r2") && error.contains(GROUP), "{error}");
    scheduler.count_is("tidemill_group_cancelled_total{workflow=\"sync\"}", 1).await;
    counts_are(&pool, 1, 0).await;
    scheduler.stop().await;
    // several at once: only the newest gets its turn
    for id in ["r3", "r4", "r5"] {
        ask(&pool, id, "acme").await;
    }
    let scheduler = pool.schedule(quick()).await;
    state_is(&pool, "r5", RunState::Running).await;
    for id in ["r2", "r3", "r4"] {
        state_is(&pool, id, RunState::Cancelled).await;
    }
    counts_are(&pool, 1, 0).await;
    assert_eq!(pool.cli(&["XLEN", "tm:{0}:dead"]).await, "0", "nobody failed");
    scheduler.stop().await;
}

#[tokio::test]
async fn where_nobody_may_wait_a_newcomer_ends_as_cancelled_and_its_caller_is_told() {
    let pool = Pool::start().await;
    pool.publish(&flow(1, "cancel_newer")).await;
    let scheduler = pool.schedule(quick()).await;
    ask(&pool, "r1", "acme").await;
    state_is(&pool, "r1", RunState::Running).await;
    let more = ["id", "r2", "input", "{\"who\":\"acme\"}", "result_ttl_ms", "60000", "reply_to", "mine"];
    pool.ask(&[&["workflow", "sync"][..], &more[..]].concat()).await;
    state_is(&pool, "r2", RunState::Cancelled).await;
    let result: serde_json::Value =
        serde_json::from_str(&pool.home().result("r2").await.unwrap().unwrap()).unwrap();
    assert_eq!((&result["state"], &result["error"]["code"]), (&"cancelled".into(), &"group_full".into()));
    pool.count_is("XLEN", "mine", 1).await;
    scheduler.count_is("tidemill_runs_refused_total{code=\"group_full\"}", 1).await;
    assert_eq!(pool.cli(&["XLEN", "tm:{0}:dead"]).await, "0");
    end(&pool, "r1").await;
    counts_are(&pool, 0, 0).await;
    ask(&pool, "r3", "acme").await;
    state_is(&pool, "r3", RunState::Running).await;
}

#[tokio::test]
async fn a_place_whose_run_never_came_or_whose_end_nobody_heard_is_given_back() {
    let pool = Pool::start().await;
    pool.publish(&flow(2, "queue")).await;
    let scheduler = pool.schedule(quick()).await;
    ask(&pool, "r1", "acme").await;
    state_is(&pool, "r1", RunState::Running).await;
    scheduler.stop().await;
    // one that died between taking the place and starting its run, and a notice that was lost
    pool.cli(&["ZADD", &format!("tm:{{0}}:group:{GROUP}"), "1", "0 lost"]).await;
    end(&pool, "r1").await;
    pool.cli(&["DEL", "tm:{0}:runs"]).await;
    for id in ["r2", "r3", "r4"] {
        ask(&pool, id, "acme").await;
    }
    let scheduler = pool.schedule(quick()).await;
    state_is(&pool, "r2", RunState::Running).await;
    state_is(&pool, "r3", RunState::Running).await;
    is_not_started(&pool, "r4").await;
    scheduler.count_is("tidemill_repaired_total{what=\"group_place\"}", 2).await;
    counts_are(&pool, 2, 1).await;
}

#[tokio::test]
async fn a_request_that_is_lost_while_it_waits_does_not_hold_up_the_next() {
    let pool = Pool::start().await;
    pool.publish(&flow(1, "queue")).await;
    let scheduler = pool.schedule(quick()).await;
    for id in ["r1", "r2", "r3", "r4"] {
        ask(&pool, id, "acme").await;
    }
    counts_are(&pool, 1, 3).await;
    pool.count_is("ZCARD", "tm:{0}:due:@runs", 3).await;
    pool.cli(&["ZREM", "tm:{0}:due:@runs", "j:r2"]).await;
    pool.cli(&["HDEL", "tm:{0}:deferred:@runs", "j:r2"]).await;
    // and one that is cancelled in order
    assert!(pool.home().cancel_job(keys::RUNS, "r3", "not wanted").await.unwrap());
    end(&pool, "r1").await;
    state_is(&pool, "r4", RunState::Running).await;
    counts_are(&pool, 1, 0).await;
    scheduler.stop().await;
}

#[tokio::test]
async fn who_waits_beyond_its_deadline_is_told_that_it_is_too_late() {
    let pool = Pool::start().await;
    pool.publish(&flow(1, "queue")).await;
    pool.schedule(quick()).await;
    ask(&pool, "r1", "acme").await;
    state_is(&pool, "r1", RunState::Running).await;
    let fields = ["workflow", "sync", "id", "r2", "input", "{\"who\":\"acme\"}", "deadline_ms", "300"];
    pool.ask(&fields).await;
    let (code, _) = pool.letter_of("r2").await;
    assert_eq!(code, "deadline_exceeded");
    counts_are(&pool, 1, 0).await;
}

#[tokio::test]
async fn of_a_thousand_requests_of_one_id_one_runs_and_takes_one_place() {
    let pool = Pool::start().await;
    pool.publish(&flow(1, "queue")).await;
    let (one, two) = (pool.schedule(quick()).await, pool.schedule(quick()).await);
    let add =
        "redis.call('XADD', KEYS[1], '*', 'workflow', 'sync', 'input', '{\"who\":\"acme\"}', 'id', ARGV[1])";
    let mut script = String::new();
    write!(script, "for i = 1, 1000 do {add} end").unwrap();
    pool.cli(&["EVAL", &script, "1", "tm:{0}:runs", "first"]).await;
    pool.cli(&["EVAL", &script, "1", "tm:{0}:runs", "second"]).await;
    state_is(&pool, "first", RunState::Running).await;
    pool.count_is("XLEN", "tm:{0}:runs", 0).await;
    counts_are(&pool, 1, 1).await;
    pool.count_is("ZCARD", "tm:{0}:due:@runs", 1).await;
    is_not_started(&pool, "second").await;
    end(&pool, "first").await;
    state_is(&pool, "second", RunState::Running).await;
    sum_is(&one, &two, "tidemill_runs_started_total", 2).await;
    // a late request of a run that is over takes no place and sends nobody away
    ask(&pool, "first", "acme").await;
    pool.count_is("XLEN", "tm:{0}:runs", 0).await;
    counts_are(&pool, 1, 0).await;
    let first = claim(&mut pool.worker("w1"), "default", 2).await;
    assert_eq!(first.len(), 2, "one first step each");
}

#[tokio::test]
async fn a_key_that_says_nothing_is_no_group_and_one_that_cannot_be_used_is_refused() {
    let pool = Pool::start().await;
    pool.publish(&flow(1, "queue")).await;
    pool.schedule(quick()).await;
    pool.ask(&["workflow", "sync", "id", "r1", "input", "{}"]).await;
    pool.ask(&["workflow", "sync", "id", "r2", "input", "{\"who\":null}"]).await;
    state_is(&pool, "r1", RunState::Running).await;
    state_is(&pool, "r2", RunState::Running).await;
    assert_eq!(group(&pool).await, None);
    pool.ask(&["workflow", "sync", "id", "r3", "input", "{\"who\":\"\"}"]).await;
    let (code, reason) = pool.letter_of("r3").await;
    assert_eq!(code, "invalid_group");
    assert!(reason.contains("sync"), "{reason}");
    pool.ask(&["workflow", "sync", "id", "r4", "input", "{\"who\":[1,{}]}"]).await;
    state_is(&pool, "r4", RunState::Running).await;
    assert_eq!(pool.cli(&["HGET", "tm:{0}:run:r4", "grp"]).await, "sync:[1,{}]");
}
