use std::time::Duration;

use tidemill_protocol::{StepState, result_head};
use tidemill_store::{Burial, Completion, DeferState, Deferral, Due, Held, Released, keys};

use crate::pool::{Pool, claim, field};

pub(crate) async fn a_settled_job_leaves_nothing_behind(pool: &Pool) {
    let mut worker = pool.worker("w1");
    pool.xadd(&pool.jobs(), &["tool", "echo", "input", "{}"]).await;
    let claimed = claim(&mut worker, "default", 1).await;
    pool.interruption().await;
    let owned = pool.home().acknowledge("default", &[claimed[0].entry.clone()]).await.unwrap();
    assert_eq!(owned, 1);
    assert_eq!(pool.length(&pool.jobs()).await, "0");
    assert_eq!(
        pool.home().acknowledge("default", &[claimed[0].entry.clone()]).await.unwrap(),
        0,
        "a second time is stale"
    );
}

pub(crate) async fn of_many_settlers_one_wins(pool: &Pool) {
    for settlers in [2_usize, 20, 1_000] {
        let replies = format!("{}{settlers}", pool.replies());
        let mut worker = pool.worker("w1");
        pool.xadd(&pool.jobs(), &["tool", "echo", "id", "j1"]).await;
        let claimed = claim(&mut worker, "default", 1).await;
        let race = (0..settlers).map(|_| async {
            let head = result_head("j1", StepState::Succeeded, None, None, 1);
            let job = Completion {
                entry: &claimed[0].entry,
                id: "j1",
                head: &head,
                ttl_ms: 60_000,
                reply_to: Some(&replies),
            };
            pool.home().complete("default", &[job]).await.unwrap()[0]
        });
        let won = futures_util::future::join_all(race).await.into_iter().filter(|won| *won).count();
        assert_eq!(won, 1, "of {settlers}");
        assert_eq!(pool.length(&replies).await, "1");
    }
}

pub(crate) async fn a_moved_job_keeps_its_fields_and_its_old_owner_settles_nothing(pool: &Pool) {
    let mut slow = pool.worker("slow");
    let first = pool.xadd(&pool.jobs(), &["tool", "echo", "input", "\"\u{1F30A}\"", "x-mine", "1"]).await;
    let claimed = claim(&mut slow, "default", 1).await;
    pool.interruption().await;
    let stream = pool.home().keys().jobs("default");
    let held = [Held { entry: claimed[0].entry.clone(), slot: None, attempt: 1 }];
    let moved = pool.home().release((&stream, keys::WORKERS), "s1", ("slow", None), &held).await.unwrap();
    assert!(matches!(&moved[..], [Released::Moved(_)]), "{moved:?}");
    let again = pool.home().release((&stream, keys::WORKERS), "s2", ("slow", None), &held).await.unwrap();
    assert_eq!(again, [Released::Gone], "two schedulers cannot both move it");
    assert_eq!(pool.home().acknowledge("default", &[claimed[0].entry.clone()]).await.unwrap(), 0);

    let mut quick = pool.worker("quick");
    let claimed = claim(&mut quick, "default", 1).await;
    assert_eq!(field(&claimed[0], "input").unwrap(), "\"\u{1F30A}\"");
    assert_eq!(field(&claimed[0], "x-mine").unwrap(), "1");
    assert_eq!(field(&claimed[0], "_entry").unwrap(), first.as_str());
    assert_eq!(field(&claimed[0], "_deaths").unwrap(), "0");
}

pub(crate) async fn nothing_is_taken_from_a_worker_that_still_beats(pool: &Pool) {
    let mut worker = pool.worker("w1");
    pool.xadd(&pool.jobs(), &["tool", "echo"]).await;
    let claimed = claim(&mut worker, "default", 1).await;
    pool.interruption().await;
    pool.home().beat("w1", 7, 0).await.unwrap();
    let stream = pool.home().keys().jobs("default");
    let held = [Held { entry: claimed[0].entry.clone(), slot: None, attempt: 1 }];
    let early = pool.home().release((&stream, keys::WORKERS), "s1", ("w1", Some("6")), &held).await.unwrap();
    assert!(early.is_empty(), "{early:?}");
    let late = pool.home().release((&stream, keys::WORKERS), "s1", ("w1", Some("7")), &held).await.unwrap();
    assert!(matches!(&late[..], [Released::Moved(_)]), "{late:?}");
}

