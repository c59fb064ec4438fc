//! The right, and the duty, to make a call that others may wait for.

use std::sync::Arc;
use std::time::Duration;

use tidemill_policy::service::Cache as Rules;
use tidemill_protocol::{ErrorBody, ErrorClass, Payload};
use tidemill_store::cache::{Cached, Digest, Era, Put};
use tidemill_tool::ToolError;
use tokio::sync::mpsc::UnboundedSender;

use super::Answer;
use super::engine::{End, Event};

/// Held while a call is made. Dropped without a word it is given up: the next who waits may call.
#[derive(Debug)]
#[must_use = "others wait for what comes of it"]
pub struct Ticket {
    held: Option<Held>,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) events: UnboundedSender<Event>,
    pub(super) service: Arc<str>,
    pub(super) digest: Digest,
    pub(super) rules: Rules,
    /// Whether others may wait for it.
    pub(super) shared: bool,
    /// When it was looked up; unknown where Redis did not answer, and then nothing is stored.
    pub(super) era: Option<Era>,
}

impl Ticket {
    pub(super) const fn new(held: Held) -> Self {
        Self { held: Some(held) }
    }

    /// Stands for nothing that anybody waits for or keeps.
    pub(super) const fn inert() -> Self {
        Self { held: None }
    }

    /// The call was answered: the answer is kept, and told to all who wait.
    pub fn fill(mut self, output: &Payload) {
        let Some(held) = self.held.take() else { return };
        let put = held.put(held.rules.ttl_ms, held.rules.stale_ms, || Cached::Output(output.clone()));
        held.end(Some(Answer::Output(output.clone())), put);
    }

    /// The call failed: all who wait fail with it, and the failure is kept if the service keeps such. Without an error the call
    /// was not made: the next who waits may make it.
    pub fn failed(mut self, error: Option<&ToolError>) {
        let Some(held) = self.held.take() else { return };
        let put = error.and_then(|error| {
            let lasting = matches!(error.class, ErrorClass::Client | ErrorClass::InvalidInput);
            let ttl_ms = if lasting { held.rules.negative_ttl_ms } else { 0 };
            held.put(ttl_ms, 0, || {
                let body = ErrorBody { code: error.code.to_string(), message: error.message.clone() };
                Cached::Failure(error.class, body)
            })
        });
        held.end(error.cloned().map(Answer::Failed), put);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            held.end(None, None);
        }
    }
}

impl Held {
    fn put(&self, ttl_ms: u64, stale_ms: u64, cached: impl FnOnce() -> Cached) -> Option<Put> {
        let era = self.era.clone().filter(|_| ttl_ms > 0)?;
        let value = cached().encode();
        let (ttl, stale) = (Duration::from_millis(ttl_ms), Duration::from_millis(stale_ms));
        (value.len() as u64 <= self.rules.max_bytes).then_some(Put {
            digest: self.digest,
            era,
            ttl,
            stale,
            value,
        })
    }

    fn end(self, answer: Option<Answer>, put: Option<Put>) {
        let end = End { service: self.service, digest: self.digest, shared: self.shared, answer, put };
        // an engine that has ended has nobody who waits
        drop(self.events.send(Event::Ended(end)));
    }
}
