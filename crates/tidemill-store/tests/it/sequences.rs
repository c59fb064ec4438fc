//! Random sequences of calls, made on the server and on a model of a page: the same replies, the same records, the same audit.
//!
//! The run: `a` and `b` at once; `c` after both have ended; `d` as soon as one of them succeeded, or both have ended.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use tidemill_protocol::{EntryId, RunState, StepState};
use tidemill_store::{
    ClaimedEntry, DeferState, Deferral, Dependent, Drift, Due, EndRun, FinishRun, Held, LIBRARY_VERSION,
    Mode, Released, Slot, StepOutcome, keys, library_text,
};

use crate::flow::{WF, audit, run, start};
use crate::model::{Model, Part, STEPS};
use crate::pool::{Pool, claim_now, field};
use crate::verify::misfits;

#[derive(Debug, Clone, Copy)]
enum Op {
    /// Claim the oldest entry.
    Claim,
    /// Settle what the n-th claim gave, whether it is still owned or not.
    Settle { claim: usize, to: StepState, ran: bool, harsh: bool },
    /// Put it aside; it is due at once.
    Defer { claim: usize, retry: bool },
    /// Promote a step.
    Promote { step: usize },
    /// Hand it back, or take it from the dead.
    Release { claim: usize, dead: bool },
    /// End the run from outside.
    End { to: RunState },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let ends = prop::sample::select(vec![
        StepState::Succeeded,
        StepState::Succeeded,
        StepState::Failed,
        StepState::Skipped,
        StepState::Cancelled,
        StepState::TimedOut,
    ]);
    let claim = 0..8_usize;
    let op = prop_oneof![
        5 => Just(Op::Claim),
        6 => (claim.clone(), ends, prop::bool::weighted(0.8), prop::bool::weighted(0.2))
            .prop_map(|(claim, to, ran, harsh)| Op::Settle { claim, to, ran, harsh }),
        2 => (claim.clone(), any::<bool>()).prop_map(|(claim, retry)| Op::Defer { claim, retry }),
        2 => (0..STEPS.len()).prop_map(|step| Op::Promote { step }),
        2 => (claim, any::<bool>()).prop_map(|(claim, dead)| Op::Release { claim, dead }),
        1 => prop::sample::select(vec![RunState::Cancelled, RunState::Failed, RunState::TimedOut])
            .prop_map(|to| Op::End { to }),
    ];
    prop::collection::vec(op, 1..40)
}

/// The server's side: what was claimed, and the calls.
struct Server<'a> {
    pool: &'a Pool,
    worker: tidemill_store::Claimer,
    claims: Vec<ClaimedEntry>,
}

fn slot(step: usize) -> Slot {
    Slot {
        run: "r1".to_owned(),
        step: u32::try_from(step).unwrap(),
        item: None,
        name: STEPS[step].to_owned(),
    }
}

fn part_of(entry: &ClaimedEntry) -> Part {
    field(entry, "step").map(|step| step.parse().unwrap())
}

fn outcome(
    entry: &EntryId,
    step: usize,
    to: StepState,
    (ran, harsh, attempt): (bool, bool, u32),
) -> StepOutcome<'_> {
    let success = to == StepState::Succeeded;
    let dependent = |step: u32, ok| Dependent { step, name: STEPS[step as usize], ended: 2, ok, target: 0 };
    StepOutcome {
        step: Some(u32::try_from(step).unwrap()),
        name: STEPS[step],
        attempt,
        steps: STEPS.len(),
        mode: Mode {
            success,
            fails_run_at_end: !success && !harsh,
            fails_run_now: !success && harsh,
            gives_output: step == 3,
            did_not_run: !ran,
            ..Mode::default()
        },
        dependents: if step < 2 { vec![dependent(2, 0), dependent(3, 1)] } else { Vec::new() },
        ..crate::flow::outcome(entry, "r1", 0, to)
    }
}

