//! docs/http-api.md: its examples are run, its tables are those of the code.

use serde_json::Value;
use tidemill_producer::{Code, Settings};
use tidemill_protocol::StepState;
use tidemill_store::{Burial, Entrance, GroupMember, WhenFull, keys};

use crate::door::{Answer, Door};
use crate::worker::{announce, claim, complete, field, settle, start};

const PAGE: &str = include_str!("../../../../docs/http-api.md");

enum Piece<'p> {
    Hook(&'p str),
    Example { request: String, kind: &'p str, status: u16, answer: String },
}

/// The hooks and examples of the page, in order.
fn pieces() -> Vec<Piece<'static>> {
    let mut pieces = Vec::new();
    let mut lines = PAGE.lines();
    while let Some(line) = lines.next() {
        if let Some(hook) = line.strip_prefix("<!-- test: ").and_then(|rest| rest.strip_suffix(" -->")) {
            pieces.push(Piece::Hook(hook));
        } else if line == "```http" {
            let block = |lines: &mut std::str::Lines<'static>| {
                lines.take_while(|line| *line != "```").collect::<Vec<_>>().join("\n")
            };
            let request = block(&mut lines);
            let head = lines.next().unwrap();
            let (kind, status) = head.strip_prefix("```").unwrap().split_once(' ').unwrap();
            let status = status.parse().unwrap();
            pieces.push(Piece::Example { request, kind, status, answer: block(&mut lines) });
        }
    }
    pieces
}

async fn carry_out(door: &Door, request: &str) -> Answer {
    let (head, body) = request.split_once("\n\n").unwrap_or((request, ""));
    let mut head = head.lines();
    let (method, path) = head.next().unwrap().split_once(' ').unwrap();
    let headers: Vec<(&str, &str)> = head.map(|line| line.split_once(": ").unwrap()).collect();
    door.send(method, path, &headers, body.to_owned()).await
}

async fn bring_about(door: &Door, hook: &str) {
    match *hook.split(' ').collect::<Vec<_>>() {
        ["start", id] => start(door, id).await,
        ["settle", id, count] => {
            drain(door).await;
            settle(door, id, count.parse().unwrap()).await;
        }
        ["complete", id] => {
            door.post("/v1/jobs", &format!("{{\"tool\":\"echo\",\"id\":\"{id}-again\"}}")).await;
            let entry = claim(door, keys::WORKERS, "default", 1).await.remove(0).entry;
            complete(door, &entry, id, "{\"order\":42}").await;
        }
        ["group", name] => {
            let home = door.store.partition_of(name);
            for (at, run) in [(1_000, "first"), (2_000, "second")] {
                let member = GroupMember { partition: 0, run: run.to_owned() };
                let entrance = Entrance {
                    group: name,
                    limit: 1,
                    when_full: WhenFull::Queue,
                    member: &member,
                    asked: at,
                };
                home.enter_group(&entrance).await.unwrap();
            }
        }
        ["announce"] => announce(door, "worker-1", &["default"]).await,
        ["bury"] => {
            door.post("/v1/jobs", "{\"tool\":\"nope\",\"input\":{\"a\":1},\"queue\":\"slow\"}").await;
            let entry = claim(door, keys::WORKERS, "slow", 1).await.remove(0).entry;
            let burial = Burial {
                entry: &entry,
                id: entry.as_str(),
                code: "unknown_tool",
                reason: "no tool \"nope\" is known",
                state: StepState::Failed,
                attempts: 0,
                ttl_ms: 0,
                reply_to: None,
            };
            let stream = door.home().keys().jobs("slow");
            assert_eq!(door.home().bury(&stream, keys::WORKERS, &[burial]).await.unwrap(), [true]);
        }
        _ => panic!("the page has a hook that is not known: {hook}"),
    }
}

/// Takes the jobs before the run's steps out of the queue.
async fn drain(door: &Door) {
    let stream = door.home().keys().jobs("default");
    let text = door.cli(&["XRANGE", &stream, "-", "+"]).await;
    let plain = text.lines().filter(|line| *line == "tool").count();
    let claimed = claim(door, keys::WORKERS, "default", plain).await;
    assert!(claimed.iter().all(|entry| field(entry, "run").is_none()), "jobs stand before the steps");
}

