//! Why is this waiting? One sentence, and until when if that is known.

use serde::Serialize;
use tidemill_store::{JobStatus, Partition, PauseNote, Store, keys};
use utoipa::ToSchema;

use crate::refusal::Refusal;
use crate::views::{self, LineView, StepView};
use crate::workflows::Workflows;

/// Why a job or run is where it is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Why {
    /// Its id.
    pub id: String,
    /// Where it stands.
    pub state: String,
    /// The sentence.
    pub why: String,
    /// When it goes on by itself, in Unix milliseconds, if that is known.
    pub until_ms: Option<u64>,
    /// Where it waits for its turn, while it is parked in a line.
    pub line: Option<LineView>,
}

impl Why {
    fn new(id: &str, state: impl Into<String>, why: impl Into<String>) -> Self {
        Self { id: id.to_owned(), state: state.into(), why: why.into(), until_ms: None, line: None }
    }

    fn until(mut self, until_ms: u64) -> Self {
        self.until_ms = Some(until_ms);
        self
    }
}

/// Why a job is where it is.
///
/// # Errors
/// The job is unknown, or Redis is not available.
pub async fn job(store: &Store, queue: Option<&str>, id: &str) -> Result<Why, Refusal> {
    let (partition, status) = views::status_of(store, queue, id).await?;
    Ok(match status {
        JobStatus::Queued { queue, .. } => Why::new(id, "queued", queued(store, partition, &queue).await?),
        JobStatus::Running { consumer, held_ms, .. } => {
            Why::new(id, "running", format!("worker {consumer} has been running it for {held_ms} ms"))
        }
        JobStatus::Deferred { due_ms, why, .. } => {
            let reason = why.unwrap_or_else(|| "it was enqueued with a delay".to_owned());
            Why::new(id, "deferred", format!("it is put aside: {reason}")).until(due_ms)
        }
        JobStatus::InLine { place, why, .. } => {
            let line = views::line_views(store, vec![place]).await?.pop();
            let sentence = line.as_ref().map(|line| line.sentence(why.as_deref())).unwrap_or_default();
            Why { line, ..Why::new(id, "parked", format!("it {sentence}")) }
        }
        JobStatus::Buried(letter) => Why::new(
            id,
            "failed",
            format!(
                "it could not be done ({}: {}); it is dead letter {}",
                letter.code, letter.reason, letter.letter
            ),
        ),
        JobStatus::Ended(_) => Why::new(id, "ended", "it has ended; its result is kept"),
        JobStatus::Cancelled => Why::new(id, "cancelled", "it was cancelled"),
        JobStatus::Accepted => Why::new(
            id,
            "accepted",
            "it was taken in and is not at the front or the end of its queue: it has ended without a result that is kept, or waits in the middle after it was moved",
        ),
        JobStatus::Unknown => return Err(unknown_job(store, queue, id).await),
    })
}

async fn unknown_job(store: &Store, queue: Option<&str>, id: &str) -> Refusal {
    match views::job(store, queue, id).await {
        Err(refusal) => refusal,
        Ok(view) => {
            Refusal::new(crate::Code::UnknownJob, format!("job {id:?} is {} now; ask again", view.state))
        }
    }
}

async fn queued(store: &Store, partition: &Partition, queue: &str) -> Result<String, Refusal> {
    let depth = partition.depth(queue).await?;
    let mut workers = 0_usize;
    for partition in store.partitions() {
        let members = partition.members().await?;
        workers += members.iter().filter(|member| member.queues.iter().any(|served| served == queue)).count();
        if workers > 0 {
            break;
        }
    }
    if workers == 0 {
        return Ok(format!(
            "no worker serves queue {queue:?}: start one with it among its queues ({} entries wait there)",
            depth.ready
        ));
    }
    Ok(format!(
        "it waits in queue {queue:?} among {} entries for a free slot; {} are running",
        depth.ready, depth.running
    ))
}

