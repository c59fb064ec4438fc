//! Promises about groups: of the runs that share a key, only so many at once.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use tidemill_protocol::{Labels, RunState};
use tidemill_store::{
    DeferState, Deferral, Due, Entered, Entrance, GroupMember, GroupVerdict, RefusedRun, WhenFull, keys,
};

use crate::flow::{audit, moves, run};
use crate::pool::{Pool, claim, field};

const GROUP: &str = "flow:acme";

fn member(name: &str) -> GroupMember {
    GroupMember { partition: 3, run: name.to_owned() }
}

async fn enter(pool: &Pool, limit: u32, when_full: WhenFull, name: &str, asked: u64) -> Entered {
    let member = member(name);
    let entrance = Entrance { group: GROUP, limit, when_full, member: &member, asked };
    pool.home().enter_group(&entrance).await.unwrap()
}

async fn leave(pool: &Pool, name: &str) -> Vec<String> {
    let next = pool.home().leave_group(GROUP, Some(&member(name)), 10).await.unwrap();
    next.into_iter().map(|member| member.run).collect()
}

pub(crate) async fn who_asked_first_enters_first_and_a_place_lasts_until_its_run_leaves(pool: &Pool) {
    use GroupVerdict::{Enters, Waits};
    let enter = async |name, asked| enter(pool, 2, WhenFull::Queue, name, asked).await.verdict;
    assert_eq!(enter("a", 1_000).await, Enters);
    assert_eq!(enter("b", 2_000).await, Enters);
    assert_eq!(enter("d", 4_000).await, Waits(0));
    assert_eq!(enter("c", 3_000).await, Waits(0), "it asked before the other");
    assert_eq!(enter("d", 4_000).await, Waits(1));
    assert_eq!(enter("a", 1_000).await, Enters, "asking again changes nothing");
    pool.interruption().await;
    assert_eq!(leave(pool, "a").await, ["c"]);
    assert_eq!(leave(pool, "a").await, ["c"], "told again until it has come");
    assert_eq!(enter("d", 4_000).await, Waits(1), "the place is not for whoever comes first");
    assert_eq!(enter("c", 3_000).await, Enters);
    assert_eq!(leave(pool, "nobody").await, [""; 0]);
    let group = pool.home().group(GROUP).await.unwrap().unwrap();
    assert_eq!((group.limit, group.holders, group.waiting), (2, 2, 1));
    assert_eq!(pool.home().group_place(GROUP, &member("d")).await.unwrap(), Some(0));
    let rows = pool.home().group_rows(GROUP, false, 0, 10).await.unwrap();
    let rows: Vec<_> = rows.iter().map(|row| (row.member.run.as_str(), row.asked_ms)).collect();
    assert_eq!(rows, [("b", 2), ("c", 3)]);
    for name in ["b", "c", "d"] {
        leave(pool, name).await;
    }
    assert_eq!(pool.home().group(GROUP).await.unwrap(), None, "nothing is left of an empty group");
    for key in [pool.keys().groups(), pool.keys().group(GROUP), pool.keys().group_waiting(GROUP)] {
        assert_eq!(pool.cli(&["EXISTS", &key]).await, "0", "{key}");
    }
}

pub(crate) async fn of_many_that_ask_at_once_as_many_enter_as_there_are_places(pool: &Pool) {
    let names: Vec<String> = (0..200).map(|at| format!("r{at:03}")).collect();
    let asked = |name: &str| 1_000 + name[1..].parse::<u64>().unwrap();
    let all = names.iter().rev().map(|name| enter(pool, 7, WhenFull::Queue, name, asked(name)));
    let answers = join_all(all).await;
    let entered = answers.iter().filter(|answer| answer.verdict == GroupVerdict::Enters).count();
    assert_eq!(entered, 7);
    // from then on strictly by age, never more than seven
    let rows = pool.home().group_rows(GROUP, true, 0, 500).await.unwrap();
    let waiting: Vec<String> = rows.into_iter().map(|row| row.member.run).collect();
    let mut sorted = waiting.clone();
    sorted.sort();
    assert_eq!((waiting.len(), &waiting), (193, &sorted));
    for next in &waiting {
        let holder = pool.home().group_rows(GROUP, false, 0, 1).await.unwrap().remove(0).member.run;
        assert_eq!(leave(pool, &holder).await, [next.as_str()]);
        let verdict = enter(pool, 7, WhenFull::Queue, next, asked(next)).await.verdict;
        assert_eq!(verdict, GroupVerdict::Enters);
        assert_eq!(pool.home().group(GROUP).await.unwrap().unwrap().holders, 7);
    }
}

