//! Settings of `http.request`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Settings of `http.request` and of every named tool made from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Networks that may be called although they are not public, as CIDR (`10.1.0.0/16`, `::1/128`; default: none).
    pub allow_networks: Vec<String>,
    /// Hosts that may be called although they resolve to private addresses: `name`, `name:port` or `*.suffix`
    /// (default: none). Link-local addresses, where clouds keep credentials, still need `allow_networks`.
    pub allow_hosts: Vec<String>,
    /// When not empty, the only hosts that may be called at all, in the form of `allow_hosts` (default: empty).
    pub only_hosts: Vec<String>,
    /// How long making a connection may take, TLS included, in milliseconds (default 5,000).
    pub connect_timeout_ms: u64,
    /// The largest body of a response, in bytes (default 1,048,576); a call may ask for less.
    pub max_response_bytes: usize,
    /// The most redirects that are followed (default 5); a call may ask for fewer.
    pub max_redirects: u32,
    /// How long an unused connection is kept, in milliseconds (default 30,000; 0: never reused).
    pub idle_timeout_ms: u64,
    /// How many unused connections are kept per origin (default 1,024).
    pub max_idle_per_origin: usize,
    /// A PEM file of certificate authorities that are trusted beside the public ones (default: none).
    pub ca_file: Option<PathBuf>,
    /// The `User-Agent` header (default `tidemill/<version>`).
    pub user_agent: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            allow_networks: Vec::new(),
            allow_hosts: Vec::new(),
            only_hosts: Vec::new(),
            connect_timeout_ms: 5_000,
            max_response_bytes: 1024 * 1024,
            max_redirects: 5,
            idle_timeout_ms: 30_000,
            max_idle_per_origin: 1_024,
            ca_file: None,
            user_agent: concat!("tidemill/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}