/// Why a run is where it is.
///
/// # Errors
/// The run is unknown, or Redis is not available.
pub async fn run(store: &Store, workflows: &Workflows, id: &str) -> Result<Why, Refusal> {
    let view = views::run(store, workflows, id).await?;
    let state = view.state.clone();
    if let Some(due) = view.due_at_ms {
        return Ok(Why::new(id, state, "it was asked for with a delay").until(due));
    }
    if let Some(place) = view.place {
        return Ok(Why::new(id, state, format!("it {}", place.sentence())));
    }
    if view.workflow.is_none() {
        let depth = store.partition_of(id).depth(keys::RUNS).await?;
        return Ok(Why::new(id, state, not_started(&view.state, depth.ready + depth.running)));
    }
    if view.ended_at_ms.is_some() {
        let error = view.error.map(|error| format!(": {}", error.get())).unwrap_or_default();
        return Ok(Why::new(id, state.clone(), format!("it has ended: {state}{error}")));
    }
    let paused = pause_sentence(store, &view).await?;
    let waiting: Vec<&StepView> = view.steps.iter().filter(|step| is_in_flight(step)).collect();
    if waiting.is_empty() {
        let why = "no step is in flight: a scheduler's auditor mends this by itself";
        return Ok(Why::new(id, state, why));
    }
    let mut sentence: Vec<String> = paused.into_iter().collect();
    for step in waiting.iter().take(5) {
        sentence.push(step_sentence(store, store.partition_of(id), step).await?);
    }
    if waiting.len() > 5 {
        sentence.push(format!("and {} more steps are in flight", waiting.len() - 5));
    }
    let due = waiting.iter().map(|step| step.due_at_ms).collect::<Option<Vec<_>>>();
    let mut why = Why::new(id, state, sentence.join("; "));
    why.until_ms = due.and_then(|due| due.into_iter().min());
    Ok(why)
}

fn not_started(state: &str, ahead: u64) -> String {
    match state {
        "queued" => format!("no scheduler has started it yet; {ahead} runs are asked for"),
        state => format!("it never started: {state}"),
    }
}

/// Who has paused it, or its workflow.
async fn pause_sentence(store: &Store, view: &views::RunView) -> Result<Option<String>, Refusal> {
    let told = |what: &str, note: &PauseNote| format!("{what} is paused by {}: {}", note.by, note.why);
    if let Some(note) = view.paused.as_ref().and_then(|text| serde_json::from_str(text.get()).ok()) {
        return Ok(Some(told("it", &note)));
    }
    let paused = store.home().paused().await?;
    let workflow = view.workflow.as_deref().unwrap_or_default();
    let name = workflow.split('@').next().unwrap_or_default();
    Ok(paused.workflows.get(name).map(|note| told(&format!("workflow {name}"), note)))
}

fn is_in_flight(step: &StepView) -> bool {
    matches!(step.state.as_str(), "ready" | "running" | "parked" | "retrying" | "waiting")
}

async fn step_sentence(store: &Store, partition: &Partition, step: &StepView) -> Result<String, Refusal> {
    let name = step.id.clone().unwrap_or_else(|| format!("#{}", step.index));
    let queue = step.queue.as_deref().unwrap_or("default");
    Ok(match (step.state.as_str(), &step.items) {
        ("running", Some(items)) => {
            format!("step {name} has {} of {} items ended", items.ended, items.total)
        }
        ("running", None) => {
            let worker = step.worker.as_deref().unwrap_or("unknown");
            format!("step {name} runs on worker {worker} (attempt {})", step.attempt)
        }
        ("waiting", _) => {
            let what = step.why.as_deref().unwrap_or("waits");
            format!("step {name} {what}")
        }
        ("retrying", _) => format!("step {name} failed attempt {} and waits for the next", step.attempt),
        ("parked", _) => match &step.line {
            Some(line) => format!("step {name} {}", line.sentence(None)),
            None => format!("step {name} is parked until a limit lets it go"),
        },
        _ => format!("step {name}: {}", queued(store, partition, queue).await?),
    })
}
