//! The life of versions, and what differs between them.

use serde_json::{Value, json};

use crate::cli::{Cli, idle, pool, shape};
use crate::runs::FLOW;

/// Publishes text with some flags, and gives what was said.
async fn publish(cli: &Cli, folder: &std::path::Path, text: &str, flags: &[&str]) -> Value {
    let file = folder.join("flow.yaml").display().to_string();
    std::fs::write(&file, text).unwrap();
    let arguments = [&["workflow", "publish", &file, "--json"], flags].concat();
    cli.run(&arguments).await.document()
}

async fn states(cli: &Cli) -> Vec<(u64, String)> {
    let lines = cli.run(&["workflow", "versions", "flow", "--json"]).await.documents();
    let state =
        |line: &Value| (line["version"].as_u64().unwrap(), line["state"].as_str().unwrap().to_owned());
    lines.iter().map(state).collect()
}

#[tokio::test]
async fn a_version_is_tried_activated_deprecated_and_archived_and_its_history_tells_why() {
    let (server, cli) = idle().await;
    let draft = publish(&cli, server.folder(), FLOW, &["--draft", "--reason", "a try", "--by", "ada"]).await;
    assert_eq!(
        (&draft["version"], &draft["state"], &draft["new"]),
        (&json!(1), &json!("draft"), &json!(true))
    );
    let error = cli.run(&["run", "flow"]).await.refused(1);
    assert!(error.contains("has no active version"), "{error}");
    let error = cli.run(&["run", "flow@1"]).await.refused(1);
    assert!(error.contains("flow@1 is a draft"), "{error}");
    cli.run(&["run", "flow", "--draft"]).await.refused(2);
    let tried = cli.run(&["run", "flow@1", "--draft", "-i", "{\"order\":1}", "--id", "r1"]).await;
    assert_eq!((tried.err.as_str(), tried.out.as_str()), ("note: flow@1 is a draft\n", "r1 is queued\n"));
    let said = cli.run(&["workflow", "activate", "flow@1", "--reason", "it works"]).await.ok();
    assert_eq!(said, "flow@1 is active; it was draft; a start of \"flow\" gets version 1\n");
    let error = cli.run(&["workflow", "activate", "flow@1", "--reason", "again"]).await.refused(1);
    assert!(error.contains("flow@1 is active"), "{error}");
    cli.run(&["workflow", "deprecate", "flow@1", "--reason", "old"]).await.ok();
    let asked = cli.run(&["run", "flow@1", "-i", "{\"order\":1}", "--json"]).await;
    assert!(asked.err.starts_with("note: flow@1 is deprecated"), "{asked:?}");
    assert!(asked.document()["warning"].is_string());
    let said = cli.run(&["workflow", "archive", "flow@1", "--reason", "older"]).await.ok();
    assert!(said.contains("\"flow\" has no active version now"), "{said}");
    let error = cli.run(&["workflow", "deprecate", "flow@1", "--reason", "no"]).await.refused(1);
    assert!(error.contains("nothing leaves the archive"), "{error}");
    let error = cli.run(&["run", "flow@1", "-i", "{\"order\":1}"]).await.refused(1);
    assert!(error.contains("flow@1 is archived"), "{error}");
    cli.run(&["workflow", "archive", "flow@1"]).await.refused(2);
    let again = publish(&cli, server.folder(), FLOW, &[]).await;
    assert_eq!((&again["version"], &again["new"]), (&json!(2), &json!(true)), "the text begins anew");
    assert_eq!(states(&cli).await, [(1, "archived".to_owned()), (2, "active".to_owned())]);
    let lines = cli.run(&["workflow", "history", "flow", "--json"]).await.documents();
    let told: Vec<_> = lines.iter().rev().map(|line| (&line["from"], &line["to"], &line["why"])).collect();
    let expected = [
        ("-", "draft", "a try"),
        ("draft", "active", "it works"),
        ("active", "deprecated", "old"),
        ("deprecated", "archived", "older"),
        ("-", "active", "published"),
    ]
    .map(|(from, to, why)| (json!(from), json!(to), json!(why)));
    assert_eq!(told, expected.iter().map(|(from, to, why)| (from, to, why)).collect::<Vec<_>>());
    assert_eq!(lines.last().unwrap()["by"], "ada");
    assert!(lines[0]["by"].as_str().unwrap().starts_with("cli:"), "{lines:?}");
    let table = shape(&cli.run(&["workflow", "history", "flow"]).await.ok());
    assert_eq!(table[0], "WHEN VERSION FROM TO BY WHY");
    assert!(table[1].contains(" flow@# - active cli:"), "{table:?}");
}

