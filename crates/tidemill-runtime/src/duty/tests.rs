use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use super::*;

/// Plays a script of outcomes, notes when each tick came, and ends the runner after the last.
struct Scripted {
    script: VecDeque<Result<Tick, &'static str>>,
    start: Instant,
    seen: Arc<Mutex<Vec<u128>>>,
    token: CancellationToken,
    hang: bool,
}

impl Duty for Scripted {
    const NAME: &'static str = "scripted";
    type Error = &'static str;

    async fn tick(&mut self) -> Result<Tick, &'static str> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(self.start.elapsed().as_millis());
        let next = self.script.pop_front();
        if self.script.is_empty() {
            self.token.cancel();
        } else if self.hang {
            std::future::pending::<()>().await;
        }
        next.unwrap_or(Ok(Tick::Done))
    }
}

async fn play(
    script: impl IntoIterator<Item = Result<Tick, &'static str>>,
    cadence: Cadence,
    hang: bool,
) -> (Vec<u128>, Arc<DutyMetrics>) {
    let token = CancellationToken::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let duty = Scripted {
        script: script.into_iter().collect(),
        start: Instant::now(),
        seen: Arc::clone(&seen),
        token: token.clone(),
        hang,
    };
    let metrics = Arc::new(DutyMetrics::unregistered());
    run(duty, cadence, token, Arc::clone(&metrics)).await;
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    (seen, metrics)
}

fn steady() -> Cadence {
    Cadence { jitter: 0.0, ..Cadence::every(Duration::from_secs(1)) }
}

#[tokio::test(start_paused = true)]
async fn the_first_tick_comes_at_once_and_the_next_as_each_asks() {
    let after = Tick::After(Duration::from_millis(250));
    let script = [Ok(Tick::Done), Ok(Tick::Again), Ok(after), Ok(Tick::Done)];
    let (seen, metrics) = play(script, steady(), false).await;
    assert_eq!(seen, [0, 1000, 1000, 1250]);
    assert_eq!(metrics.ticks("scripted"), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn pauses_double_over_errors_up_to_a_bound_and_a_success_resets_them() {
    let cadence = Cadence { backoff_max: Duration::from_secs(3), ..steady() };
    let script = [Err("a"), Err("b"), Err("c"), Err("d"), Ok(Tick::Done), Err("e"), Ok(Tick::Done)];
    let (seen, metrics) = play(script, cadence, false).await;
    assert_eq!(seen, [0, 1000, 3000, 6000, 9000, 10_000, 11_000]);
    assert_eq!(metrics.ticks("scripted"), (7, 5));
}

#[tokio::test(start_paused = true)]
async fn a_tick_that_hangs_is_given_up_and_the_next_one_comes() {
    let cadence = Cadence { tick_max: Duration::from_secs(5), ..steady() };
    let (seen, metrics) = play([Ok(Tick::Done), Ok(Tick::Done)], cadence, true).await;
    assert_eq!(seen, [0, 6000]);
    assert_eq!(metrics.ticks("scripted"), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn jitter_stays_within_its_share_and_does_vary() {
    let cadence = Cadence::every(Duration::from_secs(10));
    let (seen, _) = play(vec![Ok(Tick::Done); 50], cadence, false).await;
    let pauses: Vec<u128> = seen.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.iter().all(|pause| (8000..=12_001).contains(pause)), "{pauses:?}");
    assert!(pauses.iter().any(|pause| pause != &pauses[0]));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_token_ends_a_pause_at_once() {
    struct Idle;
    impl Duty for Idle {
        const NAME: &'static str = "idle";
        type Error = std::convert::Infallible;
        async fn tick(&mut self) -> Result<Tick, Self::Error> {
            Ok(Tick::Done)
        }
    }
    let tasks = Tasks::new();
    let metrics = Arc::new(DutyMetrics::unregistered());
    spawn(&tasks, Idle, Cadence::every(Duration::from_secs(3600)), &metrics, OnFailure::ShutDown);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let start = Instant::now();
    assert!(tasks.shutdown(Duration::from_secs(60)).await.unfinished.is_empty());
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(metrics.ticks("idle"), (1, 0));
}
