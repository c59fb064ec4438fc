//! The admin door over real TCP.

use std::net::SocketAddr;

use tidemill_runtime::{
    health::Health,
    http::{self, Settings, admin_router, bind, serve},
    metrics::Metrics,
    tasks::{OnFailure, Tasks},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Status, headers and body as one text.
async fn get(addr: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.expect("a listener");
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("a request goes out");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer comes");
    answer
}

#[tokio::test]
async fn the_door_tells_health_readiness_and_metrics_and_ends_at_shutdown() {
    let tasks = Tasks::new();
    let health = Health::new("worker", "1.2.3");
    let redis = health.component("redis");
    let router = admin_router(health.clone(), Metrics::new("worker", "1.2.3"));
    let (listener, addr) = bind(&Settings { addr: ANY }, true).await.unwrap();
    assert_ne!(addr.port(), 0);
    tasks.spawn("http", OnFailure::ShutDown, serve(listener, router, tasks.token()));

    let alive = get(addr, "/health").await;
    assert!(
        alive.starts_with("HTTP/1.1 200 ") && alive.contains(r#""status":"alive","program":"worker""#),
        "{alive}"
    );
    let starting = get(addr, "/ready").await;
    assert!(
        starting.starts_with("HTTP/1.1 503 ") && starting.contains(r#""reasons":["redis: starting"]"#),
        "{starting}"
    );
    redis.set_ready();
    let ready = get(addr, "/ready").await;
    assert!(ready.starts_with("HTTP/1.1 200 ") && ready.contains(r#""ready":true,"reasons":[]"#), "{ready}");
    redis.set_unready("deaf");
    assert!(get(addr, "/ready").await.starts_with("HTTP/1.1 503 "));
    let metrics = get(addr, "/metrics").await;
    assert!(
        metrics.contains("application/openmetrics-text") && metrics.contains("tidemill_build_info"),
        "{metrics}"
    );
    assert!(get(addr, "/nothing").await.starts_with("HTTP/1.1 404 "));

    let ended = tasks.shutdown(std::time::Duration::from_secs(5)).await;
    assert!(ended.unfinished.is_empty() && ended.failure.is_none(), "{ended:?}");
}

#[tokio::test]
async fn a_draining_process_says_that_it_is_ending_and_shows_its_metrics() {
    let tasks = Tasks::new();
    let health = Health::new("worker", "1.2.3");
    let router = admin_router(health.clone(), Metrics::new("worker", "1.2.3"));
    let (listener, addr) = bind(&Settings { addr: ANY }, true).await.unwrap();
    http::spawn_admin(&tasks, listener, router, health.clone());
    assert!(get(addr, "/ready").await.starts_with("HTTP/1.1 200 "));
    let (drained, drain) = tokio::sync::oneshot::channel::<()>();
    tasks.spawn("drain", OnFailure::ShutDown, drain);
    let ending = tasks.shutdown(std::time::Duration::from_secs(20));
    let watching = async {
        health.await_unready().await;
        let ready = get(addr, "/ready").await;
        assert!(ready.starts_with("HTTP/1.1 503 ") && ready.contains("process: ending"), "{ready}");
        assert!(get(addr, "/metrics").await.contains("tidemill_build_info"));
        drained.send(()).expect("the drain still runs");
    };
    let (ended, ()) = tokio::join!(ending, watching);
    assert!(ended.unfinished.is_empty() && ended.failure.is_none(), "{ended:?}");
}

#[tokio::test]
async fn a_taken_address_is_refused_if_it_was_asked_for_and_replaced_if_it_was_not() {
    let (_first, addr) = bind(&Settings { addr: ANY }, true).await.unwrap();
    let wanted = Settings { addr };
    let error = bind(&wanted, true).await.unwrap_err();
    assert!(matches!(error, http::HttpError::Bind { .. }));
    let text = error.to_string();
    assert!(text.contains(&addr.to_string()) && text.contains("TIDEMILL_HTTP_ADDR"), "{text}");
    let (_second, other) = bind(&wanted, false).await.unwrap();
    assert_ne!(other, addr);
}
