//! Services on the command line.

use serde_json::{Value, json};
use tidemill_testkit::wait_for;

use crate::cli::{Cli, SOON, idle, pool, shape};

async fn changes(cli: &Cli, name: &str) -> Vec<(String, String, String)> {
    let documents = cli.run(&["service", "history", name, "--json"]).await.documents();
    let text = |document: &Value, key: &str| document[key].as_str().unwrap().to_owned();
    documents.iter().rev().map(|one| (text(one, "kind"), text(one, "why"), text(one, "by"))).collect()
}

/// A service as it is shown, each number as `#`.
const SHOWN: [&str; 28] = [
    "service vendor",
    "tools echo",
    "backpressure queue",
    "",
    "TIER STATE UNTIL LATENCY PACE/S LINE OLDEST WAIT BOUND BY",
    "vendor running # # # ms concurrency",
    "",
    "TIER LIMIT CONTRACT USED OF USE MEASURE",
    "vendor # requests / # m # s strict # # # % window",
    "vendor # calls at once concurrency # # # % now",
    "",
    "breaker vendor: closed; # of # calls in its window failed, # slow; it opens at # % of # or more",
    "retries vendor: # of # saved up; each first attempt earns #.#",
    "",
    "definition {",
    "\"concurrency\": #,",
    "\"limits\": [",
    "{",
    "\"contract\": \"strict\",",
    "\"limit\": #,",
    "\"unit\": \"requests\",",
    "\"window_ms\": #",
    "}",
    "],",
    "\"tools\": [",
    "\"echo\"",
    "]",
    "}",
];

#[tokio::test]
async fn a_service_is_defined_key_by_key_shown_and_removed() {
    let (_server, cli) = idle().await;
    assert!(cli.run(&["service", "list"]).await.ok().starts_with("no service is defined"));
    let set = [
        "service",
        "set",
        "vendor",
        "tools=echo",
        "limits.requests=600/1m",
        "concurrency=5",
        "breaker.open_ms=5s",
        "--why",
        "new contract",
    ];
    assert_eq!(cli.run(&set).await.ok(), "vendor is defined\n");
    assert_eq!(cli.run(&set).await.ok(), "vendor is so already\n");
    let list = shape(&cli.run(&["service", "list"]).await.ok());
    let golden = [
        "SERVICE STATE LIMITS CALLS LINE WAIT BACKPRESSURE TOOLS NOTE",
        "vendor running # requests / # m # s #/# # # ms queue echo",
    ];
    assert_eq!(list, golden);
    let shown = shape(&cli.run(&["service", "show", "vendor"]).await.ok());
    assert_eq!(shown, SHOWN);
    let changed =
        cli.run(&["service", "set", "vendor", "limits.requests=300/1m", "concurrency=none"]).await.ok();
    assert_eq!(changed, "vendor is changed; every worker follows within a second\n");
    let view = cli.run(&["service", "show", "vendor", "--json"]).await.document();
    assert_eq!(view["definition"]["limits"][0]["limit"], 300);
    assert_eq!(view["tiers"][0]["concurrency"], Value::Null);
    assert_eq!(cli.run(&["service", "remove", "vendor"]).await.ok(), "vendor is removed\n");
    let told = changes(&cli, "vendor").await;
    let kinds: Vec<_> = told.iter().map(|(kind, why, _)| (kind.as_str(), why.as_str())).collect();
    assert_eq!(kinds, [("set", "new contract"), ("set", "by hand"), ("remove", "by hand")]);
    assert!(told.iter().all(|(_, _, by)| by.starts_with("cli:") && by.contains('@')), "{told:?}");
}

