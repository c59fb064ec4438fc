//! The fault proxy, spoken to in plain RESP.

use std::time::Duration;

use tidemill_testkit::{FaultProxy, RedisServer, Traffic};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

const SHORT: Duration = Duration::from_millis(150);

struct Client(TcpStream);

impl Client {
    async fn connect(proxy: &FaultProxy) -> Self {
        Self(TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap())
    }

    async fn send(&mut self, line: &str) {
        self.0.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
    }

    /// The reply, or "" when the connection was cut.
    async fn reply(&mut self) -> String {
        let mut buffer = [0; 256];
        let length = self.0.read(&mut buffer).await.unwrap_or(0);
        String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned()
    }

    async fn ask(&mut self, line: &str) -> String {
        self.send(line).await;
        self.reply().await
    }
}

async fn proxied() -> (RedisServer, FaultProxy) {
    let server = RedisServer::start().await.expect("a private server");
    let proxy = FaultProxy::start(server.port()).await.expect("a proxy");
    (server, proxy)
}

#[tokio::test]
async fn passing_traffic_is_untouched_until_a_cut_which_spares_new_connections() {
    let (_server, proxy) = proxied().await;
    let mut client = Client::connect(&proxy).await;
    assert_eq!(client.ask("PING").await, "+PONG");
    proxy.cut();
    assert_eq!(client.reply().await, "");
    let mut again = Client::connect(&proxy).await;
    assert_eq!(again.ask("PING").await, "+PONG");
    proxy.await_connections(2).await;
}

#[tokio::test]
async fn a_black_hole_keeps_connections_and_delivers_when_it_ends() {
    let (server, proxy) = proxied().await;
    let mut open = Client::connect(&proxy).await;
    assert_eq!(open.ask("PING").await, "+PONG");
    proxy.set(Traffic::BlackHole);
    let mut fresh = Client::connect(&proxy).await;
    open.send("SET k open").await;
    fresh.send("PING").await;
    assert!(timeout(SHORT, open.reply()).await.is_err());
    assert!(timeout(SHORT, fresh.reply()).await.is_err());
    assert_eq!(server.cli(&["exists", "k"]).await.unwrap(), "0");
    proxy.set(Traffic::Pass);
    assert_eq!(open.reply().await, "+OK");
    assert_eq!(fresh.reply().await, "+PONG");
}

#[tokio::test]
async fn held_replies_leave_the_request_carried_out() {
    let (server, proxy) = proxied().await;
    proxy.set(Traffic::HoldReplies);
    let mut client = Client::connect(&proxy).await;
    client.send("SET k v").await;
    assert!(timeout(SHORT, client.reply()).await.is_err());
    assert_eq!(server.cli(&["get", "k"]).await.unwrap(), "v");
    proxy.set(Traffic::Pass);
    assert_eq!(client.reply().await, "+OK");
}

#[tokio::test]
async fn a_delay_is_added_in_each_direction() {
    let (_server, proxy) = proxied().await;
    let mut client = Client::connect(&proxy).await;
    proxy.set(Traffic::Delay(Duration::from_millis(40)));
    let start = Instant::now();
    assert_eq!(client.ask("PING").await, "+PONG");
    assert!(start.elapsed() >= Duration::from_millis(80));
}

#[tokio::test]
async fn refusing_cuts_open_connections_and_takes_no_new_ones() {
    let (_server, proxy) = proxied().await;
    let mut client = Client::connect(&proxy).await;
    assert_eq!(client.ask("PING").await, "+PONG");
    proxy.set(Traffic::Refuse);
    assert_eq!(client.reply().await, "");
    let mut fresh = Client::connect(&proxy).await;
    assert_eq!(fresh.reply().await, "");
}

#[tokio::test]
async fn the_chosen_reply_is_dropped_after_the_server_did_the_work() {
    let (server, proxy) = proxied().await;
    let mut client = Client::connect(&proxy).await;
    proxy.drop_reply("INCR", 2);
    assert_eq!(client.ask("INCR n").await, ":1");
    assert_eq!(client.ask("PING").await, "+PONG");
    assert_eq!(client.ask("INCR n").await, "", "the reply must not arrive");
    proxy.await_dropped(1).await;
    assert_eq!(server.cli(&["get", "n"]).await.unwrap(), "2");
    let mut again = Client::connect(&proxy).await;
    assert_eq!(again.ask("INCR n").await, ":3", "the order holds once");
    assert_eq!(proxy.replies_dropped(), 1);
}

#[tokio::test]
async fn a_request_split_over_two_packets_is_recognised() {
    let (server, proxy) = proxied().await;
    let mut client = Client::connect(&proxy).await;
    proxy.drop_reply("INCR", 1);
    client.0.set_nodelay(true).unwrap();
    client.0.write_all(b"PING\r\nIN").await.unwrap();
    assert_eq!(client.reply().await, "+PONG"); // so the first half has gone through alone
    client.send("CR n").await;
    assert_eq!(client.reply().await, "");
    assert_eq!(server.cli(&["get", "n"]).await.unwrap(), "1");
}
