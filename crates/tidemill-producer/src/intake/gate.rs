//! Backpressure: whether a job may come in while its service has a line.
//!
//! What a job would wait is reckoned for each tier that its call passes: what still blocks the tier, and the line before the job at the
//! tier's pace; see [`prospect`]. A tier is looked at four times a second at most, whatever comes in, and jobs let in
//! since count as being in its line. By its service's `backpressure` a job
//!
//! * comes in whatever it would wait (`queue`);
//! * is refused when it would wait longer than `max_wait_ms` (`reject`);
//! * is refused when it would wait longer than what is really achieved allows (`adaptive`), after the idea of `CoDel` (RFC 8289), which
//!   judges a queue by the time that its head has waited, not by its length: while the job that has waited the longest
//!   in the tier's line waits longer than `max_wait_ms`, only a quarter of `max_wait_ms` is let in; then the bound grows back,
//!   evenly, within 12 seconds.
//!
//! Jobs alone are judged: a run's steps are enqueued by workers, for which it is too late. A delayed job comes in; nobody knows the line of
//! its time. When Redis does not tell, a job comes in: enqueueing it tells better what is wrong.

mod known;
mod look;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use tidemill_policy::service::{Backpressure, Definition};
use tidemill_runtime::clock::milliseconds;
use tidemill_store::{Error, Store};
use tokio::time::Instant;

use super::Request;
use crate::metric_names::Meters;
use crate::refusal::{Code, Refusal};
use known::Known;
use look::TierLook;

/// How long a look is believed.
pub(super) const FRESH: Duration = Duration::from_millis(250);
/// Nobody waits for a Redis that did not answer so lately.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Tiers whose looks are kept.
const MOST_TIERS: usize = 10_000;
/// A look that nobody asks for again is forgotten after this.
const FORGOTTEN: Duration = Duration::from_secs(10);
/// What is let in of `max_wait_ms` while too much waits too long, and how fast the rest comes back.
const SHRUNK: f64 = 0.25;
const GROWS_PER_S: f64 = (1.0 - SHRUNK) / 12.0;
/// When to come again where only a person ends the wait.
const ENDLESS_PAUSE: Duration = Duration::from_secs(30);

/// Judges jobs at the door.
#[derive(Debug)]
pub(super) struct Gate {
    store: Store,
    state: Mutex<State>,
    /// Held by the one who looks.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    known: Option<(Arc<Known>, Instant)>,
    looks: HashMap<Arc<str>, TierLook>,
    /// Tiers that somebody waits to have looked at.
    wanted: Vec<Arc<str>>,
    /// Where less than `max_wait_ms` is let in, by service and tier: when it was a quarter last.
    shrunk: HashMap<(String, Arc<str>), Instant>,
    /// Looks from before are old, whatever their age.
    stale_before: Option<Instant>,
    /// When Redis did not tell last.
    failed: Option<Instant>,
}

/// Why a job may not come in.
#[derive(Debug, Clone, PartialEq)]
struct Obstacle {
    tier: Arc<str>,
    why: String,
    /// `None`: until a person ends it.
    wait: Option<Duration>,
    /// The longest wait that is let in.
    bound: Duration,
}

