//! Every class of Redis error, provoked: its row in the table, and that work goes on by itself once its cause is gone.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tidemill_protocol::{StepState, result_head};
use tidemill_store::{
    Admission, Completion, DeferState, Deferral, Due, Enqueued, Error, Fault, Held, Released, Remedy,
    Settings, Settled, Store, keys,
};
use tidemill_testkit::{FaultProxy, RedisCluster, RedisServer, Traffic, wait_for};

use crate::flow::{WF, outcome, run, settle, slot, start, step_of};
use crate::place::Place;
use crate::pool::{PATIENCE, Pool, claim, claim_now};

fn fault<T: std::fmt::Debug>(result: Result<T, Error>) -> Fault {
    result.unwrap_err().fault().unwrap()
}

/// Asks until it works, and tells which faults came before.
async fn until_well(pool: &Pool) -> HashSet<Fault> {
    let mut seen = HashSet::new();
    let beat = async || match pool.home().beat("w1", 1, 0).await {
        Ok(_) => Ok(()),
        Err(error) => {
            assert!(error.is_transient(), "{error}");
            seen.extend(error.fault());
            Err(error.to_string())
        }
    };
    wait_for(PATIENCE, "work to go on", beat).await.unwrap();
    seen
}

async fn on(server: RedisServer) -> Pool {
    Pool::on(Arc::new(Place::Single(Box::new(server))), "tm", 1).await
}

/// A pool whose every byte goes through a proxy, and gives up on a reply after 400 ms.
async fn proxied() -> (FaultProxy, Pool) {
    let server = RedisServer::start().await.unwrap();
    let proxy = FaultProxy::start(server.port()).await.unwrap();
    let url = server.url_through(proxy.port());
    let settings = Settings { url, response_timeout_ms: 400, ..Settings::default() };
    let pool = Pool::with(&settings, Arc::new(Place::Single(Box::new(server))), "tm", 1).await;
    (proxy, pool)
}

fn job(id: Option<&str>) -> [Admission<'_>; 1] {
    [Admission { id, fields: vec![("tool", b"echo")], ..Admission::default() }]
}

async fn enqueue(pool: &Pool, id: Option<&str>) -> Result<Vec<Enqueued>, Error> {
    pool.home().enqueue("default", 0, Duration::from_secs(60), &job(id)).await
}

