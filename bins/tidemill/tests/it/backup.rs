//! Backups: made while a pool works, refused when they are not what was written, restored and finished elsewhere.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use age::secrecy::ExposeSecret;
use serde_json::{Value, json};
use tidemill_testkit::{Process, RedisServer, wait_for};

use crate::cli::{Cli, SOON, idle, pool, program};
use crate::runs::{FLOW, publish};

/// Steps that run, wait for a retry, have items, wait where nobody serves yet, and one that fails.
const BUSY: &str = r#"
name: busy
failure: finish
steps:
  - { id: quick, tool: echo, with: { n: "${ .input.n }" } }
  - { id: nap, tool: sleep, with: { ms: 150 } }
  - { id: flaky, tool: jq.transform, with: { filter: "error(\"no\")" }, retry: { max_attempts: 2, base_ms: 600 }, on_error: continue }
  - { id: each, tool: sleep, for_each: { items: "${ [range(12)] }", concurrency: 3 }, with: { ms: 20 } }
  - { id: elsewhere, tool: echo, queue: later, needs: [nap], with: {} }
  - { id: last, tool: echo, needs: [quick, flaky, each, elsewhere], with: { n: "${ .steps.quick.output.n }" } }
output: "${ .steps.last.output }"
"#;

/// A pool's engines for one namespace, with these queues.
async fn engines_of(server: &RedisServer, namespace: &str, queues: &str) -> Process {
    let mut engines = Process::builder(program())
        .args(["dev", "--http-addr", "127.0.0.1:0", "--redis-url"])
        .arg(server.url())
        .args(["--set", &format!("namespace={namespace}"), "--set", &format!("worker.queues={queues}")])
        .start()
        .unwrap();
    engines.wait_for_line("Ctrl-C ends it", SOON).await.unwrap();
    engines
}

