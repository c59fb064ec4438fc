//! The tools that a worker can run, by name.
//!
//! A worker is started with one registry and never changes it: looking a tool up is one hash look-up that copies nothing.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tidemill_protocol::{RetryPolicy, check_service};

use crate::Tool;

/// How long an attempt may take when nothing else is said.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest name of a tool, in bytes.
const MAX_NAME_BYTES: usize = 128;

/// A tool under its name, with what the operator decided about it.
#[derive(Clone)]
#[non_exhaustive]
pub struct ToolEntry {
    /// The name that a job or a step asks for.
    pub name: Arc<str>,
    /// What runs.
    pub tool: Arc<dyn Tool>,
    /// [`Tool::kind`], read once: for caps per kind and for metrics.
    pub kind: &'static str,
    /// How a failed attempt is retried where neither the job nor the step says so.
    pub retry: RetryPolicy,
    /// How long an attempt may take where neither the job nor the step says so.
    pub timeout: Duration,
    /// Whether [`Self::with_timeout`] set it, so that it is not the default of whoever runs the tool.
    pub has_own_timeout: bool,
    /// The service that it depends on; absent: the one whose definition names it, if one does.
    pub service: Option<Arc<str>>,
    /// A sentence for people who list the tools.
    pub description: Arc<str>,
}

impl ToolEntry {
    /// A tool with the default timeout (30 s) and the default retries.
    pub fn new(name: impl Into<Arc<str>>, tool: Arc<dyn Tool>) -> Self {
        let kind = tool.kind();
        Self {
            name: name.into(),
            tool,
            kind,
            retry: RetryPolicy::default(),
            timeout: DEFAULT_TIMEOUT,
            has_own_timeout: false,
            service: None,
            description: Arc::from(""),
        }
    }

    /// Sets how failed attempts are retried.
    #[must_use]
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Sets how long an attempt may take.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self.has_own_timeout = true;
        self
    }

    /// Sets the service that it depends on, whose limits and breaker its calls pass.
    #[must_use]
    pub fn with_service(mut self, service: impl Into<Arc<str>>) -> Self {
        self.service = Some(service.into());
        self
    }

    /// Sets the sentence for people.
    #[must_use]
    pub fn with_description(mut self, description: impl Into<Arc<str>>) -> Self {
        self.description = description.into();
        self
    }
}

impl fmt::Debug for ToolEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolEntry")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("retry", &self.retry)
            .field("timeout", &self.timeout)
            .field("service", &self.service)
            .field("description", &self.description)
            .finish_non_exhaustive()
    }
}

/// Why a tool was not registered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistryError {
    /// The name is taken.
    Taken {
        /// The name asked for.
        name: String,
    },
    /// The name cannot stand in a job.
    BadName {
        /// The name asked for.
        name: String,
    },
    /// It depends on something that cannot be a service.
    BadService {
        /// The tool's name.
        name: String,
        /// What is wrong with the service's.
        why: String,
    },
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken { name } => write!(
                f,
                "a tool named `{name}` is registered already; choose another name, or use Registry::replace"
            ),
            Self::BadName { name } => write!(
                f,
                "`{}` cannot name a tool: use 1 to {MAX_NAME_BYTES} of a-z, A-Z, 0-9, `.`, `_`, `-`, and begin with a letter or a digit",
                name.escape_debug()
            ),
            Self::BadService { name, why } => write!(f, "{name}.service: {why}"),
        }
    }
}

impl std::error::Error for RegistryError {}

/// A name that no tool has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownTool {
    /// The name asked for.
    pub name: String,
    /// The known name that looks most like it, when one does.
    pub nearest: Option<Arc<str>>,
}

impl fmt::Display for UnknownTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no tool is named `{}`", self.name.escape_debug())?;
        match &self.nearest {
            Some(nearest) => write!(f, "; did you mean `{nearest}`?"),
            None => write!(f, "; `tidemill tools` lists the tools of this worker"),
        }
    }
}

impl std::error::Error for UnknownTool {}

/// The tools that a worker can run.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    entries: HashMap<Arc<str>, ToolEntry>,
}

impl Registry {
    /// A registry without any tool; the built-in ones come from `tidemill_tools::builtin`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tool with default timeout and retries.
    ///
    /// # Errors
    /// The name is taken, or cannot name a tool.
    pub fn register(&mut self, name: &str, tool: Arc<dyn Tool>) -> Result<(), RegistryError> {
        self.register_entry(ToolEntry::new(name, tool))
    }

    /// Adds a tool with its own timeout, retries or description.
    ///
    /// # Errors
    /// The name is taken, or cannot name a tool.
    pub fn register_entry(&mut self, entry: ToolEntry) -> Result<(), RegistryError> {
        if self.entries.contains_key(&entry.name) {
            return Err(RegistryError::Taken { name: entry.name.to_string() });
        }
        self.replace(entry).map(drop)
    }

    /// Adds a tool, or puts it in the place of the one that has its name, which is given back.
    ///
    /// # Errors
    /// The name cannot name a tool, or that of its service no service.
    pub fn replace(&mut self, entry: ToolEntry) -> Result<Option<ToolEntry>, RegistryError> {
        if !is_tool_name(&entry.name) {
            return Err(RegistryError::BadName { name: entry.name.to_string() });
        }
        if let Some(Err(error)) = entry.service.as_deref().map(check_service) {
            return Err(RegistryError::BadService { name: entry.name.to_string(), why: error.to_string() });
        }
        Ok(self.entries.insert(Arc::clone(&entry.name), entry))
    }

    /// Sets how long an attempt of a tool may take that has no timeout of its own; [`DEFAULT_TIMEOUT`] where this is not called.
    pub fn set_default_timeout(&mut self, timeout: Duration) {
        for entry in self.entries.values_mut().filter(|entry| !entry.has_own_timeout) {
            entry.timeout = timeout;
        }
    }

