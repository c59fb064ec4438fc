//! Every pair of states against the server: what the table allows and a function makes is made, anything else is refused and
//! changes nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use tidemill_protocol::{EntryId, RunState, StepState};
use tidemill_store::{
    DeferState, Deferral, Due, EndRun, Expansion, FinishRun, Held, Released, Settled, keys,
};

use crate::flow::{WF, audit, outcome, run, settle, slot, start, step_of};
use crate::pool::{Pool, claim};

/// Moves of the table that none of these functions makes: whoever ends a run leaves work that is put aside to be promoted, claimed and
/// ended. What waits is in `waits.rs`, what is given its output in `operating.rs`.
const LEFT_TO_OTHERS: [(StepState, StepState); 14] = [
    (StepState::Running, StepState::Waiting),
    (StepState::Waiting, StepState::Ready),
    (StepState::Waiting, StepState::Succeeded),
    (StepState::Waiting, StepState::Cancelled),
    (StepState::Waiting, StepState::TimedOut),
    (StepState::Pending, StepState::Succeeded),
    (StepState::Pending, StepState::Skipped),
    (StepState::Parked, StepState::Succeeded),
    (StepState::Retrying, StepState::Succeeded),
    (StepState::Running, StepState::Parked),
    (StepState::Parked, StepState::Cancelled),
    (StepState::Parked, StepState::TimedOut),
    (StepState::Retrying, StepState::Cancelled),
    (StepState::Retrying, StepState::TimedOut),
];

/// Everything that a run's keys hold.
async fn dump(pool: &Pool, id: &str) -> (String, String) {
    let hash = pool.cli(&["HGETALL", &pool.keys().run(id)]).await;
    let mut fields: Vec<_> = hash.lines().collect::<Vec<_>>().chunks(2).map(|pair| pair.join(" ")).collect();
    fields.sort();
    (fields.join("\n"), pool.cli(&["XRANGE", &pool.keys().audit(id), "-", "+"]).await)
}

/// A run whose step `a` is claimed by `w1`; then its record is made to say `from`.
async fn standing(pool: &Pool, id: &str, from: StepState) -> EntryId {
    start(pool, id).await;
    let held = claim(&mut pool.worker("w1"), "default", 2).await;
    let entry = held.iter().find(|entry| step_of(entry) == 0).unwrap().entry.clone();
    let key = pool.keys().run(id);
    match from {
        // a claimed step's record stays `ready`: that it runs is told by whoever settles it
        StepState::Ready | StepState::Running => {}
        StepState::Pending => {
            pool.cli(&["HDEL", &key, "s0"]).await;
        }
        other => {
            let record = format!("{} 1 1 1 1 w0 - default", other.as_str());
            pool.cli(&["HSET", &key, "s0", &record]).await;
        }
    }
    entry
}

/// Tries to make the move with the function that makes moves of its kind; tells whether it was made.
async fn attempt(pool: &Pool, id: &str, entry: &EntryId, (from, to): (StepState, StepState)) -> bool {
    let ran = from != StepState::Ready;
    match to {
        StepState::Pending => false,
        StepState::Ready if matches!(from, StepState::Parked | StepState::Retrying) => {
            let member = slot(id, 0).member();
            pool.cli(&["ZADD", &pool.keys().due("default"), "1", &member]).await;
            let fields = [
                "local f = {'run', ARGV[2], 'wf', ARGV[3], 'step', '0', 'attempt', '1'}",
                "return redis.call('HSET', KEYS[1], ARGV[1], cmsgpack.pack(f))",
            ];
            let deferred = pool.keys().deferred("default");
            pool.cli(&["EVAL", &fields.join("\n"), "1", &deferred, &member, id, WF]).await;
            pool.home().promote("default", &[member]).await.unwrap() == [true]
        }
        StepState::Ready => {
            let held = [Held { entry: entry.clone(), slot: Some(slot(id, 0)), attempt: 1 }];
            let jobs = pool.jobs();
            let moved = pool.home().release((&jobs, keys::WORKERS), "s1", ("w1", None), &held).await.unwrap();
            // the entry moves whatever the record says; the record follows only where it named the entry
            matches!(&moved[..], [Released::Moved(new)]
                if run(pool, id).await.steps.get(&0).is_some_and(|record| record.entry.as_ref() == Some(new)))
        }
        StepState::Running => {
            let expansion = Expansion {
                entry,
                run: id,
                workflow: WF,
                step: 0,
                name: "a",
                attempt: 1,
                total: 1,
                concurrency: 1,
                queue: "default",
                keep_ms: 60_000,
            };
            pool.home().expand("default", "w1", &expansion).await.unwrap()
        }
        StepState::Parked | StepState::Retrying => {
            let state = if to == StepState::Parked { DeferState::Parked } else { DeferState::Retrying };
            let aside = Deferral {
                entry,
                id: "",
                slot: Some(slot(id, 0)),
                state,
                due: Due::In(Duration::from_secs(3_600)),
                note: "",
                ran: Duration::ZERO,
                attempt: 1,
                changes: Vec::new(),
            };
            pool.home().defer("default", keys::WORKERS, "w1", &[aside]).await.unwrap() == [true]
        }
        _ => {
            let mut end = outcome(entry, id, 0, to);
            end.mode.did_not_run = !ran;
            end.mode.fails_run_now = false;
            matches!(settle(pool, &[end]).await[..], [Settled::Recorded | Settled::RunEnded])
        }
    }
}

