//! Versions of workflows: published, moved through their life, damaged, started.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use tidemill_store::{
    Damage, Error, Publication, Publishing, Startable, VersionMove, VersionMoved, VersionState,
    WorkflowTarget,
};

use crate::flow::start;
use crate::pool::Pool;

const TEXT: &str = "name: flow\nsteps: [{ id: a, tool: echo }]\n";

async fn publish(pool: &Pool, version: u32, state: VersionState) -> Publishing {
    let (who, why) = ("ada", "first try");
    let publication = Publication { name: "flow", version, source: TEXT, state, who, why };
    pool.home().publish_as(&publication).await.unwrap()
}

async fn go(pool: &Pool, version: u32, from: VersionState, to: VersionState) -> VersionMoved {
    let wanted = VersionMove { name: "flow", version, from, to, who: "grace", why: "it is time" };
    pool.home().move_version(&wanted).await.unwrap()
}

async fn asked(pool: &Pool, target: &str) -> Startable {
    pool.home().to_start(WorkflowTarget::parse(target).unwrap()).await.unwrap()
}

fn is_version(startable: Startable, wanted: u32) -> bool {
    matches!(startable, Startable::Version { version, .. } if version == wanted)
}

pub(crate) async fn a_version_lives_from_draft_to_archive_and_each_move_is_told_once(pool: &Pool) {
    use VersionState::{Active, Archived, Deprecated, Draft};
    assert_eq!(publish(pool, 1, Draft).await, Publishing::New);
    assert_eq!(publish(pool, 1, Active).await, Publishing::Before(Draft), "publishing again moves nothing");
    assert_eq!(asked(pool, "flow").await, Startable::NoneActive);
    assert_eq!(asked(pool, "flow@1").await, Startable::Draft);
    assert!(is_version(asked(pool, "flow@1-draft").await, 1));
    assert_eq!(go(pool, 1, Draft, Active).await, VersionMoved::Moved);
    assert!(is_version(asked(pool, "flow").await, 1) && is_version(asked(pool, "flow@1-draft").await, 1));
    pool.interruption().await;
    assert_eq!(publish(pool, 2, Active).await, Publishing::New);
    assert!(is_version(asked(pool, "flow").await, 2));
    assert_eq!(go(pool, 2, Active, Deprecated).await, VersionMoved::Moved);
    assert!(is_version(asked(pool, "flow").await, 1), "the newest active one counts");
    let deprecated = asked(pool, "flow@2").await;
    assert_eq!(deprecated, Startable::Version { version: 2, state: Deprecated });
    assert!(deprecated.sentence("flow@2").unwrap().contains("flow@2 is deprecated"));
    assert_eq!(go(pool, 2, Deprecated, Active).await, VersionMoved::Moved, "a way back");
    assert_eq!(go(pool, 2, Active, Archived).await, VersionMoved::Moved);
    assert_eq!(asked(pool, "flow@2").await, Startable::Archived);
    assert_eq!(go(pool, 2, Archived, Active).await, VersionMoved::Illegal);
    assert_eq!(go(pool, 3, Draft, Active).await, VersionMoved::Conflict(None));
    assert_eq!(asked(pool, "flow@3").await, Startable::Unknown);
    assert_eq!(asked(pool, "other").await, Startable::Unknown);
    assert_eq!(pool.home().definition("flow", Some(2)).await.unwrap().unwrap().source, TEXT, "runs go on");
    let changes = pool.home().version_changes(Some("flow"), 100).await.unwrap();
    let told: Vec<_> = changes.iter().rev().map(|c| (c.version, &*c.from, &*c.to, &*c.by, &*c.why)).collect();
    let (first, later) = (("ada", "first try"), ("grace", "it is time"));
    let expected = [
        (1, "-", "draft", first),
        (1, "draft", "active", later),
        (2, "-", "active", first),
        (2, "active", "deprecated", later),
        (2, "deprecated", "active", later),
        (2, "active", "archived", later),
    ];
    assert_eq!(told, expected.map(|(version, from, to, (by, why))| (version, from, to, by, why)));
    assert!(changes.iter().all(|change| change.at_ms > 1_600_000_000_000));
    assert_eq!(pool.home().version_changes(Some("else"), 100).await.unwrap(), []);
    assert_eq!(pool.home().version_changes(None, 2).await.unwrap()[..], changes[..2]);
}

pub(crate) async fn of_many_who_move_a_version_at_once_one_wins(pool: &Pool) {
    for (at, moves) in [3_u32, 20, 100, 1_000].into_iter().enumerate() {
        let version = u32::try_from(at).unwrap() + 1;
        publish(pool, version, VersionState::Draft).await;
        let all = (0..moves).map(|n| {
            let to = if n % 2 == 0 { VersionState::Active } else { VersionState::Archived };
            go(pool, version, VersionState::Draft, to)
        });
        let outcomes = join_all(all).await;
        let state = pool.home().version_state("flow", version).await.unwrap();
        let won = outcomes.iter().filter(|outcome| **outcome == VersionMoved::Moved).count();
        let refused = outcomes.iter().filter(|outcome| **outcome == VersionMoved::Conflict(state)).count();
        assert_eq!((won, refused), (1, moves as usize - 1));
        let changes = pool.home().version_changes(Some("flow"), 10_000).await.unwrap();
        let told =
            changes.iter().filter(|change| change.version == version && change.from == "draft").count();
        assert_eq!(told, 1, "one audit entry of {moves} moves");
    }
}

