//! Services: what a whole pool makes of a limit, as a referee sees it that is not of our making.

use std::time::Duration;

use serde_json::{Value, json};
use tidemill_policy::service::Definition;
use tidemill_store::{Author, Control};
use tidemill_testkit::referee::{Fault, Latency, Referee, RetryForm, Rules};
use tidemill_tool::Registry;
use tidemill_worker::Settings;

use crate::pool::{LONG, Pool};

pub(crate) const AUTHOR: Author<'static> = Author { who: "test", why: "a test", is_file: false };

pub(crate) fn registry() -> Registry {
    let mut settings = tidemill_tools::Settings::default();
    settings.http_request.allow_networks.push("127.0.0.0/8".to_owned());
    tidemill_tools::builtin(&settings).unwrap()
}

impl Pool {
    /// Puts a definition in force.
    pub(crate) async fn service(&self, name: &str, definition: Value) {
        let definition = Definition::from_json(&definition.to_string()).unwrap();
        self.store.services().apply(AUTHOR, name, Some(&definition)).await.unwrap();
    }

    /// Adds calls of the referee, in one go.
    async fn calls(&self, referee: &Referee, ids: std::ops::Range<usize>, more: &[&str]) {
        let input = json!({ "url": referee.url(), "max_redirects": 0 }).to_string();
        let mut commands = String::new();
        for id in ids {
            commands.push_str(&format!("XADD tm:{{0}}:jobs:default * tool http.request id c{id} input '{input}'"));
            for word in more {
                commands.push_str(&format!(" {word}"));
            }
            commands.push('\n');
        }
        self.pipe(&commands).await;
    }

    /// Waits until nothing is left to do.
    async fn drained(&self) {
        tidemill_testkit::wait_until(Duration::from_secs(60), "the queue to be drained", async || {
            let depth = self.store.home().depth("default").await.unwrap();
            depth.ready + depth.running + depth.deferred + depth.parked == 0
        })
        .await
        .unwrap();
    }
}

