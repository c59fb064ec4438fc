//! Taking work in: checks a request, finds its partition, enqueues it, and tells what became of it.

mod batch;
mod gate;
mod memory;
mod request;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use tidemill_store::{Admission, Assurance, Durability, Enqueued, Error, Fault, Partition, Store, keys};

use crate::metric_names::Meters;
use crate::refusal::{Code, Refusal};
use crate::settings::Settings;
use crate::workflows::Workflows;

pub(crate) use request::is_traceparent;
pub use request::{Kind, Number, Request};

/// The queue of a job that names none.
pub const DEFAULT_QUEUE: &str = "default";

/// Takes jobs and runs in. A cheap handle; clones share one.
#[derive(Debug, Clone)]
pub struct Intake {
    inner: Arc<Inner>,
    /// Whether jobs come in whatever their services' backpressure says.
    past_backpressure: bool,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    settings: Settings,
    workflows: Workflows,
    memory: memory::Guard,
    gate: gate::Gate,
    meters: Meters,
}

/// What became of accepted work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptedAs {
    /// It is in its queue.
    Queued,
    /// It waits for its time.
    Deferred,
    /// Its id was taken in before; nothing was added.
    Duplicate,
}

impl AcceptedAs {
    /// The word in answers and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Deferred => "deferred",
            Self::Duplicate => "duplicate",
        }
    }
}

/// Work that was taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Its id: the caller's, or the one that it was given.
    pub id: String,
    /// What became of it.
    pub state: AcceptedAs,
    /// How safe it is.
    pub assurance: Assurance,
    /// What is worth knowing: the version of the workflow is deprecated, or a draft.
    pub warning: Option<String>,
}

/// A request that was checked: where it goes, and under which id.
struct Admitted<'r, 'a> {
    request: &'r Request<'a>,
    partition: u32,
    queue: Cow<'r, str>,
    id: Option<Cow<'r, str>>,
    warning: Option<String>,
}

impl Intake {
    /// An intake for a store.
    #[must_use]
    pub fn new(settings: Settings, store: Store, meters: Meters) -> Self {
        let memory = memory::Guard::new(store.clone(), settings.memory_limit_percent);
        let workflows = Workflows::new(store.clone());
        let gate = gate::Gate::new(store.clone());
        let inner = Inner { store, settings, workflows, memory, gate, meters };
        Self { inner: Arc::new(inner), past_backpressure: false }
    }

    /// The same intake, which lets jobs in whatever their services' `backpressure` says.
    #[must_use]
    pub fn past_backpressure(mut self) -> Self {
        self.past_backpressure = true;
        self
    }

    /// Services were changed through this process: what it knows of them is old.
    pub(crate) fn services_changed(&self) {
        self.inner.gate.forget();
    }

    /// Whether the job's service lets it in.
    async fn pass_gate(&self, request: &Request<'_>) -> Result<(), Refusal> {
        if self.past_backpressure { Ok(()) } else { self.inner.gate.check(request, &self.inner.meters).await }
    }

