//! Programs are started, watched, signalled and ended.

use std::{fs, time::Duration};

use tidemill_testkit::{Process, TestkitError, built_binary, wait_until};

const SOON: Duration = Duration::from_secs(10);

fn shell(script: &str) -> Process {
    Process::builder("/bin/sh").args(["-c", script]).start().expect("a shell")
}

#[tokio::test]
async fn output_and_exit_code_are_captured() {
    let mut process = shell("echo out; echo err >&2; exit 7");
    assert_eq!(process.wait(SOON).await.unwrap().code(), Some(7));
    assert_eq!(process.output(), "out\nerr\n");
    assert!(matches!(process.term(), Err(TestkitError::NotReady { .. })));
}

#[tokio::test]
async fn variables_are_set_and_those_of_tidemill_are_not_inherited() {
    let mut process = Process::builder("/bin/sh")
        .args(["-c", "echo \"$TIDEMILL_NAMESPACE-$GREETING\""])
        .env("GREETING", "hello")
        .start()
        .unwrap();
    process.wait(SOON).await.unwrap();
    assert_eq!(process.output(), "-hello\n");
}

#[tokio::test]
async fn a_line_is_awaited_and_its_absence_told() {
    let mut process = shell("echo 'listening on 127.0.0.1:1'; exec sleep 60");
    let line = process.wait_for_line("listening on", SOON).await.unwrap();
    assert_eq!(line, "listening on 127.0.0.1:1");
    let mut silent = shell("echo nothing of that kind");
    let error = silent.wait_for_line("listening on", SOON).await.unwrap_err().to_string();
    assert!(error.contains("ended without a line") && error.contains("nothing of that kind"), "{error}");
}

#[tokio::test]
async fn signals_arrive_and_a_pause_freezes() {
    let mut process = shell("trap 'echo term; exit 3' TERM; echo up; while :; do sleep 0.01; done");
    process.wait_for_line("up", SOON).await.unwrap();
    process.pause().unwrap();
    process.term().unwrap();
    assert!(process.wait(Duration::from_millis(100)).await.is_err(), "a frozen process does not end");
    process.resume().unwrap();
    assert_eq!(process.wait(SOON).await.unwrap().code(), Some(3));
}

#[tokio::test]
async fn a_dropped_process_is_killed() {
    let process = shell("exec sleep 60");
    let pid = process.pid();
    drop(process);
    let gone = async || {
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        state.is_empty() || state.contains(") Z ")
    };
    wait_until(SOON, "the process to be gone", gone).await.unwrap();
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let error = built_binary("tidemill-nothing").unwrap_err().to_string();
    assert!(error.contains("cargo build --bin tidemill-nothing"), "{error}");
    let error = Process::builder("/no/such/program").start().unwrap_err().to_string();
    assert!(error.contains("/no/such/program"), "{error}");
}
