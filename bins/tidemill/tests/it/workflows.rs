//! Definitions: checked, published, shown, drawn.

use serde_json::json;

use crate::cli::{Cli, idle, pool, shape};
use crate::runs::FLOW;

const BAD: &str = "\
name: bad
steps:
  - { id: a, tool: ecko, with: {} }
  - { id: b, tool: echo, needs: [c], with: {} }
";

#[tokio::test]
async fn a_bad_definition_is_refused_with_file_line_and_reason() {
    let (server, cli) = idle().await;
    let file = server.folder().join("bad.yaml").display().to_string();
    std::fs::write(&file, BAD).unwrap();
    for command in ["validate", "publish"] {
        let error = cli.run(&["workflow", command, &file]).await.refused(1);
        assert!(error.contains("2 problems in 1 definition"), "{error}");
        assert!(error.contains(&format!("{file}:3:")) && error.contains("[unknown_tool]"), "{error}");
        assert!(error.contains(&format!("{file}:4:")) && error.contains("[unknown_need]"), "{error}");
        let error = cli.run(&["workflow", command, &file, "--json"]).await.refused(1);
        let error: serde_json::Value = serde_json::from_str(&error).unwrap();
        let problems = error["error"]["problems"].as_array().unwrap();
        assert_eq!((problems.len(), &problems[0]["line"]), (2, &json!(3)));
    }
    assert!(cli.run(&["workflow", "list"]).await.ok().starts_with("no workflow is published"));
    let error = cli.run(&["workflow", "publish", "/no/such.yaml"]).await.refused(2);
    assert!(error.contains("/no/such.yaml cannot be read"), "{error}");
}

#[tokio::test]
async fn a_definition_is_published_once_listed_shown_and_drawn() {
    let (server, cli) = idle().await;
    let file = server.folder().join("flow.yaml").display().to_string();
    std::fs::write(&file, FLOW).unwrap();
    assert_eq!(
        cli.run(&["workflow", "validate", &file]).await.ok(),
        format!("{file}: flow is valid, 4 steps\n")
    );
    assert_eq!(cli.run(&["workflow", "publish", &file]).await.ok(), "flow@1 is published, 4 steps\n");
    let again = cli.run(&["workflow", "publish", &file, "--json"]).await.document();
    assert_eq!((&again["version"], &again["new"]), (&json!(1), &json!(false)));
    assert_eq!(
        shape(&cli.run(&["workflow", "list"]).await.ok()),
        ["WORKFLOW ACTIVE VERSIONS STEPS DESCRIPTION", "flow # # #"]
    );
    let shown = cli.run(&["workflow", "show", "flow@1"]).await.ok();
    assert!(shown.contains("\"fraud\""), "{shown}");
    let error = cli.run(&["workflow", "show", "flow@7"]).await.refused(1);
    assert!(error.contains("its newest version is 1"), "{error}");
    let mermaid = cli.run(&["workflow", "graph", "flow"]).await.ok();
    assert!(mermaid.starts_with("flowchart TD\n") && mermaid.contains("n0 --> n1"), "{mermaid}");
    let dot = cli.run(&["workflow", "graph", &file, "--format", "dot"]).await.ok();
    assert!(dot.starts_with("digraph \"flow") && dot.contains("n0 -> n1"), "{dot}");
    let error = cli.run(&["workflow", "graph", "nothing"]).await.refused(1);
    assert!(error.contains("no workflow \"nothing\" is published"), "{error}");
}

#[tokio::test]
async fn none_is_published_if_one_is_bad() {
    let (server, cli) = idle().await;
    let (good, bad) = (server.folder().join("flow.yaml"), server.folder().join("bad.yaml"));
    std::fs::write(&good, FLOW).unwrap();
    std::fs::write(&bad, BAD).unwrap();
    let arguments = ["workflow", "publish", &good.display().to_string(), &bad.display().to_string()];
    cli.run(&arguments).await.refused(1);
    assert_eq!(cli.run(&["workflow", "list", "--json"]).await.documents(), Vec::<serde_json::Value>::new());
}

#[tokio::test]
async fn tools_of_the_settings_and_of_workers_are_known() {
    let (server, _engines, cli) = pool().await;
    let file = server.folder().join("own.yaml").display().to_string();
    std::fs::write(&file, "name: own\nsteps:\n  - { id: a, tool: shop.hold, with: { value: 1 } }\n").unwrap();
    let error = cli.run(&["workflow", "publish", &file]).await.refused(1);
    assert!(error.contains("shop.hold"), "{error}");
    cli.run(&["workflow", "publish", &file, "--set", "tools={shop.hold: {kind: echo}}"]).await.ok();
    server.cli(&["HSET", "tm:{0}:tools", "shop.hold", r#"{"kind":"python"}"#]).await.unwrap();
    cli.run(&["workflow", "validate", &file]).await.ok();
    let error = cli.run(&["workflow", "validate", &file, "--offline"]).await.refused(1);
    assert!(error.contains("unknown_tool"), "{error}");
    cli.run(&["workflow", "validate", &file, "--offline", "--allow-unknown-tools"]).await.ok();
}

#[tokio::test]
async fn without_redis_a_definition_is_still_checked_and_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("flow.yaml").display().to_string();
    std::fs::write(&file, FLOW).unwrap();
    let said = Cli::new("redis://:hunter2@127.0.0.1:1/0").run(&["workflow", "validate", &file]).await;
    assert!(said.err.contains("note: no Redis at redis://:***@127.0.0.1:1/0"), "{said:?}");
    assert!(said.ok().ends_with("flow is valid, 4 steps\n"));
}
