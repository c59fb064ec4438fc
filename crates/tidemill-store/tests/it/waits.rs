//! Steps that wait: putting them to wait, waking them, their mail, signals, and what is done at a run's end.

use std::time::Duration;

use bytes::Bytes;
use tidemill_protocol::{EntryId, NO_LABELS, RunState, StepState};
use tidemill_store::{
    Closing, Content, Delivered, MOST_EARLY_SIGNALS, NewRun, NewSignal, NextClosing, RootStep, Signalled,
    Slot, Started, StepLetter, StopRun, Waited, Waiting, keys,
};

use crate::flow::{NAMES, WF, audit, moves, outcome, run, settle, slot, start_with, step_of};
use crate::pool::{Pool, claim, claim_now, field};

/// A run of steps that may wait, with the entries of `a` and `b`, claimed by `w1`.
async fn claimed(pool: &Pool, id: &str, more: &[(&str, &[u8])]) -> [EntryId; 2] {
    let mut fields: Vec<(&str, &[u8])> = vec![("in", b"{}"), ("wa", b"1"), ("a", b"2")];
    fields.extend_from_slice(more);
    start_with(pool, id, 0, fields).await;
    let held = claim(&mut pool.worker("w1"), "default", 2).await;
    let of = |step| held.iter().find(|entry| step_of(entry) == step).unwrap().entry.clone();
    [of(0), of(1)]
}

fn waiting<'a>(entry: &'a EntryId, slot: &'a Slot) -> Waiting<'a> {
    Waiting {
        entry,
        slot,
        workflow: WF,
        attempt: 1,
        ran: Duration::ZERO,
        memo: b"{\"open\":[]}",
        alarm: None,
        why: "waits",
        read: &[],
        letter: None,
        listen: &[],
        publish: &[],
        requests: Vec::new(),
        queue: "default",
    }
}

async fn wait(pool: &Pool, w: &Waiting<'_>) -> Waited {
    pool.home().wait("default", "w1", w).await.unwrap()
}

async fn deliver(pool: &Pool, slot: &Slot, content: Content<'_>) -> Delivered {
    let letter = StepLetter { slot, workflow: WF, queue: "default", content };
    pool.home().deliver(&[letter]).await.unwrap()[0]
}

fn news(key: &str) -> Content<'_> {
    Content::News { key, payload: b"{}" }
}

async fn mail(pool: &Pool, id: &str, step: u32) -> Vec<String> {
    pool.home().mail(id, step).await.unwrap().into_iter().map(|(key, _)| key).collect()
}

async fn signal(pool: &Pool, id: &str, (name, letter): (&str, &str), steps: &[u32]) -> Signalled {
    let candidates: Vec<(u32, &str, &str)> =
        steps.iter().map(|step| (*step, NAMES[*step as usize], "default")).collect();
    let signal =
        NewSignal { run: id, workflow: WF, name, id: letter, letter: b"{}", candidates: &candidates };
    pool.home().signal(&signal).await.unwrap()
}

async fn record(pool: &Pool, id: &str, step: u32) -> String {
    pool.cli(&["HGET", &pool.keys().run(id), &format!("s{step}")]).await
}

async fn state(pool: &Pool, id: &str, step: u32) -> StepState {
    run(pool, id).await.steps[&step].state
}

async fn stop(pool: &Pool, id: &str, to: RunState) -> Option<bool> {
    let stop = StopRun {
        id,
        to,
        who: "test",
        code: "cancelled",
        reason: "a test wants it",
        only_past_deadline: false,
        spares: false,
        by_force: false,
    };
    pool.home().stop_run(&stop).await.unwrap()
}

/// The next entry of a step, claimed.
async fn next(pool: &Pool) -> EntryId {
    claim(&mut pool.worker("w1"), "default", 1).await.remove(0).entry
}

