//! Promises about `for_each`.

use std::time::Duration;

use tidemill_protocol::{EntryId, StepState};
use tidemill_store::{
    ClaimedEntry, DeferState, Deferral, Due, Expansion, Held, ItemOutcome, Released, Settled, Slot, keys,
};

use crate::flow::{WF, audit, moves, outcome, run, settle, start, step_of};
use crate::pool::{Pool, claim, field};

/// Starts a run and expands its step `a` into so many items, two at once.
async fn expanded(pool: &Pool, total: u64) -> Vec<ClaimedEntry> {
    start(pool, "r1").await;
    let mut worker = pool.worker("w1");
    let first = claim(&mut worker, "default", 2).await;
    let (each, other) = if step_of(&first[0]) == 0 { (&first[0], &first[1]) } else { (&first[1], &first[0]) };
    settle(pool, &[outcome(&other.entry, "r1", 1, StepState::Succeeded)]).await;
    let inputs: Vec<(String, &[u8])> = (0..total).map(|item| (format!("i{item}"), &b"{}"[..])).collect();
    pool.home().write_items("r1", 0, &inputs, 60_000).await.unwrap();
    let expansion = Expansion {
        entry: &each.entry,
        run: "r1",
        workflow: WF,
        step: 0,
        name: "a",
        attempt: 1,
        total,
        concurrency: 2,
        queue: "default",
        keep_ms: 60_000,
    };
    assert!(pool.home().expand("default", "w1", &expansion).await.unwrap());
    assert!(!pool.home().expand("default", "w1", &expansion).await.unwrap(), "a second time is stale");
    claim(&mut worker, "default", 2).await
}

fn item(entry: &ClaimedEntry) -> u64 {
    field(entry, "item").unwrap().parse().unwrap()
}

fn ended<'a>(entry: &'a EntryId, item: u64, to: StepState, tolerate: u64) -> ItemOutcome<'a> {
    ItemOutcome {
        entry,
        run: "r1",
        workflow: WF,
        step: 0,
        item,
        name: "a",
        queue: "default",
        to,
        attempt: 1,
        ran: Duration::from_millis(1),
        output: b"1",
        error: "",
        failed: to == StepState::Failed,
        did_not_run: false,
        tolerate: tolerate.to_string(),
    }
}

async fn settle_item(pool: &Pool, outcome: ItemOutcome<'_>) -> Settled {
    pool.home().settle_items("default", "w1", &[outcome]).await.unwrap()[0]
}

pub(crate) async fn items_run_as_many_at_once_as_allowed_and_are_gathered_once(pool: &Pool) {
    let mut held = expanded(pool, 5).await;
    pool.interruption().await;
    let mut worker = pool.worker("w1");
    let mut done = 0;
    while done < 5 {
        let entry = held.remove(0);
        assert_eq!(
            settle_item(pool, ended(&entry.entry, item(&entry), StepState::Succeeded, 0)).await,
            Settled::Recorded
        );
        assert_eq!(
            settle_item(pool, ended(&entry.entry, item(&entry), StepState::Failed, 0)).await,
            Settled::Stale
        );
        done += 1;
        if done <= 3 {
            held.extend(claim(&mut worker, "default", 1).await);
        }
        let [total, dispatched, gone, failed] = run(pool, "r1").await.items[&0];
        assert_eq!((total, gone, failed), (5, done, 0));
        assert!(dispatched - gone <= 2, "at most two at once");
    }
    let gather = claim(&mut worker, "default", 1).await;
    assert_eq!(field(&gather[0], "gather").unwrap(), "1");
    assert_eq!(pool.length(&pool.jobs()).await, "1", "nothing but the gathering is left");
    let outputs: Vec<String> = (0..5).map(|item| format!("o{item}")).collect();
    let texts = pool.home().items("r1", 0, &outputs).await.unwrap();
    assert!(texts.iter().all(|text| matches!(text, tidemill_store::ItemText::Text(_))), "{texts:?}");
    let end = outcome(&gather[0].entry, "r1", 0, StepState::Succeeded);
    assert_eq!(settle(pool, &[end]).await, [Settled::Recorded]);
    let audit = audit(pool, "r1").await;
    assert_eq!(moves(&audit, "a"), ["pending ready", "ready running", "running succeeded"]);
    assert_eq!(moves(&audit, "a[4]"), ["pending ready", "ready running", "running succeeded"]);
    assert_eq!(step_of(&claim(&mut worker, "default", 1).await[0]), 2, "the join fires after it");
}

