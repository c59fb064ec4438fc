//! Enqueueing, looking, cancelling.

use serde_json::json;

use crate::cli::{Cli, idle, pool, shape};

#[tokio::test]
async fn a_job_is_enqueued_waited_for_and_its_output_shown() {
    let (_server, _engines, cli) = pool().await;
    let out =
        cli.run(&["enqueue", "echo", "--input", r#"{"big":12345678901234567890123}"#, "--wait"]).await.ok();
    assert_eq!(out, "{\n  \"big\": 12345678901234567890123\n}\n");
    let document =
        cli.run_with(&["enqueue", "echo", "-i", "-", "-w", "--id", "a", "--json"], "[1]").await.document();
    assert_eq!((&document["id"], &document["output"]), (&json!("a"), &json!([1])));
    assert_eq!(cli.run(&["result", "a"]).await.ok(), "[\n  1\n]\n");
    assert_eq!(cli.run(&["result", "a", "--json"]).await.document(), document);
    let again = cli.run(&["enqueue", "echo", "--id", "a", "--json"]).await.document();
    assert_eq!(again["state"], "duplicate");
}

#[tokio::test]
async fn a_job_that_fails_ends_the_wait_with_its_error() {
    let (_server, _engines, cli) = pool().await;
    let error = cli.run(&["enqueue", "ecko", "--id", "b", "--wait"]).await.refused(1);
    assert!(error.contains("b failed: unknown_tool") && error.contains("did you mean `echo`"), "{error}");
    let said = cli.run(&["result", "b", "--json"]).await;
    assert_eq!(said.code, 1);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&said.out).unwrap()["state"], "failed");
    let error: serde_json::Value = serde_json::from_str(&said.err).unwrap();
    assert_eq!((&error["error"]["code"], &error["error"]["exit"]), (&json!("failed"), &json!(1)));
    let status = cli.run(&["status", "b"]).await.ok();
    assert!(status.starts_with("job b  failed\n"), "{status}");
}

#[tokio::test]
async fn without_a_worker_a_job_waits_and_why_says_so() {
    let (_server, cli) = idle().await;
    assert_eq!(cli.run(&["enqueue", "echo", "--id", "c", "-q", "low"]).await.ok(), "c is queued\n");
    assert_eq!(shape(&cli.run(&["status", "c"]).await.ok()), ["job c queued", "queue low"]);
    let why = cli.run(&["why", "c"]).await.ok();
    assert!(why.contains("no worker serves queue \"low\""), "{why}");
    assert_eq!(cli.run(&["why", "c", "--json"]).await.document()["state"], "queued");
    let error = cli.run(&["result", "c", "--wait", "--wait-ms", "150"]).await.refused(5);
    assert!(error.contains("c has not ended after 150 ms") && error.contains("tidemill why c"), "{error}");
    let error = cli.run(&["result", "c"]).await.refused(5);
    assert!(error.contains("--wait"), "{error}");
    assert_eq!(cli.run(&["cancel", "c"]).await.ok(), "c is cancelled\n");
    assert_eq!(cli.run(&["status", "c", "--json"]).await.document()["state"], "cancelled");
    let error = cli.run(&["cancel", "c"]).await.refused(1);
    assert!(error.contains("c has ended already: cancelled"), "{error}");
}

#[tokio::test]
async fn a_delayed_job_tells_when_it_is_due() {
    let (_server, cli) = idle().await;
    let said = cli.run(&["enqueue", "echo", "--id", "d", "--delay-ms", "3600000"]).await.ok();
    assert_eq!(said, "d waits for its time\n");
    let status = cli.run(&["status", "d"]).await.ok();
    assert!(status.contains("deferred") && status.contains("in 59 m"), "{status}");
    let why = cli.run(&["why", "d"]).await.ok();
    assert!(why.contains("enqueued with a delay; it goes on in 59 m"), "{why}");
    assert_eq!(
        cli.run(&["cancel", "d", "--json"]).await.document(),
        json!({ "id": "d", "state": "cancelled" })
    );
}

