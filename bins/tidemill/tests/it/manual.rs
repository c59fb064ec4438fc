//! Help, completions, settings, and the page about the command.

use std::collections::BTreeSet;

use crate::cli::Cli;

fn cli() -> Cli {
    Cli::new("redis://127.0.0.1:1")
}

/// The commands below one, as its help lists them.
async fn commands(path: &[&str]) -> Vec<String> {
    let help = cli().run(&[path, &["--help"]].concat()).await.ok();
    let Some((_, list)) = help.split_once("Commands:\n") else { return Vec::new() };
    let lines = list
        .lines()
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = lines.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    names.map(ToOwned::to_owned).collect()
}

/// `tidemill` and every command below it.
async fn every_command() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for name in commands(&[]).await {
        let below = commands(&[&name]).await;
        if below.is_empty() {
            all.insert(format!("tidemill {name}"));
        }
        all.extend(below.iter().map(|below| format!("tidemill {name} {below}")));
    }
    all
}

#[tokio::test]
async fn the_page_has_each_command_with_an_example() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md")).unwrap();
    let mut described = BTreeSet::new();
    for section in page.split("\n### ").skip(1) {
        let (heading, body) = section.split_once('\n').unwrap();
        let name = heading.trim_matches('`').to_owned();
        assert!(body.contains("```"), "{name} has no example");
        assert!(body.contains(&name), "the example of {name} does not use it");
        described.insert(name);
    }
    assert_eq!(described, every_command().await);
}

#[tokio::test]
async fn every_command_s_help_says_what_it_does() {
    for command in every_command().await {
        let words: Vec<&str> = command.split(' ').skip(1).chain(["--help"]).collect();
        let help = cli().run(&words).await.ok();
        assert!(help.contains(&format!("Usage: {command}")), "{help}");
    }
    let help = cli().run(&["--help"]).await.ok();
    for (exit, _) in tidemill_runtime::exit::Exit::ALL {
        assert!(
            help.contains(&format!("\n  {:<4} ", exit.code())),
            "exit code {} is not in --help",
            exit.code()
        );
    }
}

#[tokio::test]
async fn completions_are_written_for_each_shell() {
    for (shell, mark) in
        [("bash", "complete -F"), ("zsh", "#compdef tidemill"), ("fish", "complete -c tidemill")]
    {
        let text = cli().run(&["completions", shell]).await.ok();
        assert!(text.contains(mark) && text.contains("enqueue") && text.contains("dry-run"), "{shell}");
    }
    let error = cli().run(&["completions", "tcsh"]).await.refused(2);
    assert!(error.contains("bash"), "{error}");
}

#[tokio::test]
async fn bash_reads_its_completions() {
    let text = cli().run(&["completions", "bash"]).await.ok();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidemill.bash");
    std::fs::write(&file, text).unwrap();
    let read = tokio::process::Command::new("bash").arg("-n").arg(&file).output().await.unwrap();
    assert!(read.status.success(), "{read:?}");
}

#[tokio::test]
async fn the_settings_of_all_programs_are_printed_and_checked() {
    let printed = cli().run(&["config", "print", "--set", "scheduler.crash_budget=5"]).await.ok();
    for section in
        ["redis:", "worker:", "scheduler:", "retention:", "producer:", "services:", "http_request:"]
    {
        assert!(printed.lines().any(|line| line.starts_with(section)), "{section} in {printed}");
    }
    assert!(printed.contains("crash_budget: 5  # flag --set"), "{printed}");
    assert_eq!(cli().run(&["config", "check"]).await.ok(), "settings are valid\n");
    assert_eq!(cli().run(&["config", "check", "--json"]).await.document()["valid"], true);
    let bad = ["config", "check", "--set", "worker.max_parallel=0", "--set", "scheduler.crash_budget=0"];
    let error = cli().run(&bad).await.refused(3);
    assert!(error.contains("worker.max_parallel") && error.contains("scheduler.crash_budget"), "{error}");
    let bad = [
        "config",
        "check",
        "--set",
        "services.openai.concurrency=0",
        "--set",
        "services.openai.breaker.probes=0",
    ];
    let error = cli().run(&bad).await.refused(3);
    assert!(error.contains("services.openai.concurrency: 0 would stop every call"), "{error}");
    assert!(error.contains("services.openai.breaker.probes: 0 is not between"), "{error}");
    let error = cli().run(&["queues", "--set", "worker.max_paralel=3"]).await.refused(3);
    assert!(error.contains("did you mean `max_parallel`?"), "{error}");
}

#[tokio::test]
async fn colours_are_used_only_where_they_are_wanted() {
    let (_server, cli) = crate::cli::idle().await;
    assert!(!cli.run(&["queues"]).await.ok().contains('\u{1b}'), "no terminal, no colours");
    assert!(cli.run(&["queues", "--color", "always"]).await.ok().contains("\u{1b}[1mQUEUE"));
    assert!(!cli.run(&["queues", "--color", "always", "--json"]).await.ok().contains('\u{1b}'));
}
