//! The settings file of the pool: the vendor's endpoints as named tools, one program that may run.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// The namespace of the pool's keys.
pub(crate) const NAMESPACE: &str = "tm";
/// Endpoints of the vendor that are called by GET.
const LOOKUPS: [&str; 3] = ["climate", "daylight", "port"];
/// How many programs one worker runs at once; they need a processor, where calls only wait.
const MAX_PROGRAMS: usize = 16;
/// After so long a call to the vendor is given up, in milliseconds.
pub(crate) const CALL_TIMEOUT_MS: u64 = 2_000;

/// Writes the file; `vendor` gives the URL of an endpoint.
///
/// # Errors
/// `sha256sum` is not on PATH, or the file cannot be written.
pub(crate) fn write(file: &Path, vendor: impl Fn(&str) -> String) -> Result<()> {
    let sha256sum = on_path("sha256sum").context("sha256sum is not on PATH; it is part of coreutils")?;
    let mut tools = serde_json::Map::new();
    for endpoint in LOOKUPS {
        tools.insert(format!("vendor.{endpoint}"), vendor_tool(&json!({ "url": vendor(endpoint) })));
    }
    tools.insert(
        "vendor.survey".to_owned(),
        vendor_tool(&json!({ "url": vendor("survey"), "method": "POST" })),
    );
    let seal = json!({ "kind": "exec.run", "with": { "program": "sha256sum" } });
    tools.insert("city.seal".to_owned(), seal);
    let settings = json!({
        "namespace": NAMESPACE,
        "http": { "addr": "127.0.0.1:0" },
        "log": { "format": "json" },
        "worker": { "max_parallel": 100, "max_parallel_per_kind": { "exec": MAX_PROGRAMS }, "grace_ms": 5_000 },
        "shutdown": { "grace_ms": 5_000 },
        "exec": { "allow": { "sha256sum": sha256sum } },
        "tools": tools,
    });
    let text = serde_json::to_string_pretty(&settings)?;
    fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}

/// A call is tried up to six times.
fn vendor_tool(with: &Value) -> Value {
    json!({
        "kind": "http.request",
        "with": with,
        "timeout_ms": CALL_TIMEOUT_MS,
        "retry": { "max_attempts": 6, "base_ms": 100, "max_ms": 2_000 },
    })
}

/// Where a program is, by PATH.
pub(super) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())
}
