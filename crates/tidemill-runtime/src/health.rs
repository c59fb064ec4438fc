//! Whether this process can do its work, told truly.
//!
//! Each part that can be deaf or blind (the connection to Redis, the function library, a reader) is a component. It is
//! not ready until it says so, and says when and why it no longer is. The process is ready while all of them are.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;
use tokio::sync::watch;

use crate::clock::{Clock, Instant};

/// The health of a process. A cheap handle; all clones speak of the same process.
#[derive(Clone)]
pub struct Health {
    inner: Arc<Inner>,
}

struct Inner {
    program: &'static str,
    version: &'static str,
    start: Instant,
    clock: Clock,
    state: Mutex<State>,
    ready: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    components: BTreeMap<&'static str, Standing>,
    ending: bool,
}

#[derive(Debug, Clone)]
struct Standing {
    /// Why it is not ready; nothing if it is.
    reason: Option<String>,
    since_ms: u64,
}

/// Answer of `/health`: the process lives and its runtime turns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Alive {
    /// Always `alive`.
    pub status: &'static str,
    /// Which program answers.
    pub program: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
}

/// Answer of `/ready`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether every component is ready and the process is not ending.
    pub ready: bool,
    /// Why not, one sentence for each component that is not ready.
    pub reasons: Vec<String>,
    /// Each component.
    pub components: BTreeMap<&'static str, ComponentReadiness>,
}

/// One component in a [`Readiness`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ComponentReadiness {
    /// Whether it is ready.
    pub ready: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Wall-clock time of the last change from ready to not ready or back, in milliseconds, for display.
    pub since_ms: u64,
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Health").field(&self.readiness()).finish()
    }
}

impl Health {
    /// A process without components, which is ready.
    #[must_use]
    pub fn new(program: &'static str, version: &'static str) -> Self {
        let inner = Inner {
            program,
            version,
            start: Instant::now(),
            clock: Clock::system(),
            state: Mutex::default(),
            ready: watch::Sender::new(true),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The component of this name; a new one is not ready, because it is `starting`.
    #[must_use]
    pub fn component(&self, name: &'static str) -> Component {
        self.inner.change(|state, now_ms| {
            let starting = || Standing { reason: Some("starting".to_owned()), since_ms: now_ms };
            state.components.entry(name).or_insert_with(starting);
        });
        Component { name, inner: Arc::clone(&self.inner) }
    }

    /// From now on the process is not ready, because it is ending: nothing new should be sent to it.
    pub fn set_ending(&self) {
        self.inner.change(|state, _| state.ending = true);
    }

    /// Whether every component is ready, and why not.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let state = self.inner.state();
        let mut reasons: Vec<String> = state
            .components
            .iter()
            .filter_map(|(name, standing)| standing.reason.as_ref().map(|reason| format!("{name}: {reason}")))
            .collect();
        if state.ending {
            reasons.push("process: ending".to_owned());
        }
        let component = |(name, standing): (&&'static str, &Standing)| {
            let (reason, since_ms) = (standing.reason.clone(), standing.since_ms);
            (*name, ComponentReadiness { ready: reason.is_none(), reason, since_ms })
        };
        Readiness {
            ready: reasons.is_empty(),
            reasons,
            components: state.components.iter().map(component).collect(),
        }
    }

    /// That the process lives.
    #[must_use]
    pub fn alive(&self) -> Alive {
        Alive {
            status: "alive",
            program: self.inner.program,
            version: self.inner.version,
            uptime_ms: crate::clock::milliseconds(self.inner.start.elapsed()),
        }
    }

    /// Waits until the process is ready.
    pub async fn await_ready(&self) {
        self.await_state(true).await;
    }

    /// Waits until the process is not ready.
    pub async fn await_unready(&self) {
        self.await_state(false).await;
    }

    async fn await_state(&self, wanted: bool) {
        let mut ready = self.inner.ready.subscribe();
        // The sender lives in `self`, so the wait cannot fail.
        drop(ready.wait_for(|ready| *ready == wanted).await);
    }
}

/// A component's own handle.
#[derive(Clone)]
pub struct Component {
    name: &'static str,
    inner: Arc<Inner>,
}

impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Component").field(&self.name).finish()
    }
}

impl Component {
    /// It can do its work.
    pub fn set_ready(&self) {
        self.set(None);
    }

    /// It cannot, because of this. Secrets do not belong in a reason: anybody may read it.
    pub fn set_unready(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }

    fn set(&self, reason: Option<String>) {
        let name = self.name;
        let turned = self.inner.change(|state, now_ms| {
            let Some(standing) = state.components.get_mut(name) else { return false };
            let turned = standing.reason.is_none() != reason.is_none();
            if turned {
                standing.since_ms = now_ms;
            }
            standing.reason.clone_from(&reason);
            turned
        });
        match (turned, reason) {
            (true, None) => tracing::info!(component = name, "ready"),
            (true, Some(reason)) => tracing::warn!(component = name, reason, "not ready"),
            (false, _) => {}
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State, u64) -> T) -> T {
        let mut state = self.state();
        let answer = change(&mut state, self.clock.wall_ms());
        let ready = !state.ending && state.components.values().all(|standing| standing.reason.is_none());
        self.ready.send_if_modified(|known| std::mem::replace(known, ready) != ready);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ready_only_while_every_component_is() {
        let health = Health::new("worker", "1.2.3");
        assert!(health.readiness().ready);
        let (redis, library) = (health.component("redis"), health.component("library"));
        assert_eq!(health.readiness().reasons, ["library: starting", "redis: starting"]);
        redis.set_ready();
        assert!(!health.readiness().ready);
        library.set_ready();
        assert_eq!(health.readiness().reasons, Vec::<String>::new());
        assert!(health.readiness().ready);
        redis.set_unready("no answer for 5 s");
        let readiness = health.readiness();
        assert!(!readiness.ready);
        assert_eq!(readiness.reasons, ["redis: no answer for 5 s"]);
        assert!(readiness.components["library"].ready);
        assert_eq!(readiness.components["redis"].reason.as_deref(), Some("no answer for 5 s"));
    }

    #[test]
    fn asking_for_a_component_again_does_not_change_it() {
        let health = Health::new("worker", "1.2.3");
        health.component("redis").set_ready();
        assert!(health.component("redis").inner.state().components["redis"].reason.is_none());
        assert!(health.readiness().ready);
    }

    #[test]
    fn an_ending_process_is_never_ready_again() {
        let health = Health::new("worker", "1.2.3");
        let redis = health.component("redis");
        redis.set_ready();
        health.set_ending();
        redis.set_ready();
        assert_eq!(health.readiness().reasons, ["process: ending"]);
    }

    #[tokio::test]
    async fn changes_can_be_awaited() {
        let health = Health::new("worker", "1.2.3");
        let redis = health.component("redis");
        health.await_unready().await;
        let ready = health.await_ready();
        redis.set_ready();
        ready.await;
        redis.set_unready("gone");
        health.await_unready().await;
    }
}
