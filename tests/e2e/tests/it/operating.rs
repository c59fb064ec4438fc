//! What people do to runs by hand: signals, decisions, doing again, skipping, cancelling.

use serde_json::{Value, json};
use tidemill_producer::operate::{self, By, Decided, Decision, Redo, Sent, Signal, Skip};
use tidemill_producer::{Code, Refusal, Workflows, why};
use tidemill_protocol::{RunState, StepState};
use tidemill_store::StopRun;
use tidemill_worker::Settings;

use crate::pool::{LONG, Pool};

const BY: By<'static> = By { who: "ada (test)", why: "a test wants it" };

/// What a person works with.
struct Desk {
    workflows: Workflows,
}

impl Desk {
    fn of(pool: &Pool) -> Self {
        Self { workflows: Workflows::new(pool.store.clone()) }
    }

    async fn signal(&self, pool: &Pool, run: &str, name: &str, payload: &str) -> Result<Sent, Refusal> {
        let signal = Signal { name, payload, id: None, by: "ada" };
        operate::signal(&pool.store, &self.workflows, run, signal).await
    }

    async fn decide(
        &self,
        pool: &Pool,
        (run, step): (&str, &str),
        approve: bool,
        by: &str,
    ) -> Result<Decided, Refusal> {
        let decision = Decision { approve, by, roles: &[], feedback: Some("\"shorter\""), iteration: None };
        operate::decide(&pool.store, &self.workflows, (run, step), decision).await
    }

    async fn redo(&self, pool: &Pool, run: &str, from: Option<&str>) -> Result<String, Refusal> {
        let redo = Redo { from, input: None, id: None, by: BY };
        operate::redo(&pool.store, &self.workflows, run, redo).await.map(|redone| redone.id)
    }

    async fn skip(&self, pool: &Pool, run: &str, step: &str, output: &str) -> Result<bool, Refusal> {
        let skip = Skip { output: Some(output), by: BY };
        operate::skip(&pool.store, &self.workflows, (run, step), skip).await.map(|skipped| skipped.run_ended)
    }

    async fn why(&self, pool: &Pool, run: &str) -> String {
        why::run(&pool.store, &self.workflows, run).await.unwrap().why
    }

    /// Waits until a question stands open.
    async fn asked(&self, pool: &Pool, run: &str, iteration: u32) {
        tidemill_testkit::wait_until(LONG, "the question", async || {
            let page = operate::questions(&pool.store, &self.workflows, None, (None, 10)).await.unwrap();
            page.questions.iter().any(|question| question.run == run && question.iteration == iteration)
        })
        .await
        .unwrap();
    }
}

fn code<T>(answer: Result<T, Refusal>) -> Option<Code> {
    answer.err().map(|refusal| refusal.code)
}

/// How often each step of a run was begun.
async fn begun(pool: &Pool, run: &str) -> Vec<String> {
    let audit = pool.store.home().audit(run, 0, usize::MAX).await.unwrap();
    audit
        .iter()
        .filter(|record| record.subject != "@" && record.to == "running")
        .map(|r| r.subject.clone())
        .collect()
}

