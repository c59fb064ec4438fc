//! `verify` and `history`: what a pool did fits its audit, what was changed by hand does not, and how it went can be seen.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::cli::{Cli, SOON, engines, idle, pool, shape};
use crate::runs::{FLOW, publish};

/// Retries, timeouts, failures, skips, joins, items that fail, items of nothing.
const MIXED: &str = r#"
name: mixed
failure: finish
steps:
  - { id: order, tool: echo, with: { n: 1 } }
  - { id: slow, tool: sleep, with: { ms: 60000 }, timeout_ms: 20, retry: { max_attempts: 2, base_ms: 1 }, on_error: continue }
  - { id: bad, tool: jq.transform, with: { filter: "error(\"no\")" } }
  - { id: never, tool: echo, needs: [bad], with: {} }
  - { id: unwanted, tool: echo, when: false, with: {} }
  - { id: either, tool: echo, needs: [order, slow], join: any, with: {} }
  - { id: each, tool: echo, needs: [order], for_each: { items: "${ [range(7)] }", concurrency: 3 }, with: { i: "${ .item }" } }
  - id: some
    tool: jq.transform
    for_each: { items: "${ [0, 1, 2] }", concurrency: 2, tolerate: 3 }
    with: { filter: "if . == 1 then error(\"no\") else . end", input: "${ .item }" }
  - { id: nothing, tool: echo, for_each: { items: "${ [] }" }, with: {} }
  - { id: last, tool: echo, needs: [either, each, some, nothing, unwanted, slow], with: {} }
"#;

/// One step in a queue that nobody serves.
const WAITS: &str = "name: waits\nsteps:\n  - { id: a, tool: echo, queue: nowhere, with: {} }\n";

async fn verified(cli: &Cli, id: &str) -> Value {
    let mut documents = cli.run(&["verify", id, "--json"]).await.documents();
    assert_eq!(documents.len(), 2, "{documents:?}");
    documents.remove(0)
}

/// The findings of a run that does not fit, as `kind place`, and the words of failure.
async fn drift(cli: &Cli, id: &str) -> (Vec<String>, String) {
    let said = cli.run(&["verify", id, "--json"]).await;
    let first = said.out.lines().next().unwrap_or_default().to_owned();
    let verdict: Value = serde_json::from_str(&first).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    let findings = verdict["findings"].as_array().unwrap().iter();
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    let found = findings.map(|finding| format!("{} {}", word(&finding["kind"]), word(&finding["place"])));
    (found.collect(), said.refused(1))
}

#[tokio::test]
async fn whatever_becomes_of_a_run_it_fits_its_audit() {
    let (server, _engines, cli) = pool().await;
    publish(&cli, server.folder(), MIXED).await;
    cli.run(&["run", "mixed", "--id", "m", "--wait"]).await.refused(1);
    let verdict = verified(&cli, "m").await;
    assert_eq!((&verdict["state"], &verdict["findings"]), (&json!("failed"), &json!([])), "{verdict}");
    assert!(verdict["records"].as_u64().unwrap() > 60, "{verdict}");
    let text = cli.run(&["verify", "m"]).await.ok();
    assert!(text.starts_with("1 runs verified, ") && text.ends_with("all is as audited\n"), "{text}");
}

#[tokio::test]
async fn a_cancelled_run_fits_while_its_step_ends_and_after() {
    let (server, _engines, cli) = pool().await;
    let slow = "name: slow\nsteps:\n  - { id: nap, tool: sleep, with: { ms: 60000 } }\n  - { id: wait, tool: echo, queue: nowhere, with: {} }\n";
    publish(&cli, server.folder(), slow).await;
    cli.run(&["run", "slow", "--id", "r"]).await.ok();
    let runs = async || {
        let why = cli.run(&["why", "r"]).await.out;
        if why.contains("step nap runs on worker") { Ok(()) } else { Err(why) }
    };
    tidemill_testkit::wait_for(SOON, "the step to run", runs).await.unwrap();
    assert_eq!(verified(&cli, "r").await["findings"], json!([]));
    let text = cli.run(&["history", "r"]).await.ok();
    let nap = text.lines().find(|line| line.starts_with("nap ")).unwrap();
    assert!(text.contains("so far") && nap.contains('█'), "{text}");
    let history = cli.run(&["history", "r", "--json"]).await.document();
    assert_eq!(
        (&history["steps"][0]["id"], &history["steps"][0]["state"]),
        (&json!("nap"), &json!("running"))
    );
    cli.run(&["cancel", "r"]).await.ok();
    let ended = async || {
        let verdict = verified(&cli, "r").await;
        assert_eq!(verdict["findings"], json!([]), "{verdict}");
        // the step that waits where nobody serves is still to be met
        if verdict["unsettled"] == json!(1) { Ok(()) } else { Err(verdict.to_string()) }
    };
    tidemill_testkit::wait_for(SOON, "the step to end", ended).await.unwrap();
    assert_eq!(verified(&cli, "r").await["state"], json!("cancelled"));
}

