//! Sending a signal to a run.

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tidemill_protocol::StepState;
use tidemill_store::{NewSignal, Signalled, Store};
use tidemill_workflow::Action;
use utoipa::ToSchema;

use super::{Known, bounded};
use crate::refusal::{Code, Refusal, nearest};
use crate::workflows::Workflows;

/// The longest name of a signal, and of a sender's id of one, in bytes.
const LONGEST_NAME: usize = 200;
/// How often it is asked anew who listens, when somebody has begun to meanwhile.
const TRIES: usize = 5;

/// A signal.
#[derive(Debug, Clone, Copy)]
pub struct Signal<'a> {
    /// Its name, as the step that waits gives it.
    pub name: &'a str,
    /// JSON text.
    pub payload: &'a str,
    /// The sender's id of it: a second one of the same id changes nothing. Made up where there is none.
    pub id: Option<&'a str>,
    /// Who sends it.
    pub by: &'a str,
}

/// What became of a signal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Sent {
    /// The run.
    pub run: String,
    /// The signal's name.
    pub signal: String,
    /// Its id.
    pub id: String,
    /// `taken`: a step has it; `kept`: until a step listens; `duplicate`: one of that id was sent before.
    pub state: &'static str,
}

/// Sends a signal to a run. One that comes before a step listens is kept for it.
///
/// # Errors
/// The run is unknown or has ended, none of its steps waits for such a signal, the payload is no JSON or does not fit the schema of who
/// waits, the run keeps too many, or Redis is not available.
pub async fn signal(
    store: &Store,
    workflows: &Workflows,
    run: &str,
    signal: Signal<'_>,
) -> Result<Sent, Refusal> {
    check_word("name", signal.name)?;
    let payload: Value = serde_json::from_str(signal.payload).map_err(|error| {
        Refusal::new(Code::InvalidJson, format!("the payload of the signal is no JSON: {error}"))
    })?;
    let id = signal.id.map_or_else(|| uuid::Uuid::now_v7().to_string(), str::to_owned);
    check_word("id", &id)?;
    for _ in 0..TRIES {
        let known = Known::read(store, workflows, run).await?;
        if known.record.state.is_terminal() {
            return Err(known.ended());
        }
        let waiters = waiters(&known, signal.name)?;
        check_payload(&known, &waiters, (signal.name, &payload))?;
        let state = match send(&known, &waiters, (&signal, &id)).await? {
            Signalled::Taken => "taken",
            Signalled::Kept => "kept",
            Signalled::Duplicate => "duplicate",
            Signalled::Again => continue,
            Signalled::RunEnded => return Err(known.ended()),
            Signalled::RunGone => return Err(crate::views::unknown_run(run)),
            Signalled::NeverWaits => return Err(nobody(&known, signal.name)),
            Signalled::Full => {
                let most = tidemill_store::MOST_EARLY_SIGNALS;
                let detail = format!(
                    "run {run:?} keeps {most} signals for which no step listens yet; it keeps no more"
                );
                return Err(Refusal::new(Code::TooManySignals, detail));
            }
        };
        return Ok(Sent { run: run.to_owned(), signal: signal.name.to_owned(), id, state });
    }
    Err(Refusal::new(
        Code::Conflict,
        format!("who listens in run {run:?} changes faster than it can be asked; send it again"),
    ))
}

fn check_word(what: &str, word: &str) -> Result<(), Refusal> {
    let is_one = !word.is_empty()
        && word.len() <= LONGEST_NAME
        && !word.chars().any(|c| c.is_whitespace() || c.is_control());
    if is_one {
        return Ok(());
    }
    let shown: String = word.chars().take(40).collect();
    let detail =
        format!("the {what} of the signal is {shown:?}; expected 1 to {LONGEST_NAME} bytes without spaces");
    Err(Refusal::new(Code::InvalidMember, detail))
}

