//! Duties: work that a process does again and again, such as promoting what is due.
//!
//! One runner drives them all: it waits the interval with some jitter, so that several processes do not fall into
//! step; it goes on at once while there is more to do; after an error it waits longer each time; and it stops when
//! asked, between two ticks, never in the middle of one.

use std::{fmt, sync::Arc, time::Duration};

use rand::Rng;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    metrics::DutyMetrics,
    tasks::{OnFailure, Tasks},
};

/// What a tick has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tick {
    /// All done: come back after the interval.
    Done,
    /// There is more: come back at once.
    Again,
    /// Nothing to do for this long, as far as is known.
    After(Duration),
}

/// Work done again and again by one process, alone or beside others that do the same.
pub trait Duty: Send + 'static {
    /// Its name in logs and metrics, such as `promoter`.
    const NAME: &'static str;
    /// What can go wrong in a tick. The next tick comes all the same.
    type Error: fmt::Display + Send;

    /// Does what there is to do now, in a bounded amount.
    fn tick(&mut self) -> impl Future<Output = Result<Tick, Self::Error>> + Send;
}

/// How often a duty ticks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cadence {
    /// Pause after a tick that found nothing more to do.
    pub interval: Duration,
    /// Share of a pause, 0 to 1, that is random: with 0.2, a pause of 10 s takes 8 to 12 s.
    pub jitter: f64,
    /// Longest pause after repeated errors; the first is the interval.
    pub backoff_max: Duration,
    /// A tick that takes longer is given up and counts as an error.
    pub tick_max: Duration,
}

impl Cadence {
    /// Every `interval`, with a fifth of jitter, pauses of at most 30 s after errors, and a minute for a tick.
    #[must_use]
    pub const fn every(interval: Duration) -> Self {
        Self {
            interval,
            jitter: 0.2,
            backoff_max: Duration::from_secs(30),
            tick_max: Duration::from_secs(60),
        }
    }

    fn pause_after_errors(&self, errors: u32) -> Duration {
        let shift = errors.saturating_sub(1).min(20);
        let longest = self.backoff_max.max(self.interval);
        self.interval.max(Duration::from_millis(10)).saturating_mul(1 << shift).min(longest)
    }

    fn jittered(&self, pause: Duration) -> Duration {
        let share = if self.jitter.is_finite() { self.jitter.clamp(0.0, 1.0) } else { 0.0 };
        if share == 0.0 {
            return pause;
        }
        pause.mul_f64(1.0 - share + 2.0 * share * rand::rng().random::<f64>())
    }
}

/// Spawns a runner for `duty` that ticks until the tasks are asked to end. Its panic is treated as `on_failure` says.
pub fn spawn<D: Duty>(
    tasks: &Tasks,
    duty: D,
    cadence: Cadence,
    metrics: &Arc<DutyMetrics>,
    on_failure: OnFailure,
) {
    let runner = run(duty, cadence, tasks.token(), Arc::clone(metrics));
    tasks.spawn(D::NAME, on_failure, async move {
        runner.await;
        Ok::<_, std::convert::Infallible>(())
    });
}

/// Ticks until `token` is cancelled. The first tick comes at once.
pub async fn run<D: Duty>(
    mut duty: D,
    cadence: Cadence,
    token: CancellationToken,
    metrics: Arc<DutyMetrics>,
) {
    let mut errors: u32 = 0;
    while !token.is_cancelled() {
        let start = Instant::now();
        let outcome = tokio::time::timeout(cadence.tick_max, duty.tick()).await;
        let took = start.elapsed();
        let failure = match &outcome {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("gave up after {} ms", cadence.tick_max.as_millis())),
        };
        metrics.record(D::NAME, took, failure.is_some());
        let pause = match (outcome, failure) {
            (Ok(Ok(tick)), _) => {
                errors = 0;
                match tick {
                    Tick::Again => Duration::ZERO,
                    Tick::Done => cadence.jittered(cadence.interval),
                    Tick::After(pause) => cadence.jittered(pause),
                }
            }
            (_, reason) => {
                errors = errors.saturating_add(1);
                let pause = cadence.jittered(cadence.pause_after_errors(errors));
                let pause_ms = crate::clock::milliseconds(pause);
                tracing::warn!(duty = D::NAME, reason, errors, pause_ms, "tick failed");
                pause
            }
        };
        if pause.is_zero() {
            tokio::task::yield_now().await; // a duty that never blocks must not starve its thread
        } else {
            token.run_until_cancelled(tokio::time::sleep(pause)).await;
        }
    }
}

#[cfg(test)]
mod tests;