#[tokio::test]
async fn a_parked_job_tells_its_place_in_line() {
    let (server, cli) = idle().await;
    let settings = tidemill_store::Settings { url: server.url(), ..tidemill_store::Settings::default() };
    let store = tidemill_store::Store::new(&settings, "tm", 1).unwrap();
    for id in ["f", "g"] {
        cli.run(&["enqueue", "echo", "--id", id]).await.ok();
    }
    let block = std::time::Duration::from_secs(2);
    let mut worker = store.claimer(0, tidemill_store::keys::WORKERS, "w1", block).unwrap();
    worker.create_groups(std::iter::once("default")).await.unwrap();
    let held = worker.claim(&[("default", 2)], true).await.unwrap().remove(0).1;
    let parking = |at: usize, id| tidemill_store::Parking {
        entry: &held[at].entry,
        id,
        slot: None,
        note: "limit of requests",
        attempt: 1,
        tier: "openai",
        tenant: "",
        priority: 5,
        changes: Vec::new(),
    };
    let all = [parking(0, "f"), parking(1, "g")];
    let parked = store.home().park("default", tidemill_store::keys::WORKERS, "w1", &all).await.unwrap();
    assert_eq!(parked, [true, true]);
    let status = shape(&cli.run(&["status", "g"]).await.ok());
    assert!(status.iter().any(|line| line.starts_with("line openai, place # of #, since ")), "{status:?}");
    let why = cli.run(&["why", "g"]).await.ok();
    let sentence = "waits in line for service openai (limit of requests), place 2 of 2";
    assert!(why.contains(sentence) && why.contains("no scheduler calls it up"), "{why}");
    let queues = cli.run(&["queues", "--json"]).await.ok();
    assert!(queues.contains("\"parked\":2"), "{queues}");
    assert_eq!(cli.run(&["cancel", "f"]).await.ok(), "f is cancelled\n");
    assert_eq!(cli.run(&["status", "g", "--json"]).await.document()["line"]["place"], 1);
}

#[tokio::test]
async fn a_running_job_is_asked_to_stop() {
    let (_server, _engines, cli) = pool().await;
    let enqueue = ["enqueue", "sleep", "-i", r#"{"ms":60000}"#, "--id", "e", "--result-ttl-ms", "60000"];
    cli.run(&enqueue).await.ok();
    let running = async || {
        let job = cli.run(&["status", "e", "--json"]).await.document();
        if job["state"] == "running" { Ok(()) } else { Err(job.to_string()) }
    };
    tidemill_testkit::wait_for(crate::cli::SOON, "the job to run", running).await.unwrap();
    let said = cli.run(&["cancel", "e", "--reason", "enough"]).await.ok();
    assert_eq!(said, "e runs; its worker is asked to stop it\n");
    let error = cli.run(&["result", "e", "--wait"]).await.refused(1);
    assert!(error.contains("e cancelled"), "{error}");
}

#[tokio::test]
async fn what_is_called_wrongly_is_told_before_anything_is_sent() {
    let (server, cli) = idle().await;
    for (arguments, words) in [
        (vec!["enqueue", "echo", "-i", "{nonsense"], "--input: this is not JSON"),
        (vec!["enqueue", "echo", "-i", "@/no/such/file"], "/no/such/file cannot be read"),
        (vec!["enqueue", "echo", "--id", "a b"], "id \"a b\" is not valid"),
        (vec!["enqueue", "echo", "--queue", "a b"], "queue \"a b\" is not valid"),
        (vec!["enqueue", "echo", "--delay-ms", "1", "--run-at-ms", "2"], "cannot be used with"),
        (vec!["enqueue", "echo", "--wait-ms", "1"], "--wait"),
        (vec!["status", "a b"], "id \"a b\" is not valid"),
        (vec!["enqueu"], "enqueue"),
    ] {
        let error = cli.run(&arguments).await.refused(2);
        assert!(error.contains(words), "{arguments:?}: {error}");
    }
    assert_eq!(server.cli(&["EXISTS", "tm:{0}:jobs:default"]).await.unwrap().trim(), "0");
}

#[tokio::test]
async fn an_unknown_id_is_told_by_every_command_that_takes_one() {
    let (_server, cli) = idle().await;
    for command in ["status", "why", "result", "cancel", "audit"] {
        let error = cli.run(&[command, "nobody"]).await.refused(1);
        assert!(error.contains("no job or run \"nobody\" is known"), "{command}: {error}");
    }
}

#[tokio::test]
async fn without_redis_the_url_is_named_without_its_password() {
    let cli = Cli::new("redis://user:hunter2@127.0.0.1:1/0");
    let error = cli.run(&["queues"]).await.refused(4);
    assert!(error.contains("redis://user:***@127.0.0.1:1/0") && error.contains("--redis-url"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
    let error = cli.run(&["queues", "--json"]).await.refused(4);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&error).unwrap()["error"]["exit"], 4);
    let error = Cli::new("nonsense").run(&["queues"]).await.refused(3);
    assert!(error.contains("expected redis://"), "{error}");
}
