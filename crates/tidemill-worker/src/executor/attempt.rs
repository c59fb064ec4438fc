//! One attempt: a tool's future under a timeout, where a panic is an error and stopping is dropping.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use tidemill_protocol::{ErrorClass, Payload};
use tidemill_runtime::crash::{self, Point};
use tidemill_tool::{ToolError, ToolFuture};
use tokio::sync::oneshot;

use crate::assignment::End;

type Answer = Result<Payload, ToolError>;

fn panicked(panic: &(dyn Any + Send)) -> ToolError {
    let said =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    ToolError::new(
        ErrorClass::Internal,
        "panic",
        format!("the tool panicked: {}", said.unwrap_or("no message")),
    )
}

/// Makes the future and polls it once; the answer, or the future that has to wait.
pub(super) fn begin(make: impl FnOnce() -> ToolFuture) -> Result<Answer, ToolFuture> {
    crash::before(Point::WorkerEffect);
    let mut future = match catch_unwind(AssertUnwindSafe(make)) {
        Ok(future) => future,
        Err(panic) => return Ok(Err(panicked(&*panic))),
    };
    // nobody is woken by this poll: whoever gets the future polls it again with a waker of its own
    let mut context = Context::from_waker(Waker::noop());
    match catch_unwind(AssertUnwindSafe(|| Pin::new(&mut future).poll(&mut context))) {
        Ok(Poll::Ready(answer)) => {
            crash::after(Point::WorkerEffect);
            Ok(answer)
        }
        Ok(Poll::Pending) => Err(future),
        Err(panic) => Ok(Err(panicked(&*panic))),
    }
}

/// Waits for the rest of an attempt. Dropping the tool's future is what stops it.
pub(super) async fn rest(future: ToolFuture, timeout: Duration, stopped: oneshot::Receiver<End>) -> End {
    let guarded = AssertUnwindSafe(future).catch_unwind();
    let end = tokio::select! {
        biased;
        // an error means that the executor is gone: the process ends, and others take the work over
        why = stopped => why.unwrap_or(End::HandedBack),
        answer = tokio::time::timeout(timeout, guarded) => End::Answered(match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(panic)) => Err(panicked(&*panic)),
            Err(_) => {
                let message = format!("the attempt took longer than {} ms and was stopped", timeout.as_millis());
                Err(ToolError::new(ErrorClass::Timeout, "timeout", message))
            }
        }),
    };
    crash::after(Point::WorkerEffect);
    end
}

#[cfg(test)]
mod tests {
    use super::{begin, rest};
    use crate::assignment::End;
    use std::time::Duration;
    use tidemill_protocol::{ErrorClass, Payload};
    use tokio::sync::oneshot;

    #[tokio::test(start_paused = true)]
    async fn what_is_done_at_once_needs_no_task_and_what_waits_goes_on() {
        assert_eq!(begin(|| Box::pin(async { Ok(Payload::null()) })).ok(), Some(Ok(Payload::null())));
        let waits = begin(|| {
            Box::pin(async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(Payload::null())
            })
        });
        let Err(future) = waits else { panic!("it cannot be done yet") };
        let (_keep, stopped) = oneshot::channel();
        assert!(matches!(rest(future, Duration::from_secs(5), stopped).await, End::Answered(Ok(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_and_a_timeout_are_errors_of_their_class() {
        let Ok(Err(error)) = begin(|| panic!("oh no")) else { panic!("not caught") };
        assert_eq!((error.class, error.message.as_str()), (ErrorClass::Internal, "the tool panicked: oh no"));
        let (_keep, stopped) = oneshot::channel();
        let end = rest(Box::pin(std::future::pending()), Duration::from_millis(5), stopped).await;
        assert!(matches!(end, End::Answered(Err(error)) if error.class == ErrorClass::Timeout));
        let (stop, stopped) = oneshot::channel();
        stop.send(End::Cancelled).unwrap();
        assert!(matches!(
            rest(Box::pin(std::future::pending()), Duration::MAX, stopped).await,
            End::Cancelled
        ));
    }
}