    /// Takes a tool out.
    pub fn remove(&mut self, name: &str) -> Option<ToolEntry> {
        self.entries.remove(name)
    }

    /// Looks a tool up: one hash look-up, nothing is copied.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&ToolEntry> {
        self.entries.get(name)
    }

    /// Looks a tool up, with an error that names the nearest known tool.
    ///
    /// # Errors
    /// No tool has this name.
    pub fn find(&self, name: &str) -> Result<&ToolEntry, UnknownTool> {
        self.get(name).ok_or_else(|| UnknownTool {
            name: name.chars().take(MAX_NAME_BYTES).collect(),
            nearest: self.nearest(name),
        })
    }

    /// How many tools there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no tool at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Every tool, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &ToolEntry> {
        self.entries.values()
    }

    /// The names, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.entries.keys().map(|name| &**name).collect();
        names.sort_unstable();
        names
    }

    /// The kinds, sorted, each once: the values that `kind` can take in metrics and in caps per kind.
    #[must_use]
    pub fn kinds(&self) -> Vec<&'static str> {
        let mut kinds: Vec<&'static str> = self.entries.values().map(|entry| entry.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    /// The JSON Schema of a tool's input.
    #[must_use]
    pub fn input_schema(&self, name: &str) -> Option<serde_json::Value> {
        self.get(name).map(|entry| entry.tool.input_schema())
    }

    fn nearest(&self, name: &str) -> Option<Arc<str>> {
        if name.len() > MAX_NAME_BYTES {
            return None;
        }
        let bound = (name.len() / 3).max(1);
        self.entries
            .keys()
            .map(|known| (strsim::levenshtein(name, known), known))
            .filter(|(distance, _)| *distance <= bound)
            .min_by(|a, b| a.cmp(b))
            .map(|(_, known)| Arc::clone(known))
    }
}

/// Whether a name can stand in a job (`name` of `name` or `name@version`).
fn is_tool_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    (1..=MAX_NAME_BYTES).contains(&bytes.len())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Call, ToolFuture};

    struct Nothing;

    impl Tool for Nothing {
        fn kind(&self) -> &'static str {
            "inline"
        }

        fn call(self: Arc<Self>, call: Call) -> ToolFuture {
            Box::pin(std::future::ready(Ok(call.input)))
        }
    }

    fn registry_of(names: &[&str]) -> Result<Registry, RegistryError> {
        let mut registry = Registry::new();
        for name in names {
            registry.register(name, Arc::new(Nothing))?;
        }
        Ok(registry)
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest_known_one() -> Result<(), RegistryError> {
        let registry = registry_of(&["http.request", "echo", "exec.run"])?;
        let unknown = registry.find("htp.requst").map(|entry| entry.name.clone());
        assert_eq!(
            unknown.map_err(|error| error.to_string()),
            Err("no tool is named `htp.requst`; did you mean `http.request`?".to_owned())
        );
        assert_eq!(registry.find("zzz").err().and_then(|error| error.nearest), None);
        Ok(())
    }

    #[test]
    fn a_name_is_given_once_and_can_be_replaced() -> Result<(), RegistryError> {
        let mut registry = registry_of(&["echo"])?;
        assert_eq!(
            registry.register("echo", Arc::new(Nothing)),
            Err(RegistryError::Taken { name: "echo".to_owned() })
        );
        let entry = ToolEntry::new("echo", Arc::new(Nothing)).with_timeout(Duration::from_secs(1));
        assert!(registry.replace(entry)?.is_some());
        assert_eq!(registry.get("echo").map(|entry| entry.timeout), Some(Duration::from_secs(1)));
        Ok(())
    }

    #[test]
    fn a_default_timeout_is_for_tools_without_one_of_their_own() -> Result<(), RegistryError> {
        let mut registry = registry_of(&["echo"])?;
        let (own, other) = (Duration::from_secs(1), Duration::from_secs(7));
        registry.register_entry(ToolEntry::new("slow", Arc::new(Nothing)).with_timeout(own))?;
        registry.set_default_timeout(other);
        assert_eq!(registry.get("echo").map(|entry| entry.timeout), Some(other));
        assert_eq!(registry.get("slow").map(|entry| entry.timeout), Some(own));
        Ok(())
    }

    #[test]
    fn names_that_could_not_stand_in_a_job_are_refused() {
        for name in ["", "a b", "a@1", ".a", "ä", &"a".repeat(129)] {
            assert!(
                matches!(registry_of(&[name]), Err(RegistryError::BadName { .. })),
                "`{name}` was taken as a name"
            );
        }
    }

    #[test]
    fn a_tool_depends_on_a_service_that_can_be_one() -> Result<(), RegistryError> {
        let mut registry = Registry::new();
        registry.register_entry(ToolEntry::new("a", Arc::new(Nothing)).with_service("openai"))?;
        assert_eq!(registry.get("a").and_then(|entry| entry.service.as_deref()), Some("openai"));
        for bad in ["", "open/ai", "@pool", "a:b"] {
            let refused = registry.replace(ToolEntry::new("b", Arc::new(Nothing)).with_service(bad));
            assert!(
                matches!(refused, Err(RegistryError::BadService { .. })),
                "`{bad}` was taken as a service"
            );
        }
        Ok(())
    }

    #[test]
    fn names_and_kinds_are_listed_in_order_and_once() -> Result<(), RegistryError> {
        let registry = registry_of(&["sleep", "echo"])?;
        assert_eq!(registry.names(), ["echo", "sleep"]);
        assert_eq!(registry.kinds(), ["inline"]);
        Ok(())
    }
}
