//! Many requests at once: grouped by partition and queue, 500 to a call, several calls under way.

use futures_util::stream::{self, StreamExt};
use tidemill_store::Durability;

use super::{Accepted, Admitted, Intake, Kind, Request};
use crate::refusal::{Code, Refusal};

/// Most jobs of one call.
const CALL_JOBS: usize = 500;
/// Most bytes of input in one call (a larger single input goes alone), so that one call never holds Redis for long.
const CALL_BYTES: usize = 1024 * 1024;
/// Calls under way for one batch.
const CALLS_IN_FLIGHT: usize = 4;

struct Call {
    partition: u32,
    queue: String,
    places: Vec<usize>,
    bytes: usize,
}

impl Intake {
    /// Takes many requests in, in their order within a queue. A bad one is refused and the others are taken in all the same.
    pub async fn submit_batch(
        &self,
        kind: Kind,
        requests: &[Result<Request<'_>, Refusal>],
        durability: Option<Durability>,
    ) -> Vec<Result<Accepted, Refusal>> {
        self.meters().batch_lines.observe(f64::from(u32::try_from(requests.len()).unwrap_or(u32::MAX)));
        let mut outcomes: Vec<Option<Result<Accepted, Refusal>>> = Vec::new();
        outcomes.resize_with(requests.len(), || None);
        let memory = self.inner.memory.check().await;
        let mut admitted = Vec::with_capacity(requests.len());
        for (place, request) in requests.iter().enumerate() {
            let admission = match (request, &memory) {
                (Err(refusal), _) | (Ok(_), Err(refusal)) => Err(refusal.clone()),
                (Ok(request), Ok(())) => self.admit_in_batch(request).await,
            };
            match admission {
                Ok(one) => admitted.push(Some(one)),
                Err(refusal) => {
                    outcomes[place] = Some(Err(refusal));
                    admitted.push(None);
                }
            }
        }
        let calls = calls_for(&admitted);
        let mut answers = stream::iter(calls)
            .map(|call| self.carry_out(call, &admitted, durability))
            .buffered(CALLS_IN_FLIGHT);
        while let Some(answered) = answers.next().await {
            for (place, outcome) in answered {
                if let Some(slot) = outcomes.get_mut(place) {
                    *slot = Some(outcome);
                }
            }
        }
        let lost = || Err(Refusal::new(Code::Internal, "the batch lost this line"));
        let outcomes: Vec<_> = outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(lost)).collect();
        for outcome in &outcomes {
            self.count(kind, outcome);
        }
        outcomes
    }

    async fn admit_in_batch<'r, 'a>(&self, request: &'r Request<'a>) -> Result<Admitted<'r, 'a>, Refusal> {
        let mut admitted = self.admit(request)?;
        if request.kind == Kind::Run {
            let workflows = &self.inner.workflows;
            admitted.warning = workflows.check_input(&request.target, request.input.as_deref()).await?;
        }
        self.pass_gate(request).await?;
        Ok(admitted)
    }

    async fn carry_out(
        &self,
        call: Call,
        admitted: &[Option<Admitted<'_, '_>>],
        durability: Option<Durability>,
    ) -> Vec<(usize, Result<Accepted, Refusal>)> {
        let jobs: Vec<&Admitted<'_, '_>> =
            call.places.iter().filter_map(|place| admitted.get(*place)?.as_ref()).collect();
        match self.enqueue(call.partition, &call.queue, durability, &jobs).await {
            Err(refusal) => call.places.into_iter().map(|place| (place, Err(refusal.clone()))).collect(),
            Ok((enqueued, assurance)) => {
                let each = call.places.into_iter().zip(jobs).zip(enqueued);
                each.map(|((place, job), enqueued)| (place, self.accepted(job, enqueued, &assurance)))
                    .collect()
            }
        }
    }
}

/// Calls in the order of their first job; within a partition and queue the order of the batch is kept.
fn calls_for(admitted: &[Option<Admitted<'_, '_>>]) -> Vec<Call> {
    let mut full: Vec<Call> = Vec::new();
    let mut open: Vec<Call> = Vec::new();
    for (place, one) in admitted.iter().enumerate() {
        let Some(one) = one else { continue };
        let bytes = one.request.input.as_deref().map_or(0, str::len);
        let found = open.iter().position(|call| call.partition == one.partition && call.queue == one.queue);
        let at = found.unwrap_or_else(|| {
            let queue = one.queue.clone().into_owned();
            open.push(Call { partition: one.partition, queue, places: Vec::new(), bytes: 0 });
            open.len() - 1
        });
        let call = &mut open[at];
        if call.places.len() == CALL_JOBS || (call.bytes + bytes > CALL_BYTES && !call.places.is_empty()) {
            let next =
                Call { partition: call.partition, queue: call.queue.clone(), places: Vec::new(), bytes: 0 };
            full.push(std::mem::replace(call, next));
        }
        call.places.push(place);
        call.bytes += bytes;
    }
    full.append(&mut open);
    full
}
