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
    pub(crate) async fn calls(&self, referee: &Referee, ids: std::ops::Range<usize>, more: &[&str]) {
        let input = json!({ "url": referee.url(), "max_redirects": 0 }).to_string();
        let mut commands = String::new();
        for id in ids {
            commands.push_str(&format!(
                "XADD tm:{{0}}:jobs:default * tool http.request id c{id} input '{input}'"
            ));
            for word in more {
                commands.push_str(&format!(" {word}"));
            }
            commands.push('\n');
        }
        self.pipe(&commands).await;
    }

    /// Waits until nothing is left to do.
    pub(crate) async fn drained(&self) {
        let home = self.store.home();
        let drained =
            tidemill_testkit::wait_until(Duration::from_secs(60), "the queue to be drained", async || {
                let depth = home.depth("default").await.unwrap();
                depth.ready + depth.running + depth.deferred + depth.parked == 0
            })
            .await;
        if drained.is_err() {
            let lines = home.lines().await.unwrap();
            let tiers: Vec<&str> = lines.iter().map(String::as_str).collect();
            let states = self.store.services().states(&tiers).await.unwrap();
            panic!("not drained: {:?}; lines {lines:?}: {states:#?}", home.depth("default").await.unwrap());
        }
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
    // how near to all of it is measured by loadtest; here other tests run beside
    assert!(used > 0.5, "{used}");
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
    let moves: Vec<_> =
        history.iter().filter(|change| change.kind == "breaker").map(|change| &*change.to).collect();
    assert!(
        moves.contains(&"open") && moves.contains(&"half_open") && moves.contains(&"closed"),
        "{moves:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_one_service_does_not_hold_up_another() {
    let mut pool = Pool::start().await;
    pool.service(
        "slow",
        json!({ "tools": ["sleep"], "limits": [{ "unit": "requests", "limit": 1, "window_ms": 60000 }] }),
    )
    .await;
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
    assert_eq!(
        (&result["state"], &result["output"]),
        (&json!("succeeded"), &json!({ "plan": "b" })),
        "{result}"
    );
    assert_eq!(result["degraded"]["service"], "vendor", "{result}");
    assert_eq!(result["degraded"]["code"], "http_status", "{result}");
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_calls_are_made_once() {
    let mut pool = Pool::start().await;
    let referee =
        Referee::start_with(Rules::default().latency(Latency::Fixed(Duration::from_millis(50)))).unwrap();
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

#[tokio::test(flavor = "multi_thread")]
async fn a_small_tenant_is_served_although_a_large_one_came_first() {
    let mut pool = Pool::start().await;
    let referee = Referee::start().unwrap();
    let limit =
        json!({ "unit": "requests", "limit": 100, "window_ms": 1000, "contract": "average", "burst": 5 });
    pool.service("vendor", json!({ "tools": ["http.request"], "limits": [limit] })).await;
    http_workers(&mut pool, 2);
    pool.calls(&referee, 0..400, &["tenant", "large"]).await;
    tidemill_testkit::wait_until(LONG, "the large tenant's jobs to be parked", async || {
        pool.store.home().line_length("vendor").await.unwrap() >= 300
    })
    .await
    .unwrap();
    pool.calls(&referee, 1_000..1_010, &["tenant", "small", "result_ttl_ms", "60000"]).await;
    for id in 1_000..1_010 {
        pool.result(&format!("c{id}")).await;
    }
    let left = pool.store.home().line_length("vendor").await.unwrap();
    assert!(left >= 100, "the small tenant had to wait for nearly all of the large one: {left} are left");
    pool.drained().await;
    assert_eq!(referee.report().calls, 410);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_at_its_own_limit_holds_up_nobody_else() {
    let mut pool = Pool::start().await;
    let referee = Referee::start().unwrap();
    let own = json!({ "limits": [{ "unit": "requests", "limit": 2, "window_ms": 60000 }] });
    pool.service("vendor", json!({ "tools": ["http.request"], "per_tenant": { "bounded": own } })).await;
    http_workers(&mut pool, 2);
    pool.calls(&referee, 0..50, &["tenant", "bounded"]).await;
    pool.calls(&referee, 100..200, &["tenant", "other", "result_ttl_ms", "60000"]).await;
    for id in 100..200 {
        pool.result(&format!("c{id}")).await;
    }
    tidemill_testkit::wait_until(LONG, "the bounded tenant's rest to wait in its own line", async || {
        pool.store.home().line_length("vendor/tenant:bounded").await.unwrap() >= 48
    })
    .await
    .unwrap();
    assert!(referee.report().calls <= 102);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_reserved_reconciled_and_held_to_the_limit() {
    let mut pool = Pool::start().await;
    let window = Duration::from_secs(2);
    let rules = Rules::default().tokens(10_000, window).usage(tidemill_testkit::referee::Usage::OpenAi);
    let referee = Referee::start_with(rules).unwrap();
    let limit =
        json!({ "unit": "total_tokens", "limit": 10_000, "window_ms": 2000, "slack_ms": 60, "burst": 500 });
    // twice as much is reserved as is used
    let estimate = json!({ "total_tokens": "(.json.tokens // 0) * 2" });
    pool.service("llm", json!({ "tools": ["http.request"], "limits": [limit], "estimate": estimate })).await;
    http_workers(&mut pool, 3);
    let mut commands = String::new();
    for id in 0..300 {
        let tokens = if id % 50 == 0 { 1_500 } else { 60 + id % 40 };
        let body = json!({ "tokens": tokens });
        let input = json!({ "url": referee.url(), "method": "POST", "json": body, "max_redirects": 0 });
        commands
            .push_str(&format!("XADD tm:{{0}}:jobs:default * tool http.request id t{id} input '{input}'\n"));
    }
    pool.pipe(&commands).await;
    pool.drained().await;
    let report = referee.report();
    assert_eq!((report.calls, report.violations), (300, 0), "{:?}", report.worst_window);
    let used = report.use_share(report.arrivals[0].at, report.arrivals[299].at).tokens_share;
    assert!(used > 0.4, "{used}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_limit_reaches_every_worker_at_once() {
    let mut pool = Pool::start().await;
    let referee = Referee::start().unwrap();
    let definition = |limit: u32| json!({ "tools": ["http.request"], "limits": [{ "unit": "requests", "limit": limit, "window_ms": 60000, "contract": "average", "burst": 1 }] });
    pool.service("vendor", definition(1)).await;
    http_workers(&mut pool, 3);
    pool.calls(&referee, 0..200, &[]).await;
    tidemill_testkit::wait_until(LONG, "all to be parked", async || {
        pool.store.home().line_length("vendor").await.unwrap() >= 199
    })
    .await
    .unwrap();
    pool.service("vendor", definition(60_000)).await;
    pool.drained().await;
    assert_eq!(referee.report().calls, 200);
    let history = pool.store.services().history(None, 10).await.unwrap();
    assert_eq!(history.iter().filter(|change| change.kind == "set" && change.by == "test").count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_call_is_repeated_and_the_first_answer_counts() {
    let mut pool = Pool::start().await;
    let slow = Latency::Uniform(Duration::from_millis(1), Duration::from_millis(2));
    let referee =
        Referee::start_with(Rules::default().latency(slow).failing(0.03, Fault::Slow(300)).seed(3)).unwrap();
    pool.service("vendor", json!({ "tools": ["http.request"], "hedge": { "after": 50, "max_ratio": 0.1 } }))
        .await;
    http_workers(&mut pool, 1);
    pool.calls(&referee, 0..300, &[]).await;
    pool.drained().await;
    let calls = referee.report().calls;
    assert!(calls > 300 && calls <= 330, "{calls} calls for 300 jobs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_whose_service_is_limited_is_parked_and_audited() {
    let mut pool = Pool::start().await;
    pool.service("vendor", json!({ "tools": ["echo"] })).await;
    pool.store.services().control(AUTHOR, "vendor", Control::Pause(None)).await.unwrap();
    http_workers(&mut pool, 1);
    pool.publish("name: w\nversion: 1\nsteps:\n  - { id: one, tool: echo, with: { n: 1 } }\n").await;
    pool.run("w", "r1", "{}").await;
    tidemill_testkit::wait_until(LONG, "the step to be parked", async || {
        pool.store.home().line_length("vendor").await.unwrap() == 1
    })
    .await
    .unwrap();
    pool.store.services().control(AUTHOR, "vendor", Control::Resume).await.unwrap();
    let run = pool.ended("r1").await;
    assert_eq!(run.state.as_str(), "succeeded");
    let audit = pool.store.home().audit("r1", 0, usize::MAX).await.unwrap();
    let moves: Vec<_> =
        audit.iter().filter(|record| record.subject == "one").map(|record| &*record.to).collect();
    assert_eq!(moves, ["ready", "parked", "ready", "running", "succeeded"]);
}
