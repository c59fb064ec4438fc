//! Much of something.

use std::fmt::Write;

use tidemill_protocol::RunState;
use tidemill_testkit::wait_for;

use crate::ledger::{audits_fold, nothing_is_left};
use crate::pool::{LONG, Pool, full};

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_ten_thousand_steps_ends() {
    let steps = 10_000;
    let mut source = "name: wide\nsteps:\n".to_owned();
    for step in 0..steps {
        writeln!(source, "  - {{ id: s{step}, tool: echo, with: {{ n: {step} }} }}").unwrap();
    }
    let needs: Vec<String> = (0..steps).map(|step| format!("s{step}")).collect();
    writeln!(source, "  - {{ id: join, tool: echo, needs: [{}], with: {{ ok: true }} }}", needs.join(", "))
        .unwrap();
    source.push_str("output: \"${ .steps.join.output }\"\n");
    ends(&source, "wide", steps + 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_of_five_hundred_steps_ends() {
    let mut source = "name: chain\nsteps:\n  - { id: s0, tool: echo, with: { n: 0 } }\n".to_owned();
    for step in 1..500 {
        let before = step - 1;
        writeln!(
            source,
            "  - {{ id: s{step}, tool: echo, needs: [s{before}], with: {{ n: \"${{ .steps.s{before}.output.n + 1 }}\" }} }}"
        ).unwrap();
    }
    source.push_str("output: \"${ .steps.s499.output.n }\"\n");
    let output = ends(&source, "chain", 500).await;
    assert_eq!(output, "499");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_for_each_of_two_thousand_items_ends() {
    let source = "name: each\nsteps:\n  - { id: each, tool: echo, for_each: { items: \"${ [range(2000)] }\", concurrency: 200 }, with: { n: \"${ .item }\" } }\noutput: \"${ [.steps.each.output[].n] | add }\"\n";
    let output = ends(source, "each", 1).await;
    assert_eq!(output, (0..2_000).sum::<u64>().to_string());
}

/// Publishes, runs once with two workers, and gives the output.
async fn ends(source: &str, name: &str, steps: usize) -> String {
    let pool = Pool::start().await;
    pool.publish(name, source).await;
    let (_scheduler, _first, _second) =
        (pool.scheduler().await, pool.worker(100).await, pool.worker(100).await);
    let started = tokio::time::Instant::now();
    let ids = pool.runs(name, 1, name, "{}").await;
    pool.replies_are(1).await;
    println!("{name}: {steps} steps in {:?}", started.elapsed());
    nothing_is_left(&pool).await;
    audits_fold(&pool, &ids, RunState::Succeeded).await;
    let run = pool.home().run(&ids[0]).await.unwrap().unwrap();
    assert_eq!(run.steps.len(), steps);
    String::from_utf8(run.output.unwrap()).unwrap()
}

/// What Redis uses for data, in bytes.
async fn dataset(pool: &Pool) -> u64 {
    let info = pool.cli(&["INFO", "memory"]).await;
    let (_, rest) = info.split_once("used_memory_dataset:").unwrap();
    rest.lines().next().unwrap().trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_flat_after_many_jobs_went_through() {
    let rounds = if full() { 20 } else { 4 };
    let pool = Pool::start().await;
    let (_scheduler, _first, _second) =
        (pool.scheduler().await, pool.worker(100).await, pool.worker(100).await);
    let jobs = pool.home().keys().jobs("default");
    let fill = "for i = 1, 25000 do redis.call('XADD', KEYS[1], '*', 'tool', 'echo', 'input', ARGV[1]) end";
    let input = format!("{{\"text\":\"{}\"}}", "x".repeat(150));
    let mut sizes = Vec::new();
    for _ in 0..rounds {
        for _ in 0..2 {
            pool.cli(&["EVAL", fill, "1", &jobs, &input]).await;
            let drained = async || {
                let left = pool.number(&["XLEN", &jobs]).await;
                if left == 0 { Ok(()) } else { Err(left.to_string()) }
            };
            wait_for(LONG, "the queue to be drained", drained).await.unwrap();
        }
        sizes.push(dataset(&pool).await);
    }
    println!("data in Redis after each 50,000 jobs: {sizes:?}");
    let (first, last) = (sizes[0], sizes[sizes.len() - 1]);
    assert!(last < first + 512 * 1024, "{} jobs left {} bytes behind", rounds * 50_000, last - first);
    assert!(pool.number(&["DBSIZE"]).await < 20, "{}", pool.cli(&["KEYS", "*"]).await);
    nothing_is_left(&pool).await;
}
