//! Workflows published and refused.

use crate::door::Door;
use crate::worker::FLOW;

#[tokio::test]
async fn a_version_is_published_once_and_never_changes() {
    let door = Door::open().await;
    let first = door.publish(FLOW).await;
    assert_eq!(first.status, 201, "{}", first.body);
    assert_eq!(
        first.json(),
        serde_json::json!({"name": "flow", "version": 1, "steps": 3, "state": "active", "new": true})
    );
    let again = door.publish(FLOW).await;
    assert_eq!((again.status, again.json()["new"].as_bool()), (200, Some(false)));
    let other = FLOW.replace("id: c", "id: d");
    let detail = door.publish(&other).await.problem(409, "version_taken");
    assert!(detail.contains("flow@1"), "{detail}");
    assert_eq!(door.publish(&other.replace("version: 1", "version: 2")).await.status, 201);
    let shown = door.get("/v1/workflows/flow").await.json();
    assert_eq!((shown["version"].as_u64(), &shown["versions"]), (Some(2), &serde_json::json!([1, 2])));
    assert!(shown["mermaid"].as_str().unwrap().contains("d"), "{shown}");
    let old = door.get("/v1/workflows/flow@1").await.json();
    assert_eq!(old["source"], FLOW);
    assert_eq!(
        door.get("/v1/workflows").await.json()["workflows"],
        serde_json::json!([{"name": "flow", "version": 2}])
    );
    door.get("/v1/workflows/flow@9").await.problem(404, "unknown_workflow");
    door.get("/v1/workflows/flow@x").await.problem(404, "unknown_workflow");
}

#[tokio::test]
async fn a_definition_without_a_version_becomes_the_next_unless_it_is_the_same() {
    let door = Door::open().await;
    let unnumbered = FLOW.replace("version: 1\n", "");
    assert_eq!(door.publish(&unnumbered).await.json()["version"], 1);
    let again = door.publish(&unnumbered).await;
    assert_eq!((again.status, again.json()["version"].as_u64()), (200, Some(1)));
    let changed = door.publish(&unnumbered.replace("id: c", "id: z")).await;
    assert_eq!((changed.status, changed.json()["version"].as_u64()), (201, Some(2)));
    let json = r#"{"name":"flow","steps":[{"id":"a","tool":"echo"}]}"#;
    let sent = door.send("PUT", "/v1/workflows", &[("content-type", "application/json")], json).await;
    assert_eq!((sent.status, sent.json()["version"].as_u64()), (201, Some(3)));
    assert_eq!(door.get("/v1/workflows/flow@3").await.json()["version"], 3);
}

#[tokio::test]
async fn all_problems_of_a_definition_are_told_with_their_lines() {
    let door = Door::open().await;
    let bad = "name: bad\nsteps:\n  - {id: a, tool: ecko}\n  - {id: b, tool: echo, needs: [nope]}\n  - {id: c, tool: echo, colour: red}\n";
    for answer in
        [door.publish(bad).await, door.send("POST", "/v1/workflows/validate?file=bad.yaml", &[], bad).await]
    {
        answer.problem(422, "invalid_workflow");
        let problems = answer.json()["problems"].as_array().unwrap().clone();
        let found: Vec<_> = problems
            .iter()
            .map(|problem| (problem["line"].as_u64().unwrap(), problem["code"].as_str().unwrap()))
            .collect();
        assert_eq!(found, [(3, "unknown_tool"), (4, "unknown_need"), (5, "unknown_member")], "{problems:#?}");
    }
    assert_eq!(door.get("/v1/workflows").await.json()["workflows"], serde_json::json!([]));
    let good = door.post("/v1/workflows/validate", FLOW).await;
    assert_eq!((good.status, good.json()["steps"].as_u64()), (200, Some(3)));
}

#[tokio::test]
async fn tools_are_known_when_a_worker_announced_them_or_the_publisher_insists() {
    let door = Door::open().await;
    let flow = "name: custom\nsteps:\n  - {id: a, tool: text.reverse, with: {text: 1}}\n";
    door.publish(flow).await.problem(422, "invalid_workflow");
    let validated = door.send("POST", "/v1/workflows/validate?any_tool=true", &[], flow).await;
    assert_eq!(validated.status, 200, "{}", validated.body);
    let described =
        r#"{"kind":"custom","input_schema":{"type":"object","properties":{"text":{"type":"string"}}}}"#;
    door.home().register_tools(&[("text.reverse".to_owned(), described.to_owned())]).await.unwrap();
    let mistyped = door.publish(flow).await;
    mistyped.problem(422, "invalid_workflow");
    assert_eq!(mistyped.json()["problems"][0]["code"], "bad_tool_input");
    assert_eq!(door.publish(&flow.replace("text: 1", "text: a")).await.status, 201);
}
