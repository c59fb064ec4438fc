//! Execution modes: the same results in all of them, switched live without losing or doubling anything.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tidemill_protocol::ExecutionMode::{self, Classic, Hybrid, StateMachine};
use tidemill_protocol::{RunState, StepState};
use tidemill_store::{ModeMove, ModeMoved, RunRecord};
use tidemill_tool::{Call, Tool, ToolFuture};
use tidemill_worker::Settings;

use crate::pool::{LONG, Pool};

/// Does nothing for a while and remembers who asked.
#[derive(Default)]
struct Effects {
    ms: u64,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Calls by run and step.
    calls: HashMap<(String, String), u32>,
    /// Calls of a run under way, and the most that there were.
    open: HashMap<String, (u32, u32)>,
}

impl Effects {
    fn seen<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn most(&self, run: &str) -> u32 {
        self.seen(|seen| seen.open.get(run).map_or(0, |(_, most)| *most))
    }

    fn calls(&self, run: &str) -> u32 {
        self.seen(|seen| seen.calls.iter().filter(|((of, _), _)| of == run).map(|(_, calls)| calls).sum())
    }
}

impl Tool for Effects {
    fn kind(&self) -> &'static str {
        "inline"
    }

    fn call(self: Arc<Self>, call: Call) -> ToolFuture {
        Box::pin(async move {
            let (run, step) =
                (call.context.id.to_string(), call.context.step.as_deref().unwrap_or("-").to_owned());
            self.seen(|seen| {
                *seen.calls.entry((run.clone(), step)).or_default() += 1;
                let (open, most) = seen.open.entry(run.clone()).or_default();
                *open += 1;
                *most = (*most).max(*open);
            });
            tokio::time::sleep(Duration::from_millis(self.ms)).await;
            self.seen(|seen| {
                if let Some((open, _)) = seen.open.get_mut(&run) {
                    *open -= 1;
                }
            });
            Ok(call.input)
        })
    }
}

impl Pool {
    /// A worker with the built-in tools and `effect`.
    fn effects(&mut self, ms: u64) -> Arc<Effects> {
        let effects = Arc::new(Effects { ms, seen: Mutex::default() });
        self.effects_of(&effects);
        effects
    }

    fn effects_of(&mut self, effects: &Arc<Effects>) {
        let mut registry = tidemill_tools::builtin(&tidemill_tools::Settings::default()).unwrap();
        registry.register("effect", Arc::clone(effects) as Arc<dyn Tool>).unwrap();
        self.worker_with(Settings::default(), registry);
    }

    async fn run_in(&self, mode: ExecutionMode, workflow: &str, id: &str) {
        let words = ["workflow", workflow, "id", id, "mode", mode.as_str()];
        self.cli(&[&["XADD", "tm:{0}:runs", "*"], &words[..]].concat()).await;
    }

    async fn mode_of(&self, run: &str) -> String {
        self.cli(&["HGET", &format!("tm:{{0}}:run:{run}"), "md"]).await
    }
}

/// How a run ended: its state, its output, and of each step its state and output.
type Gave = (RunState, Value, BTreeMap<u32, (StepState, Option<String>)>);

fn gave(run: &RunRecord) -> Gave {
    let output = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let steps = run
        .steps
        .iter()
        .map(|(step, record)| (*step, (record.state, run.outputs.get(step).map(|bytes| output(bytes)))));
    (run.state, Pool::output(run), steps.collect())
}

/// Numbers that are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, count: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % count
    }
}