#[tokio::test]
async fn a_published_text_never_changes_and_is_taken_again() {
    let pool = Pool::start().await;
    assert!(pool.home().publish("flow", 1, TEXT).await.unwrap());
    assert!(pool.home().publish("flow", 1, TEXT).await.unwrap());
    assert!(!pool.home().publish("flow", 1, "name: flow\nsteps: [{ id: b, tool: echo }]\n").await.unwrap());
    assert_eq!(pool.home().version_changes(None, 10).await.unwrap().len(), 1);
    let records = pool.home().versions("flow").await.unwrap();
    assert_eq!((records.len(), records[0].state), (1, VersionState::Active));
    assert_eq!(records[0].sha256.len(), 64);
}

fn damage(error: Error) -> Damage {
    match error {
        Error::Damaged(damaged) => {
            assert_eq!((&*damaged.workflow, damaged.version), ("flow", 1));
            damaged.damage
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_flipped_bit_or_a_truncated_text_is_told_and_never_handed_out_and_publishing_again_mends_it() {
    let pool = Pool::start().await;
    assert!(pool.home().publish("flow", 1, TEXT).await.unwrap());
    let flipped = TEXT.replacen("tool: echo", "tool: ecio", 1);
    for stored in [&*flipped, &TEXT[..TEXT.len() - 3], ""] {
        pool.cli(&["HSET", "tm:{0}:workflow:flow", "1", stored]).await;
        for asked in [Some(1), None] {
            let told = damage(pool.home().definition("flow", asked).await.unwrap_err());
            assert!(matches!(told, Damage::Text { bytes, .. } if bytes == stored.len()), "{told:?}");
        }
        let all = pool.home().active_definitions().await.unwrap();
        assert!(matches!(&all[..], [Err(damaged)] if damaged.to_string().contains("flow@1 is damaged")));
        assert!(pool.home().publish("flow", 1, TEXT).await.unwrap());
        assert_eq!(pool.home().definition("flow", Some(1)).await.unwrap().unwrap().source, TEXT);
    }
    let mended = pool.home().version_changes(Some("flow"), 100).await.unwrap();
    assert_eq!(mended.iter().filter(|change| change.from == change.to).count(), 3, "{mended:?}");
}

#[tokio::test]
async fn what_is_not_text_or_has_no_digest_or_a_strange_state_is_damaged_too() {
    let pool = Pool::start().await;
    assert!(pool.home().publish("flow", 1, TEXT).await.unwrap());
    let script = "redis.call('HSET', KEYS[1], '1', '\\255\\254')";
    pool.cli(&["EVAL", script, "1", "tm:{0}:workflow:flow"]).await;
    assert!(matches!(
        damage(pool.home().definition("flow", Some(1)).await.unwrap_err()),
        Damage::Text { .. }
    ));
    pool.cli(&["HDEL", "tm:{0}:workflow:flow", "1"]).await;
    assert_eq!(damage(pool.home().definition("flow", Some(1)).await.unwrap_err()), Damage::NoText);
    assert!(pool.home().publish("flow", 1, TEXT).await.unwrap(), "mended");
    pool.cli(&["HSET", "tm:{0}:versions:flow", "1", "activ"]).await;
    let told = damage(pool.home().version_state("flow", 1).await.unwrap_err());
    assert_eq!(told, Damage::State("activ".to_owned()));
    assert!(matches!(pool.home().active_definitions().await.unwrap()[..], [Err(_)]));
    pool.cli(&["DEL", "tm:{0}:versions:flow"]).await;
    assert_eq!(damage(pool.home().definition("flow", None).await.unwrap_err()), Damage::NoDigest);
    assert!(matches!(pool.home().active_definitions().await.unwrap()[..], [Err(_)]));
    assert!(!pool.home().publish("flow", 1, "name: flow\n").await.unwrap(), "a text without a record stays");
    assert!(pool.home().publish("flow", 1, TEXT).await.unwrap());
    assert_eq!(pool.home().definition("flow", None).await.unwrap().unwrap().source, TEXT);
}

#[tokio::test]
async fn a_key_of_another_type_stops_a_move_before_anything_is_written() {
    let pool = Pool::start().await;
    publish(&pool, 1, VersionState::Draft).await;
    for key in ["tm:{0}:workflow_changes", "tm:{0}:workflows"] {
        pool.cli(&["RENAME", key, "tm:{0}:aside"]).await;
        pool.cli(&["SET", key, "text"]).await;
        let wanted = VersionMove {
            name: "flow",
            version: 1,
            from: VersionState::Draft,
            to: VersionState::Active,
            who: "-",
            why: "-",
        };
        pool.home().move_version(&wanted).await.unwrap_err();
        assert_eq!(pool.home().version_state("flow", 1).await.unwrap(), Some(VersionState::Draft));
        pool.cli(&["RENAME", "tm:{0}:aside", key]).await;
    }
    assert_eq!(go(&pool, 1, VersionState::Draft, VersionState::Active).await, VersionMoved::Moved);
}

#[tokio::test]
async fn live_runs_are_found_by_version_and_ended_ones_are_not() {
    let pool = Pool::start().await;
    for n in 0..1_200 {
        start(&pool, &format!("r{n}")).await;
    }
    let workflow = crate::flow::WF;
    let (name, version) = workflow.split_once('@').unwrap();
    let live = pool.store.live_runs_of(name).await.unwrap();
    let counts: BTreeMap<u32, usize> = live.iter().map(|(version, runs)| (*version, runs.len())).collect();
    assert_eq!(counts, BTreeMap::from([(version.parse().unwrap(), 1_200)]));
    assert_eq!(pool.store.live_runs_of("another").await.unwrap(), BTreeMap::new());
    pool.cli(&["HSET", "tm:{0}:run:r0", "st", "succeeded"]).await;
    pool.cli(&["DEL", "tm:{0}:run:r1"]).await;
    assert_eq!(pool.store.live_runs_of(name).await.unwrap().values().map(Vec::len).sum::<usize>(), 1_198);
}
