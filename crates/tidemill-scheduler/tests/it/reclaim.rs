use std::time::Duration;

use tidemill_protocol::StepState;
use tidemill_runtime::clock::Instant;
use tidemill_scheduler::Settings;
use tidemill_store::keys;
use tidemill_testkit::wait_for;

use crate::pool::{Pool, SOON, claim, field, quick, sum_is};

const QUEUE: &str = "tm:{0}:jobs:default";
const ONE: &str = "{\"name\":\"one\",\"steps\":[{\"id\":\"first\",\"tool\":\"echo\"}]}";

async fn add_jobs(pool: &Pool, count: usize) {
    let script =
        format!("for i = 1, {count} do redis.call('XADD', KEYS[1], '*', 'tool', 'echo', 'x-n', i) end");
    pool.cli(&["EVAL", &script, "1", QUEUE]).await;
    pool.cli(&["SADD", "tm:{0}:queues", "default"]).await;
}

async fn holds(pool: &Pool, consumer: &str) -> usize {
    pool.home().pending((QUEUE, keys::WORKERS), Some(consumer), None, 10_000).await.unwrap().len()
}

#[tokio::test]
async fn the_dead_are_found_within_six_seconds_and_a_slow_but_steady_beat_is_left_alone() {
    let pool = Pool::start().await;
    add_jobs(&pool, 350).await;
    claim(&mut pool.worker("slow"), "default", 50).await;
    claim(&mut pool.worker("dead"), "default", 300).await;
    let (one, two) = (pool.schedule(Settings::default()).await, pool.schedule(Settings::default()).await);
    // both watch before it beats for the last time
    wait_for(SOON, "both schedulers to beat", async || {
        let beats = pool.home().beats().await.unwrap();
        if beats.len() == 2 { Ok(()) } else { Err(format!("{beats:?}")) }
    })
    .await
    .unwrap();
    pool.home().beat("dead", 1, 0).await.unwrap();
    pool.home().beat("slow", 0, 0).await.unwrap();
    let (died, mut beat, mut number) = (Instant::now(), Instant::now(), 0);
    while holds(&pool, "dead").await > 0 {
        if beat.elapsed() > Duration::from_millis(3_500) {
            (beat, number) = (Instant::now(), number + 1);
            pool.home().beat("slow", number, 0).await.unwrap();
        }
        assert!(
            died.elapsed() < Duration::from_secs(20),
            "the dead still hold {}",
            holds(&pool, "dead").await
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let took = died.elapsed();
    assert!(took > Duration::from_millis(4_900) && took < Duration::from_secs(6), "{took:?}");
    let claimed = claim(&mut pool.worker("w2"), "default", 300).await;
    assert!(claimed.iter().all(|entry| field(entry, "_deaths").as_deref() == Some("1")));
    let mut numbers: Vec<usize> =
        claimed.iter().map(|one| field(one, "x-n").unwrap().parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (51..=350).collect::<Vec<_>>(), "all of them, each once");
    assert_eq!(holds(&pool, "slow").await, 50);
    let line = "tidemill_reclaimed_total{queue=\"default\"}";
    sum_is(&one, &two, line, 300).await;
    wait_for(SOON, "the dead consumer to be deleted", async || {
        let left = pool.home().consumers(QUEUE, keys::WORKERS).await.unwrap();
        if left.iter().any(|(name, _)| name == "dead") { Err(format!("{left:?}")) } else { Ok(()) }
    })
    .await
    .unwrap();
    assert!(!pool.home().beats().await.unwrap().contains_key("dead"));
}

#[tokio::test]
async fn a_consumer_that_never_beat_is_dead_after_the_same_period() {
    let pool = Pool::start().await;
    add_jobs(&pool, 3).await;
    claim(&mut pool.worker("foreign"), "default", 3).await;
    let scheduler = pool.schedule(quick()).await;
    let again = claim(&mut pool.worker("w2"), "default", 3).await;
    assert_eq!(field(&again[0], "_deaths").as_deref(), Some("1"));
    scheduler.count_is("tidemill_reclaimed_total{queue=\"default\"}", 3).await;
}

#[tokio::test]
async fn a_job_that_keeps_killing_is_buried_with_its_fields() {
    let pool = Pool::start().await;
    pool.cli(&["SADD", "tm:{0}:queues", "default"]).await;
    pool.xadd(QUEUE, &["tool", "echo", "input", "\"boom\"", "id", "killer", "result_ttl_ms", "60000"]).await;
    let scheduler = pool.schedule(quick()).await;
    for round in 1..=3 {
        let claimed = claim(&mut pool.worker(&format!("victim{round}")), "default", 1).await;
        let deaths = field(&claimed[0], "_deaths").unwrap_or_else(|| "0".to_owned());
        assert_eq!(deaths, (round - 1).to_string());
    }
    let (code, reason) = pool.letter_of("killer").await;
    assert_eq!(code, "crash_budget");
    assert!(reason.contains("3 processes died") && reason.contains("victim3"), "{reason}");
    assert!(pool.home().result("killer").await.unwrap().unwrap().contains("crash_budget"));
    assert_eq!(pool.cli(&["XLEN", QUEUE]).await, "0");
    scheduler.count_is("tidemill_deaths_buried_total", 1).await;
    scheduler.count_is("tidemill_dead_members_total", 3).await;
}

#[tokio::test]
async fn a_step_of_a_dead_worker_moves_with_its_record_and_its_audit() {
    let pool = Pool::start().await;
    pool.publish(ONE).await;
    pool.cli(&["SADD", "tm:{0}:queues", "default"]).await;
    pool.schedule(quick()).await;
    pool.ask(&["workflow", "one", "id", "r1"]).await;
    let claimed = claim(&mut pool.worker("victim"), "default", 1).await;
    let first = claimed[0].entry.to_string();
    let run = pool.run_when("r1", |run| run.steps[&0].entry.as_deref() != Some(&*first)).await;
    assert_eq!(run.steps[&0].state, StepState::Ready);
    let again = claim(&mut pool.worker("w2"), "default", 1).await;
    assert_eq!(run.steps[&0].entry.as_deref(), Some(again[0].entry.as_str()));
    assert_eq!(field(&again[0], "_deaths").as_deref(), Some("1"));
    let audit = pool.home().audit("r1", 0, 100).await.unwrap();
    let moves: Vec<_> = audit.iter().map(|r| format!("{} {} {}", r.subject, r.from, r.to)).collect();
    assert_eq!(moves[2..], ["first ready running", "first running ready"], "{moves:?}");
    assert_eq!(audit[2].who.as_deref(), Some("victim"));
}

#[tokio::test]
async fn requests_in_the_hands_of_a_dead_scheduler_are_started_by_another() {
    let pool = Pool::start().await;
    pool.publish(ONE).await;
    for at in 0..5 {
        pool.ask(&["workflow", "one", "id", &format!("r{at}")]).await;
    }
    claim(&mut pool.starter("dead-scheduler"), keys::RUNS, 5).await;
    let scheduler = pool.schedule(quick()).await;
    pool.count_is("ZCARD", "tm:{0}:live", 5).await;
    scheduler.count_is("tidemill_reclaimed_total{queue=\"@runs\"}", 5).await;
    scheduler.count_is("tidemill_runs_started_total", 5).await;
}

#[tokio::test]
async fn a_restart_of_redis_gives_everybody_a_full_period_and_the_scheduler_goes_on() {
    let mut server = tidemill_testkit::RedisServer::builder().aof(true).start().await.unwrap();
    let settings = tidemill_store::Settings { url: server.url(), ..tidemill_store::Settings::default() };
    let store = tidemill_store::Store::new(&settings, "tm", 1).unwrap();
    store.check().await.unwrap();
    let pool = Pool { server, store };
    pool.publish(ONE).await;
    let scheduler = pool.schedule(quick()).await;
    pool.ask(&["workflow", "one", "id", "r1"]).await;
    pool.run("r1").await;
    server = pool.server;
    server.restart().await.unwrap();
    let pool = Pool { server, store: pool.store };
    wait_for(SOON, "redis to be back", async || pool.store.check().await.map_err(|error| error.to_string()))
        .await
        .unwrap();
    pool.ask(&["workflow", "one", "id", "r2"]).await;
    pool.run("r2").await;
    wait_for(SOON, "the restart to be noticed", async || {
        let resets = scheduler.count("tidemill_watch_resets_total{why=\"restart\"}");
        if resets == 1 { Ok(()) } else { Err(scheduler.metrics.text()) }
    })
    .await
    .unwrap();
    let members = pool.home().members().await.unwrap();
    assert_eq!(members.len(), 1, "it has announced itself to the new server");
}
