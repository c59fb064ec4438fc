//! The worker program as its operator meets it.
#![expect(clippy::unwrap_used, reason = "tests say what they mean by failing")]

use std::time::Duration;

use tidemill_store::{Settings, Store};
use tidemill_testkit::{Process, RedisServer};

const SOON: Duration = Duration::from_secs(20);
const TEXT: &str = "name: flow\nsteps: [{ id: a, tool: echo }]\n";

async fn store(server: &RedisServer) -> Store {
    let settings = Settings { url: server.url(), ..Settings::default() };
    let store = Store::new(&settings, "tm", 1).unwrap();
    store.check().await.unwrap();
    store
}

fn start(server: &RedisServer) -> Process {
    Process::builder(env!("CARGO_BIN_EXE_tidemill-worker"))
        .env("TIDEMILL_REDIS_URL", server.url())
        .args(["--http-addr", "127.0.0.1:0", "--log-format", "json"])
        .start()
        .unwrap()
}

/// Its output, given that it refused to start.
async fn refused(server: &RedisServer) -> String {
    let mut program = start(server);
    let code = program.wait(SOON).await.unwrap().code();
    let output = program.output();
    assert_eq!(code, Some(3), "{output}");
    assert!(output.contains("\"result\":\"invalid\""), "{output}");
    assert!(!output.contains("worker started"), "{output}");
    output
}

#[tokio::test]
async fn it_does_not_start_on_a_bad_or_damaged_definition_and_does_once_that_is_mended() {
    let server = RedisServer::start().await.unwrap();
    let store = store(&server).await;
    assert!(store.home().publish("flow", 1, TEXT).await.unwrap());
    server.cli(&["HSET", "tm:{0}:workflow:flow", "1", &TEXT.replacen("echo", "ecio", 1)]).await.unwrap();
    let output = refused(&server).await;
    assert!(output.contains("flow@1 is damaged"), "{output}");
    assert!(store.home().publish("flow", 1, TEXT).await.unwrap(), "mends it");
    let bad = "name: bad\nsteps:\n  - { id: a, tool: echo, needs: [nobody] }\n";
    assert!(store.home().publish("bad", 7, bad).await.unwrap());
    let output = refused(&server).await;
    assert!(output.contains("workflow bad@7:3:") && output.contains("nobody"), "{output}");
    server.cli(&["HSET", "tm:{0}:versions:bad", "7", "archived"]).await.unwrap();
    let mut program = start(&server);
    let line = program.wait_for_line("workflow graph validation", SOON).await.unwrap();
    assert!(line.contains("\"count\":1") && line.contains("\"result\":\"valid\""), "{line}");
    program.wait_for_line("worker started", SOON).await.unwrap();
    program.term().unwrap();
    assert_eq!(program.wait(SOON).await.unwrap().code(), Some(0), "{}", program.output());
}
