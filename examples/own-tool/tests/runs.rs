//! The example does what it shows.

use std::time::Duration;

use tidemill_testkit::{Process, RedisServer, wait_until};

#[tokio::test]
async fn a_worker_with_a_tool_of_its_own_counts_words_and_ends_on_ctrl_c() {
    let server = RedisServer::start().await.unwrap();
    let mut worker =
        Process::builder(env!("CARGO_BIN_EXE_tidemill-example-own-tool")).arg(server.url()).start().unwrap();
    let job = [
        "XADD",
        "tm:{0}:jobs:default",
        "*",
        "tool",
        "text.count",
        "input",
        "{\"text\":\"one two\"}",
        "id",
        "c1",
    ];
    server.cli(&[&job[..], &["result_ttl_ms", "60000"]].concat()).await.unwrap();
    wait_until(Duration::from_secs(20), "the result", async || {
        server.cli(&["GET", "tm:{0}:result:c1"]).await.unwrap().contains("\"output\":{\"words\":2}")
    })
    .await
    .unwrap();
    worker.interrupt().unwrap();
    assert!(worker.wait(Duration::from_secs(20)).await.unwrap().success());
}
