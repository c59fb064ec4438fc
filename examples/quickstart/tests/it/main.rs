//! The quickstart as a user runs it: the built programs, real records, a vendor that fails.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tidemill_testkit::{Process, wait_until};

const JOB: &str = env!("CARGO_BIN_EXE_tidemill-quickstart-job");
const PATIENCE: Duration = Duration::from_secs(120);

fn job(data: &Path, arguments: &[&str]) -> Process {
    let builder = Process::builder(JOB).arg("--data").arg(data).args(arguments);
    builder.start().unwrap()
}

fn json(data: &Path, name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(data.join(name)).unwrap()).unwrap()
}

/// Everything that runs with this folder on its command line, or in it as Redis does.
fn left_behind(data: &Path) -> Vec<String> {
    let wanted = data.to_string_lossy();
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let described = processes.filter_map(|entry| {
        let line = fs::read_to_string(entry.path().join("cmdline")).ok()?;
        let folder = fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        Some(format!("{line} in {}", folder.display()))
    });
    described.filter(|process| process.contains(&*wanted)).collect()
}

#[tokio::test]
async fn real_records_go_through_the_pool_and_come_out_once() {
    let data = TempDir::new().unwrap();
    // a second start over the first one's folder works as well
    for _ in 0..2 {
        let mut process = job(data.path(), &["--records", "40"]);
        let status = process.wait(PATIENCE).await.unwrap();
        assert!(status.success(), "{}", process.output());
        let facts = json(data.path(), "summary.json");
        assert_eq!(facts["runs"], serde_json::json!({ "succeeded": 40 }), "{facts:#}");
        let steps: u64 = facts["steps"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
        assert_eq!(steps, 40 * 8, "{facts:#}");
        assert!(facts["steps"]["skipped"].as_u64().unwrap() > 0, "{facts:#}");
        assert!(facts["retries"].as_u64().unwrap() > 0, "{facts:#}");
        assert_eq!(facts["results_doubled"], 0, "{facts:#}");
        assert_eq!(facts["vendor"]["repeated_after_success"], 0, "{facts:#}");
        assert!(process.output().contains("40 succeeded"), "{}", process.output());
    }
    let results = fs::read_to_string(data.path().join("results.ndjson")).unwrap();
    let results: Vec<Value> = results.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(results.len(), 40);
    for result in &results {
        assert_eq!(result["output"]["sha256"].as_str().unwrap().len(), 64, "{result}");
    }
    let report = fs::read_to_string(data.path().join("report.md")).unwrap();
    assert_eq!(report.lines().filter(|line| line.contains("°C")).count(), 40, "{report}");
    assert_eq!(left_behind(data.path()), Vec::<String>::new());
}

#[tokio::test]
async fn a_record_that_the_workflow_refuses_is_a_dead_letter_with_its_reason() {
    let data = TempDir::new().unwrap();
    // the data set has four cities without a name; among 600 there is one
    let mut process = job(data.path(), &["--records", "600", "--workers", "2"]);
    let status = process.wait(PATIENCE).await.unwrap();
    assert!(status.success(), "{}", process.output());
    let facts = json(data.path(), "summary.json");
    assert_eq!(facts["runs"], serde_json::json!({ "failed": 1, "succeeded": 599 }), "{facts:#}");
    let letters = facts["dead_letters"].as_array().unwrap();
    assert_eq!(letters.len(), 1, "{facts:#}");
    assert_eq!(letters[0]["code"], "invalid_input");
    assert!(letters[0]["reason"].as_str().unwrap().contains("/city"), "{facts:#}");
    assert_eq!(facts["vendor"]["failed"].as_object().unwrap().len(), 6, "every way to fail: {facts:#}");
}

#[tokio::test]
async fn ctrl_c_in_the_middle_ends_everything_that_was_started() {
    let data = TempDir::new().unwrap();
    let mut process = job(data.path(), &["--records", "10000"]);
    process.wait_for_line("Published survey-city@1", PATIENCE).await.unwrap();
    let running = left_behind(data.path());
    assert_eq!(running.len(), 6, "the job, Redis, a scheduler, three workers: {running:#?}");
    process.interrupt().unwrap();
    let status = process.wait(Duration::from_secs(30)).await.unwrap();
    assert_eq!(status.code(), Some(130), "{}", process.output());
    assert_eq!(left_behind(data.path()), Vec::<String>::new());
}

#[tokio::test]
async fn a_quickstart_that_is_killed_takes_its_pool_along() {
    let data = TempDir::new().unwrap();
    let mut process = job(data.path(), &["--records", "10000"]);
    process.wait_for_line("Published survey-city@1", PATIENCE).await.unwrap();
    process.kill().await.unwrap();
    let gone = async || left_behind(data.path()).is_empty();
    wait_until(Duration::from_secs(20), "the pool to end", gone).await.unwrap();
}

#[tokio::test]
async fn a_redis_that_dies_is_told_and_nothing_is_left() {
    let data = TempDir::new().unwrap();
    let mut process = job(data.path(), &["--records", "10000"]);
    process.wait_for_line("Published survey-city@1", PATIENCE).await.unwrap();
    let redis = fs::read_to_string(data.path().join("pool/redis.log")).unwrap();
    let pid: i32 = redis.split(':').next().unwrap().parse().unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    let status = process.wait(Duration::from_secs(60)).await.unwrap();
    assert_eq!(status.code(), Some(1));
    let said = process.output();
    assert!(said.contains("tidemill-quickstart: ") && said.contains("edis"), "{said}");
    assert_eq!(left_behind(data.path()), Vec::<String>::new());
}

#[tokio::test]
async fn a_second_quickstart_in_the_same_folder_is_told_so() {
    let data = TempDir::new().unwrap();
    let mut first = job(data.path(), &["--records", "1", "--workers", "1", "--keep"]);
    first.wait_for_line("kept running until Ctrl-C", PATIENCE).await.unwrap();
    let mut second = job(data.path(), &["--records", "1"]);
    assert_eq!(second.wait(PATIENCE).await.unwrap().code(), Some(1));
    assert!(second.output().contains("another quickstart works in"), "{}", second.output());
    first.interrupt().unwrap();
    assert!(first.wait(Duration::from_secs(30)).await.unwrap().success(), "{}", first.output());
}
