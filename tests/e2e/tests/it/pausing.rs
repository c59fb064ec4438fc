//! What is paused begins nothing, what ran ends, and all of it goes on once when it is resumed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tidemill_producer::operate::{self, Act, Bulk, BulkDone, By, PauseView, What};
use tidemill_producer::{Code, Refusal, Workflows};
use tidemill_protocol::{RunState, StepState};
use tidemill_store::RunQuery;
use tidemill_tool::{Call, Tool, ToolFuture};
use tidemill_worker::Settings;
use tokio::sync::Semaphore;

use crate::pool::{LONG, Pool};

const BY: By<'static> = By { who: "ada (test)", why: "the vendor is down" };

/// A tool whose calls are counted when they begin, and end when they are let.
struct Gate {
    begun: AtomicUsize,
    open: Semaphore,
}

impl Tool for Gate {
    fn kind(&self) -> &'static str {
        "gate"
    }

    fn call(self: Arc<Self>, call: Call) -> ToolFuture {
        self.begun.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            self.open.acquire().await.unwrap().forget();
            Ok(call.input)
        })
    }
}

impl Gate {
    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    async fn has_begun(&self, count: usize) {
        let what = format!("{count} calls");
        tidemill_testkit::wait_until(LONG, &what, async || self.begun() >= count).await.unwrap();
    }

    fn let_through(&self, count: usize) {
        self.open.add_permits(count);
    }
}

/// A worker with a gate.
fn gated(pool: &mut Pool, settings: Settings) -> Arc<Gate> {
    let gate = Arc::new(Gate { begun: AtomicUsize::new(0), open: Semaphore::new(0) });
    let mut registry = tidemill_tools::builtin(&tidemill_tools::Settings::default()).unwrap();
    registry.register("gate", Arc::clone(&gate) as Arc<dyn Tool>).unwrap();
    pool.worker_with(settings, registry);
    gate
}

async fn turn(pool: &Pool, what: What<'_>, pauses: bool) -> Result<PauseView, Refusal> {
    let workflows = Workflows::new(pool.store.clone());
    operate::pause(&pool.store, &workflows, (what, pauses), BY).await
}

