//! What the door does with jobs whose service would let them wait.

use std::time::Duration;

use serde_json::{Value, json};
use tidemill_producer::{Kind, Request};
use tidemill_store::keys;

use crate::door::{Answer, Door};
use crate::services::{act, put};
use crate::worker::{FLOW, claim, park};

const SOON: Duration = Duration::from_secs(10);

fn guarded(mode: &str, max_wait_ms: u64, per_minute: u64) -> Value {
    let limits = json!([{ "unit": "requests", "limit": per_minute, "window_ms": 60_000, "contract": "average", "burst": 1 }]);
    json!({ "tools": ["echo"], "backpressure": mode, "max_wait_ms": max_wait_ms, "limits": limits })
}

async fn enqueue(door: &Door, body: &str) -> Answer {
    door.post("/v1/jobs", body).await
}

#[tokio::test]
async fn a_service_that_rejects_says_why_and_when_to_come_again() {
    let door = Door::open().await;
    door.publish(FLOW).await;
    put(&door, "vendor", &guarded("reject", 5_000, 600_000)).await;
    assert_eq!(enqueue(&door, r#"{"tool":"echo"}"#).await.status, 202);
    act(&door, "vendor", "pause", &json!({ "for_ms": 60_000 })).await;
    let refused = tidemill_testkit::wait_for(SOON, "a refusal", async || {
        let answer = enqueue(&door, r#"{"tool":"echo"}"#).await;
        if answer.status == 429 { Ok(answer) } else { Err(answer.body) }
    });
    let refused = refused.await.unwrap();
    let detail = refused.problem(429, "service_busy");
    assert!(detail.contains("\"vendor\" is paused") && detail.contains("5000 ms are let in"), "{detail}");
    let seconds: u64 = refused.header("retry-after").parse().unwrap();
    assert!((45..=55).contains(&seconds), "{seconds}");
    let problem = &refused.json()["problems"][0];
    assert_eq!((&problem["tier"], &problem["why"]), (&json!("vendor"), &json!("pause")));
    assert_eq!(problem["longest_wait_ms"], 5_000);
    // what does not depend on it, what waits anyway, and what a run does later
    for body in [r#"{"tool":"sleep"}"#, r#"{"tool":"echo","delay_ms":600000}"#] {
        assert_eq!(enqueue(&door, body).await.status, 202, "{body}");
    }
    assert_eq!(door.post("/v1/runs", r#"{"workflow":"flow","input":{"n":1}}"#).await.status, 202);
    let request = Request::new(Kind::Job, "echo");
    door.intake.clone().past_backpressure().submit(&request, None).await.unwrap();
    let metrics = door.get("/metrics").await.body;
    let counted = r#"tidemill_producer_turned_away_total{service="vendor",reason="pause"}"#;
    assert!(metrics.contains(counted), "{metrics}");
    act(&door, "vendor", "resume", &json!({})).await;
    tidemill_testkit::wait_until(SOON, "jobs come in again", async || {
        enqueue(&door, r#"{"tool":"echo"}"#).await.status == 202
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_service_that_queues_takes_everything() {
    let door = Door::open().await;
    put(&door, "vendor", &guarded("queue", 1_000, 1)).await;
    act(&door, "vendor", "pause", &json!({})).await;
    let lines = door.batch("/v1/jobs", "{\"tool\":\"echo\"}\n".repeat(20)).await.lines();
    assert!(lines.iter().all(|line| line["status"] == 202), "{lines:?}");
}

#[tokio::test]
async fn any_tier_of_the_call_may_stand_in_its_way() {
    let door = Door::open().await;
    let mut definition = guarded("reject", 5_000, 6_000);
    definition["model"] = json!(".model");
    definition["per_model"] = json!({ "*": { "concurrency": 3 } });
    put(&door, "vendor", &definition).await;
    put(&door, "@tenant:*", &json!({ "concurrency": 3 })).await;
    act(&door, "@tenant:acme", "pause", &json!({})).await;
    act(&door, "vendor%2Fmodel:large", "pause", &json!({})).await;
    let status = async |tenant: &str, model: &str| {
        let body = json!({ "tool": "echo", "tenant": tenant, "input": { "model": model } });
        let answer = enqueue(&door, &body.to_string()).await;
        (answer.status, answer.json()["problems"][0]["tier"].clone())
    };
    assert_eq!(status("acme", "small").await, (429, json!("@tenant:acme")));
    assert_eq!(status("globex", "large").await, (429, json!("vendor/model:large")));
    assert_eq!(status("globex", "small").await.0, 202);
    act(&door, "vendor", "isolate", &json!({})).await;
    let isolated = tidemill_testkit::wait_for(SOON, "a refusal", async || {
        let answer = enqueue(&door, r#"{"tool":"echo","tenant":"globex"}"#).await;
        if answer.status == 429 { Ok(answer) } else { Err(answer.body) }
    });
    let isolated = isolated.await.unwrap();
    assert!(isolated.problem(429, "service_busy").contains("is isolated until somebody ends that"));
    assert_eq!(isolated.header("retry-after"), "30");
}

#[tokio::test]
async fn a_batch_comes_in_as_far_as_its_wait_goes() {
    let door = Door::open().await;
    put(&door, "vendor", &guarded("reject", 5_000, 60)).await;
    let lines = door.batch("/v1/jobs", "{\"tool\":\"echo\"}\n".repeat(50)).await.lines();
    let taken = lines.iter().take_while(|line| line["status"] == 202).count();
    assert!((5..=8).contains(&taken), "one a second, five seconds: {taken}");
    assert!(lines[taken..].iter().all(|line| line["code"] == "service_busy"), "{lines:?}");
    assert!(lines[taken]["retry_after_ms"].as_u64().unwrap() < 3_000, "{:?}", lines[taken]);
    assert!(lines[taken]["detail"].as_str().unwrap().contains("its limit of requests"), "{:?}", lines[taken]);
    let later = enqueue(&door, r#"{"tool":"echo"}"#).await;
    assert_eq!(later.status, 429, "what came in is not forgotten: {}", later.body);
}

#[tokio::test]
async fn a_line_that_stands_for_too_long_lets_a_quarter_in() {
    let door = Door::open().await;
    // 100 a second; 60 in line are 600 ms
    put(&door, "vendor", &guarded("adaptive", 1_000, 6_000)).await;
    for _ in 0..60 {
        enqueue(&door, r#"{"tool":"echo","queue":"old"}"#).await;
    }
    let entries = claim(&door, keys::WORKERS, "old", 60).await;
    park(&door, "old", "vendor", &entries).await;
    tidemill_testkit::wait_until(SOON, "the line is seen, and 600 ms are let in", async || {
        enqueue(&door, r#"{"tool":"echo"}"#).await.status == 202
    })
    .await
    .unwrap();
    let refused = tidemill_testkit::wait_for(SOON, "the line has stood for a second", async || {
        let answer = enqueue(&door, r#"{"tool":"echo"}"#).await.json();
        if answer["problems"][0]["longest_wait_ms"] == 250 { Ok(answer) } else { Err(answer.to_string()) }
    });
    let refused = refused.await.unwrap();
    assert!(refused["detail"].as_str().unwrap().contains("backpressure adaptive"), "{refused}");
    door.cli(&["DEL", &door.home().keys().line("vendor")]).await;
    tidemill_testkit::wait_until(SOON, "the line is gone", async || {
        enqueue(&door, r#"{"tool":"echo"}"#).await.status == 202
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn jobs_that_come_at_once_share_a_look() {
    let door = Door::open().await;
    put(&door, "vendor", &guarded("reject", 60_000, 60_000)).await;
    let calls = async || {
        let stats = door.cli(&["INFO", "commandstats"]).await;
        let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_fcall:calls="));
        line.and_then(|line| line.split(',').next()).map_or(0, |calls| calls.parse::<u32>().unwrap())
    };
    let before = calls().await;
    let request = Request::new(Kind::Job, "echo");
    let submitted = (0..200).map(|_| door.intake.submit(&request, None));
    let outcomes = futures_util::future::join_all(submitted).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    let looks = calls().await - before - 200;
    assert!((1..10).contains(&looks), "{looks} looks for 200 jobs");
}

#[tokio::test]
async fn a_redis_that_does_not_answer_is_told_by_the_queue_and_not_waited_for_twice() {
    let server = tidemill_testkit::RedisServer::start().await.unwrap();
    let proxy = tidemill_testkit::FaultProxy::start(server.port()).await.unwrap();
    let url = server.url_through(proxy.port());
    let door = Door::at(server, &url, tidemill_producer::Settings::default(), 1).await;
    put(&door, "vendor", &guarded("reject", 5_000, 600)).await;
    assert_eq!(enqueue(&door, r#"{"tool":"echo"}"#).await.status, 202);
    proxy.set(tidemill_testkit::Traffic::Refuse);
    enqueue(&door, r#"{"tool":"echo"}"#).await.problem(503, "redis_unavailable");
    proxy.set(tidemill_testkit::Traffic::Pass);
    tidemill_testkit::wait_until(SOON, "jobs come in again", async || {
        enqueue(&door, r#"{"tool":"echo"}"#).await.status == 202
    })
    .await
    .unwrap();
}
