//! More than one server.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;
use tidemill_store::{Admission, Settings, Store, keys};
use tidemill_testkit::{RedisCluster, SentinelSetup, wait_for};

use crate::pool::{LONG, Program, SCHEDULER, WORKER};

const FLOW: &str = "name: flow\nsteps:\n  - { id: a, tool: sleep, with: { ms: 20 } }\n  - { id: b, tool: echo, needs: [a], with: { ok: true } }\n";

fn store(url: &str, partitions: u32) -> Store {
    Store::new(&Settings { url: url.to_owned(), ..Settings::default() }, "tm", partitions).unwrap()
}

/// Takes in so many jobs or runs, each where its id belongs; the result is kept for an hour.
async fn ask(store: &Store, prefix: &str, count: usize, target: (&str, &str)) -> Vec<String> {
    let ids: Vec<String> = (0..count).map(|n| format!("{prefix}-{n}")).collect();
    let queue = if target.0 == "workflow" { keys::RUNS } else { "default" };
    for partition in store.partitions() {
        let own = ids.iter().filter(|id| store.partition_of(id).index() == partition.index());
        let jobs: Vec<Admission<'_>> = own
            .map(|id| Admission {
                id: Some(id),
                fields: vec![
                    (target.0, target.1.as_bytes()),
                    ("id", id.as_bytes()),
                    ("input", b"{\"ms\":20}"),
                    ("result_ttl_ms", b"3600000"),
                ],
                ..Admission::default()
            })
            .collect();
        let taken = async || match partition.enqueue(queue, 0, LONG * 100, &jobs).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_transient() => Err(error.to_string()),
            Err(error) => panic!("{error}"),
        };
        wait_for(LONG, "work to be taken in", taken).await.unwrap();
    }
    ids
}

/// Waits until so many of these have a result; gives the states.
async fn results(store: &Store, ids: &[String], count: usize) -> HashMap<String, String> {
    let mut states = HashMap::new();
    let came = async || {
        for id in ids {
            if !states.contains_key(id)
                && let Some(result) =
                    store.partition_of(id).result(id).await.map_err(|error| error.to_string())?
            {
                let result: Value = serde_json::from_str(&result).unwrap();
                states.insert(id.clone(), result["state"].as_str().unwrap().to_owned());
                if states.len() >= count {
                    break;
                }
            }
        }
        if states.len() >= count { Ok(()) } else { Err(format!("{} of {count}", states.len())) }
    };
    wait_for(LONG, "results", came).await.unwrap();
    states
}

async fn nothing_is_left(store: &Store) {
    let empty = async || {
        for partition in store.partitions() {
            let depth = partition.depth("default").await.map_err(|error| error.to_string())?;
            let runs = partition.run_counts().await.map_err(|error| error.to_string())?;
            if (depth.ready, depth.running, depth.deferred + depth.parked, runs.0) != (0, 0, 0, 0) {
                return Err(format!("partition {}: {depth:?}, {} live runs", partition.index(), runs.0));
            }
        }
        Ok(())
    };
    wait_for(LONG, "nothing to be left", empty).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_serves_eight_partitions_while_one_master_freezes() {
    let cluster = RedisCluster::start(3).await.unwrap();
    let url = cluster.url().replacen("redis://", "redis+cluster://", 1);
    let store = store(&url, 8);
    store.check().await.unwrap();
    assert!(store.home().publish("flow", 1, FLOW).await.unwrap());
    let settings = [("TIDEMILL_PARTITIONS", "8")];
    let (scheduler, worker) = (
        Program::start(&url, SCHEDULER, &settings, None).await,
        Program::start(&url, WORKER, &settings, None).await,
    );
    let mut ids = ask(&store, "job", 2_000, ("tool", "sleep")).await;
    ids.extend(ask(&store, "run", 200, ("workflow", "flow")).await);
    results(&store, &ids, 500).await;
    cluster.nodes()[1].pause().unwrap();
    // longer than the cluster needs to call the master failed
    tokio::time::sleep(Duration::from_secs(4)).await;
    cluster.nodes()[1].resume().unwrap();
    let states = results(&store, &ids, ids.len()).await;
    let wrong: Vec<_> = states.iter().filter(|(_, state)| *state != "succeeded").collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    nothing_is_left(&store).await;
    worker.ready_is(200).await;
    scheduler.ready_is(200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_follow_a_failover_by_themselves() {
    let mut setup = SentinelSetup::start().await.unwrap();
    let url = format!("redis+sentinel://{}/{}", setup.sentinel_addresses().join(","), SentinelSetup::NAME);
    let store = store(&url, 1);
    store.check().await.unwrap();
    assert!(store.home().publish("flow", 1, FLOW).await.unwrap());
    let (scheduler, worker) =
        (Program::start(&url, SCHEDULER, &[], None).await, Program::start(&url, WORKER, &[], None).await);
    let mut before = ask(&store, "job", 1_000, ("tool", "sleep")).await;
    before.extend(ask(&store, "run", 100, ("workflow", "flow")).await);
    results(&store, &before, 300).await;
    let port = setup.kill_primary().await.unwrap();
    setup.await_primary_other_than(port).await.unwrap();
    // what the old primary answered and did not pass on is lost; anything taken in from here on is not
    let mut after = ask(&store, "later", 500, ("tool", "sleep")).await;
    after.extend(ask(&store, "laterrun", 50, ("workflow", "flow")).await);
    let states = results(&store, &after, after.len()).await;
    assert!(states.values().all(|state| state == "succeeded"), "{states:?}");
    nothing_is_left(&store).await;
    let mut lost = 0;
    for id in &before {
        lost += usize::from(store.home().result(id).await.unwrap().is_none());
    }
    println!("of {} taken in before the failover, {lost} were lost with the old primary", before.len());
    worker.ready_is(200).await;
    scheduler.ready_is(200).await;
}