#[tokio::test]
async fn every_pair_of_step_states_is_made_as_the_table_says_or_refused() {
    let pool = Pool::start().await;
    let mut made = BTreeSet::new();
    for from in StepState::ALL {
        for to in StepState::ALL {
            let id = format!("{}-{}", from.as_str(), to.as_str());
            let entry = standing(&pool, &id, from).await;
            let before = dump(&pool, &id).await;
            if attempt(&pool, &id, &entry, (from, to)).await {
                for record in audit(&pool, &id).await.into_iter().filter(|record| record.subject == "a") {
                    let pair = (StepState::parse(&record.from), StepState::parse(&record.to));
                    let (Some(left), Some(entered)) = pair else { panic!("{record:?}") };
                    assert!(left.may_become(entered), "{id}: {record:?}");
                    made.insert((left.as_str(), entered.as_str()));
                }
                assert_ne!(dump(&pool, &id).await, before, "{id} was made and changed nothing");
            } else {
                assert_eq!(dump(&pool, &id).await, before, "{id} was refused and changed something");
            }
            // what this pair left behind must not be claimed by the next
            pool.cli(&["FLUSHALL"]).await;
        }
    }
    let words = |moves: &[(StepState, StepState)]| -> BTreeSet<_> {
        moves.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect()
    };
    let missing: BTreeSet<_> = words(StepState::MOVES).difference(&made).copied().collect();
    assert_eq!(missing, words(&LEFT_TO_OTHERS));
}

/// The ends that a function may give a run from where it stands.
fn may_end(from: RunState, to: RunState) -> bool {
    to.is_terminal() && from.may_become(to)
}

#[tokio::test]
async fn every_pair_of_run_states_is_made_as_the_table_says_or_refused() {
    let pool = Pool::start().await;
    for from in RunState::ALL {
        for to in RunState::ALL {
            let id = format!("{}-{}", from.as_str(), to.as_str());
            for by_finish in [false, true] {
                start(&pool, &id).await;
                let held = claim(&mut pool.worker("w1"), "default", 2).await;
                pool.cli(&["HSET", &pool.keys().run(&id), "st", from.as_str()]).await;
                let before = dump(&pool, &id).await;
                let made = if by_finish {
                    let finish = FinishRun {
                        home: "q",
                        entry: &held[0].entry,
                        id: &id,
                        workflow: WF,
                        to,
                        output: b"1",
                        error: "",
                        code: "",
                        reason: "",
                        retention_ms: 60_000,
                        reply_to: None,
                    };
                    pool.home().finish("default", "w1", &finish).await.unwrap()
                } else {
                    let end = EndRun {
                        id: &id,
                        to,
                        who: "ada",
                        code: "c",
                        reason: "r",
                        only_past_deadline: false,
                        spares: false,
                        by_force: false,
                        home: None,
                        reply_to: None,
                    };
                    pool.home().end_run(&end).await.unwrap() == Some(true)
                };
                assert_eq!(made, may_end(from, to), "{id}");
                if made {
                    let last = audit(&pool, &id).await.pop().unwrap();
                    assert_eq!((&*last.from, &*last.to), (from.as_str(), to.as_str()));
                    assert_eq!(run(&pool, &id).await.state, to);
                } else {
                    assert_eq!(dump(&pool, &id).await, before, "{id} was refused and changed something");
                }
                pool.cli(&["FLUSHALL"]).await;
            }
        }
    }
}

#[tokio::test]
async fn a_settler_that_claims_a_state_which_is_no_end_is_refused() {
    for to in StepState::ALL.into_iter().filter(|state| !state.is_terminal()) {
        for did_not_run in [false, true] {
            let pool = Pool::start().await;
            let entry = standing(&pool, "r1", StepState::Ready).await;
            let before = dump(&pool, "r1").await;
            let mut end = outcome(&entry, "r1", 0, to);
            end.mode.did_not_run = did_not_run;
            assert_eq!(settle(&pool, &[end]).await, [Settled::Conflict], "{to:?}");
            assert_eq!(dump(&pool, "r1").await, before, "{to:?}");
        }
    }
}
