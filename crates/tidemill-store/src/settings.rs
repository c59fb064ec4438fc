//! How to reach Redis.

use serde::{Deserialize, Serialize};

/// The section `redis` of every program's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where Redis is: `redis://host:6379/0`, `rediss://…` (TLS), `redis+unix:///path`,
    /// `redis+sentinel://host:26379,host2:26379/master-name` or `redis+cluster://host:6379,host2:6379`
    /// (`rediss+…` for TLS). A user and password may stand before the host.
    pub url: String,
    /// A file that holds the password, read at each connect; wins over the URL's.
    pub password_file: Option<String>,
    /// Longest time to connect, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Longest time to wait for a reply, in milliseconds. Blocking reads add their own waiting time.
    pub response_timeout_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: "redis://127.0.0.1:6379/0".to_owned(),
            password_file: None,
            connect_timeout_ms: 2_000,
            response_timeout_ms: 5_000,
        }
    }
}
