//! One job or run at a time.

use tidemill_producer::Settings;
use tidemill_store::keys;

use crate::door::Door;
use crate::worker::{FLOW, claim, field};

#[tokio::test]
async fn a_job_is_queued_with_just_the_fields_it_was_given() {
    let door = Door::open().await;
    let answer = door.post("/v1/jobs", r#"{"tool":"echo","input":{"a":[1,2]}}"#).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    let view = answer.json();
    assert_eq!((view["state"].as_str(), view["durability"].as_str()), (Some("queued"), Some("fast")));
    let id = view["id"].as_str().unwrap();
    assert_eq!(answer.header("location"), format!("/v1/jobs/{id}"));
    let entries = claim(&door, keys::WORKERS, "default", 1).await;
    assert_eq!(entries[0].entry.as_str(), id);
    assert_eq!(field(&entries[0], "input").unwrap(), r#"{"a":[1,2]}"#);
    assert_eq!(entries[0].fields.len(), 2);
}

#[tokio::test]
async fn everything_that_the_contract_knows_reaches_the_entry() {
    let door = Door::open().await;
    let body = r#"{"tool":"echo@2","id":"o/1","tenant":"t","user":"u","priority":0,"queue":"gpu","timeout_ms":5,"deadline_ms":6,
        "max_attempts":7,"result_ttl_ms":8,"reply_to":"mine","tracestate":"a=b","x-own":"y"}"#;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = door.send("POST", "/v1/jobs", &[("traceparent", trace)], body.to_owned()).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    assert_eq!(answer.json()["id"], "o/1");
    assert_eq!(answer.header("location"), "/v1/jobs/o%2F1");
    let entry = &claim(&door, keys::WORKERS, "gpu", 1).await[0];
    let expected = [
        ("tool", "echo@2"),
        ("id", "o/1"),
        ("tenant", "t"),
        ("user", "u"),
        ("priority", "0"),
        ("timeout_ms", "5"),
        ("deadline_ms", "6"),
        ("max_attempts", "7"),
        ("result_ttl_ms", "8"),
        ("reply_to", "mine"),
        ("traceparent", trace),
        ("tracestate", "a=b"),
        ("x-own", "y"),
    ];
    for (name, value) in expected {
        assert_eq!(field(entry, name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(entry.fields.len(), expected.len());
    assert_eq!(door.get("/v1/jobs/o%2F1").await.json()["state"], "running");
}

#[tokio::test]
async fn the_same_id_is_taken_in_once_by_member_or_by_header() {
    let door = Door::open().await;
    assert_eq!(door.post("/v1/jobs", r#"{"tool":"echo","id":"a"}"#).await.status, 202);
    let again = door.post("/v1/jobs", r#"{"tool":"echo","id":"a"}"#).await;
    assert_eq!((again.status, again.json()["state"].as_str()), (200, Some("duplicate")));
    let job = r#"{"tool":"echo"}"#;
    for (key, status) in [("b", 202), ("\"b\"", 200), ("\"a\"", 200)] {
        let answer = door.send("POST", "/v1/jobs", &[("idempotency-key", key)], job).await;
        assert_eq!(answer.status, status, "{key}: {}", answer.body);
    }
    assert_eq!(door.cli(&["XLEN", "tm:{0}:jobs:default"]).await, "2");
    let both = [("idempotency-key", "x")];
    let differing = door.send("POST", "/v1/jobs", &both, r#"{"tool":"echo","id":"y"}"#).await;
    differing.problem(400, "invalid_request");
    let bad = door.send("POST", "/v1/jobs", &[("idempotency-key", "no spaces")], job).await;
    bad.problem(400, "invalid_member");
}

#[tokio::test]
async fn a_delayed_job_waits_and_says_until_when() {
    let door = Door::open().await;
    let answer = door.post("/v1/jobs", r#"{"tool":"echo","delay_ms":60000}"#).await;
    assert_eq!((answer.status, answer.json()["state"].as_str()), (202, Some("deferred")));
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(id.len(), 36, "a job that waits has an id of its own: {id}");
    let view = door.get(&format!("/v1/jobs/{id}")).await.json();
    assert_eq!(view["state"], "deferred");
    let due = view["due_at_ms"].as_u64().unwrap();
    let now = door.home().now_ms().await.unwrap();
    assert!(due > now + 50_000 && due <= now + 60_000, "{due} {now}");
    let why = door.get(&format!("/v1/jobs/{id}/why")).await.json();
    assert_eq!(why["until_ms"].as_u64(), Some(due));
    assert_eq!(door.cli(&["XLEN", "tm:{0}:jobs:default"]).await, "0");
}

#[tokio::test]
async fn bad_requests_are_problems_that_say_what_to_do() {
    let door = Door::open().await;
    let cases = [
        ("/v1/jobs", "", 400, "invalid_json"),
        ("/v1/jobs", "{\"tool\":", 400, "invalid_json"),
        ("/v1/jobs", "[]", 400, "invalid_request"),
        ("/v1/jobs", "{}", 400, "missing_member"),
        ("/v1/jobs", r#"{"workflow":"w"}"#, 400, "invalid_request"),
        ("/v1/runs", r#"{"tool":"echo"}"#, 400, "invalid_request"),
        ("/v1/jobs", r#"{"tool":"echo","tenent":"t"}"#, 400, "unknown_member"),
        ("/v1/jobs", r#"{"tool":"a b"}"#, 400, "invalid_member"),
        ("/v1/jobs", r#"{"tool":"echo","reply_to":"tm:{0}:jobs:default"}"#, 400, "invalid_member"),
        ("/v1/jobs?durability=solid", r#"{"tool":"echo"}"#, 400, "invalid_query"),
        ("/v1/jobs?speed=fast", r#"{"tool":"echo"}"#, 400, "invalid_query"),
        ("/v1/runs", r#"{"workflow":"nope"}"#, 404, "unknown_workflow"),
    ];
    for (path, body, status, code) in cases {
        door.post(path, body).await.problem(status, code);
    }
    let near = door.post("/v1/jobs", r#"{"tool":"echo","tenent":"t"}"#).await;
    assert!(near.problem(400, "unknown_member").contains("did you mean \"tenant\"?"));
    let binary = door.send("POST", "/v1/jobs", &[], vec![0xff, 0xfe]).await;
    binary.problem(400, "invalid_json");
    assert_eq!(door.cli(&["EXISTS", "tm:{0}:jobs:default"]).await, "0");
}

#[tokio::test]
async fn a_run_s_input_is_checked_before_it_is_queued() {
    let door = Door::open().await;
    assert_eq!(door.publish(FLOW).await.status, 201);
    let detail = door
        .post("/v1/runs", r#"{"workflow":"flow","input":{"n":"one"}}"#)
        .await
        .problem(422, "invalid_input");
    assert!(detail.contains("flow@1") && detail.contains("/n"), "{detail}");
    door.post("/v1/runs", r#"{"workflow":"flow"}"#).await.problem(422, "invalid_input");
    door.post("/v1/runs", r#"{"workflow":"flow@7","input":{"n":1}}"#).await.problem(404, "unknown_workflow");
    let near = door.post("/v1/runs", r#"{"workflow":"flaw","input":{"n":1}}"#).await;
    assert!(near.problem(404, "unknown_workflow").contains("did you mean \"flow\"?"));
    assert_eq!(door.cli(&["XLEN", "tm:{0}:runs"]).await, "0");

    let answer =
        door.post("/v1/runs", r#"{"workflow":"flow","input":{"n":1},"queue":"gpu","id":"r1"}"#).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    let entry = &claim(&door, keys::SCHEDULERS, keys::RUNS, 1).await[0];
    assert_eq!(field(entry, "workflow").as_deref(), Some("flow"));
    assert_eq!(field(entry, "queue").as_deref(), Some("gpu"));
    assert_eq!(door.get("/v1/runs/r1").await.json()["state"], "queued");
}

#[tokio::test]
async fn with_partitions_work_stands_where_its_id_says() {
    let door = Door::with(Settings::default(), 4).await;
    for n in 0..20 {
        let body = if n % 2 == 0 {
            r#"{"tool":"echo"}"#.to_owned()
        } else {
            format!(r#"{{"tool":"echo","id":"mine-{n}"}}"#)
        };
        let answer = door.post("/v1/jobs", &body).await;
        let id = answer.json()["id"].as_str().unwrap().to_owned();
        let status = door.store.partition_of(&id).job_status(None, &id).await.unwrap();
        assert!(matches!(status, tidemill_store::JobStatus::Queued { .. }), "{id}: {status:?}");
        assert_eq!(door.get(&format!("/v1/jobs/{id}")).await.json()["state"], "queued");
    }
    let lengths = door.get("/v1/queues").await.json();
    assert_eq!(lengths["queues"][0]["ready"], 20, "{lengths}");
}