pub(crate) async fn a_retry_waits_in_redis_and_is_promoted_once(pool: &Pool) {
    let mut worker = pool.worker("w1");
    pool.xadd(&pool.jobs(), &["tool", "echo", "input", "1"]).await;
    let claimed = claim(&mut worker, "default", 1).await;
    pool.interruption().await;
    let id = claimed[0].entry.as_str().to_owned();
    let deferral = Deferral {
        entry: &claimed[0].entry,
        id: &id,
        slot: None,
        state: DeferState::Retrying,
        due: Due::In(Duration::from_millis(30)),
        note: "http_status: 503",
        ran: Duration::ZERO,
        attempt: 1,
        changes: vec![("_attempts", "1".to_owned())],
    };
    assert_eq!(
        pool.home().defer("default", keys::WORKERS, "w1", std::slice::from_ref(&deferral)).await.unwrap(),
        [true]
    );
    assert_eq!(pool.home().defer("default", keys::WORKERS, "w1", &[deferral]).await.unwrap(), [false]);
    let member = vec![format!("j:{id}")];
    assert_eq!(pool.becomes_due("default").await, member);
    let (a, b) =
        tokio::join!(pool.home().promote("default", &member), pool.home().promote("default", &member));
    assert_eq!(i32::from(a.unwrap()[0]) + i32::from(b.unwrap()[0]), 1);
    let claimed = claim(&mut worker, "default", 1).await;
    let names: Vec<_> =
        claimed[0].fields.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect();
    assert!(names.contains(&"_attempts".to_owned()) && names.contains(&"_entry".to_owned()), "{names:?}");
}

pub(crate) async fn a_buried_job_keeps_its_original_fields_byte_for_byte(pool: &Pool) {
    let mut worker = pool.worker("w1");
    pool.xadd(&pool.jobs(), &["tool", "nope", "input", "not json \u{1}"]).await;
    let claimed = claim(&mut worker, "default", 1).await;
    pool.interruption().await;
    let id = claimed[0].entry.to_string();
    let burial = Burial {
        entry: &claimed[0].entry,
        id: &id,
        code: "malformed",
        reason: "the input is not well-formed",
        state: StepState::Failed,
        attempts: 0,
        ttl_ms: 60_000,
        reply_to: None,
    };
    let stream = pool.home().keys().jobs("default");
    assert_eq!(pool.home().bury(&stream, keys::WORKERS, &[burial]).await.unwrap(), [true]);
    let letters = pool.home().letters(None, 10).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].code, "malformed");
    assert_eq!(letters[0].field("input").unwrap(), "not json \u{1}");
    let result = pool.home().result(&id).await.unwrap().unwrap();
    let result: serde_json::Value = serde_json::from_str(&result).unwrap();
    assert_eq!(result["state"], "failed");
    assert_eq!(result["error"]["code"], "malformed");
    assert!(result["finished_at_ms"].as_u64().unwrap() > 0);
    let fields: Vec<(String, Vec<u8>)> = letters[0].fields.clone();
    assert!(pool.home().replay(&letters[0].letter, &stream, &fields).await.unwrap().is_some());
    assert!(
        pool.home().replay(&letters[0].letter, &stream, &fields).await.unwrap().is_none(),
        "a letter is replayed once"
    );
    assert_eq!(pool.home().letter_count().await.unwrap(), 0);
}

pub(crate) async fn the_first_of_an_id_is_the_job_and_a_moved_one_is_not_a_repetition(pool: &Pool) {
    let mut worker = pool.worker("w1");
    let first = pool.xadd(&pool.jobs(), &["tool", "echo", "id", "a"]).await;
    pool.xadd(&pool.jobs(), &["tool", "echo", "id", "a"]).await;
    let claimed = claim(&mut worker, "default", 2).await;
    pool.interruption().await;
    let keep = Duration::from_secs(60);
    let rows = [(&claimed[0].entry, &claimed[0].entry, "a"), (&claimed[1].entry, &claimed[1].entry, "a")];
    assert_eq!(pool.home().accept("default", keep, &rows).await.unwrap(), [true, false]);
    assert_eq!(pool.length(&pool.jobs()).await, "1");
    let moved = [(&claimed[1].entry, &first, "a")];
    assert_eq!(pool.home().accept("default", keep, &moved).await.unwrap(), [true]);
}
