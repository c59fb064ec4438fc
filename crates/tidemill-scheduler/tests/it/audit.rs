use std::time::Duration;

use tidemill_protocol::{EntryId, StepState};
use tidemill_scheduler::Settings;
use tidemill_store::{
    DeferState, Deferral, Dependent, Due, Expansion, ItemOutcome, Mode, Settled, Slot, StepOutcome, keys,
};

use crate::pool::{Pool, claim, field, quick, sum_is};

const QUEUE: &str = "tm:{0}:jobs:default";
const FLOW: &str = "
name: flow
steps:
  - { id: a, tool: echo }
  - { id: b, tool: echo, needs: [a] }
output: { sum: \"${ .steps.b.output }\" }
";

fn succeeded<'a>(
    entry: &'a EntryId,
    step: u32,
    name: &'a str,
    dependents: Vec<Dependent<'a>>,
) -> StepOutcome<'a> {
    StepOutcome {
        entry,
        run: "r1",
        workflow: "flow@1",
        step: Some(step),
        name,
        to: StepState::Succeeded,
        attempt: 1,
        ran: Duration::ZERO,
        output: b"1",
        error: "",
        code: "",
        reason: "",
        steps: 2,
        mode: Mode { success: true, ..Mode::default() },
        retention_ms: 60_000,
        publishes: false,
        reply_to: None,
        more: None,
        dependents,
    }
}

async fn settle(pool: &Pool, outcome: StepOutcome<'_>) {
    let settled =
        pool.home().settle_steps("default", "w1", &["default".to_owned()], &[outcome]).await.unwrap();
    assert_eq!(settled, [Settled::Recorded]);
}

/// Starts the run `r1` of [`FLOW`] and ends the scheduler, so that the test alone decides what gets lost.
async fn started(source: &str) -> Pool {
    let pool = Pool::start().await;
    pool.publish(source).await;
    let scheduler = pool.schedule(Settings { stalled_after_ms: 60_000, ..quick() }).await;
    pool.ask(&["workflow", "flow", "id", "r1"]).await;
    pool.run("r1").await;
    scheduler.stop().await;
    pool
}

#[tokio::test]
async fn a_step_whose_entry_was_deleted_is_dispatched_again_and_counted() {
    let pool = started(FLOW).await;
    let lost = pool.run("r1").await.steps[&0].entry.clone().unwrap();
    assert_eq!(pool.cli(&["XDEL", QUEUE, &lost]).await, "1");
    let (one, two) = (pool.schedule(quick()).await, pool.schedule(quick()).await);
    let again = claim(&mut pool.worker("w1"), "default", 1).await;
    assert_eq!(
        (field(&again[0], "run").as_deref(), field(&again[0], "step").as_deref()),
        (Some("r1"), Some("0"))
    );
    settle(&pool, succeeded(&again[0].entry, 0, "a", Vec::new())).await;
    let line = "tidemill_repaired_total{what=\"step\"}";
    sum_is(&one, &two, line, 1).await;
    assert_eq!(pool.cli(&["XLEN", QUEUE]).await, "0");
}

#[tokio::test]
async fn nothing_is_repaired_that_is_where_it_should_be() {
    let pool = started(FLOW).await;
    let scheduler = pool.schedule(quick()).await;
    let mut worker = pool.worker("w1");
    let claimed = claim(&mut worker, "default", 1).await;
    pool.home().beat("w1", 1, 0).await.unwrap();
    let retry = Deferral {
        entry: &claimed[0].entry,
        id: "",
        slot: Some(Slot { run: "r1".to_owned(), step: 0, item: None, name: "a".to_owned() }),
        state: DeferState::Retrying,
        due: Due::In(Duration::from_secs(60)),
        note: "test",
        ran: Duration::ZERO,
        attempt: 1,
        changes: Vec::new(),
    };
    assert_eq!(pool.home().defer("default", keys::WORKERS, "w1", &[retry]).await.unwrap(), [true]);
    let seen = scheduler.count("tidemill_duty_ticks_total{duty=\"auditor\"}");
    tidemill_testkit::wait_until(crate::pool::SOON, "ten more looks", async || {
        scheduler.count("tidemill_duty_ticks_total{duty=\"auditor\"}") >= seen + 10
    })
    .await
    .unwrap();
    assert_eq!(scheduler.count("tidemill_repaired_total{what=\"step\"}"), 0);
    assert_eq!(pool.cli(&["XLEN", QUEUE]).await, "0");
    // and when what was put aside is lost, it is dispatched again
    assert_eq!(pool.cli(&["ZREM", "tm:{0}:due:default", "s:0:a:r1"]).await, "1");
    let again = claim(&mut worker, "default", 1).await;
    assert_eq!(field(&again[0], "step").as_deref(), Some("0"));
    scheduler.count_is("tidemill_repaired_total{what=\"step\"}", 1).await;
}

