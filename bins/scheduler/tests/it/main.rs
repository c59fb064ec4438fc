//! The scheduler program as its operator meets it.
#![expect(clippy::unwrap_used, reason = "tests say what they mean by failing")]

use std::time::Duration;

use tidemill_testkit::{Process, ProcessBuilder, RedisServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_secs(15);

fn program(server: &RedisServer) -> ProcessBuilder {
    Process::builder(env!("CARGO_BIN_EXE_tidemill-scheduler")).env("TIDEMILL_REDIS_URL", server.url()).args([
        "--http-addr",
        "127.0.0.1:0",
        "--log-format",
        "json",
    ])
}

async fn publish(server: &RedisServer, (name, version): (&str, u32), text: &str) {
    let settings = tidemill_store::Settings { url: server.url(), ..tidemill_store::Settings::default() };
    let store = tidemill_store::Store::new(&settings, "tm", 1).unwrap();
    store.check().await.unwrap();
    assert!(store.home().publish(name, version, text).await.unwrap());
}

/// The address in the log line about listening.
async fn address(process: &mut Process) -> String {
    let line = process.wait_for_line("listening for HTTP", SOON).await.unwrap();
    let (_, rest) = line.split_once("\"addr\":\"").unwrap();
    rest.split('"').next().unwrap().to_owned()
}

async fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn it_becomes_ready_starts_runs_and_ends_in_order_on_sigterm() {
    let server = RedisServer::start().await.unwrap();
    publish(&server, ("one", 1), "{\"name\":\"one\",\"steps\":[{\"id\":\"a\",\"tool\":\"echo\"}]}").await;
    let mut process = program(&server).start().unwrap();
    let address = address(&mut process).await;
    tidemill_testkit::wait_until(SOON, "it to be ready", async || {
        get(&address, "/ready").await.contains("200 OK")
    })
    .await
    .unwrap();
    // what it writes is read beside the test
    tidemill_testkit::wait_until(SOON, "the validation to be told", async || {
        process.output().contains("workflow graph validation")
    })
    .await
    .unwrap();
    server.cli(&["XADD", "tm:{0}:runs", "*", "workflow", "one", "id", "r1"]).await.unwrap();
    tidemill_testkit::wait_until(SOON, "the run", async || {
        get(&address, "/metrics").await.contains("tidemill_runs_started_total 1")
    })
    .await
    .unwrap();
    process.term().unwrap();
    let status = process.wait(SOON).await.unwrap();
    assert_eq!(status.code(), Some(0), "{}", process.output());
    assert_eq!(server.cli(&["HLEN", "tm:{0}:members"]).await.unwrap().trim(), "0");
}

#[tokio::test]
async fn it_refuses_to_start_on_a_bad_graph_with_file_line_and_reason() {
    let server = RedisServer::start().await.unwrap();
    let flow = "name: bad\nsteps:\n  - { id: a, tool: echo, needs: [nobody] }\n";
    publish(&server, ("bad", 7), flow).await;
    let mut process = program(&server).start().unwrap();
    let status = process.wait(SOON).await.unwrap();
    let output = process.output();
    assert_eq!(status.code(), Some(3), "{output}");
    assert!(output.contains("workflow bad@7:3:") && output.contains("nobody"), "{output}");
    assert!(output.contains("\"result\":\"invalid\"") && output.contains("\"duration_ms\":"), "{output}");
}

#[tokio::test]
async fn it_says_what_is_wrong_when_redis_is_not_there_or_a_setting_is_not_valid() {
    let mut server = RedisServer::start().await.unwrap();
    let url = server.url();
    let program =
        || Process::builder(env!("CARGO_BIN_EXE_tidemill-scheduler")).args(["--http-addr", "127.0.0.1:0"]);
    let mut process =
        program().env("TIDEMILL_SCHEDULER__CRASH_BUDGET", "0").args(["config", "check"]).start().unwrap();
    assert_eq!(process.wait(SOON).await.unwrap().code(), Some(3));
    let output = process.output();
    assert!(
        output.contains("scheduler.crash_budget") && output.contains("TIDEMILL_SCHEDULER__CRASH_BUDGET"),
        "{output}"
    );
    let services = ["--set", "services.openai.concurrency=0", "--set", "services.openai.patience_ms=99999"];
    for command in [&["config", "check"][..], &[]] {
        let mut process = program()
            .env("TIDEMILL_SCHEDULER__CRASH_BUDGET", "0")
            .args(services)
            .args(command)
            .start()
            .unwrap();
        assert_eq!(process.wait(SOON).await.unwrap().code(), Some(3));
        let output = process.output();
        for key in
            ["services.openai.concurrency: 0", "services.openai.patience_ms: 99999", "scheduler.crash_budget"]
        {
            assert!(output.contains(key), "{key} is not in {output}");
        }
    }
    server.stop_hard().unwrap();
    let mut process = program().env("TIDEMILL_REDIS_URL", url).start().unwrap();
    assert_eq!(process.wait(SOON).await.unwrap().code(), Some(4), "{}", process.output());
}

#[tokio::test]
async fn cron_entries_come_from_the_settings_file() {
    let server = RedisServer::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidemill.yaml");
    let text = "cron:\n  - { name: nightly, schedule: \"0 3 * * *\", time_zone: Europe/Berlin, tool: echo, input: { n: 1 } }\n";
    std::fs::write(&file, text).unwrap();
    let mut process = program(&server).arg("--config").arg(&file).start().unwrap();
    process.wait_for_line("cron entry stored", SOON).await.unwrap();
    assert!(server.cli(&["HGET", "tm:{0}:crons", "nightly"]).await.unwrap().contains("Europe/Berlin"));
    assert!(
        server.cli(&["ZSCORE", "tm:{0}:cron_due", "nightly"]).await.unwrap().trim().parse::<f64>().unwrap()
            > 0.0
    );
}
