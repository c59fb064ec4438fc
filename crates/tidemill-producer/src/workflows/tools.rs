//! The tools that a definition is checked against.

use std::collections::HashMap;

use serde_json::Value;
use tidemill_workflow::ToolCatalog;

/// Tools that every worker runs without configuration.
const BUILT_IN: [&str; 6] = ["http.request", "exec.run", "jq.transform", "template.render", "sleep", "echo"];

/// What workers have announced, and what is built in.
pub(crate) struct KnownTools {
    announced: HashMap<String, Value>,
}

impl KnownTools {
    /// From the descriptions that workers wrote; one that cannot be read counts as a tool without a schema.
    pub(crate) fn new(announced: HashMap<String, String>) -> Self {
        let read = |(name, text): (String, String)| (name, serde_json::from_str(&text).unwrap_or_default());
        Self { announced: announced.into_iter().map(read).collect() }
    }
}

fn plain(tool: &str) -> &str {
    tool.split_once('@').map_or(tool, |(name, _)| name)
}

impl ToolCatalog for KnownTools {
    fn knows(&self, tool: &str) -> bool {
        self.announced.contains_key(tool)
            || self.announced.contains_key(plain(tool))
            || BUILT_IN.contains(&plain(tool))
    }

    fn input_schema(&self, tool: &str) -> Option<Value> {
        let described = self.announced.get(tool).or_else(|| self.announced.get(plain(tool)))?;
        described.get("input_schema").filter(|schema| !schema.is_null()).cloned()
    }

    fn names(&self) -> Vec<String> {
        let built_in = BUILT_IN.iter().map(|name| (*name).to_owned());
        let mut names: Vec<String> = self.announced.keys().cloned().chain(built_in).collect();
        names.sort();
        names.dedup();
        names
    }
}
