//! The tools that a definition is checked against: built in, made by the settings, announced by workers.

use std::collections::HashMap;

use serde_json::Value;
use tidemill_runtime::exit::Exit;
use tidemill_runtime::program::Failure;
use tidemill_tool::Registry;
use tidemill_workflow::ToolCatalog;

use crate::context::Context;
use crate::error::{Error, Outcome};
use crate::settings::Settings;

/// The known tools.
#[derive(Debug)]
pub(crate) struct Tools {
    here: Registry,
    announced: HashMap<String, Value>,
    any: bool,
}

impl Tools {
    /// The tools that are built in or made by the settings.
    pub(crate) fn here(settings: &Settings) -> Outcome<Self> {
        let here = registry(settings)
            .map_err(|error| Error::failed("settings", format!("settings refused: {error}")))?;
        Ok(Self { here, announced: HashMap::new(), any: false })
    }

    /// Those and what workers have announced.
    pub(crate) async fn of_pool(context: &Context) -> Outcome<Self> {
        let mut tools = Self::here(&context.settings)?;
        tools.announced = announced(context).await?;
        Ok(tools)
    }

    /// Lets unknown tools pass.
    pub(crate) const fn or_any(mut self, any: bool) -> Self {
        self.any = any;
        self
    }
}

/// The registry that a worker with these settings has.
pub(crate) fn registry(settings: &Settings) -> Result<Registry, Failure> {
    tidemill_tools::builtin(&settings.tools()).map_err(|error| Failure::new(Exit::Settings, error))
}

/// What workers have announced; a description that cannot be read counts as empty.
pub(crate) async fn announced(context: &Context) -> Outcome<HashMap<String, Value>> {
    let tools = context.store.home().tools().await?;
    Ok(tools
        .into_iter()
        .map(|(name, text)| (name, serde_json::from_str(&text).unwrap_or_default()))
        .collect())
}

fn plain(tool: &str) -> &str {
    tool.split_once('@').map_or(tool, |(name, _)| name)
}

impl ToolCatalog for Tools {
    fn knows(&self, tool: &str) -> bool {
        self.any
            || [tool, plain(tool)]
                .iter()
                .any(|name| self.here.get(name).is_some() || self.announced.contains_key(*name))
    }

    fn input_schema(&self, tool: &str) -> Option<Value> {
        // what workers really have wins over what this machine's settings say
        let announced = self.announced.get(tool).or_else(|| self.announced.get(plain(tool)));
        match announced {
            Some(described) => described.get("input_schema").filter(|schema| !schema.is_null()).cloned(),
            None => self.here.input_schema(plain(tool)),
        }
    }

    fn names(&self) -> Vec<String> {
        let here = self.here.names().into_iter().map(str::to_owned);
        let mut names: Vec<String> = here.chain(self.announced.keys().cloned()).collect();
        names.sort();
        names.dedup();
        names
    }
}
