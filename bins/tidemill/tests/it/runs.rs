//! Runs: asked for, watched, cancelled, audited.

use std::path::Path;

use serde_json::json;

use crate::cli::{Cli, SOON, engines, idle, pool, shape};

pub(crate) const FLOW: &str = "\
name: flow
input: { type: object, required: [order] }
steps:
  - { id: order, tool: echo, with: { order: \"${ .input.order }\" } }
  - { id: fraud, tool: sleep, needs: [order], with: { ms: 1 } }
  - { id: summary, tool: echo, needs: [order], with: { text: short } }
  - { id: hold, tool: echo, needs: [fraud, summary], with: { held: true } }
";

/// Publishes a definition.
pub(crate) async fn publish(cli: &Cli, folder: &Path, text: &str) {
    let file = folder.join("flow.yaml");
    std::fs::write(&file, text).unwrap();
    cli.run(&["workflow", "publish", &file.display().to_string()]).await.ok();
}

#[tokio::test]
async fn a_run_is_shown_as_a_tree_with_its_times_and_workers() {
    let (server, _engines, cli) = pool().await;
    publish(&cli, server.folder(), FLOW).await;
    let out = cli.run(&["run", "flow", "-i", r#"{"order":42}"#, "--id", "r", "--wait"]).await.ok();
    assert_eq!(out, "{\n  \"held\": true\n}\n");
    let lines = shape(&cli.run(&["status", "r"]).await.ok());
    assert_eq!(lines[0], "run r flow@# succeeded");
    assert!(lines[1].starts_with("started #-#-# #:#:#.#Z, took #"), "{lines:?}");
    assert_eq!(lines[2..5], ["output {\"held\":true}", "steps # succeeded", ""]);
    assert_eq!(lines[5], "STEP STATE TRY TIME WORKER NOTE");
    let starts =
        ["order succeeded #", "├─ fraud succeeded #", "└─ summary succeeded #", "└─ hold succeeded #"];
    for (line, start) in lines[6..].iter().zip(starts) {
        assert!(line.starts_with(start), "{line}");
    }
    assert!(lines[9].ends_with("needs also fraud"), "{lines:?}");

    let run = cli.run(&["status", "r", "--json"]).await.document();
    assert_eq!(
        (&run["state"], &run["steps_done"], &run["steps"][3]["id"]),
        (&json!("succeeded"), &json!(4), &json!("hold"))
    );
    let result = cli.run(&["result", "r", "--json"]).await.document();
    assert_eq!((&result["state"], &result["output"]), (&json!("succeeded"), &json!({ "held": true })));
    let why = cli.run(&["why", "r"]).await.ok();
    assert!(why.contains("it has ended: succeeded"), "{why}");
}

#[tokio::test]
async fn the_audit_has_every_transition_in_its_order() {
    let (server, _engines, cli) = pool().await;
    publish(&cli, server.folder(), FLOW).await;
    cli.run(&["run", "flow", "-i", r#"{"order":1}"#, "--id", "r", "--wait"]).await.ok();
    let records = cli.run(&["audit", "r", "--json"]).await.documents();
    let seqs: Vec<_> = records.iter().map(|record| record["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=14).collect::<Vec<_>>());
    assert_eq!((&records[13]["subject"], &records[13]["to"]), (&json!("@"), &json!("succeeded")));
    let text = cli.run(&["audit", "r"]).await.ok();
    assert_eq!(text.lines().count(), 15, "{text}");
    assert_eq!(shape(&text)[0], "SEQ AT SUBJECT FROM TO TRY WHO");
    cli.run(&["enqueue", "echo", "--id", "j", "--delay-ms", "60000"]).await.ok();
    let error = cli.run(&["audit", "j"]).await.refused(1);
    assert!(error.contains("\"j\" is a job; only runs are audited"), "{error}");
}

#[tokio::test]
async fn watching_follows_a_run_to_its_end() {
    let (server, _engines, cli) = pool().await;
    publish(&cli, server.folder(), FLOW).await;
    cli.run(&["run", "flow", "-i", r#"{"order":1}"#, "--id", "r"]).await.ok();
    let text = cli.run(&["status", "r", "--watch"]).await.ok();
    let (transitions, tree) = text.split_once("run r  flow@1  succeeded").unwrap_or_else(|| panic!("{text}"));
    assert_eq!(transitions.lines().filter(|line| line.contains("succeeded")).count(), 5, "{text}");
    assert!(tree.contains("└─ summary"), "{text}");
    let documents = cli.run(&["status", "r", "--watch", "--json"]).await.documents();
    assert_eq!(documents.last().unwrap()["state"], "succeeded");
}

#[tokio::test]
async fn a_run_in_flight_says_what_it_waits_for_and_can_be_cancelled() {
    let (server, _engines, cli) = pool().await;
    let slow = "name: slow\nsteps:\n  - { id: nap, tool: sleep, with: { ms: 60000 } }\n  - { id: after, tool: echo, needs: [nap], with: {} }\n";
    publish(&cli, server.folder(), slow).await;
    cli.run(&["run", "slow", "--id", "r"]).await.ok();
    let running = async || {
        let why = cli.run(&["why", "r"]).await.out;
        if why.contains("step nap runs on worker") { Ok(()) } else { Err(why) }
    };
    tidemill_testkit::wait_for(SOON, "the step to run", running).await.unwrap();
    let status = shape(&cli.run(&["status", "r"]).await.ok());
    assert!(status.contains(&"steps # pending, # running".to_owned()), "{status:?}");
    assert_eq!(cli.run(&["cancel", "r", "--reason", "too slow"]).await.ok(), "r is cancelled\n");
    let status = cli.run(&["status", "r"]).await.ok();
    assert!(status.contains("cancelled") && status.contains("cancelled: too slow"), "{status}");
    let error = cli.run(&["cancel", "r"]).await.refused(1);
    assert!(error.contains("r has ended already: cancelled"), "{error}");
    let error = cli.run(&["result", "r"]).await.refused(1);
    assert!(error.contains("r cancelled"), "{error}");
}

#[tokio::test]
async fn a_run_that_no_scheduler_starts_waits_and_is_taken_away_again() {
    let (server, cli) = idle().await;
    publish(&cli, server.folder(), FLOW).await;
    cli.run(&["run", "flow", "-i", r#"{"order":1}"#, "--id", "r"]).await.ok();
    assert_eq!(shape(&cli.run(&["status", "r"]).await.ok()), ["run r (not started) queued"]);
    let why = cli.run(&["why", "r"]).await.ok();
    assert!(why.contains("no scheduler has started it yet"), "{why}");
    assert_eq!(cli.run(&["cancel", "r"]).await.ok(), "r is cancelled\n");
    assert_eq!(server.cli(&["XLEN", "tm:{0}:runs"]).await.unwrap().trim(), "0");
}

#[tokio::test]
async fn a_bad_run_is_refused_at_once() {
    let (server, cli) = idle().await;
    publish(&cli, server.folder(), FLOW).await;
    let error = cli.run(&["run", "flow", "-i", "{}"]).await.refused(1);
    assert!(error.contains("refuses the input") && error.contains("order"), "{error}");
    let error = cli.run(&["run", "flaw"]).await.refused(1);
    assert!(error.contains("did you mean \"flow\"?"), "{error}");
}

#[tokio::test]
async fn ids_are_found_in_any_partition() {
    let (server, _) = idle().await;
    let cli = Cli::new(server.url()).with_partitions(4);
    let _engines = engines(&server, 4).await;
    publish(&cli, server.folder(), FLOW).await;
    // ids made by Redis say nothing of their partition
    for partition in 0..4 {
        let (runs, jobs) = (format!("tm:{{{partition}}}:runs"), format!("tm:{{{partition}}}:jobs:low"));
        let run = server.cli(&["XADD", &runs, "*", "workflow", "flow", "input", r#"{"order":1}"#]).await;
        let run = run.unwrap().trim().to_owned();
        let result = cli.run(&["result", &run, "--wait", "--json"]).await.document();
        assert_eq!(result["state"], "succeeded", "partition {partition}");
        let status = cli.run(&["status", &run]).await.ok();
        assert!(status.contains("└─ summary"), "partition {partition}: {status}");
        assert!(cli.run(&["why", &run]).await.ok().contains("it has ended"));
        // a queue is known once somebody serves it, or something was enqueued in it with an answer
        server.cli(&["SADD", &format!("tm:{{{partition}}}:queues"), "low"]).await.unwrap();
        let job = server.cli(&["XADD", &jobs, "*", "tool", "echo"]).await.unwrap().trim().to_owned();
        assert_eq!(cli.run(&["status", &job, "--json"]).await.document()["state"], "queued");
        assert_eq!(cli.run(&["cancel", &job]).await.ok(), format!("{job} is cancelled\n"));
    }
}