#[tokio::test]
async fn a_definition_comes_from_a_file_of_its_own_or_from_the_settings() {
    let (_server, cli) = idle().await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let own =
        file("own.yaml", "tools: [echo]\nlimits:\n  - { unit: requests, limit: 10, window_ms: 1000 }\n");
    cli.run(&["service", "set", "vendor", "--file", &own, "concurrency=3"]).await.ok();
    let definition = cli.run(&["service", "show", "vendor", "--json"]).await.document()["definition"].clone();
    assert_eq!((&definition["concurrency"], &definition["limits"][0]["limit"]), (&json!(3), &json!(10)));
    let all =
        file("all.yaml", "worker: {max_parallel: 3}\nservices:\n  vendor: {concurrency: 7}\n  other: {}\n");
    cli.run(&["service", "set", "vendor", "--file", &all]).await.ok();
    let definition = cli.run(&["service", "show", "vendor", "--json"]).await.document()["definition"].clone();
    assert_eq!((&definition["concurrency"], definition.get("tools")), (&json!(7), None));
    let piped = cli.run_with(&["service", "set", "vendor", "--file", "-"], r#"{"concurrency":9}"#).await.ok();
    assert!(piped.contains("is changed"), "{piped}");
    for (name, text, words) in [
        ("a.yaml", "concurency: 3\n", "did you mean `concurrency`?"),
        ("b.yaml", "services:\n  vendor: {limits: 3}\n", "services.vendor.limits"),
        ("c.yaml", "services:\n  another: {}\n", "no service \"vendor\"; it has another"),
        ("d.yaml", "limits: [\n", "d.yaml"),
    ] {
        let path = file(name, text);
        let error = cli.run(&["service", "set", "vendor", "--file", &path]).await.refused(1);
        assert!(error.contains(words), "{name}: {error}");
    }
    let error = cli.run(&["service", "set", "vendor", "--file", "/nowhere.yaml"]).await;
    assert!(error.code != 0 && error.err.contains("/nowhere.yaml"), "{error:?}");
}

#[tokio::test]
async fn a_service_is_paused_isolated_and_resumed_with_who_and_why() {
    let (_server, cli) = idle().await;
    cli.run(&["service", "set", "vendor", "tools=echo"]).await.ok();
    let paused = cli.run(&["service", "pause", "vendor", "--for", "30s", "--why", "an incident"]).await.ok();
    assert!(paused.starts_with("vendor is paused until 20"), "{paused}");
    assert!(paused.ends_with("(in 30.0 s); it was running\n"), "{paused}");
    let shown = cli.run(&["service", "show", "vendor"]).await.ok();
    assert!(shown.contains("paused    vendor: an incident"), "{shown}");
    let again = cli.run(&["service", "pause", "vendor"]).await.ok();
    assert_eq!(again, "vendor is paused until `tidemill service resume vendor`; it was paused\n");
    assert!(shape(&cli.run(&["service", "list"]).await.ok())[1].contains("paused # no end"));
    assert_eq!(cli.run(&["service", "resume", "vendor"]).await.ok(), "vendor is running; it was paused\n");
    assert_eq!(cli.run(&["service", "resume", "vendor"]).await.ok(), "vendor is running, as before\n");
    let isolated = cli.run(&["service", "isolate", "vendor", "--json"]).await.document();
    assert_eq!(isolated, json!({ "name": "vendor", "from": "running", "to": "forced_open" }));
    assert_eq!(
        cli.run(&["service", "disable", "vendor"]).await.ok(),
        "vendor is disabled; it was forced_open\n"
    );
    assert_eq!(cli.run(&["service", "close", "vendor"]).await.ok(), "vendor is running; it was disabled\n");
    assert_eq!(cli.run(&["service", "reset", "vendor"]).await.ok(), "vendor begins anew; it is running\n");
    let kinds: Vec<_> = changes(&cli, "vendor").await.into_iter().map(|(kind, ..)| kind).collect();
    assert_eq!(kinds, ["set", "pause", "pause", "resume", "resume", "isolate", "disable", "close", "reset"]);
    let table = cli.run(&["service", "history", "vendor", "--limit", "1"]).await.ok();
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(table.lines().next().unwrap().starts_with("WHEN"), "{table}");
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_the_nearest_name() {
    let (_server, cli) = idle().await;
    cli.run(&["service", "set", "vendor", "tools=echo"]).await.ok();
    for (arguments, code, words) in [
        (vec!["show", "vendr"], 1, "did you mean \"vendor\"?"),
        (vec!["pause", "vendr"], 1, "did you mean \"vendor\"?"),
        (vec!["remove", "other"], 1, "there are vendor"),
        (vec!["set", "vendor"], 2, "KEY=VALUE"),
        (vec!["set", "vendor", "concurrency"], 2, "write key=value"),
        (vec!["set", "vendor", "concurency=5"], 1, "unknown field `concurency`"),
        (vec!["set", "vendor", "concurrency=0"], 1, "services.vendor.concurrency: 0 would stop every call"),
        (vec!["set", "vendor", "limits.requests=600"], 2, "600/1m"),
        (vec!["set", "vendor", "model=.a["], 1, "services.vendor.model: the filter"),
        (vec!["set", "ven dor", "concurrency=1"], 1, "1 to 64 of"),
        (vec!["pause", "vendor", "--for", "30"], 2, "such as 30s"),
        (vec!["pause", "vendor", "--until", "2020-01-01T00:00:00Z"], 2, "has passed"),
        (vec!["pause", "vendor", "--until", "later"], 2, "2026-11-21T18:00:00Z"),
    ] {
        let error = cli.run(&[vec!["service"], arguments.clone()].concat()).await.refused(code);
        assert!(error.contains(words), "{arguments:?}: {error}");
    }
    let warned = cli.run(&["service", "set", "other", "tools=ecko"]).await;
    assert!(
        warned.err.contains("warning: no tool \"ecko\"") && warned.err.contains("mean \"echo\"?"),
        "{warned:?}"
    );
    assert_eq!(warned.ok(), "other is defined\n");
}

#[tokio::test]
async fn the_door_of_the_command_line_can_be_forced() {
    let (_server, cli) = idle().await;
    let set = ["service", "set", "vendor", "tools=echo", "backpressure=reject", "max_wait_ms=1s"];
    cli.run(&set).await.ok();
    cli.run(&["enqueue", "echo"]).await.ok();
    cli.run(&["service", "pause", "vendor"]).await.ok();
    let error = cli.run(&["enqueue", "echo"]).await.refused(1);
    assert!(error.contains("\"vendor\" is paused until somebody ends that"), "{error}");
    let error = cli.run(&["enqueue", "echo", "--json"]).await.refused(1);
    assert!(error.contains("\"service_busy\"") && error.contains("\"tier\":\"vendor\""), "{error}");
    cli.run(&["enqueue", "echo", "--force"]).await.ok();
}

#[tokio::test]
async fn top_shows_what_happens_in_a_second() {
    let (_server, _engines, cli) = pool().await;
    cli.run(&["service", "set", "vendor", "tools=echo", "limits.requests=600/1m", "concurrency=5"])
        .await
        .ok();
    let table = shape(&cli.run(&["service", "top", "--once", "--every-ms", "50"]).await.ok());
    assert!(table[0].ends_with("# services and tiers"), "{table:?}");
    let head = "SERVICE STATE GRANTED/S WAITS/S OK/S FAILED/S #/S USE CALLS LINE WAIT BREAKER";
    assert_eq!(table[1], head);
    assert_eq!(table[2], "vendor running # # # # # # % #/# # # ms closed #/#");
    let seen = async || {
        cli.run(&["enqueue", "echo", "--wait"]).await.ok();
        let granted =
            async { cli.run(&["service", "top", "--once", "--every-ms", "1500", "--json"]).await.document() };
        let busy = async {
            for _ in 0..3 {
                cli.run(&["enqueue", "echo", "--wait"]).await.ok();
            }
        };
        let round = tokio::join!(granted, busy).0;
        let rate = round["services"][0]["granted_per_s"].as_f64().unwrap();
        if rate > 0.0 { Ok(round) } else { Err(round.to_string()) }
    };
    let round = wait_for(SOON, "a second with calls", seen).await.unwrap();
    let row = &round["services"][0];
    assert_eq!(row["tier"], "vendor");
    assert!(row["use_percent"].as_f64().unwrap() > 0.0, "{row}");
    assert!(row["counters"]["granted"].as_u64().unwrap() > 0, "{row}");
}
