//! The pool as it is shown.

use std::time::Duration;

use tidemill_protocol::StepState;
use tidemill_store::{Burial, keys};

use crate::door::Door;
use crate::worker::{announce, claim};

#[tokio::test]
async fn queues_are_measured() {
    let door = Door::open().await;
    let body = "{\"tool\":\"echo\"}\n{\"tool\":\"echo\"}\n{\"tool\":\"echo\",\"queue\":\"slow\"}\n{\"tool\":\"echo\",\"delay_ms\":60000}";
    door.batch("/v1/jobs", body).await;
    claim(&door, keys::WORKERS, "default", 1).await;
    let view = door.get("/v1/queues").await.json();
    let default = &view["queues"][0];
    assert_eq!(default["queue"], "default");
    assert_eq!(
        (&default["ready"], &default["running"], &default["deferred"]),
        (&1.into(), &1.into(), &1.into())
    );
    assert_eq!((&view["queues"][1]["queue"], &view["queues"][1]["ready"]), (&"slow".into(), &1.into()));
    assert_eq!(view["requested_runs"]["queue"], "runs");
    assert_eq!((&view["live_runs"], &view["dead_letters"]), (&0.into(), &0.into()));
}

#[tokio::test]
async fn a_worker_that_beats_is_alive_and_one_that_does_not_is_not() {
    let door = Door::open().await;
    announce(&door, "quick", &["default"]).await;
    announce(&door, "stuck", &["default"]).await;
    door.home().beat("quick", 0, 0).await.unwrap();
    door.home().beat("stuck", 1, 0).await.unwrap();
    let beating = async {
        let mut number = 1;
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            door.home().beat("quick", number, 0).await.unwrap();
            number += 1;
        }
    };
    let view = tokio::select! {
        answer = door.get("/v1/workers") => answer.json(),
        () = beating => panic!("it beats for ever"),
    };
    let workers = view["workers"].as_array().unwrap();
    let seen: Vec<_> =
        workers.iter().map(|w| (w["consumer"].as_str().unwrap(), w["alive"].as_bool().unwrap())).collect();
    assert_eq!(seen, [("quick", true), ("stuck", false)]);
    assert_eq!(workers[0]["queues"], serde_json::json!(["default"]));
}

#[tokio::test]
async fn dead_letters_are_paged() {
    let door = Door::open().await;
    door.batch("/v1/jobs", "{\"tool\":\"echo\",\"input\":\"x\"}\n".repeat(5)).await;
    let stream = door.home().keys().jobs("default");
    for entry in claim(&door, keys::WORKERS, "default", 5).await {
        let burial = Burial {
            entry: &entry.entry,
            id: entry.entry.as_str(),
            code: "boom",
            reason: "it broke",
            state: StepState::Failed,
            attempts: 1,
            ttl_ms: 0,
            reply_to: None,
        };
        door.home().bury(&stream, keys::WORKERS, &[burial]).await.unwrap();
    }
    let (mut seen, mut query) = (Vec::new(), "limit=2".to_owned());
    loop {
        let page = door.get(&format!("/v1/dead?{query}")).await.json();
        for letter in page["letters"].as_array().unwrap() {
            assert_eq!((&letter["code"], &letter["fields"]["input"]), (&"boom".into(), &"\"x\"".into()));
            seen.push(letter["letter"].as_str().unwrap().to_owned());
        }
        match page["next"].as_str() {
            Some(next) => query = format!("limit=2&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 5);
    door.get("/v1/dead?cursor=x").await.problem(400, "invalid_query");
}
