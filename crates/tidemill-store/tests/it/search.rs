//! Searching for runs over several partitions.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidemill_protocol::{EntryId, Labels, RunState};
use tidemill_store::{NewRun, RunCursor, RunQuery, StopRun, Store, keys};

use crate::place::Place;
use crate::pool::{Pool, claim};

const BUDGET: usize = 10_000;

/// A pool of four partitions.
async fn pool() -> Pool {
    Pool::on(Arc::new(Place::redis().await), "tm", 4).await
}

struct Asked<'a> {
    id: &'a str,
    workflow: &'a str,
    tenant: &'a str,
    labels: &'a str,
}

impl Default for Asked<'_> {
    fn default() -> Self {
        Self { id: "r", workflow: "flow@1", tenant: "acme", labels: "{}" }
    }
}

async fn start(pool: &Pool, runs: &[Asked<'_>]) {
    for partition in pool.store.partitions() {
        let own = |run: &&Asked<'_>| pool.store.partition_of(run.id).index() == partition.index();
        let own: Vec<_> = runs.iter().filter(own).collect();
        let mut claimer = pool
            .store
            .claimer(partition.index(), keys::SCHEDULERS, "s1", std::time::Duration::from_secs(2))
            .unwrap();
        for run in own {
            pool.xadd(&partition.keys().runs(), &["workflow", "flow", "id", run.id]).await;
            let asked: Vec<EntryId> =
                claim(&mut claimer, keys::RUNS, 1).await.into_iter().map(|one| one.entry).collect();
            let labels = Labels::parse(run.labels.as_bytes()).unwrap();
            let new = NewRun {
                entry: &asked[0],
                id: run.id,
                workflow: run.workflow,
                deadline_ms: 0,
                fields: vec![("in", b"{}"), ("ten", run.tenant.as_bytes()), ("rms", b"60000")],
                labels: &labels,
                parent: run.id.rsplit_once('~').map(|(parent, _)| parent),
                given: Vec::new(),
                roots: Vec::new(),
                more: None,
            };
            partition.start("s1", &["default".to_owned()], &[new]).await.unwrap();
        }
    }
}

async fn end(store: &Store, id: &str) {
    let stop = StopRun {
        id,
        to: RunState::Cancelled,
        who: "ada",
        code: "cancelled",
        reason: "enough",
        only_past_deadline: false,
        spares: false,
        by_force: false,
    };
    assert_eq!(store.partition_of(id).stop_run(&stop).await.unwrap(), Some(true));
}

/// All pages of a search, so many runs each.
async fn pages(store: &Store, query: &RunQuery, limit: usize) -> Vec<Vec<String>> {
    let (mut pages, mut after) = (Vec::new(), None::<RunCursor>);
    loop {
        let page = store.search(query, after.as_ref(), limit, BUDGET).await.unwrap();
        pages.push(page.runs.into_iter().map(|run| run.id).collect());
        match page.next {
            Some(next) => after = Some(RunCursor::parse(&next.to_string()).unwrap()),
            None => return pages,
        }
    }
}

async fn found(store: &Store, query: &RunQuery) -> Vec<String> {
    let mut found = pages(store, query, 7).await.concat();
    found.sort();
    found
}

#[tokio::test]
async fn pages_come_newest_first_over_all_partitions_and_repeat_nothing_while_runs_come_and_go() {
    let pool = pool().await;
    let ids: Vec<String> = (0..240).map(|at| format!("r{at:03}")).collect();
    let runs: Vec<_> = ids.iter().map(|id| Asked { id, ..Asked::default() }).collect();
    start(&pool, &runs).await;
    let query = RunQuery::default();
    let first = pool.store.search(&query, None, 100, BUDGET).await.unwrap();
    let cursors: Vec<_> = first.runs.iter().map(|run| (run.started_ms, run.id.clone())).collect();
    assert!(cursors.is_sorted_by(|a, b| a > b), "{cursors:?}");
    // what comes is not in the rest, and what ends does not leave it
    start(&pool, &[Asked { id: "late", ..Asked::default() }]).await;
    for id in ["r000", "r120"] {
        end(&pool.store, id).await;
    }
    let mut seen: Vec<String> = first.runs.into_iter().map(|run| run.id).collect();
    let mut after = first.next;
    while let Some(cursor) = after {
        let page = pool.store.search(&query, Some(&cursor), 100, BUDGET).await.unwrap();
        seen.extend(page.runs.into_iter().map(|run| run.id));
        after = page.next;
    }
    assert_eq!(seen.len(), 240);
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), ids.into_iter().collect());
    assert_eq!(pages(&pool.store, &query, 250).await.concat()[0], "late");
}

#[tokio::test]
async fn many_runs_of_one_millisecond_are_paged_one_by_one() {
    let pool = pool().await;
    let ids: Vec<String> = (0..120).map(|at| format!("r{at:03}")).collect();
    start(&pool, &ids.iter().map(|id| Asked { id, ..Asked::default() }).collect::<Vec<_>>()).await;
    for partition in pool.store.partitions() {
        let key = partition.keys().started();
        for id in &ids {
            pool.cli(&["ZADD", &key, "XX", "1000", id]).await;
        }
    }
    let all = pages(&pool.store, &RunQuery::default(), 3).await;
    assert!(all.iter().all(|page| page.len() <= 3));
    let mut wanted = ids.clone();
    wanted.reverse();
    assert_eq!(all.concat(), wanted, "of one time by id, each once");
}