#[tokio::test]
async fn a_step_that_was_never_dispatched_although_its_needs_ended_is_carried_on() {
    let pool = started(FLOW).await;
    let mut worker = pool.worker("w1");
    let claimed = claim(&mut worker, "default", 1).await;
    // settled by somebody who forgot the dependents
    settle(&pool, succeeded(&claimed[0].entry, 0, "a", Vec::new())).await;
    let scheduler = pool.schedule(quick()).await;
    let carried_on = claim(&mut worker, "default", 1).await;
    assert_eq!(field(&carried_on[0], "step").as_deref(), Some("1"));
    assert_eq!(pool.run("r1").await.steps[&1].state, StepState::Ready);
    scheduler.count_is("tidemill_repaired_total{what=\"dispatch\"}", 1).await;
}

#[tokio::test]
async fn a_run_whose_finish_was_lost_is_asked_to_finish_again() {
    let pool = started(FLOW).await;
    let mut worker = pool.worker("w1");
    let claimed = claim(&mut worker, "default", 1).await;
    let next = vec![Dependent { step: 1, name: "b", ended: 1, ok: 0, target: 0 }];
    settle(&pool, succeeded(&claimed[0].entry, 0, "a", next)).await;
    let claimed = claim(&mut worker, "default", 1).await;
    settle(&pool, succeeded(&claimed[0].entry, 1, "b", Vec::new())).await;
    assert_eq!(pool.cli(&["XTRIM", QUEUE, "MAXLEN", "0"]).await, "1", "the finish was there");
    let scheduler = pool.schedule(quick()).await;
    let finish = claim(&mut worker, "default", 1).await;
    assert_eq!(field(&finish[0], "finish").as_deref(), Some("1"));
    scheduler.count_is("tidemill_repaired_total{what=\"finish\"}", 1).await;
}

#[tokio::test]
async fn lost_items_and_a_lost_gathering_of_a_for_each_are_dispatched_again() {
    let pool = started(
        "
name: flow
steps:
  - { id: each, tool: echo, for_each: { items: [1, 2], concurrency: 2 } }
",
    )
    .await;
    let mut worker = pool.worker("w1");
    let claimed = claim(&mut worker, "default", 1).await;
    pool.home()
        .write_items("r1", 0, &[("i0".to_owned(), b"1"), ("i1".to_owned(), b"2")], 60_000)
        .await
        .unwrap();
    let expansion = Expansion {
        entry: &claimed[0].entry,
        run: "r1",
        workflow: "flow@1",
        step: 0,
        name: "each",
        attempt: 1,
        total: 2,
        concurrency: 2,
        queue: "default",
        keep_ms: 60_000,
    };
    assert!(pool.home().expand("default", "w1", &expansion).await.unwrap());
    assert_eq!(pool.cli(&["XTRIM", QUEUE, "MAXLEN", "1"]).await, "1", "the first item is lost");
    let scheduler = pool.schedule(quick()).await;
    let items = claim(&mut worker, "default", 2).await;
    scheduler.count_is("tidemill_repaired_total{what=\"item\"}", 1).await;
    scheduler.stop().await;
    for item in &items {
        let outcome = ItemOutcome {
            entry: &item.entry,
            run: "r1",
            workflow: "flow@1",
            step: 0,
            item: field(item, "item").unwrap().parse().unwrap(),
            name: "each",
            queue: "default",
            to: StepState::Succeeded,
            attempt: 1,
            ran: Duration::ZERO,
            output: b"1",
            error: "",
            failed: false,
            did_not_run: false,
            tolerate: "0".to_owned(),
        };
        let settled = pool.home().settle_items("default", "w1", &[outcome]).await.unwrap();
        assert_eq!(settled, [Settled::Recorded]);
    }
    assert_eq!(pool.cli(&["XTRIM", QUEUE, "MAXLEN", "0"]).await, "1", "the gathering is lost");
    let scheduler = pool.schedule(quick()).await;
    let gather = claim(&mut worker, "default", 1).await;
    assert_eq!(field(&gather[0], "gather").as_deref(), Some("1"));
    scheduler.count_is("tidemill_repaired_total{what=\"step\"}", 1).await;
}

#[tokio::test]
async fn a_run_that_cannot_be_carried_on_is_told_of_and_one_that_is_gone_is_dropped() {
    let pool = started(FLOW).await;
    pool.cli(&["ZADD", "tm:{0}:live", "+inf", "ghost"]).await;
    pool.cli(&["HDEL", "tm:{0}:workflow:flow", "1"]).await;
    pool.cli(&["HDEL", "tm:{0}:workflows", "flow"]).await;
    let scheduler = pool.schedule(quick()).await;
    scheduler.count_is("tidemill_stuck_runs", 1).await;
    assert_eq!(pool.cli(&["ZRANGE", "tm:{0}:live", "0", "-1"]).await, "r1");
}
