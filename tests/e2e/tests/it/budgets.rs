//! What runs may use up, and how many of them may run at once, with workers that really do the work.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tidemill_protocol::{RunState, StepState};
use tidemill_store::RunRecord;
use tidemill_tool::{Call, Registry, Tool, ToolFuture};
use tidemill_worker::Settings;

use crate::pool::{LONG, Pool};

/// Says that each call costs what its input says, and counts its calls.
struct Priced {
    calls: AtomicU32,
}

impl Tool for Priced {
    fn kind(&self) -> &'static str {
        "priced"
    }

    fn call(self: Arc<Self>, call: Call) -> ToolFuture {
        self.calls.fetch_add(1, Ordering::SeqCst);
        call.context.feedback.used("cost", 1_000_000.0);
        Box::pin(async move { Ok(call.input) })
    }
}

/// Remembers how many of its calls ran at once.
#[derive(Default)]
struct Widest {
    now: AtomicU32,
    most: AtomicU32,
}

impl Tool for Widest {
    fn kind(&self) -> &'static str {
        "widest"
    }

    fn call(self: Arc<Self>, call: Call) -> ToolFuture {
        Box::pin(async move {
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            self.now.fetch_sub(1, Ordering::SeqCst);
            Ok(call.input)
        })
    }
}

fn priced() -> (Arc<Priced>, Registry) {
    let priced = Arc::new(Priced { calls: AtomicU32::new(0) });
    let mut registry = tidemill_tools::builtin(&tidemill_tools::Settings::default()).unwrap();
    registry.register("priced", Arc::clone(&priced) as Arc<dyn Tool>).unwrap();
    (priced, registry)
}

/// A chain of so many steps.
fn chain(name: &str, steps: usize, tool: &str, more: &str) -> String {
    let mut text = format!("name: {name}\n{more}\nsteps:\n");
    for at in 0..steps {
        let needs = if at == 0 { String::new() } else { format!(", needs: [s{}]", at - 1) };
        writeln!(text, "  - {{ id: s{at}, tool: {tool}{needs} }}").unwrap();
    }
    text
}

fn succeeded(run: &RunRecord) -> usize {
    run.steps.values().filter(|step| step.state == StepState::Succeeded).count()
}

fn code_of(run: &RunRecord) -> String {
    let error: serde_json::Value = serde_json::from_str(run.error.as_deref().unwrap_or("{}")).unwrap();
    format!(
        "{} {}",
        error["code"].as_str().unwrap_or_default(),
        error["message"].as_str().unwrap_or_default()
    )
}

#[tokio::test]
async fn a_chain_ends_where_its_budget_of_steps_does_and_one_within_it_is_done() {
    let mut pool = Pool::start().await;
    pool.publish(&chain("long", 10, "echo", "budget: { steps: 4 }")).await;
    pool.publish(&chain("short", 4, "echo", "budget: { steps: 4 }")).await;
    pool.publish(&chain("free", 4, "echo", "")).await;
    pool.worker(Settings::default());
    for name in ["long", "short", "free"] {
        pool.run(name, name, "{}").await;
    }
    let long = pool.ended("long").await;
    assert_eq!((long.state, succeeded(&long)), (RunState::Failed, 4));
    let error = code_of(&long);
    assert!(error.starts_with("budget_exceeded ") && error.contains("4 steps"), "{error}");
    let short = pool.ended("short").await;
    assert_eq!((short.state, succeeded(&short)), (RunState::Succeeded, 4));
    assert_eq!(pool.cli(&["HGET", "tm:{0}:run:short", "bs"]).await, "4");
    assert_eq!(pool.ended("free").await.state, RunState::Succeeded);
    for field in ["bud", "bs", "bc"] {
        assert_eq!(pool.cli(&["HEXISTS", "tm:{0}:run:free", field]).await, "0", "who has none pays nothing");
    }
}

#[tokio::test]
async fn calls_stop_when_what_they_cost_is_used_up() {
    let mut pool = Pool::start().await;
    let (tool, registry) = priced();
    pool.publish(&chain("dear", 10, "priced", "budget: { cost: 2.5 }")).await;
    pool.worker_with(Settings::default(), registry);
    pool.run("dear", "r", "{}").await;
    let run = pool.ended("r").await;
    assert_eq!((run.state, tool.calls.load(Ordering::SeqCst)), (RunState::Failed, 3));
    let error = code_of(&run);
    assert!(error.contains("budget_exceeded") && error.contains("3.000000 of 2.500000"), "{error}");
    assert_eq!(pool.cli(&["HGET", "tm:{0}:run:r", "bc"]).await, "3000000");
}

