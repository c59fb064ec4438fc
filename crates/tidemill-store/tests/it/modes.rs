//! The pool's execution mode.

use futures_util::future::join_all;
use tidemill_protocol::ExecutionMode::{Classic, Hybrid, Optimized, StateMachine};
use tidemill_store::{ModeMove, ModeMoved, ModeTally, Partition, PoolMode};

use crate::pool::Pool;

const ADA: (&str, &str) = ("ada", "to compare");

async fn go(home: &Partition, wanted: ModeMove, seen: Option<u64>) -> ModeMoved {
    home.switch_mode(ADA, wanted, seen).await.unwrap()
}

#[tokio::test]
async fn a_pool_begins_hybrid_and_each_switch_is_told_once_with_who_and_why() {
    let pool = Pool::start().await;
    let home = pool.home();
    let fresh = PoolMode { mode: Hybrid, before: None, version: 0, since_ms: None, reason: None, by: None };
    assert_eq!(home.pool_mode().await.unwrap(), fresh);
    assert_eq!(go(home, ModeMove::Rollback, None).await, ModeMoved::NothingBefore);
    assert_eq!(
        go(home, ModeMove::Switch(Hybrid), Some(0)).await,
        ModeMoved::Unchanged { mode: Hybrid, version: 0 }
    );
    let switched = ModeMoved::Switched { from: Hybrid, to: Optimized, version: 1 };
    assert_eq!(go(home, ModeMove::Switch(Optimized), Some(0)).await, switched);
    assert_eq!(home.execution_mode().await.unwrap(), Optimized);
    let now = home.pool_mode().await.unwrap();
    assert_eq!((now.mode, now.before, now.version), (Optimized, Some(Hybrid), 1));
    assert_eq!((now.by.as_deref(), now.reason.as_deref()), (Some("ada"), Some("to compare")));
    let back = ModeMoved::Switched { from: Optimized, to: Hybrid, version: 2 };
    assert_eq!(go(home, ModeMove::Rollback, Some(1)).await, back);
    let told = home.mode_changes(10).await.unwrap();
    let told: Vec<_> =
        told.iter().map(|change| (change.from, change.to, &*change.kind, change.version)).collect();
    assert_eq!(told, [(Optimized, Hybrid, "rollback", 2), (Hybrid, Optimized, "switch", 1)]);
    assert_eq!(home.mode_changes(1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn of_a_thousand_who_switch_by_what_they_saw_one_wins() {
    let pool = Pool::start().await;
    let home = pool.home();
    for (round, count) in [3, 20, 100, 1_000].into_iter().enumerate() {
        let seen = home.pool_mode().await.unwrap().version;
        let to = if round % 2 == 0 { Classic } else { StateMachine };
        let all = join_all((0..count).map(|_| go(home, ModeMove::Switch(to), Some(seen)))).await;
        let (won, rest): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|answer| matches!(answer, ModeMoved::Switched { .. }));
        assert_eq!(won.len(), 1, "of {count}");
        assert!(
            rest.iter().all(|answer| *answer == ModeMoved::Conflict { mode: to, version: seen + 1 }),
            "{rest:?}"
        );
        assert_eq!(home.mode_changes(100).await.unwrap().len(), round + 1, "one entry for each that won");
    }
}

#[tokio::test]
async fn settings_count_where_they_have_changed_and_do_not_undo_what_people_switched() {
    let pool = Pool::start().await;
    let home = pool.home();
    let switched = ModeMoved::Switched { from: Hybrid, to: Classic, version: 1 };
    assert_eq!(go(home, ModeMove::Settings(Classic), None).await, switched);
    let switched = ModeMoved::Switched { from: Classic, to: Optimized, version: 2 };
    assert_eq!(go(home, ModeMove::Switch(Optimized), None).await, switched);
    let unchanged = ModeMoved::Unchanged { mode: Optimized, version: 2 };
    assert_eq!(go(home, ModeMove::Settings(Classic), None).await, unchanged, "started again");
    assert_eq!(go(home, ModeMove::Settings(Optimized), None).await, unchanged, "it is so already");
    let switched = ModeMoved::Switched { from: Optimized, to: Classic, version: 3 };
    assert_eq!(go(home, ModeMove::Settings(Classic), None).await, switched, "said anew");
}

#[tokio::test]
async fn a_key_of_another_type_changes_nothing_and_a_foreign_word_starts_runs_hybrid() {
    let pool = Pool::start().await;
    let home = pool.home();
    pool.cli(&["SET", &home.keys().mode_changes(), "x"]).await;
    assert!(home.switch_mode(ADA, ModeMove::Switch(Classic), None).await.is_err());
    assert_eq!(home.pool_mode().await.unwrap().version, 0);
    pool.cli(&["HSET", &home.keys().mode(), "mode", "warp"]).await;
    assert_eq!(home.execution_mode().await.unwrap(), Hybrid);
    let error = home.pool_mode().await.unwrap_err().to_string();
    assert!(error.contains("warp") && error.contains("state_machine"), "{error}");
}

#[tokio::test]
async fn tallies_of_several_processes_add_up() {
    let pool = Pool::start().await;
    let home = pool.home();
    for ms in [10, 20, 30] {
        let mut tally = ModeTally::default();
        tally.started(Classic, 2);
        tally.ended(Classic, ms);
        home.add_mode_tally(&tally).await.unwrap();
    }
    home.add_mode_tally(&ModeTally::default()).await.unwrap();
    let figures = home.mode_figures().await.unwrap();
    assert_eq!(figures.executions["classic"], 6);
    let classic = &figures.performance["classic"];
    assert_eq!((classic.count, classic.total, classic.p50, classic.p99), (3, 60, 20, 30));
}
