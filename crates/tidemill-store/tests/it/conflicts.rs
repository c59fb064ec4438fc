//! Of many who move the same thing at the same moment one wins, and there is one audit entry of it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;

use futures_util::future::join_all;
use serde_json::json;
use tidemill_protocol::{AuditRecord, EntryId, RunState, StepState};
use tidemill_store::{
    Closing, Content, Delivered, EndRun, Expansion, NextClosing, Partition, Settings, Settled, StepLetter,
    Store, Waited, Waiting,
};

use crate::flow::{WF, audit, moves, outcome, run, slot, start, start_with, step_of};
use crate::pool::{Pool, claim, field};

/// As many as want the same.
const CROWDS: [usize; 4] = [3, 20, 100, 1_000];

/// How often which answer came.
type Answers = BTreeMap<String, usize>;

/// One answer to one of the crowd, another to all the others.
fn one_of(count: usize, won: impl Debug, others: impl Debug) -> Answers {
    Answers::from([(format!("{won:?}"), 1), (format!("{others:?}"), count - 1)])
}

/// Some connections side by side, so that what is asked at the same moment arrives in any order.
struct Crowd {
    stores: Vec<Store>,
}

impl Crowd {
    fn of(pool: &Pool) -> Self {
        let settings = Settings { url: pool.place.url(), ..Settings::default() };
        Self { stores: (0..8).map(|_| Store::new(&settings, "tm", 1).unwrap()).collect() }
    }

    /// So many ask at once; gives how often which answer came.
    async fn ask<A: Debug, F: Future<Output = A>>(
        &self,
        count: usize,
        ask: impl Fn(usize, &Partition) -> F,
    ) -> Answers {
        let asked = (0..count).map(|n| ask(n, self.stores[n % self.stores.len()].home()));
        let mut answers = Answers::new();
        for answer in join_all(asked).await {
            *answers.entry(format!("{answer:?}")).or_default() += 1;
        }
        answers
    }
}

/// A run whose first two steps are claimed.
async fn claimed(pool: &Pool, id: &str, fields: Vec<(&str, &[u8])>) -> Vec<EntryId> {
    start_with(pool, id, 0, fields).await;
    let mut held = claim(&mut pool.worker("w1"), "default", 2).await;
    held.sort_by_key(step_of);
    held.into_iter().map(|claimed| claimed.entry).collect()
}

