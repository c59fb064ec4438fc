use std::fmt::Write;

use tidemill_protocol::{RunState, StepState};
use tidemill_scheduler::{Error, Scheduler, Settings};
use tidemill_store::keys;

use crate::pool::{Pool, SOON, claim, field, quick, sum_is};

const FLOW: &str = "
name: flow
version: 1
timeout_ms: 60000
input: { type: object, required: [n], properties: { n: { type: integer } } }
steps:
  - { id: a, tool: echo, with: { n: \"${ .input.n }\" } }
  - { id: b, tool: echo, queue: other }
  - { id: c, tool: echo, needs: [a, b] }
";

#[tokio::test]
async fn a_requested_run_starts_with_its_first_steps_and_all_that_it_was_given() {
    let pool = Pool::start().await;
    pool.publish(FLOW).await;
    let scheduler = pool.schedule(quick()).await;
    let extras = [
        "tenant",
        "acme",
        "user",
        "ann",
        "priority",
        "7",
        "traceparent",
        "00-a-b-01",
        "result_ttl_ms",
        "5000",
        "reply_to",
        "mine",
    ];
    pool.ask(&[&["workflow", "flow", "input", "{\"n\":1}", "id", "r1"][..], &extras[..]].concat()).await;
    let run = pool.run("r1").await;
    assert_eq!(
        (run.state, run.workflow.as_str(), &run.input[..]),
        (RunState::Running, "flow@1", &b"{\"n\":1}"[..])
    );
    assert_eq!((run.tenant.as_deref(), run.reply_to.as_deref()), (Some("acme"), Some("mine")));
    assert_eq!((run.user.as_deref(), run.priority), (Some("ann"), Some(7)));
    assert_eq!(run.steps.len(), 2, "a step with needs waits");
    assert_eq!((run.steps[&0].state, run.steps[&0].queue.as_str()), (StepState::Ready, "default"));
    assert_eq!((run.steps[&1].state, run.steps[&1].queue.as_str()), (StepState::Ready, "other"));
    let first = claim(&mut pool.worker("w1"), "other", 1).await;
    assert_eq!(
        (field(&first[0], "step").unwrap(), field(&first[0], "wf").unwrap()),
        ("1".to_owned(), "flow@1".to_owned())
    );
    let deadline: f64 = pool.cli(&["ZSCORE", "tm:{0}:live", "r1"]).await.parse().unwrap();
    assert!(
        (deadline - run.started_ms as f64 - 60_000.0).abs() < 2.0,
        "the workflow's own timeout bounds it"
    );
    assert_eq!(pool.cli(&["HGET", "tm:{0}:run:r1", "rms"]).await, "86400000");
    pool.count_is("XLEN", "tm:{0}:runs", 0).await;
    scheduler.count_is("tidemill_runs_started_total", 1).await;
    let audit = pool.home().audit("r1", 0, 100).await.unwrap();
    assert_eq!((audit[0].subject.as_str(), audit[0].who.as_deref()), ("@", Some(&*scheduler.name)));
}

#[tokio::test]
async fn two_schedulers_start_each_run_once() {
    const RUNS: u64 = 300;
    let pool = Pool::start().await;
    pool.publish("{\"name\":\"one\",\"steps\":[{\"id\":\"a\",\"tool\":\"echo\"}]}").await;
    let (one, two) = (pool.schedule(quick()).await, pool.schedule(quick()).await);
    let mut script = String::new();
    for at in 0..RUNS {
        // every second one is asked for twice
        for _ in 0..=(at % 2) {
            write!(script, "redis.call('XADD', KEYS[1], '*', 'workflow', 'one', 'id', 'r{at}') ").unwrap();
        }
    }
    pool.cli(&["EVAL", &script, "1", "tm:{0}:runs"]).await;
    pool.count_is("ZCARD", "tm:{0}:live", RUNS).await;
    pool.count_is("XLEN", "tm:{0}:runs", 0).await;
    sum_is(&one, &two, "tidemill_runs_started_total", RUNS).await;
    sum_is(&one, &two, "tidemill_runs_repeated_total", RUNS / 2).await;
    assert_eq!(pool.cli(&["XLEN", "tm:{0}:jobs:default"]).await, RUNS.to_string(), "one first step each");
}

#[tokio::test]
async fn what_cannot_start_goes_to_the_dead_letters_and_its_caller_is_told() {
    let pool = Pool::start().await;
    pool.publish(FLOW).await;
    let scheduler = pool.schedule(quick()).await;
    let good = "{\"n\":1}";
    let cases: [(&str, &[&str], &str, &str); 9] = [
        ("unknown", &["workflow", "nope"], "unknown_workflow", "not published"),
        ("version", &["workflow", "flow@9"], "unknown_workflow", "flow@9"),
        ("schema", &["workflow", "flow", "input", "{\"n\":\"x\"}"], "invalid_input", "/n"),
        ("syntax", &["workflow", "flow", "input", "{"], "malformed", "well-formed"),
        ("field", &["workflow", "flow", "delay", "5"], "unknown_field", "delay"),
        ("tool", &["tool", "echo"], "wrong_stream", "jobs:<queue>"),
        ("part", &["run", "r flow@1 0"], "malformed", "part of a run"),
        (
            "reply",
            &["workflow", "flow", "reply_to", "tm:{0}:jobs:default"],
            "invalid_reply_to",
            "replies cannot go",
        ),
        (
            "late",
            &["workflow", "flow", "input", good, "deadline_ms", "0"],
            "deadline_exceeded",
            "deadline_ms",
        ),
    ];
    for (id, fields, code, words) in cases {
        pool.ask(&[fields, &["id", id, "result_ttl_ms", "60000"]].concat()).await;
        let (found, reason) = pool.letter_of(id).await;
        assert_eq!(found, code, "{id}: {reason}");
        assert!(reason.contains(words), "{id}: {reason}");
        let result = pool.home().result(id).await.unwrap().unwrap_or_else(|| panic!("{id} has no result"));
        let result: serde_json::Value = serde_json::from_str(&result).unwrap();
        assert_eq!(result["error"]["code"], code);
        assert_eq!(result["state"], if id == "late" { "timed_out" } else { "failed" });
    }
    assert_eq!(pool.cli(&["XLEN", "tm:{0}:runs"]).await, "0");
    scheduler.count_is("tidemill_runs_refused_total{code=\"malformed\"}", 2).await;
    // and it goes on working
    pool.ask(&["workflow", "flow", "input", good, "id", "fine"]).await;
    pool.run("fine").await;
}

#[tokio::test]
async fn a_key_that_holds_something_else_holds_up_only_its_own_run() {
    let pool = Pool::start().await;
    pool.publish(FLOW).await;
    pool.cli(&["SET", "tm:{0}:audit:bad", "mine"]).await;
    for id in ["good1", "bad", "good2"] {
        pool.ask(&["workflow", "flow", "input", "{\"n\":1}", "id", id]).await;
    }
    pool.schedule(quick()).await;
    pool.run("good1").await;
    pool.run("good2").await;
}

#[tokio::test]
async fn the_newest_version_runs_unless_another_is_named_and_each_run_keeps_its_own() {
    let pool = Pool::start().await;
    let flow = |version: u32| {
        format!("{{\"name\":\"v\",\"version\":{version},\"steps\":[{{\"id\":\"s\",\"tool\":\"echo\"}}]}}")
    };
    pool.publish(&flow(1)).await;
    pool.schedule(quick()).await;
    pool.ask(&["workflow", "v", "id", "r1"]).await;
    assert_eq!(pool.run("r1").await.workflow, "v@1");
    pool.publish(&flow(2)).await;
    pool.ask(&["workflow", "v", "id", "r2"]).await;
    pool.ask(&["workflow", "v@1", "id", "r3"]).await;
    assert_eq!(pool.run("r2").await.workflow, "v@2", "published just now");
    assert_eq!(pool.run("r3").await.workflow, "v@1");
}

#[tokio::test]
async fn a_delayed_run_waits_and_a_second_request_of_its_id_does_not_take_its_place() {
    let pool = Pool::start().await;
    pool.publish(FLOW).await;
    let scheduler = pool.schedule(quick()).await;
    let asked = pool.ask(&["workflow", "flow", "input", "{\"n\":1}", "id", "r1", "delay_ms", "700"]).await;
    pool.count_is("ZCARD", "tm:{0}:due:@runs", 1).await;
    pool.ask(&["workflow", "flow", "input", "{\"n\":2}", "id", "r1"]).await;
    pool.ask(&["workflow", "flow", "input", "{\"n\":3}", "id", "r1", "delay_ms", "60000"]).await;
    scheduler.count_is("tidemill_runs_repeated_total", 2).await;
    let run = pool.run("r1").await;
    assert_eq!(&run.input[..], b"{\"n\":1}", "the first of an id is the run");
    assert!(run.started_ms >= asked.ms() + 700, "{} after {}", run.started_ms, asked.ms());
    scheduler.count_is("tidemill_promoted_total{queue=\"@runs\"}", 1).await;
    pool.count_is("ZCARD", "tm:{0}:due:@runs", 0).await;
}

#[tokio::test]
async fn a_fan_out_wider_than_one_call_goes_on_with_an_entry_of_its_own() {
    let pool = Pool::start().await;
    let steps: Vec<_> =
        (0..1_200).map(|at| serde_json::json!({ "id": format!("s{at}"), "tool": "echo" })).collect();
    pool.publish(&serde_json::json!({ "name": "wide", "queue": "wide", "steps": steps }).to_string()).await;
    pool.schedule(quick()).await;
    pool.ask(&["workflow", "wide", "id", "r1"]).await;
    pool.run("r1").await;
    let all = claim(&mut pool.worker("w1"), "wide", 251).await;
    let fan = all.last().unwrap();
    assert_eq!((field(fan, "fan").as_deref(), field(fan, "from").as_deref()), (Some("roots"), Some("250")));
}

#[tokio::test]
async fn a_scheduler_does_not_start_on_a_bad_graph_and_says_where_it_is() {
    let pool = Pool::start().await;
    let bad = "name: bad\nversion: 4\nsteps:\n  - { id: a, tool: echo, needs: [b] }\n  - { id: b, tool: echo, needs: [a] }\n";
    assert!(pool.home().publish("bad", 4, bad).await.unwrap());
    let error = Scheduler::new(pool.setup(quick())).unwrap().prepare().await.unwrap_err();
    assert!(matches!(error, Error::BadWorkflows(_)));
    let text = error.to_string();
    assert!(text.contains("workflow bad@4:4:") && text.contains("cycle"), "{text}");
}

#[tokio::test]
async fn an_unknown_tool_does_not_keep_a_scheduler_from_starting() {
    let pool = Pool::start().await;
    pool.publish("{\"name\":\"w\",\"steps\":[{\"id\":\"a\",\"tool\":\"not.yet\"}]}").await;
    pool.schedule(quick()).await.stop().await;
}

#[tokio::test]
async fn a_scheduler_that_ends_leaves_nothing_of_itself() {
    let pool = Pool::start().await;
    pool.publish(FLOW).await;
    let scheduler = pool.schedule(quick()).await;
    pool.ask(&["workflow", "flow", "input", "{\"n\":1}", "id", "r1"]).await;
    pool.run("r1").await;
    let members = pool.home().members().await.unwrap();
    assert_eq!((members.len(), members[0].role.as_str()), (1, "scheduler"));
    assert_eq!(members[0].consumer, scheduler.name);
    scheduler.stop().await;
    assert!(pool.home().members().await.unwrap().is_empty());
    assert!(pool.home().beats().await.unwrap().is_empty());
    assert!(pool.home().consumers("tm:{0}:runs", keys::SCHEDULERS).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_setting_that_cannot_be_used_is_refused_before_anything_is_sent() {
    let pool = Pool::start().await;
    let error = Scheduler::new(pool.setup(Settings { crash_budget: 0, ..quick() })).unwrap_err();
    assert!(error.to_string().contains("scheduler.crash_budget"), "{error}");
}

#[tokio::test]
async fn a_frozen_server_is_told_of_and_work_goes_on_after_it() {
    let pool = Pool::start().await;
    pool.publish(FLOW).await;
    let scheduler = pool.schedule(quick()).await;
    tokio::time::timeout(SOON, scheduler.health.await_ready()).await.unwrap();
    pool.server.pause().unwrap();
    tokio::time::timeout(SOON, scheduler.health.await_unready()).await.unwrap();
    pool.server.resume().unwrap();
    tokio::time::timeout(SOON, scheduler.health.await_ready()).await.unwrap();
    pool.ask(&["workflow", "flow", "input", "{\"n\":1}", "id", "r1"]).await;
    pool.run("r1").await;
    scheduler.stop().await;
}
