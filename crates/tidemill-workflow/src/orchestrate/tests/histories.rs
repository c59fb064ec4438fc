//! Whatever happens, in whatever order, twice, late, or to a worker that crashes before it has told what it decided: a waiting step ends,
//! once, and never asks for more than it may. What must hold at every look is checked by the bench.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};
use tidemill_protocol::{RunState, StepState};

use super::bench::{ended, signal};
use super::{Bench, block, condition, step, template, workflow};
use crate::orchestrate::{Event, Then};
use crate::plan::{
    Action, Approval, Branch, Child, ForEach, OnReject, OnTimeout, PlanStep, Reminder, Repeat, Signal,
    Tolerance, Wait,
};
use crate::schema::Schema;

/// What happens next.
#[derive(Debug, Clone)]
enum Move {
    /// A child that is open ends, one time in four badly.
    End(Index, u8),
    /// A worker looks.
    Look,
    /// A worker looks, and dies before it has told what it saw.
    Crash,
    /// The alarm rings.
    Ring,
    /// An alarm rings that was set before.
    RingOld(Index),
    /// Something that happened is told again.
    Again(Index),
    /// The tool under way ends well.
    Answer,
    /// A signal comes, with or without what it must have.
    Signal(bool),
    /// Somebody decides.
    Decide { approve: bool, may: bool },
    /// Time passes.
    Pass(u64),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let next = prop_oneof![
        6 => (any::<Index>(), 0..4_u8).prop_map(|(child, how)| Move::End(child, how)),
        6 => Just(Move::Look),
        1 => Just(Move::Crash),
        2 => Just(Move::Ring),
        1 => any::<Index>().prop_map(Move::RingOld),
        2 => any::<Index>().prop_map(Move::Again),
        3 => Just(Move::Answer),
        1 => any::<bool>().prop_map(Move::Signal),
        2 => (prop::bool::weighted(0.3), prop::bool::weighted(0.7)).prop_map(|(approve, may)| Move::Decide { approve, may }),
        1 => (0..60_u64).prop_map(Move::Pass),
    ];
    prop::collection::vec(next, 0..80)
}

fn waits() -> impl Strategy<Value = Wait> {
    let schema = || Schema::compile(&json!({ "type": "object" })).ok();
    prop_oneof![
        (0..200_u64).prop_map(|ms| Wait::For(template(&json!(ms)))),
        (0..5_000_u64).prop_map(|ms| Wait::Until { at: template(&json!(ms)), time_zone: None }),
        (prop::option::of(0..200_u64), any::<bool>()).prop_map(move |(timeout_ms, continue_on_timeout)| {
            let name = "go".to_owned();
            Wait::Signal(Box::new(Signal { name, schema: schema(), timeout_ms, continue_on_timeout }))
        }),
    ]
}

fn children() -> impl Strategy<Value = Child> {
    (any::<bool>(), any::<bool>()).prop_map(|(is_block, detached)| {
        let child = if is_block { block("s") } else { workflow("w") };
        Child { detached, ..child }
    })
}

fn repeats() -> impl Strategy<Value = Repeat> {
    (1..6_u32, prop_oneof![Just(0_u64), 1..40_u64], prop::option::of(0..8_u32), any::<(bool, bool)>())
        .prop_map(|(max_iterations, every_ms, enough, (asks_before, continue_when_exhausted))| {
            let before =
                enough.filter(|_| asks_before).map(|n| condition(&format!("${{ .iteration <= {n} }}")));
            let after =
                enough.filter(|_| !asks_before).map(|n| condition(&format!("${{ .iteration >= {n} }}")));
            Repeat { while_: before, until: after, max_iterations, every_ms, continue_when_exhausted }
        })
}

fn approvals() -> impl Strategy<Value = Approval> {
    let on_reject = prop::sample::select(&OnReject::ALL[..]);
    let on_timeout = prop::sample::select(&OnTimeout::ALL[..]);
    (1..5_u32, on_reject, on_timeout, prop::option::of(1..200_u64), prop::option::of(0..50_u64)).prop_map(
        |(max_iterations, on_reject, on_timeout, timeout_ms, every_ms)| Approval {
            of: Some(0),
            subject: Some(template(&json!("${ .steps.draft.output }"))),
            revise: Some(block("s/revise")),
            who: vec!["alice".to_owned()],
            prompt: None,
            remind: every_ms.map(|every_ms| Reminder { every_ms, child: block("s/remind") }),
            timeout_ms,
            on_timeout,
            max_iterations,
            on_reject,
        },
    )
}

