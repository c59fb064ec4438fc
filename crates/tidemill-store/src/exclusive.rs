//! Connections that one caller has for itself: `WAIT` speaks of the writes of its own connection, so it cannot share one.
//!
//! Nothing is asked of a connection when it is taken from the pool. It is thrown away when the shared link has connected
//! anew since it was made (what broke that one most likely broke this one) and after any fault of its own.

use std::fmt;
use std::time::Duration;

use deadpool::managed::{self, Metrics, Pool, PoolError, RecycleError, RecycleResult, TimeoutType, Timeouts};
use redis::{Cmd, Value};

use crate::wire::Wire;
use crate::{Error, Link};

/// Most connections of this kind in one process.
const MAX_CONNECTIONS: usize = 8;

/// The pool; clones share it. It connects when first used.
#[derive(Clone)]
pub(crate) struct Exclusive {
    pool: Pool<Opener>,
}

pub(crate) struct Opener {
    link: Link,
}

/// A connection and the generation of the shared link when it was made.
pub(crate) struct Held {
    wire: Wire,
    generation: u64,
}

impl fmt::Debug for Exclusive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exclusive").field("status", &self.pool.status()).finish()
    }
}

impl managed::Manager for Opener {
    type Type = Held;
    type Error = Error;

    async fn create(&self) -> Result<Held, Error> {
        // the shared link first: its generation must be from before, never from after
        self.link.ready().await?;
        let generation = self.link.generation();
        Ok(Held { wire: self.link.connect().await?, generation })
    }

    async fn recycle(&self, held: &mut Held, _: &Metrics) -> RecycleResult<Error> {
        if held.generation == self.link.generation() {
            return Ok(());
        }
        Err(RecycleError::message("the shared connection was made anew"))
    }
}

impl Exclusive {
    pub(crate) fn new(link: Link) -> Result<Self, Error> {
        let patience = Duration::from_millis(link.settings().response_timeout_ms);
        let timeouts = Timeouts { wait: Some(patience), create: None, recycle: None };
        let built = Pool::builder(Opener { link })
            .max_size(MAX_CONNECTIONS)
            .timeouts(timeouts)
            .runtime(deadpool::Runtime::Tokio1)
            .build();
        let pool = built.map_err(|error| Error::Settings(format!("the pool of connections: {error}")))?;
        Ok(Self { pool })
    }

    /// Takes a connection; waits for one as long as for a reply.
    pub(crate) async fn take(&self) -> Result<Taken, Error> {
        match self.pool.get().await {
            Ok(held) => Ok(Taken { held: Some(held) }),
            Err(PoolError::Backend(error)) => Err(error),
            Err(PoolError::Timeout(TimeoutType::Wait)) => Err(Error::timed_out(
                "waiting for a connection of its own",
                "all connections for durable enqueueing are in use",
            )),
            Err(error) => Err(Error::Settings(format!("the pool of connections: {error}"))),
        }
    }
}

/// A connection that the caller has for itself until this is dropped.
pub(crate) struct Taken {
    held: Option<managed::Object<Opener>>,
}

impl Taken {
    /// Sends a command to the owner of a key; after any fault the connection is not used again.
    pub(crate) async fn send(
        &mut self,
        what: &'static str,
        command: &Cmd,
        key: &str,
    ) -> Result<Value, Error> {
        let Some(held) = self.held.as_mut() else {
            return Err(Error::timed_out(what, "the connection was given up after a fault"));
        };
        let reply = held.wire.send_to_owner(command, key).await;
        let judged = reply.and_then(Value::extract_error).map_err(|error| Error::redis(what, error));
        if judged.as_ref().is_err_and(|error| error.is_transient())
            && let Some(held) = self.held.take()
        {
            drop(managed::Object::take(held));
        }
        judged
    }
}