    /// The published workflows.
    #[must_use]
    pub fn workflows(&self) -> &Workflows {
        &self.inner.workflows
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    pub(crate) fn meters(&self) -> &Meters {
        &self.inner.meters
    }

    /// Takes one request in; `durability` overrides the settings.
    ///
    /// # Errors
    /// The request is not valid, its workflow unknown, its queue full, or Redis not available. Only in the last case
    /// ([`Code::RedisUnavailable`]) may the work have been accepted all the same.
    pub async fn submit(
        &self,
        request: &Request<'_>,
        durability: Option<Durability>,
    ) -> Result<Accepted, Refusal> {
        let outcome = self.submit_one(request, durability).await;
        self.count(request.kind, &outcome);
        outcome
    }

    async fn submit_one(
        &self,
        request: &Request<'_>,
        durability: Option<Durability>,
    ) -> Result<Accepted, Refusal> {
        let mut admitted = self.admit(request)?;
        if request.kind == Kind::Run {
            let workflows = &self.inner.workflows;
            admitted.warning = workflows.check_input(&request.target, request.input.as_deref()).await?;
        }
        self.pass_gate(request).await?;
        self.inner.memory.check().await?;
        let (enqueued, assurance) =
            self.enqueue(admitted.partition, &admitted.queue, durability, &[&admitted]).await?;
        match enqueued.into_iter().next() {
            Some(enqueued) => self.accepted(&admitted, enqueued, &assurance),
            None => Err(Refusal::new(Code::Internal, "the enqueueing function did not answer for the job")),
        }
    }

    fn count(&self, kind: Kind, outcome: &Result<Accepted, Refusal>) {
        match outcome {
            Ok(accepted) => self.inner.meters.accepted(kind, accepted.state),
            Err(refusal) => self.inner.meters.refused(kind, refusal.code),
        }
    }

    fn admit<'r, 'a>(&self, request: &'r Request<'a>) -> Result<Admitted<'r, 'a>, Refusal> {
        let (store, settings) = (&self.inner.store, &self.inner.settings);
        request.check(settings.max_input_bytes)?;
        let delayed = request.delay_ms.is_some() || request.run_at_ms.is_some();
        let answered = request.result_ttl_ms.is_some() || request.reply_to.is_some();
        let id = match request.id.as_deref() {
            Some(id) => Some(Cow::Borrowed(id)),
            None if delayed || answered || store.partition_count() > 1 => {
                Some(Cow::Owned(uuid::Uuid::now_v7().to_string()))
            }
            None => None,
        };
        let partition = id.as_deref().map_or_else(|| store.home(), |id| store.partition_of(id));
        if let Some(stream) = request.reply_to.as_deref()
            && !partition.may_reply_to(stream)
        {
            let reply = format!("{}reply:<name>", partition.keys().prefix());
            return Err(Refusal::new(
                Code::InvalidMember,
                format!(
                    "the member \"reply_to\" is not valid: results may not go to {stream:?}; use {reply}"
                ),
            ));
        }
        let queue = match request.kind {
            Kind::Run => Cow::Borrowed(keys::RUNS),
            Kind::Job => request.queue.as_deref().unwrap_or(DEFAULT_QUEUE).into(),
        };
        Ok(Admitted { request, partition: partition.index(), queue, id, warning: None })
    }

    fn partition(&self, index: u32) -> &Partition {
        let store = &self.inner.store;
        store.partitions().get(index as usize).unwrap_or_else(|| store.home())
    }

    async fn enqueue(
        &self,
        partition: u32,
        queue: &str,
        durability: Option<Durability>,
        admitted: &[&Admitted<'_, '_>],
    ) -> Result<(Vec<Enqueued>, Assurance), Refusal> {
        let settings = &self.inner.settings;
        let jobs: Vec<Admission<'_>> = admitted.iter().map(|admitted| admitted.admission()).collect();
        let bound = (queue, settings.max_length_of(queue));
        let wanted =
            (durability.unwrap_or_else(|| settings.durability_of(queue)), settings.durability_timeout());
        let partition = self.partition(partition);
        let mut again = true;
        loop {
            let reply = partition.enqueue_assured(bound, settings.id_retention(), &jobs, wanted).await;
            match reply {
                Err(error) if again && surely_not_done(&error) => again = false,
                Err(error) => return Err(unavailable(error)),
                Ok(reply) => return Ok(reply),
            }
        }
    }

    fn accepted(
        &self,
        admitted: &Admitted<'_, '_>,
        enqueued: Enqueued,
        assurance: &Assurance,
    ) -> Result<Accepted, Refusal> {
        let own = || admitted.id.as_deref().unwrap_or_default().to_owned();
        let (id, state) = match enqueued {
            Enqueued::Ready(entry) => {
                (admitted.id.as_deref().map_or(entry, str::to_owned), AcceptedAs::Queued)
            }
            Enqueued::Deferred => (own(), AcceptedAs::Deferred),
            Enqueued::Duplicate => (own(), AcceptedAs::Duplicate),
            Enqueued::QueueFull => return Err(self.queue_full(admitted)),
        };
        Ok(Accepted { id, state, assurance: assurance.clone(), warning: admitted.warning.clone() })
    }

    fn queue_full(&self, admitted: &Admitted<'_, '_>) -> Refusal {
        let bound = self.inner.settings.max_length_of(&admitted.queue);
        let what = match admitted.request.kind {
            Kind::Job => format!("queue {:?}", admitted.queue),
            Kind::Run => "the stream of requested runs".to_owned(),
        };
        Refusal::new(
            Code::QueueFull,
            format!("{what} holds its {bound} entries; add workers, raise its bound, or try later"),
        )
        .again_after(Duration::from_secs(1))
    }
}

impl Admitted<'_, '_> {
    fn admission(&self) -> Admission<'_> {
        let request = self.request;
        Admission {
            id: self.id.as_deref(),
            run_at_ms: request.run_at_ms.as_ref().map(|number| number.value),
            delay_ms: request.delay_ms.as_ref().map(|number| number.value),
            fields: entry_fields(request, self.id.as_deref()),
        }
    }
}

/// The fields of the entry. A delay is not among them: the store keeps it, and whoever claims the entry must not wait again.
pub(crate) fn entry_fields<'r>(request: &'r Request<'_>, id: Option<&'r str>) -> Vec<(&'r str, &'r [u8])> {
    let text = |text: &'r Option<Cow<'_, str>>| text.as_deref();
    let number = |number: &'r Option<Number<'_>>| number.as_ref().map(|number| &*number.text);
    let queue = if request.kind == Kind::Run { text(&request.queue) } else { None };
    let rare = [
        ("id", id),
        ("tenant", text(&request.tenant)),
        ("user", text(&request.user)),
        ("priority", number(&request.priority)),
        ("queue", queue),
        ("mode", text(&request.mode)),
        ("labels", text(&request.labels)),
        ("timeout_ms", number(&request.timeout_ms)),
        ("deadline_ms", number(&request.deadline_ms)),
        ("max_attempts", number(&request.max_attempts)),
        ("result_ttl_ms", number(&request.result_ttl_ms)),
        ("reply_to", text(&request.reply_to)),
        ("traceparent", text(&request.traceparent)),
        ("tracestate", text(&request.tracestate)),
    ];
    let given = rare.iter().filter(|(_, value)| value.is_some()).count();
    let mut fields = Vec::with_capacity(2 + given + request.own.len());
    fields.push((request.kind.target_field(), request.target.as_bytes()));
    if let Some(input) = request.input.as_deref() {
        fields.push(("input", input.as_bytes()));
    }
    fields.extend(rare.into_iter().filter_map(|(name, value)| Some((name, value?.as_bytes()))));
    fields.extend(request.own.iter().map(|(name, value)| (&**name, value.as_bytes())));
    fields
}

/// Faults after which the same call may be repeated: the server refused before it ran anything.
fn surely_not_done(error: &Error) -> bool {
    matches!(error.fault(), Some(Fault::NoFunction | Fault::ReadOnly))
}

fn unavailable(error: Error) -> Refusal {
    let unknown = matches!(error.fault(), Some(Fault::Io | Fault::Timeout));
    let mut refusal = Refusal::from(error);
    if unknown {
        refusal.detail.push_str(
            "; whether the work was taken in is unknown: give it an id, and sending it again can do no harm",
        );
    }
    refusal
}
