//! Connections that are kept for the next call to the same origin.
//!
//! A kept connection is not polled; whether the server closed it is seen when it is taken out. A sweeper, which lives only
//! while something is kept, closes what stays unused.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::connect::Connection;

struct Kept {
    connection: Connection,
    since: Instant,
}

#[derive(Default)]
struct Inner {
    /// Per origin, the longest unused first.
    kept: HashMap<Box<str>, Vec<Kept>>,
    sweeping: bool,
}

/// Keeps unused connections, the freshest on top.
pub(crate) struct Pool {
    inner: Mutex<Inner>,
    idle_timeout: Duration,
    max_per_origin: usize,
}

impl Pool {
    pub(crate) fn new(idle_timeout: Duration, max_per_origin: usize) -> Arc<Self> {
        Arc::new(Self { inner: Mutex::default(), idle_timeout, max_per_origin })
    }

    /// The freshest connection to the origin whose address is permitted; none when all are stale.
    pub(crate) fn take(&self, origin: &str, permits: impl Fn(IpAddr) -> bool) -> Option<Connection> {
        let mut inner = self.lock();
        let kept = inner.kept.get_mut(origin)?;
        while let Some(top) = kept.pop() {
            if top.since.elapsed() < self.idle_timeout && permits(top.connection.peer) {
                return Some(top.connection);
            }
        }
        None
    }

    /// Keeps a connection that is ready for another call.
    pub(crate) fn keep(self: &Arc<Self>, origin: &str, connection: Connection) {
        if self.idle_timeout.is_zero() || self.max_per_origin == 0 {
            return;
        }
        let mut inner = self.lock();
        let kept = Kept { connection, since: Instant::now() };
        match inner.kept.get_mut(origin) {
            Some(list) if list.len() >= self.max_per_origin => return,
            Some(list) => list.push(kept),
            None => {
                inner.kept.insert(origin.into(), vec![kept]);
            }
        }
        if !inner.sweeping {
            inner.sweeping = true;
            drop(inner);
            self.start_sweeper();
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "ends by itself with the pool, holds no work, and has nothing to drain"
    )]
    fn start_sweeper(self: &Arc<Self>) {
        tokio::spawn(sweep(Arc::downgrade(self), self.idle_timeout));
    }

    /// Closes what was unused for too long; says whether anything is left.
    fn close_stale(&self) -> bool {
        let mut inner = self.lock();
        let now = Instant::now();
        inner.kept.retain(|_, list| {
            list.retain(|kept| now.duration_since(kept.since) < self.idle_timeout);
            !list.is_empty()
        });
        inner.sweeping = !inner.kept.is_empty();
        inner.sweeping
    }

    /// A poisoned lock is taken all the same: the list is whole after every statement.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn sweep(pool: Weak<Pool>, idle_timeout: Duration) {
    let period = (idle_timeout / 2).max(Duration::from_millis(10));
    loop {
        tokio::time::sleep(period).await;
        match pool.upgrade() {
            Some(pool) if pool.close_stale() => {}
            Some(_) | None => return,
        }
    }
}
