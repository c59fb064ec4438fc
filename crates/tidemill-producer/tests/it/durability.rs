//! Levels of durability, as the server at hand allows them.

use tidemill_producer::Settings;
use tidemill_store::Durability;
use tidemill_testkit::{RedisServer, wait_until};

use crate::door::Door;

const JOB: &str = "{\"tool\":\"echo\"}";

#[tokio::test]
async fn without_a_replica_the_level_is_unknown_and_the_job_is_taken_in() {
    let settings = Settings { durability_timeout_ms: 50, ..Settings::default() };
    let door = Door::with(settings, 1).await;
    let answer = door.post("/v1/jobs?durability=replicated", JOB).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    assert_eq!(answer.json()["durability"], "unknown");
    assert!(answer.json()["durability_reason"].as_str().unwrap().contains("50 ms"), "{}", answer.body);
    assert_eq!(door.cli(&["XLEN", "tm:{0}:jobs:default"]).await, "1");
}

#[tokio::test]
async fn a_replica_that_has_the_write_is_told() {
    let settings = Settings { durability: Durability::Replicated, ..Settings::default() };
    let door = Door::with(settings, 1).await;
    let port = door.server.port().to_string();
    let replica =
        RedisServer::builder().config("replicaof", format!("127.0.0.1 {port}")).start().await.unwrap();
    wait_until(std::time::Duration::from_secs(10), "the replica follows", async || {
        replica.cli(&["INFO", "replication"]).await.unwrap().contains("master_link_status:up")
    })
    .await
    .unwrap();
    assert_eq!(door.post("/v1/jobs", JOB).await.json()["durability"], "replicated");
    assert_eq!(door.post("/v1/jobs?durability=fast", JOB).await.json()["durability"], "fast");
    let lines = door.batch("/v1/jobs", format!("{JOB}\n").repeat(1_200)).await.lines();
    assert!(lines.iter().all(|line| line["durability"] == "replicated"), "{:?}", lines.first());
    assert_eq!(replica.cli(&["XLEN", "tm:{0}:jobs:default"]).await.unwrap().trim(), "1202");
}

#[tokio::test]
async fn the_disk_is_told_of_only_where_it_is_written_before_the_answer() {
    let door = Door::open().await;
    let none = door.post("/v1/jobs?durability=fsync", JOB).await.json();
    assert_eq!(none["durability"], "fast");
    assert!(none["durability_reason"].as_str().unwrap().contains("append-only file"), "{none}");

    let server = RedisServer::builder().aof(true).config("appendfsync", "always").start().await.unwrap();
    let door = Door::on(server, Settings::default(), 1).await;
    assert_eq!(door.post("/v1/jobs?durability=fsync", JOB).await.json()["durability"], "fsync");

    let server = RedisServer::builder().aof(true).config("appendfsync", "everysec").start().await.unwrap();
    let door = Door::on(server, Settings::default(), 1).await;
    let answer = door.post("/v1/jobs?durability=fsync", JOB).await.json();
    let version = door.store.facts().await.unwrap().version;
    let has_waitaof = !version.starts_with("7.0");
    assert_eq!(answer["durability"], if has_waitaof { "fsync" } else { "fast" }, "{answer}");
    if !has_waitaof {
        assert!(answer["durability_reason"].as_str().unwrap().contains("appendfsync always"), "{answer}");
    }
}
