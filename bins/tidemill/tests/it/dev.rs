//! `tidemill dev` as a process.

use std::path::Path;

use serde_json::json;
use tidemill_testkit::{Process, ProcessBuilder, wait_until};

use crate::cli::{Cli, SOON, program};

fn dev(dir: &Path) -> ProcessBuilder {
    Process::builder(program()).args(["dev", "--http-addr", "127.0.0.1:0", "--dir"]).arg(dir)
}

/// Waits for the greeting; gives the command for the private Redis, and that one's process id.
async fn ready(process: &mut Process, dir: &Path) -> (Cli, u32) {
    process.wait_for_line("Ctrl-C ends it", SOON).await.unwrap();
    let url = process.wait_for_line("export TIDEMILL_REDIS_URL=", SOON).await.unwrap();
    let pid = std::fs::read_to_string(dir.join("redis.pid")).unwrap().trim().parse().unwrap();
    (Cli::new(url.split_once('=').unwrap().1), pid)
}

fn lives(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn it_runs_everything_and_leaves_no_child_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = dev(dir.path()).start().unwrap();
    let (cli, redis) = ready(&mut process, dir.path()).await;
    assert!(lives(redis));
    let out = cli.run(&["enqueue", "echo", "-i", r#"{"hello":"tide"}"#, "--wait", "--json"]).await.document();
    assert_eq!(out["output"], json!({ "hello": "tide" }));
    let text = process.output();
    assert!(
        text.contains("  HTTP   http://127.0.0.1:")
            && text.contains("XADD 'tm:{0}:jobs:default' '*' tool echo"),
        "{text}"
    );
    process.interrupt().unwrap();
    assert_eq!(process.wait(SOON).await.unwrap().code(), Some(0), "{}", process.output());
    assert!(!lives(redis), "{}", process.output());
    cli.run(&["queues"]).await.refused(4);
}

#[tokio::test]
async fn work_survives_a_restart_in_the_same_folder() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = dev(dir.path()).start().unwrap();
    let (cli, _) = ready(&mut process, dir.path()).await;
    cli.run(&["enqueue", "echo", "--id", "later", "--delay-ms", "3600000"]).await.ok();
    process.term().unwrap();
    process.wait(SOON).await.unwrap();
    let mut process = dev(dir.path()).start().unwrap();
    let (cli, _) = ready(&mut process, dir.path()).await;
    assert_eq!(cli.run(&["status", "later", "--json"]).await.document()["state"], "deferred");
    let mut second = dev(dir.path()).start().unwrap();
    assert_eq!(second.wait(SOON).await.unwrap().code(), Some(1));
    assert!(second.output().contains("another `tidemill dev` uses"), "{}", second.output());
    assert!(process.is_running());
    process.interrupt().unwrap();
    process.wait(SOON).await.unwrap();
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once_and_the_child_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = dev(dir.path()).start().unwrap();
    let (cli, redis) = ready(&mut process, dir.path()).await;
    cli.run(&["enqueue", "sleep", "-i", r#"{"ms":60000}"#, "--id", "nap"]).await.ok();
    let running = async || cli.run(&["status", "nap", "--json"]).await.document()["state"] == "running";
    wait_until(SOON, "the job to run", running).await.unwrap();
    process.interrupt().unwrap();
    process.wait_for_line("draining", SOON).await.unwrap();
    process.interrupt().unwrap();
    assert_eq!(process.wait(SOON).await.unwrap().code(), Some(130), "{}", process.output());
    wait_until(SOON, "the private Redis to be gone", async || !lives(redis)).await.unwrap();
}

#[tokio::test]
async fn without_redis_server_it_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = dev(dir.path()).env("PATH", dir.path()).start().unwrap();
    assert_eq!(process.wait(SOON).await.unwrap().code(), Some(4));
    let text = process.output();
    assert!(text.contains("there is no `redis-server` on PATH") && text.contains("--redis-url"), "{text}");
}

#[tokio::test]
async fn it_ends_with_a_failure_when_its_redis_dies() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = dev(dir.path()).start().unwrap();
    let (_, redis) = ready(&mut process, dir.path()).await;
    let killed =
        tokio::process::Command::new("kill").args(["-9", &redis.to_string()]).status().await.unwrap();
    assert!(killed.success());
    assert_eq!(process.wait(SOON).await.unwrap().code(), Some(1));
    assert!(process.output().contains("the private Redis has ended"), "{}", process.output());
}

#[tokio::test]
async fn a_file_in_the_folder_s_place_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let mut process = dev(&file).start().unwrap();
    assert_eq!(process.wait(SOON).await.unwrap().code(), Some(1));
    assert!(process.output().contains("--dir"), "{}", process.output());
}

#[tokio::test]
async fn a_redis_that_is_named_and_not_there_is_told_without_its_password() {
    let dir = tempfile::tempdir().unwrap();
    let url = "redis://:hunter2@127.0.0.1:1/0";
    let mut process = dev(&dir.path().join("none")).env("TIDEMILL_REDIS_URL", url).start().unwrap();
    assert_eq!(process.wait(SOON).await.unwrap().code(), Some(4));
    let text = process.output();
    assert!(
        text.contains("cannot use Redis at redis://:***@127.0.0.1:1/0") && !text.contains("hunter2"),
        "{text}"
    );
    assert!(!dir.path().join("none").exists(), "no private server, no folder");
}