fn http_workers(pool: &mut Pool, count: usize) {
    for _ in 0..count {
        pool.worker_with(Settings::default(), registry());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_holds_for_all_workers_together_and_is_used() {
    let mut pool = Pool::start().await;
    let window = Duration::from_secs(2);
    let referee = Referee::start_with(Rules::default().requests(100, window)).unwrap();
    let limit = json!({ "unit": "requests", "limit": 100, "window_ms": 2000, "slack_ms": 60 });
    pool.service("vendor", json!({ "tools": ["http.request"], "limits": [limit] })).await;
    http_workers(&mut pool, 4);
    pool.calls(&referee, 0..400, &[]).await;
    pool.drained().await;
    let report = referee.report();
    assert_eq!((report.calls, report.violations), (400, 0), "{:?}", report.worst_window);
    assert!(report.worst_window.requests_share <= 1.0);
    let first = report.arrivals[0].at;
    let used = report.use_share(first, report.arrivals[399].at).requests_share;
    assert!(used > 0.85, "{used}");
    let letters = pool.store.home().letters(None, 10).await.unwrap();
    assert!(letters.is_empty(), "{letters:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cap_on_calls_at_once_holds_for_the_pool() {
    let mut pool = Pool::start().await;
    let slow = Latency::Fixed(Duration::from_millis(20));
    let referee = Referee::start_with(Rules::default().concurrency(5).latency(slow)).unwrap();
    pool.service("vendor", json!({ "tools": ["http.request"], "concurrency": 5 })).await;
    http_workers(&mut pool, 3);
    pool.calls(&referee, 0..300, &[]).await;
    pool.drained().await;
    let report = referee.report();
    assert_eq!((report.calls, report.violations), (300, 0));
    assert_eq!(report.most_concurrent, 5, "it is used");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_429_pauses_the_service_for_the_whole_pool_and_costs_no_attempt_of_others() {
    let mut pool = Pool::start().await;
    let window = Duration::from_secs(1);
    let rules = Rules::default().requests(10, window).retry_after(RetryForm::Seconds);
    let referee = Referee::start_with(rules).unwrap();
    // the pool does not know the limit
    pool.service("vendor", json!({ "tools": ["http.request"], "retry_budget": { "enabled": false } })).await;
    http_workers(&mut pool, 2);
    pool.calls(&referee, 0..40, &["max_attempts", "50"]).await;
    pool.drained().await;
    let report = referee.report();
    assert_eq!(report.admitted, 40);
    let history = pool.store.services().history(None, 100).await.unwrap();
    assert!(history.iter().any(|change| change.kind == "pause" && change.service == "vendor"), "{history:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_opens_for_all_and_burns_no_attempt_while_it_is_open() {
    let mut pool = Pool::start().await;
    let referee = Referee::start().unwrap();
    let breaker = json!({ "min_calls": 5, "open_ms": 300, "probes": 2, "window_ms": 5000 });
    let definition = json!({ "tools": ["http.request"], "breaker": breaker, "retry": { "base_ms": 1, "max_ms": 2, "max_attempts": 9 } });
    pool.service("vendor", definition).await;
    http_workers(&mut pool, 3);
    referee.fail_for(Duration::from_millis(1_500), Fault::ERROR);
    pool.calls(&referee, 0..60, &[]).await;
    pool.drained().await;
    let report = referee.report();
    let succeeded = report.by_status.get(&200).copied().unwrap_or(0);
    assert_eq!(succeeded, 60, "{:?}", report.by_status);
    assert!(pool.store.home().letters(None, 10).await.unwrap().is_empty());
    let history = pool.store.services().history(None, 100).await.unwrap();
    let moves: Vec<_> = history.iter().filter(|change| change.kind == "breaker").map(|change| &*change.to).collect();
    assert!(moves.contains(&"open") && moves.contains(&"half_open") && moves.contains(&"closed"), "{moves:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_one_service_does_not_hold_up_another() {
    let mut pool = Pool::start().await;
    pool.service("slow", json!({ "tools": ["sleep"], "limits": [{ "unit": "requests", "limit": 1, "window_ms": 60000 }] })).await;
    http_workers(&mut pool, 1);
    let blocked = "XADD tm:{0}:jobs:default * tool sleep input '{\"ms\":1}'\n".repeat(2_000);
    pool.pipe(&blocked).await;
    pool.job("default", "free", &["tool", "echo", "input", "1"]).await;
    assert_eq!(pool.result("free").await["state"], "succeeded");
    tidemill_testkit::wait_until(LONG, "all others to be parked", async || {
        pool.store.home().line_length("slow").await.unwrap() >= 1_990
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_service_waits_and_goes_on_when_resumed() {
    let mut pool = Pool::start().await;
    pool.service("vendor", json!({ "tools": ["echo"] })).await;
    pool.store.services().control(AUTHOR, "vendor", Control::Pause(None)).await.unwrap();
    http_workers(&mut pool, 1);
    pool.job("default", "held", &["tool", "echo", "input", "1"]).await;
    tidemill_testkit::wait_until(LONG, "the job to be parked", async || {
        pool.store.home().line_length("vendor").await.unwrap() == 1
    })
    .await
    .unwrap();
    pool.store.services().control(AUTHOR, "vendor", Control::Resume).await.unwrap();
    let result = pool.result("held").await;
    assert_eq!((&result["state"], &result["attempts"]), (&json!("succeeded"), &json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fallback_answers_and_says_so() {
    let mut pool = Pool::start().await;
    let referee = Referee::start_with(Rules::default().failing(1.0, Fault::ERROR)).unwrap();
    let definition = json!({
        "tools": ["http.request"], "retry": { "max_attempts": 1 },
        "fallback": [{ "tool": "jq.transform", "with": { "filter": "error(\"no\")" } }, { "value": { "plan": "b" } }],
    });
    pool.service("vendor", definition).await;
    http_workers(&mut pool, 1);
    let input = json!({ "url": referee.url() }).to_string();
    pool.job("default", "j", &["tool", "http.request", "input", &input]).await;
    let result = pool.result("j").await;
    assert_eq!((&result["state"], &result["output"]), (&json!("succeeded"), &json!({ "plan": "b" })), "{result}");
    assert_eq!(result["degraded"]["service"], "vendor", "{result}");
    assert_eq!(result["degraded"]["code"], "http_status", "{result}");
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_calls_are_made_once() {
    let mut pool = Pool::start().await;
    let referee = Referee::start_with(Rules::default().latency(Latency::Fixed(Duration::from_millis(50)))).unwrap();
    pool.service("vendor", json!({ "tools": ["http.request"], "cache": { "ttl_ms": 60000 } })).await;
    http_workers(&mut pool, 3);
    pool.calls(&referee, 0..200, &["result_ttl_ms", "60000"]).await;
    pool.drained().await;
    assert_eq!(referee.report().calls, 1);
    assert_eq!(pool.result("c199").await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_budget_bounds_what_a_failing_service_has_to_bear() {
    let mut pool = Pool::start().await;
    let referee = Referee::start_with(Rules::default().failing(0.5, Fault::ERROR).seed(7)).unwrap();
    let definition = json!({
        "tools": ["http.request"], "breaker": { "enabled": false },
        "retry": { "base_ms": 1, "max_ms": 5, "max_attempts": 20 },
        "retry_budget": { "ratio": 0.1, "min_per_second": 0.0, "burst": 1.0, "when_spent": "fail" },
    });
    pool.service("vendor", definition).await;
    http_workers(&mut pool, 2);
    pool.calls(&referee, 0..500, &[]).await;
    pool.drained().await;
    let calls = referee.report().calls;
    assert!((501..=551).contains(&calls), "{calls} calls for 500 jobs");
}