pub(crate) async fn the_newest_runs_of_a_group_send_the_oldest_away(pool: &Pool) {
    let enter = async |name, asked| enter(pool, 2, WhenFull::CancelOlder, name, asked).await;
    let names = |entered: Entered| -> (GroupVerdict, Vec<String>) {
        (entered.verdict, entered.gone.into_iter().map(|member| member.run).collect())
    };
    enter("a", 1_000).await;
    enter("b", 2_000).await;
    assert_eq!(names(enter("c", 3_000).await), (GroupVerdict::Waits(0), vec!["a".to_owned()]));
    let (verdict, gone) = names(enter("d", 4_000).await);
    assert_eq!((verdict, gone), (GroupVerdict::Waits(1), vec!["a".to_owned(), "b".to_owned()]));
    // a third one: of those that wait the oldest has no prospects either
    let (verdict, gone) = names(enter("e", 5_000).await);
    assert_eq!(verdict, GroupVerdict::Waits(1), "who is sent away does not stand before it");
    assert_eq!(gone, ["a", "b", "c"]);
    assert_eq!(names(enter("c", 3_000).await), (GroupVerdict::Refused, vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(leave(pool, "a").await, ["d"]);
    assert_eq!(enter("d", 4_000).await.verdict, GroupVerdict::Enters);
    leave(pool, "b").await;
    assert_eq!(names(enter("e", 5_000).await), (GroupVerdict::Enters, Vec::new()));
    assert_eq!(enter("late", 500).await.verdict, GroupVerdict::Refused, "it was asked for before all others");
}

pub(crate) async fn a_full_group_refuses_where_nobody_may_wait(pool: &Pool) {
    let enter = async |name, asked| enter(pool, 1, WhenFull::CancelNewer, name, asked).await.verdict;
    assert_eq!(enter("a", 1_000).await, GroupVerdict::Enters);
    assert_eq!(enter("b", 2_000).await, GroupVerdict::Refused);
    assert_eq!(enter("a", 1_000).await, GroupVerdict::Enters, "its own place does not refuse it");
    leave(pool, "a").await;
    assert_eq!(enter("b", 2_000).await, GroupVerdict::Enters);
}

pub(crate) async fn foreign_keys_of_a_group_are_told_and_left_alone(pool: &Pool) {
    let key = pool.keys().group_waiting(GROUP);
    pool.cli(&["SET", &key, "mine"]).await;
    let entered = enter(pool, 1, WhenFull::Queue, "a", 1_000).await;
    assert_eq!(entered.verdict, GroupVerdict::Foreign);
    assert_eq!(pool.cli(&["GET", &key]).await, "mine");
}

pub(crate) async fn a_refused_run_is_on_record_and_its_caller_is_told(pool: &Pool) {
    let replies = pool.replies();
    let mut scheduler = pool.scheduler("s1");
    pool.xadd(&pool.keys().runs(), &["workflow", "flow", "id", "r1"]).await;
    let asked = claim(&mut scheduler, keys::RUNS, 1).await;
    let labels: Labels = Labels::parse(br#"{"team":"billing"}"#).unwrap();
    let refused = RefusedRun {
        entry: &asked[0].entry,
        id: "r1",
        workflow: "flow@1",
        input: b"{\"n\":1}",
        code: "group_full",
        reason: "the group has its runs",
        ttl_ms: 60_000,
        reply_to: Some(&replies),
        keep_ms: 60_000,
        fields: vec![("ten", b"acme")],
        labels: &labels,
        parent: None,
    };
    assert!(pool.home().refuse_run("s1", &refused).await.unwrap());
    assert!(!pool.home().refuse_run("s1", &refused).await.unwrap(), "a second time is stale");
    let record = run(pool, "r1").await;
    assert_eq!((record.state, record.tenant.as_deref()), (RunState::Cancelled, Some("acme")));
    assert!(record.error.unwrap().contains("group_full"));
    assert_eq!(moves(&audit(pool, "r1").await, "@"), ["queued cancelled"]);
    let result: serde_json::Value =
        serde_json::from_str(&pool.home().result("r1").await.unwrap().unwrap()).unwrap();
    assert_eq!((&result["state"], &result["error"]["code"]), (&"cancelled".into(), &"group_full".into()));
    assert_eq!(
        (pool.length(&replies).await, pool.length(&pool.keys().dead()).await),
        ("1".into(), "0".into())
    );
    assert_eq!(pool.cli(&["ZCARD", &pool.keys().label("team=billing")]).await, "1");
    assert_eq!(pool.cli(&["ZCARD", &pool.keys().ended()]).await, "1");
    assert_eq!(pool.length(&pool.keys().runs()).await, "0");
}

pub(crate) async fn of_many_requests_of_one_run_that_wait_the_first_stays(pool: &Pool) {
    let mut scheduler = pool.scheduler("s1");
    let asked: BTreeSet<String> = ["1", "2", "3"].map(str::to_owned).into();
    for n in &asked {
        pool.xadd(&pool.keys().runs(), &["workflow", "flow", "id", "r1", "input", n]).await;
    }
    let claimed = claim(&mut scheduler, keys::RUNS, 3).await;
    for (at, entry) in claimed.iter().enumerate() {
        let deferral = Deferral {
            entry: &entry.entry,
            id: "r1",
            slot: None,
            state: DeferState::Delayed,
            due: Due::In(std::time::Duration::from_secs(3_600)),
            note: "waits for its turn in a group",
            ran: std::time::Duration::ZERO,
            attempt: 0,
            changes: vec![("_group", GROUP.to_owned())],
        };
        let deferred = pool.home().defer(keys::RUNS, keys::SCHEDULERS, "s1", &[deferral]).await.unwrap();
        assert_eq!(deferred, [at == 0]);
    }
    pool.interruption().await;
    assert!(pool.home().hasten_request("r1").await.unwrap());
    assert!(!pool.home().hasten_request("r1").await.unwrap(), "it is not put aside any more");
    let again = claim(&mut scheduler, keys::RUNS, 1).await;
    assert_eq!(field(&again[0], "input").as_deref(), Some("1"), "the first of an id is the run");
    assert_eq!(field(&again[0], "_group").as_deref(), Some(GROUP));
    assert_eq!(pool.length(&pool.keys().runs()).await, "1");
}

pub(crate) async fn who_is_cancelled_while_it_waits_leaves_its_group(pool: &Pool) {
    let mut scheduler = pool.scheduler("s1");
    pool.xadd(&pool.keys().runs(), &["workflow", "flow", "id", "r1"]).await;
    let claimed = claim(&mut scheduler, keys::RUNS, 1).await;
    let deferral = Deferral {
        entry: &claimed[0].entry,
        id: "r1",
        slot: None,
        state: DeferState::Delayed,
        due: Due::In(std::time::Duration::from_secs(3_600)),
        note: "waits for its turn in a group",
        ran: std::time::Duration::ZERO,
        attempt: 0,
        changes: vec![("_group", GROUP.to_owned())],
    };
    assert_eq!(pool.home().defer(keys::RUNS, keys::SCHEDULERS, "s1", &[deferral]).await.unwrap(), [true]);
    assert!(pool.home().cancel_job(keys::RUNS, "r1", "not wanted").await.unwrap());
    let told = claim(&mut scheduler, keys::RUNS, 1).await;
    let notice = tidemill_protocol::Notice::of(&told[0].fields).unwrap();
    assert_eq!(
        notice,
        tidemill_protocol::Notice::Left { run: "r1".to_owned(), group: GROUP.to_owned() },
        "whoever starts runs is told"
    );
}
