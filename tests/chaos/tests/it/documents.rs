//! Serverless Workflow documents while workers and schedulers are killed.

use tidemill_protocol::RunState;
use tidemill_testkit::wait_for;

use crate::ledger::{audits_fold, ended_once, nothing_is_left, results};
use crate::pool::{LONG, Pool};

const CALLS: u64 = 15;

/// Fifteen calls one after another, each with a branch beside it that rests, and an event; an error on the way is caught.
const DOCUMENT: &str = r#"
document: { dsl: 1.0.3, namespace: test, name: doc, version: 0.0.1 }
do:
  - count:
      fork:
        branches:
          - call: { call: jq.transform, with: { filter: ".n + 1", input: "${ . }" } }
          - rest: { wait: { milliseconds: 20 } }
      output: { as: "{ n: .[0] }" }
  - risky:
      try: [ { odd: { if: ".n % 2 == 1", raise: { error: { type: "urn:odd", status: 418 } } } } ]
      catch: { errors: { with: { status: 418 } } }
  - tell: { emit: { event: { with: { source: test, type: counted, data: "${ . }" } } }, output: { as: .data } }
  - again: { switch: [ { more: { when: .n < 15, then: count } } ] }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn documents_go_on_where_they_stood_whoever_is_killed() {
    const RUNS: u64 = 20;
    let pool = Pool::start().await;
    pool.publish("doc", DOCUMENT).await;
    let mut schedulers = vec![pool.scheduler().await, pool.scheduler().await];
    let mut workers = vec![pool.worker(20).await, pool.worker(20).await];
    let ids = pool.runs("doc", RUNS as usize, "doc", "{\"n\":0}").await;
    // runs and their children, as they end
    for round in 1..=6 {
        let wanted = round * RUNS * CALLS / 8;
        let ended = async || {
            let ended = pool.number(&["ZCARD", "tm:{0}:ended"]).await;
            if ended >= wanted { Ok(()) } else { Err(format!("{ended} of {wanted}")) }
        };
        wait_for(LONG, "runs to end", ended).await.unwrap();
        let mut worker = workers.remove(0);
        worker.process.kill().await.unwrap();
        workers.push(pool.worker(20).await);
        if round % 3 == 0 {
            let mut scheduler = schedulers.remove(0);
            scheduler.process.kill().await.unwrap();
            schedulers.push(pool.scheduler().await);
        }
    }
    pool.replies_are(RUNS as usize).await;
    nothing_is_left(&pool).await;
    ended_once(&pool, "doc", RUNS as usize, "succeeded").await;
    audits_fold(&pool, &ids, RunState::Succeeded).await;
    for (id, results) in results(&pool).await {
        assert_eq!(results[0]["output"]["n"], CALLS, "{id}");
    }
    let started = pool.number(&["ZCARD", "tm:{0}:ended"]).await;
    assert_eq!(started, RUNS + RUNS * CALLS, "each call is asked for once");
    assert_eq!(pool.number(&["XLEN", "tm:{0}:events"]).await, RUNS * CALLS, "each event is published once");
}
