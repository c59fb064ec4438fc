//! Programs are started, watched, signalled and ended.

use std::{fs, time::Duration};

use tidemill_testkit::{Process, RedisServer, TestkitError, built_binary, wait_until};

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
    is_gone(pid).await;
}

async fn is_gone(pid: u32) {
    wait_until(SOON, "the process to be gone", async || !runs(pid)).await.unwrap();
}

fn runs(pid: u32) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !state.is_empty() && !state.contains(") Z ")
}

/// Waits for the line `<name> <id>` of a process.
async fn told(process: &mut Process, name: &str) -> u32 {
    let line = process.wait_for_line(&format!("{name} "), SOON).await.unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Starts a child in its own group, as a wrapper does, and one in another group, as `setsid` makes it.
const WRAPPER: &str = "sleep 60 & echo near $!; setsid sh -c 'echo far $$; exec sleep 60' & wait";

#[tokio::test]
async fn what_a_dropped_process_has_started_is_killed_too() {
    let mut wrapper = shell(WRAPPER);
    let started = [told(&mut wrapper, "near").await, told(&mut wrapper, "far").await];
    assert!(started.into_iter().all(runs));
    drop(wrapper);
    for pid in started {
        is_gone(pid).await;
    }
}

#[tokio::test]
async fn a_killed_process_takes_its_group_with_it_and_the_rest_ends_when_it_is_dropped() {
    let mut wrapper = shell(WRAPPER);
    let (near, far) = (told(&mut wrapper, "near").await, told(&mut wrapper, "far").await);
    wrapper.kill().await.unwrap();
    is_gone(near).await;
    assert!(runs(far), "it left the group, as a server that must survive its starter does");
    drop(wrapper);
    is_gone(far).await;
}

#[tokio::test]
async fn whom_a_process_leaves_behind_in_its_group_ends_with_it() {
    let mut process = shell("sleep 60 & echo near $!");
    let left = told(&mut process, "near").await;
    process.wait(SOON).await.unwrap();
    is_gone(left).await;
}

#[tokio::test]
#[ignore = "started, and killed, by the test below"]
async fn a_test_that_is_killed() {
    let server = RedisServer::start().await.unwrap();
    let mut wrapper = shell(WRAPPER);
    println!("near {}", told(&mut wrapper, "near").await);
    println!("far {}", told(&mut wrapper, "far").await);
    println!("shell {}", wrapper.pid());
    println!("server {}", server.pid().unwrap());
    wrapper.wait(Duration::from_secs(60)).await.unwrap();
}

#[tokio::test]
async fn servers_and_processes_of_a_killed_test_end() {
    let own = std::env::current_exe().unwrap();
    let arguments = ["--exact", "processes::a_test_that_is_killed", "--ignored", "--nocapture"];
    let mut test = Process::builder(own).args(arguments).start().unwrap();
    let mut started = Vec::new();
    for name in ["near", "far", "shell", "server"] {
        started.push(told(&mut test, name).await);
    }
    assert!(started.iter().copied().all(runs));
    test.kill().await.unwrap();
    for pid in started {
        is_gone(pid).await;
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let error = built_binary("tidemill-nothing").unwrap_err().to_string();
    assert!(error.contains("cargo build --bin tidemill-nothing"), "{error}");
    let error = Process::builder("/no/such/program").start().unwrap_err().to_string();
    assert!(error.contains("/no/such/program"), "{error}");
}
