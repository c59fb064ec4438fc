//! Workers that die, freeze, or are told to leave.

use std::time::Duration;

use tidemill_protocol::RunState;
use tidemill_testkit::wait_for;

use crate::ledger::{audits_fold, ended_once, nothing_is_left, results, spread};
use crate::pool::{LONG, Pool, Program};

const FLOW: &str = r#"
name: flow
steps:
  - { id: a, tool: sleep, with: { ms: 20 } }
  - { id: b, tool: sleep, with: { ms: 20 } }
  - { id: each, tool: sleep, needs: [a], for_each: { items: "${ [10, 10, 10] }", concurrency: 2 }, with: { ms: "${ .item }" } }
  - { id: join, tool: echo, needs: [b, each], with: { n: "${ .steps.each.output | length }" } }
output: "${ .steps.join.output }"
"#;

/// Freezes a worker, waits until a scheduler has taken everything from it, and lets it go on: a zombie.
async fn zombie(pool: &Pool, worker: &mut Program) {
    worker.process.pause().unwrap();
    all_taken(pool, &worker.consumer()).await;
    worker.process.resume().unwrap();
}

/// Waits until a consumer holds nothing.
async fn all_taken(pool: &Pool, consumer: &str) {
    let taken = async || {
        let left = pool.held_by(consumer).await;
        if left.is_empty() { Ok(()) } else { Err(format!("{} entries", left.len())) }
    };
    wait_for(LONG, "a silent worker's entries to be taken", taken).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_jobs_and_five_hundred_runs_survive_kills_and_freezes() {
    const JOBS: usize = 10_000;
    const RUNS: usize = 500;
    let pool = Pool::start().await;
    pool.publish("flow", FLOW).await;
    let (_first, _second) = (pool.scheduler().await, pool.scheduler().await);
    let mut workers = vec![pool.worker(100).await, pool.worker(100).await, pool.worker(100).await];
    let ids = pool.runs("run", RUNS, "flow", "{}").await;
    pool.jobs("job", JOBS, "sleep", "{\"ms\":400}").await;

    let mut lost: Vec<(u64, Vec<String>)> = Vec::new();
    for round in 1..=4 {
        pool.replies_are(round * 1_500).await;
        if round % 2 == 1 {
            let mut dead = workers.remove(0);
            let consumer = dead.consumer();
            // it may be the one that was frozen, and must have begun to claim again
            let holds = async || {
                if ids_held(&pool, &consumer).await.is_empty() { Err("nothing".to_owned()) } else { Ok(()) }
            };
            wait_for(LONG, "the worker to hold jobs", holds).await.unwrap();
            dead.process.kill().await.unwrap();
            let killed_ms = pool.home().now_ms().await.unwrap();
            lost.push((killed_ms, ids_held(&pool, &consumer).await));
            workers.push(pool.worker(100).await);
            all_taken(&pool, &consumer).await;
            let taken_ms = pool.home().now_ms().await.unwrap();
            println!("a killed worker's entries were taken after {} ms", taken_ms - killed_ms);
        } else {
            zombie(&pool, &mut workers[0]).await;
        }
    }
    pool.replies_are(JOBS + RUNS).await;
    nothing_is_left(&pool).await;
    ended_once(&pool, "job", JOBS, "succeeded").await;
    ended_once(&pool, "run", RUNS, "succeeded").await;
    audits_fold(&pool, &ids, RunState::Succeeded).await;
    let jobs = pool.home().keys().jobs("default");
    let forgotten = async || {
        let consumers = pool.home().consumers(&jobs, "workers").await.map_err(|error| error.to_string())?;
        // one that is alive and has not claimed since it was taken for dead is not among them
        let living = |name: &String| workers.iter().any(|worker| worker.consumer() == *name);
        if consumers.iter().all(|(name, _)| living(name)) { Ok(()) } else { Err(format!("{consumers:?}")) }
    };
    wait_for(LONG, "the dead to be forgotten", forgotten).await.unwrap();
    assert_eq!(pool.home().letter_count().await.unwrap(), 0, "two deaths are within the crash budget");

    let results = results(&pool).await;
    let mut recovery = Vec::new();
    for (killed_ms, ids) in &lost {
        assert!(!ids.is_empty(), "the worker held nothing when it was killed");
        for id in ids {
            let ended = results[id][0]["finished_at_ms"].as_u64().unwrap();
            recovery.push(ended.saturating_sub(*killed_ms));
        }
    }
    println!("{}", spread("jobs of killed workers, from the kill to their end behind the backlog", recovery));
}

/// The ids of the plain jobs among the entries that a consumer holds.
async fn ids_held(pool: &Pool, consumer: &str) -> Vec<String> {
    let jobs = pool.home().keys().jobs("default");
    let mut ids = Vec::new();
    for entry in pool.held_by(consumer).await {
        let found = pool.home().entry(&jobs, &entry).await.unwrap();
        let id = found.and_then(|entry| entry.fields.into_iter().find(|(name, _)| &**name == b"id"));
        ids.extend(id.map(|(_, value)| String::from_utf8_lossy(&value).into_owned()));
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_told_to_leave_under_load_loses_nothing() {
    const JOBS: usize = 3_000;
    let pool = Pool::start().await;
    let _scheduler = pool.scheduler().await;
    let mut leaving = pool.worker_with(100, &[("TIDEMILL_WORKER__GRACE_MS", "300")], None).await;
    let mut killed = pool.worker(100).await;
    pool.jobs("short", JOBS, "sleep", "{\"ms\":30}").await;
    pool.jobs("long", 150, "sleep", "{\"ms\":3000}").await;
    pool.replies_are(JOBS / 3).await;
    let consumer = leaving.consumer();
    leaving.process.term().unwrap();
    // one is killed while it drains
    killed.process.term().unwrap();
    killed.process.kill().await.unwrap();
    let _next = pool.worker(200).await;
    let status = leaving.process.wait(LONG).await.unwrap();
    assert!(matches!(status.code(), Some(0 | 5)), "{status:?}\n{}", leaving.process.output());
    assert!(pool.held_by(&consumer).await.is_empty(), "it handed everything back");
    let consumers = pool.home().consumers(&pool.home().keys().jobs("default"), "workers").await.unwrap();
    assert!(!consumers.iter().any(|(name, _)| *name == consumer), "and is gone: {consumers:?}");
    pool.replies_are(JOBS + 150).await;
    nothing_is_left(&pool).await;
    ended_once(&pool, "short", JOBS, "succeeded").await;
    ended_once(&pool, "long", 150, "succeeded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_schedulers_and_the_death_of_one_start_and_end_each_run_once() {
    let pool = Pool::start().await;
    pool.publish("flow", FLOW).await;
    let mut first = pool.scheduler().await;
    let _second = pool.scheduler().await;
    let _worker = pool.worker(100).await;
    let ids = pool.runs("run", 400, "flow", "{}").await;
    pool.replies_are(100).await;
    first.process.kill().await.unwrap();
    pool.replies_are(400).await;
    nothing_is_left(&pool).await;
    ended_once(&pool, "run", 400, "succeeded").await;
    audits_fold(&pool, &ids, RunState::Succeeded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_kills_its_workers_is_buried_and_the_others_end() {
    let pool = Pool::start().await;
    let _scheduler = pool.scheduler().await;
    let settings = [("TIDEMILL_EXEC__ALLOW__SH", "/bin/sh")];
    let mut worker = pool.worker_with(20, &settings, None).await;
    let poison = "{\"program\":\"sh\",\"args\":[\"-c\",\"kill -9 $PPID; exec sleep 60\"]}";
    pool.jobs("poison", 1, "exec.run", poison).await;
    let mut deaths = 0;
    while pool.home().letter_count().await.unwrap() == 0 {
        pool.jobs(&format!("round{deaths}"), 50, "echo", "{}").await;
        let dead = tokio::time::timeout(Duration::from_secs(20), worker.process.wait(LONG)).await;
        if dead.is_err() {
            break; // it lives on: the poison does not come back
        }
        deaths += 1;
        assert!(deaths <= 3, "the poison was given to {deaths} workers");
        worker = pool.worker_with(20, &settings, None).await;
    }
    pool.replies_are(50 * deaths + 1).await;
    let letters = pool.home().letters(None, 10).await.unwrap();
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0].field("id").unwrap(), "poison-0");
    println!("buried after {deaths} deaths: {}: {}", letters[0].code, letters[0].reason);
    ended_once(&pool, "poison", 1, "failed").await;
    for round in 0..deaths {
        ended_once(&pool, &format!("round{round}"), 50, "succeeded").await;
    }
    nothing_is_left(&pool).await;
}
