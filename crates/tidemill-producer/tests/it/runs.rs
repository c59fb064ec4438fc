//! Runs from their request to their end.

use tidemill_store::keys;

use crate::door::Door;
use crate::worker::{FLOW, announce, claim, settle, start};

const RUN: &str = r#"{"workflow":"flow","input":{"n":1},"id":"r1"}"#;

async fn with_run() -> Door {
    let door = Door::open().await;
    assert_eq!(door.publish(FLOW).await.status, 201);
    assert_eq!(door.post("/v1/runs", RUN).await.status, 202);
    door
}

#[tokio::test]
async fn a_run_is_shown_from_its_request_to_its_end() {
    let door = with_run().await;
    let queued = door.get("/v1/runs/r1").await.json();
    assert_eq!((queued["state"].as_str(), queued["workflow"].as_str()), (Some("queued"), None));
    let why = door.get("/v1/runs/r1/why").await.json();
    assert!(why["why"].as_str().unwrap().contains("no scheduler has started it"), "{why}");

    start(&door, "r1").await;
    let why = door.get("/v1/runs/r1/why").await.json();
    assert!(why["why"].as_str().unwrap().contains("no worker serves queue \"default\""), "{why}");
    announce(&door, "w1", &["default"]).await;
    let why = door.get("/v1/runs/r1/why").await.json();
    assert!(why["why"].as_str().unwrap().contains("free slot"), "{why}");
    let running = door.get("/v1/runs/r1").await.json();
    assert_eq!((running["state"].as_str(), running["workflow"].as_str()), (Some("running"), Some("flow@1")));
    let states: Vec<_> =
        running["steps"].as_array().unwrap().iter().map(|step| step["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["ready", "ready", "pending"]);
    assert_eq!(running["steps"][2]["needs"], serde_json::json!(["a", "b"]));
    assert_eq!(running["input"], serde_json::json!({"n": 1}));

    settle(&door, "r1", 2).await;
    let held = claim(&door, keys::WORKERS, "default", 1).await;
    let running = door.get("/v1/runs/r1").await.json();
    assert_eq!(running["steps"][2]["state"], "running", "who holds the entry runs it");
    assert_eq!(running["steps"][2]["worker"], "w1");
    assert_eq!(running["steps_done"], 2);
    assert!(running["steps"][0]["ended_at_ms"].as_u64().unwrap() > 0);
    let why = door.get("/v1/runs/r1/why").await.json();
    assert!(why["why"].as_str().unwrap().contains("step c runs on worker w1"), "{why}");
    drop(held);
}

#[tokio::test]
async fn steps_are_shown_by_id_and_by_index_with_what_they_gave() {
    let door = with_run().await;
    start(&door, "r1").await;
    settle(&door, "r1", 2).await;
    settle(&door, "r1", 1).await;
    let run = door.get("/v1/runs/r1").await.json();
    assert_eq!(
        (run["state"].as_str(), &run["output"]),
        (Some("succeeded"), &serde_json::json!({"ok": true}))
    );
    for name in ["a", "0"] {
        let step = door.get(&format!("/v1/runs/r1/steps/{name}")).await.json();
        assert_eq!((step["id"].as_str(), step["state"].as_str()), (Some("a"), Some("succeeded")));
        assert_eq!(step["output"], serde_json::json!({"ok": true}));
        assert_eq!(step["run"], "r1");
    }
    door.get("/v1/runs/r1/steps/nope").await.problem(404, "unknown_step");
    door.get("/v1/runs/r1/steps/a%5B0%5D").await.problem(404, "unknown_step");
    door.get("/v1/runs/r1/steps/9").await.problem(404, "unknown_step");
    door.get("/v1/runs/r9/steps/a").await.problem(404, "unknown_run");
    let why = door.get("/v1/runs/r1/why").await.json();
    assert!(why["why"].as_str().unwrap().contains("it has ended: succeeded"), "{why}");
}

#[tokio::test]
async fn the_audit_is_paged_without_a_gap() {
    let door = with_run().await;
    start(&door, "r1").await;
    settle(&door, "r1", 2).await;
    settle(&door, "r1", 1).await;
    let whole = door.get("/v1/runs/r1/audit").await.json();
    let all = whole["records"].as_array().unwrap().clone();
    assert_eq!(all.len(), 11);
    assert_eq!(whole["next"], serde_json::Value::Null);
    let (mut paged, mut after) = (Vec::new(), 0);
    loop {
        let page = door.get(&format!("/v1/runs/r1/audit?limit=2&after={after}")).await.json();
        paged.extend(page["records"].as_array().unwrap().iter().cloned());
        match page["next"].as_u64() {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(paged, all);
    door.get("/v1/runs/r2/audit").await.problem(404, "unknown_run");
}

#[tokio::test]
async fn a_history_has_what_is_under_way_and_ends_with_its_run() {
    let door = with_run().await;
    door.get("/v1/runs/r9/history").await.problem(404, "unknown_run");
    let before = door.get("/v1/runs/r1/history").await.json();
    assert_eq!((before["transitions"].as_u64(), &before["steps"]), (Some(0), &serde_json::json!([])));
    start(&door, "r1").await;
    settle(&door, "r1", 2).await;
    let held = claim(&door, keys::WORKERS, "default", 1).await;
    let history = door.get("/v1/runs/r1/history").await.json();
    let c = &history["steps"][2];
    assert_eq!((c["id"].as_str(), c["state"].as_str()), (Some("c"), Some("running")), "{history}");
    assert_eq!(c["spans"][1]["who"], "w1");
    drop(held);
    door.get("/v1/runs/r1/history?item=true").await.problem(400, "invalid_query");
}

#[tokio::test]
async fn runs_are_listed_by_state_and_workflow_over_pages() {
    let door = Door::open().await;
    door.publish(FLOW).await;
    for n in 0..7 {
        let body = format!(r#"{{"workflow":"flow","input":{{"n":{n}}},"id":"r{n}"}}"#);
        assert_eq!(door.post("/v1/runs", &body).await.status, 202);
        start(&door, &format!("r{n}")).await;
    }
    for id in ["r1", "r2"] {
        assert_eq!(door.post(&format!("/v1/runs/{id}/cancel"), "").await.status, 200);
    }
    let ids = |page: &serde_json::Value| {
        let runs = page["runs"].as_array().unwrap().iter();
        runs.map(|run| run["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let cancelled = door.get("/v1/runs?state=cancelled").await.json();
    assert_eq!(ids(&cancelled), ["r2", "r1"], "newest first");
    assert_eq!(ids(&door.get("/v1/runs?state=running").await.json()).len(), 5);
    assert_eq!(ids(&door.get("/v1/runs?workflow=flow@1").await.json()).len(), 7);
    assert_eq!(ids(&door.get("/v1/runs?workflow=other").await.json()).len(), 0);
    let (mut seen, mut query) = (Vec::new(), "limit=2".to_owned());
    loop {
        let page = door.get(&format!("/v1/runs?{query}")).await.json();
        seen.extend(ids(&page));
        match page["next"].as_str() {
            Some(next) => query = format!("limit=2&cursor={next}"),
            None => break,
        }
    }
    seen.sort();
    assert_eq!(seen, ["r0", "r1", "r2", "r3", "r4", "r5", "r6"]);
    door.get("/v1/runs?state=resting").await.problem(400, "invalid_query");
    door.get("/v1/runs?cursor=x").await.problem(400, "invalid_query");
    door.get("/v1/runs?colour=red").await.problem(400, "invalid_query");
}

#[tokio::test]
async fn a_run_is_cancelled_in_every_stage_of_its_life() {
    let door = with_run().await;
    assert_eq!(
        door.post("/v1/runs/r1/cancel", r#"{"reason":"not needed"}"#).await.json()["state"],
        "cancelled"
    );
    assert_eq!(door.cli(&["XLEN", "tm:{0}:runs"]).await, "0", "a request that waits is taken back");
    assert_eq!(door.get("/v1/runs/r1").await.json()["state"], "cancelled");

    let late = r#"{"workflow":"flow","input":{"n":1},"id":"r2","delay_ms":60000}"#;
    assert_eq!(door.post("/v1/runs", late).await.json()["state"], "deferred");
    assert_eq!(door.get("/v1/runs/r2").await.json()["state"], "deferred");
    assert_eq!(door.post("/v1/runs/r2/cancel", "").await.status, 200);

    door.post("/v1/runs", &RUN.replace("r1", "r3")).await;
    start(&door, "r3").await;
    assert_eq!(door.post("/v1/runs/r3/cancel", r#"{"reason":"enough"}"#).await.status, 200);
    let run = door.get("/v1/runs/r3").await.json();
    assert_eq!(run["state"], "cancelled");
    assert_eq!(run["error"]["message"], "enough");
    door.post("/v1/runs/r3/cancel", "").await.problem(409, "already_ended");
    door.post("/v1/runs/none/cancel", "").await.problem(404, "unknown_run");
    door.post("/v1/runs/r3/cancel", "{\"why\":1}").await.problem(400, "invalid_request");
    door.post("/v1/runs/r3/cancel", "{").await.problem(400, "invalid_json");
}

#[tokio::test]
async fn runs_are_found_by_label_and_time_and_what_cannot_be_asked_is_told() {
    let door = Door::open().await;
    door.publish(FLOW).await;
    for (id, team) in [("r0", "billing"), ("r1", "billing"), ("r2", "search, inc")] {
        let labels = serde_json::json!({ "team": team, "order": 42, "vip": true });
        let body = serde_json::json!({ "workflow": "flow", "input": { "n": 1 }, "id": id, "labels": labels });
        assert_eq!(door.post("/v1/runs", &body.to_string()).await.status, 202);
        start(&door, id).await;
    }
    let ids = async |query: &str| {
        let page = door.get(&format!("/v1/runs?{query}")).await.json();
        let runs = page["runs"].as_array().unwrap().iter();
        runs.map(|run| run["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids("label=team%3Dbilling").await, ["r1", "r0"]);
    assert_eq!(ids("label=team%3Dsearch%5C,%20inc").await, ["r2"], "a comma in a value");
    assert_eq!(ids("label=team%3Dbilling,order%3D42,vip%3Dtrue&limit=1").await, ["r1"]);
    assert_eq!(ids("label=team%3Dnobody").await, [""; 0]);
    assert_eq!(ids("state=failed,running").await.len(), 3);
    assert_eq!(ids("state=ended").await.len(), 0);
    assert_eq!(ids("since_ms=0&until_ms=1").await.len(), 0);
    assert_eq!(ids("parent=r0").await.len(), 0);
    let run = door.get("/v1/runs/r2").await.json();
    assert_eq!(run["labels"], serde_json::json!({ "team": "search, inc", "order": "42", "vip": "true" }));
    for bad in ["label=team", "label=%3Dx", "label=a%20b%3Dc", "state=live,soon", "since_ms=-1", "cursor=1"] {
        door.get(&format!("/v1/runs?{bad}")).await.problem(400, "invalid_query");
    }
    for bad in ["[]", r#"{"a b":"c"}"#, r#"{"a":null}"#, r#"{"a":""}"#, r#"{"a":{}}"#, "7"] {
        let body = format!(r#"{{"workflow":"flow","input":{{"n":1}},"labels":{bad}}}"#);
        let detail = door.post("/v1/runs", &body).await.problem(400, "invalid_member");
        assert!(detail.contains("labels"), "{detail}");
    }
    let job = r#"{"tool":"echo","labels":{"a":"b"}}"#;
    door.post("/v1/jobs", job).await.problem(400, "invalid_request");
    door.get("/v1/groups/flow:nobody").await.problem(404, "unknown_group");
}