impl Gate {
    pub(super) fn new(store: Store) -> Self {
        Self { store, state: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    /// Whether a job may come in.
    pub(super) async fn check(&self, request: &Request<'_>, meters: &Meters) -> Result<(), Refusal> {
        match self.obstacle(request).await {
            Ok(None) => Ok(()),
            Ok(Some((service, mode, obstacle))) => {
                meters.turned_away(&service, &obstacle.why);
                Err(refusal(&service, mode, &obstacle))
            }
            Err(error) => {
                tracing::debug!(%error, "what a job would wait is not known; it may come in");
                self.state().failed = Some(Instant::now());
                Ok(())
            }
        }
    }

    async fn obstacle(
        &self,
        request: &Request<'_>,
    ) -> Result<Option<(String, Backpressure, Obstacle)>, Error> {
        let Some(known) = self.known().await? else { return Ok(None) };
        let Some((service, definition)) = known.guarded_service(request) else { return Ok(None) };
        let tiers = known.tiers(service, request);
        self.look(&known, &tiers).await?;
        let obstacle = self.judge(service, definition, &tiers);
        Ok(obstacle.map(|obstacle| (service.to_owned(), definition.backpressure, obstacle)))
    }

    /// What is known is old: the next job is judged by what is true then.
    pub(super) fn forget(&self) {
        self.state().stale_before = Some(Instant::now());
    }

    /// The obstacle with the longest wait; without one the job counts as let in.
    fn judge(&self, service: &str, definition: &Definition, tiers: &[Arc<str>]) -> Option<Obstacle> {
        let (mut state, now) = (self.state(), Instant::now());
        let max_wait = Duration::from_millis(definition.max_wait_ms);
        let mut worst: Option<Obstacle> = None;
        for tier in tiers {
            let Some(look) = state.looks.get(tier) else { continue };
            let (wait, why, oldest) = (look.wait(), look.why(), look.oldest);
            let bound = if definition.backpressure == Backpressure::Adaptive {
                let key = (service.to_owned(), Arc::clone(tier));
                max_wait.mul_f64(state.share(key, oldest.is_some_and(|oldest| oldest > max_wait), now))
            } else {
                max_wait
            };
            let is_longer =
                |worst: &Obstacle| worst.wait.is_some_and(|known| wait.is_none_or(|wait| wait > known));
            if wait.is_none_or(|wait| wait > bound) && worst.as_ref().is_none_or(is_longer) {
                worst = Some(Obstacle { tier: Arc::clone(tier), why, wait, bound });
            }
        }
        if worst.is_none() {
            for tier in tiers {
                if let Some(look) = state.looks.get_mut(tier) {
                    look.let_in += 1.0;
                }
            }
        }
        worst
    }

    /// The definitions, not older than [`FRESH`]; `None` while Redis is not asked because it did not answer just now.
    async fn known(&self) -> Result<Option<Arc<Known>>, Error> {
        if let Some(known) = self.state().fresh_definitions() {
            return Ok(Some(known));
        }
        let turn = self.turn.lock().await;
        let before = {
            let state = self.state();
            if let Some(known) = state.fresh_definitions() {
                return Ok(Some(known));
            }
            if state.failed.is_some_and(|at| at.elapsed() < AFTER_FAILURE) {
                return Ok(None);
            }
            state.known.as_ref().map(|(known, _)| Arc::clone(known))
        };
        let asked = Instant::now();
        let known = Known::read(&self.store, before).await?;
        self.state().known = Some((Arc::clone(&known), asked));
        drop(turn);
        Ok(Some(known))
    }

    /// Looks at those of the tiers whose last look is old. Whoever has the turn looks for all that wait for it.
    async fn look(&self, known: &Known, tiers: &[Arc<str>]) -> Result<(), Error> {
        // a look that fails is told to the one who looks; the others try once themselves
        for _ in 0..2 {
            if !self.state().want(tiers) {
                return Ok(());
            }
            let turn = self.turn.lock().await;
            let wanted = self.state().take_wanted();
            if wanted.is_empty() {
                drop(turn);
                continue;
            }
            let looks = look::look(&self.store, known, &wanted).await?;
            self.state().keep(wanted.into_iter().zip(looks));
            drop(turn);
        }
        Ok(())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn fresh_definitions(&self) -> Option<Arc<Known>> {
        self.known.as_ref().filter(|(_, at)| self.is_recent(*at)).map(|(known, _)| Arc::clone(known))
    }

    fn is_fresh(&self, tier: &str) -> bool {
        self.looks.get(tier).is_some_and(|look| self.is_recent(look.at))
    }

    /// Whether what was asked for then is still believed.
    fn is_recent(&self, at: Instant) -> bool {
        at.elapsed() < FRESH && self.stale_before.is_none_or(|before| at > before)
    }

    /// Asks for a look at those that need one; whether any does.
    fn want(&mut self, tiers: &[Arc<str>]) -> bool {
        let before = self.wanted.len();
        for tier in tiers {
            if !self.is_fresh(tier) {
                self.wanted.push(Arc::clone(tier));
            }
        }
        self.wanted.len() > before
    }

    fn take_wanted(&mut self) -> Vec<Arc<str>> {
        let mut wanted = std::mem::take(&mut self.wanted);
        wanted.retain(|tier| !self.is_fresh(tier));
        wanted.sort();
        wanted.dedup();
        wanted
    }

    fn keep(&mut self, looks: impl Iterator<Item = (Arc<str>, TierLook)>) {
        for (tier, mut look) in looks {
            if let Some(before) = self.looks.get(&tier) {
                look.follow(before);
            }
            self.looks.insert(tier, look);
        }
        if self.looks.len() > MOST_TIERS {
            self.looks.retain(|_, look| look.at.elapsed() < FORGOTTEN);
        }
        if self.looks.len() > MOST_TIERS {
            self.looks.clear();
        }
    }

    /// The share of `max_wait_ms` that is let in.
    fn share(&mut self, key: (String, Arc<str>), waits_too_long: bool, now: Instant) -> f64 {
        if waits_too_long {
            self.shrunk.insert(key, now);
            return SHRUNK;
        }
        let Some(at) = self.shrunk.get(&key) else { return 1.0 };
        let share = now.duration_since(*at).as_secs_f64().mul_add(GROWS_PER_S, SHRUNK);
        if share < 1.0 {
            return share;
        }
        self.shrunk.remove(&key);
        1.0
    }
}

fn refusal(service: &str, mode: Backpressure, obstacle: &Obstacle) -> Refusal {
    let Obstacle { tier, why, wait, bound } = obstacle;
    let mode = if mode == Backpressure::Adaptive { "adaptive" } else { "reject" };
    let what = match why.split_once(':') {
        _ if why == "pause" => "is paused".to_owned(),
        _ if why == "breaker" && wait.is_none() => "is isolated".to_owned(),
        _ if why == "breaker" => "has its breaker open".to_owned(),
        Some(("limit", unit)) => format!("is bounded by its limit of {unit}"),
        _ if why == "concurrency" => "is bounded by its cap on calls at once".to_owned(),
        _ => "has a line".to_owned(),
    };
    let bound_ms = milliseconds(*bound);
    let (sentence, pause) = match wait {
        None => (format!("{tier:?} {what} until somebody ends that"), ENDLESS_PAUSE),
        Some(wait) => (
            format!(
                "{tier:?} {what}: the job would wait about {} ms; {bound_ms} ms are let in",
                milliseconds(*wait)
            ),
            wait.saturating_sub(*bound),
        ),
    };
    let detail = format!("service {service:?} (backpressure {mode}): {sentence}; nothing was taken in");
    let problem = json!({
        "service": service,
        "tier": &**tier,
        "why": why,
        "expected_wait_ms": wait.map(milliseconds),
        "longest_wait_ms": bound_ms,
    });
    Refusal::new(Code::ServiceBusy, detail).again_after(pause).with_problems(vec![problem])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::State;

    #[tokio::test(start_paused = true)]
    async fn what_is_let_in_shrinks_to_a_quarter_at_once_and_comes_back_within_twelve_seconds() {
        let (mut state, tier) = (State::default(), Arc::<str>::from("openai"));
        let mut share =
            |too_long| state.share(("openai".to_owned(), Arc::clone(&tier)), too_long, Instant::now());
        assert_eq!(share(false), 1.0);
        assert_eq!(share(true), 0.25);
        tokio::time::advance(Duration::from_secs(4)).await;
        assert!((share(false) - 0.5).abs() < 1e-9);
        assert_eq!(share(true), 0.25, "again at once");
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!((share(false) - 0.9375).abs() < 1e-9);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(share(false), 1.0);
        assert!(state.shrunk.is_empty(), "what is whole takes no memory");
    }
}
