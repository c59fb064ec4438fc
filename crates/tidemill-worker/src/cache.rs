//! Answers that are kept, and calls that are shared.
//!
//! A call is known by its tool and its input ([`Question`]). Before an attempt the worker asks [`Cache::look_up`]: either there is
//! an answer, or the caller is to make the call and to tell what came of it through its [`Ticket`]. Equal calls that are asked for
//! meanwhile wait: in this worker for the ticket, in others for the lease that Redis gives to one of the pool.
//!
//! Waiting takes no slot and ends by itself: with the answer; with the right to call, when the caller gave up or died; with the
//! caller's error, when the call failed. **A call that is shared is shared with its failure.** A look-up never holds work up for
//! long because of Redis: where that does not answer, the caller is told to make the call.
//!
//! One task, [`Engine::run`], owns all of it and has at most one call to Redis under way per service; what gathers meanwhile goes
//! into the next. The page is `docs/services-cache.md`.

mod calls;
mod engine;
mod flights;
mod key;
mod landing;
mod metrics;
#[cfg(test)]
mod tests;
mod ticket;

use std::sync::Arc;
use std::time::Duration;

use tidemill_policy::service::Cache as Rules;
use tidemill_protocol::Payload;
use tidemill_runtime::metrics::Metrics;
use tidemill_store::Store;
use tidemill_store::cache::{Cached, Digest, Found};
use tidemill_tool::ToolError;
use tokio::sync::{mpsc, oneshot};

pub use engine::Engine;
pub use metrics::ALL as METRICS;
pub use ticket::Ticket;

use engine::Event;
use metrics::CacheMetrics;

/// A call, as far as it decides the answer.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The service that answers; each has a cache of its own.
    pub service: &'a Arc<str>,
    /// The tool, as it is asked for.
    pub tool: &'a str,
    /// Who must not share answers with others: a tenant or a credential on which the answer depends, or empty.
    pub apart: &'a str,
    /// What the tool is given. JSON is the same however its objects are ordered and its white space lies.
    pub input: &'a Payload,
}

/// What a look-up came to.
#[derive(Debug)]
pub enum LookUp {
    /// The answer: kept, or that of an equal call that was under way.
    Hit(Payload),
    /// The failure of such a call: kept (`negative_ttl_ms`), or of one that was under way.
    Failed(ToolError),
    /// Make the call, and tell the ticket what came of it.
    Fill(Ticket),
}

/// How the engine paces itself.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// The longest time a look-up waits for Redis.
    pub patience: Duration,
    /// How long it is not asked after it did not answer.
    pub respite: Duration,
    /// How long the right to call holds in Redis when its holder is dead. The same in all of a pool.
    pub lease: Duration,
    /// How often a living holder renews it.
    pub renewal: Duration,
    /// The first pause before asking again for what another worker calls; grows by half each time.
    pub shortest_pause: Duration,
    /// The longest such pause.
    pub longest_pause: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(1),
            respite: Duration::from_secs(1),
            lease: Duration::from_secs(5),
            renewal: Duration::from_millis(1500),
            shortest_pause: Duration::from_millis(10),
            longest_pause: Duration::from_millis(250),
        }
    }
}

/// A worker's way to the caches of all services. Clones speak of the same; when the last of them and of the tickets is gone, the
/// engine writes what it still has and ends.
#[derive(Debug, Clone)]
pub struct Cache {
    events: mpsc::UnboundedSender<Event>,
    metrics: Arc<CacheMetrics>,
}

/// How often a look-up fetches anew what it could not read: more than once means that others keep writing it.
const READINGS: usize = 3;

impl Cache {
    /// The handle, and the engine that somebody must run.
    #[must_use]
    pub fn new(store: Store, metrics: &Metrics) -> (Self, Engine) {
        Self::with_timing(store, metrics, Timing::default())
    }

    /// The same at another pace.
    #[must_use]
    pub fn with_timing(store: Store, metrics: &Metrics, timing: Timing) -> (Self, Engine) {
        let metrics = Arc::new(CacheMetrics::new(metrics));
        let (events, received) = mpsc::unbounded_channel();
        let engine = Engine::new(store, Arc::clone(&metrics), timing, (events.downgrade(), received));
        (Self { events, metrics }, engine)
    }

    /// Looks a call up, and waits while an equal one is under way. May be dropped at any time.
    pub async fn look_up(&self, question: &Question<'_>, rules: &Rules) -> LookUp {
        let digest = key::digest(question);
        for reading in 0..READINGS {
            let (seat, told) = oneshot::channel();
            let ask = Asked {
                service: Arc::clone(question.service),
                rules: rules.clone(),
                digest,
                distrust: reading > 0,
                seat,
            };
            drop(self.events.send(Event::Ask(ask)));
            match told.await {
                Ok(Told::Fill(ticket)) => return LookUp::Fill(ticket),
                Ok(Told::Shared(answer)) => {
                    self.metrics.looked_up(question.service, "coalesced");
                    return answer.into();
                }
                Ok(Told::Stored { value, waited }) => match Cached::decode(&value) {
                    Ok(cached) => {
                        let answer = Answer::from(cached);
                        let kind = if matches!(answer, Answer::Failed(_)) { "negative" } else { "hit" };
                        self.metrics.looked_up(question.service, if waited { "coalesced" } else { kind });
                        return answer.into();
                    }
                    Err(error) => {
                        self.metrics.looked_up(question.service, "unreadable");
                        tracing::debug!(service = %question.service, tool = question.tool, %error, "calling again");
                    }
                },
                // the engine has ended: the worker does
                Err(_) => break,
            }
        }
        self.metrics.looked_up(question.service, "unavailable");
        LookUp::Fill(Ticket::inert())
    }

    /// An answer that is kept, for a fallback: however stale, but no failure. `None` also where Redis does not answer.
    pub async fn stale(&self, question: &Question<'_>) -> Option<Payload> {
        let (seat, told) = oneshot::channel();
        let service = Arc::clone(question.service);
        drop(self.events.send(Event::AskKept { service, digest: key::digest(question), seat }));
        let (Found::Hit(value, _) | Found::Stale(value, _)) = told.await.ok()? else { return None };
        let Ok(Cached::Output(output)) = Cached::decode(&value) else { return None };
        self.metrics.looked_up(question.service, "stale");
        Some(output)
    }
}

/// A look-up on its way to the engine.
#[derive(Debug)]
pub(crate) struct Asked {
    service: Arc<str>,
    rules: Rules,
    digest: Digest,
    /// What is stored could not be read.
    distrust: bool,
    seat: oneshot::Sender<Told>,
}

/// What a look-up is told.
#[derive(Debug)]
enum Told {
    Fill(Ticket),
    /// What came of an equal call of this worker.
    Shared(Answer),
    /// What Redis has; `waited`: since an equal call of another worker ended.
    Stored {
        value: bytes::Bytes,
        waited: bool,
    },
}

/// What came of a call.
#[derive(Debug, Clone)]
enum Answer {
    Output(Payload),
    Failed(ToolError),
}

impl From<Cached> for Answer {
    fn from(cached: Cached) -> Self {
        match cached {
            Cached::Output(output) => Self::Output(output),
            Cached::Failure(class, error) => Self::Failed(ToolError::new(class, error.code, error.message)),
        }
    }
}

impl From<Answer> for LookUp {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Output(output) => Self::Hit(output),
            Answer::Failed(error) => Self::Failed(error),
        }
    }
}