/// How often something of a run became running.
async fn begun(pool: &Pool, run: &str) -> Vec<String> {
    let audit = pool.store.home().audit(run, 0, usize::MAX).await.unwrap();
    let began = audit.iter().filter(|record| record.subject != "@" && record.to == "running");
    began.map(|record| record.subject.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ran_when_its_run_was_paused_ends_and_nothing_behind_it_begins() {
    let mut pool = Pool::start().await;
    let gate = gated(&mut pool, Settings::default());
    pool.publish("name: two\nsteps:\n  - { id: a, tool: gate, with: 1 }\n  - { id: b, needs: [a], tool: gate, with: 2 }\n").await;
    pool.run("two", "r", "{}").await;
    gate.has_begun(1).await;
    let paused = turn(&pool, What::Run("r"), true).await.unwrap();
    assert!(paused.paused && paused.changed);
    assert!(!turn(&pool, What::Run("r"), true).await.unwrap().changed, "it was so already");
    gate.let_through(1);
    let run = pool.stands("r", 1, StepState::Parked).await;
    assert_eq!(run.steps[&0].state, StepState::Succeeded, "what ran has ended");
    assert_eq!((gate.begun(), run.steps[&1].attempt), (1, 1));
    gate.let_through(1);
    let resumed = turn(&pool, What::Run("r"), false).await.unwrap();
    assert_eq!((resumed.paused, resumed.changed, resumed.woken), (false, true, 1));
    let run = pool.ended("r").await;
    assert_eq!((run.state, run.steps[&1].attempt), (RunState::Succeeded, 1), "waiting costs no attempt");
    assert_eq!(begun(&pool, "r").await, ["a", "b"]);
    let noted = operate::operations(&pool.store, Some("r"), 10).await.unwrap();
    let kinds: Vec<(&str, &str, &str)> = noted.iter().map(|one| (&*one.kind, &*one.by, &*one.why)).collect();
    assert_eq!(kinds, [("resume", BY.who, BY.why), ("pause", BY.who, BY.why)]);
    assert_eq!(turn(&pool, What::Run("r"), true).await.unwrap_err().code, Code::AlreadyEnded);
    assert_eq!(turn(&pool, What::Run("nobody"), true).await.unwrap_err().code, Code::UnknownRun);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_that_rings_while_its_run_is_paused_is_heard_when_that_is_resumed() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    pool.publish("name: nap\nsteps:\n  - { id: nap, wait: { for_ms: 700 } }\n  - { id: b, needs: [nap], tool: echo, with: 1 }\n").await;
    pool.run("nap", "n", "{}").await;
    pool.stands("n", 0, StepState::Waiting).await;
    turn(&pool, What::Run("n"), true).await.unwrap();
    let run = pool.stands("n", 0, StepState::Parked).await;
    assert_eq!((run.state, run.steps.get(&1).map(|step| step.state)), (RunState::Running, None));
    assert_eq!(pool.cli(&["ZCARD", "tm:{0}:due:@waits"]).await, "0", "it has rung");
    turn(&pool, What::Run("n"), false).await.unwrap();
    assert_eq!(pool.ended("n").await.state, RunState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_items_of_a_paused_run_wait_and_are_done_once() {
    let mut pool = Pool::start().await;
    let gate = gated(&mut pool, Settings::default());
    pool.publish("name: each\nsteps:\n  - { id: e, tool: gate, for_each: { items: \"${ [range(40)] }\", concurrency: 4 }, with: \"${ .item }\" }\n").await;
    pool.run("each", "r", "{}").await;
    gate.has_begun(4).await;
    turn(&pool, What::Run("r"), true).await.unwrap();
    gate.let_through(40);
    let parked = "the next items to be put aside";
    tidemill_testkit::wait_until(LONG, parked, async || {
        pool.cli(&["ZCARD", "tm:{0}:due:default"]).await == "4"
    })
    .await
    .unwrap();
    assert_eq!(gate.begun(), 4);
    turn(&pool, What::Run("r"), false).await.unwrap();
    let run = pool.ended("r").await;
    assert_eq!(Pool::output(&run), json!((0..40).collect::<Vec<_>>()));
    assert_eq!(gate.begun(), 40, "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_run_all_that_it_asked_for_is_paused_even_what_starts_later() {
    let mut pool = Pool::start().await;
    let gate = gated(&mut pool, Settings::default());
    pool.publish("name: inner\nsteps:\n  - { id: i, tool: gate, with: 1 }\n").await;
    pool.publish("name: outer\nsteps:\n  - { id: own, steps: [ { id: x, tool: gate, with: 1 }, { id: y, needs: [x], tool: gate, with: 2 } ] }\n  - { id: sub, workflow: inner }\n").await;
    // no run of `inner` starts, so that of `outer` is asked for and waits
    turn(&pool, What::Workflow("inner"), true).await.unwrap();
    pool.run("outer", "r", "{}").await;
    gate.has_begun(1).await;
    let held = "the request of the sub-workflow to be put aside";
    tidemill_testkit::wait_until(LONG, held, async || pool.cli(&["ZCARD", "tm:{0}:due:@runs"]).await == "1")
        .await
        .unwrap();
    assert!(pool.store.home().run("r~sub.0").await.unwrap().is_none());
    turn(&pool, What::Run("r"), true).await.unwrap();
    turn(&pool, What::Workflow("inner"), false).await.unwrap();
    gate.let_through(10);
    pool.stands("r~own.0", 1, StepState::Parked).await;
    pool.stands("r~sub.0", 0, StepState::Parked).await;
    assert_eq!(gate.begun(), 1, "only what ran before");
    turn(&pool, What::Run("r"), false).await.unwrap();
    for run in ["r~own.0", "r~sub.0", "r"] {
        assert_eq!(pool.ended(run).await.state, RunState::Succeeded, "{run}");
    }
    assert_eq!(gate.begun(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_run_of_a_paused_workflow_starts_and_those_under_way_stand_still() {
    let mut pool = Pool::start().await;
    let gate = gated(&mut pool, Settings::default());
    // workers hear of it within about a second: the first step takes longer
    pool.publish("name: two\nsteps:\n  - { id: a, tool: sleep, with: { ms: 3000 } }\n  - { id: b, needs: [a], tool: gate, with: 2 }\n").await;
    pool.publish("name: other\nsteps:\n  - { id: a, tool: echo, with: 1 }\n").await;
    pool.run("two", "r0", "{}").await;
    pool.stands("r0", 0, StepState::Ready).await;
    assert_eq!(turn(&pool, What::Workflow("tow"), true).await.unwrap_err().code, Code::UnknownWorkflow);
    turn(&pool, What::Workflow("two"), true).await.unwrap();
    for n in 1..=20 {
        pool.run("two", &format!("r{n}"), "{}").await;
    }
    pool.run("other", "o", "{}").await;
    assert_eq!(pool.ended("o").await.state, RunState::Succeeded, "another workflow is not touched");
    let held = "all requests to be put aside";
    tidemill_testkit::wait_until(LONG, held, async || pool.cli(&["ZCARD", "tm:{0}:due:@runs"]).await == "20")
        .await
        .unwrap();
    pool.stands("r0", 1, StepState::Parked).await;
    assert_eq!(gate.begun(), 0);
    let workflows = operate::paused(&pool.store).await.unwrap().workflows;
    assert_eq!(workflows["two"].why, BY.why);
    gate.let_through(1_000);
    turn(&pool, What::Workflow("two"), false).await.unwrap();
    for n in 0..=20 {
        assert_eq!(pool.ended(&format!("r{n}")).await.state, RunState::Succeeded);
    }
    assert_eq!(gate.begun(), 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_claim_nothing_of_a_paused_queue_and_all_of_the_others() {
    let mut pool = Pool::start().await;
    turn(&pool, What::Queue("slow"), true).await.unwrap();
    assert_eq!(turn(&pool, What::Queue("no such/queue"), true).await.unwrap_err().code, Code::InvalidMember);
    // a worker knows what is paused before it claims anything
    pool.worker(Settings { queues: "slow=3,default=1".to_owned(), ..Settings::default() });
    for n in 0..50 {
        pool.job("slow", &format!("s{n}"), &["tool", "echo", "input", "1"]).await;
        pool.job("default", &format!("d{n}"), &["tool", "echo", "input", "1"]).await;
    }
    for n in 0..50 {
        assert_eq!(pool.result(&format!("d{n}")).await["state"], "succeeded");
    }
    assert_eq!(pool.cli(&["XLEN", "tm:{0}:jobs:slow"]).await, "50");
    let pending = pool.cli(&["XPENDING", "tm:{0}:jobs:slow", "workers"]).await;
    assert!(pending.starts_with('0') || pending.contains("NOGROUP"), "{pending}");
    turn(&pool, What::Queue("slow"), false).await.unwrap();
    for n in 0..50 {
        assert_eq!(pool.result(&format!("s{n}")).await["state"], "succeeded");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_run_is_cancelled_and_undoes_what_it_did() {
    let mut pool = Pool::start().await;
    let gate = gated(&mut pool, Settings::default());
    pool.publish("name: saga\nsteps:\n  - { id: a, tool: gate, with: 1, compensate: { tool: echo, with: 2 } }\n  - { id: b, needs: [a], tool: gate, with: 3 }\n").await;
    pool.run("saga", "r", "{}").await;
    gate.has_begun(1).await;
    turn(&pool, What::Run("r"), true).await.unwrap();
    gate.let_through(1);
    pool.stands("r", 1, StepState::Parked).await;
    let how = operate::Cancel { by: BY, spares: false, by_force: false };
    assert!(operate::cancel(pool.store.home(), "r", how).await.unwrap());
    assert_eq!(pool.ended("r").await.state, RunState::Compensated);
    assert_eq!((gate.begun(), begun(&pool, "r").await), (1, vec!["a".to_owned(), "a!undo".to_owned()]));
}

async fn bulk(pool: &Pool, act: Act, dry_run: bool, (query, limit): (&RunQuery, usize)) -> BulkDone {
    let workflows = Workflows::new(pool.store.clone());
    let mut all = BulkDone::default();
    let mut cursor = None;
    loop {
        let bulk = Bulk { act, query, cursor, limit, dry_run, spares: false, by: BY };
        let page = operate::bulk(&pool.store, &workflows, bulk).await.unwrap();
        (all.found, all.done, all.refused) =
            (all.found + page.found, all.done + page.done, all.refused + page.refused);
        all.runs.extend(page.runs);
        all.refusals.extend(page.refusals);
        let Some(next) = page.next else { return all };
        cursor = tidemill_store::RunCursor::parse(&next);
        assert!(cursor.is_some(), "{next}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_are_paused_resumed_cancelled_and_done_again_after_a_dry_run_that_does_nothing() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    pool.publish("name: nap\nsteps:\n  - { id: w, wait: { signal: never } }\n").await;
    pool.publish("name: bad\nsteps:\n  - { id: f, tool: jq.transform, retry: { max_attempts: 1 }, with: { filter: 'error(\"no\")', input: 1 } }\n").await;
    for n in 0..25 {
        pool.run("nap", &format!("n{n}"), "{}").await;
    }
    for n in 0..25 {
        pool.stands(&format!("n{n}"), 0, StepState::Waiting).await;
    }
    let live = tidemill_producer::search::states_of("live").unwrap();
    let naps = RunQuery { workflow: Some("nap".to_owned()), states: live, ..RunQuery::default() };
    let dry = bulk(&pool, Act::Cancel, true, (&naps, 10)).await;
    assert_eq!((dry.found, dry.done, dry.runs.len()), (25, 25, 25), "told page by page");
    assert_eq!(pool.store.home().run("n0").await.unwrap().unwrap().state, RunState::Waiting);
    assert!(operate::operations(&pool.store, None, 10).await.unwrap().is_empty(), "nothing was done");
    assert_eq!(bulk(&pool, Act::Pause, false, (&naps, 10)).await.done, 25);
    assert!(pool.store.home().run("n7").await.unwrap().unwrap().paused.is_some());
    assert_eq!(bulk(&pool, Act::Resume, false, (&naps, 7)).await.done, 25);
    assert!(pool.store.home().run("n7").await.unwrap().unwrap().paused.is_none());
    let refused = bulk(&pool, Act::Retry, false, (&naps, 10)).await;
    assert_eq!((refused.done, refused.refused), (0, 25), "they have not ended");
    assert_eq!(refused.refusals[0].code, "still_runs");
    assert_eq!(bulk(&pool, Act::Cancel, false, (&naps, 10)).await.done, 25);
    for n in 0..25 {
        assert_eq!(pool.ended(&format!("n{n}")).await.state, RunState::Cancelled);
    }
    pool.run("bad", "b", "{}").await;
    assert_eq!(pool.ended("b").await.state, RunState::Failed);
    let failed =
        RunQuery { workflow: Some("bad".to_owned()), states: vec![RunState::Failed], ..RunQuery::default() };
    assert_eq!(bulk(&pool, Act::Retry, false, (&failed, 10)).await.done, 1);
    assert_eq!(pool.ended("b.r1").await.source.as_deref(), Some("b"));
    let kinds = operate::operations(&pool.store, Some("n3"), 10).await.unwrap();
    let kinds: Vec<&str> = kinds.iter().map(|one| &*one.kind).collect();
    assert_eq!(kinds, ["cancel", "resume", "pause"], "each run tells by itself who did what to it");
}
