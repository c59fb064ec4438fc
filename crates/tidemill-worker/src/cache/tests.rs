//! Workers that share a cache, on a real Redis.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{join_all, poll_immediate};
use tidemill_policy::service::{Cache as Rules, Order};
use tidemill_protocol::{Encoding, ErrorClass, Payload};
use tidemill_runtime::metrics::Metrics;
use tidemill_runtime::tasks::{OnFailure, Tasks};
use tidemill_store::{Settings, Store};
use tidemill_testkit::{RedisCluster, RedisServer, wait_for};
use tidemill_tool::ToolError;

use super::{Cache, LookUp, Question, Ticket, Timing};

const PATIENCE: Duration = Duration::from_secs(30);

/// A machine with other work to do is no broken Redis.
fn timing() -> Timing {
    Timing { patience: PATIENCE, ..Timing::default() }
}

/// One worker's cache.
struct Worker {
    cache: Cache,
    store: Store,
    tasks: Tasks,
    metrics: Metrics,
    service: Arc<str>,
}

impl Worker {
    fn at(url: &str, timing: Timing) -> Self {
        let settings = Settings { url: url.to_owned(), response_timeout_ms: 30_000, ..Settings::default() };
        let store = Store::new(&settings, "tm", 1).unwrap();
        let (metrics, tasks) = (Metrics::new("test", "0"), Tasks::new());
        let (cache, engine) = Cache::with_timing(store.clone(), &metrics, timing);
        tasks.spawn("cache", OnFailure::Log, async move {
            engine.run().await;
            Ok::<(), Infallible>(())
        });
        Self { cache, store, tasks, metrics, service: Arc::from("openai") }
    }

    fn on(server: &RedisServer) -> Self {
        Self::at(&server.url(), timing())
    }

    async fn ask(&self, input: &str, rules: &Rules) -> LookUp {
        let input = Payload::json(input.to_owned());
        let question = Question { service: &self.service, tool: "llm.chat", apart: "", input: &input };
        self.cache.look_up(&question, rules).await
    }

    async fn ticket(&self, input: &str, rules: &Rules) -> Ticket {
        match self.ask(input, rules).await {
            LookUp::Fill(ticket) => ticket,
            other => panic!("{other:?} where a call was to be made"),
        }
    }

    async fn hit(&self, input: &str, rules: &Rules) -> Payload {
        match self.ask(input, rules).await {
            LookUp::Hit(output) => output,
            other => panic!("{other:?} where an answer was to be"),
        }
    }

    async fn stale(&self, input: &str) -> Option<Payload> {
        let input = Payload::json(input.to_owned());
        self.cache
            .stale(&Question { service: &self.service, tool: "llm.chat", apart: "", input: &input })
            .await
    }

    /// How often look-ups came to this.
    fn counted(&self, result: &str) -> u64 {
        let line = format!("tidemill_worker_cache_lookups_total{{service=\"openai\",result=\"{result}\"}} ");
        let text = self.metrics.text();
        text.lines().find_map(|text| text.strip_prefix(&line)?.parse().ok()).unwrap_or(0)
    }

    /// Waits until so many answers were sent to Redis, whatever became of them.
    async fn sent(&self, result: &str, count: u64) {
        let line =
            format!("tidemill_worker_cache_stored_total{{service=\"openai\",result=\"{result}\"}} {count}");
        let there = async || {
            let text = self.metrics.text();
            if text.lines().any(|text| text == line) { Ok(()) } else { Err(text) }
        };
        wait_for(PATIENCE, "answers to be sent", there).await.unwrap();
    }
}

fn output(text: &str) -> Payload {
    Payload::json(text.to_owned())
}

