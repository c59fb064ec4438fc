//! A private primary with one replica, watched by three Sentinels.

use std::time::Duration;

use crate::{RedisServer, TestkitError, wait::wait_for};

const NAME: &str = "tidemill";
const SENTINELS: usize = 3;
const READY: Duration = Duration::from_secs(30);

/// A primary, a replica and three Sentinels that need two votes and call a server down after 500 ms.
#[derive(Debug)]
pub struct SentinelSetup {
    servers: Vec<RedisServer>,
    sentinels: Vec<RedisServer>,
}

impl SentinelSetup {
    /// Starts all five and waits until the replica is in step and the Sentinels know it and each other: from then on
    /// a failover can succeed.
    ///
    /// # Errors
    /// When a server does not start or the Sentinels do not agree.
    pub async fn start() -> Result<Self, TestkitError> {
        let primary = RedisServer::start().await?;
        let port = primary.port();
        let replica = RedisServer::builder().config("replicaof", format!("127.0.0.1 {port}")).start().await?;
        wait_for(READY, "the replica's link", async || {
            let info = replica.cli(&["info", "replication"]).await.map_err(|error| error.to_string())?;
            if info.contains("master_link_status:up") { Ok(()) } else { Err(info) }
        })
        .await?;
        let mut sentinels = Vec::with_capacity(SENTINELS);
        for _ in 0..SENTINELS {
            let sentinel = RedisServer::builder()
                .sentinel()
                .config("sentinel", format!("monitor {NAME} 127.0.0.1 {port} 2"))
                .config("sentinel", format!("down-after-milliseconds {NAME} 500"))
                .config("sentinel", format!("failover-timeout {NAME} 3000"))
                .config("sentinel", format!("parallel-syncs {NAME} 1"));
            sentinels.push(sentinel.start().await?);
        }
        let setup = Self { servers: vec![primary, replica], sentinels };
        setup.agree().await?;
        Ok(setup)
    }

    /// The name under which the Sentinels know the primary.
    pub const NAME: &str = NAME;

    /// `host:port` of each Sentinel.
    #[must_use]
    pub fn sentinel_addresses(&self) -> Vec<String> {
        self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port())).collect()
    }

    /// The Sentinels, to be stopped or asked.
    #[must_use]
    pub fn sentinels(&self) -> &[RedisServer] {
        &self.sentinels
    }

    /// The two data servers; which of them is the primary changes with a failover.
    #[must_use]
    pub fn servers(&self) -> &[RedisServer] {
        &self.servers
    }

    /// The two data servers, to be started again or paused.
    #[must_use]
    pub fn servers_mut(&mut self) -> &mut [RedisServer] {
        &mut self.servers
    }

    /// The port of the primary, as a Sentinel that can be asked sees it.
    ///
    /// # Errors
    /// When no Sentinel answers.
    pub async fn primary_port(&self) -> Result<u16, TestkitError> {
        let mut last = None;
        for sentinel in &self.sentinels {
            match sentinel.cli(&["sentinel", "get-master-addr-by-name", NAME]).await {
                Ok(answer) => {
                    if let Some(port) = answer.lines().nth(1).and_then(|port| port.trim().parse().ok()) {
                        return Ok(port);
                    }
                    last = Some(answer);
                }
                Err(error) => last = Some(error.to_string()),
            }
        }
        Err(TestkitError::NotReady {
            what: "no Sentinel names the primary".to_owned(),
            log: last.unwrap_or_default(),
        })
    }

    /// Asks for a failover while the primary lives, and waits until another port serves as primary; returns it.
    ///
    /// # Errors
    /// When the Sentinels refuse or the change does not come.
    pub async fn failover(&self) -> Result<u16, TestkitError> {
        let before = self.primary_port().await?;
        if let Some(sentinel) = self.sentinels.first() {
            sentinel.cli(&["sentinel", "failover", NAME]).await?;
        }
        self.await_primary_other_than(before).await
    }

    /// Kills the primary (SIGKILL) and returns its port, without waiting for the failover.
    ///
    /// # Errors
    /// When no Sentinel names the primary.
    pub async fn kill_primary(&mut self) -> Result<u16, TestkitError> {
        let port = self.primary_port().await?;
        for server in &mut self.servers {
            if server.port() == port {
                server.stop_hard()?;
            }
        }
        Ok(port)
    }

    /// Waits until a server on another port than `before` is the primary and says so itself; returns its port.
    ///
    /// # Errors
    /// When that does not come within 30 s.
    pub async fn await_primary_other_than(&self, before: u16) -> Result<u16, TestkitError> {
        wait_for(READY, "a new primary", async || {
            let port = self.primary_port().await.map_err(|error| error.to_string())?;
            let server = self.servers.iter().find(|server| server.port() == port && port != before);
            let Some(server) = server else { return Err(format!("the primary is still on port {port}")) };
            let role = server.cli(&["role"]).await.map_err(|error| error.to_string())?;
            if role.starts_with("master") { Ok(port) } else { Err(format!("port {port}: {role}")) }
        })
        .await
    }

    async fn agree(&self) -> Result<(), TestkitError> {
        for sentinel in &self.sentinels {
            wait_for(READY, "the Sentinels to know the replica and each other", async || {
                let state =
                    sentinel.cli(&["sentinel", "master", NAME]).await.map_err(|error| error.to_string())?;
                let lines: Vec<&str> = state.lines().collect();
                let is = |field: &str, value: &str| {
                    lines
                        .windows(2)
                        .any(|pair| matches!(pair, [name, seen] if *name == field && *seen == value))
                };
                if is("num-slaves", "1") && is("num-other-sentinels", "2") { Ok(()) } else { Err(state) }
            })
            .await?;
        }
        Ok(())
    }
}