fn races() -> impl Strategy<Value = PlanStep> {
    (1..5_usize, any::<bool>()).prop_map(|(branches, one_at_a_time)| {
        let branches = (0..branches).map(|n| Branch {
            id: format!("b{n}").into(),
            child: block(&format!("s/b{n}")),
            with: template(&json!(n)),
        });
        PlanStep { one_at_a_time, ..step(Action::Race(branches.collect()), &json!({})) }
    })
}

fn eachs() -> impl Strategy<Value = PlanStep> {
    let tolerate = prop_oneof![
        (0..4_u32).prop_map(Tolerance::Count),
        (0..101_u8).prop_map(|percent| Tolerance::Percent(percent.into()))
    ];
    (children(), 0..30_usize, 1..6_u32, 0..4_u32, tolerate).prop_map(
        |(child, items, concurrency, batch, tolerate)| {
            let items = template(&json!((0..items).collect::<Vec<_>>()));
            let for_each = Some(ForEach { items, concurrency, batch, tolerate });
            PlanStep { for_each, ..step(Action::Child(child), &json!("${ .item }")) }
        },
    )
}

fn steps() -> impl Strategy<Value = PlanStep> {
    let tool = || step(Action::Tool { tool: "echo".into() }, &json!("${ .iteration }"));
    let kinds = prop_oneof![
        waits().prop_map(|wait| step(Action::Wait(wait), &json!({}))),
        waits().prop_map(move |wait| PlanStep { then_wait: Some(wait), ..tool() }),
        repeats().prop_map(move |repeat| PlanStep { repeat: Some(repeat), ..tool() }),
        (children(), repeats()).prop_map(|(child, repeat)| {
            PlanStep { repeat: Some(repeat), ..step(Action::Child(child), &json!({})) }
        }),
        children().prop_map(|child| step(Action::Child(child), &json!({}))),
        approvals().prop_map(|approval| step(Action::Approval(Box::new(approval)), &json!({}))),
        races(),
        eachs(),
    ];
    (kinds, prop::option::weighted(0.3, 1..400_u64))
        .prop_map(|(step, timeout_ms)| PlanStep { timeout_ms, ..step })
}

/// A bench with what has happened to it.
struct History {
    bench: Bench,
    /// All that was told.
    told: Vec<Event>,
    /// How each child that ended did.
    ended: BTreeMap<String, RunState>,
    answers: usize,
    generations: Vec<u64>,
}

impl History {
    fn new(step: PlanStep) -> Self {
        let mut history = Self {
            bench: Bench::new(step),
            told: Vec::new(),
            ended: BTreeMap::new(),
            answers: 0,
            generations: vec![0],
        };
        history.look();
        history
    }

    fn tell(&mut self, event: Event) {
        self.told.push(event.clone());
        self.bench.mail.push(event);
    }

    fn look(&mut self) {
        self.bench.look();
        self.generations.extend(self.bench.alarm.map(|alarm| alarm.generation));
        self.stays_within_bounds();
    }

    fn stays_within_bounds(&self) {
        let Bench { step, open, asked, .. } = &self.bench;
        if let Some(for_each) = &step.for_each {
            assert!(open.len() <= for_each.concurrency as usize, "{} are open", open.len());
        }
        if let Some(repeat) = &step.repeat {
            let iterations = asked.len().max(self.answers + usize::from(self.bench.calling.is_some()));
            assert!(iterations <= repeat.max_iterations as usize, "{iterations} iterations");
            assert!(open.len() <= 1);
        }
        match &step.action {
            Action::Approval(approval) => {
                let revisions = asked.iter().filter(|child| !child.detached).count();
                assert!(revisions < approval.max_iterations as usize, "{revisions} revisions");
            }
            Action::Race(_) => assert!(!step.one_at_a_time || open.len() <= 1),
            _ => {}
        }
    }