fn error(class: ErrorClass) -> ToolError {
    ToolError::new(class, "http_status", "the service said no").with_retry_after(Some(Duration::from_secs(3)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_200_calls_in_four_workers_one_is_made() {
    let server = RedisServer::start().await.unwrap();
    let workers: Vec<Worker> = (0..4).map(|_| Worker::on(&server)).collect();
    let (rules, made, asked) = (Rules::default(), AtomicUsize::new(0), AtomicUsize::new(0));
    let calls = (0..200).map(|n| {
        let (worker, rules, made, asked) = (&workers[n % 4], &rules, &made, &asked);
        async move {
            asked.fetch_add(1, Ordering::SeqCst);
            match worker.ask("{\"prompt\":\"tide\"}", rules).await {
                LookUp::Fill(ticket) => {
                    made.fetch_add(1, Ordering::SeqCst);
                    let all = async || match asked.load(Ordering::SeqCst) {
                        200 => Ok(()),
                        some => Err(some.to_string()),
                    };
                    wait_for(PATIENCE, "all to have asked", all).await.unwrap();
                    let answer = output("{\"text\":\"mill\"}");
                    ticket.fill(&answer);
                    answer
                }
                LookUp::Hit(answer) => answer,
                LookUp::Failed(error) => panic!("{error}"),
            }
        }
    });
    let answers = tokio::time::timeout(PATIENCE, join_all(calls)).await.unwrap();
    assert!(answers.iter().all(|answer| *answer == output("{\"text\":\"mill\"}")));
    assert_eq!(made.load(Ordering::SeqCst), 1);
    let count = |result| workers.iter().map(|worker| worker.counted(result)).sum::<u64>();
    assert_eq!((count("miss"), count("coalesced") + count("hit")), (1, 199));
    assert!(count("coalesced") >= 49, "those of the caller's own worker at least");
}

#[tokio::test]
async fn what_gathers_goes_in_few_calls() {
    let server = RedisServer::start().await.unwrap();
    let (worker, rules) = (Worker::on(&server), Rules::default());
    worker.ticket("0", &rules).await.fill(&output("0"));
    let inputs: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
    worker.sent("stored", 1).await;
    let before = calls(&server).await;
    let found = join_all(inputs.iter().map(|input| worker.ask(input, &rules))).await;
    let mut hits = 0;
    for (found, input) in found.into_iter().zip(&inputs) {
        match found {
            LookUp::Fill(ticket) => ticket.fill(&output(input)),
            LookUp::Hit(_) => hits += 1,
            LookUp::Failed(error) => panic!("{error}"),
        }
    }
    assert_eq!(hits, 1);
    worker.sent("stored", 1000).await;
    let after = calls(&server).await;
    assert!(after - before <= 20, "{} calls for 1000 look-ups and 999 answers", after - before);
    assert_eq!(worker.hit("999", &rules).await, output("999"));
}

#[tokio::test]
async fn an_answer_is_never_between_its_worker_and_redis() {
    let server = RedisServer::start().await.unwrap();
    let (worker, rules) = (Worker::on(&server), Rules::default());
    let inputs: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
    let tickets = join_all(inputs.iter().map(|input| worker.ticket(input, &rules))).await;
    // more than one call can carry: some wait for the next while all are asked for again
    for (ticket, input) in tickets.into_iter().zip(&inputs) {
        ticket.fill(&output(input));
    }
    // what was answered last is asked for first
    let again = join_all(inputs.iter().rev().map(|input| worker.hit(input, &rules))).await;
    assert!(again.iter().zip(inputs.iter().rev()).all(|(found, input)| *found == output(input)));
    worker.sent("stored", 1000).await;
}

async fn calls(server: &RedisServer) -> u64 {
    let stats = server.cli(&["INFO", "commandstats"]).await.unwrap();
    let fcall = stats.lines().find_map(|line| line.strip_prefix("cmdstat_fcall:calls=")).unwrap();
    fcall.split(',').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn who_lives_keeps_the_right_to_call_and_who_dies_loses_it() {
    let server = RedisServer::start().await.unwrap();
    let short = Timing { lease: Duration::from_millis(600), renewal: Duration::from_millis(150), ..timing() };
    let (first, second) = (Worker::at(&server.url(), short), Worker::at(&server.url(), short));
    let rules = Rules::default();
    let ticket = first.ticket("1", &rules).await;
    let mut waits = pin!(second.ask("1", &rules));
    let early = tokio::time::timeout(Duration::from_millis(1500), &mut waits).await;
    assert!(early.is_err(), "{early:?} although the first is at it");
    // its engine ends as in a killed process: without a word
    first.tasks.shutdown(Duration::ZERO).await;
    match tokio::time::timeout(PATIENCE, waits).await.unwrap() {
        LookUp::Fill(ticket) => ticket.fill(&output("2")),
        other => panic!("{other:?}"),
    }
    ticket.fill(&output("1"));
    assert_eq!(second.hit("1", &rules).await, output("2"), "nobody hears the dead");
    assert!(matches!(first.ask("1", &rules).await, LookUp::Fill(_)), "its look-ups end too");
}

#[tokio::test]
async fn who_gives_up_hands_the_call_to_the_next_who_waits() {
    let server = RedisServer::start().await.unwrap();
    // a lease that nobody gives up lasts longer than this test
    let long = Timing { lease: Duration::from_secs(600), ..timing() };
    let (worker, other) = (Worker::at(&server.url(), long), Worker::at(&server.url(), long));
    let rules = Rules::default();
    let ticket = worker.ticket("1", &rules).await;
    let mut gone = Box::pin(worker.ask("1", &rules));
    assert!(poll_immediate(&mut gone).await.is_none());
    let next = worker.ask("1", &rules);
    let elsewhere = other.ask("1", &rules);
    let passing = async {
        drop(gone);
        drop(ticket);
        match next.await {
            LookUp::Fill(ticket) => ticket.failed(None),
            found => panic!("{found:?}"),
        }
    };
    let both = async { tokio::join!(elsewhere, passing).0 };
    let found = tokio::time::timeout(PATIENCE, both).await.unwrap();
    match found {
        LookUp::Fill(ticket) => ticket.fill(&output("1")),
        found => panic!("{found:?} although nobody is left in the first worker"),
    }
    assert_eq!(worker.hit("1", &rules).await, output("1"));
}

#[tokio::test]
async fn a_failure_is_shared_in_its_worker_and_not_kept() {
    let server = RedisServer::start().await.unwrap();
    let (worker, other, rules) = (Worker::on(&server), Worker::on(&server), Rules::default());
    let ticket = worker.ticket("1", &rules).await;
    let mut waits = pin!(worker.ask("1", &rules));
    let mut elsewhere = pin!(other.ask("1", &rules));
    assert!(poll_immediate(&mut waits).await.is_none());
    assert!(poll_immediate(&mut elsewhere).await.is_none());
    ticket.failed(Some(&error(ErrorClass::Server)));
    match waits.await {
        LookUp::Failed(shared) => assert_eq!(shared, error(ErrorClass::Server), "with its Retry-After"),
        found => panic!("{found:?}"),
    }
    assert!(matches!(elsewhere.await, LookUp::Fill(_)), "the other worker tries for itself");
}

#[tokio::test]
async fn only_failures_that_last_are_kept_and_only_where_asked_for() {
    let server = RedisServer::start().await.unwrap();
    let (worker, other) = (Worker::on(&server), Worker::on(&server));
    let keeping = Rules { negative_ttl_ms: 60_000, ..Rules::default() };
    for (class, rules, kept) in [
        (ErrorClass::Client, &keeping, true),
        (ErrorClass::InvalidInput, &keeping, true),
        (ErrorClass::Server, &keeping, false),
        (ErrorClass::Timeout, &keeping, false),
        (ErrorClass::Throttled, &keeping, false),
        (ErrorClass::Client, &Rules::default(), false),
    ] {
        let input = format!("[\"{}\",{}]", class.as_str(), rules.negative_ttl_ms);
        worker.ticket(&input, rules).await.failed(Some(&error(class)));
        match other.ask(&input, rules).await {
            LookUp::Failed(found) if kept => {
                assert_eq!(
                    (found.class, &*found.code, &*found.message),
                    (class, "http_status", "the service said no")
                );
            }
            LookUp::Fill(_) if !kept => {}
            found => panic!("{class:?}: {found:?}"),
        }
        assert_eq!(worker.stale(&input).await, None, "a failure is no fallback");
    }
}

#[tokio::test]
async fn what_is_stale_is_fetched_again_and_serves_as_fallback() {
    let server = RedisServer::start().await.unwrap();
    let worker = Worker::on(&server);
    let rules = Rules { ttl_ms: 1, stale_ms: 60_000, ..Rules::default() };
    worker.ticket("1", &rules).await.fill(&output("1"));
    worker.sent("stored", 1).await;
    let stale = async || {
        match worker.ask("1", &rules).await {
            LookUp::Fill(ticket) => drop(ticket),
            other => return Err(format!("{other:?}")),
        }
        worker.stale("1").await.ok_or_else(|| "nothing".to_owned())
    };
    assert_eq!(wait_for(PATIENCE, "it to be stale", stale).await.unwrap(), output("1"));
    assert_eq!(worker.stale("2").await, None);
    assert_eq!(worker.counted("stale"), 1);
}

#[tokio::test]
async fn bytes_that_cannot_be_read_are_called_for_anew() {
    let server = RedisServer::start().await.unwrap();
    let (worker, rules) = (Worker::on(&server), Rules::default());
    worker.ticket("1", &rules).await.fill(&output("1"));
    worker.sent("stored", 1).await;
    let values = worker.store.cache("openai").unwrap().keys().values();
    let poison = "local f = redis.call('HKEYS', KEYS[1])[1]; local was = redis.call('HGET', KEYS[1], f); \
                  return redis.call('HSET', KEYS[1], f, string.sub(was, 1, 32) .. 'jxxxx1')";
    server.cli(&["EVAL", poison, "1", &values]).await.unwrap();
    assert_eq!(worker.stale("1").await, None);
    worker.ticket("1", &rules).await.fill(&output("2"));
    assert_eq!(worker.hit("1", &rules).await, output("2"));
    assert_eq!(worker.counted("unreadable"), 1);
    let alone = Rules { coalesce: false, ..rules };
    worker.sent("stored", 2).await;
    server.cli(&["EVAL", poison, "1", &values]).await.unwrap();
    worker.ticket("1", &alone).await.failed(None);
    // a key of another type is a cache that does not answer
    server.cli(&["SET", &values, "poison"]).await.unwrap();
    worker.ticket("1", &Rules::default()).await.fill(&output("3"));
    assert_eq!(worker.counted("unavailable"), 2);
}

#[tokio::test]
async fn calls_that_are_not_shared_are_all_made_and_still_kept() {
    let server = RedisServer::start().await.unwrap();
    let (worker, rules) = (Worker::on(&server), Rules { coalesce: false, ..Rules::default() });
    let (first, second) = (worker.ticket("1", &rules).await, worker.ticket("1", &rules).await);
    first.fill(&output("1"));
    worker.sent("stored", 1).await;
    assert_eq!(worker.hit("1", &rules).await, output("1"));
    second.failed(Some(&error(ErrorClass::Client)));
    assert_eq!(worker.hit("1", &rules).await, output("1"));
    assert_eq!((worker.counted("miss"), worker.counted("hit")), (2, 2));
}

#[tokio::test]
async fn without_a_time_to_keep_only_calls_under_way_are_shared() {
    let server = RedisServer::start().await.unwrap();
    let (worker, rules) = (Worker::on(&server), Rules { ttl_ms: 0, ..Rules::default() });
    let ticket = worker.ticket("1", &rules).await;
    let mut waits = pin!(worker.ask("1", &rules));
    assert!(poll_immediate(&mut waits).await.is_none());
    ticket.fill(&output("1"));
    assert!(matches!(waits.await, LookUp::Hit(found) if found == output("1")));
    drop(worker.ticket("1", &rules).await);
    assert_eq!(server.cli(&["DBSIZE"]).await.unwrap().trim(), "0");
}

#[tokio::test]
async fn without_redis_work_goes_on_and_with_it_answers_are_kept_again() {
    let mut server = RedisServer::start().await.unwrap();
    let quick =
        Timing { patience: Duration::from_millis(500), respite: Duration::from_millis(200), ..timing() };
    let (worker, rules) = (Worker::at(&server.url(), quick), Rules::default());
    let elsewhere = Worker::on(&server);
    let inputs: Vec<String> = (100..120).map(|n| n.to_string()).collect();
    let held = join_all(inputs.iter().map(|input| elsewhere.ticket(input, &rules))).await;
    let mut remote = pin!(join_all(inputs.iter().map(|input| worker.ask(input, &rules))));
    assert!(poll_immediate(&mut remote).await.is_none());
    worker.ticket("1", &rules).await.fill(&output("1"));
    worker.sent("stored", 1).await;
    server.stop_hard().unwrap();

    let remote = tokio::time::timeout(PATIENCE, remote).await.unwrap();
    let calls = remote.iter().all(|found| matches!(found, LookUp::Fill(_)));
    assert!(calls, "who waited for another worker calls for itself: {remote:?}");
    drop(remote);
    let ticket = worker.ticket("1", &rules).await;
    let mut waits = pin!(worker.ask("1", &rules));
    assert!(poll_immediate(&mut waits).await.is_none(), "in the worker calls are shared all the same");
    ticket.fill(&output("2"));
    assert!(matches!(waits.await, LookUp::Hit(found) if found == output("2")));
    assert_eq!(worker.stale("1").await, None);
    assert!(worker.counted("unavailable") >= 2);

    server.restart().await.unwrap();
    let kept = async || {
        match worker.ask("1", &rules).await {
            LookUp::Fill(ticket) => ticket.fill(&output("3")),
            LookUp::Hit(found) => return Ok(found),
            LookUp::Failed(error) => panic!("{error}"),
        }
        Err("still called for".to_owned())
    };
    assert_eq!(wait_for(PATIENCE, "answers to be kept again", kept).await.unwrap(), output("3"));
    drop(held);
}

#[tokio::test]
async fn a_frozen_redis_holds_no_call_up_for_long() {
    let server = RedisServer::start().await.unwrap();
    let quick = Timing { patience: Duration::from_millis(300), ..timing() };
    let (worker, rules) = (Worker::at(&server.url(), quick), Rules::default());
    drop(worker.ticket("0", &rules).await);
    server.pause().unwrap();
    let asked = tokio::time::Instant::now();
    drop(worker.ticket("1", &rules).await);
    drop(worker.ticket("2", &rules).await);
    let took = asked.elapsed();
    server.resume().unwrap();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn large_and_packed_answers_come_back_whole() {
    let server = RedisServer::start().await.unwrap();
    let (worker, other, rules) = (Worker::on(&server), Worker::on(&server), Rules::default());
    let long = output(&format!("[{}0]", "{\"name\":\"tide\"},".repeat(60_000)));
    let packed = Payload::encoded(Encoding::MsgPack, [&[0xda, 0x08, 0x00][..], &[b'a'; 2048]].concat());
    worker.ticket("1", &rules).await.fill(&long);
    worker.ticket("2", &rules).await.fill(&packed);
    worker.sent("stored", 2).await;
    assert_eq!(other.hit("1", &rules).await, long);
    assert_eq!(other.hit("2", &rules).await, packed);
    let full = worker.store.cache("openai").unwrap().fullness().await.unwrap();
    assert!(full.entries == 2 && full.bytes < 10_000, "{full:?} for {} bytes", long.len() + packed.len());
}

#[tokio::test]
async fn the_cache_stays_within_its_bounds_and_tells_what_had_to_go() {
    let server = RedisServer::start().await.unwrap();
    let worker = Worker::on(&server);
    for order in [Order::Lru, Order::Lfu] {
        let rules = Rules { max_entries: 50, max_bytes: 15_000, order, ..Rules::default() };
        let inputs: Vec<String> = (0..200).map(|n| format!("[{n},{}]", order as u8)).collect();
        for input in &inputs {
            worker.ticket(input, &rules).await.fill(&output("1"));
        }
        let cache = worker.store.cache("openai").unwrap();
        let stored = if order == Order::Lru { 200 } else { 400 };
        worker.sent("stored", stored).await;
        let full = cache.fullness().await.unwrap();
        assert!(full.bytes <= 15_000 && (30..=50).contains(&full.entries), "{full:?}");
        let large = Rules { max_bytes: 3, ..rules };
        worker.ticket("\"large\"", &large).await.fill(&output("1"));
        assert!(
            matches!(worker.ask("\"large\"", &large).await, LookUp::Fill(_)),
            "kept nowhere, and not leased"
        );
    }
    let text = worker.metrics.text();
    let evicted = "tidemill_worker_cache_evictions_total{service=\"openai\"} ";
    let evicted: u64 = text.lines().find_map(|line| line.strip_prefix(evicted)?.parse().ok()).unwrap();
    assert!((300..=370).contains(&evicted), "{evicted}");
    assert!(text.contains("tidemill_worker_cache_bytes{service=\"openai\"} 1"), "{text}");
}

#[tokio::test]
async fn clearing_reaches_calls_under_way() {
    let server = RedisServer::start().await.unwrap();
    let (worker, rules) = (Worker::on(&server), Rules::default());
    let ticket = worker.ticket("1", &rules).await;
    assert_eq!(worker.store.cache("openai").unwrap().clear().await.unwrap(), 0);
    ticket.fill(&output("1"));
    worker.sent("outdated", 1).await;
    worker.ticket("1", &rules).await.fill(&output("2"));
    assert_eq!(worker.hit("1", &rules).await, output("2"));
}

#[tokio::test]
async fn what_was_answered_last_is_written_before_the_engine_ends() {
    let server = RedisServer::start().await.unwrap();
    let Worker { cache, store, tasks, service, .. } = Worker::on(&server);
    let inputs: Vec<Payload> = (0..300).map(|n| output(&n.to_string())).collect();
    let mut tickets = Vec::new();
    for input in &inputs {
        let question = Question { service: &service, tool: "llm.chat", apart: "", input };
        match cache.look_up(&question, &Rules::default()).await {
            LookUp::Fill(ticket) => tickets.push(ticket),
            found => panic!("{found:?}"),
        }
    }
    drop(cache);
    for (ticket, input) in tickets.into_iter().zip(&inputs) {
        ticket.fill(input);
    }
    let ended = tasks.shutdown(PATIENCE).await;
    assert_eq!(ended.unfinished, [""; 0]);
    assert_eq!(store.cache("openai").unwrap().fullness().await.unwrap().entries, 300);
}

#[tokio::test]
async fn a_cluster_keeps_each_service_on_one_of_its_nodes() {
    let cluster = RedisCluster::start(3).await.unwrap();
    let url = cluster.url().replacen("redis://", "redis+cluster://", 1);
    let (mut worker, mut other, rules) =
        (Worker::at(&url, timing()), Worker::at(&url, timing()), Rules::default());
    for service in ["openai", "anthropic", "shop", "mail"] {
        (worker.service, other.service) = (Arc::from(service), Arc::from(service));
        let (ticket, text) = (worker.ticket("1", &rules).await, format!("\"{service}\""));
        let mut waits = pin!(other.ask("1", &rules));
        assert!(poll_immediate(&mut waits).await.is_none());
        ticket.fill(&output(&text));
        assert!(matches!(waits.await, LookUp::Hit(found) if found == output(&text)));
    }
}
