//! The question at the end: did everything end exactly once, and is nothing left?

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use tidemill_protocol::{RunState, StepState};
use tidemill_testkit::wait_for;

use crate::pool::{LONG, Pool};

/// Every result that was sent, by id, oldest first.
pub(crate) async fn results(pool: &Pool) -> HashMap<String, Vec<Value>> {
    let mut results: HashMap<String, Vec<Value>> = HashMap::new();
    let text = pool.cli(&["XRANGE", "replies", "-", "+"]).await;
    // entry, the word `result`, the document: one a line
    for document in text.lines().filter(|line| line.starts_with("{\"id\"")) {
        let document: Value = serde_json::from_str(document).unwrap();
        let id = document["id"].as_str().unwrap().to_owned();
        results.entry(id).or_default().push(document);
    }
    results
}

/// Each of `<prefix>-0` to `<prefix>-<count - 1>` has exactly one result, in that state.
pub(crate) async fn ended_once(pool: &Pool, prefix: &str, count: usize, state: &str) {
    let results = results(pool).await;
    let mut wrong = BTreeMap::new();
    for n in 0..count {
        let id = format!("{prefix}-{n}");
        let states: Vec<&str> =
            results.get(&id).into_iter().flatten().filter_map(|result| result["state"].as_str()).collect();
        if states != [state] {
            wrong.insert(id, states.join(","));
        }
    }
    assert!(wrong.is_empty(), "{} of {count} did not end once as {state}: {wrong:?}", wrong.len());
}

/// Nobody holds anything, nothing waits, nothing is in flight.
pub(crate) async fn nothing_is_left(pool: &Pool) {
    let empty = async || {
        let depth = pool.home().depth("default").await.map_err(|error| error.to_string())?;
        let runs = pool.home().run_counts().await.map_err(|error| error.to_string())?;
        let requests = pool.number(&["XLEN", &pool.home().keys().runs()]).await;
        if (depth.ready, depth.running, depth.deferred + depth.parked, runs.0, requests) == (0, 0, 0, 0, 0) {
            return Ok(());
        }
        Err(format!("{depth:?}, {} live runs, {requests} requests", runs.0))
    };
    wait_for(LONG, "nothing to be left", empty).await.unwrap();
}

/// Each run ended so; its audit has no gap, every move in it is legal and follows the one before, and folding it gives the records.
pub(crate) async fn audits_fold(pool: &Pool, ids: &[String], state: RunState) {
    for id in ids {
        let run = pool.home().run(id).await.unwrap().unwrap_or_else(|| panic!("run {id} is gone"));
        assert_eq!(run.state, state, "run {id}: {:?}", run.error);
        let audit = pool.home().audit(id, 0, usize::MAX).await.unwrap();
        let seqs: Vec<u64> = audit.iter().map(|record| record.seq).collect();
        assert_eq!(seqs, (1..=run.seq).collect::<Vec<_>>(), "the audit of {id} has a gap");
        let mut stands: HashMap<&str, &str> = HashMap::new();
        for record in &audit {
            let is_run = record.subject == "@";
            let before =
                stands.get(&*record.subject).copied().unwrap_or(if is_run { "queued" } else { "pending" });
            assert_eq!(before, record.from, "{id}: {record:?}");
            assert!(is_legal(is_run, &record.from, &record.to), "{id}: {record:?}");
            stands.insert(&record.subject, &record.to);
        }
        assert_eq!(stands["@"], run.state.as_str());
        let mut folded: Vec<&str> = stands
            .iter()
            .filter(|(subject, _)| **subject != "@" && !subject.contains('['))
            .map(|(_, to)| *to)
            .collect();
        let mut stored: Vec<&str> = run.steps.values().map(|record| record.state.as_str()).collect();
        folded.sort_unstable();
        stored.sort_unstable();
        assert_eq!(folded, stored, "run {id}");
        assert!(stands.values().all(|state| ended(state)), "run {id}: {stands:?}");
    }
}

fn is_legal(is_run: bool, from: &str, to: &str) -> bool {
    if is_run {
        matches!((RunState::parse(from), RunState::parse(to)), (Some(from), Some(to)) if from.may_become(to))
    } else {
        matches!((StepState::parse(from), StepState::parse(to)), (Some(from), Some(to)) if from.may_become(to))
    }
}

fn ended(state: &str) -> bool {
    RunState::parse(state)
        .map_or_else(|| StepState::parse(state).is_some_and(StepState::is_terminal), RunState::is_terminal)
}

/// p50, p99 and the largest of times in milliseconds, as a line.
pub(crate) fn spread(what: &str, mut times: Vec<u64>) -> String {
    times.sort_unstable();
    let at =
        |share: usize| times.get((times.len() * share / 100).min(times.len().saturating_sub(1))).copied();
    let show = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
    format!(
        "{what}: n {}, p50 {}, p99 {}, max {}",
        times.len(),
        show(at(50)),
        show(at(99)),
        show(times.last().copied())
    )
}