/// The steps that wait for it, or will; a program decides by itself what it listens for.
fn waiters(known: &Known<'_>, name: &str) -> Result<Vec<u32>, Refusal> {
    let plan = &known.plan;
    let listens = |step: &u32| {
        plan.step(*step).is_some_and(|step| {
            matches!(step.action, Action::Program(_))
                || step.signal().is_some_and(|signal| signal.name == name)
        })
    };
    let waiters: Vec<u32> = (0..plan.main()).filter(listens).collect();
    if waiters.is_empty() { Err(nobody(known, name)) } else { Ok(waiters) }
}

fn nobody(known: &Known<'_>, name: &str) -> Refusal {
    let (run, plan) = (&known.record.id, &known.plan);
    let names: Vec<&str> =
        plan.steps.iter().filter_map(|step| step.signal().map(|signal| &*signal.name)).collect();
    let hint = match (nearest(name, names.iter().copied()), names.as_slice()) {
        (Some(near), _) => format!("did you mean {near:?}?"),
        (None, []) => "none of its own steps waits for signals; those of its blocks and sub-workflows are runs of their own, which \
                       `tidemill why` names"
            .to_owned(),
        (None, names) => format!("its steps wait for {}", names.join(", ")),
    };
    Refusal::new(Code::UnknownSignal, format!("no step of run {run:?} waits for a signal {name:?}: {hint}"))
}

/// It must fit those who listen now; where nobody does, one of those who will.
fn check_payload(known: &Known<'_>, waiters: &[u32], (name, payload): (&str, &Value)) -> Result<(), Refusal> {
    let state = |step: u32| known.record.steps.get(&step).map_or(StepState::Pending, |record| record.state);
    let listening: Vec<u32> =
        waiters.iter().copied().filter(|step| state(*step) == StepState::Waiting).collect();
    let open: Vec<u32> = waiters.iter().copied().filter(|step| !state(*step).is_terminal()).collect();
    let violations = |step: &u32| {
        let schema = known.plan.step(*step)?.signal()?.schema.as_ref()?;
        schema.check(payload).err().map(|violations| (*step, violations))
    };
    let (wrong, fits) = if listening.is_empty() {
        let wrong: Vec<_> = open.iter().filter_map(violations).collect();
        let fits = wrong.len() < open.len() || open.is_empty();
        (wrong, fits)
    } else {
        let wrong: Vec<_> = listening.iter().filter_map(violations).collect();
        let fits = wrong.is_empty();
        (wrong, fits)
    };
    let Some((step, violations)) = wrong.into_iter().next().filter(|_| !fits) else { return Ok(()) };
    let id = known.plan.step(step).map_or("?", |step| &*step.id);
    let detail = format!("step {id:?} refuses the payload of signal {name:?}: {}", violations.join("; "));
    let problems = violations.into_iter().map(Value::String).collect();
    Err(Refusal::new(Code::InvalidPayload, detail).with_problems(problems))
}

async fn send(
    known: &Known<'_>,
    waiters: &[u32],
    (signal, id): (&Signal<'_>, &str),
) -> Result<Signalled, Refusal> {
    let at_ms = known.partition.now_ms().await?;
    let payload: &RawValue = serde_json::from_str(signal.payload.trim())
        .map_err(|error| Refusal::new(Code::InvalidJson, error.to_string()))?;
    let letter = format!(
        r#"{{"type":"signal","name":{},"id":{},"payload":{},"by":{},"at_ms":{at_ms}}}"#,
        Value::from(signal.name),
        Value::from(id),
        payload.get(),
        Value::from(bounded(signal.by)),
    );
    let candidate =
        |step: &u32| (*step, known.plan.step(*step).map_or("?", |step| &*step.id), known.queue_of(*step));
    let candidates: Vec<(u32, &str, &str)> = waiters.iter().map(candidate).collect();
    let (run, workflow) = (known.record.id.as_str(), known.record.workflow.as_str());
    let new = NewSignal {
        run,
        workflow,
        name: signal.name,
        id,
        letter: letter.as_bytes(),
        candidates: &candidates,
    };
    Ok(known.partition.signal(&new).await?)
}
