use std::{future::pending, io};

use super::*;

const GRACE: Duration = Duration::from_secs(5);

#[tokio::test(start_paused = true)]
async fn tasks_that_watch_the_token_end_within_the_grace() {
    let tasks = Tasks::new();
    let token = tasks.token();
    tasks.spawn("watcher", OnFailure::ShutDown, async move {
        token.cancelled().await;
        Ok::<_, io::Error>(())
    });
    assert_eq!(tasks.running(), ["watcher"]);
    assert_eq!(tasks.shutdown(GRACE).await, Ended::default());
    assert_eq!(tasks.running(), Vec::<&str>::new());
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ignores_the_token_is_named_and_aborted() {
    struct OnDrop(Option<tokio::sync::oneshot::Sender<()>>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            if let Some(sender) = self.0.take() {
                sender.send(()).ok();
            }
        }
    }
    let tasks = Tasks::new();
    let (sender, dropped) = tokio::sync::oneshot::channel();
    let guard = OnDrop(Some(sender));
    tasks.spawn("deaf", OnFailure::Log, async move {
        let _guard = guard;
        pending::<Result<(), io::Error>>().await
    });
    let start = tokio::time::Instant::now();
    let ended = tasks.shutdown(GRACE).await;
    assert_eq!(ended.unfinished, ["deaf"]);
    assert_eq!(start.elapsed(), GRACE);
    dropped.await.expect("the aborted task drops what it holds");
}

#[tokio::test]
async fn a_failed_vital_task_asks_the_process_to_end() {
    let tasks = Tasks::new();
    tasks.spawn("reader", OnFailure::ShutDown, async { Err(io::Error::other("deaf")) });
    tasks.token().cancelled().await;
    let ended = tasks.shutdown(GRACE).await;
    assert_eq!(ended.failure, Some(("reader", "deaf".to_owned())));
}

#[tokio::test]
async fn a_vital_task_that_ends_unasked_has_failed_even_without_an_error() {
    let tasks = Tasks::new();
    tasks.spawn("reader", OnFailure::ShutDown, async { Ok::<_, io::Error>(()) });
    tasks.token().cancelled().await;
    let (name, reason) = tasks.shutdown(GRACE).await.failure.expect("a failure");
    assert_eq!((name, reason.as_str()), ("reader", "ended although nobody asked it to"));
}

#[tokio::test]
async fn a_panic_is_a_failure_with_its_words() {
    let tasks = Tasks::new();
    tasks.spawn::<_, io::Error>("settler", OnFailure::ShutDown, async { panic!("no {}", "slot") });
    tasks.token().cancelled().await;
    assert_eq!(tasks.shutdown(GRACE).await.failure, Some(("settler", "panicked: no slot".to_owned())));
}

#[tokio::test]
async fn other_failures_are_counted_and_the_rest_goes_on() {
    let tasks = Tasks::new();
    tasks.spawn("gauge", OnFailure::Log, async { Err(io::Error::other("no reading")) });
    tasks.inner.tracker.close();
    tasks.inner.tracker.wait().await;
    assert!(!tasks.token().is_cancelled());
    assert_eq!(tasks.failures(), 1);
    assert_eq!(tasks.shutdown(GRACE).await.failure, None);
}

#[tokio::test]
async fn a_set_gives_results_panics_and_aborts_as_they_come() {
    let mut set = TaskSet::<u32>::new("slots");
    set.spawn(async { 7 });
    assert_eq!(set.join_next().await, Some(Ok(7)));
    set.spawn(async { panic!("bang") });
    let panicked = set.join_next().await;
    assert_eq!(panicked, Some(Err(TaskFailure::Panicked { set: "slots", text: "bang".to_owned() })));
    let handle = set.spawn(pending());
    assert_eq!(set.len(), 1);
    handle.abort();
    assert_eq!(set.join_next().await, Some(Err(TaskFailure::Aborted { set: "slots" })));
    assert_eq!(set.join_next().await, None);
    assert!(set.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_last_tasks_serve_until_all_others_have_ended() {
    let tasks = Tasks::new();
    let (ordinary, last) = (tasks.token(), tasks.last_token());
    let (sender, ended_first) = tokio::sync::oneshot::channel();
    tasks.spawn("drain", OnFailure::Log, async move {
        ordinary.cancelled().await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        sender.send(()).ok();
        Ok::<_, io::Error>(())
    });
    tasks.spawn_last("door", OnFailure::ShutDown, async move {
        last.cancelled().await;
        let mut ended_first = ended_first;
        ended_first.try_recv().map_err(io::Error::other)
    });
    assert_eq!(tasks.shutdown(GRACE).await, Ended::default());
}

#[tokio::test(start_paused = true)]
async fn a_last_task_that_hangs_keeps_the_process_for_a_second_at_most() {
    let tasks = Tasks::new();
    tasks.spawn_last("door", OnFailure::ShutDown, pending::<Result<(), io::Error>>());
    let start = tokio::time::Instant::now();
    assert_eq!(tasks.shutdown(GRACE).await, Ended::default());
    assert_eq!(start.elapsed(), LAST_GRACE);
}
