//! A referee as its callers meet it, over real connections.

use std::{collections::BTreeMap, time::Duration};

use tidemill_testkit::referee::{
    Dialect, Fault, Latency, Referee, Report, RetryForm, Rule, Rules, Scope, Usage,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, timeout},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// One connection to a referee.
struct Caller {
    stream: TcpStream,
    received: Vec<u8>,
}

#[derive(Debug)]
struct Reply {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Reply {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

impl Caller {
    async fn to(referee: &Referee) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", referee.port())).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, received: Vec::new() }
    }

    async fn send(&mut self, headers: &str, body: &str) {
        let length = body.len();
        let text =
            format!("POST /v1/chat HTTP/1.1\r\nhost: x\r\n{headers}content-length: {length}\r\n\r\n{body}");
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    async fn call(&mut self) -> Reply {
        self.send("", "").await;
        self.reply().await.expect("an answer")
    }

    /// The next answer; nothing when the connection ends before all of it has come.
    async fn reply(&mut self) -> Option<Reply> {
        let mut seen = 0;
        loop {
            if self.received.len() > seen
                && let Some((reply, length)) = parse(&self.received)
            {
                self.received.drain(..length);
                return Some(reply);
            }
            seen = self.received.len();
            match self.stream.read_buf(&mut self.received).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }
}

fn parse(received: &[u8]) -> Option<(Reply, usize)> {
    let head_end = received.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&received[..head_end]).unwrap();
    let mut lines = head.trim_end().lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: BTreeMap<_, _> =
        lines.map(|line| line.split_once(": ").unwrap()).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let end = head_end + headers["content-length"].parse::<usize>().unwrap();
    let body = received.get(head_end..end)?;
    Some((Reply { status, headers, body: String::from_utf8_lossy(body).into_owned() }, end))
}

/// `calls` calls over each of `connections` connections, as fast as they go.
async fn stampede(referee: &Referee, connections: usize, calls: usize) -> Vec<u16> {
    let mut callers = JoinSet::new();
    for _ in 0..connections {
        let mut caller = Caller::to(referee).await;
        callers.spawn(async move {
            let mut statuses = Vec::with_capacity(calls);
            for _ in 0..calls {
                statuses.push(caller.call().await.status);
            }
            statuses
        });
    }
    callers.join_all().await.concat()
}

fn count(statuses: &[u16], status: u16) -> usize {
    statuses.iter().filter(|seen| **seen == status).count()
}

#[tokio::test]
async fn a_cheater_is_caught_to_the_call() {
    let referee = Referee::start_with(Rules::default().requests(100, MINUTE)).unwrap();
    let statuses = stampede(&referee, 8, 25).await;
    assert_eq!((count(&statuses, 200), count(&statuses, 429)), (100, 100));
    let report = referee.report();
    assert_eq!((report.calls, report.admitted, report.violations), (200, 100, 100), "{report}");
    assert_eq!(report.by_status, [(200, 100), (429, 100)].into());
    assert_eq!(report.violations_of(Rule::Requests), 100);
    assert!((report.worst_window.requests_share - 2.0).abs() < 1e-9, "{report}");
    assert!(report.worst_window_of(|call| call.is_admitted()).requests_share <= 1.0, "{report}");
}

#[tokio::test]
async fn ten_limiters_that_each_keep_to_the_limit_are_caught_together() {
    // what a limit held by each process comes to: none of the ten sends more than the limit
    let referee = Referee::start_with(Rules::default().requests(10, MINUTE)).unwrap();
    stampede(&referee, 10, 10).await;
    let report = referee.report();
    assert_eq!((report.admitted, report.violations), (10, 90), "{report}");
    assert!((report.worst_window.requests_share - 10.0).abs() < 1e-9, "{report}");
    assert_eq!(report.most_in(MINUTE).calls, 100);
}

#[tokio::test]
async fn tokens_are_read_from_the_header_and_the_body() {
    let referee = Referee::start_with(Rules::default().tokens(100, MINUTE)).unwrap();
    let mut caller = Caller::to(&referee).await;
    caller.send("x-tokens: 60\r\n", "").await;
    assert_eq!(caller.reply().await.unwrap().status, 200);
    caller.send("", r#"{"model":"m","tokens":41}"#).await;
    assert_eq!(caller.reply().await.unwrap().status, 429);
    caller.send("", r#"{"tokens":40}"#).await;
    assert_eq!(caller.reply().await.unwrap().status, 200);
    let report = referee.report();
    assert_eq!(report.violations_of(Rule::Tokens), 1);
    assert!((report.worst_window.tokens_share - 1.41).abs() < 1e-9, "{report}");
}

#[tokio::test]
async fn calls_under_way_are_counted_until_their_answer() {
    let referee = Referee::start_with(Rules::default().concurrency(2)).unwrap();
    referee.fail_for(MINUTE, Fault::Hang);
    let mut hanging = [Caller::to(&referee).await, Caller::to(&referee).await];
    for caller in &mut hanging {
        caller.send("", "").await;
    }
    referee.await_calls(2).await;
    referee.heal();
    assert_eq!(Caller::to(&referee).await.call().await.status, 429);
    let report = referee.report();
    assert_eq!((report.most_concurrent, report.violations_of(Rule::Concurrency)), (3, 1), "{report}");
}

#[tokio::test]
async fn who_has_its_answer_is_no_longer_under_way() {
    let rules = Rules::default().concurrency(2).latency(Latency::Fixed(Duration::from_millis(2)));
    let referee = Referee::start_with(rules).unwrap();
    let statuses = stampede(&referee, 2, 50).await;
    assert_eq!(count(&statuses, 200), 100, "{}", referee.report());
    let begin = referee.report().arrivals[0].at;
    assert!(referee.elapsed() - begin >= Duration::from_millis(75), "fifty in a row");
}

#[tokio::test]
async fn a_caller_that_goes_away_frees_its_place() {
    let rules = Rules::default().concurrency(1).latency(Latency::Fixed(MINUTE));
    let referee = Referee::start_with(rules).unwrap();
    let mut caller = Caller::to(&referee).await;
    caller.send("", "").await;
    referee.await_calls(1).await;
    drop(caller);
    tidemill_testkit::wait_until(Duration::from_secs(5), "the call is over", async || {
        referee.report().arrivals.iter().all(|call| call.ended.is_some())
    })
    .await
    .unwrap();
    referee.set(Rules::default().concurrency(1));
    assert_eq!(Caller::to(&referee).await.call().await.status, 200);
    assert_eq!(referee.report().unanswered, 1);
}

#[tokio::test]
async fn every_fault_looks_as_it_should() {
    let referee = Referee::start().unwrap();
    let mut caller = Caller::to(&referee).await;
    referee.fail_for(MINUTE, Fault::ERROR);
    assert_eq!(caller.call().await.status, 500);
    referee.heal();
    referee.fail_for(MINUTE, Fault::unavailable(Duration::from_millis(1_200), RetryForm::Seconds));
    let reply = caller.call().await;
    assert_eq!((reply.status, reply.header("retry-after")), (503, "2"));
    referee.heal();
    referee.fail_for(MINUTE, Fault::throttled(Duration::from_millis(1_200), RetryForm::Milliseconds));
    let reply = caller.call().await;
    assert_eq!((reply.status, reply.header("retry-after-ms")), (429, "1200"));
    referee.heal();
    referee.fail_for(MINUTE, Fault::Garbage);
    let reply = caller.call().await;
    assert_eq!((reply.status, reply.header("content-type")), (200, "application/json"));
    assert!(serde_json::from_str::<serde_json::Value>(&reply.body).is_err());
    referee.heal();
    assert_eq!(caller.call().await.body, r#"{"ok":true}"#);
    let report = referee.report();
    assert_eq!((report.violations, report.admitted), (0, 5), "a script is no violation: {report}");
}

#[tokio::test]
async fn a_reset_ends_the_connection_within_the_reply() {
    let referee = Referee::start().unwrap();
    referee.fail_for(MINUTE, Fault::Reset);
    let mut caller = Caller::to(&referee).await;
    caller.send("", "").await;
    assert!(caller.reply().await.is_none());
    assert!(caller.received.is_empty() || caller.received.starts_with(b"HTTP/1.1 200 OK\r\n"));
    referee.heal();
    assert_eq!(Caller::to(&referee).await.call().await.status, 200);
    assert_eq!(referee.report().unanswered, 1);
}

#[tokio::test]
async fn a_hanging_call_gets_no_answer_and_the_next_one_does() {
    let referee = Referee::start().unwrap();
    referee.fail_for(MINUTE, Fault::Hang);
    let mut hanging = Caller::to(&referee).await;
    hanging.send("", "").await;
    referee.await_calls(1).await;
    referee.heal();
    assert_eq!(Caller::to(&referee).await.call().await.status, 200);
    assert!(timeout(Duration::from_millis(50), hanging.reply()).await.is_err());
    assert_eq!(referee.report().arrivals.iter().filter(|call| call.ended.is_none()).count(), 1);
}

#[tokio::test]
async fn a_slow_call_takes_ten_times_as_long() {
    let rules = Rules::default().latency(Latency::Fixed(Duration::from_millis(10)));
    let referee = Referee::start_with(rules).unwrap();
    referee.fail_for(MINUTE, Fault::SLOW);
    assert_eq!(Caller::to(&referee).await.call().await.status, 200);
    let call = referee.report().arrivals.remove(0);
    assert!(call.ended.unwrap() - call.at >= Duration::from_millis(99), "{call:?}");
}

#[tokio::test]
async fn openai_headers_tell_what_is_left_and_when_to_come_again() {
    let rules = Rules::default()
        .requests(2, MINUTE)
        .tokens(1_000, MINUTE)
        .headers(Dialect::OpenAi)
        .retry_after(RetryForm::Milliseconds)
        .usage(Usage::OpenAi);
    let referee = Referee::start_with(rules).unwrap();
    let mut caller = Caller::to(&referee).await;
    caller.send("", r#"{"input_tokens":300,"output_tokens":100}"#).await;
    let reply = caller.reply().await.unwrap();
    assert_eq!(reply.header("x-ratelimit-limit-requests"), "2");
    assert_eq!(reply.header("x-ratelimit-remaining-requests"), "1");
    assert_eq!(reply.header("x-ratelimit-reset-requests"), "1m0s");
    assert_eq!(reply.header("x-ratelimit-remaining-tokens"), "600");
    let body: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
    let usage = serde_json::json!({ "prompt_tokens": 300, "completion_tokens": 100, "total_tokens": 400 });
    assert_eq!(body["usage"], usage);
    caller.call().await;
    let refused = caller.call().await;
    assert_eq!((refused.status, refused.header("x-ratelimit-remaining-requests")), (429, "0"));
    let wait: u64 = refused.header("retry-after-ms").parse().unwrap();
    assert!((50_000..=60_000).contains(&wait), "{wait}");
    let body: serde_json::Value = serde_json::from_str(&refused.body).unwrap();
    assert_eq!(body["error"]["code"], "rate_limit_exceeded");
}

#[tokio::test]
async fn anthropic_and_ietf_headers_stand_beside_each_other() {
    let rules = Rules::default()
        .requests(50, MINUTE)
        .requests(10, 10 * SECOND)
        .headers(Dialect::Anthropic)
        .headers(Dialect::Ietf)
        .retry_after(RetryForm::Date)
        .usage(Usage::Anthropic);
    let referee = Referee::start_with(rules).unwrap();
    let mut caller = Caller::to(&referee).await;
    caller.send("x-tokens: 8\r\n", "").await;
    let reply = caller.reply().await.unwrap();
    assert_eq!(reply.header("anthropic-ratelimit-requests-limit"), "10", "the one with the least left");
    assert_eq!(reply.header("anthropic-ratelimit-requests-remaining"), "9");
    assert!(reply.header("anthropic-ratelimit-requests-reset").ends_with('Z'));
    assert_eq!(reply.header("ratelimit-policy"), r#""requests-60";q=50;w=60, "requests-10";q=10;w=10"#);
    assert_eq!(reply.header("ratelimit"), r#""requests-60";r=49;t=60, "requests-10";r=9;t=10"#);
    let body: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!(body["usage"], serde_json::json!({ "input_tokens": 6, "output_tokens": 2 }));
    let refused = stampede(&referee, 1, 10).await;
    assert_eq!(count(&refused, 429), 1);
    let refused = caller.call().await;
    let (date, after) = (refused.header("date"), refused.header("retry-after"));
    let span =
        httpdate::parse_http_date(after).unwrap().duration_since(httpdate::parse_http_date(date).unwrap());
    assert!((1..=11).contains(&span.unwrap().as_secs()), "{date} {after}");
}

#[tokio::test]
async fn rules_change_while_calls_come() {
    let referee = Referee::start_with(Rules::default().requests(1, MINUTE)).unwrap();
    let mut caller = Caller::to(&referee).await;
    assert_eq!((caller.call().await.status, caller.call().await.status), (200, 429));
    referee.set(Rules { scope: Scope::Everyone, ..Rules::default().requests(4, MINUTE) });
    referee.halve();
    assert_eq!(referee.rules().quotas[0].limit, 2);
    // the first call used all of the limit that it met
    assert_eq!(caller.call().await.status, 429);
    referee.set(Rules::default());
    assert_eq!(caller.call().await.status, 200);
    let report = referee.report();
    let epochs: Vec<_> = report.arrivals.iter().map(|call| call.epoch).collect();
    assert_eq!((epochs, report.epochs.len()), (vec![0, 0, 2, 3], 4));
}

#[tokio::test]
async fn keys_and_attempts_are_told_apart() {
    let referee = Referee::start_with(Rules::default().requests(1, MINUTE)).unwrap();
    let mut caller = Caller::to(&referee).await;
    for (key, attempt) in [("a", "1"), ("b", "2"), ("b", "2")] {
        caller.send(&format!("Authorization: Bearer {key}\r\nIdempotency-Key: {attempt}\r\n"), "").await;
        caller.reply().await.unwrap();
    }
    let report = referee.report();
    let keys: Vec<_> =
        report.per_key.iter().map(|(key, of)| (key.as_ref(), of.calls, of.violations)).collect();
    assert_eq!(keys, [("Bearer a", 1, 0), ("Bearer b", 2, 1)]);
    let attempts: Vec<_> = report.per_idempotency_key().into_values().collect();
    assert_eq!(attempts, [1, 2]);
    assert_eq!(report.arrivals[0].path.as_ref(), "/v1/chat");
}

#[tokio::test]
async fn what_is_no_request_is_answered_and_not_counted() {
    let referee = Referee::start().unwrap();
    for (text, status) in [
        ("what is this\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", 411),
        ("POST / HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n", 413),
    ] {
        let mut caller = Caller::to(&referee).await;
        caller.stream.write_all(text.as_bytes()).await.unwrap();
        assert_eq!(caller.reply().await.unwrap().status, status);
        assert!(caller.reply().await.is_none());
    }
    assert_eq!(referee.calls(), 0);
}

#[tokio::test]
async fn calls_sent_ahead_are_answered_in_their_order() {
    let rules = Rules::default().latency(Latency::Fixed(Duration::from_millis(5)));
    let referee = Referee::start_with(rules).unwrap();
    let mut caller = Caller::to(&referee).await;
    for _ in 0..3 {
        caller.send("", r#"{"tokens":1}"#).await;
    }
    for _ in 0..3 {
        assert_eq!(caller.reply().await.unwrap().status, 200);
    }
    assert_eq!(referee.report().most_concurrent, 1);
}

#[tokio::test]
async fn a_caller_may_ask_first_and_may_end_with_its_call() {
    let referee = Referee::start().unwrap();
    let mut caller = Caller::to(&referee).await;
    let head = "POST / HTTP/1.1\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length: 12\r\n\r\n";
    caller.stream.write_all(head.as_bytes()).await.unwrap();
    let mut asked = [0; 25];
    caller.stream.read_exact(&mut asked).await.unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    caller.stream.write_all(br#"{"tokens":3}"#).await.unwrap();
    assert_eq!(caller.reply().await.unwrap().status, 200);
    assert!(caller.reply().await.is_none());
    assert_eq!(referee.report().arrivals[0].tokens, 3);
}

#[tokio::test]
async fn a_dropped_referee_is_gone() {
    let referee = Referee::start().unwrap();
    let port = referee.port();
    let mut caller = Caller::to(&referee).await;
    caller.call().await;
    drop(referee);
    assert!(caller.reply().await.is_none());
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
}

/// Says what a referee costs; run it by name, with `--release --nocapture`, to have numbers that mean something.
#[tokio::test]
#[ignore = "a measure, not a test"]
async fn calls_a_second_of_a_referee() {
    let rules =
        Rules::default().requests(10_000_000, MINUTE).tokens(10_000_000, MINUTE).headers(Dialect::OpenAi);
    let referee = Referee::start_with(rules).unwrap();
    let begin = Instant::now();
    stampede(&referee, 32, 5_000).await;
    let took = begin.elapsed();
    let read = Instant::now();
    let report: Report = referee.report();
    println!("{} calls in {took:.2?}; report in {:.2?}: {report}", report.calls, read.elapsed());
}
