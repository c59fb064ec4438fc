//! Clocks that are wrong.

use std::process::Command;

use serde_json::Value;
use tidemill_protocol::RunState;

use crate::ledger::{audits_fold, ended_once, nothing_is_left, results};
use crate::pool::{Pool, Program};

const LATER: &str = r#"
name: later
timeout_ms: 60000
steps:
  - { id: a, tool: sleep, with: { ms: 10 } }
  - { id: b, tool: echo, needs: [a], with: { ok: true } }
"#;

/// When a program started, by its own clock.
fn minute_of_day(program: &Program) -> i32 {
    let output = program.process.output();
    let line: Value = serde_json::from_str(output.lines().next().unwrap()).unwrap();
    let (_, time) = line["timestamp"].as_str().unwrap().split_once('T').unwrap();
    let mut parts = time.split(':').map(|part| part.parse::<i32>());
    parts.next().unwrap().unwrap() * 60 + parts.next().unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_clock_is_an_hour_off_changes_nothing() {
    if Command::new("faketime").arg("--version").output().is_err() {
        println!("skipped: no `faketime` on PATH (Debian's package faketime)");
        return;
    }
    for offset in ["+1h", "-1h"] {
        let pool = Pool::start().await;
        pool.publish("later", LATER).await;
        let _scheduler = pool.scheduler().await;
        let wrong = pool.worker_with(20, &[], Some(offset)).await;
        let right = pool.worker(20).await;
        let apart = (minute_of_day(&wrong) - minute_of_day(&right)).rem_euclid(24 * 60);
        assert!(
            [59..=61, 24 * 60 - 61..=24 * 60 - 59].iter().any(|hour| hour.contains(&apart)),
            "{apart} min"
        );
        let ids = pool.runs("run", 50, "later", "{}").await;
        pool.jobs("job", 300, "sleep", "{\"ms\":20}").await;
        let jobs = pool.home().keys().jobs("default");
        for n in 0..50 {
            let id = format!("bounded-{n}");
            let words = [
                "XADD",
                &jobs,
                "*",
                "tool",
                "echo",
                "id",
                &id,
                "delay_ms",
                "500",
                "deadline_ms",
                "20000",
                "reply_to",
                "replies",
            ];
            pool.cli(&words).await;
        }
        let before = pool.home().now_ms().await.unwrap();
        pool.replies_are(400).await;
        nothing_is_left(&pool).await;
        ended_once(&pool, "job", 300, "succeeded").await;
        ended_once(&pool, "bounded", 50, "succeeded").await;
        audits_fold(&pool, &ids, RunState::Succeeded).await;
        let now = pool.home().now_ms().await.unwrap();
        for result in results(&pool).await.into_values().flatten() {
            let at = result["finished_at_ms"].as_u64().unwrap();
            assert!(at + 60_000 > before && at <= now, "an end by a wrong clock: {result}");
        }
        for id in &ids {
            for record in pool.home().audit(id, 0, 1_000).await.unwrap() {
                assert!(record.at_ms + 60_000 > before && record.at_ms <= now, "{record:?}");
            }
        }
    }
}
