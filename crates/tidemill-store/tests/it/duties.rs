//! Promises about liveness, cancelling, cron and repair.

use std::time::Duration;

use tidemill_protocol::StepState;
use tidemill_store::{DeferState, Deferral, Due, Firing, Member, Overlooked, Settled, keys};

use crate::flow::{NAMES, WF, audit, moves, outcome, run, settle, slot, start, step_of};
use crate::pool::{Pool, claim, field};

pub(crate) async fn a_beat_tells_what_was_cancelled_since(pool: &Pool) {
    let first = pool.home().beat("w1", 1, 0).await.unwrap();
    assert!(first.cancelled.is_empty() && first.now_ms > 1_600_000_000_000);
    pool.interruption().await;
    assert!(!pool.home().cancel_job("default", "order-1", "not wanted").await.unwrap());
    let told = pool.home().beat("w1", 2, first.now_ms).await.unwrap();
    assert_eq!(told.cancelled, ["order-1"]);
    pool.passes(told.now_ms + 2).await;
    let later = pool.home().beat("w1", 3, told.now_ms + 2).await.unwrap();
    assert!(later.cancelled.is_empty(), "{later:?}");
    assert_eq!(pool.home().beats().await.unwrap()["w1"], "3");
}

pub(crate) async fn a_consumer_is_forgotten_only_where_it_holds_nothing(pool: &Pool) {
    let mut worker = pool.worker("w1");
    pool.xadd(&pool.jobs(), &["tool", "echo"]).await;
    let held = claim(&mut worker, "default", 1).await;
    pool.home().beat("w1", 5, 0).await.unwrap();
    let member = Member {
        reads_first: false,
        consumer: "w1".to_owned(),
        role: "worker".to_owned(),
        host: "h".to_owned(),
        pid: 1,
        version: "0".to_owned(),
        queues: vec!["default".to_owned()],
        slots: 1,
        started_at_ms: 0,
    };
    pool.home().announce(&member).await.unwrap();
    pool.interruption().await;
    let missing = pool.keys().jobs("never-used");
    let streams = [(pool.jobs(), keys::WORKERS), (missing, keys::WORKERS)];
    assert_eq!(pool.home().forget("w1", Some("5"), &streams).await.unwrap(), Some(1), "it holds an entry");
    assert_eq!(pool.home().consumers(&pool.jobs(), keys::WORKERS).await.unwrap(), [("w1".to_owned(), 1)]);
    pool.home().acknowledge("default", &[held[0].entry.clone()]).await.unwrap();
    assert_eq!(pool.home().forget("w1", Some("4"), &streams).await.unwrap(), None, "it has beaten since");
    assert_eq!(pool.home().forget("w1", Some("5"), &streams).await.unwrap(), Some(0));
    assert!(pool.home().consumers(&pool.jobs(), keys::WORKERS).await.unwrap().is_empty());
    assert!(pool.home().beats().await.unwrap().is_empty());
    assert!(pool.home().members().await.unwrap().is_empty());
}

pub(crate) async fn waiting_work_is_cancelled_at_once_and_running_work_is_asked_to_stop(pool: &Pool) {
    let mut worker = pool.worker("w1");
    let running = pool.xadd(&pool.jobs(), &["tool", "echo"]).await;
    claim(&mut worker, "default", 1).await;
    let waiting = pool.xadd(&pool.jobs(), &["tool", "echo"]).await;
    let aside = pool.xadd(&pool.jobs(), &["tool", "echo", "id", "aside"]).await;
    pool.interruption().await;
    let held = claim(&mut worker, "default", 2).await;
    assert_eq!(held[1].entry, aside);
    let deferral = Deferral {
        entry: &aside,
        id: "aside",
        slot: None,
        state: DeferState::Parked,
        due: Due::In(Duration::from_secs(3_600)),
        note: "service is paused",
        ran: Duration::ZERO,
        attempt: 1,
        changes: Vec::new(),
    };
    assert_eq!(pool.home().defer("default", keys::WORKERS, "w1", &[deferral]).await.unwrap(), [true]);
    let third = pool.xadd(&pool.jobs(), &["tool", "echo"]).await;
    let cancel = async |id: &str| pool.home().cancel_job("default", id, "not wanted").await.unwrap();
    assert!(cancel(third.as_str()).await, "nobody had claimed it");
    assert!(cancel("aside").await, "it was put aside");
    assert!(!cancel(running.as_str()).await);
    assert!(!cancel(waiting.as_str()).await);
    let told = pool.home().beat("w1", 1, 0).await.unwrap().cancelled;
    assert_eq!(told.len(), 2);
    assert!(told.contains(&running.to_string()) && told.contains(&waiting.to_string()));
    assert_eq!(pool.length(&pool.jobs()).await, "2");
    assert_eq!(pool.home().depth("default").await.unwrap().deferred, 0);
}

