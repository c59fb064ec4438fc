//! The operator's settings of tools: shared bounds, and named tools made from a kind.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tidemill_tool::RetryPolicy;

/// Everything that an operator says about tools; each member is a section of the settings file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Named tools, and what differs from the defaults of built-in ones (default: none).
    pub tools: BTreeMap<String, NamedTool>,
    /// What `http.request` and the tools made from it may do.
    #[cfg(feature = "http")]
    pub http_request: crate::http::Settings,
    /// What `exec.run` and the tools made from it may run (default: nothing).
    #[cfg(feature = "exec")]
    pub exec: crate::exec::Settings,
    /// Bounds of `template.render`.
    #[cfg(feature = "template")]
    pub template: crate::template::Settings,
    /// Bounds of `jq.transform`.
    #[cfg(feature = "jq")]
    pub jq: crate::jq::Settings,
}

/// A tool under a name of the operator's: a kind, and what is fixed about it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NamedTool {
    /// The built-in tool that it is made from (default: its own name, if that is built in).
    pub kind: Option<String>,
    /// Whether workers have it (default true); `false` takes a built-in tool away.
    pub enabled: Option<bool>,
    /// Members of the input that are the operator's; a call that gives one of them is refused (default: none). Secrets
    /// stand here: `{secret: "env:NAME"}`, `{secret: "file:/path"}`.
    pub with: Map<String, Value>,
    /// Members of the input that are used where the call is silent (default: none).
    pub defaults: Map<String, Value>,
    /// How failed attempts are retried (default: the pool's).
    pub retry: RetryPolicy,
    /// How long an attempt may take, in milliseconds (default 30,000).
    pub timeout_ms: Option<u64>,
    /// The service that it depends on, whose limits and breaker its calls pass (default: the one whose `tools` fit its name).
    pub service: Option<String>,
    /// A sentence for people who list the tools.
    pub description: Option<String>,
}
