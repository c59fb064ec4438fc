use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;
use tidemill_tool::{Call, ErrorClass, Registry, RetryPolicy, Tool, ToolEntry, ToolError, ToolFuture};
use tidemill_worker::{Order, Settings};
use tokio::sync::Notify;

use crate::pool::{LONG, Pool};

/// Fails the first `failures` calls of each job.
struct Flaky {
    failures: u32,
    calls: AtomicU32,
}

impl Tool for Flaky {
    fn kind(&self) -> &'static str {
        "flaky"
    }

    fn call(self: Arc<Self>, call: Call) -> ToolFuture {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let fails = call.context.attempt <= self.failures;
        Box::pin(async move {
            if fails { Err(ToolError::new(ErrorClass::Server, "http_status", "503")) } else { Ok(call.input) }
        })
    }
}

/// Remembers how many of its calls ran at once.
struct Widest {
    now: AtomicU32,
    most: AtomicU32,
}

impl Tool for Widest {
    fn kind(&self) -> &'static str {
        "widest"
    }

    fn call(self: Arc<Self>, call: Call) -> ToolFuture {
        Box::pin(async move {
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            self.now.fetch_sub(1, Ordering::SeqCst);
            Ok(call.input)
        })
    }
}

/// Runs until it is dropped; says when it began and when it was dropped.
struct Endless {
    begun: Arc<Notify>,
    dropped: Arc<Notify>,
}

struct Tell(Arc<Notify>);

impl Drop for Tell {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Tool for Endless {
    fn kind(&self) -> &'static str {
        "endless"
    }

    fn call(self: Arc<Self>, _: Call) -> ToolFuture {
        Box::pin(async move {
            let _tell = Tell(Arc::clone(&self.dropped));
            self.begun.notify_one();
            std::future::pending().await
        })
    }
}