#[tokio::test]
async fn items_and_rounds_count_and_what_is_beyond_ends_the_run_at_once() {
    let mut pool = Pool::start().await;
    let (tool, registry) = priced();
    pool.publish(
        "name: each\nbudget: { steps: 30 }\nsteps:\n  - { id: all, tool: priced, for_each: { items: \"${ [range(500)] }\", concurrency: 2, tolerate: 500 } }\n",
    )
    .await;
    pool.publish(
        "name: loop\nbudget: { steps: 7 }\nsteps:\n  - { id: again, tool: priced, repeat: { until: \"${ false }\", max_iterations: 1000 } }\n",
    )
    .await;
    pool.worker_with(Settings::default(), registry);
    pool.run("each", "e", "{}").await;
    let each = pool.ended("e").await;
    assert_eq!(each.state, RunState::Failed);
    assert!(code_of(&each).contains("budget_exceeded"), "{:?}", each.error);
    let calls = tool.calls.load(Ordering::SeqCst);
    assert!((30..=34).contains(&calls), "{calls} calls: 30 and what was under way");
    pool.run("loop", "l", "{}").await;
    let again = pool.ended("l").await;
    assert!(code_of(&again).contains("budget_exceeded"), "{:?}", again.error);
    assert_eq!(tool.calls.load(Ordering::SeqCst) - calls, 7);
}

#[tokio::test]
async fn the_budget_of_who_began_it_holds_for_all_that_it_started() {
    let mut pool = Pool::start().await;
    let (tool, registry) = priced();
    pool.publish(&chain("inner", 3, "priced", "budget: { steps: 1000 }")).await;
    pool.publish(
        "name: outer\nbudget: { steps: 8 }\nsteps:\n  - { id: one, workflow: inner }\n  - { id: two, workflow: inner, needs: [one] }\n  - { id: three, workflow: inner, needs: [two] }\n",
    )
    .await;
    pool.worker_with(Settings::default(), registry);
    pool.run("outer", "r", "{}").await;
    let run = pool.ended("r").await;
    assert!(code_of(&run).contains("budget_exceeded"), "{:?}", run.error);
    // three of the first, three of the second, and both steps that ran them
    assert_eq!(tool.calls.load(Ordering::SeqCst), 6);
    assert_eq!(pool.cli(&["HGET", "tm:{0}:run:r", "bs"]).await, "8");
    // on its own it has its own
    pool.run("inner", "alone", "{}").await;
    assert_eq!(pool.ended("alone").await.state, RunState::Succeeded);
}

#[tokio::test]
async fn what_was_done_is_undone_although_the_budget_is_used_up() {
    let mut pool = Pool::start().await;
    let (tool, registry) = priced();
    pool.publish(
        "name: saga\nbudget: { steps: 2 }\nsteps:\n  - { id: a, tool: echo, compensate: { tool: priced } }\n  - { id: b, tool: echo, needs: [a], compensate: { tool: priced } }\n  - { id: c, tool: echo, needs: [b] }\n",
    )
    .await;
    pool.worker_with(Settings::default(), registry);
    pool.run("saga", "r", "{}").await;
    let run = pool.ended("r").await;
    assert_eq!((run.state, tool.calls.load(Ordering::SeqCst)), (RunState::Compensated, 2));
    assert!(code_of(&run).contains("budget_exceeded"), "{:?}", run.error);
}

#[tokio::test]
async fn of_a_group_never_more_run_than_may_while_all_get_their_turn() {
    const RUNS: usize = 120;
    let mut pool = Pool::start().await;
    pool.scheduler();
    let widest = Arc::new(Widest::default());
    for _ in 0..2 {
        let mut registry = tidemill_tools::builtin(&tidemill_tools::Settings::default()).unwrap();
        registry.register("widest", Arc::clone(&widest) as Arc<dyn Tool>).unwrap();
        pool.worker_with(Settings::default(), registry);
    }
    pool.publish(
        "name: few\ngroup: { key: \"${ .input.of }\", limit: 3 }\nsteps:\n  - { id: a, tool: widest }\n  - { id: b, tool: widest, needs: [a] }\n",
    )
    .await;
    let mut commands = String::new();
    for at in 0..RUNS {
        writeln!(commands, "XADD tm:{{0}}:runs * workflow few id r{at} input '{{\"of\":\"x\"}}'").unwrap();
    }
    pool.pipe(&commands).await;
    tidemill_testkit::wait_until(LONG, "all runs", async || {
        pool.cli(&["ZCARD", "tm:{0}:ended"]).await == RUNS.to_string()
    })
    .await
    .unwrap();
    assert_eq!(widest.most.load(Ordering::SeqCst), 3, "never more, and as many as may");
    for at in [0, RUNS / 2, RUNS - 1] {
        assert_eq!(pool.ended(&format!("r{at}")).await.state, RunState::Succeeded);
    }
    tidemill_testkit::wait_until(LONG, "an empty group", async || {
        pool.cli(&["EXISTS", "tm:{0}:groups"]).await == "0"
    })
    .await
    .unwrap();
}