#[tokio::test]
async fn a_run_waits_when_all_that_is_in_flight_waits_and_a_repeated_call_changes_nothing() {
    let pool = Pool::start().await;
    let [a, b] = claimed(&pool, "r", &[]).await;
    let (first, second) = (slot("r", 0), slot("r", 1));
    let request = vec![("workflow", Bytes::from("flow")), ("_id", "r~a.0".into())];
    let listen = ["go".to_owned()];
    let all = Waiting {
        memo: b"{\"open\":[\"0\"]}",
        alarm: Some((9_000_000_000_000, 7)),
        listen: &listen,
        requests: vec![request],
        ..waiting(&a, &first)
    };
    assert_eq!(wait(&pool, &all).await, Waited::Waits);
    assert_eq!(run(&pool, "r").await.state, RunState::Running, "b is at work");
    let keys = pool.keys();
    assert_eq!(pool.cli(&["HGET", &keys.run("r"), "w0"]).await, "{\"open\":[\"0\"]}");
    assert_eq!(pool.cli(&["ZSCORE", &keys.due(keys::WAITS), &first.member()]).await, "9000000000000");
    assert_eq!(pool.cli(&["HGET", &keys.deferred(keys::WAITS), &first.member()]).await, "7");
    assert_eq!(pool.cli(&["HGET", &keys.mail("r"), "l:go"]).await, "0");
    assert_eq!(pool.length(&keys.runs()).await, "1");

    // the reply may have been lost
    let before = pool.cli(&["HGETALL", &keys.run("r")]).await;
    assert_eq!(wait(&pool, &all).await, Waited::Stale);
    assert_eq!(pool.cli(&["HGETALL", &keys.run("r")]).await, before);
    assert_eq!(pool.length(&keys.runs()).await, "1", "the child was asked for once");

    assert_eq!(wait(&pool, &waiting(&b, &second)).await, Waited::Waits);
    assert_eq!(run(&pool, "r").await.state, RunState::Waiting);
    assert_eq!(pool.length(&pool.jobs()).await, "0", "what waits takes no entry");
    assert_eq!(deliver(&pool, &second, Content::Wake).await, Delivered::Woke);
    assert_eq!(run(&pool, "r").await.state, RunState::Running);
    let told = audit(&pool, "r").await;
    assert_eq!(moves(&told, "@"), ["queued running", "running waiting", "waiting running"]);
    assert_eq!(moves(&told, "b"), ["pending ready", "ready running", "running waiting", "waiting ready"]);

    // an alarm that is not wanted any more is taken back, and so is listening
    let entry = next(&pool).await;
    assert_eq!(settle(&pool, &[with_waits(outcome(&entry, "r", 1, StepState::Succeeded))]).await.len(), 1);
    assert_eq!(run(&pool, "r").await.state, RunState::Waiting, "a waits still");
    assert_eq!(deliver(&pool, &first, Content::Wake).await, Delivered::Woke);
    let entry = next(&pool).await;
    assert_eq!(wait(&pool, &waiting(&entry, &first)).await, Waited::Waits);
    assert_eq!(pool.cli(&["ZCARD", &keys.due(keys::WAITS)]).await, "0");
    assert_eq!(pool.cli(&["EXISTS", &keys.deferred(keys::WAITS), &keys.mail("r")]).await, "0");
}