pub(crate) async fn a_cron_entry_fires_once(pool: &Pool) {
    assert!(pool.home().plan_cron("nightly", 1_000).await.unwrap());
    assert!(!pool.home().plan_cron("nightly", 2_000).await.unwrap(), "it has a time already");
    pool.interruption().await;
    let target = pool.jobs();
    let firing = |seen_ms, next_ms| Firing {
        name: "nightly",
        seen_ms,
        next_ms,
        target: &target,
        fields: vec![("tool", b"echo"), ("id", b"cron:nightly/1000")],
    };
    let (one, other) = (firing(1_000, Some(61_000)), firing(1_000, Some(61_000)));
    let (one, other) = tokio::join!(pool.home().fire(&one), pool.home().fire(&other));
    assert_eq!(i32::from(one.unwrap()) + i32::from(other.unwrap()), 1);
    assert_eq!(pool.length(&target).await, "1");
    assert_eq!(pool.home().next_cron().await.unwrap(), Some(61_000));
    let skip = Firing { fields: Vec::new(), ..firing(61_000, None) };
    assert!(pool.home().fire(&skip).await.unwrap(), "a time may pass without a job");
    assert_eq!(pool.length(&target).await, "1");
    assert_eq!(pool.home().next_cron().await.unwrap(), None);
}

/// The stored record of a step, as it stands.
async fn record(pool: &Pool, step: u32) -> String {
    let field = [format!("s{step}")];
    let found = pool.home().fields_of("r1", None, &field).await.unwrap().remove(0).unwrap();
    String::from_utf8_lossy(&found).into_owned()
}

pub(crate) async fn a_lost_entry_is_dispatched_again_once(pool: &Pool) {
    start(pool, "r1").await;
    let seen = record(pool, 0).await;
    assert!(
        !pool.home().repair(&slot("r1", 0), WF, "default", &seen, "s1").await.unwrap(),
        "its entry is there"
    );
    let entry = run(pool, "r1").await.steps[&0].entry.clone().unwrap();
    pool.cli(&["XDEL", &pool.jobs(), &entry]).await;
    pool.interruption().await;
    assert!(
        !pool.home().repair(&slot("r1", 0), WF, "default", "other", "s1").await.unwrap(),
        "it has changed since"
    );
    assert!(pool.home().repair(&slot("r1", 0), WF, "default", &seen, "s1").await.unwrap());
    assert!(!pool.home().repair(&slot("r1", 0), WF, "default", &seen, "s2").await.unwrap(), "only once");
    let mut worker = pool.worker("w1");
    for entry in claim(&mut worker, "default", 2).await {
        let end = outcome(&entry.entry, "r1", step_of(&entry), StepState::Succeeded);
        assert_eq!(settle(pool, &[end]).await, [Settled::Recorded]);
    }
    let ended = record(pool, 0).await;
    assert!(
        !pool.home().repair(&slot("r1", 0), WF, "default", &ended, "s1").await.unwrap(),
        "an end is an end"
    );
    let audit = audit(pool, "r1").await;
    assert_eq!(moves(&audit, "a"), ["pending ready", "ready running", "running succeeded"]);
}

pub(crate) async fn an_overlooked_step_is_dispatched_once(pool: &Pool) {
    start(pool, "r1").await;
    let mut worker = pool.worker("w1");
    for entry in claim(&mut worker, "default", 2).await {
        let mut end = outcome(&entry.entry, "r1", step_of(&entry), StepState::Succeeded);
        end.dependents.clear(); // what a lost write of the counters would look like
        assert_eq!(settle(pool, &[end]).await, [Settled::Recorded]);
    }
    pool.interruption().await;
    let overlooked = [Overlooked { step: 2, name: NAMES[2], queue: "default", ended: 2, ok: 2 }];
    let seen = run(pool, "r1").await.seq;
    let mend = async |seen| pool.home().mend(("r1", WF), "default", seen, &overlooked).await.unwrap();
    assert_eq!(mend(seen - 1).await, 0, "the run has moved since");
    assert_eq!(mend(seen).await, 1);
    assert_eq!(mend(seen).await, 0, "only once");
    let last = claim(&mut worker, "default", 1).await;
    assert_eq!(
        settle(pool, &[outcome(&last[0].entry, "r1", 2, StepState::Succeeded)]).await,
        [Settled::RunEnded]
    );
    start(pool, "r2").await;
    let seen = run(pool, "r2").await.seq;
    assert_eq!(
        pool.home().mend(("r2", WF), "default", seen, &[]).await.unwrap(),
        1,
        "asks for the output again"
    );
    let entries = claim(&mut worker, "default", 3).await;
    assert_eq!(entries.iter().filter(|entry| field(entry, "finish").is_some()).count(), 1);
    audit(pool, "r1").await;
}