impl Server<'_> {
    async fn defer(&self, claim: usize, (retry, attempt): (bool, u32)) -> bool {
        let Some(step) = part_of(&self.claims[claim]) else { return false };
        let aside = Deferral {
            entry: &self.claims[claim].entry,
            id: "",
            slot: Some(slot(step)),
            state: if retry { DeferState::Retrying } else { DeferState::Parked },
            due: Due::At(1),
            note: "",
            ran: Duration::ZERO,
            attempt,
            changes: Vec::new(),
        };
        self.pool.home().defer("default", keys::WORKERS, "w1", &[aside]).await.unwrap() == [true]
    }

    async fn release(&self, claim: usize, (dead, attempt): (bool, u32)) -> bool {
        let slot = part_of(&self.claims[claim]).map(slot);
        let held = [Held { entry: self.claims[claim].entry.clone(), slot, attempt }];
        let jobs = self.pool.jobs();
        let beat = dead.then_some("7");
        let moved =
            self.pool.home().release((&jobs, keys::WORKERS), "s1", ("w1", beat), &held).await.unwrap();
        matches!(moved[..], [Released::Moved(_)])
    }

    async fn finish(&self, claim: usize) -> bool {
        let end = FinishRun {
            home: "q",
            entry: &self.claims[claim].entry,
            id: "r1",
            workflow: WF,
            to: RunState::Succeeded,
            output: b"1",
            error: "",
            code: "",
            reason: "",
            retention_ms: 60_000,
            reply_to: None,
        };
        self.pool.home().finish("default", "w1", &end).await.unwrap()
    }
}

#[expect(clippy::needless_pass_by_value, reason = "both sides are made for the comparison")]
fn same<T: PartialEq + std::fmt::Debug>(server: T, model: T, what: &str) -> Result<(), TestCaseError> {
    if server == model {
        return Ok(());
    }
    Err(TestCaseError::fail(format!("{what}: the server says {server:?}, the model {model:?}")))
}

async fn step(server: &mut Server<'_>, model: &mut Model, op: Op) -> Result<(), TestCaseError> {
    let what = format!("{op:?}");
    let attempt_of =
        |model: &Model, claim: usize| model.claims[claim].0.map_or(1, |step| model.steps[step].attempt);
    match op {
        Op::Claim => {
            let got = claim_now(&mut server.worker, "default", 1).await.unwrap();
            same(got.first().map(part_of), model.waiting.front().copied(), &what)?;
            if let (Some(entry), Some(part)) = (got.into_iter().next(), model.waiting.pop_front()) {
                server.claims.push(entry);
                model.claims.push((part, true));
            }
        }
        Op::Promote { step } => {
            let promoted = server.pool.home().promote("default", &[slot(step).member()]).await.unwrap();
            same(promoted[0], model.promote(step), &what)?;
        }
        Op::End { to } => {
            let end = EndRun {
                id: "r1",
                to,
                who: "ada",
                code: "c",
                reason: "r",
                only_past_deadline: false,
                spares: false,
                by_force: false,
                home: None,
                reply_to: None,
            };
            let ended = server.pool.home().end_run(&end).await.unwrap();
            same(ended, Some(!model.state.is_terminal()), &what)?;
            if ended == Some(true) {
                model.end(to);
            }
        }
        // claims are named by number so that a failing sequence shrinks; one that was not made yet is left out
        Op::Settle { claim, .. } | Op::Defer { claim, .. } | Op::Release { claim, .. }
            if claim >= model.claims.len() => {}
        Op::Settle { claim, to, ran, harsh } => {
            let attempt = attempt_of(model, claim);
            match model.claims[claim].0 {
                Some(step) => {
                    let end = outcome(&server.claims[claim].entry, step, to, (ran, harsh, attempt));
                    let settled = crate::flow::settle(server.pool, &[end]).await;
                    same(settled[0], model.settle(claim, to, (ran, harsh)), &what)?;
                }
                None => same(server.finish(claim).await, model.finish(claim), &what)?,
            }
        }
        Op::Defer { claim, retry } => {
            let attempt = attempt_of(model, claim);
            same(server.defer(claim, (retry, attempt)).await, model.defer(claim, retry), &what)?;
        }
        Op::Release { claim, dead } => {
            let attempt = attempt_of(model, claim);
            same(server.release(claim, (dead, attempt)).await, model.release(claim), &what)?;
        }
    }
    Ok(())
}

