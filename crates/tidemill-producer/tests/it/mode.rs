//! The execution mode over HTTP.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::door::{Answer, Door};

async fn switch(door: &Door, body: &Value) -> Answer {
    door.send("PUT", "/v1/mode", &[], body.to_string()).await
}

#[tokio::test]
async fn the_mode_is_switched_rolled_back_and_told() {
    let door = Door::open().await;
    assert_eq!(door.get("/v1/mode").await.json()["mode"], "hybrid");
    let to = json!({ "mode": "classic", "reason": "compare", "by": "ada" });
    assert_eq!(
        switch(&door, &to).await.json(),
        json!({ "from": "hybrid", "to": "classic", "changed": true, "version": 1 })
    );
    assert_eq!(switch(&door, &to).await.json()["changed"], false, "it is so already");
    let now = door.get("/v1/mode").await.json();
    assert_eq!(
        (&now["mode"], &now["before"], &now["by"]),
        (&json!("classic"), &json!("hybrid"), &json!("ada (http:127.0.0.1)"))
    );
    let back = door.post("/v1/mode/rollback", "{\"reason\":\"enough\",\"version\":1}").await.json();
    assert_eq!(
        (&back["from"], &back["to"], &back["version"]),
        (&json!("classic"), &json!("hybrid"), &json!(2))
    );
    let history = door.get("/v1/mode/history").await.json();
    let rows = history["changes"].as_array().unwrap();
    let kinds: Vec<_> =
        rows.iter().map(|row| (&row["kind"], &row["from"], &row["to"], &row["reason"])).collect();
    let expected = [["rollback", "classic", "hybrid", "enough"], ["switch", "hybrid", "classic", "compare"]];
    for (row, expected) in kinds.into_iter().zip(expected) {
        let expected = expected.map(Value::from);
        assert_eq!(row, (&expected[0], &expected[1], &expected[2], &expected[3]));
    }
    assert_eq!(door.get("/v1/mode/history?limit=1").await.json()["changes"].as_array().unwrap().len(), 1);
    let metrics = door.get("/v1/mode/metrics").await.json();
    assert_eq!((&metrics["currentMode"], &metrics["modeChanges"]), (&json!("hybrid"), &json!(2)));
    assert_eq!(metrics["performanceByMode"]["classic"]["count"], 0);
    assert_eq!(metrics["modeHistory"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn of_those_who_switch_by_what_they_saw_one_wins_and_the_others_get_409() {
    let door = Door::open().await;
    let bodies = ["classic", "optimized"].map(|mode| json!({ "mode": mode, "reason": "now", "version": 0 }));
    let answers = join_all((0..20).map(|at| switch(&door, &bodies[at % 2]))).await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!((won.len(), lost.len()), (1, 19));
    let mode = won[0].json()["to"].as_str().unwrap().to_owned();
    for answer in lost {
        let detail = answer.problem(409, "conflict");
        assert!(detail.contains(&format!("it is {mode} now, switch number 1 (you saw 0)")), "{detail}");
    }
    assert_eq!(door.get("/v1/mode/history").await.json()["changes"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_switch_that_cannot_be_is_refused_with_its_reason() {
    let door = Door::open().await;
    let detail =
        switch(&door, &json!({ "mode": "hybird", "reason": "x" })).await.problem(400, "invalid_member");
    assert!(detail.contains("state_machine") && detail.contains("did you mean \"hybrid\"?"), "{detail}");
    switch(&door, &json!({ "mode": "classic", "reason": " " })).await.problem(400, "missing_member");
    switch(&door, &json!({ "mode": "classic" })).await.problem(400, "invalid_request");
    switch(&door, &json!({ "mode": "classic", "reason": "x", "force": true }))
        .await
        .problem(400, "invalid_request");
    let detail =
        door.post("/v1/mode/rollback", "{\"reason\":\"x\"}").await.problem(409, "nothing_to_roll_back");
    assert!(detail.contains("never switched"), "{detail}");
    door.get("/v1/mode/history?limit=x").await.problem(400, "invalid_query");
    assert_eq!(door.get("/v1/mode").await.json()["version"], 0);
}

#[tokio::test]
async fn a_run_is_asked_for_in_a_mode_and_a_job_has_none() {
    let door = Door::open().await;
    door.publish("name: one\nversion: 1\nsteps: [{ id: a, tool: echo }]\n").await;
    let run = door.post("/v1/runs", "{\"workflow\":\"one\",\"mode\":\"classic\"}").await;
    assert_eq!(run.status, 202, "{}", run.body);
    let entry = door.cli(&["XRANGE", &door.home().keys().runs(), "-", "+"]).await;
    assert!(entry.contains("mode\nclassic"), "{entry}");
    let detail = door
        .post("/v1/runs", "{\"workflow\":\"one\",\"mode\":\"fast\"}")
        .await
        .problem(400, "invalid_member");
    assert!(detail.contains("classic, state_machine, optimized and hybrid"), "{detail}");
    door.post("/v1/jobs", "{\"tool\":\"echo\",\"mode\":\"classic\"}").await.problem(400, "invalid_request");
}
