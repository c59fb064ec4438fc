//! Batches of lines.

use std::collections::HashSet;

use tidemill_producer::{AcceptedAs, Code, Kind, Request, Settings};

use crate::door::Door;
use crate::worker::FLOW;

#[tokio::test]
async fn of_ten_thousand_lines_the_bad_ones_are_refused_and_the_others_taken_in() {
    let door = Door::open().await;
    let bad = |n: usize| n % 1_000 == 777;
    let mut body = String::new();
    for n in 0..10_000 {
        if bad(n) {
            body.push_str("{\"tool\":\"echo\",\"nope\":1}\n");
        } else {
            body.push_str(&format!("{{\"tool\":\"echo\",\"input\":{n}}}\r\n"));
        }
    }
    let answer = door.batch("/v1/jobs", body).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/x-ndjson"));
    let lines = answer.lines();
    assert_eq!(lines.len(), 10_000);
    let mut ids = HashSet::new();
    for (n, line) in lines.iter().enumerate() {
        assert_eq!(line["line"], n + 1);
        if bad(n) {
            assert_eq!((line["status"].as_u64(), line["code"].as_str()), (Some(400), Some("unknown_member")));
        } else {
            assert_eq!(
                (line["status"].as_u64(), line["state"].as_str()),
                (Some(202), Some("queued")),
                "{line}"
            );
            assert!(ids.insert(line["id"].as_str().unwrap().to_owned()));
        }
    }
    assert_eq!(door.cli(&["XLEN", "tm:{0}:jobs:default"]).await, "9990");
    let last = door.cli(&["XREVRANGE", "tm:{0}:jobs:default", "+", "-", "COUNT", "1"]).await;
    assert!(last.contains("9999"), "the order of the batch is kept: {last}");
    let text = door.metrics.text();
    assert!(text.contains("tidemill_producer_accepted_total{kind=\"job\",state=\"queued\"} 9990"), "{text}");
    assert!(
        text.contains("tidemill_producer_refused_total{kind=\"job\",code=\"unknown_member\"} 10"),
        "{text}"
    );
}

#[tokio::test]
async fn the_lines_of_a_batch_go_to_their_own_queues_and_partitions() {
    let door = Door::with(Settings::default(), 3).await;
    let lines: Vec<String> = (0..900)
        .map(|n| format!("{{\"tool\":\"echo\",\"id\":\"j{n}\",\"queue\":\"q{}\"}}", n % 2))
        .chain(["".to_owned(), "{\"tool\":\"echo\",\"id\":\"j5\"}".to_owned()])
        .collect();
    let answers = door.batch("/v1/jobs", lines.join("\n")).await.lines();
    assert_eq!(answers.len(), 901, "an empty line is no job");
    assert_eq!(answers[900]["line"], 902);
    assert_eq!(answers[900]["state"], "duplicate");
    assert_eq!(answers[899]["id"], "j899");
    let queues = door.get("/v1/queues").await.json();
    let ready = |n: usize| (queues["queues"][n]["queue"].clone(), queues["queues"][n]["ready"].clone());
    assert_eq!((ready(1), ready(2)), (("q0".into(), 450.into()), ("q1".into(), 450.into())), "{queues}");
}

#[tokio::test]
async fn a_batch_of_runs_checks_each_input() {
    let door = Door::open().await;
    door.publish(FLOW).await;
    let body = "{\"workflow\":\"flow\",\"input\":{\"n\":1}}\n{\"workflow\":\"flow\",\"input\":{}}\n{\"workflow\":\"other\"}\nnonsense\n{\"workflow\":\"flow\",\"input\":{\"n\":2}}";
    let lines = door.batch("/v1/runs", body).await.lines();
    let codes: Vec<_> = lines.iter().map(|line| line["code"].as_str().unwrap_or("-")).collect();
    assert_eq!(codes, ["-", "invalid_input", "unknown_workflow", "invalid_json", "-"]);
    assert_eq!(door.cli(&["XLEN", "tm:{0}:runs"]).await, "2");
}

#[tokio::test]
async fn a_batch_that_is_too_long_is_refused_whole() {
    let settings = Settings { max_batch_lines: 10, max_batch_bytes: 1_000, ..Settings::default() };
    let door = Door::with(settings, 1).await;
    let detail =
        door.batch("/v1/jobs", "{\"tool\":\"echo\"}\n".repeat(11)).await.problem(413, "batch_too_large");
    assert!(detail.contains("10 lines"), "{detail}");
    assert_eq!(door.batch("/v1/jobs", "{\"tool\":\"echo\"}\n".repeat(10)).await.lines().len(), 10);
    door.batch("/v1/jobs", " ".repeat(1_001)).await.problem(413, "body_too_large");
    let keyed = [("content-type", "application/x-ndjson"), ("idempotency-key", "a")];
    door.send("POST", "/v1/jobs", &keyed, "{\"tool\":\"echo\"}").await.problem(400, "invalid_request");
    assert_eq!(door.batch("/v1/jobs", "").await.body, "");
    assert_eq!(door.cli(&["XLEN", "tm:{0}:jobs:default"]).await, "10");
}

#[tokio::test]
async fn a_program_takes_work_in_without_the_door() {
    let door = Door::open().await;
    let mut request = Request::new(Kind::Job, "echo");
    request.input = Some("{\"from\":\"here\"}".into());
    request.delay_ms = Some(60_000.into());
    let one = door.intake.submit(&request, None).await.unwrap();
    assert_eq!(one.state, AcceptedAs::Deferred);
    let many: Vec<_> = (0..3).map(|_| Ok(Request::new(Kind::Job, "echo"))).collect();
    let outcomes = door.intake.submit_batch(Kind::Job, &many, None).await;
    assert!(outcomes.iter().all(|outcome| outcome.as_ref().unwrap().state == AcceptedAs::Queued));
    let unknown = door.intake.submit(&Request::new(Kind::Run, "nope"), None).await.unwrap_err();
    assert_eq!(unknown.code, Code::UnknownWorkflow);
}