pub(crate) async fn failed_items_beyond_what_is_tolerated_stop_the_rest(pool: &Pool) {
    let held = expanded(pool, 10).await;
    pool.interruption().await;
    let mut worker = pool.worker("w1");
    assert_eq!(
        settle_item(pool, ended(&held[0].entry, item(&held[0]), StepState::Failed, 1)).await,
        Settled::Recorded
    );
    let third = claim(&mut worker, "default", 1).await;
    assert_eq!(item(&third[0]), 2, "one failure is tolerated");
    for last in [
        ended(&held[1].entry, item(&held[1]), StepState::Failed, 1),
        ended(&third[0].entry, 2, StepState::Succeeded, 1),
    ] {
        assert_eq!(settle_item(pool, last).await, Settled::Recorded);
    }
    let gather = claim(&mut worker, "default", 1).await;
    assert_eq!(field(&gather[0], "gather").unwrap(), "1", "no item follows; what ran is gathered");
    assert_eq!(run(pool, "r1").await.items[&0], [10, 3, 3, 2]);
    audit(pool, "r1").await;
}

/// The stored record of an item.
async fn record(pool: &Pool, item: u64) -> String {
    let found = pool.home().fields_of("r1", Some(0), &[format!("s{item}")]).await.unwrap().remove(0).unwrap();
    String::from_utf8_lossy(&found).into_owned()
}

pub(crate) async fn an_item_that_is_retried_taken_or_lost_comes_back_with_its_record(pool: &Pool) {
    let held = expanded(pool, 2).await;
    let first = held.iter().find(|entry| item(entry) == 0).unwrap();
    let slot = Slot { run: "r1".to_owned(), step: 0, item: Some(0), name: "a[0]".to_owned() };
    pool.interruption().await;
    let aside = Deferral {
        entry: &first.entry,
        id: "",
        slot: Some(slot.clone()),
        state: DeferState::Retrying,
        due: Due::At(1),
        note: "http_status: 503",
        ran: Duration::from_millis(2),
        attempt: 1,
        changes: vec![("attempt", "2".to_owned())],
    };
    assert_eq!(pool.home().defer("default", keys::WORKERS, "w1", &[aside]).await.unwrap(), [true]);
    assert!(record(pool, 0).await.starts_with("retrying 1 "), "{}", record(pool, 0).await);
    assert_eq!(pool.home().promote("default", &[slot.member()]).await.unwrap(), [true]);
    let mut worker = pool.worker("w1");
    let again = claim(&mut worker, "default", 1).await;
    assert_eq!((item(&again[0]), &*field(&again[0], "attempt").unwrap()), (0, "2"));

    let taken = [Held { entry: again[0].entry.clone(), slot: Some(slot.clone()), attempt: 2 }];
    let jobs = pool.jobs();
    pool.home().beat("w1", 3, 0).await.unwrap();
    let moved = pool.home().release((&jobs, keys::WORKERS), "s1", ("w1", Some("3")), &taken).await.unwrap();
    let [Released::Moved(new)] = &moved[..] else { panic!("{moved:?}") };
    assert!(record(pool, 0).await.contains(new.as_str()));

    let lost = claim(&mut worker, "default", 1).await;
    assert_eq!(lost[0].entry.as_str(), new);
    pool.cli(&["XACK", &jobs, keys::WORKERS, new]).await;
    pool.cli(&["XDEL", &jobs, new]).await;
    let seen = record(pool, 0).await;
    assert!(pool.home().repair(&slot, WF, "default", &seen, "s1").await.unwrap());
    assert!(!pool.home().repair(&slot, WF, "default", &seen, "s1").await.unwrap(), "only once");
    let back = claim(&mut worker, "default", 1).await;
    assert_eq!(item(&back[0]), 0);
    let mut end = ended(&back[0].entry, 0, StepState::Succeeded, 0);
    end.attempt = 2;
    assert_eq!(settle_item(pool, end).await, Settled::Recorded);
    assert_eq!(
        moves(&audit(pool, "r1").await, "a[0]").join(","),
        "pending ready,ready running,running retrying,retrying ready,ready running,running ready,\
         ready running,running succeeded"
    );
}