/// What is stored is what the audit says.
async fn is_sound(pool: &Pool, run: &str) {
    pool.check_audit(run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_is_checked_at_the_door_and_why_says_what_is_waited_for() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    let desk = Desk::of(&pool);
    pool.publish("name: paid\nsteps:\n  - { id: s0, wait: { signal: paid, schema: { type: object, required: [amount] } } }\n  - { id: s1, needs: [s0], tool: echo, with: { got: \"${ .steps.s0.output.amount }\" } }\n").await;
    pool.run("paid", "r", "{}").await;
    pool.stands("r", 0, StepState::Waiting).await;
    assert!(
        desk.why(&pool, "r").await.contains("step s0 waits for signal `paid`"),
        "{}",
        desk.why(&pool, "r").await
    );
    assert_eq!(code(desk.signal(&pool, "r", "payd", "{}").await), Some(Code::UnknownSignal));
    assert_eq!(code(desk.signal(&pool, "r", "paid", "{}").await), Some(Code::InvalidPayload));
    assert_eq!(code(desk.signal(&pool, "r", "paid", "{").await), Some(Code::InvalidJson));
    assert_eq!(code(desk.signal(&pool, "gone", "paid", "{}").await), Some(Code::UnknownRun));
    assert_eq!(desk.signal(&pool, "r", "paid", "{\"amount\": 5}").await.unwrap().state, "taken");
    let run = pool.ended("r").await;
    assert_eq!(Pool::output(&run), json!({ "got": 5 }));
    assert_eq!(code(desk.signal(&pool, "r", "paid", "{\"amount\": 5}").await), Some(Code::AlreadyEnded));
}

const REVIEW: &str = r#"
name: review
steps:
  - { id: draft, tool: echo, with: { text: "draft" } }
  - id: review
    needs: [draft]
    approval: { of: draft, who: [WHO], prompt: "fine?", max_iterations: 3, on_reject: revise }
  - { id: done, needs: [review], tool: echo, with: { by: "${ .steps.review.output.by }", n: "${ .steps.review.output.iterations }" } }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn of_all_who_decide_at_once_one_does_and_the_others_hear_of_a_conflict() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    let desk = Desk::of(&pool);
    pool.publish(&REVIEW.replace("who: [WHO], ", "")).await;
    for count in [3_usize, 20, 100, 1_000] {
        let id = format!("r{count}");
        pool.run("review", &id, "{}").await;
        desk.asked(&pool, &id, 1).await;
        let names: Vec<String> = (0..count).map(|n| format!("p{n}")).collect();
        let all = names.iter().map(|name| desk.decide(&pool, (&id, "review"), true, name));
        let answers = futures_util::future::join_all(all).await;
        let won: Vec<&Decided> = answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
        assert_eq!(won.len(), 1, "of {count}");
        for refusal in answers.iter().filter_map(|answer| answer.as_ref().err()) {
            assert!(matches!(refusal.code, Code::Conflict | Code::AlreadyEnded), "{refusal}");
        }
        let run = pool.ended(&id).await;
        assert_eq!(Pool::output(&run), json!({ "by": won[0].by, "n": 1 }));
        let audit = pool.store.home().audit(&id, 0, usize::MAX).await.unwrap();
        let woken = audit.iter().filter(|r| r.subject == "review" && r.from == "waiting").count();
        assert_eq!(woken, 1, "one entry in the audit, of {count}");
        let noted = operate::operations(&pool.store, Some(&id), 10).await.unwrap();
        assert_eq!(noted.len(), 1);
        assert_eq!((&*noted[0].kind, &*noted[0].by), ("approve", &*won[0].by));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_decide_does_not_and_a_rejection_asks_anew() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    let desk = Desk::of(&pool);
    pool.publish(&REVIEW.replace("WHO", "boss")).await;
    pool.run("review", "r", "{}").await;
    desk.asked(&pool, "r", 1).await;
    assert!(desk.why(&pool, "r").await.contains("waits for approval by boss (1 of 3): fine?"));
    assert_eq!(code(desk.decide(&pool, ("r", "review"), true, "ann").await), Some(Code::NotAllowed));
    assert_eq!(code(desk.decide(&pool, ("r", "draft"), true, "boss").await), Some(Code::NotWaiting));
    assert_eq!(code(desk.decide(&pool, ("r", "revew"), true, "boss").await), Some(Code::UnknownStep));
    desk.decide(&pool, ("r", "review"), false, "boss").await.unwrap();
    desk.asked(&pool, "r", 2).await;
    let stale = Decision { approve: true, by: "boss", roles: &[], feedback: None, iteration: Some(1) };
    let answer = operate::decide(&pool.store, &desk.workflows, ("r", "review"), stale).await;
    assert_eq!(code(answer), Some(Code::Conflict), "it was about the first draft");
    let roles = ["boss".to_owned()];
    let second = Decision { by: "eve", roles: &roles, iteration: Some(2), ..stale };
    operate::decide(&pool.store, &desk.workflows, ("r", "review"), second).await.unwrap();
    assert_eq!(Pool::output(&pool.ended("r").await), json!({ "by": "eve", "n": 2 }));
    assert_eq!(code(desk.decide(&pool, ("r", "review"), true, "boss").await), Some(Code::AlreadyEnded));
}

const PARTS: &str = r#"
name: parts
steps:
  - { id: a, tool: echo, with: { v: 1 } }
  - { id: b, tool: echo, needs: [a], with: { v: "${ .steps.a.output.v + 1 }" } }
  - { id: c, tool: jq.transform, needs: [a], retry: { max_attempts: 1 }, with: { filter: "if .ok then 10 else error(\"no\") end", input: "${ .input }" } }
  - { id: no, tool: echo, needs: [a], when: "${ false }" }
  - { id: d, needs: [b, c, no], join: any, tool: echo, with: { sum: "${ .steps.b.output.v }" } }
  - { id: e, needs: [c], tool: echo, with: { got: "${ .steps.c.output }" } }
output: { b: "${ .steps.b.output.v }", e: "${ .steps.e.output.got }" }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_done_again_from_what_failed_or_from_any_step_and_keeps_the_rest() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    let desk = Desk::of(&pool);
    pool.publish(PARTS).await;
    pool.run("parts", "r", "{\"ok\": false}").await;
    let run = pool.ended("r").await;
    assert_eq!(run.state, RunState::Failed);
    assert_eq!(desk.redo(&pool, "r", None).await.unwrap(), "r.r1");
    let again = pool.ended("r.r1").await;
    assert_eq!(
        (again.state, again.source.as_deref()),
        (RunState::Failed, Some("r")),
        "it has the same input"
    );
    let begun_again = begun(&pool, "r.r1").await;
    assert!(
        begun_again.contains(&"c".to_owned()) && !begun_again.contains(&"a".to_owned()),
        "{begun_again:?}"
    );
    // with another input it goes well
    let redo = Redo { from: Some("c"), input: Some("{\"ok\": true}"), id: Some("better"), by: BY };
    operate::redo(&pool.store, &desk.workflows, "r", redo).await.unwrap();
    let better = pool.ended("better").await;
    assert_eq!(better.state, RunState::Succeeded, "{:?}", better.error);
    assert_eq!(Pool::output(&better), json!({ "b": 2, "e": 10 }));
    let audit = pool.store.home().audit("better", 0, usize::MAX).await.unwrap();
    let given: Vec<_> = audit.iter().filter(|r| r.who.as_deref() == Some("from:r")).collect();
    assert!(given.iter().all(|r| r.from == "pending") && given.iter().any(|r| r.subject == "a"), "{given:?}");
    assert!(!begun(&pool, "better").await.contains(&"a".to_owned()));
    // from the first step everything is done again; a second id is found by itself
    assert_eq!(desk.redo(&pool, "better", Some("a")).await.unwrap(), "better.r1");
    assert_eq!(pool.ended("better.r1").await.state, RunState::Succeeded);
    assert!(begun(&pool, "better.r1").await.contains(&"a".to_owned()));
    assert_eq!(desk.redo(&pool, "better", Some("d")).await.unwrap(), "better.r2");
    let last = pool.ended("better.r2").await;
    assert_eq!((last.state, begun(&pool, "better.r2").await), (RunState::Succeeded, vec!["d".to_owned()]));
    assert_eq!(code(desk.redo(&pool, "better", None).await), Some(Code::NothingToRetry));
    assert_eq!(code(desk.redo(&pool, "better", Some("z")).await), Some(Code::UnknownStep));
    for id in ["r.r1", "better", "better.r1", "better.r2"] {
        is_sound(&pool, id).await;
    }
    let noted = operate::operations(&pool.store, Some("r"), 10).await.unwrap();
    let kinds: Vec<&str> = noted.iter().map(|operation| &*operation.kind).collect();
    assert_eq!(kinds, ["rerun", "retry"]);
    assert!(noted[1].why.contains("a test wants it") && noted[1].by == BY.who, "{noted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_undone_is_done_again() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    let desk = Desk::of(&pool);
    pool.publish("name: trip\nsteps:\n  - { id: hotel, tool: echo, with: 1, compensate: { tool: echo, with: 2 } }\n  - { id: ask, tool: echo, with: 3 }\n  - { id: car, needs: [hotel, ask], tool: jq.transform, retry: { max_attempts: 1 }, with: { filter: 'error(\"no\")', input: 1 } }\n").await;
    pool.run("trip", "t", "{}").await;
    assert_eq!(pool.ended("t").await.state, RunState::Compensated);
    desk.redo(&pool, "t", None).await.unwrap();
    assert_eq!(pool.ended("t.r1").await.state, RunState::Compensated);
    let begun = begun(&pool, "t.r1").await;
    assert!(begun.contains(&"hotel".to_owned()) && !begun.contains(&"ask".to_owned()), "{begun:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_waits_is_given_its_output_and_one_that_runs_is_not() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    let desk = Desk::of(&pool);
    pool.publish("name: held\nsteps:\n  - { id: w, wait: { signal: never } }\n  - { id: sub, steps: [ { id: in, tool: sleep, with: { ms: 60000 } } ] }\n  - { id: busy, tool: sleep, with: { ms: 900 } }\n  - { id: end, needs: [w, sub, busy], tool: echo, with: { w: \"${ .steps.w.output.v }\", sub: \"${ .steps.sub.output }\" } }\n").await;
    pool.run("held", "r", "{}").await;
    pool.stands("r", 0, StepState::Waiting).await;
    pool.stands("r~sub.0", 0, StepState::Ready).await;
    tidemill_testkit::wait_until(LONG, "the worker to run it", async || {
        code(desk.skip(&pool, "r", "busy", "1").await) == Some(Code::StepRuns)
    })
    .await
    .unwrap();
    assert_eq!(code(desk.skip(&pool, "r", "end", "1").await), Some(Code::StepPending));
    assert_eq!(code(desk.skip(&pool, "r", "w", "{").await), Some(Code::InvalidJson));
    assert!(!desk.skip(&pool, "r", "w", "{\"v\": 7}").await.unwrap());
    assert_eq!(code(desk.skip(&pool, "r", "w", "{\"v\": 8}").await), Some(Code::AlreadyEnded));
    assert!(!desk.skip(&pool, "r", "sub", "\"given\"").await.unwrap());
    let run = pool.ended("r").await;
    assert_eq!((run.state, Pool::output(&run)), (RunState::Succeeded, json!({ "w": 7, "sub": "given" })));
    assert_eq!(pool.ended("r~sub.0").await.state, RunState::Cancelled, "nobody waits for it any more");
    let noted = operate::operations(&pool.store, Some("r"), 10).await.unwrap();
    assert_eq!(noted.len(), 2);
    assert_eq!(noted[0].step.as_deref(), Some("sub"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_step_of_a_waiting_run_is_given_its_output_and_the_run_ends() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    let desk = Desk::of(&pool);
    pool.publish("name: nap\nsteps:\n  - { id: nap, wait: { for_ms: 3600000 } }\n").await;
    pool.publish("name: stuck\nsteps:\n  - { id: s, tool: echo, queue: nobody, with: 1 }\n").await;
    pool.run("nap", "n", "{}").await;
    pool.run("stuck", "s", "{}").await;
    pool.stands("n", 0, StepState::Waiting).await;
    pool.stands("s", 0, StepState::Ready).await;
    for id in ["n", "s"] {
        assert!(desk.skip(&pool, id, "0", "[1]").await.unwrap(), "the run ends with it");
        let run = pool.ended(id).await;
        assert_eq!((run.state, Pool::output(&run)), (RunState::Succeeded, json!([1])));
    }
    let alarms = pool.cli(&["ZCARD", "tm:{0}:due:@waits"]).await;
    assert_eq!((alarms.as_str(), pool.cli(&["XLEN", "tm:{0}:jobs:nobody"]).await.as_str()), ("0", "0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_is_undone_unless_that_is_not_wanted() {
    let mut pool = Pool::start().await;
    pool.worker(Settings::default());
    pool.publish("name: saga\nsteps:\n  - { id: a, tool: echo, with: 1, compensate: { tool: echo, with: 2 } }\n  - { id: b, needs: [a], wait: { signal: never } }\n").await;
    for (id, spares, expected) in [("u", false, RunState::Compensated), ("k", true, RunState::Cancelled)] {
        pool.run("saga", id, "{}").await;
        pool.stands(id, 1, StepState::Waiting).await;
        let stop = StopRun {
            id,
            to: RunState::Cancelled,
            who: "test",
            code: "cancelled",
            reason: "x",
            only_past_deadline: false,
            spares,
            by_force: false,
        };
        assert_eq!(pool.store.home().stop_run(&stop).await.unwrap(), Some(true));
        assert_eq!(pool.ended(id).await.state, expected);
    }
    let undone: Vec<Value> = vec![json!(begun(&pool, "u").await), json!(begun(&pool, "k").await)];
    assert_eq!(undone, [json!(["a", "b", "a!undo"]), json!(["a", "b"])]);
}
