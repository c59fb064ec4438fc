//! One physical connection, to a single server or to a cluster.

use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{
    MultipleNodeRoutingInfo, ResponsePolicy, Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr,
};
use redis::io::tcp::TcpSettings;
use redis::sentinel::{Sentinel, SentinelNodeConnectionInfo};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, Pipeline, RedisFuture, RedisResult, TlsMode, Value,
};

use crate::endpoint::Endpoint;
use crate::{Error, Settings};

/// A connection that commands are sent over; clones share it.
#[derive(Clone)]
pub(crate) enum Wire {
    /// To one server.
    Single(MultiplexedConnection),
    /// To a cluster; commands go to the owner of their key.
    Cluster(ClusterConnection),
}

/// A dead peer is noticed by the kernel after about this long, if nothing else notices first.
const KEEPALIVE: Duration = Duration::from_secs(5);

fn tcp_settings() -> TcpSettings {
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(Duration::from_secs(2))
        .with_retries(3);
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(Duration::from_secs(15));
    settings
}

impl Wire {
    /// Connects once; `reply_within` bounds the wait for any reply (`None`: no bound).
    pub(crate) async fn connect(
        endpoint: &Endpoint,
        settings: &Settings,
        reply_within: Option<Duration>,
    ) -> Result<Self, Error> {
        install_tls();
        let connect_within = Duration::from_millis(settings.connect_timeout_ms);
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(connect_within))
            .set_response_timeout(reply_within);
        let failed = |error| Error::redis("connecting", error);
        match endpoint {
            Endpoint::Single(info) => {
                Self::single((**info).clone().set_tcp_settings(tcp_settings()), &config).await.map_err(failed)
            }
            Endpoint::Sentinel { sentinels, primary, login, tls } => {
                let node = SentinelNodeConnectionInfo::default()
                    .set_redis_connection_info(login.clone())
                    .set_tcp_settings(tcp_settings());
                let node = if *tls { node.set_tls_mode(TlsMode::Secure) } else { node };
                let places =
                    sentinels.iter().map(|(host, port)| format!("redis://{host}:{port}")).collect::<Vec<_>>();
                let mut sentinel = Sentinel::build(places).map_err(failed)?;
                let found =
                    tokio::time::timeout(connect_within * 2, sentinel.async_master_for(primary, Some(&node)));
                let client = found.await.map_err(|_| timed_out())?.map_err(failed)?;
                client
                    .get_multiplexed_async_connection_with_config(&config)
                    .await
                    .map(Self::Single)
                    .map_err(failed)
            }
            Endpoint::Cluster(nodes) => {
                let client = ClusterClientBuilder::new(nodes.clone())
                    .connection_timeout(connect_within)
                    .tcp_settings(tcp_settings())
                    .response_timeout(reply_within.unwrap_or(Duration::from_secs(3600)))
                    .overall_response_timeout(None)
                    .retries(3)
                    .build()
                    .map_err(failed)?;
                client.get_async_connection().await.map(Self::Cluster).map_err(failed)
            }
        }
    }

    async fn single(info: ConnectionInfo, config: &AsyncConnectionConfig) -> RedisResult<Self> {
        Client::open(info)?.get_multiplexed_async_connection_with_config(config).await.map(Self::Single)
    }

    /// Sends a command; in a cluster, to the primary that owns the key.
    pub(crate) async fn send_to_owner(&mut self, command: &Cmd, key: &str) -> RedisResult<Value> {
        match self {
            Self::Single(connection) => connection.req_packed_command(command).await,
            Self::Cluster(connection) => {
                let owner = SingleNodeRoutingInfo::SpecificNode(Route::with_key(key, SlotAddr::Master));
                connection.route_command(command.clone(), RoutingInfo::SingleNode(owner)).await
            }
        }
    }

    /// Sends a command to every primary; for a single server, to it.
    pub(crate) async fn on_every_primary(&mut self, command: Cmd) -> RedisResult<Value> {
        match self {
            Self::Single(connection) => connection.req_packed_command(&command).await,
            Self::Cluster(connection) => {
                let everywhere = (MultipleNodeRoutingInfo::AllMasters, Some(ResponsePolicy::AllSucceeded));
                connection.route_command(command, RoutingInfo::MultiNode(everywhere)).await
            }
        }
    }
}

fn timed_out() -> Error {
    let io = std::io::Error::new(std::io::ErrorKind::TimedOut, "no Sentinel answered in time");
    Error::redis("asking the Sentinels for the primary", io.into())
}

// the TLS library wants one provider per process; whoever comes first decides, and a second call changes nothing
fn install_tls() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

impl ConnectionLike for Wire {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Single(connection) => connection.req_packed_command(cmd),
            Self::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        cmd: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Single(connection) => connection.req_packed_commands(cmd, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(cmd, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}
