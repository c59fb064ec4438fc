//! Examples that are scripts, run as their readers run them.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tidemill_testkit::{Process, built_binary};

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_share_one_limit_as_the_example_shows() {
    for program in ["python3", "curl"] {
        if Command::new(program).arg("--version").output().is_err() {
            println!("skipped: no `{program}` on PATH");
            return;
        }
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/shared-limit/run.sh");
    let programs = built_binary("tidemill-worker").unwrap();
    let builder = Process::builder(script).env("BIN_DIR", programs.parent().unwrap()).env("JOBS", "100");
    let mut example = builder.start().unwrap();
    let status = example.wait(Duration::from_secs(90)).await.unwrap();
    let output = example.output();
    assert!(status.success(), "{output}");

    let seen = output.lines().find_map(|line| line.strip_prefix("the vendor saw: ")).unwrap();
    let seen: Value = serde_json::from_str(seen).unwrap();
    assert_eq!((&seen["calls"], &seen["refused"]), (&100.into(), &0.into()), "{output}");
    assert!(seen["fullest_window"].as_u64().unwrap() > 30, "the limit was in use: {output}");
    let shares = output.lines().find(|line| line.starts_with("the first worker made")).unwrap();
    let counts: Vec<u32> = shares.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert_eq!((counts.len(), counts.iter().sum::<u32>()), (2, 100), "{shares}");
    assert!(counts.iter().all(|count| *count > 10), "both worked: {shares}");
    let rows =
        output.lines().filter(|line| line.starts_with("vendor ") && line.contains("closed 0/")).count();
    assert!(rows >= 3, "it was shown as it went: {output}");
}
