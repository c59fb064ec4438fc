//! A private Redis Cluster of masters without replicas.

use std::time::Duration;

use crate::{RedisServer, TestkitError, wait::wait_for};

const SLOTS: usize = 16_384;
/// A master waits two seconds of its own before it calls a new cluster usable.
const READY: Duration = Duration::from_secs(30);

/// A Redis Cluster whose slots are spread evenly over its masters. Ends with its servers.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts `masters` servers (at least one), joins them, and waits until every one reports `cluster_state:ok`.
    ///
    /// # Errors
    /// When a server does not start or the cluster does not become usable.
    pub async fn start(masters: usize) -> Result<Self, TestkitError> {
        let masters = masters.max(1);
        let mut nodes = Vec::with_capacity(masters);
        for _ in 0..masters {
            let node = RedisServer::builder()
                .config("cluster-enabled", "yes")
                .config("cluster-config-file", "nodes.conf")
                .config("cluster-node-timeout", "2000");
            nodes.push(node.start().await?);
        }
        let cluster = Self { nodes };
        cluster.join().await?;
        cluster.agree().await?;
        Ok(cluster)
    }

    /// The address of the first master; a cluster client finds the rest.
    #[must_use]
    pub fn url(&self) -> String {
        self.nodes.first().map(RedisServer::url).unwrap_or_default()
    }

    /// The addresses of all masters, in their order.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(RedisServer::url).collect()
    }

    /// The masters.
    #[must_use]
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// The masters, to be stopped, paused or started again.
    #[must_use]
    pub fn nodes_mut(&mut self) -> &mut [RedisServer] {
        &mut self.nodes
    }

    /// As [`RedisServer::cli`], for a key on any of the masters.
    ///
    /// # Errors
    /// When the cluster cannot be reached or answers with an error.
    pub async fn cli(&self, arguments: &[&str]) -> Result<String, TestkitError> {
        match self.nodes.first() {
            Some(node) => node.cluster_cli(arguments).await,
            None => Ok(String::new()), // `start` makes at least one
        }
    }

    /// What `redis-cli --cluster create` does, without its pauses of a second.
    async fn join(&self) -> Result<(), TestkitError> {
        let count = self.nodes.len();
        for (index, node) in self.nodes.iter().enumerate() {
            let first = (SLOTS * index / count).to_string();
            let last = (SLOTS * (index + 1) / count - 1).to_string();
            node.cli(&["cluster", "addslotsrange", &first, &last]).await?;
            node.cli(&["cluster", "set-config-epoch", &(index + 1).to_string()]).await?;
        }
        if let Some((first, others)) = self.nodes.split_first() {
            let port = first.port().to_string();
            for node in others {
                node.cli(&["cluster", "meet", "127.0.0.1", &port]).await?;
            }
        }
        Ok(())
    }

    async fn agree(&self) -> Result<(), TestkitError> {
        let known = format!("cluster_known_nodes:{}\r", self.nodes.len());
        for node in &self.nodes {
            wait_for(READY, "cluster_state:ok on every master", async || {
                let info = node.cli(&["cluster", "info"]).await.map_err(|error| error.to_string())?;
                let usable = info.contains("cluster_state:ok") && info.contains(&known);
                if usable { Ok(()) } else { Err(format!("port {}: {info}", node.port())) }
            })
            .await?;
        }
        Ok(())
    }
}
