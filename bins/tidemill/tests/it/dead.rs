//! Dead letters.

use serde_json::json;
use tidemill_testkit::RedisServer;

use crate::cli::{Cli, SOON, idle, pool, shape};
use crate::runs::publish;

async fn letters(cli: &Cli) -> usize {
    cli.run(&["dead", "list", "--json"]).await.documents().len()
}

/// Writes letters as workers do: `(code, tool)`.
async fn write(server: &RedisServer, letters: &[(&str, &str)]) {
    for (at, (code, tool)) in letters.iter().enumerate() {
        let entry = format!("{}-0", at + 1);
        let fields = [
            "code",
            code,
            "reason",
            "told so",
            "stream",
            "tm:{0}:jobs:default",
            "entry",
            &entry,
            "attempts",
            "3",
            "at_ms",
            "1732000000123",
            "job.tool",
            tool,
            "job.input",
            "{}",
        ];
        server.cli(&[["XADD", "tm:{0}:dead", "*"].as_slice(), &fields].concat()).await.unwrap();
    }
}

#[tokio::test]
async fn letters_are_listed_shown_and_dropped() {
    let (server, cli) = idle().await;
    assert_eq!(cli.run(&["dead", "list"]).await.ok(), "there are no dead letters\n");
    write(&server, &[("timeout", "slow.call"), ("unknown_tool", "nothing"), ("timeout", "slow.call")]).await;
    let list = shape(&cli.run(&["dead", "list"]).await.ok());
    assert_eq!(list[0], "LETTER DIED CODE WHAT TRIES JOB OR RUN REASON");
    assert_eq!(list.len(), 4);
    assert!(list[1].contains("ago timeout slow.call # #-# told so"), "{list:?}");
    let only = cli.run(&["dead", "list", "--code", "unknown_tool", "--json"]).await.documents();
    assert_eq!((only.len(), &only[0]["fields"]["tool"]), (1, &json!("nothing")));
    assert!(
        cli.run(&["dead", "list", "--limit", "2"])
            .await
            .ok()
            .ends_with("2 of 3 dead letters; --limit shows more\n")
    );

    let letter = only[0]["letter"].as_str().unwrap().to_owned();
    let shown = cli.run(&["dead", "show", &letter]).await.ok();
    assert!(
        shape(&shown).contains(&"tool nothing".to_owned()) && shown.contains("2024-11-19 07:06:40.123Z"),
        "{shown}"
    );
    // by the job's id, too
    assert_eq!(cli.run(&["dead", "show", "2-0", "--json"]).await.document()["letter"], json!(letter));

    let said = cli.run(&["dead", "drop", "--code", "timeout", "--dry-run"]).await.ok();
    assert!(said.ends_with("2 of 2 dead letters would be dropped\n"), "{said}");
    assert_eq!(letters(&cli).await, 3);
    assert_eq!(cli.run(&["dead", "drop", "--code", "timeout"]).await.ok(), "2 of 2 dead letters dropped\n");
    cli.run(&["dead", "drop", &letter]).await.ok();
    assert_eq!(letters(&cli).await, 0);
}

#[tokio::test]
async fn a_selection_must_be_said_and_must_exist() {
    let (_server, cli) = idle().await;
    for command in ["replay", "drop"] {
        assert!(cli.run(&["dead", command]).await.refused(2).contains("--all"));
        assert!(cli.run(&["dead", command, "1-0", "--all"]).await.refused(2).contains("cannot be used"));
        let error = cli.run(&["dead", command, "1-0"]).await.refused(1);
        assert!(error.contains("no dead letter has the id \"1-0\""), "{error}");
        assert_eq!(cli.run(&["dead", command, "--all"]).await.ok().lines().count(), 1);
    }
}

#[tokio::test]
async fn a_replayed_job_goes_on_under_its_id_and_is_no_repetition() {
    let (server, _engines, cli) = pool().await;
    cli.run(&["enqueue", "nothing", "--id", "j", "--result-ttl-ms", "60000", "--deadline-ms", "60000"])
        .await
        .ok();
    let dead = async || if letters(&cli).await == 1 { Ok(()) } else { Err("no letter".to_owned()) };
    tidemill_testkit::wait_for(SOON, "the dead letter", dead).await.unwrap();
    let first = cli.run(&["dead", "show", "j", "--json"]).await.document();
    assert!(cli.run(&["dead", "replay", "j"]).await.ok().ends_with("replayed (j)\n"));
    let again = async || {
        let letters = cli.run(&["dead", "list", "--json"]).await.documents();
        letters.into_iter().next().ok_or_else(|| "it has not died again".to_owned())
    };
    let second = tidemill_testkit::wait_for(SOON, "its second death", again).await.unwrap();
    assert_eq!((&second["id"], &second["entry"]), (&json!("j"), &first["entry"]));
    assert_ne!(second["letter"], first["letter"]);
    drop(server);
}

#[tokio::test]
async fn replaying_all_ends_although_what_is_replayed_dies_again() {
    let (server, cli) = idle().await;
    write(&server, &[("unknown_tool", "nothing"); 250]).await;
    let _engines = crate::cli::engines(&server, 1).await;
    let said = cli.run(&["dead", "replay", "--all"]).await.ok();
    assert_eq!(said, "250 of 250 dead letters replayed\n");
    let again = async || match server.cli(&["XLEN", "tm:{0}:dead"]).await.unwrap().trim() {
        "250" => Ok(()),
        other => Err(other.to_owned()),
    };
    tidemill_testkit::wait_for(SOON, "all to have died again", again).await.unwrap();
}

#[tokio::test]
async fn a_failed_run_is_replayed_as_a_new_run_with_its_input() {
    let (server, _engines, cli) = pool().await;
    let fails = "name: fails\nsteps:\n  - id: check\n    tool: jq.transform\n    retry: { max_attempts: 1 }\n    with: { input: \"${ .input }\", filter: 'error(\"no\")' }\n";
    publish(&cli, server.folder(), fails).await;
    cli.run(&["run", "fails", "--id", "r", "-i", r#"{"order":7}"#, "--wait"]).await.refused(1);
    let said = cli.run(&["dead", "replay", "r", "--json"]).await.document();
    let new = said["id"].as_str().unwrap().to_owned();
    assert_ne!(new, "r");
    cli.run(&["result", &new, "--wait"]).await.refused(1);
    let run = cli.run(&["status", &new, "--json"]).await.document();
    assert_eq!((&run["state"], &run["input"]), (&json!("failed"), &json!({ "order": 7 })));
    let text = cli.run(&["status", "r"]).await.ok();
    assert!(text.contains("check  failed"), "{text}");
}

#[tokio::test]
async fn a_letter_from_a_strange_stream_is_not_replayed() {
    let (server, cli) = idle().await;
    let fields = [
        "code",
        "x",
        "reason",
        "y",
        "stream",
        "elsewhere",
        "entry",
        "1-0",
        "attempts",
        "1",
        "at_ms",
        "1",
        "job.tool",
        "echo",
    ];
    server.cli(&[["XADD", "tm:{0}:dead", "*"].as_slice(), &fields].concat()).await.unwrap();
    let said = cli.run(&["dead", "replay", "--all"]).await;
    assert!(said.err.contains("it came from \"elsewhere\""), "{said:?}");
    assert_eq!((said.code, letters(&cli).await), (1, 1));
}