fn of_run(audit: &[AuditRecord]) -> Vec<String> {
    moves(audit, "@")
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_settlers_of_a_step_one_wins() {
    let pool = Pool::start().await;
    let crowd = Crowd::of(&pool);
    for count in CROWDS {
        let id = format!("r{count}");
        let entries = claimed(&pool, &id, vec![("in", b"1")]).await;
        let (id, entry) = (&id, &entries[0]);
        let answers = crowd
            .ask(count, |n, partition| {
                let partition = partition.clone();
                async move {
                    let to = [StepState::Succeeded, StepState::Failed, StepState::TimedOut][n % 3];
                    let mut ended = outcome(entry, id, 0, to);
                    ended.mode.fails_run_now = false;
                    let (who, targets) = (format!("w{n}"), ["default".to_owned()]);
                    partition.settle_steps("default", &who, &targets, &[ended]).await.unwrap()[0]
                }
            })
            .await;
        assert_eq!(answers, one_of(count, Settled::Recorded, Settled::Stale));
        let (audit, run) = (audit(&pool, id).await, run(&pool, id).await);
        let (of, now) = (moves(&audit, "a"), run.steps[&0].state.as_str());
        assert_eq!(of[1..], ["ready running".to_owned(), format!("running {now}")], "{of:?}");
        assert_eq!(run.done, 1, "it is counted once");
    }
}

fn wait<'a>(entry: &'a EntryId, slot: &'a tidemill_store::Slot) -> Waiting<'a> {
    Waiting {
        entry,
        slot,
        workflow: WF,
        attempt: 1,
        ran: std::time::Duration::from_millis(1),
        memo: b"{\"open\":[]}",
        why: "waits",
        alarm: None,
        read: &[],
        letter: None,
        listen: &[],
        publish: &[],
        requests: vec![vec![("workflow", bytes::Bytes::from_static(b"child"))]],
        queue: "default",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_put_a_step_to_wait_one_wins() {
    let pool = Pool::start().await;
    let crowd = Crowd::of(&pool);
    let mut asked = 0;
    for count in CROWDS {
        let id = format!("r{count}");
        let entries = claimed(&pool, &id, vec![("in", b"1"), ("a", b"2"), ("wa", b"1")]).await;
        let (entry, slot) = (&entries[0], &slot(&id, 0));
        let answers = crowd
            .ask(count, |n, partition| {
                let partition = partition.clone();
                async move { partition.wait("default", &format!("w{n}"), &wait(entry, slot)).await.unwrap() }
            })
            .await;
        assert_eq!(answers, one_of(count, Waited::Waits, Waited::Stale));
        assert_eq!(moves(&audit(&pool, &id).await, "a")[1..], ["ready running", "running waiting"]);
        asked += 1;
        assert_eq!(pool.length(&pool.keys().runs()).await, asked.to_string(), "its child is asked for once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_deciders_who_saw_the_same_one_wins() {
    let pool = Pool::start().await;
    let crowd = Crowd::of(&pool);
    for count in CROWDS {
        let id = format!("r{count}");
        let entries = claimed(&pool, &id, vec![("in", b"1"), ("a", b"2"), ("wa", b"1")]).await;
        let slot = &slot(&id, 0);
        let mut waiting = wait(&entries[0], slot);
        waiting.requests.clear();
        assert_eq!(pool.home().wait("default", "w1", &waiting).await.unwrap(), Waited::Waits);
        let seen = &pool.cli(&["HGET", &pool.keys().run(&id), "s0"]).await;
        let answers = crowd
            .ask(count, |n, partition| {
                let partition = partition.clone();
                async move {
                    let (key, payload) =
                        (format!("decision.{n}"), json!({ "type": "decision", "n": n }).to_string());
                    let content = Content::IfUnchanged { key: &key, payload: payload.as_bytes(), seen };
                    let letter = StepLetter { slot, workflow: WF, queue: "default", content };
                    partition.deliver(&[letter]).await.unwrap()[0]
                }
            })
            .await;
        assert_eq!(answers, one_of(count, Delivered::Woke, Delivered::Unwanted));
        let woken = moves(&audit(&pool, &id).await, "a");
        assert_eq!(woken[1..], ["ready running", "running waiting", "waiting ready"]);
        assert_eq!(pool.home().mail(&id, 0).await.unwrap().len(), 1, "the others' letters are not kept");
        // the one who works on it now meets nobody
        let again = claim(&mut pool.worker("w1"), "default", 1).await;
        assert_eq!(field(&again[0], "step").unwrap(), "0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_deciders_enders_and_settlers_each_move_has_one() {
    let pool = Pool::start().await;
    let crowd = Crowd::of(&pool);
    for count in CROWDS {
        let id = format!("r{count}");
        let entries = claimed(&pool, &id, vec![("in", b"1"), ("a", b"2"), ("wa", b"1")]).await;
        let (first, second) = (&slot(&id, 0), &entries[1]);
        let mut waiting = wait(&entries[0], first);
        waiting.requests.clear();
        assert_eq!(pool.home().wait("default", "w1", &waiting).await.unwrap(), Waited::Waits);
        let seen = &pool.cli(&["HGET", &pool.keys().run(&id), "s0"]).await;
        let id = &id;
        let answers = crowd
            .ask(count, |n, partition| {
                let partition = partition.clone();
                async move {
                    match n % 3 {
                        0 => {
                            let key = format!("decision.{n}");
                            let content = Content::IfUnchanged { key: &key, payload: b"{}", seen };
                            let letter = StepLetter { slot: first, workflow: WF, queue: "default", content };
                            ("decision", partition.deliver(&[letter]).await.unwrap() == [Delivered::Woke])
                        }
                        1 => (
                            "end",
                            partition.end_run(&end(id, RunState::Cancelled)).await.unwrap() == Some(true),
                        ),
                        _ => {
                            let ended = outcome(second, id, 1, StepState::Succeeded);
                            let targets = ["default".to_owned()];
                            let settled = partition.settle_steps("default", "w1", &targets, &[ended]).await;
                            ("settle", settled.unwrap() == [Settled::Recorded])
                        }
                    }
                }
            })
            .await;
        let won = |what: &str| answers.get(&format!("{:?}", (what, true))).copied().unwrap_or(0);
        assert_eq!((won("end"), won("settle")), (1, 1), "{answers:?}");
        assert!(won("decision") <= 1, "{answers:?}");
        let audit = audit(&pool, id).await;
        assert_eq!(of_run(&audit).iter().filter(|change| change.ends_with(" cancelled")).count(), 1);
        assert_eq!(moves(&audit, "b").iter().filter(|change| *change == "running succeeded").count(), 1);
        assert!(moves(&audit, "a").iter().filter(|change| *change == "waiting ready").count() <= 1);
        // what was woken after all is left alone
        claim_left(&pool).await;
    }
}

/// Takes what a run has left in the queue.
async fn claim_left(pool: &Pool) {
    let mut worker = pool.worker("w1");
    let left = crate::pool::claim_now(&mut worker, "default", 10).await.unwrap();
    let entries: Vec<EntryId> = left.into_iter().map(|claimed| claimed.entry).collect();
    if !entries.is_empty() {
        pool.home().acknowledge("default", &entries).await.unwrap();
    }
}

fn end(id: &str, to: RunState) -> EndRun<'_> {
    EndRun {
        id,
        to,
        who: "ada",
        code: "cancelled",
        reason: "not wanted",
        only_past_deadline: false,
        spares: false,
        by_force: false,
        home: None,
        reply_to: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_end_a_run_one_does() {
    let pool = Pool::start().await;
    let crowd = Crowd::of(&pool);
    for count in CROWDS {
        let id = format!("r{count}");
        start(&pool, &id).await;
        claim_left(&pool).await;
        let id = &id;
        let answers = crowd
            .ask(count, |n, partition| {
                let partition = partition.clone();
                async move {
                    let to = [RunState::Cancelled, RunState::Failed, RunState::TimedOut][n % 3];
                    partition.end_run(&end(id, to)).await.unwrap()
                }
            })
            .await;
        assert_eq!(answers, one_of(count, Some(true), Some(false)));
        let ends = of_run(&audit(&pool, id).await);
        let state = run(&pool, id).await.state;
        assert_eq!(ends, ["queued running".to_owned(), format!("running {}", state.as_str())]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_begin_or_end_a_runs_closing_one_does() {
    let pool = Pool::start().await;
    let crowd = Crowd::of(&pool);
    for count in CROWDS {
        let id = format!("r{count}");
        claimed(&pool, &id, vec![("in", b"1"), ("cl", b"default"), ("a", b"2")]).await;
        let id = &id;
        // its end is decided once
        let answers = crowd
            .ask(count, |_, partition| {
                let partition = partition.clone();
                async move {
                    let end = EndRun { home: Some("default"), ..end(id, RunState::Failed) };
                    partition.end_run(&end).await.unwrap()
                }
            })
            .await;
        assert_eq!(answers["Some(true)"], 1, "{answers:?}");
        let close = claim(&mut pool.worker("w1"), "default", 1).await;
        assert_eq!(field(&close[0], "close").as_deref(), Some("1"));
        let mut entry = close[0].entry.clone();
        // what is undone first is dispatched once, and then the run ends once
        for (seen, next) in
            [(0, NextClosing::Undo(2, "c", "default")), (1, NextClosing::End(RunState::Compensated))]
        {
            let held = &entry;
            let answers = crowd
                .ask(count, |n, partition| {
                    let partition = partition.clone();
                    async move {
                        let closing = Closing {
                            entry: held,
                            run: id,
                            workflow: WF,
                            seen,
                            next,
                            retention_ms: 60_000,
                            reply_to: None,
                        };
                        partition.close("default", &format!("w{n}"), &closing).await.unwrap()
                    }
                })
                .await;
            let won = if seen == 0 { Some(false) } else { Some(true) };
            assert_eq!(answers, one_of(count, won, None::<bool>), "at {seen}");
            if seen == 0 {
                let undo = claim(&mut pool.worker("w1"), "default", 1).await;
                let mut ended = outcome(&undo[0].entry, id, 2, StepState::Succeeded);
                (ended.mode.gives_output, ended.mode.closes, ended.mode.is_closing) = (false, true, true);
                let targets = ["default".to_owned()];
                let settled = pool.home().settle_steps("default", "w1", &targets, &[ended]).await.unwrap();
                assert_eq!(settled, [Settled::Recorded]);
                entry = claim(&mut pool.worker("w1"), "default", 1).await[0].entry.clone();
            }
        }
        let ends = of_run(&audit(&pool, id).await);
        assert_eq!(ends, ["queued running", "running compensating", "compensating compensated"]);
        claim_left(&pool).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_for_each_is_not_begun_in_a_run_that_has_ended() {
    let pool = Pool::start().await;
    let entries = claimed(&pool, "r", vec![("in", b"1")]).await;
    assert_eq!(pool.home().end_run(&end("r", RunState::Cancelled)).await.unwrap(), Some(true));
    let expansion = Expansion {
        entry: &entries[0],
        run: "r",
        workflow: WF,
        step: 0,
        name: "a",
        attempt: 1,
        total: 3,
        concurrency: 3,
        queue: "default",
        keep_ms: 60_000,
    };
    assert!(!pool.home().expand("default", "w1", &expansion).await.unwrap());
    let cancelled = outcome(&entries[0], "r", 0, StepState::Cancelled);
    let targets = ["default".to_owned()];
    let settled = pool.home().settle_steps("default", "w1", &targets, &[cancelled]).await.unwrap();
    assert_eq!(settled, [Settled::Recorded], "the step was still the caller's to settle");
    assert!(audit(&pool, "r").await.iter().all(|record| !record.subject.contains('[')));
}
