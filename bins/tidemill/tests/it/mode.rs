//! The execution mode on the command line.

use serde_json::json;

use crate::cli::{Cli, idle, pool, shape};

#[tokio::test]
async fn the_mode_is_switched_rolled_back_and_told() {
    let (_server, cli) = idle().await;
    assert_eq!(cli.run(&["mode", "get"]).await.ok(), "hybrid (nobody has switched it)\n");
    assert_eq!(cli.run(&["mode", "history"]).await.ok(), "nobody has switched the mode; it is hybrid\n");
    let error = cli.run(&["mode", "rollback", "--reason", "x"]).await.refused(1);
    assert!(error.contains("never switched"), "{error}");
    let switch = ["mode", "switch", "optimized", "--reason", "one at a time", "--by", "ada"];
    assert!(cli.run(&switch).await.ok().starts_with("runs start optimized from now on; it was hybrid"));
    assert_eq!(cli.run(&switch).await.ok(), "the mode is optimized already\n");
    let now = cli.run(&["mode", "get"]).await.ok();
    assert!(
        now.starts_with("optimized, since 2")
            && now.contains("by ada (cli:")
            && now.ends_with(": one at a time\n"),
        "{now}"
    );
    let document = cli.run(&["mode", "get", "--json"]).await.document();
    assert_eq!(
        (&document["mode"], &document["before"], &document["version"]),
        (&json!("optimized"), &json!("hybrid"), &json!(1))
    );
    let late = ["mode", "switch", "classic", "--reason", "x", "--version", "0"];
    let error = cli.run(&late).await.refused(1);
    assert!(error.contains("it is optimized now"), "{error}");
    assert!(cli.run(&["mode", "rollback", "--reason", "enough"]).await.ok().contains("hybrid"));
    let table = shape(&cli.run(&["mode", "history"]).await.ok());
    assert_eq!(table[0], "WHEN NO WHAT FROM TO BY WHY");
    assert!(
        table[1].contains("rollback optimized hybrid cli:")
            && table[2].contains("switch hybrid optimized ada"),
        "{table:?}"
    );
    assert_eq!(cli.run(&["mode", "history", "--limit", "1", "--json"]).await.documents().len(), 1);
}

#[tokio::test]
async fn what_is_no_mode_or_has_no_reason_is_refused() {
    let (_server, cli) = idle().await;
    let error = cli.run(&["mode", "switch", "clasic", "--reason", "x"]).await.refused(2);
    assert!(error.contains("did you mean \"classic\"?"), "{error}");
    cli.run(&["mode", "switch", "classic"]).await.refused(2);
    let error = cli.run(&["run", "one", "--mode", "fast"]).await.refused(2);
    assert!(error.contains("classic, state_machine, optimized and hybrid"), "{error}");
}

#[tokio::test]
async fn runs_of_each_mode_are_counted_and_timed() {
    let (_server, _engines, cli) = pool().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("one.yaml");
    std::fs::write(&file, "name: one\nversion: 1\nsteps: [{ id: a, tool: echo }, { id: b, tool: echo, needs: [a] }, { id: c, tool: echo, needs: [a] }, { id: d, tool: echo, needs: [b, c] }]\n").unwrap();
    cli.run(&["workflow", "publish", file.to_str().unwrap()]).await.ok();
    for (mode, id) in [("classic", "first"), ("classic", "second"), ("hybrid", "third")] {
        cli.run(&["run", "one", "--mode", mode, "--id", id, "--wait"]).await.ok();
    }
    let shown = cli.run(&["status", "first", "--json"]).await.document();
    assert_eq!((&shown["mode"], &shown["state"]), (&json!("classic"), &json!("succeeded")));
    cli.run(&["verify", "--all"]).await.ok();
    let mut metrics = json!(null);
    tidemill_testkit::wait_until(crate::cli::SOON, "the figures", async || {
        metrics = cli.run(&["mode", "metrics", "--json"]).await.document();
        metrics["performanceByMode"]["classic"]["count"] == 2 && metrics["executionsByMode"]["hybrid"] == 1
    })
    .await
    .unwrap();
    assert_eq!(
        (&metrics["currentMode"], &metrics["executionsByMode"]["classic"]),
        (&json!("hybrid"), &json!(2))
    );
    let table = shape(&cli.run(&["mode", "metrics"]).await.ok());
    assert_eq!(table[0], "MODE STARTED ENDED AVERAGE P# P# NOW");
    assert!(table[2].starts_with("hybrid # #") && table[2].ends_with("current"), "{table:?}");
}

#[tokio::test]
async fn variables_of_other_engines_are_settings_and_contradictions_are_refused() {
    let cli = || {
        Cli::new("redis://127.0.0.1:1").with_variable("MAX_WORKERS", "7").with_variable("TIMEOUT_MS", "1234")
    };
    let cli_of = |mode| {
        cli().with_variable("WORKFLOW_ENGINE_MODE", mode).with_variable("MAX_CONCURRENT_EXECUTIONS", "50")
    };
    let printed = cli_of("state_machine").run(&["config", "print"]).await.ok();
    for line in [
        "max_parallel: 7  # variable MAX_WORKERS",
        "timeout_ms: 1234  # variable TIMEOUT_MS",
        "mode: state_machine  # variable WORKFLOW_ENGINE_MODE",
        "max_live_runs: 50  # variable MAX_CONCURRENT_EXECUTIONS",
    ] {
        assert!(printed.contains(line), "{line} in {printed}");
    }
    let contradicting = cli_of("classic").with_variable("ENABLE_HYBRID_EXECUTION", "true");
    let contradicting = contradicting.with_variable("TIDEMILL_WORKER__MAX_PARALLEL", "8");
    let error = contradicting.run(&["config", "check"]).await.refused(3);
    assert!(error.contains("WORKFLOW_ENGINE_MODE is classic, which means false"), "{error}");
    assert!(error.contains("variable MAX_WORKERS: it sets worker.max_parallel to 7"), "{error}");
}
