//! Examples that are scripts and pages with commands, run as their readers run them.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tidemill_testkit::{Process, RedisServer, built_binary};

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

/// The code blocks of a page that are of one language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    page.split(&*fence).skip(1).filter_map(|rest| Some(rest.split_once("```")?.0.to_owned())).collect()
}

/// The names of the services in a block, which stand two spaces deep.
fn services_of(block: &str) -> Vec<String> {
    let names = block.lines().filter_map(|line| {
        let name = line.strip_prefix("  ").filter(|name| !name.starts_with([' ', '-', '#']))?;
        Some(match name.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?.0.to_owned(),
            None => name.split_once(':')?.0.to_owned(),
        })
    });
    names.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_pages_on_services_show_is_valid_and_works() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let server = RedisServer::start().await.unwrap();
    let programs = built_binary("tidemill").unwrap();
    let run = |script: &str| {
        let mut shell = Command::new("bash");
        shell.args(["-euc", "PATH=$0:$PATH; eval \"$1\""]).arg(programs.parent().unwrap()).arg(script);
        // what other tests are told is none of the program's settings
        shell.env_remove("TIDEMILL_VALKEY").env_remove("TIDEMILL_TEST_ALL");
        shell.env("TIDEMILL_REDIS_URL", server.url());
        let done = shell.output().unwrap();
        let told =
            format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success(), "{script}\n{told}");
        told
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("services.yaml");
    for page in ["services.md", "services-cache.md"] {
        let page = std::fs::read_to_string(docs.join(page)).unwrap();
        for block in blocks(&page, "yaml") {
            std::fs::write(&file, &block).unwrap();
            let names = services_of(&block);
            assert!(!names.is_empty(), "{block}");
            for name in names {
                run(&format!("tidemill service set '{name}' --file '{}'", file.display()));
            }
        }
        for block in blocks(&page, "sh") {
            run(&block);
        }
    }
    let listed = run("tidemill service list");
    for name in ["openai", "anthropic", "github", "orders-db", "vendor", "search", "@pool", "@tenant:*"] {
        assert!(listed.contains(name), "{name} is missing:\n{listed}");
    }
    assert!(!listed.contains("left out"), "{listed}");
}
