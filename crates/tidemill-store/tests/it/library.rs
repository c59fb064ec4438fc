//! Programs of several versions on one Redis.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tidemill_store::{Admission, Enqueued, LIBRARY_VERSION, Settings, Store, library_text};

use crate::flow::{WF, run, start};
use crate::place::Place;
use crate::pool::Pool;

/// This library as another version of it, with or without its newest function.
fn version(number: u32, without: &str) -> String {
    let ours = format!("TIDEMILL_LIBRARY_VERSION = {LIBRARY_VERSION}");
    let text = library_text().replace(&ours, &format!("TIDEMILL_LIBRARY_VERSION = {number}"));
    let keep = |line: &&str| without.is_empty() || !line.contains(&format!("function_name = '{without}'"));
    text.lines().filter(keep).collect::<Vec<_>>().join("\n")
}

async fn load(pool: &Pool, text: &str) {
    pool.cli(&["FUNCTION", "LOAD", "REPLACE", text]).await;
}

async fn loaded(pool: &Pool) -> String {
    pool.cli(&["FCALL_RO", "tm1_version", "0"]).await
}

async fn newcomer(pool: &Pool) -> Store {
    let settings = Settings { url: pool.place.url(), ..Settings::default() };
    let store = Store::new(&settings, "tm", 1).unwrap();
    store.check().await.unwrap();
    store
}

#[tokio::test]
async fn an_older_library_is_replaced_while_an_old_program_goes_on() {
    let pool = Pool::start().await;
    start(&pool, "r1").await;
    let seen = run(&pool, "r1").await.seq;
    load(&pool, &version(0, "tm1_mend")).await;
    assert!(!pool.cli(&["FUNCTION", "LIST"]).await.contains("tm1_mend"), "the old one has no such function");
    let fields: Vec<(&str, &[u8])> = vec![("tool", b"echo")];
    let job = [Admission { fields, ..Admission::default() }];
    let old = async {
        let mut taken = 0;
        while loaded(&pool).await == "0" || taken < 200 {
            let answer = pool.home().enqueue("other", 0, Duration::from_secs(1), &job).await.unwrap();
            assert!(matches!(answer[..], [Enqueued::Ready(_)]), "{answer:?}");
            taken += 1;
        }
        taken
    };
    let (taken, new) = tokio::join!(old, newcomer(&pool));
    assert_eq!(pool.length(&pool.keys().jobs("other")).await, taken.to_string());
    assert_eq!(loaded(&pool).await, LIBRARY_VERSION.to_string());
    assert_eq!(new.home().mend(("r1", WF), "default", seen, &[]).await.unwrap(), 1);
    assert_eq!(
        pool.home().mend(("r1", WF), "default", seen, &[]).await.unwrap(),
        1,
        "the old program has it too"
    );
}

#[tokio::test]
async fn a_newer_library_is_left_alone() {
    let pool = Pool::start().await;
    let newer = LIBRARY_VERSION + 1;
    load(&pool, &version(newer, "")).await;
    newcomer(&pool).await;
    assert_eq!(loaded(&pool).await, newer.to_string());
}

#[tokio::test]
async fn the_next_protocol_lives_beside_this_one() {
    let pool = Pool::start().await;
    let next = library_text().replace("tm1_", "tm2_").replacen("tidemill1", "tidemill2", 1);
    load(&pool, &next).await;
    newcomer(&pool).await;
    assert_eq!(pool.cli(&["FCALL_RO", "tm2_version", "0"]).await, LIBRARY_VERSION.to_string());
    start(&pool, "r1").await;
    let libraries = pool.cli(&["FUNCTION", "LIST"]).await;
    assert!(libraries.contains("tidemill1") && libraries.contains("tidemill2"), "{libraries}");
}

#[tokio::test]
async fn programs_that_start_together_all_find_the_library() {
    let place = Arc::new(Place::redis().await);
    let pools = (0..20).map(|_| Pool::on(Arc::clone(&place), "tm", 1));
    for pool in join_all(pools).await {
        pool.home().beat("w1", 1, 0).await.unwrap();
    }
}
