//! The life of versions, over HTTP.

use serde_json::json;
use tidemill_producer::{Kind, Request};
use tidemill_store::Publishing;

use crate::door::{Answer, Door};
use crate::worker::{FLOW, start};

async fn publish(door: &Door, yaml: &str, query: &str) -> Answer {
    let path = format!("/v1/workflows{query}");
    door.send("PUT", &path, &[("content-type", "application/yaml")], yaml.to_owned()).await
}

async fn act(door: &Door, target: &str, action: &str) -> Answer {
    door.post(&format!("/v1/workflows/{target}/{action}"), "{\"reason\":\"it is time\",\"by\":\"ada\"}").await
}

fn version(number: u32) -> String {
    FLOW.replace("version: 1", &format!("version: {number}"))
}

/// Asks for a run and starts it.
async fn begin(door: &Door) {
    let body = "{\"workflow\":\"flow@1\",\"input\":{\"n\":1},\"id\":\"r1\"}";
    assert_eq!(door.post("/v1/runs", body).await.status, 202);
    start(door, "r1").await;
}

async fn ask(door: &Door, workflow: &str) -> Answer {
    door.post("/v1/runs", &json!({ "workflow": workflow, "input": { "n": 1 } }).to_string()).await
}

#[tokio::test]
async fn a_start_gets_the_newest_active_version_and_a_draft_or_deprecated_one_only_where_it_is_named() {
    let door = Door::open().await;
    let draft = publish(&door, FLOW, "?draft=true").await;
    assert_eq!((draft.status, &draft.json()["state"]), (201, &json!("draft")));
    ask(&door, "flow").await.problem(404, "no_active_version");
    let detail = ask(&door, "flow@1").await.problem(409, "workflow_draft");
    assert!(detail.contains("flow@1-draft"), "{detail}");
    let tried = ask(&door, "flow@1-draft").await;
    assert_eq!((tried.status, &tried.json()["warning"]), (202, &json!("flow@1 is a draft")));
    let moved = act(&door, "flow@1", "activate").await;
    let expected = json!({"name": "flow", "version": 1, "from": "draft", "to": "active", "newest_active": 1});
    assert_eq!((moved.status, moved.json()), (200, expected));
    assert_eq!(ask(&door, "flow").await.json().get("warning"), None);
    assert_eq!(publish(&door, &version(2), "").await.status, 201);
    assert_eq!(act(&door, "flow@1", "deprecate").await.status, 200);
    let old = ask(&door, "flow@1").await;
    assert_eq!(old.status, 202, "{}", old.body);
    assert!(old.json()["warning"].as_str().unwrap().starts_with("flow@1 is deprecated"), "{}", old.body);
    let lines = "{\"workflow\":\"flow@1\",\"input\":{\"n\":1}}\n{\"workflow\":\"flow\",\"input\":{\"n\":1}}";
    let lines = door.batch("/v1/runs", lines).await.lines();
    assert!(lines[0]["warning"].is_string() && lines[1].get("warning").is_none(), "{lines:?}");
    assert_eq!(act(&door, "flow@1", "archive").await.status, 200);
    ask(&door, "flow@1").await.problem(410, "workflow_archived");
    ask(&door, "flow@1-draft").await.problem(410, "workflow_archived");
    ask(&door, "flow@x").await.problem(404, "unknown_workflow");
    let kept = door.get("/v1/workflows/flow@1").await;
    assert_eq!(kept.json()["source"], FLOW, "what is archived is still shown");
}

#[tokio::test]
async fn of_many_who_move_a_version_at_once_one_wins_and_the_rest_get_a_conflict() {
    let door = Door::open().await;
    publish(&door, FLOW, "?draft=true").await;
    let answers = futures_util::future::join_all((0..20).map(|_| act(&door, "flow@1", "activate"))).await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!((won.len(), lost.len()), (1, 19));
    for answer in lost {
        let detail = answer.problem(409, "conflict");
        assert!(detail.starts_with("flow@1 is active"), "{detail}");
    }
    let body = "{\"reason\":\"late\",\"from\":\"draft\"}";
    door.post("/v1/workflows/flow@1/archive", body).await.problem(409, "conflict");
    act(&door, "flow@1", "archive").await;
    door.post("/v1/workflows/flow@1/activate", body).await.problem(409, "conflict");
    act(&door, "flow@1", "deprecate").await.problem(409, "illegal_move");
    act(&door, "flow@1", "vaporise").await.problem(400, "invalid_request");
    act(&door, "flow", "archive").await.problem(400, "invalid_request");
    act(&door, "flow@7", "archive").await.problem(404, "unknown_workflow");
    door.post("/v1/workflows/flow@1/archive", "{}").await.problem(400, "invalid_request");
    let told = door.get("/v1/workflows/flow/changes").await.json()["changes"].clone();
    let told: Vec<_> =
        told.as_array().unwrap().iter().map(|change| (&change["from"], &change["to"])).collect();
    let words =
        [("active", "archived"), ("draft", "active"), ("-", "draft")].map(|(a, b)| (json!(a), json!(b)));
    assert_eq!(told, words.iter().map(|(a, b)| (a, b)).collect::<Vec<_>>());
    let changes = door.get("/v1/workflows/flow/changes?limit=1").await.json();
    assert_eq!(changes["changes"].as_array().unwrap().len(), 1);
    assert_eq!(changes["changes"][0]["by"], "ada (http:127.0.0.1)");
    assert_eq!(changes["changes"][0]["why"], "it is time");
}

