//! What is refused before it can do harm.

use std::time::Duration;

use tidemill_producer::Settings;
use tidemill_testkit::{FaultProxy, RedisServer, Traffic};
use tokio::time::Instant;

use crate::door::Door;

#[tokio::test]
async fn a_full_queue_refuses_and_says_when_to_come_back() {
    let mut settings = Settings { max_queue_length: 3, ..Settings::default() };
    let free = tidemill_producer::QueueSettings { max_length: Some(0), durability: None };
    settings.queues.insert("free".to_owned(), free);
    let door = Door::with(settings, 1).await;
    let lines = door.batch("/v1/jobs", "{\"tool\":\"echo\"}\n".repeat(5)).await.lines();
    let statuses: Vec<_> = lines.iter().map(|line| line["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [202, 202, 202, 429, 429]);
    let answer = door.post("/v1/jobs", "{\"tool\":\"echo\"}").await;
    let detail = answer.problem(429, "queue_full");
    assert!(detail.contains("\"default\"") && detail.contains('3'), "{detail}");
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(answer.json()["retry_after_ms"], 1000);
    let free = "{\"tool\":\"echo\",\"queue\":\"free\"}\n".repeat(5);
    assert!(door.batch("/v1/jobs", free).await.lines().iter().all(|line| line["status"] == 202));
}

#[tokio::test]
async fn near_maxmemory_work_is_refused_before_redis_does() {
    let server = RedisServer::builder().config("maxmemory", "20mb").start().await.unwrap();
    let door = Door::on(server, Settings { memory_limit_percent: 50, ..Settings::default() }, 1).await;
    assert_eq!(door.post("/v1/jobs", "{\"tool\":\"echo\"}").await.status, 202);
    door.cli(&["SETRANGE", "ballast", "10000000", "x"]).await;
    // what the server told is believed for a second
    let refused = tidemill_testkit::wait_for(Duration::from_secs(5), "a refusal", async || {
        let answer = door.post("/v1/jobs", "{\"tool\":\"echo\"}").await;
        if answer.status == 503 { Ok(answer) } else { Err(answer.body) }
    });
    let refused = refused.await.unwrap();
    refused.problem(503, "redis_memory");
    assert_eq!(refused.header("retry-after"), "5");
}

#[tokio::test]
async fn bodies_are_bounded_in_size_and_in_time() {
    let settings = Settings {
        max_body_bytes: 1_000,
        max_input_bytes: 500,
        body_timeout_ms: 200,
        header_timeout_ms: 200,
        ..Settings::default()
    };
    let door = Door::with(settings, 1).await;
    let body = |n: usize| format!("{{\"tool\":\"echo\",\"input\":\"{}\"}}", "x".repeat(n));
    assert_eq!(door.post("/v1/jobs", &body(400)).await.status, 202);
    door.post("/v1/jobs", &body(600)).await.problem(413, "input_too_large");
    door.post("/v1/jobs", &body(2_000)).await.problem(413, "body_too_large");
    // an announced length is not needed to be refused
    let chunk = format!("7d0\r\n{}\r\n0\r\n\r\n", "x".repeat(2_000));
    let head = "POST /v1/jobs HTTP/1.1\r\nhost: t\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let answer = door.raw(format!("{head}{chunk}").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("body_too_large"), "{answer}");
    // a body that never comes, and a head that never ends
    let stalled = door
        .raw(b"POST /v1/jobs HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-length: 10\r\n\r\n{")
        .await;
    assert!(stalled.starts_with("HTTP/1.1 408") && stalled.contains("request_timeout"), "{stalled}");
    let start = Instant::now();
    let endless = door.raw(b"GET /v1/queues HTTP/1.1\r\nhost: t\r\nx-slow: ").await;
    assert!(start.elapsed() < Duration::from_secs(10), "{endless}");
    assert!(!endless.contains("200"), "{endless}");
}

#[tokio::test]
async fn paths_methods_and_types_that_do_not_exist_are_problems_too() {
    let door = Door::open().await;
    let missing = door.get("/v1/nothing").await;
    missing.problem(404, "unknown_path");
    assert_eq!(missing.json()["instance"], "/v1/nothing");
    door.send("DELETE", "/v1/jobs", &[], "").await.problem(405, "method_not_allowed");
    door.get("/v1/jobs").await.problem(405, "method_not_allowed");
    let typed = [("content-type", "text/csv")];
    door.send("POST", "/v1/jobs", &typed, "a,b").await.problem(415, "unsupported_type");
    assert_eq!(door.get("/").await.status, 200);
    assert_eq!(door.get("/health").await.status, 200);
}

#[tokio::test]
async fn while_redis_is_away_work_is_refused_and_readiness_says_so() {
    let server = RedisServer::start().await.unwrap();
    let proxy = FaultProxy::start(server.port()).await.unwrap();
    let url = server.url_through(proxy.port());
    let door = Door::at(server, &url, Settings::default(), 1).await;
    assert_eq!(door.post("/v1/jobs", "{\"tool\":\"echo\"}").await.status, 202);
    proxy.set(Traffic::Refuse);
    let answer = door.post("/v1/jobs", "{\"tool\":\"echo\"}").await;
    answer.problem(503, "redis_unavailable");
    assert!(!answer.header("retry-after").is_empty());
    tidemill_testkit::wait_until(Duration::from_secs(10), "not ready", async || {
        door.get("/ready").await.status == 503
    })
    .await
    .unwrap();
    proxy.set(Traffic::Pass);
    tidemill_testkit::wait_until(Duration::from_secs(10), "ready again", async || {
        door.get("/ready").await.status == 200
    })
    .await
    .unwrap();
    assert_eq!(door.post("/v1/jobs", "{\"tool\":\"echo\"}").await.status, 202);
}

#[tokio::test]
async fn a_lost_reply_is_told_as_unknown_and_an_id_makes_repeating_safe() {
    let server = RedisServer::start().await.unwrap();
    let proxy = FaultProxy::start(server.port()).await.unwrap();
    let url = server.url_through(proxy.port());
    let door = Door::at(server, &url, Settings::default(), 1).await;
    proxy.drop_reply("the-one", 1);
    let job = r#"{"tool":"echo","id":"the-one"}"#;
    let detail = door.post("/v1/jobs", job).await.problem(503, "redis_unavailable");
    assert!(detail.contains("unknown"), "{detail}");
    let again = door.post("/v1/jobs", job).await;
    assert_eq!((again.status, again.json()["state"].as_str()), (200, Some("duplicate")));
    assert_eq!(door.cli(&["XLEN", "tm:{0}:jobs:default"]).await, "1");
}
