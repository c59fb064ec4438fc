use std::{
    convert::Infallible,
    future::pending,
    sync::{Mutex, PoisonError},
};

use rustix::process::{Signal, getpid, kill_process};

use super::*;
use crate::tasks::OnFailure;

/// Signals reach every listener in the process, so the tests that send them take turns.
static TURN: Mutex<()> = Mutex::new(());

fn run_alone<F, S>(start: F) -> Exit
where
    F: FnOnce(Tasks) -> S,
    S: Future<Output = Result<Duration, Failure>>,
{
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    run("test", Some(1), start)
}

fn terminate_this_process() -> Result<(), io::Error> {
    kill_process(getpid(), Signal::TERM).map_err(io::Error::from)
}

fn spawn_deaf(tasks: &Tasks) {
    tasks.spawn("deaf", OnFailure::Log, pending::<Result<(), Infallible>>());
}

const LONG: Duration = Duration::from_secs(600);

#[test]
fn a_signal_ends_a_program_in_order_even_without_any_grace() {
    for grace in [Duration::ZERO, LONG] {
        let exit = run_alone(|tasks| async move {
            let token = tasks.token();
            tasks.spawn("worker", OnFailure::ShutDown, async move {
                terminate_this_process()?;
                token.cancelled().await;
                Ok::<_, io::Error>(())
            });
            Ok(grace)
        });
        // Without any grace the task may be caught before it has seen the token.
        assert!(exit == Exit::Ok || (grace.is_zero() && exit == Exit::Unfinished), "{exit:?}");
    }
}

#[test]
fn work_left_when_the_grace_is_over_has_a_code_of_its_own() {
    let exit = run_alone(|tasks| async move {
        spawn_deaf(&tasks);
        tasks.spawn("signal", OnFailure::Log, async { terminate_this_process() });
        Ok(Duration::from_millis(20))
    });
    assert_eq!(exit, Exit::Unfinished);
}

#[test]
fn a_second_signal_ends_a_program_at_once() {
    let exit = run_alone(|tasks| async move {
        spawn_deaf(&tasks);
        let token = tasks.token();
        tasks.spawn("signal", OnFailure::Log, async move {
            terminate_this_process()?;
            token.cancelled().await;
            terminate_this_process()
        });
        Ok(LONG)
    });
    assert_eq!(exit, Exit::Interrupted);
}

#[test]
fn a_failed_vital_task_fails_the_program() {
    let exit = run_alone(|tasks| async move {
        tasks.spawn("reader", OnFailure::ShutDown, async { Err(io::Error::other("deaf")) });
        Ok(LONG)
    });
    assert_eq!(exit, Exit::Failed);
}

#[test]
fn a_program_that_cannot_start_tells_why_by_its_code() {
    let exit = run_alone(|_| async { Err(Failure::new(Exit::Redis, "redis://h cannot be reached")) });
    assert_eq!(exit, Exit::Redis);
}

#[test]
fn a_signal_during_a_start_that_hangs_ends_it() {
    let exit = run_alone(|tasks| async move {
        tasks.spawn("signal", OnFailure::Log, async { terminate_this_process() });
        pending::<Result<Duration, Failure>>().await
    });
    assert_eq!(exit, Exit::Ok);
}