/// A workflow of its own for each number: chains, diamonds, switches, items, failures that are tolerated and failures that are not.
fn workflow(number: u64) -> String {
    let mut dice = Dice(number.wrapping_mul(7_919) + 1);
    let count = 2 + dice.below(8);
    let failure = if number.is_multiple_of(3) { "finish" } else { "fail_fast" };
    let mut text = format!("name: w{number}\nfailure: {failure}\nsteps:\n");
    for step in 0..count {
        let mut needs: Vec<u64> = (0..step.min(3)).map(|_| dice.below(step)).collect();
        needs.sort_unstable();
        needs.dedup();
        let list: Vec<String> = needs.iter().map(|need| format!("s{need}")).collect();
        let head = format!("  - id: s{step}\n    needs: [{}]\n", list.join(", "));
        let seen: Vec<String> = needs.iter().map(|need| format!(".steps.s{need}.output")).collect();
        let of = if seen.is_empty() { ".run.version".to_owned() } else { format!("[{}]", seen.join(", ")) };
        text.push_str(&head);
        text.push_str(&match dice.below(8) {
            0 if step + 2 < count => format!(
                "    switch:\n      - {{ when: \"${{ {} }}\", then: [c{step}] }}\n      - {{ default: [d{step}] }}\n  - {{ id: c{step}, tool: echo, with: c }}\n  - {{ id: d{step}, tool: echo, with: d }}\n",
                number.is_multiple_of(2)
            ),
            1 => format!(
                "    tool: jq.transform\n    for_each: {{ items: \"${{ [range({})] }}\", concurrency: 3 }}\n    with: {{ filter: '. * 2', input: \"${{ .item }}\" }}\n",
                dice.below(6)
            ),
            2 if dice.below(2) == 0 => {
                "    tool: jq.transform\n    on_error: continue\n    retry: { max_attempts: 1 }\n    with: { filter: 'error(\"no\")', input: 1 }\n".to_owned()
            }
            3 if dice.below(6) == 0 => {
                "    tool: jq.transform\n    retry: { max_attempts: 1 }\n    with: { filter: 'error(\"no\")', input: 1 }\n".to_owned()
            }
            4 if !needs.is_empty() => format!("    join: any\n    tool: echo\n    with: {step}\n"),
            5 => format!("    when: \"${{ ({of} | tostring | length) % 2 == 0 }}\"\n    tool: echo\n    with: even\n"),
            _ => format!("    tool: echo\n    with: {{ of: \"${{ {of} }}\", step: {step} }}\n"),
        });
    }
    text
}