fn with_waits(mut end: tidemill_store::StepOutcome<'_>) -> tidemill_store::StepOutcome<'_> {
    end.mode.waits = true;
    end
}

#[tokio::test]
async fn who_may_not_put_a_step_to_wait_is_told_why() {
    let pool = Pool::start().await;
    let [a, b] = claimed(&pool, "r", &[]).await;
    let (first, second) = (slot("r", 0), slot("r", 1));
    // the step is in flight by another entry
    assert_eq!(wait(&pool, &waiting(&b, &first)).await, Waited::Conflict);
    assert_eq!(pool.length(&pool.jobs()).await, "1", "its entry is gone");
    assert_eq!(wait(&pool, &waiting(&b, &second)).await, Waited::Stale);
    assert_eq!(stop(&pool, "r", RunState::Cancelled).await, Some(true));
    let before = pool.cli(&["HGETALL", &pool.keys().run("r")]).await;
    assert_eq!(wait(&pool, &waiting(&a, &first)).await, Waited::RunEnded);
    assert_eq!(pool.cli(&["HGETALL", &pool.keys().run("r")]).await, before);
    assert_eq!(pool.length(&pool.jobs()).await, "1", "the entry is the caller's still");
    pool.cli(&["DEL", &pool.keys().run("r")]).await;
    assert_eq!(wait(&pool, &waiting(&a, &first)).await, Waited::RunGone);
    assert_eq!(pool.length(&pool.jobs()).await, "0");
    // whose end was decided does not wait either
    let [a, _] = claimed(&pool, "c", &[("cl", b"default")]).await;
    assert_eq!(stop(&pool, "c", RunState::Cancelled).await, Some(true));
    let own = slot("c", 0);
    assert_eq!(wait(&pool, &waiting(&a, &own)).await, Waited::RunEnded);
}

#[tokio::test]
async fn an_alarm_rings_when_it_is_due_and_once() {
    let pool = Pool::start().await;
    let [a, _] = claimed(&pool, "r", &[]).await;
    let (own, keys) = (slot("r", 0), pool.keys());
    let later = Waiting { alarm: Some((9_000_000_000_000, 1)), ..waiting(&a, &own) };
    assert_eq!(wait(&pool, &later).await, Waited::Waits);
    assert_eq!(deliver(&pool, &own, Content::Due).await, Delivered::Nothing, "not due");
    pool.cli(&["ZADD", &keys.due(keys::WAITS), "1", &own.member()]).await;
    assert_eq!(deliver(&pool, &own, Content::Due).await, Delivered::Woke);
    assert_eq!(deliver(&pool, &own, Content::Due).await, Delivered::Nothing, "of two schedulers one wins");
    assert_eq!(mail(&pool, "r", 0).await, ["due.1"]);
    // for a step that has ended, or a run that is gone, it only goes away
    for (what, expected) in [("ended", Delivered::Unwanted), ("gone", Delivered::RunGone)] {
        pool.cli(&["ZADD", &keys.due(keys::WAITS), "1", &own.member()]).await;
        if what == "ended" {
            pool.cli(&["HSET", &keys.run("r"), "s0", "succeeded 1 1 1 1 w1 - default"]).await;
        } else {
            pool.cli(&["DEL", &keys.run("r")]).await;
        }
        assert_eq!(deliver(&pool, &own, Content::Due).await, expected);
        assert_eq!(pool.cli(&["ZCARD", &keys.due(keys::WAITS)]).await, "0");
    }
}

#[tokio::test]
async fn letters_lie_until_they_are_read_and_the_same_one_counts_once() {
    let pool = Pool::start().await;
    let [a, _] = claimed(&pool, "r", &[]).await;
    let (own, other) = (slot("r", 0), slot("r", 2));
    assert_eq!(deliver(&pool, &own, news("early")).await, Delivered::Kept, "it is at work");
    assert_eq!(deliver(&pool, &own, news("early")).await, Delivered::Nothing);
    assert_eq!(wait(&pool, &waiting(&a, &own)).await, Waited::ReadyAgain, "something had come");
    assert_eq!(state(&pool, "r", 0).await, StepState::Ready);
    let entry = next(&pool).await;
    let read = mail(&pool, "r", 0).await;
    assert_eq!(read, ["early"]);
    assert_eq!(wait(&pool, &Waiting { read: &read, ..waiting(&entry, &own) }).await, Waited::Waits);
    assert_eq!(mail(&pool, "r", 0).await, [""; 0]);

    let seen = record(&pool, "r", 0).await;
    let expects = |seen| Content::IfUnchanged { key: "decision", payload: b"{}", seen };
    assert_eq!(deliver(&pool, &own, expects("waiting 1 1 1 - w1 - default")).await, Delivered::Unwanted);
    assert_eq!(deliver(&pool, &own, expects(&seen)).await, Delivered::Woke);
    assert_eq!(deliver(&pool, &own, expects(&seen)).await, Delivered::Unwanted, "of two deciders one wins");
    assert_eq!(deliver(&pool, &other, news("x")).await, Delivered::Unwanted, "it has not begun");
    assert_eq!(deliver(&pool, &slot("gone", 0), news("x")).await, Delivered::RunGone);

    // a run that has ended keeps no letters; its steps are woken all the same, to see that
    let entry = next(&pool).await;
    let read = mail(&pool, "r", 0).await;
    assert_eq!(wait(&pool, &Waiting { read: &read, ..waiting(&entry, &own) }).await, Waited::Waits);
    assert_eq!(stop(&pool, "r", RunState::Cancelled).await, Some(true));
    assert_eq!(deliver(&pool, &own, news("late")).await, Delivered::Woke);
    assert_eq!(mail(&pool, "r", 0).await, [""; 0]);
    assert_eq!(run(&pool, "r").await.state, RunState::Cancelled);
    audit(&pool, "r").await;
}

#[tokio::test]
async fn a_letter_that_lies_with_a_sleeping_step_wakes_it_when_it_comes_again() {
    let pool = Pool::start().await;
    let [a, _] = claimed(&pool, "r", &[]).await;
    let own = slot("r", 0);
    assert_eq!(wait(&pool, &waiting(&a, &own)).await, Waited::Waits);
    // half a delivery, as an error midway would leave it
    pool.cli(&["HSET", &pool.keys().mail("r"), "0:ended.0", "{}", "k:0", "ended.0"]).await;
    assert_eq!(deliver(&pool, &own, news("ended.0")).await, Delivered::Woke);
    assert_eq!(mail(&pool, "r", 0).await, ["ended.0"]);
}

#[tokio::test]
async fn a_full_box_is_read_in_parts_and_the_step_is_ready_again_for_the_rest() {
    let pool = Pool::start().await;
    let [a, _] = claimed(&pool, "r", &[]).await;
    let own = slot("r", 0);
    let keys: Vec<String> = (0..700).map(|child| format!("ended.{child}")).collect();
    for key in &keys {
        assert_eq!(deliver(&pool, &own, news(key)).await, Delivered::Kept);
    }
    let read = mail(&pool, "r", 0).await;
    assert_eq!(read, keys[..500], "the oldest first");
    assert_eq!(wait(&pool, &Waiting { read: &read, ..waiting(&a, &own) }).await, Waited::ReadyAgain);
    let entry = next(&pool).await;
    let rest = mail(&pool, "r", 0).await;
    assert_eq!(rest, keys[500..]);
    assert_eq!(wait(&pool, &Waiting { read: &rest, ..waiting(&entry, &own) }).await, Waited::Waits);
    let large = vec![b'x'; 3 << 20];
    for key in ["a", "b", "c"] {
        let delivered = deliver(&pool, &own, Content::News { key, payload: &large }).await;
        assert!(matches!(delivered, Delivered::Woke | Delivered::Kept));
    }
    assert_eq!(mail(&pool, "r", 0).await, ["a", "b"], "and not more bytes than a reply should have");
}

#[tokio::test]
async fn what_a_step_does_after_its_tool_has_answered_has_all_its_attempts_before_it() {
    let pool = Pool::start().await;
    let [a, _] = claimed(&pool, "r", &[]).await;
    let own = slot("r", 0);
    let answered = Waiting { attempt: 3, letter: Some(("answer", b"{}")), ..waiting(&a, &own) };
    assert_eq!(wait(&pool, &answered).await, Waited::ReadyAgain);
    let next = claim(&mut pool.worker("w1"), "default", 1).await.remove(0);
    assert_eq!(field(&next, "attempt"), None, "the first");
    assert_eq!(run(&pool, "r").await.steps[&0].attempt, 1);
    let told = audit(&pool, "r").await;
    let attempts: Vec<u32> =
        told.iter().filter(|told| told.subject == "a").map(|told| told.attempt).collect();
    assert_eq!(attempts, [1, 3, 3, 1]);
    // one that only waits stays in its attempt
    let waits = Waiting { attempt: 2, read: &["answer".to_owned()], ..waiting(&next.entry, &own) };
    assert_eq!(wait(&pool, &waits).await, Waited::Waits);
    assert_eq!(deliver(&pool, &own, Content::Wake).await, Delivered::Woke);
    let next = claim(&mut pool.worker("w1"), "default", 1).await.remove(0);
    assert_eq!(field(&next, "attempt").as_deref(), Some("2"));
}

#[tokio::test]
async fn a_signal_goes_to_one_listener_or_is_kept_for_the_next() {
    let pool = Pool::start().await;
    let [a, b] = claimed(&pool, "r", &[]).await;
    let (first, second, go) = (slot("r", 0), slot("r", 1), ["go".to_owned()]);
    assert_eq!(wait(&pool, &Waiting { listen: &go, ..waiting(&a, &first) }).await, Waited::Waits);
    assert_eq!(wait(&pool, &Waiting { listen: &go, ..waiting(&b, &second) }).await, Waited::Waits);
    assert_eq!(signal(&pool, "r", ("go", "1"), &[2]).await, Signalled::Again, "a listener was not named");
    assert_eq!(signal(&pool, "r", ("go", "1"), &[0, 1]).await, Signalled::Taken);
    assert_eq!(signal(&pool, "r", ("go", "1"), &[0, 1]).await, Signalled::Duplicate);
    assert_eq!(signal(&pool, "r", ("go", "2"), &[0, 1]).await, Signalled::Taken);
    assert_eq!(
        (mail(&pool, "r", 0).await, mail(&pool, "r", 1).await),
        (vec!["signal.1".to_owned()], vec!["signal.2".to_owned()])
    );
    assert_eq!(signal(&pool, "r", ("go", "3"), &[0, 1]).await, Signalled::Kept, "nobody listens any more");
    assert_eq!(signal(&pool, "r", ("go", "3"), &[0, 1]).await, Signalled::Duplicate);
    let held = claim(&mut pool.worker("w1"), "default", 2).await;
    let again = held.iter().find(|entry| step_of(entry) == 1).unwrap().entry.clone();
    let read = ["signal.2".to_owned()];
    let listens = Waiting { listen: &go, read: &read, ..waiting(&again, &second) };
    assert_eq!(wait(&pool, &listens).await, Waited::ReadyAgain, "the kept one is taken at once");
    assert_eq!(mail(&pool, "r", 1).await, ["signal.3"]);
    assert_eq!(pool.cli(&["HGET", &pool.keys().mail("r"), "early"]).await, "0");

    // a listener that has ended is passed over
    pool.cli(&["HSET", &pool.keys().mail("r"), "l:gone", "0"]).await;
    pool.cli(&["HSET", &pool.keys().run("r"), "s0", "timed_out 1 1 1 1 w1 - default"]).await;
    assert_eq!(signal(&pool, "r", ("gone", "4"), &[0]).await, Signalled::Kept);
    pool.cli(&["HSET", &pool.keys().mail("r"), "early", &MOST_EARLY_SIGNALS.to_string()]).await;
    assert_eq!(signal(&pool, "r", ("gone", "5"), &[0]).await, Signalled::Full);
    assert_eq!(signal(&pool, "r", ("gone", "5"), &[0]).await, Signalled::Full, "it was not noted as sent");
    assert_eq!(stop(&pool, "r", RunState::Cancelled).await, Some(true));
    assert_eq!(signal(&pool, "r", ("go", "6"), &[0]).await, Signalled::RunEnded);
    assert_eq!(signal(&pool, "none", ("go", "6"), &[0]).await, Signalled::RunGone);
    start_with(&pool, "plain", 0, vec![("in", b"{}")]).await;
    assert_eq!(signal(&pool, "plain", ("go", "6"), &[0]).await, Signalled::NeverWaits);
    claimed(&pool, "c", &[("cl", b"default")]).await;
    assert_eq!(stop(&pool, "c", RunState::TimedOut).await, Some(true));
    assert_eq!(signal(&pool, "c", ("go", "6"), &[0]).await, Signalled::RunEnded, "it is ending");
}

fn closing<'a>(entry: &'a EntryId, seen: u32, next: NextClosing<'a>) -> Closing<'a> {
    Closing { entry, run: "r", workflow: WF, seen, next, retention_ms: 60_000, reply_to: None }
}

/// Asks for what is next once more, and claims that.
async fn close_again(pool: &Pool) -> EntryId {
    pool.xadd(&pool.jobs(), &["run", &format!("r {WF}"), "close", "1"]).await;
    next(pool).await
}

#[tokio::test]
async fn what_is_next_at_a_runs_end_is_done_by_one_and_in_one_place() {
    let pool = Pool::start().await;
    let [a, b] = claimed(&pool, "r", &[("cl", b"default"), ("par", b"p 0 0")]).await;
    let done = [with_waits(outcome(&a, "r", 0, StepState::Succeeded))];
    assert_eq!(settle(&pool, &done).await.len(), 1);
    assert_eq!(stop(&pool, "r", RunState::Cancelled).await, Some(true));
    assert_eq!(stop(&pool, "r", RunState::Cancelled).await, Some(false), "its end was decided");
    let close = async |c: &Closing<'_>| pool.home().close("default", "w1", c).await.unwrap();
    let entry = next(&pool).await;
    assert_eq!(close(&closing(&entry, 0, NextClosing::Wait)).await, Some(false), "b is at work");
    assert_eq!(close(&closing(&entry, 0, NextClosing::Wait)).await, None, "the entry is gone");
    // whoever is at work is heard when it ends
    let ended = with_waits(outcome(&b, "r", 1, StepState::Cancelled));
    assert_eq!(settle(&pool, &[ended]).await.len(), 1);
    let entry = next(&pool).await;
    let undo = NextClosing::Undo(3, "a!undo", "default");
    assert_eq!(close(&closing(&entry, 7, undo)).await, None, "it stands elsewhere than the caller saw");
    let entry = close_again(&pool).await;
    assert_eq!(close(&closing(&entry, 0, undo)).await, Some(false));
    assert_eq!(run(&pool, "r").await.state, RunState::Compensating);
    let of_undo = next(&pool).await;
    let entry = close_again(&pool).await;
    assert_eq!(close(&closing(&entry, 0, undo)).await, None, "another was faster");
    let entry = close_again(&pool).await;
    assert_eq!(close(&closing(&entry, 1, undo)).await, None, "no step is dispatched twice");
    let mut end = with_waits(outcome(&of_undo, "r", 2, StepState::Succeeded));
    (end.step, end.name, end.mode.is_closing, end.mode.closes) = (Some(3), "a!undo", true, true);
    assert_eq!(settle(&pool, &[end]).await.len(), 1);
    let entry = next(&pool).await;
    assert_eq!(close(&closing(&entry, 1, NextClosing::Last(4, "tidy", "default"))).await, Some(false));
    next(&pool).await;
    let entry = close_again(&pool).await;
    // a run that undoes ends as undone or not undone
    assert_eq!(close(&closing(&entry, 2, NextClosing::End(RunState::Cancelled))).await, None);
    let entry = close_again(&pool).await;
    assert_eq!(close(&closing(&entry, 2, NextClosing::End(RunState::Compensated))).await, Some(true));
    let entry = close_again(&pool).await;
    assert_eq!(
        close(&closing(&entry, 2, NextClosing::End(RunState::Compensated))).await,
        None,
        "it has ended"
    );
    let told = audit(&pool, "r").await;
    assert_eq!(moves(&told, "@"), ["queued running", "running compensating", "compensating compensated"]);
    let notices = pool.cli(&["XRANGE", &pool.keys().runs(), "-", "+"]).await;
    assert_eq!(
        notices.matches("ended").count(),
        2,
        "at its decision for its own steps, at its end for who asked: {notices}"
    );
    pool.cli(&["DEL", &pool.keys().run("r")]).await;
    let entry = close_again(&pool).await;
    assert_eq!(close(&closing(&entry, 2, NextClosing::Wait)).await, None, "it is gone");
    assert_eq!(pool.length(&pool.jobs()).await, "1", "nothing but the last step's own entry is left");
}

async fn asked(pool: &Pool, id: &str) -> EntryId {
    let fields = ["workflow", "flow", "_id", id, "_parent", "p 0 0"];
    pool.xadd(&pool.keys().runs(), &fields).await
}

#[tokio::test]
async fn who_waits_for_a_run_that_was_cancelled_before_it_began_hears_of_it() {
    let pool = Pool::start().await;
    let stream = pool.keys().runs();
    // in the stream still
    let entry = asked(&pool, "p~a.0").await;
    assert!(pool.home().cancel_job(keys::RUNS, entry.as_str(), "not wanted").await.unwrap());
    let heard = pool.cli(&["XRANGE", &stream, "-", "+"]).await;
    assert!(heard.contains("ended\np~a.0"), "{heard}");
    pool.cli(&["DEL", &stream]).await;

    // marked, and met by a scheduler
    let mut scheduler = pool.scheduler("s1");
    assert!(!pool.home().cancel_job(keys::RUNS, "p~a.1", "not wanted").await.unwrap());
    asked(&pool, "p~a.1").await;
    let met = claim(&mut scheduler, keys::RUNS, 1).await.remove(0);
    let roots = vec![RootStep { step: 0, name: "a", target: 0 }];
    let run = NewRun {
        entry: &met.entry,
        id: "p~a.1",
        workflow: WF,
        deadline_ms: 0,
        fields: vec![("in", b"{}")],
        labels: &NO_LABELS,
        parent: Some("p"),
        given: Vec::new(),
        roots,
        more: None,
    };
    let started = pool.home().start("s1", &["default".to_owned()], &[run]).await.unwrap();
    assert_eq!(started, [Started::Unwanted]);
    let heard = claim_now(&mut scheduler, keys::RUNS, 10).await.unwrap();
    assert_eq!(heard.len(), 1);
    assert_eq!(field(&heard[0], "ended").as_deref(), Some("p~a.1"));
}
