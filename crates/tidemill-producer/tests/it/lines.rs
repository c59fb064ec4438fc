//! Work that waits in lines: where it stands, what it waits for, and how it is taken away.

use std::time::Duration;

use tidemill_store::{Author, ClaimedEntry, Control, Forecast, Parking, Slot, keys};

use crate::door::Door;
use crate::worker::{FLOW, claim, field, start};

const TIER: &str = "openai/tenant:acme";
const AUTHOR: Author<'static> = Author { who: "ada", why: "test", is_file: false };

async fn park(door: &Door, entry: &ClaimedEntry, id: &str, slot: Option<Slot>) {
    let parking = Parking {
        entry: &entry.entry,
        id,
        slot,
        note: "noted by the worker",
        attempt: 1,
        tier: TIER,
        tenant: "acme",
        priority: 5,
        changes: Vec::new(),
    };
    assert_eq!(door.home().park("default", keys::WORKERS, "w1", &[parking]).await.unwrap(), [true]);
}

/// What a pacer does twice a second at least.
async fn pace(door: &Door, waiting: u64) {
    let asked = [Forecast { tier: TIER, waiting, unused: 0 }];
    door.store.services().forecast(Duration::from_millis(50), true, &asked).await.unwrap();
}

#[tokio::test]
async fn a_parked_job_tells_its_place_what_it_waits_for_and_when_its_turn_comes() {
    let door = Door::open().await;
    let rules = [("openai/tenant:*".to_owned(), "d=requests,a,60,60000000,1,0,0,0,0".to_owned())];
    assert!(door.store.services().define(AUTHOR, "openai", "{}", &rules).await.unwrap());
    for id in ["one", "two", "three"] {
        door.post("/v1/jobs", &format!(r#"{{"tool":"echo","id":"{id}","result_ttl_ms":60000}}"#)).await;
    }
    for (entry, id) in claim(&door, keys::WORKERS, "default", 3).await.iter().zip(["one", "two", "three"]) {
        park(&door, entry, id, None).await;
    }
    let why = door.get("/v1/jobs/two/why").await.json();
    assert!(why["why"].as_str().unwrap().contains("no scheduler calls it up"), "{why}");
    pace(&door, 3).await;

    let job = door.get("/v1/jobs/three").await.json();
    assert_eq!((job["state"].as_str(), job["queue"].as_str()), (Some("parked"), Some("default")));
    let line = &job["line"];
    assert_eq!(
        (line["tier"].as_str(), line["place"].as_u64(), line["length"].as_u64()),
        (Some(TIER), Some(3), Some(3))
    );
    assert!(line["since_ms"].as_u64().unwrap() > 1_600_000_000_000);
    assert_eq!(job["why"], "noted by the worker");
    let why = door.get("/v1/jobs/three/why").await.json();
    assert_eq!(why["state"], "parked");
    assert_eq!(
        why["why"],
        "it waits in line for service openai, tenant acme (limit of requests), place 3 of 3, expected in about 3 s"
    );
    assert_eq!(why["line"]["expected_in_ms"], 3_000);
    door.store.services().control(AUTHOR, TIER, Control::Pause(None)).await.unwrap();
    let why = door.get("/v1/jobs/three/why").await.json();
    assert_eq!(why["why"], "it waits in line for service openai, tenant acme (it is paused), place 3 of 3");

    let queues = door.get("/v1/queues").await.json();
    let depth = &queues["queues"][0];
    assert_eq!(
        (depth["parked"].as_u64(), depth["deferred"].as_u64(), depth["ready"].as_u64()),
        (Some(3), Some(0), Some(0))
    );
    assert_eq!(door.get("/v1/results/two").await.json()["state"], "parked");
    let answer = door.post("/v1/jobs/two/cancel", "").await;
    assert_eq!(answer.status, 200, "gone at once: {}", answer.body);
    assert_eq!(door.get("/v1/results/two").await.json()["state"], "cancelled");
    assert_eq!(door.get("/v1/jobs/three").await.json()["line"]["place"], 2);
}

#[tokio::test]
async fn a_run_shows_where_its_parked_steps_stand() {
    let door = Door::open().await;
    door.publish(FLOW).await;
    door.post("/v1/runs", r#"{"workflow":"flow","input":{"n":1},"id":"r1"}"#).await;
    start(&door, "r1").await;
    let held = claim(&door, keys::WORKERS, "default", 2).await;
    for entry in &held {
        let step: u32 = field(entry, "step").unwrap().parse().unwrap();
        let name = ["a", "b"][step as usize].to_owned();
        park(&door, entry, "", Some(Slot { run: "r1".to_owned(), step, item: None, name })).await;
    }
    pace(&door, 2).await;
    let run = door.get("/v1/runs/r1").await.json();
    for step in 0..2 {
        assert_eq!(run["steps"][step]["state"], "parked");
        assert_eq!(run["steps"][step]["line"]["length"], 2, "{run}");
        assert!(run["steps"][step]["due_at_ms"].is_null());
    }
    assert!(run["steps"][2]["line"].is_null());
    let why = door.get("/v1/runs/r1/why").await.json();
    let text = why["why"].as_str().unwrap();
    assert!(text.contains("waits in line for service openai, tenant acme"), "{text}");
    assert!(text.contains("place 1 of 2") && text.contains("place 2 of 2"), "{text}");
}
