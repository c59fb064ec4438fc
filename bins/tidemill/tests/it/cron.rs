//! Cron entries.

use serde_json::json;

use crate::cli::{SOON, idle, pool, shape};

#[tokio::test]
async fn an_entry_is_set_listed_paused_resumed_and_removed() {
    let (_server, cli) = idle().await;
    assert!(cli.run(&["cron", "list"]).await.ok().starts_with("there is no cron entry"));
    let set = [
        "cron",
        "set",
        "nightly",
        "--schedule",
        "30 2 * * *",
        "--time-zone",
        "Europe/Berlin",
        "--tool",
        "echo",
    ];
    let said = cli.run(&set).await.ok();
    assert!(said.starts_with("nightly fires next at 20"), "{said}");
    let list = shape(&cli.run(&["cron", "list"]).await.ok());
    assert_eq!(list[0], "NAME SCHEDULE ZONE RUNS STATE NEXT LAST");
    assert!(list[1].starts_with("nightly # # * * * Europe/Berlin tool echo active in #"), "{list:?}");
    assert_eq!(cli.run(&["cron", "pause", "nightly"]).await.ok(), "nightly is paused\n");
    let entry = &cli.run(&["cron", "list", "--json"]).await.documents()[0];
    assert_eq!((&entry["paused"], &entry["next_ms"]), (&json!(true), &json!(null)));
    let resumed = cli.run(&["cron", "resume", "nightly", "--json"]).await.document();
    assert!(resumed["next_ms"].as_u64().is_some(), "{resumed}");
    assert_eq!(cli.run(&["cron", "remove", "nightly"]).await.ok(), "nightly is removed\n");
    for command in ["remove", "pause", "resume"] {
        let error = cli.run(&["cron", command, "nightly"]).await.refused(1);
        assert!(error.contains("no cron entry is named \"nightly\"; there is none"), "{error}");
    }
}

#[tokio::test]
async fn an_entry_that_could_not_fire_is_refused() {
    let (_server, cli) = idle().await;
    let set = |more: &[&'static str]| [["cron", "set", "x"].as_slice(), more].concat();
    for (more, code, words) in [
        (vec!["--schedule", "every day", "--tool", "echo"], 2, "write five fields"),
        (vec!["--schedule", "0 0 30 2 *", "--tool", "echo"], 2, "never comes"),
        (vec!["--schedule", "@daily", "--time-zone", "Mars/Olympus", "--tool", "echo"], 2, "Mars/Olympus"),
        (vec!["--schedule", "@daily"], 2, "--tool"),
        (vec!["--schedule", "@daily", "--tool", "nothing"], 1, "no tool \"nothing\""),
        (vec!["--schedule", "@daily", "--workflow", "nothing"], 1, "no workflow \"nothing\""),
        (vec!["--schedule", "@daily", "--tool", "echo", "--input", "{"], 2, "not JSON"),
    ] {
        let error = cli.run(&set(&more)).await.refused(code);
        assert!(error.contains(words), "{more:?}: {error}");
    }
    cli.run(&set(&["--schedule", "@daily", "--tool", "nothing", "--allow-unknown-tools"])).await.ok();
}

#[tokio::test]
async fn an_entry_fires() {
    let (_server, _engines, cli) = pool().await;
    cli.run(&[
        "cron",
        "set",
        "ping",
        "--schedule",
        "* * * * * *",
        "--tool",
        "nothing",
        "--allow-unknown-tools",
    ])
    .await
    .ok();
    let fired = async || {
        let letters = cli.run(&["dead", "list", "--json"]).await.documents();
        letters.into_iter().next().ok_or_else(|| "nothing fired".to_owned())
    };
    let letter = tidemill_testkit::wait_for(SOON, "the entry to fire", fired).await.unwrap();
    assert_eq!(letter["fields"]["tool"], "nothing");
    assert!(cli.run(&["cron", "list", "--json"]).await.documents()[0]["last_ms"].is_u64());
}