#[tokio::test]
async fn a_replica_is_left_and_found_again_as_a_primary() {
    let pool = Pool::start().await;
    pool.cli(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let error = pool.home().beat("w1", 1, 0).await.unwrap_err();
    assert_eq!((error.fault(), error.remedy()), (Some(Fault::ReadOnly), Remedy::Reconnect));
    let error = pool.home().beat("w1", 1, 0).await.unwrap_err();
    assert_eq!(error.fault(), Some(Fault::ReadOnly), "no new connection is made to a replica: {error}");
    pool.cli(&["REPLICAOF", "NO", "ONE"]).await;
    assert!(until_well(&pool).await.is_subset(&[Fault::ReadOnly].into()));
}

#[tokio::test]
async fn at_the_memory_bound_nothing_is_taken_in_and_everything_can_be_settled() {
    let pool = Pool::start().await;
    start(&pool, "r1").await;
    let mut worker = pool.worker("w1");
    let held = claim(&mut worker, "default", 2).await;
    let plain = pool.xadd(&pool.jobs(), &["tool", "echo"]).await;
    let parked = pool.xadd(&pool.jobs(), &["tool", "echo"]).await;
    let moved = pool.xadd(&pool.jobs(), &["tool", "echo"]).await;
    claim(&mut worker, "default", 3).await;
    pool.cli(&["CONFIG", "SET", "maxmemory", "1"]).await;

    assert_eq!(fault(enqueue(&pool, Some("a")).await), Fault::OutOfMemory);
    assert_eq!(Fault::OutOfMemory.remedy(), Remedy::Wait);
    pool.home().beat("w1", 1, 0).await.unwrap();
    let head = result_head("a", StepState::Succeeded, None, None, 1);
    let done = Completion { entry: &plain, id: "a", head: &head, ttl_ms: 1_000, reply_to: None };
    assert_eq!(pool.home().complete("default", &[done]).await.unwrap(), [true]);
    let aside = Deferral {
        entry: &parked,
        id: "b",
        slot: None,
        state: DeferState::Parked,
        due: Due::In(Duration::ZERO),
        note: "",
        ran: Duration::ZERO,
        attempt: 1,
        changes: Vec::new(),
    };
    assert_eq!(pool.home().defer("default", keys::WORKERS, "w1", &[aside]).await.unwrap(), [true]);
    assert_eq!(pool.home().promote("default", &["j:b".to_owned()]).await.unwrap(), [true]);
    let back = [Held { entry: moved, slot: None, attempt: 1 }];
    let released =
        pool.home().release((&pool.jobs(), keys::WORKERS), "w1", ("w1", None), &back).await.unwrap();
    assert!(matches!(released[..], [Released::Moved(_)]));
    for entry in &held {
        let end = outcome(&entry.entry, "r1", step_of(entry), StepState::Succeeded);
        assert_eq!(settle(&pool, &[end]).await, [Settled::Recorded]);
    }
    assert!(run(&pool, "r1").await.steps.contains_key(&2), "what follows is dispatched");

    pool.cli(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert!(
        matches!(enqueue(&pool, Some("a")).await.unwrap()[..], [Enqueued::Ready(_)]),
        "nothing was remembered"
    );
}

#[tokio::test]
async fn a_script_that_runs_too_long_is_waited_for() {
    let pool = Pool::start().await;
    pool.cli(&["CONFIG", "SET", "busy-reply-threshold", "50"]).await;
    let endless = pool.place.server().cli(&["EVAL", "while true do end", "0"]);
    let kill = async {
        let busy = async || match pool.home().beat("w1", 1, 0).await {
            Err(error) if error.fault() == Some(Fault::Busy) => {
                assert_eq!(error.remedy(), Remedy::Wait);
                Ok(())
            }
            other => Err(format!("{other:?}")),
        };
        wait_for(PATIENCE, "BUSY", busy).await.unwrap();
        let before = pool.home().link().generation();
        pool.cli(&["SCRIPT", "KILL"]).await;
        until_well(&pool).await;
        assert_eq!(pool.home().link().generation(), before, "the connection is kept");
    };
    let (killed, ()) = tokio::join!(endless, kill);
    assert!(killed.is_err());
}

#[tokio::test]
async fn a_group_that_was_destroyed_is_made_again_and_what_waited_is_claimed() {
    let pool = Pool::start().await;
    let mut worker = pool.worker("w1");
    claim_now(&mut worker, "default", 1).await.unwrap();
    let entry = pool.xadd(&pool.jobs(), &["tool", "echo"]).await;
    pool.cli(&["XGROUP", "DESTROY", &pool.jobs(), keys::WORKERS]).await;
    assert!(worker.claim(&[("default", 1)], false).await.unwrap().is_empty(), "it is made on the way");
    let claimed = worker.claim(&[("default", 1)], false).await.unwrap();
    assert_eq!(claimed[0].1[0].entry, entry);
    assert!(
        pool.home().pending(("tm:{0}:jobs:none", keys::WORKERS), None, None, 1).await.unwrap().is_empty()
    );
}

#[tokio::test]
async fn a_blocked_read_survives_the_end_of_its_stream_and_of_its_group() {
    for end in [vec!["DEL"], vec!["XGROUP", "DESTROY"]] {
        let pool = Pool::start().await;
        let mut worker = pool.worker("w1");
        claim_now(&mut worker, "default", 1).await.unwrap();
        let jobs = pool.jobs();
        let blocked = worker.claim(&[("default", 1)], true);
        let cause = async {
            let waits = async || {
                let clients = pool.cli(&["CLIENT", "LIST"]).await;
                if clients.contains("cmd=xreadgroup") { Ok(()) } else { Err(clients) }
            };
            wait_for(PATIENCE, "a blocked read", waits).await.unwrap();
            let mut words = end.clone();
            words.push(&jobs);
            if end.len() == 2 {
                words.push(keys::WORKERS);
            }
            pool.cli(&words).await;
        };
        let (ended, ()) = tokio::join!(blocked, cause);
        match ended {
            Ok(claimed) => assert!(claimed.is_empty()),
            Err(error) => assert!(
                matches!(error.fault(), Some(Fault::Unblocked)) && error.remedy() == Remedy::Reconnect,
                "{error}"
            ),
        }
        let entry = pool.xadd(&jobs, &["tool", "echo"]).await;
        assert_eq!(claim(&mut worker, "default", 1).await[0].entry, entry);
    }
}

#[tokio::test]
async fn a_library_that_was_flushed_is_loaded_again() {
    let pool = Pool::start().await;
    enqueue(&pool, Some("a")).await.unwrap();
    pool.cli(&["FUNCTION", "FLUSH"]).await;
    let error = enqueue(&pool, Some("b")).await.unwrap_err();
    assert_eq!((error.fault(), error.remedy()), (Some(Fault::NoFunction), Remedy::LoadLibrary));
    assert!(matches!(enqueue(&pool, Some("b")).await.unwrap()[..], [Enqueued::Ready(_)]));
}

#[tokio::test]
async fn a_key_of_another_type_is_told_and_nothing_is_settled_on_it() {
    let pool = Pool::start().await;
    start(&pool, "r1").await;
    let held = claim(&mut pool.worker("w1"), "default", 2).await;
    pool.cli(&["DEL", &pool.keys().run("r1")]).await;
    pool.cli(&["SET", &pool.keys().run("r1"), "somebody else's"]).await;
    let end = outcome(&held[0].entry, "r1", step_of(&held[0]), StepState::Succeeded);
    assert_eq!(settle(&pool, std::slice::from_ref(&end)).await, [Settled::Corrupt]);
    assert_eq!(settle(&pool, &[end]).await, [Settled::Stale], "it went to the dead letters");
    assert_eq!(pool.home().letters(None, 10).await.unwrap()[0].code, "corrupt_run");
    pool.cli(&["SET", &pool.keys().jobs("broken"), "x"]).await;
    let error = pool.worker("w1").claim(&[("broken", 1)], false).await.unwrap_err();
    assert_eq!((error.fault(), error.remedy()), (Some(Fault::WrongType), Remedy::GiveUp));
    assert!(!error.is_transient());
}

#[tokio::test]
async fn a_user_without_the_right_to_load_needs_the_library_to_be_there() {
    let server = RedisServer::start().await.unwrap();
    let rules = ["ACL", "SETUSER", "worker", "on", ">pass", "~tm:*", "&*", "+@all", "-function", "-flushall"];
    server.cli(&rules).await.unwrap();
    let url = server.url().replacen("redis://", "redis://worker:pass@", 1);
    let store =
        |url: &str| Store::new(&Settings { url: url.to_owned(), ..Settings::default() }, "tm", 1).unwrap();
    let refused = store(&url).check().await.unwrap_err().to_string();
    assert!(refused.contains("may not load it") && refused.contains("start a scheduler first"), "{refused}");
    store(&server.url()).check().await.unwrap();
    let limited = store(&url);
    limited.check().await.unwrap();
    limited.home().beat("w1", 1, 0).await.unwrap();
    server.cli(&["ACL", "SETUSER", "worker", "-fcall"]).await.unwrap();
    let error = limited.home().beat("w1", 2, 0).await.unwrap_err();
    assert_eq!((error.fault(), error.remedy()), (Some(Fault::NoPermission), Remedy::GiveUp));
    let wrong = store(&server.url().replacen("redis://", "redis://worker:seasalt@", 1));
    let error = wrong.check().await.unwrap_err();
    assert_eq!((error.fault(), error.remedy()), (Some(Fault::Authentication), Remedy::GiveUp), "{error}");
    assert!(!error.to_string().contains("seasalt"), "{error}");
}

#[tokio::test]
async fn a_server_that_cannot_persist_or_replicate_is_waited_for() {
    let pool = Pool::start().await;
    pool.cli(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    let error = pool.home().beat("w1", 1, 0).await.unwrap_err();
    assert_eq!((error.fault(), error.remedy()), (Some(Fault::NoReplicas), Remedy::Wait), "{error}");
    pool.cli(&["CONFIG", "SET", "min-replicas-to-write", "0"]).await;
    assert!(until_well(&pool).await.is_empty());

    std::fs::create_dir(pool.place.server().folder().join("dump.rdb")).unwrap();
    pool.cli(&["CONFIG", "SET", "save", "3600 1"]).await;
    pool.cli(&["BGSAVE"]).await;
    let misconfigured = async || match pool.home().beat("w1", 1, 0).await {
        Err(error) if error.fault() == Some(Fault::Misconfigured) => Ok(error.remedy()),
        other => Err(format!("{other:?}")),
    };
    assert_eq!(wait_for(PATIENCE, "MISCONF", misconfigured).await.unwrap(), Remedy::Wait);
    pool.cli(&["CONFIG", "SET", "save", ""]).await;
    assert!(until_well(&pool).await.is_subset(&[Fault::Misconfigured].into()));
}

#[tokio::test]
async fn a_server_that_reads_its_data_set_is_waited_for() {
    let server = RedisServer::builder().aof(true).config("key-load-delay", "20").start().await.unwrap();
    let pool = on(server).await;
    // it answers between two stretches of a thousand commands
    pool.cli(&["EVAL", "for i = 1, 30000 do redis.call('SET', 'k' .. i, i) end", "0"]).await;
    for _ in 0..300 {
        enqueue(&pool, None).await.unwrap();
    }
    let Pool { place, store, .. } = pool;
    let Some(Place::Single(mut server)) = Arc::into_inner(place) else { panic!("the server is shared") };
    server.stop_hard().unwrap();
    let mut seen = HashSet::new();
    let watch = async || match store.home().beat("w1", 1, 0).await {
        Ok(_) => Ok(()),
        Err(error) => {
            assert!(error.is_transient(), "{error}");
            seen.extend(error.fault());
            Err(error.to_string())
        }
    };
    let (restarted, well) = tokio::join!(server.restart(), wait_for(PATIENCE, "work to go on", watch));
    restarted.unwrap();
    well.unwrap();
    assert!(seen.contains(&Fault::Loading), "{seen:?}");
    assert_eq!(server.cli(&["XLEN", "tm:{0}:jobs:default"]).await.unwrap(), "300");
}

#[tokio::test]
async fn a_cut_connection_is_made_anew_and_counted() {
    let (proxy, pool) = proxied().await;
    for _ in 0..5 {
        let before = pool.home().link().generation();
        proxy.cut();
        let seen = until_well(&pool).await;
        assert!(seen.is_subset(&[Fault::Io].into()), "{seen:?}");
        let renewed = async || {
            drop(pool.home().beat("w1", 1, 0).await);
            let now = pool.home().link().generation();
            if now > before { Ok(()) } else { Err(format!("generation {now}")) }
        };
        wait_for(PATIENCE, "a new connection", renewed).await.unwrap();
    }
}

#[tokio::test]
async fn a_black_hole_is_noticed_by_the_client_alone() {
    let (proxy, pool) = proxied().await;
    let mut worker = pool.store.claimer(0, keys::WORKERS, "w1", Duration::from_millis(200)).unwrap();
    claim_now(&mut worker, "default", 1).await.unwrap();
    proxy.set(Traffic::BlackHole);
    let started = tokio::time::Instant::now();
    let (asked, claimed) = tokio::join!(pool.home().beat("w1", 1, 0), worker.claim(&[("default", 1)], true));
    let error = asked.unwrap_err();
    assert_eq!((error.fault(), error.remedy()), (Some(Fault::Timeout), Remedy::Reconnect), "{error}");
    assert_eq!(fault(claimed), Fault::Timeout, "a blocked read too");
    assert!(started.elapsed() < Duration::from_secs(10));
    proxy.set(Traffic::Pass);
    until_well(&pool).await;
    let entry = pool.xadd(&pool.jobs(), &["tool", "echo"]).await;
    assert_eq!(claim(&mut worker, "default", 1).await[0].entry, entry);
}

#[tokio::test]
async fn a_call_whose_reply_was_lost_may_be_made_again() {
    let (proxy, pool) = proxied().await;
    proxy.drop_reply("tm1_enqueue", 1);
    assert_eq!(fault(enqueue(&pool, Some("a")).await), Fault::Io);
    assert_eq!(enqueue(&pool, Some("a")).await.unwrap(), [Enqueued::Duplicate]);
    assert_eq!(pool.length(&pool.jobs()).await, "1");

    let mut worker = pool.worker("w1");
    let plain = claim(&mut worker, "default", 1).await;
    let head = result_head("a", StepState::Succeeded, None, None, 1);
    let replies = pool.replies();
    let done = [Completion {
        entry: &plain[0].entry,
        id: "a",
        head: &head,
        ttl_ms: 60_000,
        reply_to: Some(&replies),
    }];
    proxy.drop_reply("tm1_complete", 1);
    assert_eq!(fault(pool.home().complete("default", &done).await), Fault::Io);
    assert_eq!(pool.home().complete("default", &done).await.unwrap(), [false], "it was recorded");
    assert_eq!(pool.length(&replies).await, "1", "and sent once");

    start(&pool, "r1").await;
    let held = claim(&mut worker, "default", 2).await;
    let [first, second] = &held[..] else { panic!("{held:?}") };
    let ends = [outcome(&first.entry, "r1", step_of(first), StepState::Succeeded)];
    proxy.drop_reply("tm1_settle_step", 1);
    let targets = ["default".to_owned()];
    assert_eq!(fault(pool.home().settle_steps("default", "w1", &targets, &ends).await), Fault::Io);
    assert_eq!(settle(&pool, &ends).await, [Settled::Stale]);
    assert_eq!(run(&pool, "r1").await.done, 1);

    let back = [Held { entry: second.entry.clone(), slot: Some(slot("r1", step_of(second))), attempt: 1 }];
    let jobs = pool.jobs();
    let release = async || pool.home().release((&jobs, keys::WORKERS), "w1", ("w1", None), &back).await;
    proxy.drop_reply("tm1_release", 1);
    assert_eq!(fault(release().await), Fault::Io);
    assert_eq!(release().await.unwrap(), [Released::Gone]);
    assert_eq!(pool.length(&jobs).await, "1", "it moved once");

    proxy.drop_reply("tm1_mend", 1);
    let seen = run(&pool, "r1").await.seq;
    let mend = async |steps: &[tidemill_store::Overlooked<'_>]| {
        pool.home().mend(("r1", WF), "default", seen, steps).await
    };
    let overlooked = [tidemill_store::Overlooked { step: 2, name: "c", queue: "default", ended: 1, ok: 1 }];
    assert_eq!(fault(mend(&overlooked).await), Fault::Io);
    assert_eq!(mend(&overlooked).await.unwrap(), 0);
    assert_eq!(proxy.replies_dropped(), 5);
}

#[tokio::test]
async fn a_read_whose_reply_was_lost_is_found_by_what_is_pending() {
    let (proxy, pool) = proxied().await;
    let mut worker = pool.worker("w1");
    claim_now(&mut worker, "default", 1).await.unwrap();
    let entry = pool.xadd(&pool.jobs(), &["tool", "echo"]).await;
    let before = worker.generation();
    proxy.drop_reply("XREADGROUP", 1);
    assert_eq!(fault(worker.claim(&[("default", 1)], false).await), Fault::Io);
    assert!(
        worker.claim(&[("default", 1)], false).await.unwrap().is_empty(),
        "it is ours and we do not know"
    );
    assert!(worker.generation() > before, "which the new connection tells");
    let pending = pool.home().pending((&pool.jobs(), keys::WORKERS), Some("w1"), None, 10).await.unwrap();
    assert_eq!(pending[0].entry, entry);
}

#[tokio::test]
async fn a_master_of_a_cluster_that_comes_back_empty_gets_the_library_again() {
    let mut cluster = RedisCluster::start(3).await.unwrap();
    let url = cluster.url().replacen("redis://", "redis+cluster://", 1);
    let settings = Settings { url, response_timeout_ms: 1_000, ..Settings::default() };
    let store = Store::new(&settings, "tm", 8).unwrap();
    store.check().await.unwrap();
    for node in &mut cluster.nodes_mut()[1..] {
        node.stop_hard().unwrap();
    }
    let mut failed = 0;
    for partition in store.partitions() {
        if let Err(error) = partition.beat("w1", 1, 0).await {
            assert!(error.is_transient(), "{error}");
            failed += 1;
        }
    }
    assert!(failed > 0, "two of three masters are gone");
    for node in &mut cluster.nodes_mut()[1..] {
        node.restart().await.unwrap();
    }
    for partition in store.partitions() {
        let beat = async || match partition.beat("w1", 2, 0).await {
            Ok(_) => Ok(()),
            Err(error) => {
                assert!(error.is_transient(), "{error}");
                Err(error.to_string())
            }
        };
        wait_for(PATIENCE, "every partition to work", beat).await.unwrap();
    }
}
