//! Jobs found again, and results waited for.

use tidemill_protocol::StepState;
use tidemill_store::{Burial, keys};

use crate::door::Door;
use crate::worker::{FLOW, announce, claim, complete, settle, start};

#[tokio::test]
async fn a_result_is_waited_for_until_it_is_there() {
    let door = Door::open().await;
    let job = r#"{"tool":"echo","id":"a","result_ttl_ms":60000}"#;
    assert_eq!(door.post("/v1/jobs", job).await.status, 202);
    let early = door.get("/v1/results/a").await;
    assert_eq!((early.status, early.json()["state"].as_str()), (202, Some("queued")));
    let entry = claim(&door, keys::WORKERS, "default", 1).await.remove(0).entry;
    let early = door.get("/v1/results/a?wait_ms=20").await;
    assert_eq!((early.status, early.json()["state"].as_str()), (202, Some("running")));
    let (answer, ()) = tokio::join!(door.get("/v1/results/a?wait_ms=30000"), async {
        complete(&door, &entry, "a", "{\"n\": 1}").await;
    });
    assert_eq!(answer.status, 200);
    let result = answer.json();
    assert_eq!((result["state"].as_str(), result["output"]["n"].as_u64()), (Some("succeeded"), Some(1)));
    let view = door.get("/v1/jobs/a").await.json();
    assert_eq!((view["state"].as_str(), &view["result"]), (Some("succeeded"), &result));
    door.get("/v1/results/a?wait_ms=60001").await.problem(400, "invalid_query");
    door.get("/v1/results/other").await.problem(404, "unknown_job");
    door.get("/v1/jobs/other").await.problem(404, "unknown_job");
}

