use std::time::Duration;

use tidemill_protocol::{EntryId, RunState};
use tidemill_scheduler::{RetentionSettings, Setup};
use tidemill_store::{DeferState, Deferral, Due, keys};

use crate::pool::{Pool, claim, field, quick, sum_is};

const ONE: &str = "{\"name\":\"one\",\"steps\":[{\"id\":\"a\",\"tool\":\"echo\"}]}";

fn retry(entry: &EntryId) -> Deferral<'_> {
    Deferral {
        entry,
        id: entry.as_str(),
        slot: None,
        state: DeferState::Retrying,
        due: Due::In(Duration::from_millis(300)),
        note: "test",
        ran: Duration::ZERO,
        attempt: 1,
        changes: vec![("_attempts", "1".to_owned())],
    }
}

#[tokio::test]
async fn what_is_due_becomes_ready_once_over_two_schedulers() {
    const JOBS: usize = 450;
    let pool = Pool::start().await;
    let (one, two) = (pool.schedule(quick()).await, pool.schedule(quick()).await);
    let script =
        format!("for i = 1, {JOBS} do redis.call('XADD', KEYS[1], '*', 'tool', 'echo', 'x-n', i) end");
    pool.cli(&["EVAL", &script, "1", "tm:{0}:jobs:default"]).await;
    let mut worker = pool.worker("w1");
    let claimed = claim(&mut worker, "default", JOBS).await;
    for some in claimed.chunks(150) {
        let deferrals: Vec<_> = some.iter().map(|one| retry(&one.entry)).collect();
        let deferred = pool.home().defer("default", keys::WORKERS, "w1", &deferrals).await.unwrap();
        assert!(deferred.iter().all(|deferred| *deferred));
    }
    let again = claim(&mut worker, "default", JOBS).await;
    let mut numbers: Vec<usize> =
        again.iter().map(|one| field(one, "x-n").unwrap().parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=JOBS).collect::<Vec<_>>(), "each once");
    for entry in &again {
        let first: u64 = field(entry, "_entry").unwrap().split('-').next().unwrap().parse().unwrap();
        assert!(entry.entry.ms() >= first + 300, "not before its time");
    }
    let line = "tidemill_promoted_total{queue=\"default\"}";
    sum_is(&one, &two, line, JOBS as u64).await;
    assert_eq!(pool.cli(&["XLEN", "tm:{0}:jobs:default"]).await, JOBS.to_string());
}

#[tokio::test]
async fn an_overdue_run_is_timed_out_once_and_its_caller_is_told() {
    let pool = Pool::start().await;
    pool.publish(ONE).await;
    let (one, two) = (pool.schedule(quick()).await, pool.schedule(quick()).await);
    let fields =
        ["workflow", "one", "id", "r1", "timeout_ms", "200", "reply_to", "mine", "result_ttl_ms", "60000"];
    pool.ask(&fields).await;
    pool.ask(&["workflow", "one", "id", "free"]).await;
    let run = pool.run_when("r1", |run| run.state != RunState::Running).await;
    assert_eq!(run.state, RunState::TimedOut);
    assert!(run.ended_ms.unwrap() >= run.started_ms + 200);
    assert_eq!(pool.letter_of("r1").await.0, "timeout");
    assert_eq!(pool.cli(&["XLEN", "mine"]).await, "1");
    assert!(pool.home().result("r1").await.unwrap().unwrap().contains("timed_out"));
    assert_eq!(pool.run("free").await.state, RunState::Running, "no bound, no end");
    sum_is(&one, &two, "tidemill_expired_total", 1).await;
}

#[tokio::test]
async fn what_is_kept_of_the_past_is_bounded_by_count_and_by_age() {
    let pool = Pool::start().await;
    pool.publish(ONE).await;
    for at in 0..30 {
        pool.ask(&["workflow", "one", "timeout_ms", "50", "id", &format!("r{at}")]).await;
    }
    let retention =
        RetentionSettings { runs: 10, dead_letters: 5, every_ms: 50, ..RetentionSettings::default() };
    let scheduler = pool.schedule_with(Setup { retention, ..pool.setup(quick()) }).await;
    scheduler.count_is("tidemill_expired_total", 30).await;
    pool.count_is("ZCARD", "tm:{0}:ended", 10).await;
    pool.count_is("XLEN", "tm:{0}:dead", 5).await;
    scheduler.count_is("tidemill_trimmed_total{what=\"runs\"}", 20).await;
    assert_eq!(
        pool.cli(&["--scan", "--pattern", "tm:{0}:run:*"]).await.lines().count(),
        10,
        "the records go too"
    );
    scheduler.stop().await;

    let now_ms = pool.home().now_ms().await.unwrap();
    pool.cli(&["ZADD", "tm:{0}:cancelled", &(now_ms - 120_000).to_string(), "old"]).await;
    let retention = RetentionSettings {
        runs_ms: 1,
        dead_letters_ms: 1,
        cancellations_ms: 60_000,
        every_ms: 50,
        ..RetentionSettings::default()
    };
    let scheduler = pool.schedule_with(Setup { retention, ..pool.setup(quick()) }).await;
    pool.count_is("ZCARD", "tm:{0}:ended", 0).await;
    pool.count_is("XLEN", "tm:{0}:dead", 0).await;
    scheduler.count_is("tidemill_trimmed_total{what=\"cancellations\"}", 1).await;
}

#[tokio::test]
async fn a_server_near_its_memory_bound_is_told_of() {
    let pool = Pool::start().await;
    let used = pool.store.facts().await.unwrap().used_memory_bytes;
    let bound = used + used / 8;
    pool.cli(&["CONFIG", "SET", "maxmemory", &bound.to_string()]).await;
    let scheduler = pool.schedule(quick()).await;
    scheduler.count_is("tidemill_redis_memory_near_limit", 1).await;
    assert_eq!(scheduler.count("tidemill_redis_max_memory_bytes"), bound);
}