#[tokio::test]
async fn what_was_changed_by_hand_is_told_with_where_and_what() {
    let (server, _engines, cli) = pool().await;
    publish(&cli, server.folder(), FLOW).await;
    cli.run(&["run", "flow", "-i", r#"{"order":1}"#, "--id", "r", "--wait"]).await.ok();
    let key = "tm:{0}:run:r";
    server.cli(&["HSET", key, "d", "3", "c3", "1"]).await.unwrap();
    let (found, error) = drift(&cli, "r").await;
    assert_eq!(found, ["ended_count run d", "needs_count step hold, c3"]);
    let error: Value = serde_json::from_str(&error).unwrap();
    assert_eq!((&error["error"]["code"], &error["error"]["exit"]), (&json!("drift"), &json!(1)));
    let said = cli.run(&["verify", "--all"]).await;
    let lines = shape(&said.out);
    assert_eq!(lines[0], "RUN STATE WHERE WHAT STORED EXPECTED REPAIR");
    assert_eq!(lines[1], "r succeeded run d ended_count # #");
    assert!(said.refused(1).contains("1 run is not as audited; see docs/verify.md"));
    server.cli(&["HSET", key, "d", "4", "c3", "2"]).await.unwrap();
    cli.run(&["verify", "--all"]).await.ok();
}

#[tokio::test]
async fn lost_work_is_repaired_once_and_by_name() {
    let (server, mut engines, cli) = pool().await;
    publish(&cli, server.folder(), WAITS).await;
    cli.run(&["run", "waits", "--id", "r"]).await.ok();
    let started = async || {
        let length = server.cli(&["XLEN", "tm:{0}:jobs:nowhere"]).await.map_err(|error| error.to_string())?;
        if length.trim() == "1" { Ok(()) } else { Err(length) }
    };
    tidemill_testkit::wait_for(SOON, "the run to start", started).await.unwrap();
    // nobody else may repair it
    engines.kill().await.unwrap();
    server.cli(&["XTRIM", "tm:{0}:jobs:nowhere", "MAXLEN", "0"]).await.unwrap();
    server.cli(&["ZADD", "tm:{0}:live", "1", "gone"]).await.unwrap();
    let (found, error) = drift(&cli, "r").await;
    assert_eq!(found, ["lost step a"]);
    assert!(error.contains("--repair"), "{error}");
    let text = cli.run(&["verify", "--all", "--repair"]).await.ok();
    assert!(text.contains("2 repaired; all is as audited"), "{text}");
    assert_eq!(server.cli(&["XLEN", "tm:{0}:jobs:nowhere"]).await.unwrap().trim(), "1");
    assert_eq!(server.cli(&["ZSCORE", "tm:{0}:live", "gone"]).await.unwrap().trim(), "");
    assert!(!cli.run(&["verify", "--all", "--repair"]).await.ok().contains("repaired"));
}

#[tokio::test]
async fn a_run_that_stands_still_is_carried_on() {
    let (server, cli) = idle().await;
    publish(&cli, server.folder(), FLOW).await;
    // begun long ago, and nothing of it was ever dispatched
    let fields = ["HSET", "tm:{0}:run:r", "st", "running", "wf", "flow@1", "t1", "1000", "q", "1"];
    server.cli(&fields).await.unwrap();
    server.cli(&["XADD", "tm:{0}:audit:r", "*", "1", "@ queued running 1000 0 s1"]).await.unwrap();
    server.cli(&["ZADD", "tm:{0}:live", "+inf", "r"]).await.unwrap();
    let (found, _) = drift(&cli, "r").await;
    assert_eq!(found, ["still run"]);
    let text = cli.run(&["verify", "r", "--repair"]).await.ok();
    assert!(text.contains("1 repaired; all is as audited"), "{text}");
    let records = cli.run(&["audit", "r", "--json"]).await.documents();
    assert_eq!((&records[1]["subject"], &records[1]["to"]), (&json!("order"), &json!("ready")));
    assert_eq!(records.len(), 2);
}

#[tokio::test]
async fn all_runs_of_all_partitions_are_verified() {
    let (server, _) = idle().await;
    let cli = Cli::new(server.url()).with_partitions(4);
    let _engines = engines(&server, 4).await;
    publish(&cli, server.folder(), FLOW).await;
    for n in 0..8 {
        let id = format!("r{n}");
        cli.run(&["run", "flow", "-i", r#"{"order":1}"#, "--id", &id, "--wait"]).await.ok();
    }
    let documents = cli.run(&["verify", "--all", "--json"]).await.documents();
    let sums = documents.last().unwrap();
    assert_eq!((documents.len(), &sums["runs"], &sums["records"]), (1, &json!(8), &json!(8 * 14)));
    assert_eq!(verified(&cli, "r5").await["run"], json!("r5"), "found in its partition");
    let said = cli.run(&["verify", "r1", "r9", "r2"]).await;
    assert!(said.out.starts_with("2 runs verified"), "{said:?}");
    assert!(said.refused(1).contains("no run \"r9\" is known"));
}

#[tokio::test]
async fn a_run_too_large_for_one_read_fits_too() {
    let (server, _engines, cli) = pool().await;
    let mut flow = "name: wide\nsteps:\n  - { id: root, tool: echo }\n".to_owned();
    let ids: Vec<String> = (0..1_100).map(|n| format!("s{n}")).collect();
    for id in &ids {
        writeln!(flow, "  - {{ id: {id}, tool: echo, needs: [root] }}").unwrap();
    }
    writeln!(flow, "  - {{ id: last, tool: echo, needs: [{}] }}", ids.join(", ")).unwrap();
    publish(&cli, server.folder(), &flow).await;
    cli.run(&["run", "wide", "--id", "w", "--wait"]).await.ok();
    let verdict = verified(&cli, "w").await;
    assert_eq!((&verdict["findings"], &verdict["records"]), (&json!([]), &json!(1_102 * 3 + 2)));
    let key = "tm:{0}:run:w";
    let record = server.cli(&["HGET", key, "s1050"]).await.unwrap();
    server.cli(&["HSET", key, "s1050", &record.trim().replace("succeeded", "skipped")]).await.unwrap();
    let (found, _) = drift(&cli, "w").await;
    assert_eq!(found, ["step_state step s1049"]);
}

#[tokio::test]
async fn verify_says_what_it_needs() {
    let (_server, cli) = idle().await;
    cli.run(&["verify"]).await.refused(2);
    cli.run(&["verify", "r", "--all"]).await.refused(2);
    assert!(cli.run(&["verify", "r"]).await.refused(1).contains("no run \"r\" is known"));
    assert!(cli.run(&["verify", "--all"]).await.ok().starts_with("0 runs verified"));
    cli.run(&["history"]).await.refused(2);
    assert!(cli.run(&["history", "--workflow", "no"]).await.refused(1).contains("not published"));
    cli.run(&["history", "--workflow", "no", "--since", "soon"]).await.refused(2);
}

#[tokio::test]
async fn a_history_shows_each_step_over_time_and_every_transition() {
    let (server, _engines, cli) = pool().await;
    publish(&cli, server.folder(), MIXED).await;
    cli.run(&["run", "mixed", "--id", "m", "--wait"]).await.refused(1);
    let text = cli.run(&["history", "m"]).await.ok();
    let blocks: Vec<&str> = text.split("\n\n").collect();
    let [head, picture, durations, transitions] = blocks[..] else { panic!("{text}") };
    assert!(head.starts_with("run m  mixed@1  failed\nbegan "), "{text}");
    let bars: Vec<&str> = picture.lines().collect();
    assert_eq!(bars.len(), 12, "a scale, ten steps, a legend: {picture}");
    assert!(bars.iter().all(|line| line.chars().count() <= 100), "{picture}");
    assert!(bars[11].contains("░░ waiting   ██ running   ▒▒ parked   ╌╌ retrying"), "{picture}");
    let slow = bars.iter().find(|line| line.starts_with("slow ")).unwrap();
    assert!(slow.contains('█'), "{slow}");
    assert_eq!(shape(durations)[0], "STEP STATE TRY WAITED RAN PARKED RETRYING");
    assert_eq!(shape(transitions)[0], "AT SUBJECT FROM → TO TOOK TRY WHO");
    assert!(transitions.contains("running → retrying"), "{transitions}");

    let history = cli.run(&["history", "m", "--json"]).await.document();
    let steps = history["steps"].as_array().unwrap();
    assert_eq!((steps.len(), &history["state"]), (10, &json!("failed")));
    let slow = steps.iter().find(|step| step["id"] == "slow").unwrap();
    let states: Vec<_> = slow["spans"].as_array().unwrap().iter().map(|span| &span["state"]).collect();
    assert_eq!(states, ["ready", "running", "retrying", "ready", "running", "timed_out"]);
    assert_eq!((&slow["attempts"], &slow["state"]), (&json!(2), &json!("timed_out")));
    assert!(slow["durations_ms"]["running"].as_u64().unwrap() >= 40, "{slow}");
    let with_items = cli.run(&["history", "m", "--items", "--json"]).await.document();
    assert_eq!(with_items["steps"].as_array().unwrap().len(), 20);
    let short = cli.run(&["history", "m", "--most", "3"]).await.ok();
    assert!(
        short.contains("… and 7 more (--most)") && short.contains("`tidemill audit` lists them all"),
        "{short}"
    );
}

#[tokio::test]
async fn a_workflow_s_kept_runs_are_counted_step_by_step() {
    let (server, _engines, cli) = pool().await;
    for workflow in [FLOW, MIXED] {
        publish(&cli, server.folder(), workflow).await;
    }
    for id in ["a", "b", "c"] {
        cli.run(&["run", "flow", "-i", r#"{"order":1}"#, "--id", id, "--wait"]).await.ok();
        cli.run(&["run", "mixed", "--id", &format!("m{id}"), "--wait"]).await.refused(1);
    }
    let funnel = cli.run(&["history", "--workflow", "mixed", "--json"]).await.document();
    assert_eq!((&funnel["runs"], &funnel["states"]), (&json!(3), &json!({ "failed": 3 })));
    let step = |id: &str| {
        let steps = funnel["steps"].as_array().unwrap();
        steps.iter().find(|step| step["id"] == id).unwrap().clone()
    };
    assert_eq!((&step("order")["reached"], &step("order")["succeeded"]), (&json!(3), &json!(3)));
    assert_eq!((&step("never")["reached"], &step("never")["skipped"]), (&json!(0), &json!(3)));
    assert_eq!((&step("slow")["failed"], &step("slow")["retried"]), (&json!(3), &json!(3)));
    assert!(step("slow")["ran_ms"]["p99"].as_u64().unwrap() >= 20);
    let text = cli.run(&["history", "--workflow", "flow@1", "--since", "1h"]).await.ok();
    let lines = shape(&text);
    assert!(lines[0].starts_with("workflow flow@#, # runs begun since"), "{text}");
    assert!(lines[1].starts_with("took p# #"), "{text}");
    assert_eq!(
        lines[3],
        "STEP REACHED OK FAILED SKIPPED CANCELLED OPEN RETRIED WAIT P# WAIT P# RAN P# RAN P#"
    );
    assert!(lines[4].starts_with("order # ████████████████████ # #"), "{text}");
    let none = cli.run(&["history", "--workflow", "flow@1", "--since", "1ms"]).await.ok();
    assert!(none.contains("is kept"), "{none}");
}