#[tokio::test]
async fn a_version_with_live_runs_is_archived_by_force_alone() {
    let door = Door::open().await;
    publish(&door, FLOW, "").await;
    begin(&door).await;
    let detail = act(&door, "flow@1", "archive").await.problem(409, "live_runs");
    assert!(detail.contains("1 run is under way") && detail.contains("r1"), "{detail}");
    let versions = door.get("/v1/workflows/flow/versions").await.json();
    assert_eq!(
        (&versions["versions"][0]["live_runs"], &versions["versions"][0]["state"]),
        (&json!(1), &json!("active"))
    );
    let body = "{\"reason\":\"now\",\"force\":true}";
    assert_eq!(door.post("/v1/workflows/flow@1/archive", body).await.status, 200);
    door.get("/v1/workflows/nothing/versions").await.problem(404, "unknown_workflow");
}

#[tokio::test]
async fn a_new_version_is_compared_with_the_runs_under_way_and_can_be_made_to_fit_them() {
    let door = Door::open().await;
    publish(&door, FLOW, "").await;
    begin(&door).await;
    let first = door.get("/v1/runs/r1").await.json()["steps"][0]["id"].as_str().unwrap().to_owned();
    let renamed =
        version(2).replace(&format!("id: {first}"), "id: other").replace(&format!("[{first}"), "[other");
    let sent = door.send("POST", "/v1/workflows/validate?against_runs=true", &[], version(2)).await;
    assert_eq!(sent.json()["against_runs"], json!({"runs": 1, "misfits": 0, "first": []}), "{}", sent.body);
    let sent = door.send("POST", "/v1/workflows/validate?against_runs=true", &[], renamed.clone()).await;
    let misfit = &sent.json()["against_runs"]["first"][0];
    assert_eq!(
        (&misfit["run"], &misfit["step"], &misfit["version"]),
        (&json!("r1"), &json!(first), &json!(1))
    );
    let refused = publish(&door, &renamed, "?require_compatible=true").await;
    let detail = refused.problem(409, "incompatible");
    assert!(detail.starts_with("1 of 1 live runs of \"flow\"") && detail.contains("r1"), "{detail}");
    assert_eq!(publish(&door, &version(2), "?require_compatible=true").await.status, 201);
    assert_eq!(publish(&door, &renamed.replace("version: 2", "version: 3"), "").await.status, 201);
    let diff = door.get("/v1/workflows/flow@2/diff?to=flow@3").await.json();
    assert_eq!(
        (&diff["from"], &diff["to"], &diff["equal"]),
        (&json!("flow@2"), &json!("flow@3"), &json!(false))
    );
    assert!(diff["changes"].as_array().unwrap().iter().any(|change| change["step"] == "other"), "{diff}");
    assert_eq!(door.get("/v1/workflows/flow@1/diff?to=flow@2").await.json()["equal"], true);
    door.get("/v1/workflows/flow@1/diff").await.problem(400, "invalid_query");
}

#[tokio::test]
async fn a_damaged_definition_takes_no_runs_in_and_publishing_it_again_mends_it() {
    let door = Door::open().await;
    publish(&door, FLOW, "").await;
    let flipped = FLOW.replacen("echo", "ecio", 1);
    door.cli(&["HSET", "tm:{0}:workflow:flow", "1", &flipped]).await;
    let detail = ask(&door, "flow").await.problem(500, "damaged_definition");
    assert!(detail.contains("flow@1 is damaged"), "{detail}");
    let wrong = door.intake.workflows().validate_all().await.unwrap();
    assert!(wrong.len() == 1 && wrong[0].contains("flow@1 is damaged"), "{wrong:?}");
    let versions = door.get("/v1/workflows/flow/versions").await.json();
    assert!(versions["versions"][0]["damage"].as_str().unwrap().contains("SHA-256"), "{versions}");
    assert_eq!(publish(&door, FLOW, "").await.status, 200);
    assert_eq!(ask(&door, "flow").await.status, 202);
    assert_eq!(door.intake.workflows().validate_all().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_producer_refuses_to_run_on_a_bad_graph() {
    let door = Door::open().await;
    assert!(
        door.home()
            .publish("bad", 7, "name: bad\nsteps:\n  - { id: a, tool: echo, needs: [nobody] }\n")
            .await
            .unwrap()
    );
    let unfit = tidemill_producer::validate(&door.intake).await.unwrap_err();
    let text = unfit.to_string();
    assert!(text.contains("workflow bad@7:3:") && text.contains("nobody"), "{text}");
    let state = tidemill_store::VersionState::Draft;
    let publication =
        tidemill_store::Publication { name: "bad", version: 8, source: "name: [", state, who: "-", why: "-" };
    assert_eq!(door.home().publish_as(&publication).await.unwrap(), Publishing::New);
    act(&door, "bad@7", "archive").await;
    tidemill_producer::validate(&door.intake).await.unwrap();
    let refused = door.intake.submit(&Request::new(Kind::Run, "bad@8-draft"), None).await.unwrap_err();
    assert_eq!(refused.code.as_str(), "invalid_workflow");
}