fn fast_retries() -> RetryPolicy {
    RetryPolicy { max_attempts: Some(4), base_ms: Some(10), max_ms: Some(20), ..RetryPolicy::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_twice_succeeds_at_its_third_attempt() {
    let mut pool = Pool::start().await;
    let tool = Arc::new(Flaky { failures: 2, calls: AtomicU32::new(0) });
    let mut registry = Registry::new();
    registry
        .register_entry(
            ToolEntry::new("flaky", Arc::clone(&tool) as Arc<dyn Tool>).with_retry(fast_retries()),
        )
        .unwrap();
    pool.worker_with(Settings::default(), registry);
    pool.job("default", "j1", &["tool", "flaky", "input", "{\"n\":1}"]).await;
    let result = pool.result("j1").await;
    assert_eq!(result["state"], "succeeded");
    assert_eq!(result["attempts"], 3);
    assert_eq!(result["output"], json!({"n": 1}));
    assert_eq!(tool.calls.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_never_succeeds_is_buried_with_its_fields_after_its_last_attempt() {
    let mut pool = Pool::start().await;
    let tool = Arc::new(Flaky { failures: 99, calls: AtomicU32::new(0) });
    let mut registry = Registry::new();
    registry
        .register_entry(
            ToolEntry::new("flaky", Arc::clone(&tool) as Arc<dyn Tool>).with_retry(fast_retries()),
        )
        .unwrap();
    pool.worker_with(Settings::default(), registry);
    pool.job("default", "j1", &["tool", "flaky", "input", "7", "max_attempts", "2", "x-mine", "yes"]).await;
    let result = pool.result("j1").await;
    assert_eq!((result["state"].as_str(), result["attempts"].as_u64()), (Some("failed"), Some(2)));
    let letters = pool.store.home().letters(None, 10).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].code.as_str(), letters[0].attempts), ("http_status", 2));
    assert_eq!(letters[0].field("x-mine").as_deref(), Some("yes"));
    assert_eq!(tool.calls.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_and_timing_out_really_stop_the_tool() {
    let mut pool = Pool::start().await;
    let (begun, dropped) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let endless = Arc::new(Endless { begun: Arc::clone(&begun), dropped: Arc::clone(&dropped) });
    let mut registry = Registry::new();
    registry.register("endless", endless).unwrap();
    pool.worker_with(Settings::default(), registry);
    pool.job("default", "j1", &["tool", "endless"]).await;
    begun.notified().await;
    assert!(
        !pool.store.home().cancel_job("default", "j1", "test").await.unwrap(),
        "it runs: whoever runs it is asked"
    );
    tokio::time::timeout(LONG, dropped.notified()).await.expect("the cancelled tool is dropped");
    assert_eq!(pool.result("j1").await["state"], "cancelled");

    pool.job("default", "j2", &["tool", "endless", "timeout_ms", "50", "max_attempts", "1"]).await;
    tokio::time::timeout(LONG, dropped.notified()).await.expect("the timed-out tool is dropped");
    let result = pool.result("j2").await;
    assert_eq!(
        (result["state"].as_str(), result["error"]["code"].as_str()),
        (Some("timed_out"), Some("timeout"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_job_starts_no_sooner_and_a_cancelled_one_never() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    let before = pool.store.home().now_ms().await.unwrap();
    pool.job("default", "later", &["tool", "echo", "delay_ms", "400"]).await;
    pool.job("default", "never", &["tool", "echo", "delay_ms", "60000"]).await;
    let result = pool.result("later").await;
    assert!(result["finished_at_ms"].as_u64().unwrap() >= before + 400, "{result}");
    assert!(
        pool.store.home().cancel_job("default", "never", "test").await.unwrap(),
        "it waits: it is gone at once"
    );
    assert_eq!(pool.store.home().depth("default").await.unwrap().deferred, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_id_runs_once() {
    let mut pool = Pool::start().await;
    let tool = Arc::new(Flaky { failures: 0, calls: AtomicU32::new(0) });
    let mut registry = Registry::new();
    registry.register("flaky", Arc::clone(&tool) as Arc<dyn Tool>).unwrap();
    for _ in 0..5 {
        pool.job("default", "j1", &["tool", "flaky"]).await;
    }
    pool.worker_with(Settings::default(), registry);
    pool.result("j1").await;
    tidemill_testkit::wait_until(LONG, "an empty queue", async || {
        pool.cli(&["XLEN", "tm:{0}:jobs:default"]).await == "0"
    })
    .await
    .unwrap();
    assert_eq!(tool.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capped_kind_leaves_its_slots_to_others() {
    let mut pool = Pool::start().await;
    let (begun, dropped) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut registry = tidemill_tools::builtin(&tidemill_tools::Settings::default()).unwrap();
    registry.register("endless", Arc::new(Endless { begun: Arc::clone(&begun), dropped })).unwrap();
    let caps = [("endless".to_owned(), 1)].into();
    for n in 0..60 {
        pool.job("default", &format!("e{n}"), &["tool", "endless"]).await;
    }
    pool.job("default", "after", &["tool", "sleep", "input", "{\"ms\":1}"]).await;
    pool.worker_with(
        Settings { max_parallel: 4, max_parallel_per_kind: caps, ..Settings::default() },
        registry,
    );
    begun.notified().await;
    assert_eq!(pool.result("after").await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_order_serves_the_first_queue_first() {
    let mut pool = Pool::start().await;
    for n in 0..50 {
        pool.job("low", &format!("l{n}"), &["tool", "sleep", "input", "{\"ms\":1}"]).await;
    }
    for n in 0..50 {
        pool.job("high", &format!("h{n}"), &["tool", "sleep", "input", "{\"ms\":1}"]).await;
    }
    let settings = Settings {
        queues: "low=1,high=9".to_owned(),
        order: Order::Strict,
        max_parallel: 1,
        max_read_ahead: 0,
        ..Settings::default()
    };
    pool.worker(settings);
    let last_high = pool.result("h49").await["finished_at_ms"].as_u64().unwrap();
    let first_low = pool.result("l0").await["finished_at_ms"].as_u64().unwrap();
    assert!(last_high <= first_low, "{last_high} {first_low}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_worker_hands_back_and_another_finishes() {
    let mut pool = Pool::start().await;
    let first = pool.worker(Settings { max_parallel: 5, grace_ms: 100, ..Settings::default() });
    for n in 0..20 {
        pool.job("default", &format!("j{n}"), &["tool", "sleep", "input", "{\"ms\":2000}"]).await;
    }
    tidemill_testkit::wait_until(LONG, "work in flight", async || {
        pool.store.home().depth("default").await.unwrap().running >= 5
    })
    .await
    .unwrap();
    pool.drain(&first);
    tidemill_testkit::wait_until(LONG, "an empty pending list", async || {
        pool.store.home().depth("default").await.unwrap().running == 0
            && !pool.store.home().beats().await.unwrap().contains_key(&first)
    })
    .await
    .unwrap();
    assert_eq!(
        pool.store.home().depth("default").await.unwrap().ready,
        20,
        "nothing is lost, nothing is done"
    );
    pool.worker(Settings { max_parallel: 20, ..Settings::default() });
    for n in 0..20 {
        assert_eq!(pool.result(&format!("j{n}")).await["state"], "succeeded");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_reply_claimed_is_found_and_done() {
    let mut pool = Pool::start().await;
    let worker = pool.worker(Settings { sweep_ms: 200, ..Settings::default() });
    tidemill_testkit::wait_until(LONG, "a beat", async || {
        pool.store.home().beats().await.unwrap().contains_key(&worker)
    })
    .await
    .unwrap();
    // an entry that Redis says this worker holds, and that it never saw
    let key = "tm:{0}:jobs:default";
    pool.server
        .cli(&[
            "EVAL",
            "redis.call('XADD', KEYS[1], '*', 'tool', 'echo', 'id', 'lost', 'result_ttl_ms', '60000') \
        return redis.call('XREADGROUP', 'GROUP', 'workers', ARGV[1], 'COUNT', '1', 'STREAMS', KEYS[1], '>')",
            "1",
            key,
            &worker,
        ])
        .await
        .unwrap();
    assert_eq!(pool.result("lost").await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_lives_through_a_restart_of_redis() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    pool.job("default", "before", &["tool", "echo", "input", "1"]).await;
    pool.result("before").await;
    pool.server.stop_hard().unwrap();
    pool.server.restart().await.unwrap();
    pool.job("default", "after", &["tool", "echo", "input", "2"]).await;
    assert_eq!(pool.result("after").await["output"], json!(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_are_no_jobs_go_to_the_dead_letters_and_block_nothing() {
    let mut pool = Pool::start().await;
    pool.worker(Settings { max_input_bytes: 1_000, ..Settings::default() });
    let key = "tm:{0}:jobs:default";
    let large = format!("\"{}\"", "x".repeat(2_000));
    let cases: [(&[&str], &str); 8] = [
        (&["nonsense", "1"], "unknown_field"),
        (&["tool", "echo", "workflow", "w"], "malformed"),
        (&["input", "{}"], "malformed"),
        (&["tool", "nope"], "unknown_tool"),
        (&["tool", "echo", "v", "9"], "unsupported_version"),
        (&["tool", "echo", "input", &large], "too_large"),
        (&["tool", "echo", "delay", "5"], "unknown_field"),
        (&["tool", "echo", "input", "{\"a\":"], "malformed"),
    ];
    for (fields, _) in cases {
        let mut words = vec!["XADD", key, "*"];
        words.extend_from_slice(fields);
        pool.cli(&words).await;
    }
    pool.job("default", "good", &["tool", "echo"]).await;
    assert_eq!(pool.result("good").await["state"], "succeeded");
    tidemill_testkit::wait_until(LONG, "the letters", async || {
        pool.store.home().letter_count().await.unwrap() == 8
    })
    .await
    .unwrap();
    let letters = pool.store.home().letters(None, 10).await.unwrap();
    let mut codes: Vec<_> = letters.iter().map(|letter| letter.code.as_str()).collect();
    let mut wanted: Vec<_> = cases.iter().map(|(_, code)| *code).collect();
    codes.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(codes, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_worker_held_runs_before_the_backlog() {
    let mut pool = Pool::start().await;
    let settings = Settings { max_parallel: 1, max_read_ahead: 0, ..Settings::default() };
    let nap = ["tool", "sleep", "input", "{\"ms\":20}"];
    // the scheduler's own duty is to notice; a consumer that never beats again is what a killed worker leaves
    pool.worker(settings);
    for n in 0..200 {
        pool.job("default", &format!("b{n}"), &nap).await;
    }
    let key = "tm:{0}:jobs:default";
    let script = "redis.call('XADD', KEYS[1], '*', 'tool', 'echo', 'id', 'held', 'result_ttl_ms', '60000') \
        redis.call('XGROUP', 'CREATECONSUMER', KEYS[1], 'workers', 'dead') \
        local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1][1] \
        return redis.call('XCLAIM', KEYS[1], 'workers', 'dead', 0, last, 'FORCE', 'JUSTID')";
    pool.cli(&["EVAL", script, "1", key]).await;
    assert_eq!(pool.result("held").await["state"], "succeeded");
    let ready = pool.store.home().depth("default").await.unwrap().ready;
    assert!(ready > 20, "it overtook what had not begun, of which {ready} are left");
    assert_eq!(pool.result("b199").await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_may_kill_is_run_one_at_a_time() {
    let mut pool = Pool::start().await;
    let tool = Arc::new(Widest { now: AtomicU32::new(0), most: AtomicU32::new(0) });
    let mut registry = Registry::new();
    registry.register("widest", Arc::clone(&tool) as Arc<dyn Tool>).unwrap();
    for n in 0..4 {
        pool.job("default", &format!("s{n}"), &["tool", "widest", "_deaths", "2"]).await;
    }
    pool.worker_with(Settings::default(), registry);
    for n in 0..4 {
        assert_eq!(pool.result(&format!("s{n}")).await["state"], "succeeded");
    }
    assert_eq!(tool.most.load(Ordering::SeqCst), 1, "what dies with one of them is that one alone");
}
