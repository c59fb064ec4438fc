//! What documents do on a pool beyond the kit: they wait, listen, run each other, and outlive workers.

use serde_json::{Value, json};
use tidemill_protocol::RunState;

use crate::pool::Pool;

/// A document of this `do`, published under this name.
async fn publish(pool: &Pool, name: &str, tasks: &str) {
    let indented: String = tasks.trim_matches('\n').lines().map(|line| format!("  {line}\n")).collect();
    let text = format!(
        "document: {{ dsl: '1.0.3', namespace: test, name: {name}, version: 1.0.0 }}\ndo:\n{indented}"
    );
    pool.publish(&format!("test.{name}"), 1_000_000, &text).await;
}

async fn output(pool: &Pool, run: &str) -> Value {
    let run = pool.ended(run).await;
    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
    run.output.as_deref().and_then(|output| serde_json::from_slice(output).ok()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emitted_event_reaches_every_run_that_listens() {
    let pool = Pool::start().await;
    publish(&pool, "listener", "- hear: { listen: { to: { one: { with: { type: shop.order.placed, data: \"${ .total > $input.least }\" } } } }, output: { as: '.[0].order' } }").await;
    publish(&pool, "speaker", "- each: { for: { each: order, in: .orders }, do: [ { say: { emit: { event: { with: { source: 'https://shop.test', type: shop.order.placed, data: '${ $order }' } } } } } ] }").await;
    for (run, least) in [("small", 1), ("large", 100)] {
        pool.run("test.listener", run, &json!({ "least": least })).await;
    }
    pool.waiting("small").await;
    pool.waiting("large").await;
    let orders = json!({ "orders": [{ "order": "a", "total": 5 }, { "order": "b", "total": 500 }] });
    pool.run("test.speaker", "s", &orders).await;
    assert_eq!(output(&pool, "s").await["type"], json!("shop.order.placed"));
    assert_eq!(output(&pool, "small").await, json!("a"));
    assert_eq!(output(&pool, "large").await, json!("b"));
    let events = pool.events().await;
    let ids: Vec<&str> = events.iter().filter_map(|event| event["id"].as_str()).collect();
    assert_eq!(ids, ["s-0", "s-1"], "each event is published once");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_from_outside_is_heard_as_well() {
    let pool = Pool::start().await;
    publish(
        &pool,
        "outside",
        "- hear: { listen: { to: { all: [ { with: { type: a.b } }, { with: { type: c.d } } ] } } }",
    )
    .await;
    pool.run("test.outside", "o", &json!({})).await;
    pool.waiting("o").await;
    for (kind, n) in [("a.b", 1), ("a.b", 2), ("c.d", 3)] {
        let event =
            json!({ "specversion": "1.0", "id": n.to_string(), "source": "test", "type": kind, "data": n });
        pool.store.home().publish_event(&event.to_string()).await.expect("Redis answers");
    }
    assert_eq!(output(&pool, "o").await, json!([1, 3]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_waits_forks_tries_again_and_runs_another() {
    let pool = Pool::start().await;
    publish(&pool, "inner", "- fail: { if: .bad == true, raise: { error: { type: 'urn:inner', status: 418 } } }\n- ok: { set: { doubled: '${ .n * 2 }' } }").await;
    publish(
        &pool,
        "outer",
        r#"
- rest: { wait: { milliseconds: 300 } }
- both:
    fork:
      branches:
        - one: { run: { workflow: { namespace: test, name: inner, version: 1.0.0, input: { n: "${ .n }" } } } }
        - two: { call: echo, with: { n: "${ .n }" } }
- merge: { set: { sum: "${ .[0].doubled + .[1].n }" } }
- risky:
    try: [ { bad: { run: { workflow: { namespace: test, name: inner, version: latest, input: { bad: true } } } } } ]
    catch:
      errors: { with: { type: "urn:inner" } }
      retry: { delay: { milliseconds: 100 }, limit: { attempt: { count: 1 } } }
      do: [ { tell: { set: { sum: "${ .sum }", status: "${ $error.status }", at: "${ $error.instance }" } } } ]
"#,
    )
    .await;
    pool.run("test.outer", "o", &json!({ "n": 4 })).await;
    assert_eq!(output(&pool, "o").await, json!({ "sum": 12, "status": 418, "at": "/do/3/risky/try/0/bad" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_goes_on_while_workers_come_and_go() {
    const CALLS: usize = 60;
    let pool = Pool::start().await;
    publish(
        &pool,
        "long",
        "- count: { call: echo, with: { n: '${ .n + 1 }' } }\n- again: { switch: [ { more: { when: .n < 60, then: count } } ] }",
    )
    .await;
    let mut worker = pool.worker();
    pool.run("test.long", "l", &json!({ "n": 0 })).await;
    for n in 1..=5 {
        let child = format!("l~flow.{}.count", n * 10);
        pool.known(&child).await;
        let next = pool.worker();
        worker.cancel();
        worker = next;
    }
    assert_eq!(output(&pool, "l").await, json!({ "n": CALLS }));
    assert_eq!(pool.children("l").await, CALLS, "each call is one child");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_cancelled_takes_its_children_along() {
    let pool = Pool::start().await;
    publish(&pool, "slow", "- rest: { wait: PT1H }").await;
    publish(
        &pool,
        "waits",
        "- slow: { run: { workflow: { namespace: test, name: slow, version: latest } } }",
    )
    .await;
    pool.run("test.waits", "w", &json!({})).await;
    pool.known("w~flow.0.workflow").await;
    pool.cancel("w").await;
    assert_eq!(pool.ended("w").await.state, RunState::Cancelled);
    assert_eq!(pool.ended("w~flow.0.workflow").await.state, RunState::Cancelled);
}
