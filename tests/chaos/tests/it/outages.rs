//! Redis that dies, freezes or cannot be reached.

use std::time::Duration;

use tidemill_protocol::RunState;
use tidemill_testkit::{FaultProxy, Traffic};

use crate::ledger::{audits_fold, ended_once, nothing_is_left};
use crate::pool::Pool;

const CHAIN: &str = r#"
name: chain
steps:
  - { id: a, tool: sleep, with: { ms: 10 } }
  - { id: b, tool: sleep, needs: [a], with: { ms: 10 } }
  - { id: c, tool: jq.transform, needs: [b], with: { filter: ". + 1", input: 1 } }
output: "${ .steps.c.output }"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_redis_is_killed_and_comes_back_on_its_file() {
    for fsync in ["always", "everysec"] {
        let mut pool = Pool::durable(fsync).await;
        pool.publish("chain", CHAIN).await;
        let scheduler = pool.scheduler().await;
        let workers = [pool.worker(50).await, pool.worker(50).await];
        let ids = pool.runs("run", 200, "chain", "{}").await;
        pool.jobs("job", 3_000, "sleep", "{\"ms\":50}").await;
        for round in 1..=3 {
            pool.replies_are(round * 700).await;
            pool.server.stop_hard().unwrap();
            pool.server.restart().await.unwrap();
        }
        pool.replies_are(3_200).await;
        nothing_is_left(&pool).await;
        // a killed server has written what it answered to the system: only a power cut takes the last second
        ended_once(&pool, "job", 3_000, "succeeded").await;
        ended_once(&pool, "run", 200, "succeeded").await;
        audits_fold(&pool, &ids, RunState::Succeeded).await;
        for program in workers.iter().chain([&scheduler]) {
            program.ready_is(200).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_cut_again_and_again_lose_and_double_nothing() {
    let mut pool = Pool::start().await;
    let proxy = FaultProxy::start(pool.server.port()).await.unwrap();
    pool.url = pool.server.url_through(proxy.port());
    pool.publish("chain", CHAIN).await;
    let (_scheduler, _worker) = (pool.scheduler().await, pool.worker(100).await);
    let ids = pool.runs("run", 200, "chain", "{}").await;
    pool.jobs("job", 4_000, "sleep", "{\"ms\":30}").await;
    for round in 1..=12 {
        pool.replies_are(round * 300).await;
        match round % 4 {
            0 => proxy.drop_reply("tm1_settle_step", 1),
            1 => proxy.drop_reply("tm1_complete", 1),
            2 => proxy.drop_reply("XREADGROUP", 2),
            _ => {}
        }
        if round % 4 == 3 {
            proxy.cut();
        }
    }
    pool.replies_are(4_200).await;
    nothing_is_left(&pool).await;
    ended_once(&pool, "job", 4_000, "succeeded").await;
    ended_once(&pool, "run", 200, "succeeded").await;
    audits_fold(&pool, &ids, RunState::Succeeded).await;
    assert!(proxy.replies_dropped() >= 6, "only {} replies were dropped", proxy.replies_dropped());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_redis_is_told_by_ready_and_costs_no_job() {
    let pool = Pool::start().await;
    pool.publish("chain", CHAIN).await;
    let (scheduler, worker) = (pool.scheduler().await, pool.worker(100).await);
    worker.ready_is(200).await;
    scheduler.ready_is(200).await;
    let ids = pool.runs("run", 100, "chain", "{}").await;
    pool.jobs("job", 2_000, "sleep", "{\"ms\":50}").await;
    pool.replies_are(300).await;
    // shorter than anybody's patience, then longer
    pool.server.pause().unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    pool.server.resume().unwrap();
    pool.replies_are(900).await;
    pool.server.pause().unwrap();
    worker.ready_is(503).await;
    scheduler.ready_is(503).await;
    pool.server.resume().unwrap();
    worker.ready_is(200).await;
    scheduler.ready_is(200).await;
    pool.replies_are(2_100).await;
    nothing_is_left(&pool).await;
    ended_once(&pool, "job", 2_000, "succeeded").await;
    ended_once(&pool, "run", 100, "succeeded").await;
    audits_fold(&pool, &ids, RunState::Succeeded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_swallows_everything_is_noticed_and_left() {
    let mut pool = Pool::start().await;
    let proxy = FaultProxy::start(pool.server.port()).await.unwrap();
    pool.url = pool.server.url_through(proxy.port());
    let worker = pool.worker_with(50, &[("TIDEMILL_REDIS__RESPONSE_TIMEOUT_MS", "1000")], None).await;
    pool.url = pool.server.url();
    let _scheduler = pool.scheduler().await;
    pool.jobs("job", 1_000, "sleep", "{\"ms\":50}").await;
    pool.replies_are(200).await;
    // the worker is alive and cannot be heard: what it holds is done by another
    proxy.set(Traffic::BlackHole);
    worker.ready_is(503).await;
    let _other = pool.worker(50).await;
    pool.replies_are(1_000).await;
    proxy.set(Traffic::Pass);
    worker.ready_is(200).await;
    nothing_is_left(&pool).await;
    ended_once(&pool, "job", 1_000, "succeeded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_destroys_by_mistake_is_made_again() {
    let pool = Pool::start().await;
    pool.publish("chain", CHAIN).await;
    let (_scheduler, _worker) = (pool.scheduler().await, pool.worker(50).await);
    let ids = pool.runs("run", 100, "chain", "{}").await;
    pool.jobs("job", 2_000, "sleep", "{\"ms\":30}").await;
    let jobs = pool.home().keys().jobs("default");
    for (round, words) in [
        vec!["FUNCTION", "FLUSH"],
        vec!["XGROUP", "DESTROY", &jobs, "workers"],
        vec!["SCRIPT", "FLUSH"],
        vec!["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"],
        vec!["DEL", "tm:{0}:beats"],
    ]
    .into_iter()
    .enumerate()
    {
        pool.replies_are(200 + round * 300).await;
        pool.cli(&words).await;
    }
    pool.replies_are(2_100).await;
    nothing_is_left(&pool).await;
    ended_once(&pool, "job", 2_000, "succeeded").await;
    ended_once(&pool, "run", 100, "succeeded").await;
    audits_fold(&pool, &ids, RunState::Succeeded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_memory_bound_work_in_hand_ends_and_new_work_follows_when_there_is_room() {
    let pool = Pool::start().await;
    pool.publish("chain", CHAIN).await;
    let (scheduler, worker) = (pool.scheduler().await, pool.worker(50).await);
    let ids = pool.runs("run", 50, "chain", "{}").await;
    pool.replies_are(1).await;
    pool.jobs("job", 1_000, "sleep", "{\"ms\":30}").await;
    pool.replies_are(200).await;
    pool.cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
    pool.replies_are(1_000).await; // whatever was taken in can be settled
    pool.cli(&["CONFIG", "SET", "maxmemory", "0"]).await;
    pool.jobs("later", 100, "echo", "{}").await;
    pool.replies_are(1_150).await;
    nothing_is_left(&pool).await;
    ended_once(&pool, "job", 1_000, "succeeded").await;
    ended_once(&pool, "later", 100, "succeeded").await;
    ended_once(&pool, "run", 50, "succeeded").await;
    audits_fold(&pool, &ids, RunState::Succeeded).await;
    worker.ready_is(200).await;
    scheduler.ready_is(200).await;
}