/// Workflows that wait, ask for others and try one thing after the other.
const COMPOSED: [(&str, &str); 4] = [
    (
        "race",
        "name: race\nsteps:\n  - id: r\n    race:\n      - { id: bad, tool: jq.transform, retry: { max_attempts: 1 }, with: { filter: 'error(\"no\")', input: 1 } }\n      - { id: good, tool: echo, with: 2 }\n",
    ),
    (
        "block",
        "name: block\nsteps:\n  - { id: a, tool: echo, with: 5 }\n  - id: b\n    needs: [a]\n    for_each: { items: \"${ [1, 2, 3] }\", concurrency: 2 }\n    steps:\n      - { id: x, tool: echo, with: \"${ .item + .steps.a.output }\" }\n",
    ),
    (
        "again",
        "name: again\nsteps:\n  - { id: r, tool: echo, with: \"${ .iteration }\", repeat: { until: \"${ .output >= 3 }\" } }\n",
    ),
    (
        "undo",
        "name: undo\nsteps:\n  - { id: a, tool: echo, with: 1, compensate: { tool: echo, with: undone } }\n  - { id: b, tool: jq.transform, needs: [a], on_error: compensate, retry: { max_attempts: 1 }, with: { filter: 'error(\"no\")', input: 1 } }\n",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_same_two_hundred_workflows_give_the_same_in_all_four_modes() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    let names: Vec<String> = (0..196)
        .map(|number| format!("w{number}"))
        .chain(COMPOSED.map(|(name, _)| name.to_owned()))
        .collect();
    for number in 0..196 {
        pool.publish(&workflow(number)).await;
    }
    for (_, text) in COMPOSED {
        pool.publish(text).await;
    }
    for mode in ExecutionMode::ALL {
        for name in &names {
            pool.run_in(mode, name, &format!("{name}-{mode}")).await;
        }
    }
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    for name in &names {
        let hybrid = gave(&pool.ended(&format!("{name}-hybrid")).await);
        *states.entry(hybrid.0.as_str()).or_default() += 1;
        for mode in [Classic, StateMachine, ExecutionMode::Optimized] {
            let id = format!("{name}-{mode}");
            let (state, output, steps) = gave(&pool.ended(&id).await);
            assert_eq!((state, &output), (hybrid.0, &hybrid.1), "{name} in mode {mode}");
            // a run that a failure ended at once leaves out what had not begun
            let finished = state == RunState::Succeeded
                || name.strip_prefix('w').and_then(|n| n.parse::<u64>().ok()).is_some_and(|n| n % 3 == 0);
            if finished {
                assert_eq!(steps, hybrid.2, "{name} in mode {mode}");
            }
            assert_eq!(pool.mode_of(&id).await, mode.as_str());
        }
        assert_eq!(pool.mode_of(&format!("{name}-hybrid")).await, "", "the default is not written");
    }
    assert!(states["succeeded"] > 100 && states["failed"] > 3 && states["compensated"] == 1, "{states:?}");
    assert_eq!(pool.mode_of("block-classic~b.0").await, "classic", "children go the way of their parent");
    assert_eq!(pool.mode_of("block-hybrid~b.0").await, "");
    let figures = pool.store.home().mode_figures().await.unwrap();
    assert!(figures.executions.keys().eq(["classic", "hybrid", "optimized", "state_machine"].iter()));
}

const FAN: &str = "name: fan\nsteps:\n  - { id: a, tool: effect }\n  - { id: b, tool: effect, needs: [a] }\n  - { id: f1, tool: effect, needs: [b] }\n  - { id: f2, tool: effect, needs: [b] }\n  - { id: f3, tool: effect, needs: [b] }\n  - { id: f4, tool: effect, needs: [b] }\n  - { id: f5, tool: effect, needs: [b] }\n  - { id: j, tool: effect, needs: [f1, f2, f3, f4, f5] }\n  - { id: k, tool: effect, needs: [j] }\n  - { id: l, tool: effect, needs: [k] }\n";

#[tokio::test(flavor = "multi_thread")]
async fn steps_go_one_by_one_in_every_mode_but_hybrid_and_the_figures_show_it() {
    let mut pool = Pool::start().await;
    let effects = pool.effects(20);
    pool.publish(FAN).await;
    for mode in ExecutionMode::ALL {
        pool.run_in(mode, "fan", mode.as_str()).await;
        assert_eq!(pool.ended(mode.as_str()).await.state, RunState::Succeeded);
        let (most, calls) = (effects.most(mode.as_str()), effects.calls(mode.as_str()));
        assert_eq!((most, calls), (if mode == Hybrid { 5 } else { 1 }, 10), "{mode}");
    }
    let mut figures = None;
    tidemill_testkit::wait_until(LONG, "the figures", async || {
        let now = pool.store.home().mode_figures().await.unwrap();
        let complete =
            now.executions.values().all(|runs| *runs == 1) && now.performance.values().all(|p| p.count == 1);
        figures = Some(now);
        complete
    })
    .await
    .unwrap();
    let performance = figures.unwrap().performance;
    for mode in ["classic", "state_machine", "optimized"] {
        assert!(performance[mode].p50 >= 190, "{mode}: {performance:?}");
    }
    assert!(performance["hybrid"].p50 >= 110, "six steps lie behind each other: {performance:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn switching_under_load_loses_and_doubles_nothing() {
    let mut pool = Pool::start().await;
    pool.scheduler();
    let effects = pool.effects(1);
    pool.effects_of(&effects);
    pool.publish(FAN).await;
    let mut ids = Vec::new();
    for second in 0..6 {
        let to = ExecutionMode::ALL[second % 4];
        let moved = pool
            .store
            .home()
            .switch_mode(("test", "to see"), ModeMove::Switch(to), Some(second as u64))
            .await;
        assert!(matches!(moved.unwrap(), ModeMoved::Switched { .. }));
        let until = tokio::time::Instant::now() + Duration::from_secs(1);
        while tokio::time::Instant::now() < until {
            for _ in 0..4 {
                let id = format!("load-{}", ids.len());
                pool.run("fan", &id, "{}").await;
                ids.push(id);
            }
        }
    }
    let mut modes: BTreeMap<String, usize> = BTreeMap::new();
    for id in &ids {
        assert_eq!(pool.ended(id).await.state, RunState::Succeeded, "{id}");
        assert_eq!(effects.calls(id), 10, "{id}: each step once");
        *modes.entry(pool.mode_of(id).await).or_default() += 1;
    }
    let twice = effects.seen(|seen| seen.calls.values().filter(|calls| **calls != 1).count());
    assert_eq!((twice, modes.len()), (0, 4), "{modes:?}");
    assert_eq!(pool.store.home().mode_changes(100).await.unwrap().len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_mode_state_machine_nothing_is_run_that_its_record_does_not_allow() {
    for (mode, calls) in [(StateMachine, 0), (Hybrid, 1)] {
        let mut pool = Pool::start().await;
        pool.publish("name: one\nsteps:\n  - { id: a, tool: effect }\n").await;
        pool.run_in(mode, "one", "r").await;
        let (run, jobs) = ("tm:{0}:run:r", "tm:{0}:jobs:default");
        tidemill_testkit::wait_until(LONG, "the step", async || pool.cli(&["XLEN", jobs]).await == "1")
            .await
            .unwrap();
        let record = pool.cli(&["HGET", run, "s0"]).await;
        // as if somebody had changed it by hand
        pool.cli(&["HSET", run, "s0", &record.replacen("ready", "parked", 1)]).await;
        let effects = pool.effects(0);
        tidemill_testkit::wait_until(LONG, "the entry is gone", async || {
            pool.cli(&["XLEN", jobs]).await == "0"
        })
        .await
        .unwrap();
        assert_eq!(effects.calls("r"), calls, "{mode}");
        let run = pool.store.home().run("r").await.unwrap().unwrap();
        if mode == StateMachine {
            assert_eq!(run.state, RunState::Failed);
            assert!(run.error.unwrap().contains("illegal_transition"), "the run says why");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_in_order_that_lost_its_next_step_goes_on_with_that_alone() {
    let mut pool = Pool::start().await;
    pool.scheduler_with(tidemill_scheduler::Settings {
        stalled_after_ms: 200,
        audit_every_ms: 100,
        ..tidemill_scheduler::Settings::default()
    });
    pool.publish("name: three\nsteps:\n  - { id: a, tool: effect }\n  - { id: b, tool: effect }\n  - { id: c, tool: effect }\n").await;
    pool.run_in(Classic, "three", "r").await;
    let (run, jobs) = ("tm:{0}:run:r", "tm:{0}:jobs:default");
    tidemill_testkit::wait_until(LONG, "the first step", async || pool.cli(&["XLEN", jobs]).await == "1")
        .await
        .unwrap();
    // the tail of a failover: neither record nor entry
    let script = "redis.call('HDEL', KEYS[1], 's0') redis.call('DEL', KEYS[2]) redis.call('XGROUP', 'CREATE', KEYS[2], 'workers', '0', 'MKSTREAM')";
    pool.cli(&["EVAL", script, "2", run, jobs]).await;
    let effects = pool.effects(0);
    let ended = pool.store.home();
    tidemill_testkit::wait_until(LONG, "the end", async || {
        ended.run("r").await.unwrap().is_some_and(|run| run.state == RunState::Succeeded)
    })
    .await
    .unwrap();
    assert_eq!((effects.calls("r"), effects.most("r")), (3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_runs_than_the_pool_may_have_wait_for_their_turn() {
    let settings =
        tidemill_scheduler::Settings { max_live_runs: Some(2), ..tidemill_scheduler::Settings::default() };
    let mut pool = Pool::start_with(settings).await;
    pool.publish("name: one\nsteps:\n  - { id: a, tool: effect }\n").await;
    let effects = pool.effects(100);
    for id in 0..6 {
        pool.run("one", &format!("r{id}"), "{}").await;
    }
    let mut most = 0;
    tidemill_testkit::wait_until(LONG, "all runs", async || {
        most = most.max(pool.cli(&["ZCARD", "tm:{0}:live"]).await.parse::<u32>().unwrap());
        effects.seen(|seen| seen.calls.len()) == 6
    })
    .await
    .unwrap();
    assert!(most <= 2, "{most} at once");
}