#[tokio::test]
async fn a_run_s_result_comes_from_its_record() {
    let door = Door::open().await;
    door.publish(FLOW).await;
    door.post("/v1/runs", r#"{"workflow":"flow","input":{"n":1},"id":"r1"}"#).await;
    assert_eq!(door.get("/v1/results/r1").await.json()["state"], "queued");
    start(&door, "r1").await;
    assert_eq!(door.get("/v1/results/r1").await.json()["state"], "running");
    let (answer, ()) = tokio::join!(door.get("/v1/results/r1?wait_ms=30000"), async {
        settle(&door, "r1", 2).await;
        settle(&door, "r1", 1).await;
    });
    let result = answer.json();
    assert_eq!((answer.status, result["state"].as_str()), (200, Some("succeeded")), "{result}");
    assert_eq!(result["output"], serde_json::json!({"ok": true}));
    assert!(result["finished_at_ms"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn a_job_is_found_in_every_stage_by_its_id_or_its_entry() {
    let door = Door::open().await;
    let own = door.post("/v1/jobs", r#"{"tool":"echo"}"#).await.json()["id"].as_str().unwrap().to_owned();
    door.post("/v1/jobs", r#"{"tool":"echo","id":"named","queue":"slow"}"#).await;
    for id in [own.as_str(), "named"] {
        assert_eq!(door.get(&format!("/v1/jobs/{id}")).await.json()["state"], "queued", "{id}");
    }
    let why = door.get("/v1/jobs/named/why").await.json();
    assert!(why["why"].as_str().unwrap().contains("no worker serves queue \"slow\""), "{why}");
    announce(&door, "w1", &["slow"]).await;
    let why = door.get("/v1/jobs/named/why").await.json();
    assert!(why["why"].as_str().unwrap().contains("free slot"), "{why}");

    let entry = claim(&door, keys::WORKERS, "default", 1).await.remove(0).entry;
    let view = door.get(&format!("/v1/jobs/{own}")).await.json();
    assert_eq!((view["state"].as_str(), view["worker"].as_str()), (Some("running"), Some("w1")));
    assert_eq!(view["queue"], "default");
    door.home().acknowledge("default", &[entry]).await.unwrap();
    door.get(&format!("/v1/jobs/{own}")).await.problem(404, "unknown_job");

    let held = claim(&door, keys::WORKERS, "slow", 1).await.remove(0).entry;
    let stream = door.home().keys().jobs("slow");
    let burial = Burial {
        entry: &held,
        id: "named",
        code: "boom",
        reason: "it broke",
        state: StepState::Failed,
        attempts: 3,
        ttl_ms: 0,
        reply_to: None,
    };
    assert_eq!(door.home().bury(&stream, keys::WORKERS, &[burial]).await.unwrap(), [true]);
    let view = door.get("/v1/jobs/named").await.json();
    assert_eq!(
        (view["state"].as_str(), view["dead_letter"]["code"].as_str()),
        (Some("failed"), Some("boom"))
    );
    assert_eq!(view["dead_letter"]["fields"]["id"], "named");
    let result = door.get("/v1/results/named").await;
    assert_eq!((result.status, result.json()["error"]["code"].as_str()), (200, Some("boom")));
}

#[tokio::test]
async fn a_job_that_moved_is_still_found_by_its_id() {
    let door = Door::open().await;
    door.post("/v1/jobs", r#"{"tool":"echo","id":"a"}"#).await;
    let entry = claim(&door, keys::WORKERS, "default", 1).await.remove(0).entry;
    let stream = door.home().keys().jobs("default");
    let held = [tidemill_store::Held { entry, slot: None, attempt: 1 }];
    door.home().release((&stream, keys::WORKERS), "s1", ("w1", None), &held).await.unwrap();
    let view = door.get("/v1/jobs/a").await.json();
    assert_eq!(view["state"], "queued", "{view}");
}

#[tokio::test]
async fn a_job_is_cancelled_in_every_stage() {
    let door = Door::open().await;
    for body in [r#"{"tool":"echo","id":"a"}"#, r#"{"tool":"echo","id":"b","delay_ms":60000}"#] {
        door.post("/v1/jobs", body).await;
    }
    assert_eq!(door.post("/v1/jobs/a/cancel", "{\"reason\":\"no\"}").await.json()["state"], "cancelled");
    assert_eq!(door.cli(&["XLEN", "tm:{0}:jobs:default"]).await, "0");
    assert_eq!(door.get("/v1/jobs/a").await.json()["state"], "cancelled");
    assert_eq!(door.get("/v1/results/a").await.json()["state"], "cancelled");
    assert_eq!(door.post("/v1/jobs/b/cancel", "").await.status, 200);

    door.post("/v1/jobs", r#"{"tool":"echo","id":"c","result_ttl_ms":60000}"#).await;
    let entry = claim(&door, keys::WORKERS, "default", 1).await.remove(0).entry;
    let asked = door.post("/v1/jobs/c/cancel", "").await;
    assert_eq!((asked.status, asked.json()["state"].as_str()), (202, Some("requested")));
    assert!(door.home().beat("w1", 1, 0).await.unwrap().cancelled.contains(&"c".to_owned()));
    complete(&door, &entry, "c", "1").await;
    door.post("/v1/jobs/c/cancel", "").await.problem(409, "already_ended");
    door.post("/v1/jobs/none/cancel", "").await.problem(404, "unknown_job");
}

#[tokio::test]
async fn jobs_of_two_queues_that_share_an_entry_id_are_not_taken_for_each_other() {
    let door = Door::open().await;
    door.cli(&["SADD", "tm:{0}:queues", "a", "b"]).await;
    door.cli(&["XADD", "tm:{0}:jobs:a", "7-1", "tool", "echo"]).await;
    door.cli(&["XADD", "tm:{0}:jobs:b", "7-1", "tool", "echo", "id", "named"]).await;
    door.cli(&["SET", "tm:{0}:id:named", "7-1"]).await;
    assert_eq!(door.get("/v1/jobs/named").await.json()["queue"], "b");
    assert_eq!(door.get("/v1/jobs/7-1").await.json()["queue"], "a");
    door.get("/v1/jobs/7-1?queue=b").await.problem(404, "unknown_job");
}
