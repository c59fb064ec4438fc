//! A connection that mends itself.
//!
//! A link holds at most one live connection. Whoever meets a fault that needs a new one drops it; the next user connects again,
//! one attempt at a time, with growing pauses. Each new connection must be to a primary and have the function library loaded
//! before anybody gets it. Nothing here repeats a command: after a fault its outcome is unknown, and only the caller knows
//! whether asking again is right.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::{Cmd, FromRedisValue, Pipeline, RedisError, Value};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::endpoint::Endpoint;
use crate::error::{Error, Fault, Remedy};
use crate::wire::Wire;
use crate::{Settings, library};

/// A connection that mends itself; clones share it.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    endpoint: Endpoint,
    settings: Settings,
    reply_within: Option<Duration>,
    state: Mutex<State>,
    /// Counts connections made, so that others can notice a new one.
    generation: AtomicU64,
}

#[derive(Default)]
struct State {
    wire: Option<Wire>,
    failures: u32,
    not_before: Option<Instant>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("generation", &self.generation()).finish_non_exhaustive()
    }
}

const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Link {
    /// A link for ordinary commands. Connects when first used.
    ///
    /// # Errors
    /// The settings are not valid.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        Self::waiting(settings, Some(Duration::from_millis(settings.response_timeout_ms)))
    }

    /// A link of its own for reads that block up to `block` inside Redis. A frozen server never ends such a read, so the client
    /// gives up a little later by itself.
    ///
    /// # Errors
    /// The settings are not valid.
    pub fn blocking(settings: &Settings, block: Duration) -> Result<Self, Error> {
        Self::waiting(settings, Some(block + Duration::from_millis(settings.response_timeout_ms)))
    }

    fn waiting(settings: &Settings, reply_within: Option<Duration>) -> Result<Self, Error> {
        let shared = Shared {
            endpoint: Endpoint::parse(settings)?,
            settings: settings.clone(),
            reply_within,
            state: Mutex::default(),
            generation: AtomicU64::new(0),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// How many connections were made so far: a change means that whatever was in flight has an unknown outcome.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// The settings it was made with.
    pub(crate) fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// Whether Redis is a cluster.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        matches!(self.shared.endpoint, Endpoint::Cluster(_))
    }

    async fn wire(&self) -> Result<(u64, Wire), Error> {
        let mut state = self.shared.state.lock().await;
        if let Some(wire) = &state.wire {
            return Ok((self.generation(), wire.clone()));
        }
        if let Some(not_before) = state.not_before {
            tokio::time::sleep_until(not_before).await;
        }
        match self.connect().await {
            Ok(wire) => {
                state.failures = 0;
                state.not_before = None;
                state.wire = Some(wire.clone());
                let generation = self.shared.generation.fetch_add(1, Ordering::AcqRel) + 1;
                Ok((generation, wire))
            }
            Err(error) => {
                state.failures = state.failures.saturating_add(1);
                let pause = Duration::from_millis(10 << state.failures.min(7)).min(LONGEST_PAUSE);
                state.not_before = Some(Instant::now() + pause);
                Err(error)
            }
        }
    }

    /// Makes a connection of its own, checked as every connection is.
    pub(crate) async fn connect(&self) -> Result<Wire, Error> {
        let shared = &*self.shared;
        let mut wire = Wire::connect(&shared.endpoint, &shared.settings, shared.reply_within).await?;
        if matches!(wire, Wire::Single(_)) {
            // after a failover an old address may still answer, as a replica or as a primary that is about to be one
            let role: Vec<Value> = Cmd::new()
                .arg("ROLE")
                .query_async(&mut wire)
                .await
                .map_err(|e| Error::redis("asking for the role", e))?;
            if !matches!(role.first(), Some(Value::BulkString(role)) if role == b"master") {
                let refusal = RedisError::from((
                    redis::ErrorKind::Server(redis::ServerErrorKind::ReadOnly),
                    "this server is a replica",
                ));
                return Err(Error::redis("connecting to the primary", refusal));
            }
        }
        library::ensure(&mut wire).await?;
        Ok(wire)
    }

    async fn drop_generation(&self, generation: u64) {
        let mut state = self.shared.state.lock().await;
        if self.generation() == generation {
            state.wire = None;
        }
    }

    async fn judge<T>(
        &self,
        generation: u64,
        what: &'static str,
        result: Result<T, RedisError>,
    ) -> Result<T, Error> {
        match result {
            Ok(value) => Ok(value),
            Err(source) => {
                let error = Error::redis(what, source);
                match error.remedy() {
                    Remedy::Reconnect | Remedy::LoadLibrary => self.drop_generation(generation).await,
                    Remedy::Wait | Remedy::CreateGroup | Remedy::GiveUp => {}
                }
                tracing::debug!(what, fault = error.fault().map(Fault::as_str), %error, "redis refused");
                Err(error)
            }
        }
    }

    /// Sends one command; never repeats it.
    ///
    /// # Errors
    /// Redis refused it, or no reply came (the outcome is then unknown).
    pub(crate) async fn query<T: FromRedisValue>(
        &self,
        what: &'static str,
        command: &Cmd,
    ) -> Result<T, Error> {
        let (generation, mut wire) = self.wire().await?;
        let reply = command.query_async(&mut wire).await;
        self.judge(generation, what, reply).await
    }

    /// Sends one command and gives the reply as it came.
    pub(crate) async fn raw(&self, what: &'static str, command: &Cmd) -> Result<Value, Error> {
        let (generation, mut wire) = self.wire().await?;
        let reply = wire.req_packed_command(command).await.and_then(Value::extract_error);
        self.judge(generation, what, reply).await
    }

    /// Sends one command that names no key; in a cluster, to the primary that owns `key`.
    pub(crate) async fn query_owner<T: FromRedisValue>(
        &self,
        what: &'static str,
        command: &Cmd,
        key: &str,
    ) -> Result<T, Error> {
        let (generation, mut wire) = self.wire().await?;
        let reply = wire.send_to_owner(command, key).await.and_then(Value::extract_error);
        let reply = reply.and_then(|value| T::from_redis_value(value).map_err(RedisError::from));
        self.judge(generation, what, reply).await
    }

    /// Sends commands together; their keys share a tag.
    pub(crate) async fn pipeline<T: FromRedisValue>(
        &self,
        what: &'static str,
        commands: &Pipeline,
    ) -> Result<T, Error> {
        let (generation, mut wire) = self.wire().await?;
        let reply = commands.query_async(&mut wire).await;
        self.judge(generation, what, reply).await
    }

    /// Connects now, if not connected.
    ///
    /// # Errors
    /// Redis cannot be reached, is a replica, or refuses the library.
    pub async fn ready(&self) -> Result<(), Error> {
        self.wire().await.map(|_| ())
    }
}
