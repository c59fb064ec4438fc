//! Polling with a deadline, for what cannot tell by itself that it has happened.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::TestkitError;

const INTERVAL: Duration = Duration::from_millis(5);

/// Asks `probe` every few milliseconds until it answers `true`.
///
/// # Errors
/// [`TestkitError::TimedOut`] naming `what`, when `deadline` has passed.
pub async fn wait_until(
    deadline: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> bool,
) -> Result<(), TestkitError> {
    wait_for(deadline, what, async || if probe().await { Ok(()) } else { Err("not yet".to_owned()) }).await
}

/// Asks `probe` every few milliseconds until it answers with a value. What it answers instead stands in the error, so
/// let it tell what it saw: `Err(format!("state is {state}"))`.
///
/// # Errors
/// [`TestkitError::TimedOut`] naming `what` and the last answer, when `deadline` has passed.
pub async fn wait_for<T>(
    deadline: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, TestkitError> {
    let start = Instant::now();
    let mut last = "the probe has not answered once".to_owned();
    loop {
        let left = deadline.saturating_sub(start.elapsed());
        match tokio::time::timeout(left, probe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(seen)) => last = seen,
            Err(_) => {}
        }
        if start.elapsed() >= deadline {
            return Err(TestkitError::TimedOut { what: what.to_owned(), waited: deadline, last });
        }
        sleep(INTERVAL).await;
    }
}
