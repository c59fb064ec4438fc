//! Finding runs, and groups of them.

use serde_json::{Value, json};

use crate::cli::{Cli, SOON, engines, idle, shape};
use crate::runs::publish;

const FLOW: &str = "\
name: sync
labels: { customer: \"${ .input.who }\" }
group: { key: \"${ .input.who }\", limit: 1 }
steps:
  - { id: long, tool: sleep, with: { ms: 60000 } }
";

async fn ask(cli: &Cli, id: &str, who: &str) {
    let input = format!("{{\"who\":\"{who}\"}}");
    cli.run(&["run", "sync", "-i", &input, "--id", id, "--label", "env=test"]).await.ok();
}

/// Waits until a command's documents are as wanted.
async fn becomes(cli: &Cli, words: &[&str], wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    tidemill_testkit::wait_for(SOON, &words.join(" "), async || {
        let found = cli.run(&[words, &["--json"]].concat()).await.documents();
        if wanted(&found) { Ok(found) } else { Err(format!("{found:?}")) }
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn runs_are_found_and_those_that_wait_for_their_turn_are_shown_in_their_group() {
    let (server, _) = idle().await;
    let _engines = engines(&server, 3).await;
    let cli = Cli::new(server.url()).with_partitions(3);
    publish(&cli, server.folder(), FLOW).await;
    for (id, who) in [("a1", "acme"), ("a2", "acme"), ("a3", "acme"), ("g1", "globex")] {
        ask(&cli, id, who).await;
    }
    let groups = becomes(&cli, &["group", "list"], |groups| {
        groups.len() == 2 && groups[0]["waiting"] == 2 && groups[1]["holders"] == 1
    })
    .await;
    assert_eq!((&groups[0]["name"], &groups[0]["limit"]), (&json!("sync:acme"), &json!(1)));
    let text = shape(&cli.run(&["group", "show", "sync:acme"]).await.ok());
    assert_eq!(text[0], "sync:acme: # of # places taken, # waiting");
    assert_eq!(text[1], "RUN STANDS ASKED FOR");
    assert!(text[2].starts_with("a# has a place") && text[3].starts_with("a# waits, number #"), "{text:?}");
    assert!(cli.run(&["group", "show", "sync:nobody"]).await.refused(1).contains("has no runs"));
    let why = cli.run(&["why", "a3"]).await.ok();
    assert!(why.contains("waits for its turn in group \"sync:acme\": 1 wait before it"), "{why}");
    let status = cli.run(&["status", "a3", "--json"]).await.document();
    assert_eq!((&status["state"], &status["place"]["ahead"]), (&json!("queued"), &json!(1)));

    let runs = becomes(&cli, &["runs", "--state", "live"], |runs| runs.len() == 2).await;
    assert_eq!(runs[0]["labels"]["env"], "test");
    let acme =
        cli.run(&["runs", "--label", "customer=acme", "--label", "env=test", "--json"]).await.documents();
    assert_eq!(acme.len(), 1, "those that wait have not started: {acme:?}");
    assert_eq!(cli.run(&["runs", "--label", "customer=nobody"]).await.ok().lines().count(), 1);
    cli.run(&["cancel", acme[0]["id"].as_str().unwrap()]).await.ok();
    becomes(&cli, &["runs", "--label", "customer=acme", "--state", "running"], |runs| runs.len() == 1).await;
    cli.run(&["cancel", "a3"]).await.ok();
    becomes(&cli, &["group", "show", "sync:acme"], |group| group[0]["waiting"] == 0).await;
    let page = cli.run(&["runs", "--limit", "2", "--since", "1h"]).await;
    assert!(page.err.contains("--cursor "), "{page:?}");
    let cursor = page.err.trim().rsplit(' ').next().unwrap().to_owned();
    let (first, second) = (page.ok(), cli.run(&["runs", "--cursor", &cursor, "--json"]).await.documents());
    assert_eq!(shape(&first)[0], "RUN STATE WORKFLOW STARTED TOOK TENANT LABELS");
    assert_eq!((first.lines().count(), second.len()), (3, 1));
    for bad in [["--state", "resting"], ["--label", "env"], ["--since", "soon"], ["--cursor", "x"]] {
        let said = cli.run(&["runs", bad[0], bad[1]]).await.refused(2);
        assert!(said.contains(bad[0]), "{said}");
    }
}