/// The same members with values of the same kind; ids and times differ from run to run.
fn same_shape(told: &Value, real: &Value, place: &str) -> Result<(), String> {
    match (told, real) {
        (Value::Object(a), Value::Object(b)) => {
            let (told, real): (Vec<_>, Vec<_>) = (a.keys().collect(), b.keys().collect());
            if told != real {
                return Err(format!("{place}: the page has {told:?}, the answer {real:?}"));
            }
            a.iter().try_for_each(|(name, value)| same_shape(value, &b[name], &format!("{place}.{name}")))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).try_for_each(|(a, b)| same_shape(a, b, &format!("{place}[]")))
        }
        (Value::Number(_), Value::Number(_)) => Ok(()),
        (Value::String(_), Value::String(_)) if varies(place) => Ok(()),
        (Value::String(a), Value::String(b))
            if place == "answer.detail" && without_numbers(a) == without_numbers(b) =>
        {
            Ok(())
        }
        (a, b) if a == b => Ok(()),
        (a, b) => Err(format!("{place}: the page has {a}, the answer {b}")),
    }
}

/// A sentence may say how long something takes.
fn without_numbers(text: &str) -> String {
    text.split(|c: char| c.is_ascii_digit()).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("#")
}

/// Whether a text differs from one run of the test to the next, or from one server version to another.
fn varies(place: &str) -> bool {
    [".entry", ".letter", ".next", ".durability", ".durability_reason"].iter().any(|end| place.ends_with(end))
        || place == "[].id"
        || place.ends_with(".mermaid")
        || place == "answer.changes[].from"
}

fn values(kind: &str, text: &str) -> Value {
    match kind {
        "ndjson" => text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect(),
        _ => serde_json::from_str(text).unwrap_or(Value::Null),
    }
}

#[tokio::test]
async fn every_example_of_the_page_is_answered_as_it_says() {
    let door = Door::open().await;
    let mut wrong = Vec::new();
    let mut examples = 0;
    for piece in pieces() {
        match piece {
            Piece::Hook(hook) => bring_about(&door, hook).await,
            Piece::Example { request, kind, status, answer } => {
                examples += 1;
                let real = carry_out(&door, &request).await;
                let fault = if real.status == status {
                    let place = if kind == "ndjson" { "" } else { "answer" };
                    same_shape(&values(kind, &answer), &values(kind, &real.body), place).err()
                } else {
                    Some(format!("the page says {status}, the answer {}", real.status))
                };
                if let Some(fault) = fault {
                    wrong.push(format!("@@@ {request}\n--- {fault}\n=== {}", real.body));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(examples > 20);
}

fn rows(head: &str) -> Vec<String> {
    let lines = PAGE.lines().skip_while(|line| !line.starts_with(head)).skip(2);
    lines.take_while(|line| line.starts_with('|')).map(ToOwned::to_owned).collect()
}

#[test]
fn the_table_of_codes_is_that_of_the_code() {
    let codes: Vec<_> =
        Code::ALL.iter().map(|c| format!("| `{}` | {} | {} |", c.as_str(), c.status(), c.title())).collect();
    assert_eq!(rows("| code |"), codes);
}

#[test]
fn each_setting_stands_on_the_page_with_its_default() {
    let Value::Object(settings) = serde_json::to_value(Settings::default()).unwrap() else {
        unreachable!("a struct is an object")
    };
    let mut told: Vec<_> = rows("| setting |")
        .iter()
        .map(|row| {
            let mut cells = row.split('|').skip(1).map(|cell| cell.trim().trim_matches('`').to_owned());
            (cells.next().unwrap(), cells.next().unwrap())
        })
        .collect();
    let mut real: Vec<_> = settings
        .iter()
        .map(|(key, value)| (format!("producer.{key}"), value.to_string().trim_matches('"').to_owned()))
        .collect();
    told.sort();
    real.sort();
    assert_eq!(told, real);
}
