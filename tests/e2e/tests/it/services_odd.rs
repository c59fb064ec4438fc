//! Services when something is odd in a worker: places that must come back on every path, and bounds that must hold on all of them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use tidemill_store::Control;
use tidemill_testkit::referee::{Latency, Referee, Rules};
use tidemill_testkit::wait_until;
use tidemill_worker::Settings;

use crate::pool::{LONG, Pool};
use crate::services::{AUTHOR, registry};

fn slow(ms: u64) -> Referee {
    Referee::start_with(Rules::default().latency(Latency::Fixed(Duration::from_millis(ms)))).unwrap()
}

impl Pool {
    /// Waits until no worker holds a place of the tier.
    async fn nothing_held(&self, tier: &str, patience: Duration) {
        let held = self.store.services().held(tier);
        let free = async || self.cli(&["HLEN", &held]).await == "0";
        wait_until(patience, "all places to be given back", free).await.unwrap();
    }
}

/// What is granted must not run beyond the worker's own caps, and what cannot start for them must not keep its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_cap_on_a_kind_of_tools_holds_for_admitted_calls_too() {
    let mut pool = Pool::start().await;
    let referee = slow(20);
    pool.service("vendor", json!({ "tools": ["http.request"], "concurrency": 10 })).await;
    let kind = registry().find("http.request").unwrap().kind.to_owned();
    let settings = Settings { max_parallel_per_kind: BTreeMap::from([(kind, 2)]), ..Settings::default() };
    pool.worker_with(settings, registry());
    pool.calls(&referee, 0..60, &[]).await;
    pool.drained().await;
    let report = referee.report();
    assert_eq!((report.calls, report.most_concurrent), (60, 2));
    pool.nothing_held("vendor", Duration::from_secs(3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_share_of_a_worker_holds_for_admitted_calls_too() {
    let mut pool = Pool::start().await;
    let referee = slow(20);
    pool.service("vendor", json!({ "tools": ["http.request"], "concurrency": 10 })).await;
    pool.worker_with(Settings { max_parallel_per_tenant: Some(2), ..Settings::default() }, registry());
    pool.calls(&referee, 0..10, &["tenant", "acme"]).await;
    pool.drained().await;
    let report = referee.report();
    assert_eq!((report.calls, report.most_concurrent), (10, 2));
    pool.nothing_held("vendor", Duration::from_secs(3)).await;
}

/// Asking the cache and admission is no start: 100 calls beyond the burst of 50 take two seconds, not six.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_looked_up_and_admitted_starts_once() {
    let mut pool = Pool::start().await;
    let referee = Referee::start().unwrap();
    pool.service(
        "vendor",
        json!({ "tools": ["http.request"], "concurrency": 1000, "cache": { "coalesce": false } }),
    )
    .await;
    pool.worker_with(Settings { max_starts_per_second: Some(50), ..Settings::default() }, registry());
    for id in 0..150 {
        let input = json!({ "url": format!("{}?n={id}", referee.url()) }).to_string();
        pool.pipe(&format!("XADD tm:{{0}}:jobs:default * tool http.request input '{input}'\n")).await;
    }
    pool.drained().await;
    let report = referee.report();
    assert_eq!(report.calls, 150);
    let took = report.arrivals[149].at - report.arrivals[0].at;
    assert!(took > Duration::from_millis(1_500) && took < Duration::from_millis(3_900), "{took:?}");
}

/// A worker that leaves says so: its places do not wait for anybody to find out that it is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_leaves_gives_its_places_back() {
    let mut pool = Pool::start().await;
    let referee = slow(300);
    pool.service("vendor", json!({ "tools": ["http.request"], "concurrency": 20 })).await;
    let worker = pool.worker_with(Settings::default(), registry());
    pool.calls(&referee, 0..1, &[]).await;
    wait_until(LONG, "the call to be under way", async || referee.report().calls == 1).await.unwrap();
    pool.drain(&worker);
    wait_until(LONG, "the worker to leave", async || {
        pool.store.home().members().await.unwrap().iter().all(|member| member.consumer != worker)
    })
    .await
    .unwrap();
    pool.nothing_held("vendor", Duration::from_secs(1)).await;
}

/// Redis says that a newer call of this worker was there before: what it asked for must not be forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_exchange_is_made_again() {
    let mut pool = Pool::start().await;
    pool.service("vendor", json!({ "tools": ["echo"], "concurrency": 20 })).await;
    let worker = pool.worker_with(Settings::default(), registry());
    let (held, now_us) =
        (pool.store.services().held("vendor"), pool.store.home().now_ms().await.unwrap() * 1_000);
    pool.cli(&["HSET", &held, &worker, &format!("1 {} 999999", now_us + 1_000_000)]).await;
    pool.job("default", "j", &["tool", "echo", "input", "1"]).await;
    assert_eq!(pool.result("j").await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_waits_for_an_equal_call_can_be_cancelled() {
    let mut pool = Pool::start().await;
    pool.service("vendor", json!({ "tools": ["sleep"], "cache": {} })).await;
    pool.worker_with(Settings::default(), registry());
    for id in ["first", "second"] {
        pool.job("default", id, &["tool", "sleep", "input", "{\"ms\":20000}"]).await;
    }
    wait_until(LONG, "both to be claimed", async || {
        pool.store.home().depth("default").await.unwrap().running == 2
    })
    .await
    .unwrap();
    pool.store.home().cancel_job("default", "second", "").await.unwrap();
    let result = pool.result("second").await;
    assert_eq!(result["state"], "cancelled");
    assert!(pool.store.home().result("first").await.unwrap().is_none(), "that one goes on");
}

/// What waits in the line of a service that is renamed, or gone, is nobody's any more, and runs as it would without the line.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_in_the_line_of_a_service_that_was_renamed_or_removed_run() {
    let mut pool = Pool::start().await;
    let services = pool.store.services();
    pool.service("old", json!({ "tools": ["echo"] })).await;
    pool.worker_with(Settings::default(), registry());
    for (id, renamed) in [("renamed", true), ("removed", false)] {
        services.control(AUTHOR, "old", Control::Pause(None)).await.unwrap();
        pool.job("default", id, &["tool", "echo", "input", "1"]).await;
        wait_until(LONG, "the job to be parked", async || {
            pool.store.home().line_length("old").await.unwrap() == 1
        })
        .await
        .unwrap();
        services.apply(AUTHOR, "old", None).await.unwrap();
        if renamed {
            pool.service("new", json!({ "tools": ["echo"], "concurrency": 1 })).await;
        }
        let result = pool.result(id).await;
        assert_eq!((&result["state"], &result["attempts"]), (&json!("succeeded"), &json!(1)));
        services.apply(AUTHOR, "new", None).await.unwrap();
        services.control(AUTHOR, "old", Control::Resume).await.unwrap();
        pool.service("old", json!({ "tools": ["echo"] })).await;
        wait_until(LONG, "the worker to follow", async || {
            let id = format!("probe-{}", pool.cli(&["INCR", "ids"]).await);
            services.control(AUTHOR, "old", Control::Reset).await.unwrap();
            pool.job("default", &id, &["tool", "echo", "input", "1"]).await;
            pool.result(&id).await;
            let state = services.states(&["old"]).await.unwrap().remove(0);
            state.is_some_and(|state| state.counters.get("granted") > 0)
        })
        .await
        .unwrap();
    }
}