#[tokio::test]
async fn what_differs_is_told_and_the_exit_code_says_whether_anything_does() {
    let (server, cli) = idle().await;
    publish(&cli, server.folder(), FLOW, &[]).await;
    let other = FLOW
        .replace("{ ms: 1 }", "{ ms: 2 }")
        .replace("needs: [fraud, summary]", "needs: [summary]")
        .replace("required: [order]", "required: [order, size]");
    let file = server.folder().join("other.yaml").display().to_string();
    std::fs::write(&file, &other).unwrap();
    let same = cli.run(&["workflow", "diff", "flow", "flow@1"]).await.ok();
    assert_eq!(same, "flow@1 and flow@1 say the same\n");
    let differ = cli.run(&["workflow", "diff", "flow", &file]).await;
    assert_eq!(differ.code, 1, "{differ:?}");
    assert_eq!(differ.err, "tidemill: 4 differences, 3 may break something\n");
    let expected = format!(
        "flow@1 → {file}\nworkflow\n  + input.required: \"size\"   may break callers\n  ~ output: hold → fraud, hold   may break readers\n\
         step fraud\n  ~ with.ms: 1 → 2\nstep hold\n  - needs: \"fraud\"   may break runs\n"
    );
    assert_eq!(differ.out, expected);
    publish(&cli, server.folder(), &other, &[]).await;
    let differ = cli.run(&["workflow", "diff", "flow@1", "flow@2", "--json"]).await;
    let document: Value = serde_json::from_str(&differ.out).unwrap();
    assert_eq!((differ.code, &document["equal"], &document["breaking"]), (1, &json!(false), &json!(3)));
    assert_eq!(
        document["changes"][2],
        json!({"step":"fraud","path":"with.ms","kind":"changed","from":1,"to":2,"breaks":[]})
    );
    let error = cli.run(&["workflow", "diff", "flow@1", "flow@9"]).await.refused(1);
    assert!(error.contains("flow@9"), "{error}");
}

#[tokio::test]
async fn files_are_compared_without_redis() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let file = folder.path().join(name).display().to_string();
        std::fs::write(&file, text).unwrap();
        file
    };
    let (a, b) = (file("a.yaml", FLOW), file("b.yaml", &FLOW.replace("ms: 1", "ms: 3")));
    let cli = Cli::new("redis://127.0.0.1:1");
    let differ = cli.run(&["workflow", "diff", &a, &b]).await;
    assert_eq!((differ.code, differ.err.as_str()), (1, "tidemill: 1 difference, none may break anything\n"));
    cli.run(&["workflow", "diff", &a, &a]).await.ok();
}

#[tokio::test]
async fn a_definition_is_compared_with_runs_under_way_and_one_with_runs_is_archived_by_force() {
    let (server, _engines, cli) = pool().await;
    let slow = FLOW.replace("{ ms: 1 }", "{ ms: 60000 }");
    publish(&cli, server.folder(), &slow, &[]).await;
    cli.run(&["run", "flow", "-i", "{\"order\":1}", "--id", "r1"]).await.ok();
    let fraud = async || {
        let found = server.cli(&["HGET", "tm:{0}:run:r1", "s1"]).await.map_err(|error| error.to_string())?;
        if found.trim().is_empty() { Err("fraud has not begun".to_owned()) } else { Ok(()) }
    };
    tidemill_testkit::wait_for(crate::cli::SOON, "fraud to begin", fraud).await.unwrap();
    let error = cli.run(&["workflow", "archive", "flow@1", "--reason", "x"]).await.refused(1);
    assert!(error.contains("1 run is under way with flow@1 (r1)"), "{error}");
    let lines = cli.run(&["workflow", "versions", "flow", "--json"]).await.documents();
    assert_eq!((&lines[0]["live_runs"], lines[0].get("damage")), (&json!(1), None));
    let file = server.folder().join("new.yaml").display().to_string();
    std::fs::write(&file, slow.replace("id: hold", "id: keep")).unwrap();
    let fits = cli.run(&["workflow", "validate", &file, "--against-runs"]).await.ok();
    assert!(fits.contains("all 1 live runs of other versions would be possible under it"), "{fits}");
    std::fs::write(&file, slow.replace("id: fraud", "id: check").replace("[fraud, ", "[check, ")).unwrap();
    let misfit = cli.run(&["workflow", "validate", &file, "--against-runs"]).await;
    assert_eq!(misfit.code, 1, "{misfit:?}");
    assert!(
        misfit.out.contains("r1 (version 1) has begun step \"fraud\": it does not exist there"),
        "{misfit:?}"
    );
    let error = cli.run(&["workflow", "publish", &file, "--require-compatible"]).await.refused(1);
    assert!(error.contains("1 of 1 live runs"), "{error}");
    assert_eq!(states(&cli).await.len(), 1);
    cli.run(&["workflow", "archive", "flow@1", "--reason", "x", "--force"]).await.ok();
    let run = cli.run(&["status", "r1", "--json"]).await.document();
    assert_eq!(run["state"], "running", "a run goes on with its version");
    cli.run(&["cancel", "r1"]).await.ok();
}

#[tokio::test]
async fn a_damaged_text_is_shown_as_damaged() {
    let (server, cli) = idle().await;
    publish(&cli, server.folder(), &FLOW.replace("name: flow", "name: flow\nversion: 1"), &[]).await;
    server.cli(&["HSET", "tm:{0}:workflow:flow", "1", "name: flow"]).await.unwrap();
    let table = cli.run(&["workflow", "versions", "flow"]).await.ok();
    assert!(table.contains("damaged: its 10 bytes have the SHA-256"), "{table}");
    let error = cli.run(&["workflow", "show", "flow"]).await.refused(1);
    assert!(error.contains("flow@1 is damaged"), "{error}");
    let listed = cli.run(&["workflow", "list"]).await.ok();
    assert!(listed.contains("not readable"), "{listed}");
}
