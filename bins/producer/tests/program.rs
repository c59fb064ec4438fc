//! The program as its users start it.
#![expect(clippy::unwrap_used, reason = "tests say what they mean by failing")]

use std::time::Duration;

use tidemill_testkit::{Process, RedisServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tidemill-producer");
const SOON: Duration = Duration::from_secs(20);

async fn send(addr: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn it_takes_a_job_in_and_ends_well_on_sigterm() {
    let server = RedisServer::start().await.unwrap();
    let mut program = Process::builder(PROGRAM)
        .env("TIDEMILL_REDIS_URL", server.url())
        .args(["--http-addr", "127.0.0.1:0", "--log-format", "json"])
        .start()
        .unwrap();
    let line = program.wait_for_line("listening for HTTP", SOON).await.unwrap();
    let addr = line.split("\"addr\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().to_owned();
    program.wait_for_line("\"component\":\"redis\"", SOON).await.unwrap();
    let ready = send(&addr, "GET /ready HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").await;
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    let job = "{\"tool\":\"echo\"}";
    let head = format!(
        "POST /v1/jobs HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        job.len()
    );
    let taken = send(&addr, &format!("{head}{job}")).await;
    assert!(taken.starts_with("HTTP/1.1 202"), "{taken}");
    assert_eq!(server.cli(&["XLEN", "tm:{0}:jobs:default"]).await.unwrap().trim(), "1");
    let metrics = send(&addr, "GET /metrics HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").await;
    assert!(
        metrics.contains("tidemill_producer_accepted_total{kind=\"job\",state=\"queued\"} 1"),
        "{metrics}"
    );
    program.term().unwrap();
    assert!(program.wait(SOON).await.unwrap().success(), "{}", program.output());
}

async fn publish_bad(server: &RedisServer) {
    let settings = tidemill_store::Settings { url: server.url(), ..tidemill_store::Settings::default() };
    let store = tidemill_store::Store::new(&settings, "tm", 1).unwrap();
    store.check().await.unwrap();
    let flow = "name: bad\nsteps:\n  - { id: a, tool: echo, needs: [nobody] }\n";
    assert!(store.home().publish("bad", 7, flow).await.unwrap());
}

#[tokio::test]
async fn it_refuses_to_start_on_a_bad_graph_with_file_line_and_reason() {
    let server = RedisServer::start().await.unwrap();
    publish_bad(&server).await;
    let mut program = Process::builder(PROGRAM)
        .env("TIDEMILL_REDIS_URL", server.url())
        .args(["--http-addr", "127.0.0.1:0"])
        .start()
        .unwrap();
    let code = program.wait(SOON).await.unwrap().code();
    let output = program.output();
    assert_eq!(code, Some(3), "{output}");
    assert!(output.contains("workflow bad@7:3:") && output.contains("nobody"), "{output}");
    assert!(output.contains("tidemill workflow archive"), "{output}");
}

#[tokio::test]
async fn settings_that_it_does_not_understand_are_refused_with_exit_code_3() {
    for setting in [
        "services.openai.concurrency=0",
        "producer.max_batch_lines=0",
        "producer.durabilty=fast",
        "redis.url=http://nonsense",
    ] {
        let mut program =
            Process::builder(PROGRAM).args(["config", "check", "--set", setting]).start().unwrap();
        let status = program.wait(SOON).await.unwrap();
        assert_eq!(status.code(), Some(3), "{setting}: {}", program.output());
        let key = setting.split('=').next().unwrap();
        let section = key.split('.').next().unwrap();
        assert!(program.output().contains(section), "{setting}: {}", program.output());
    }
}

#[tokio::test]
async fn an_unfit_redis_ends_it_with_exit_code_4_and_an_absent_one_leaves_it_waiting() {
    let server = RedisServer::builder().config("maxmemory-policy", "allkeys-lru").start().await.unwrap();
    let mut program = Process::builder(PROGRAM)
        .args(["--redis-url", &server.url(), "--http-addr", "127.0.0.1:0"])
        .start()
        .unwrap();
    assert_eq!(program.wait(SOON).await.unwrap().code(), Some(4), "{}", program.output());
    assert!(program.output().contains("noeviction"), "{}", program.output());

    let mut program = Process::builder(PROGRAM)
        .args(["--redis-url", "redis://127.0.0.1:1/0", "--http-addr", "127.0.0.1:0", "--log-format", "json"])
        .start()
        .unwrap();
    let line = program.wait_for_line("listening for HTTP", SOON).await.unwrap();
    let addr = line.split("\"addr\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().to_owned();
    let ready = send(&addr, "GET /ready HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").await;
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    program.interrupt().unwrap();
    assert!(program.wait(SOON).await.unwrap().success(), "{}", program.output());
}

#[tokio::test]
async fn it_prints_its_openapi_document() {
    let mut program = Process::builder(PROGRAM).arg("openapi").start().unwrap();
    assert!(program.wait(SOON).await.unwrap().success());
    assert!(program.output().contains("\"/v1/jobs\""), "{}", program.output());
}
