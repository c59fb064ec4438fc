//! Services over HTTP: set, shown, paused, and what happened to them.

use std::time::Duration;

use serde_json::{Value, json};
use tidemill_producer::{RateLimit, Settings};
use tidemill_store::{CallOutcome, CallReport, CallRequest, Exchange, TierUse};

use crate::door::{Answer, Door};
use crate::worker::{claim, park, park_in};

pub(crate) async fn put(door: &Door, name: &str, definition: &Value) -> Answer {
    door.send("PUT", &format!("/v1/services/{name}?why=test"), &[], definition.to_string()).await
}

pub(crate) async fn act(door: &Door, name: &str, action: &str, body: &Value) -> Value {
    let answer = door.post(&format!("/v1/services/{name}/{action}"), &body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

/// A call through the service and its tenant's tier, which fails if so wanted.
async fn call(door: &Door, service: &str, seq: u64, outcome: Option<CallOutcome>) {
    let tiers = || vec![TierUse { name: service, template: service, held: 0 }];
    let request = CallRequest {
        is_retry: false,
        is_hedge: false,
        patience: Duration::ZERO,
        service: Some(0),
        id: "job",
        tiers: vec![(0, false)],
        amounts: vec![("requests", 1.0)],
    };
    let asked = Exchange { tiers: tiers(), reports: vec![], requests: vec![request] };
    let services = door.store.services();
    services.admit("w1", seq, 0.0, &asked).await.unwrap();
    let Some(outcome) = outcome else { return };
    let report = CallReport {
        service: Some(0),
        outcome,
        latency: Duration::from_millis(20),
        epoch: 0,
        probe: false,
        pause: None,
        tiers: vec![0],
        corrections: vec![],
        notices: vec![],
    };
    let told = Exchange { tiers: tiers(), reports: vec![report], requests: vec![] };
    services.admit("w1", seq + 1, 0.0, &told).await.unwrap();
}

#[tokio::test]
async fn a_service_is_set_shown_paused_and_removed_and_all_of_it_is_told() {
    let door = Door::open().await;
    assert_eq!(door.get("/v1/services").await.json(), json!({ "services": [] }));
    let definition = json!({ "description": "a vendor", "tools": ["echo"], "concurrency": 5,
        "limits": [{ "unit": "requests", "limit": 600, "window_ms": 60000 }] });
    let set = put(&door, "vendor", &definition).await;
    assert_eq!(set.json(), json!({ "name": "vendor", "changed": true, "warnings": [] }));
    assert_eq!(put(&door, "vendor", &definition).await.json()["changed"], false, "the same again");
    let listed = &door.get("/v1/services").await.json()["services"][0];
    assert_eq!((&listed["name"], &listed["tiers"][0]["state"]), (&json!("vendor"), &json!("running")));
    assert!(listed.get("definition").is_none());
    let paused = act(&door, "vendor", "pause", &json!({ "for_ms": 60_000, "why": "they asked" })).await;
    assert_eq!(paused, json!({ "name": "vendor", "from": "running", "to": "paused" }));
    let shown = door.get("/v1/services/vendor").await.json();
    let tier = &shown["tiers"][0];
    assert_eq!((&tier["state"], &tier["state_why"]), (&json!("paused"), &json!("they asked")));
    let expected = tier["expected_wait_ms"].as_u64().unwrap();
    assert!((50_000..=60_000).contains(&expected), "{tier}");
    assert!(tier["state_until_ms"].as_u64().unwrap() > 1_700_000_000_000, "{tier}");
    assert_eq!(shown["definition"]["concurrency"], 5);
    assert_eq!(act(&door, "vendor", "resume", &json!({})).await["to"], "running");
    assert_eq!(act(&door, "vendor", "isolate", &json!({})).await["to"], "forced_open");
    assert_eq!(act(&door, "vendor", "disable", &json!({})).await["to"], "disabled");
    assert_eq!(act(&door, "vendor", "close", &json!({})).await["to"], "running");
    assert_eq!(act(&door, "vendor", "reset", &json!({})).await["to"], "running");
    let removed = door.send("DELETE", "/v1/services/vendor?why=over", &[], "").await;
    assert_eq!(removed.json()["changed"], true);
    door.get("/v1/services/vendor").await.problem(404, "unknown_service");
    let changes = door.get("/v1/services/changes?service=vendor").await.json();
    let rows = changes["changes"].as_array().unwrap();
    let kinds: Vec<_> = rows.iter().rev().map(|row| row["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["set", "pause", "resume", "isolate", "disable", "close", "reset", "remove"]);
    assert!(rows.iter().all(|row| row["by"] == "http:127.0.0.1"), "{changes}");
    assert_eq!((&rows[7]["why"], &rows[6]["why"]), (&json!("test"), &json!("they asked")));
}

#[tokio::test]
async fn what_is_used_of_a_service_is_told() {
    let door = Door::open().await;
    let definition = json!({ "tools": ["echo"], "concurrency": 5,
        "limits": [{ "unit": "requests", "limit": 100, "window_ms": 3_600_000, "contract": "bucket" }] });
    put(&door, "vendor", &definition).await;
    for seq in 0..3 {
        call(&door, "vendor", seq * 2, Some(CallOutcome::Failed)).await;
    }
    call(&door, "vendor", 7, None).await;
    let view = door.get("/v1/services/vendor").await.json();
    let tier = &view["tiers"][0];
    assert_eq!((&tier["counters"]["granted"], &tier["counters"]["failed"]), (&json!(4), &json!(3)));
    let limit = &tier["limits"][0];
    assert_eq!((&limit["measure"], &limit["of"]), (&json!("burst"), &json!(100.0)));
    let used = limit["used"].as_f64().unwrap();
    assert!((3.9..=4.0).contains(&used), "{limit}");
    let breaker = &tier["breaker"];
    assert_eq!(
        (&breaker["calls"], &breaker["failures"], &breaker["state"]),
        (&json!(3), &json!(3), &json!("closed"))
    );
    assert_eq!(tier["concurrency"], json!({ "used": 1, "cap": 5 }));
    let latency = tier["latency_ms"].as_f64().unwrap();
    assert!(latency > 0.0 && tier["expected_wait_ms"] == 0, "{tier}");
}

#[tokio::test]
async fn lines_and_single_tiers_are_shown_and_paused_by_their_encoded_names() {
    let door = Door::open().await;
    let limit = json!([{ "unit": "requests", "limit": 60, "window_ms": 60000, "contract": "average" }]);
    let definition = json!({ "tools": ["echo"], "per_tenant": { "*": { "limits": limit } } });
    put(&door, "vendor", &definition).await;
    for _ in 0..30 {
        door.post("/v1/jobs", r#"{"tool":"echo","tenant":"acme"}"#).await;
    }
    let entries = claim(&door, tidemill_store::keys::WORKERS, "default", 30).await;
    park(&door, "default", "vendor/tenant:acme", &entries).await;
    let tier = door.get("/v1/services/vendor").await.json()["tiers"][1].clone();
    assert_eq!((&tier["tier"], &tier["line"]["length"]), (&json!("vendor/tenant:acme"), &json!(30)));
    assert!(tier["line"]["oldest_ms"].is_u64(), "{tier}");
    let expected = tier["expected_wait_ms"].as_u64().unwrap();
    assert!((29_000..=31_000).contains(&expected), "30 jobs, one a second: {tier}");
    let moved = act(&door, "vendor%2Ftenant:acme", "pause", &json!({})).await;
    assert_eq!(moved["name"], "vendor/tenant:acme");
    let view = door.get("/v1/services/vendor?tier=vendor%2Ftenant%3Aquiet").await.json();
    let state = |at: usize| (view["tiers"][at]["tier"].clone(), view["tiers"][at]["state"].clone());
    assert_eq!(state(1), (json!("vendor/tenant:acme"), json!("paused")));
    assert_eq!(state(2), (json!("vendor/tenant:quiet"), json!("running")));
    assert_eq!(view["tiers"][1]["expected_wait_ms"], Value::Null, "only a person ends it");
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_what_is_wrong_and_the_nearest_name() {
    let door = Door::open().await;
    put(&door, "vendor", &json!({ "tools": ["nothing.*"] })).await;
    let warned = put(&door, "vendor", &json!({ "tools": ["nothing.*", "ecko"] })).await.json();
    let warnings: Vec<_> =
        warned["warnings"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
    assert_eq!(warnings.len(), 2);
    assert!(
        warnings[1].contains("no tool \"ecko\"") && warnings[1].contains("mean \"echo\"?"),
        "{warnings:?}"
    );
    for (definition, words) in [
        (json!({ "concurency": 5 }), "unknown field `concurency`"),
        (json!({ "concurrency": 0 }), "pause it"),
        (json!({ "model": ".model[" }), "services.bad.model: the filter"),
        (json!({ "fallback": [{ "service": "none" }] }), "there is no service \"none\""),
        (json!({ "tools": ["ecko"] }), "depends on"),
    ] {
        let detail = put(&door, "bad", &definition).await.problem(422, "invalid_service");
        assert!(detail.contains(words), "{definition}: {detail}");
    }
    put(&door, "vendor", &json!("text")).await.problem(422, "invalid_service");
    door.send("PUT", "/v1/services/vendor?whi=x", &[], "{}").await.problem(400, "invalid_query");
    let detail = door.get("/v1/services/vendr").await.problem(404, "unknown_service");
    assert!(detail.contains("did you mean \"vendor\"?"), "{detail}");
    for (path, body, code, words) in [
        ("vendr/pause", "", "unknown_service", "mean \"vendor\"?"),
        ("vendor/stop", "", "invalid_request", "pause, resume"),
        ("vendor/resume", r#"{"for_ms":5}"#, "invalid_request", "`pause` alone"),
        ("vendor/pause", r#"{"for_ms":5,"until_ms":6}"#, "invalid_member", "not both"),
        ("vendor/pause", r#"{"until_ms":6}"#, "invalid_member", "has passed"),
        ("vendor/pause", r#"{"until":6}"#, "invalid_request", "unknown field `until`"),
        ("vendor/pause", "{", "invalid_json", ""),
    ] {
        let answer = door.post(&format!("/v1/services/{path}"), body).await;
        let document = answer.json();
        assert_eq!(document["code"], code, "{path} {body}: {document}");
        assert!(document["detail"].as_str().unwrap().contains(words), "{path} {body}: {document}");
    }
    put(&door, "@tenant:*", &json!({ "concurrency": 3 })).await;
    let detail = door.post("/v1/services/@tenant:acme/isolate", "").await.problem(400, "invalid_request");
    assert!(detail.contains("no breaker"), "{detail}");
    assert_eq!(act(&door, "@tenant:acme", "pause", &json!({})).await["to"], "paused");
    put(&door, "other", &json!({ "fallback": [{ "service": "vendor" }] })).await;
    let detail = door.send("DELETE", "/v1/services/vendor", &[], "").await.problem(422, "invalid_service");
    assert!(detail.contains("\"other\" falls back"), "{detail}");
    door.send("DELETE", "/v1/services/nothing", &[], "").await.problem(404, "unknown_service");
}

#[tokio::test]
async fn changes_are_told_in_pages() {
    let door = Door::open().await;
    put(&door, "a", &json!({})).await;
    for n in 1..=4 {
        put(&door, "b", &json!({ "concurrency": n })).await;
    }
    let mut found = Vec::new();
    let mut path = "/v1/services/changes?limit=2".to_owned();
    loop {
        let page = door.get(&path).await.json();
        let rows = page["changes"].as_array().unwrap().clone();
        assert!(rows.len() <= 2);
        found.extend(rows.into_iter().map(|row| row["service"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/v1/services/changes?limit=2&before={next}");
    }
    assert_eq!(found, ["b", "b", "b", "b", "a"]);
    let of_a = door.get("/v1/services/changes?service=a&limit=1").await.json();
    assert_eq!(of_a["changes"].as_array().unwrap().len(), 1);
    door.get("/v1/services/changes?before=x").await.problem(400, "invalid_query");
}

fn limited(per_client: &str, trusted: &[&str]) -> Settings {
    let rate_limit = RateLimit {
        per_client: per_client.to_owned(),
        burst: None,
        trusted_proxies: trusted.iter().map(|network| (*network).to_owned()).collect(),
        client_header: "x-forwarded-for".to_owned(),
    };
    Settings { rate_limit: Some(rate_limit), ..Settings::default() }
}

#[tokio::test]
async fn a_client_that_asks_too_often_is_told_when_it_may_again() {
    let door = Door::with(limited("3/1h", &[]), 1).await;
    let first = door.get("/v1/services").await;
    assert_eq!((first.status, first.header("ratelimit-policy")), (200, "\"client\";q=3;w=3600"));
    assert!(first.header("ratelimit").starts_with("\"client\";r=2;t=1"), "{}", first.header("ratelimit"));
    // a stranger cannot name somebody else
    for _ in 0..2 {
        assert_eq!(door.send("GET", "/v1/services", &[("x-forwarded-for", "9.9.9.9")], "").await.status, 200);
    }
    let refused = door.get("/v1/services").await;
    let detail = refused.problem(429, "too_many_requests");
    assert!(detail.contains("127.0.0.1"), "{detail}");
    let seconds: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1_190..=1_200).contains(&seconds), "{seconds}");
    assert_eq!(door.get("/health").await.status, 200, "what watches the process is not bounded");
    let metrics = door.get("/metrics").await.body;
    assert!(metrics.contains("tidemill_producer_rate_limited_total 1"), "{metrics}");
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_of_its_clients_counts_by_itself() {
    let door = Door::with(limited("1/1h", &["127.0.0.0/8"]), 1).await;
    let ask = async |client: &str| {
        let headers = [("x-forwarded-for", client)];
        door.send("PUT", "/v1/services/vendor", &headers, "{}").await.status
    };
    assert_eq!(ask("9.9.9.9").await, 200);
    assert_eq!(ask("8.8.8.8").await, 200);
    assert_eq!(ask("6.6.6.6, 9.9.9.9").await, 429);
    let changes = door.store.services().history(None, 10).await.unwrap();
    assert_eq!(changes[0].by, "http:9.9.9.9");
}

#[tokio::test]
async fn lines_of_all_partitions_are_one_line() {
    let door = Door::with(Settings::default(), 3).await;
    put(
        &door,
        "vendor",
        &json!({ "tools": ["echo"], "backpressure": "reject", "max_wait_ms": 20_000,
        "limits": [{ "unit": "requests", "limit": 60, "window_ms": 60_000, "contract": "average" }] }),
    )
    .await;
    for n in 0..30 {
        let queued =
            door.post("/v1/jobs", &format!(r#"{{"tool":"echo","id":"job-{n}","queue":"old"}}"#)).await;
        // what comes in at once is bounded by the same wait
        assert!([202, 429].contains(&queued.status), "{}", queued.body);
    }
    let (mut parked, workers) = (0, tidemill_store::keys::WORKERS);
    for partition in door.store.partitions() {
        let mut claimer =
            door.store.claimer(partition.index(), workers, "w1", Duration::from_millis(50)).unwrap();
        claimer.create_groups(std::iter::once("old")).await.unwrap();
        let claimed = claimer.claim(&[("old", 100)], true).await.unwrap();
        let entries: Vec<_> = claimed.into_iter().flat_map(|(_, entries)| entries).collect();
        assert!(!entries.is_empty(), "each partition has some");
        parked += entries.len();
        park_in(partition, "old", "vendor", &entries).await;
    }
    let tier = door.get("/v1/services/vendor").await.json()["tiers"][0].clone();
    assert_eq!(tier["line"]["length"], parked, "{tier}");
    assert!(tier["line"]["oldest_ms"].is_u64(), "{tier}");
    let refused = tidemill_testkit::wait_for(Duration::from_secs(10), "a refusal", async || {
        let answer = door.post("/v1/jobs", r#"{"tool":"echo"}"#).await;
        if answer.status == 429 { Ok(answer) } else { Err(answer.body) }
    });
    assert!(refused.await.unwrap().problem(429, "service_busy").contains("its limit of requests"));
}
