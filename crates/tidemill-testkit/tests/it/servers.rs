//! Servers start, stop, freeze and come back.

use std::{fs, time::Duration};

use tidemill_testkit::{RedisCluster, RedisServer, SentinelSetup, TestkitError, wait_until};

#[tokio::test]
async fn a_server_answers_on_its_own_port_and_leaves_nothing_behind() {
    let server = RedisServer::start().await.unwrap();
    assert_eq!(server.cli(&["set", "k", "v"]).await.unwrap(), "OK");
    assert_eq!(server.cli(&["get", "k"]).await.unwrap(), "v");
    assert_eq!(server.cli(&["config", "get", "port"]).await.unwrap(), format!("port\n{}", server.port()));
    let (folder, pid) = (server.folder().to_owned(), server.pid().unwrap());
    drop(server);
    assert!(!folder.exists());
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap());
}

#[tokio::test]
async fn a_restart_on_an_append_only_file_keeps_the_data_and_without_one_loses_it() {
    let mut kept = RedisServer::builder().aof(true).start().await.unwrap();
    let mut lost = RedisServer::start().await.unwrap();
    for server in [&mut kept, &mut lost] {
        server.cli(&["set", "k", "v"]).await.unwrap();
        let (port, pid) = (server.port(), server.pid());
        server.stop_hard().unwrap();
        assert_eq!(server.pid(), None);
        assert!(matches!(server.cli(&["ping"]).await, Err(TestkitError::Cli { .. })));
        server.restart().await.unwrap();
        assert_eq!(server.port(), port);
        assert_ne!(server.pid(), pid);
    }
    assert_eq!(kept.cli(&["get", "k"]).await.unwrap(), "v");
    assert_eq!(lost.cli(&["get", "k"]).await.unwrap(), "");
}

#[tokio::test]
async fn a_paused_server_is_silent_until_resumed() {
    let mut server = RedisServer::start().await.unwrap();
    server.pause().unwrap();
    let silent = tokio::time::timeout(Duration::from_millis(200), server.cli(&["ping"])).await;
    assert!(silent.is_err(), "a frozen server answered: {silent:?}");
    server.resume().unwrap();
    assert_eq!(server.cli(&["ping"]).await.unwrap(), "PONG");
    server.pause().unwrap();
    server.stop_hard().unwrap();
    assert!(matches!(server.pause(), Err(TestkitError::NotReady { .. })));
}

#[tokio::test]
async fn a_password_is_required_and_stands_in_the_url() {
    let server = RedisServer::builder().password("seasalt").start().await.unwrap();
    assert_eq!(server.url(), format!("redis://:seasalt@127.0.0.1:{}", server.port()));
    assert_eq!(server.cli(&["ping"]).await.unwrap(), "PONG");
    let refused = server.cli(&["-a", "wrong", "ping"]).await.unwrap_err().to_string();
    assert!(refused.contains("NOAUTH") || refused.contains("WRONGPASS"), "{refused}");
}

#[tokio::test]
async fn a_configuration_reaches_the_server_and_a_wrong_one_fails_with_its_log() {
    let server = RedisServer::builder().config("maxmemory", "50mb").start().await.unwrap();
    assert_eq!(server.cli(&["config", "get", "maxmemory"]).await.unwrap(), "maxmemory\n52428800");
    let error = RedisServer::builder().config("no-such-setting", "1").start().await.unwrap_err().to_string();
    assert!(error.contains("ended while starting") && error.contains("no-such-setting"), "{error}");
}

#[tokio::test]
async fn a_cluster_of_three_masters_serves_every_slot() {
    let cluster = RedisCluster::start(3).await.unwrap();
    let url = cluster.url();
    assert_eq!(cluster.urls().len(), 3);
    assert!(url.ends_with(&cluster.nodes()[0].port().to_string()));
    for key in ["a", "b", "c", "d"] {
        assert_eq!(cluster.cli(&["set", key, key]).await.unwrap(), "OK");
        assert_eq!(cluster.cli(&["get", key]).await.unwrap(), key);
    }
    for node in cluster.nodes() {
        assert_ne!(
            node.cli(&["dbsize"]).await.unwrap(),
            "0",
            "these four keys are known to touch every third"
        );
    }
}

#[tokio::test]
async fn sentinels_replace_a_killed_primary() {
    let mut setup = SentinelSetup::start().await.unwrap();
    let first = setup.primary_port().await.unwrap();
    let killed = setup.kill_primary().await.unwrap();
    assert_eq!(killed, first);
    let second = setup.await_primary_other_than(first).await.unwrap();
    assert_ne!(second, first);
    assert_eq!(setup.primary_port().await.unwrap(), second);
}

#[tokio::test]
async fn sentinels_fail_over_when_asked() {
    let setup = SentinelSetup::start().await.unwrap();
    let first = setup.primary_port().await.unwrap();
    let second = setup.failover().await.unwrap();
    assert_ne!(second, first);
}

#[tokio::test]
async fn waiting_ends_with_what_was_seen() {
    let error = wait_until(Duration::from_millis(20), "a miracle", async || false).await.unwrap_err();
    assert_eq!(error.to_string(), "waited 20ms for a miracle; last seen: not yet");
}