async fn file_of(cli: &Cli, words: &[&str]) -> (PathBuf, Value) {
    let made = cli.run(&[&["backup", "create", "--json", "--to"], words].concat()).await.document();
    (PathBuf::from(made["file"].as_str().unwrap()), made)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The replies in a stream, by the job's id.
async fn replies(server: &RedisServer) -> BTreeMap<String, usize> {
    let found = server.cli(&["XRANGE", "done", "-", "+"]).await.unwrap();
    let mut by_id = BTreeMap::new();
    for line in found.lines().filter(|line| line.starts_with('{')) {
        let reply: Value = serde_json::from_str(line).unwrap();
        *by_id.entry(reply["id"].as_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    by_id
}

#[tokio::test]
async fn a_pool_that_is_saved_at_work_is_restored_elsewhere_and_does_the_rest_once() {
    const RUNS: usize = 12;
    const JOBS: usize = 120;
    let (server, cli) = idle().await;
    let mut source = engines_of(&server, "tm", "default=1").await;
    publish(&cli, server.folder(), BUSY).await;
    for n in 0..RUNS {
        let input = format!("{{\"n\":{n}}}");
        cli.run(&["run", "busy", "-i", &input, "--id", &format!("r{n}")]).await.ok();
    }
    for n in 0..JOBS {
        let (id, queue) = (format!("j{n}"), if n % 3 == 0 { "later" } else { "default" });
        let key = format!("tm:{{0}}:jobs:{queue}");
        let job = ["XADD", &key, "*", "tool", "sleep", "input", "{\"ms\":30}", "id", &id, "reply_to", "done"];
        server.cli(&job).await.unwrap();
    }
    server.cli(&["XADD", "tm:{0}:jobs:default", "*", "tool", "no.such.tool", "id", "dead"]).await.unwrap();
    let folder = server.folder().join("backups");
    std::fs::create_dir(&folder).unwrap();
    let (file, made) = file_of(&cli, &[text(&folder), "--results"]).await;
    assert_eq!(made["left_out"], json!({ "keys": 0, "names": [], "runs": [] }), "{made}");
    assert!(made["counts"]["in_flight"].as_u64().unwrap() > 0, "it was made at work: {made}");
    source.kill().await.unwrap();
    let checked = cli.run(&["backup", "verify", text(&file), "--json"]).await.document();
    assert_eq!((&checked["faults"], &checked["counts"]), (&json!([]), &made["counts"]));

    server.cli(&["DEL", "done"]).await.unwrap();
    let said = cli.run(&["backup", "restore", text(&file), "--into", "other"]).await.ok();
    assert!(said.contains("restored into other: 12 runs") && said.contains("all is as audited"), "{said}");
    let jobs = made["counts"]["jobs"].as_u64().unwrap();
    let _target = engines_of(&server, "other", "default=1,later=1").await;
    let idle = async || {
        let live = server.cli(&["ZCARD", "other:{0}:live"]).await.map_err(|error| error.to_string())?;
        let mut left = vec![live.trim().to_owned()];
        for key in ["jobs:default", "jobs:default:first", "jobs:later", "runs"] {
            let length = server.cli(&["XLEN", &format!("other:{{0}}:{key}")]).await;
            left.push(length.map_err(|error| error.to_string())?.trim().to_owned());
        }
        if left.iter().all(|left| left == "0") { Ok(()) } else { Err(format!("{left:?}")) }
    };
    wait_for(SOON, "the rest to be done", idle).await.unwrap();
    for n in 0..RUNS {
        let words = ["status", &format!("r{n}"), "--json", "--set", "namespace=other"];
        let run = cli.run(&words).await.document();
        assert_eq!((&run["state"], &run["output"]["n"]), (&json!("succeeded"), &json!(n)), "{run}");
    }
    let replies = replies(&server).await;
    assert!(replies.values().all(|count| *count == 1), "{replies:?}");
    assert!(replies.len() as u64 <= jobs && replies.len() >= JOBS / 3, "{} of {jobs}", replies.len());
    let verified = cli.run(&["verify", "--all", "--set", "namespace=other"]).await.ok();
    assert!(verified.starts_with("12 runs verified"), "{verified}");
}

#[tokio::test]
async fn a_file_that_is_not_what_was_written_is_refused_by_name() {
    let (server, _engines, cli) = pool().await;
    publish(&cli, server.folder(), FLOW).await;
    cli.run(&["run", "flow", "-i", r#"{"order":1}"#, "--id", "r", "--wait"]).await.ok();
    let (file, _) = file_of(&cli, &[text(server.folder())]).await;
    let bytes = std::fs::read(&file).unwrap();
    let other = server.folder().join("other.tidemill");
    let code = async |bytes: &[u8], words: &[&str]| {
        std::fs::write(&other, bytes).unwrap();
        let words = [&["backup"], words, &[text(&other), "--json"]].concat();
        let error: Value = serde_json::from_str(&cli.run(&words).await.refused(1)).unwrap();
        error["error"]["code"].as_str().unwrap().to_owned()
    };
    assert_eq!(code(&bytes[..bytes.len() / 2], &["verify"]).await, "damaged_backup");
    assert_eq!(code(&bytes[..bytes.len() - 1], &["restore", "--into", "b"]).await, "damaged_backup");
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 8;
    assert_eq!(code(&flipped, &["restore", "--into", "b"]).await, "damaged_backup");
    assert_eq!(code(b"something else", &["verify"]).await, "no_backup");
    assert_eq!(server.cli(&["KEYS", "b:*"]).await.unwrap().trim(), "", "nothing was written");
    let missing = cli.run(&["backup", "verify", "/nowhere/x.tidemill"]).await.refused(1);
    assert!(missing.contains("cannot read /nowhere/x.tidemill"), "{missing}");
}

#[tokio::test]
async fn an_encrypted_backup_opens_with_its_own_key_only() {
    let (server, cli) = idle().await;
    publish(&cli, server.folder(), FLOW).await;
    let folder = server.folder();
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (right, wrong) = (write("right", "correct horse\n"), write("wrong", "battery staple\n"));
    let (file, _) = file_of(&cli, &[text(folder), "--passphrase-file", text(&right)]).await;
    assert!(text(&file).ends_with(".tidemill.age"), "{file:?}");
    assert!(std::fs::read(&file).unwrap().starts_with(b"age-encryption.org/v1\n"));
    let verify = ["backup", "verify", text(&file)];
    let error = cli.run(&verify).await.refused(2);
    assert!(error.contains("is encrypted: give its --identity-file or --passphrase-file"), "{error}");
    let error = cli.run(&[&verify[..], &["--passphrase-file", text(&wrong)]].concat()).await.refused(1);
    assert!(error.contains("another key or passphrase"), "{error}");
    cli.run(&[&verify[..], &["--passphrase-file", text(&right)]].concat()).await.ok();
    let list = cli.run(&["backup", "list", text(folder)]).await.ok();
    assert!(list.contains("encrypted") && list.contains(".tidemill.age"), "{list}");

    let (own, foreign) = (age::x25519::Identity::generate(), age::x25519::Identity::generate());
    let secret = |name: &str, key: &age::x25519::Identity| {
        write(name, &format!("# of this test\n{}\n", key.to_string().expose_secret()))
    };
    let keys = (secret("own", &own), secret("foreign", &foreign));
    let sealed = server.folder().join("sealed");
    std::fs::create_dir(&sealed).unwrap();
    let public = own.to_public().to_string();
    let (file, _) = file_of(&cli, &[text(&sealed), "--recipient", &public]).await;
    let verify = ["backup", "verify", text(&file), "--identity-file"];
    cli.run(&[&verify[..], &[text(&keys.0)]].concat()).await.ok();
    let error = cli.run(&[&verify[..], &[text(&keys.1)]].concat()).await.refused(1);
    assert!(error.contains("another key or passphrase"), "{error}");
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.len() - 40;
    bytes[at] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let error = cli.run(&[&verify[..], &[text(&keys.0)]].concat()).await.refused(1);
    assert!(error.contains("damaged"), "{error}");
    let into = ["backup", "restore", text(&file), "--into", "b", "--identity-file", text(&keys.0)];
    assert!(cli.run(&into).await.refused(1).contains("damaged"));
    let bad = ["backup", "create", "--to", text(folder), "--recipient", "age1nonsense"];
    let error = cli.run(&bad).await.refused(2);
    assert!(error.contains("\"age1nonsense\" is no public key of age"), "{error}");
    assert_eq!(std::fs::read_dir(&sealed).unwrap().count(), 1, "nothing is left behind");
}

#[tokio::test]
async fn a_restore_says_what_is_in_its_way() {
    let (server, mut engines, cli) = pool().await;
    publish(&cli, server.folder(), FLOW).await;
    cli.run(&["run", "flow", "-i", r#"{"order":1}"#, "--id", "r", "--wait"]).await.ok();
    let (file, _) = file_of(&cli, &[text(server.folder())]).await;
    let restore = ["backup", "restore", text(&file)];
    let error = cli.run(&restore).await.refused(1);
    assert!(error.contains("the namespace \"tm\" is not empty"), "{error}");
    let error = cli.run(&[&restore[..], &["--replace"]].concat()).await.refused(1);
    assert!(error.contains("works in the namespace \"tm\": stop all workers and schedulers"), "{error}");
    let error = cli.run(&[&restore[..], &["--set", "namespace=mine"]].concat()).await.refused(2);
    assert!(error.contains("say --into mine"), "{error}");
    engines.kill().await.unwrap();
    let said = cli.run(&[&restore[..], &["--replace"]].concat()).await.ok();
    assert!(said.contains("1 runs verified"), "{said}");
    assert_eq!(cli.run(&["status", "r", "--json"]).await.document()["state"], json!("succeeded"));
    let wide = Cli::new(server.url()).with_partitions(4);
    wide.run(&[&restore[..], &["--into", "wide"]].concat()).await.ok();
    assert_eq!(
        wide.run(&["status", "r", "--set", "namespace=wide", "--json"]).await.document()["state"],
        json!("succeeded")
    );
}

#[tokio::test]
async fn old_backups_are_pruned_by_their_names() {
    let (server, cli) = idle().await;
    let folder = server.folder().join("backups");
    std::fs::create_dir(&folder).unwrap();
    let (file, _) = file_of(&cli, &[text(&folder)]).await;
    for name in [
        "tm-20200101T000000Z.tidemill",
        "tm-20200102T000000Z.tidemill.age",
        "eu-20200101T000000Z.tidemill",
        "notes.txt",
    ] {
        std::fs::write(folder.join(name), "x").unwrap();
    }
    let prune = ["backup", "prune", text(&folder), "--keep-days", "30"];
    let dry = cli.run(&[&prune[..], &["--dry-run"]].concat()).await.ok();
    assert!(dry.contains("would delete 2 backups") && dry.contains("2 kept"), "{dry}");
    let gone = cli.run(&prune).await.ok();
    assert!(gone.contains("deleted tm-20200101T000000Z.tidemill\n"), "{gone}");
    let mut left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    left.sort();
    assert_eq!(left, [folder.join("eu-20200101T000000Z.tidemill"), folder.join("notes.txt"), file.clone()]);
    let list = cli.run(&["backup", "list", text(&folder), "--json"]).await.documents();
    let notes: Vec<_> = list.iter().map(|one| one["note"].is_null()).collect();
    assert_eq!(notes, [false, true], "{list:?}");
    assert_eq!(list[1]["header"]["namespace"], json!("tm"));
    let parts = std::fs::read_dir(&folder)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|end| end == "part"));
    assert_eq!(parts.count(), 0);
}
