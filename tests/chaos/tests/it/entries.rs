//! Entries that no honest client writes.

use std::time::Duration;

use tidemill_protocol::RunState;
use tidemill_testkit::wait_for;

use crate::ledger::{ended_once, nothing_is_left};
use crate::pool::{LONG, Pool};

async fn letters_are(pool: &Pool, count: u64) {
    let came = async || match pool.home().letter_count().await {
        Ok(seen) if seen == count => Ok(()),
        other => Err(format!("{other:?}")),
    };
    wait_for(LONG, &format!("{count} dead letters"), came).await.unwrap();
}

/// Four entries that no program's arguments could carry.
async fn made_by_redis(pool: &Pool, jobs: &str) {
    let make =
        "redis.call('XADD', KEYS[1], '*', 'tool', 'echo', 'input', '\"' .. string.rep('x', ARGV[1]) .. '\"')";
    pool.cli(&["EVAL", make, "1", jobs, "2097152"]).await;
    let binary = "local b = '' for i = 0, 255 do b = b .. string.char(i) end \
                  redis.call('XADD', KEYS[1], '*', 'tool', 'echo', 'input', b) \
                  redis.call('XADD', KEYS[1], '*', b, b) \
                  redis.call('XADD', KEYS[1], '*', 'tool', 'echo', 'enc', 'msgpack', 'input', b)";
    pool.cli(&["EVAL", binary, "1", jobs]).await;
}

/// Four requests that cannot be started.
async fn requests_for_runs(pool: &Pool) {
    let runs = pool.home().keys().runs();
    for fields in [
        vec!["workflow", "none"],
        vec!["workflow", ""],
        vec!["what", "1"],
        vec!["workflow", "none", "input", "{"],
    ] {
        let mut words = vec!["XADD", &*runs, "*"];
        words.extend(fields);
        pool.cli(&words).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_entries_become_letters_and_honest_work_goes_on() {
    let pool = Pool::start().await;
    let (_scheduler, mut worker) = (pool.scheduler().await, pool.worker(20).await);
    let jobs = pool.home().keys().jobs("default");
    let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    let many: Vec<String> = (0..200).map(|n| format!("field{n}")).collect();
    let mut wide: Vec<&str> = vec!["tool", "echo"];
    for name in &many {
        wide.extend([name.as_str(), "1"]);
    }
    let hostile: Vec<Vec<&str>> = vec![
        vec!["nonsense", "1"],
        vec!["tool", "echo", "input", "{"],
        vec!["tool", "echo", "input", "\"\u{1}\""],
        vec!["tool", "echo", "input", &deep],
        vec!["tool", "no-such-tool"],
        vec!["tool", ""],
        vec!["tool", "echo", "workflow", "both"],
        vec!["tool", "echo", "delay_ms", "soon"],
        vec!["tool", "echo", "id", "a b"],
        vec!["tool", "echo", "reply_to", "tm:{0}:jobs:default"],
        vec!["tool", "echo", "v", "99"],
        vec!["run", "nobody", "wf", "none@1", "step", "-1"],
        vec!["run", ""],
        wide,
    ];
    for fields in &hostile {
        let mut words = vec!["XADD", &*jobs, "*"];
        words.extend(fields);
        pool.cli(&words).await;
    }
    made_by_redis(&pool, &jobs).await;
    requests_for_runs(&pool).await;
    let before = hostile.len() as u64 + 4 + 4;
    pool.jobs("job", 500, "echo", "{}").await;
    letters_are(&pool, before).await;
    pool.replies_are(500).await;
    ended_once(&pool, "job", 500, "succeeded").await;
    nothing_is_left(&pool).await;
    assert!(worker.process.is_running(), "{}", worker.process.output());
    for letter in pool.home().letters(None, 100).await.unwrap() {
        assert!(!letter.code.is_empty() && !letter.reason.is_empty(), "{letter:?}");
        assert!(letter.reason.len() < 2_000, "a reason is a sentence: {} bytes", letter.reason.len());
    }
}

const BOMBS: &str = r#"
name: bombs
failure: finish
steps:
  - { id: endless, tool: echo, with: { x: "${ last(repeat(1)) }" } }
  - { id: growing, tool: echo, with: { x: "${ [range(1000000000)] }" } }
  - { id: doubling, tool: echo, with: { x: "${ reduce range(60) as $i (\"x\"; . + .) }" } }
  - { id: deep, tool: echo, with: { x: "${ reduce range(100000) as $i (null; [.]) }" } }
  - { id: tool, tool: jq.transform, with: { filter: "[range(1000000000)] | length", input: 1 } }
  - { id: well, tool: echo, with: { x: 1 } }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn jq_bombs_end_as_failed_steps_while_others_are_served() {
    let pool = Pool::start().await;
    pool.publish("bombs", BOMBS).await;
    let (_scheduler, mut worker) = (pool.scheduler().await, pool.worker(20).await);
    let ids = pool.runs("bomb", 4, "bombs", "{}").await;
    let started = tokio::time::Instant::now();
    pool.jobs("job", 500, "echo", "{}").await;
    pool.replies_are(504).await;
    println!("four runs of five bombs ended after {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(60));
    ended_once(&pool, "job", 500, "succeeded").await;
    for id in ids {
        let run = pool.home().run(&id).await.unwrap().unwrap();
        assert_eq!(run.state, RunState::Failed);
        let states: Vec<&str> = run.steps.values().map(|step| step.state.as_str()).collect();
        assert_eq!(
            states,
            ["failed", "failed", "failed", "failed", "failed", "succeeded"],
            "{:?}",
            run.errors
        );
    }
    nothing_is_left(&pool).await;
    assert!(worker.process.is_running(), "{}", worker.process.output());
}