async fn compare(pool: &Pool, model: &Model) -> Result<(), TestCaseError> {
    let stored = run(pool, "r1").await;
    same(stored.state, model.state, "the run")?;
    same(stored.done, model.done as u64, "ends")?;
    for (index, step) in model.steps.iter().enumerate() {
        let record = stored.steps.get(&u32::try_from(index).unwrap());
        same(record.map(|record| record.state), step.state, STEPS[index])?;
        if let Some(record) = record {
            same(record.attempt, step.attempt, STEPS[index])?;
            // in flight is who has an entry
            same(record.entry.is_some(), record.state == StepState::Ready, STEPS[index])?;
        }
    }
    let audit = audit(pool, "r1").await;
    let words = |record: &tidemill_protocol::AuditRecord| {
        (record.subject.clone(), record.from.clone(), record.to.clone())
    };
    let (of_run, of_steps): (Vec<_>, Vec<_>) = audit.iter().partition(|record| record.subject == "@");
    let expected = model
        .audit
        .iter()
        .map(|(subject, from, to)| (subject.clone(), from.as_str().to_owned(), to.as_str().to_owned()));
    same(of_steps.into_iter().map(words).collect::<Vec<_>>(), expected.collect(), "the audit of steps")?;
    let expected = model
        .run_audit
        .iter()
        .map(|(from, to)| ("@".to_owned(), from.as_str().to_owned(), to.as_str().to_owned()));
    same(of_run.into_iter().map(words).collect::<Vec<_>>(), expected.collect(), "the audit of the run")?;
    let owned = model.claims.iter().filter(|(_, owned)| *owned).count();
    same(pool.length(&pool.jobs()).await, (owned + model.waiting.len()).to_string(), "entries in flight")
}

/// What is stored is what the audit leads to; only an entry that went with a conflict is missing.
async fn fits(pool: &Pool, model: &Model) -> Result<(), TestCaseError> {
    let somewhere = |part: Part| {
        model.waiting.contains(&part) || model.claims.iter().any(|(held, owned)| *owned && *held == part)
    };
    let ready = (0..STEPS.len()).filter(|step| model.steps[*step].state == Some(StepState::Ready));
    let lost = ready.filter(|step| !somewhere(Some(*step)));
    let expected: Vec<_> = lost.map(|step| (Drift::Lost, format!("step {}", STEPS[step]))).collect();
    same(misfits(pool).await, expected, "verify")
}

/// Makes random sequences on both sides; the first disagreement, if there is one.
fn disagreement(pool: &Pool, runtime: &tokio::runtime::Runtime, config: Config) -> Option<String> {
    let outcome = TestRunner::new(config).run(&ops(), |ops| {
        runtime.block_on(async {
            pool.cli(&["FLUSHALL"]).await;
            start(pool, "r1").await;
            pool.home().beat("w1", 7, 0).await.unwrap();
            let (mut model, worker) = (Model::started(), pool.worker("w1"));
            let mut server = Server { pool, worker, claims: Vec::new() };
            for op in ops {
                step(&mut server, &mut model, op).await?;
                fits(pool, &model).await?;
            }
            compare(pool, &model).await
        })
    });
    outcome.err().map(|error| error.to_string())
}

#[test]
fn any_sequence_of_calls_does_what_the_model_does() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let pool = runtime.block_on(Pool::start());
    let all = std::env::var_os("TIDEMILL_TEST_ALL").is_some_and(|value| value == "1");
    let config =
        Config { cases: if all { 2_000 } else { 100 }, failure_persistence: None, ..Config::default() };
    assert_eq!(disagreement(&pool, &runtime, config), None);
}

/// What the comparison is worth: each of these faults in the library must be seen.
const FAULTS: [(&str, &str); 4] = [
    // a join that does not wait
    ("fires = seen_ended == ended and", "fires = seen_ended >= 1 and"),
    // a retry that counts no attempt
    ("tonumber(was.attempt) + 1 or was.attempt", "was.attempt or was.attempt"),
    // a move without its audit record
    ("note(change, name, 'running', 'ready', move.now, attempt, move.who)", ""),
    // a parked step that is told to be retrying
    ("note(change, o.name, from, o.state, now,", "note(change, o.name, from, 'retrying', now,"),
];

#[test]
fn the_model_sees_a_fault_in_the_library() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let pool = runtime.block_on(Pool::start());
    for (number, (right, wrong)) in FAULTS.into_iter().enumerate() {
        let ours = format!("TIDEMILL_LIBRARY_VERSION = {LIBRARY_VERSION}");
        // a newer library is left alone
        let newer = format!("TIDEMILL_LIBRARY_VERSION = {}", 1_000 + number);
        let text = library_text();
        assert!(text.contains(right), "the library has no {right:?} any more");
        let broken = text.replace(right, wrong).replace(&ours, &newer);
        runtime.block_on(pool.cli(&["FUNCTION", "LOAD", "REPLACE", &broken]));
        let config =
            Config { cases: 500, max_shrink_iters: 0, failure_persistence: None, ..Config::default() };
        assert!(disagreement(&pool, &runtime, config).is_some(), "nobody noticed {wrong:?}");
    }
}