#[tokio::test]
async fn runs_are_found_by_workflow_state_label_tenant_parent_and_time() {
    let pool = pool().await;
    let runs = [
        Asked { id: "a", labels: r#"{"team":"billing","env":"prod"}"#, ..Asked::default() },
        Asked { id: "b", labels: r#"{"team":"billing","env":"test"}"#, tenant: "globex", ..Asked::default() },
        Asked { id: "c", workflow: "flow@2", labels: r#"{"team":"search"}"#, ..Asked::default() },
        Asked { id: "d", workflow: "other@1", ..Asked::default() },
        Asked { id: "a~step.0", workflow: "flow@1#step", ..Asked::default() },
        Asked { id: "a~step.1", workflow: "other@1", ..Asked::default() },
        Asked { id: "a~step.1~inner.0", workflow: "other@1#inner", ..Asked::default() },
    ];
    start(&pool, &runs).await;
    end(&pool.store, "b").await;
    let label = |words: &[(&str, &str)]| RunQuery {
        labels: words.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        ..RunQuery::default()
    };
    let query = RunQuery::default;
    let live: Vec<_> = RunState::ALL.into_iter().filter(|state| !state.is_terminal()).collect();
    let cases: [(RunQuery, &[&str]); 13] = [
        (query(), &["a", "a~step.1", "b", "c", "d"]),
        (
            RunQuery { blocks: true, ..query() },
            &["a", "a~step.0", "a~step.1", "a~step.1~inner.0", "b", "c", "d"],
        ),
        (RunQuery { workflow: Some("flow".into()), ..query() }, &["a", "b", "c"]),
        (RunQuery { workflow: Some("flow@2".into()), ..query() }, &["c"]),
        (RunQuery { states: vec![RunState::Cancelled], ..query() }, &["b"]),
        (RunQuery { states: live.clone(), ..query() }, &["a", "a~step.1", "c", "d"]),
        (RunQuery { states: live, workflow: Some("flow".into()), ..query() }, &["a", "c"]),
        (label(&[("team", "billing")]), &["a", "b"]),
        (label(&[("team", "billing"), ("env", "prod")]), &["a"]),
        (label(&[("team", "nobody")]), &[]),
        (RunQuery { tenant: Some("globex".into()), ..query() }, &["b"]),
        (RunQuery { parent: Some("a".into()), ..query() }, &["a~step.0", "a~step.1"]),
        (RunQuery { parent: Some("a~step.1".into()), ..query() }, &["a~step.1~inner.0"]),
    ];
    for (query, wanted) in cases {
        assert_eq!(found(&pool.store, &query).await, wanted, "{query:?}");
    }
    let page = pool.store.search(&label(&[("env", "prod")]), None, 10, BUDGET).await.unwrap();
    let row = &page.runs[0];
    assert_eq!(
        (row.tenant.as_deref(), row.labels.get("team"), row.parent.as_deref()),
        (Some("acme"), Some("billing"), None)
    );
    let at = row.started_ms;
    let since = RunQuery { since_ms: Some(at + 3_600_000), ..query() };
    assert_eq!(found(&pool.store, &since).await, [""; 0]);
    let until = RunQuery { until_ms: Some(at), since_ms: Some(at), ..query() };
    assert!(found(&pool.store, &until).await.contains(&"a".to_owned()));
}

#[tokio::test]
async fn a_page_reads_no_more_than_its_budget_and_says_where_to_go_on() {
    let pool = pool().await;
    let ids: Vec<String> = (0..200).map(|at| format!("r{at:03}")).collect();
    let tenant = |id: &str| if id == "r000" { "rare" } else { "acme" };
    start(
        &pool,
        &ids.iter().map(|id| Asked { id, tenant: tenant(id), ..Asked::default() }).collect::<Vec<_>>(),
    )
    .await;
    let query = RunQuery { tenant: Some("rare".into()), ..RunQuery::default() };
    let (mut after, mut pages, mut seen) = (None::<RunCursor>, 0, Vec::new());
    loop {
        let page = pool.store.search(&query, after.as_ref(), 10, 50).await.unwrap();
        pages += 1;
        seen.extend(page.runs.into_iter().map(|run| run.id));
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, ["r000"]);
    assert!((4..=6).contains(&pages), "{pages} pages of 50 for 200 runs");
}

#[tokio::test]
async fn what_is_trimmed_leaves_no_trace_in_any_index() {
    let pool = Pool::start().await;
    let runs = [
        Asked { id: "a", labels: r#"{"team":"billing"}"#, ..Asked::default() },
        Asked { id: "a~s.0", ..Asked::default() },
        Asked { id: "b", labels: r#"{"team":"billing"}"#, ..Asked::default() },
    ];
    start(&pool, &runs).await;
    for id in ["a~s.0", "a"] {
        end(&pool.store, id).await;
    }
    // the run itself may be gone long before
    pool.cli(&["DEL", "tm:{0}:run:a"]).await;
    assert_eq!(pool.home().trim_ended(0, 0, 500).await.unwrap(), 2);
    assert_eq!(found(&pool.store, &RunQuery { blocks: true, ..RunQuery::default() }).await, ["b"]);
    let keys = pool.cli(&["KEYS", "tm:{0}:*"]).await;
    for gone in ["children:", "run:a", "audit:a"] {
        assert!(!keys.contains(gone), "{gone} in {keys}");
    }
    assert_eq!(pool.cli(&["ZRANGE", "tm:{0}:label:team=billing", "0", "-1"]).await, "b");
    assert_eq!(pool.cli(&["HKEYS", "tm:{0}:labelled"]).await, "b");
    assert_eq!(pool.cli(&["ZRANGE", "tm:{0}:started", "0", "-1"]).await, "b");
}