    fn happen(&mut self, next: &Move) {
        let now_ms = self.bench.now_ms;
        match *next {
            Move::End(ref child, how) => {
                let running: Vec<String> =
                    self.bench.open.iter().filter(|key| !self.ended.contains_key(*key)).cloned().collect();
                if !running.is_empty() {
                    self.end(
                        child.get::<String>(&running),
                        if how == 0 { RunState::Failed } else { RunState::Succeeded },
                    );
                }
            }
            Move::Look => self.look(),
            Move::Crash => drop(self.bench.peek()),
            Move::Ring => {
                if let Some(alarm) = self.bench.alarm {
                    self.bench.now_ms = now_ms.max(alarm.at_ms);
                    self.tell(Event::Due { generation: alarm.generation });
                    self.look();
                }
            }
            Move::RingOld(ref old) => {
                let generation = *old.get(&self.generations);
                if self.bench.alarm.is_none_or(|alarm| alarm.generation != generation) {
                    self.tell(Event::Due { generation });
                }
            }
            Move::Again(ref event) => {
                let again: Vec<&Event> = self
                    .told
                    .iter()
                    .filter(|event| !matches!(event, Event::Due { .. } | Event::Answered { .. }))
                    .collect();
                if !again.is_empty() {
                    self.bench.mail.push((*event.get(&again)).clone());
                }
            }
            Move::Answer => self.answer(),
            Move::Signal(fits) => self.tell(signal("go", if fits { "{}" } else { "[]" }, now_ms)),
            Move::Decide { approve, may } => {
                let by = if may { "alice" } else { "mallory" }.to_owned();
                // a person does not decide twice in the same millisecond
                self.bench.now_ms += 1;
                self.tell(Event::Decision {
                    approve,
                    by,
                    roles: Vec::new(),
                    feedback: Bytes::new(),
                    at_ms: now_ms + 1,
                });
            }
            Move::Pass(ms) => self.bench.now_ms += ms,
        }
    }

    fn end(&mut self, key: &str, state: RunState) {
        self.ended.insert(key.to_owned(), state);
        self.tell(ended(key, state, &format!("\"{key}\"")));
    }

    fn answer(&mut self) {
        if self.bench.calling.is_some() {
            self.answers += 1;
            self.tell(Event::Answered { output: Bytes::from_static(b"1") });
            self.look();
        }
    }

    /// Does what has to happen in the end.
    fn finish(&mut self) {
        for _ in 0..500 {
            if self.bench.end.is_some() {
                return;
            }
            if let Some(key) = self.bench.open.iter().find(|key| !self.ended.contains_key(*key)).cloned() {
                self.end(&key, RunState::Succeeded);
                self.look();
            } else if self.bench.calling.is_some() {
                self.answer();
            } else if !self.bench.listen.is_empty() {
                self.happen(&Move::Signal(true));
                self.look();
            } else if matches!(self.bench.step.action, Action::Approval(_)) {
                self.happen(&Move::Decide { approve: true, may: true });
                self.look();
            } else if self.bench.alarm.is_some() {
                self.happen(&Move::Ring);
            } else {
                self.look();
            }
        }
        panic!("it does not end: {}", self.bench.why);
    }

    fn failed(&self) -> u64 {
        self.ended.values().filter(|state| **state != RunState::Succeeded).count() as u64
    }

    /// The end is what the histories of the children make it.
    fn is_right(&self) {
        let Bench { step, asked, .. } = &self.bench;
        let end = self.bench.end.as_ref().expect("it has ended");
        if matches!(end, Then::Fail { state: StepState::TimedOut, .. }) {
            return;
        }
        match (&step.action, &step.for_each) {
            (Action::Child(child), Some(for_each)) => {
                let total = self.bench.total();
                let is_over = self.failed() > for_each.tolerate.of(total);
                assert_eq!(matches!(end, Then::Fail { .. }), is_over, "{end:?}");
                if !is_over {
                    assert_eq!(asked.len() as u64, total, "each item was run");
                    let outputs = self.bench.output();
                    for (item, output) in outputs.as_array().expect("it is an array").iter().enumerate() {
                        let expected = match self.ended.get(&item.to_string()) {
                            Some(RunState::Succeeded) => json!(item.to_string()),
                            None if child.detached => json!({ "id": format!("r~s.{item}") }),
                            _ => Value::Null,
                        };
                        assert_eq!(*output, expected);
                    }
                }
            }
            (Action::Race(branches), _) => match end {
                Then::End(_) => {
                    let winner = self.bench.output()["winner"].as_str().expect("one has won").to_owned();
                    assert_eq!(self.ended.get(&winner), Some(&RunState::Succeeded));
                }
                _ => assert_eq!(self.failed(), branches.len() as u64, "all have lost"),
            },
            _ => {}
        }
    }
}

proptest! {
    #[test]
    fn a_waiting_step_ends_once_whatever_happens(step in steps(), moves in moves()) {
        let mut history = History::new(step);
        for next in moves {
            if history.bench.end.is_some() {
                break;
            }
            history.happen(&next);
        }
        history.finish();
        history.is_right();
    }

    #[test]
    fn any_memo_gives_a_turn(step in steps(), memo in "[\\[\\]{}:,\"a-z0-9]{0,40}") {
        let mut bench = Bench::new(step);
        bench.memo = Some(memo.into_bytes());
        let turn = bench.peek();
        let failed = matches!(turn.then, Then::Fail { .. });
        prop_assert!(failed);
    }
}
