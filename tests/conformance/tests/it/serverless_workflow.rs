//! The runner.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tidemill_conformance::{Check, Scenario, read_feature, read_own};
use tidemill_protocol::RunState;
use tidemill_workflow::AnyTool;

use crate::pool::Pool;

/// How many scenarios the kit has.
const SCENARIOS: usize = 21;

/// Files of a folder that end so, in the order of their names.
fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    files.retain(|file| file.to_string_lossy().ends_with(end));
    files.sort();
    files
}

fn scenarios(
    folder: &Path,
    end: &str,
    read: impl Fn(&str) -> Result<Vec<Scenario>, String>,
) -> Vec<Scenario> {
    let read = |file: PathBuf| {
        let text = std::fs::read_to_string(&file).expect("the file can be read");
        read(&text).unwrap_or_else(|why| panic!("{}: {why}", file.display()))
    };
    files(folder, end).into_iter().flat_map(read).collect()
}

/// Runs them all; what does not hold, a line each.
async fn failures(pool: &Pool, kind: &str, scenarios: &[Scenario]) -> Vec<String> {
    let mut failures = Vec::new();
    for (number, scenario) in scenarios.iter().enumerate() {
        let name = format!("{kind}-{number}");
        for why in run(pool, &name, scenario).await {
            failures.push(format!("{}: {}: {why}", scenario.feature, scenario.name));
        }
    }
    failures
}

async fn run(pool: &Pool, name: &str, scenario: &Scenario) -> Vec<String> {
    let mut document = scenario.document.clone();
    if scenario.checks.iter().any(|check| matches!(check, Check::Ran(..))) {
        document["document"]["metadata"] = json!({ "lifecycleEvents": true });
    }
    let text = document.to_string();
    if let Err(problems) = tidemill_serverless::plan(&text, name, &AnyTool) {
        return vec![format!("refused: {problems}")];
    }
    pool.publish(name, 1, &text).await;
    pool.run(name, name, &scenario.input).await;
    let run = pool.ended(name).await;
    let parsed =
        |text: Option<&[u8]>| text.and_then(|text| serde_json::from_slice(text).ok()).unwrap_or(Value::Null);
    let ended = if run.state == RunState::Succeeded {
        Ok(parsed(run.output.as_deref()))
    } else {
        let error = parsed(run.error.as_deref().map(str::as_bytes));
        let message = error.get("message").and_then(Value::as_str).unwrap_or_default();
        Err(serde_json::from_str(message).unwrap_or(error))
    };
    let ran = ran(&pool.events().await, name);
    scenario.checks.iter().filter_map(|check| check.holds(&ended, &ran).err()).collect()
}

/// Names of the tasks of a run in the order in which they began.
fn ran(events: &[Value], run: &str) -> Vec<String> {
    let started = events.iter().filter(|event| {
        event["type"] == "io.serverlessworkflow.task.started.v1" && event["data"]["workflow"] == *run
    });
    started
        .filter_map(|event| event["data"]["task"].as_str()?.rsplit('/').next().map(str::to_owned))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_scenario_of_the_kit_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("serverless-workflow");
    let scenarios = scenarios(&folder, ".yaml", read_own);
    assert_eq!(scenarios.len(), SCENARIOS);
    let pool = Pool::start().await;
    let failures = failures(&pool, "own", &scenarios).await;
    assert!(failures.is_empty(), "{} of {SCENARIOS}:\n{}", failures.len(), failures.join("\n"));
}

/// The kit's own files, where somebody has them.
#[tokio::test(flavor = "multi_thread")]
async fn the_kit_itself_holds_where_it_is_at_hand() {
    #[expect(clippy::disallowed_methods, reason = "a path of the person who runs the tests, not a setting")]
    let Ok(folder) = std::env::var("TIDEMILL_CTK") else { return };
    let scenarios = scenarios(Path::new(&folder), ".feature", read_feature);
    assert!(!scenarios.is_empty(), "no feature in {folder}");
    let pool = Pool::start().await;
    let failures = failures(&pool, "kit", &scenarios).await;
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), scenarios.len(), failures.join("\n"));
}
