//! The world around a run: whoever sends it signals and decides its questions, early, late and twice.

use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tidemill_protocol::StepState;
use tidemill_store::{Content, Delivered, NewSignal, RunRecord, Signalled, Slot, StepLetter, Store};
use tidemill_workflow::{Action, Plan, Wait};

use super::Case;

/// When a signal is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
enum When {
    /// As soon as the run is there.
    Early,
    /// When the step listens.
    Late,
}

/// What is still to be done for a run.
#[derive(Debug)]
pub(super) struct World {
    signals: Vec<(String, String, Value, When)>,
    questions: Vec<(String, String, u32, bool)>,
    /// Signals that are sent again: run, step, payload, and whether under another id.
    again: Vec<(String, String, Value, bool)>,
    random: SmallRng,
}

impl World {
    pub(super) fn of(case: &Case) -> Self {
        let mut random = SmallRng::seed_from_u64(case.seed ^ 1);
        let mut signals = Vec::new();
        for (run, step, payload) in &case.asked.signals {
            let when = if random.random_bool(0.5) { When::Early } else { When::Late };
            signals.push((run.clone(), step.clone(), payload.clone(), when));
        }
        Self { signals, questions: case.asked.questions.clone(), again: Vec::new(), random }
    }

    /// One look at everything that is to be done; does what can be done now.
    pub(super) async fn act(&mut self, store: &Store, case: &Case) {
        for (run, step, payload, other) in std::mem::take(&mut self.again) {
            let id = if other { format!("{step}-late") } else { step.clone() };
            let answer = send(store, case, (&run, &step), &id, &payload).await;
            let expected = if other {
                matches!(answer, Signalled::Taken | Signalled::Kept | Signalled::RunEnded | Signalled::Again)
            } else {
                matches!(answer, Signalled::Duplicate | Signalled::RunEnded)
            };
            assert!(expected, "{run} {step}: a signal that comes again is {answer:?}");
        }
        let mut left = Vec::new();
        for (run, step, payload, when) in std::mem::take(&mut self.signals) {
            if when == When::Late && standing(store, case, &run, &step).await != Some(StepState::Waiting) {
                left.push((run, step, payload, when));
                continue;
            }
            match send(store, case, (&run, &step), &step, &payload).await {
                Signalled::Taken | Signalled::Kept | Signalled::Duplicate => {
                    if self.random.random_bool(0.5) {
                        self.again.push((run.clone(), step.clone(), payload, false));
                        self.again.push((run, step, json!("one too many"), true));
                    }
                }
                Signalled::RunEnded => {}
                Signalled::RunGone | Signalled::Again => left.push((run, step, payload, when)),
                other => panic!("{run} {step}: the signal is {other:?}"),
            }
        }
        self.signals = left;
        let mut left = Vec::new();
        for (run, step, iteration, approve) in std::mem::take(&mut self.questions) {
            if !decide(store, case, (&run, &step), (iteration, approve)).await {
                left.push((run, step, iteration, approve));
            }
        }
        self.questions = left;
    }
}

/// The plan that a run follows, and a step of it by its id.
fn planned(case: &Case, record: &RunRecord, step: &str) -> Option<(Arc<Plan>, u32)> {
    let plan = case.plan_of(&record.workflow)?;
    let index = (0..).zip(&plan.steps).find_map(|(at, planned)| (&*planned.id == step).then_some(at))?;
    Some((plan, index))
}

async fn standing(store: &Store, case: &Case, run: &str, step: &str) -> Option<StepState> {
    let record = store.home().run(run).await.unwrap()?;
    let (_, index) = planned(case, &record, step)?;
    Some(record.steps.get(&index)?.state)
}

async fn send(store: &Store, case: &Case, (run, step): (&str, &str), id: &str, payload: &Value) -> Signalled {
    let Some(record) = store.home().run(run).await.unwrap() else { return Signalled::RunGone };
    let (plan, _) = planned(case, &record, step).unwrap();
    let name = format!("go-{step}");
    let letter =
        json!({ "type": "signal", "name": name, "id": id, "payload": payload, "by": "test", "at_ms": 1 })
            .to_string();
    let listens = |planned: &&(u32, &tidemill_workflow::PlanStep)| {
        matches!(&planned.1.action, Action::Wait(Wait::Signal(_)))
            || matches!(&planned.1.then_wait, Some(Wait::Signal(_)))
    };
    let steps: Vec<_> = (0..).zip(&plan.steps).collect();
    let candidates: Vec<(u32, &str, &str)> =
        steps.iter().filter(listens).map(|(at, planned)| (*at, &*planned.id, "default")).collect();
    let signal = NewSignal {
        run,
        workflow: &record.workflow,
        name: &name,
        id,
        letter: letter.as_bytes(),
        candidates: &candidates,
    };
    store.home().signal(&signal).await.unwrap()
}

/// Three decide at once, all alike: one of them wins. Whether the question has been answered, or never will be asked.
async fn decide(
    store: &Store,
    case: &Case,
    (run, step): (&str, &str),
    (iteration, approve): (u32, bool),
) -> bool {
    let home = store.home();
    let Some(record) = home.run(run).await.unwrap() else { return false };
    if record.state.is_terminal() {
        return true;
    }
    let Some((_, index)) = planned(case, &record, step) else { return false };
    let (seen, memo) = raw(store, run, index).await;
    if !seen.starts_with("waiting ") || !asks(&memo, iteration) {
        return false;
    }
    let slot = Slot { run: run.to_owned(), step: index, item: None, name: step.to_owned() };
    let mut won = 0;
    let letters: Vec<(String, String)> = (0..3)
        .map(|n| {
            let at_ms = u64::from(iteration) * 1_000 + n;
            let letter = json!({ "type": "decision", "approve": approve, "by": "ada", "roles": [], "feedback": format!("round {iteration}"), "at_ms": at_ms });
            (format!("decision.{iteration}.{n}"), letter.to_string())
        })
        .collect();
    for (key, letter) in &letters {
        let content = Content::IfUnchanged { key, payload: letter.as_bytes(), seen: &seen };
        let letter = StepLetter { slot: &slot, workflow: &record.workflow, queue: "default", content };
        let answers = home.deliver(&[letter]).await.unwrap();
        won += usize::from(answers == [Delivered::Woke]);
    }
    assert!(won < 2, "{run} {step}: {won} decisions won");
    won == 1
}

/// A step's record and memo as they are stored.
async fn raw(store: &Store, run: &str, step: u32) -> (String, Value) {
    let wanted = (store.home().keys().run(run), vec![format!("s{step}"), format!("w{step}")]);
    let found = store.home().run_fields(&[wanted]).await.unwrap();
    let text = |at: usize| {
        let bytes = found[0][at].as_deref().unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    };
    (text(0), serde_json::from_str(&text(1)).unwrap_or_default())
}

/// Whether this question stands open.
fn asks(memo: &Value, iteration: u32) -> bool {
    match memo {
        Value::Object(members) => {
            let is_asked = members.get("phase").is_some_and(|phase| phase["asked"].is_object());
            (is_asked && members.get("iteration") == Some(&json!(iteration)))
                || members.values().any(|member| asks(member, iteration))
        }
        _ => false,
    }
}
