//! Runs followed as they go.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;

use crate::door::Door;
use crate::worker::{FLOW, settle, start};

struct Follower {
    lines: Lines<BufReader<TcpStream>>,
}

#[derive(Debug, PartialEq)]
struct Event {
    id: u64,
    name: String,
    record: Value,
}

impl Follower {
    async fn open(door: &Door, path: &str, last: Option<u64>) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", door.port)).await.unwrap();
        let last = last.map_or_else(String::new, |id| format!("last-event-id: {id}\r\n"));
        let head = format!("GET {path} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n{last}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut lines = BufReader::new(stream).lines();
        assert_eq!(lines.next_line().await.unwrap().unwrap(), "HTTP/1.1 200 OK");
        Self { lines }
    }

    /// The next event; `None` when the stream has ended.
    async fn next(&mut self) -> Option<Event> {
        let (mut id, mut name) = (0, String::new());
        loop {
            let line = tokio::time::timeout(Duration::from_secs(20), self.lines.next_line()).await.unwrap();
            let line = line.unwrap()?;
            if let Some(text) = line.strip_prefix("id: ") {
                id = text.parse().unwrap();
            } else if let Some(text) = line.strip_prefix("event: ") {
                text.clone_into(&mut name);
            } else if let Some(text) = line.strip_prefix("data: ") {
                return Some(Event { id, name, record: serde_json::from_str(text).unwrap() });
            }
        }
    }
}

#[tokio::test]
async fn a_follower_sees_each_record_as_it_comes_and_the_stream_ends_with_the_run() {
    let door = Door::open().await;
    door.publish(FLOW).await;
    door.post("/v1/runs", r#"{"workflow":"flow","input":{"n":1},"id":"r1"}"#).await;
    let mut follower = Follower::open(&door, "/v1/runs/r1/events", None).await;
    start(&door, "r1").await;
    let first = follower.next().await.unwrap();
    assert_eq!((first.id, first.name.as_str()), (1, "run"));
    assert_eq!(first.record["to"], "running");
    settle(&door, "r1", 2).await;
    settle(&door, "r1", 1).await;
    let (mut ids, mut last) = (vec![first.id], first);
    while let Some(event) = follower.next().await {
        ids.push(event.id);
        last = event;
    }
    assert_eq!(ids, (1..=11).collect::<Vec<_>>());
    assert_eq!((last.name.as_str(), last.record["to"].as_str()), ("run", Some("succeeded")));

    let mut again = Follower::open(&door, "/v1/runs/r1/events", Some(8)).await;
    let mut missed = Vec::new();
    while let Some(event) = again.next().await {
        missed.push(event.id);
    }
    assert_eq!(missed, [9, 10, 11], "who comes back gets what was missed");
    let mut none = Follower::open(&door, "/v1/runs/r1/events", Some(11)).await;
    assert_eq!(none.next().await, None);
}

#[tokio::test]
async fn followers_of_nothing_are_refused() {
    let door = Door::open().await;
    door.get("/v1/runs/none/events").await.problem(404, "unknown_run");
    let bad = [("last-event-id", "x")];
    door.send("GET", "/v1/runs/none/events", &bad, "").await.problem(400, "invalid_request");
}

#[tokio::test]
async fn followers_and_waiters_do_not_hold_up_the_end_of_the_process() {
    let door = Door::open().await;
    door.publish(FLOW).await;
    door.post("/v1/runs", r#"{"workflow":"flow","input":{"n":1},"id":"r1"}"#).await;
    start(&door, "r1").await;
    let mut follower = Follower::open(&door, "/v1/runs/r1/events", None).await;
    follower.next().await.unwrap();
    let waiting = door.get("/v1/results/r1?wait_ms=60000");
    let ending = async {
        // the waiter's request is in the metrics only when it is answered, so ask for something else first
        assert_eq!(door.get("/v1/runs/r1").await.status, 200);
        door.tasks.shutdown(Duration::from_secs(10)).await
    };
    let (waited, ended) = tokio::join!(waiting, ending);
    assert_eq!((waited.status, waited.json()["state"].as_str()), (202, Some("running")));
    assert!(ended.unfinished.is_empty(), "{ended:?}");
}
