//! Queues, processes, tools, the library.

use serde_json::json;

use crate::cli::{idle, pool, shape};

#[tokio::test]
async fn queues_tell_their_depth_and_whether_somebody_serves_them() {
    let (_server, cli) = idle().await;
    for (queue, delay) in [("low", None), ("low", None), ("late", Some("60000"))] {
        let mut arguments = vec!["enqueue", "echo", "-q", queue];
        arguments.extend(delay.map(|_| "--delay-ms"));
        arguments.extend(delay);
        cli.run(&arguments).await.ok();
    }
    let lines = shape(&cli.run(&["queues"]).await.ok());
    assert_eq!(lines[0], "QUEUE READY RUNNING DEFERRED PARKED OLDEST WORKERS NOTE");
    assert!(lines[1].starts_with("(runs) # # #"), "{lines:?}");
    assert!(lines[2].starts_with("late # # #") && lines[2].ends_with("nobody serves it"), "{lines:?}");
    let queues = cli.run(&["queues", "--json"]).await.documents();
    let of = |name: &str| queues.iter().find(|queue| queue["queue"] == name).unwrap().clone();
    assert_eq!((&of("low")["ready"], &of("late")["deferred"]), (&json!(2), &json!(1)));
    assert_eq!((&of("low")["workers"], &of("low")["running"]), (&json!(0), &json!(0)));
    assert!(of("low")["oldest_ms"].is_u64());
    assert!(cli.run(&["queues", "--extra"]).await.refused(2).contains("--extra"));
}

#[tokio::test]
async fn workers_are_told_alive_from_silent() {
    let (server, mut engines, cli) = pool().await;
    let table = shape(&cli.run(&["workers"]).await.ok());
    assert_eq!(table[0], "PROCESS ROLE STATE HOLDS SLOTS QUEUES UP VERSION");
    assert!(
        table[1].contains("scheduler alive") && table[2].contains("worker alive # # default"),
        "{table:?}"
    );
    engines.kill().await.unwrap();
    let processes = cli.run(&["workers", "--json"]).await.documents();
    assert_eq!(processes.len(), 2);
    assert!(processes.iter().all(|process| process["alive"] == false), "{processes:?}");
    drop(server);
}

#[tokio::test]
async fn an_empty_pool_says_how_to_begin() {
    let (_server, cli) = idle().await;
    assert!(cli.run(&["workers"]).await.ok().contains("tidemill dev"));
    assert_eq!(cli.run(&["tools"]).await.ok(), "no worker has announced a tool yet\n");
    assert_eq!(cli.run(&["tools", "--json"]).await.ok(), "");
}

#[tokio::test]
async fn tools_are_listed_and_shown_with_their_schema() {
    let (_server, _engines, cli) = pool().await;
    let lines = shape(&cli.run(&["tools"]).await.ok());
    assert_eq!(lines[..2], ["TOOL KIND DESCRIPTION", "echo inline Gives its input back."]);
    let tool = cli.run(&["tools", "sleep", "--json"]).await.document();
    assert_eq!(tool["input_schema"]["type"], "object");
    assert!(cli.run(&["tools", "sleep"]).await.ok().contains("\"ms\""));
    let error = cli.run(&["tools", "nothing"]).await.refused(1);
    assert!(error.contains("no worker has announced a tool \"nothing\""), "{error}");
}

#[tokio::test]
async fn the_library_is_shown_without_redis_and_loaded_into_one() {
    let text = crate::cli::Cli::new("redis://127.0.0.1:1").run(&["library", "show"]).await.ok();
    assert!(text.starts_with("#!lua name=tidemill1\n") && text.contains("tm1_settle"), "{text}");
    let (server, cli) = idle().await;
    let said = cli.run(&["library", "load"]).await.ok();
    assert!(said.contains("is loaded on redis 7") || said.contains("is loaded on"), "{said}");
    assert!(server.cli(&["FUNCTION", "LIST"]).await.unwrap().contains("tidemill1"));
    crate::cli::Cli::new("redis://127.0.0.1:1").run(&["library", "load"]).await.refused(4);
}
