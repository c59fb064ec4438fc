//! From settings to the registry of a worker.

use std::sync::Arc;
use std::time::Duration;

use tidemill_tool::{Registry, RegistryError, Tool, ToolEntry};

use crate::input::Fixed;
use crate::secret::Secrets;
use crate::settings::{NamedTool, Settings};

/// Why the settings of tools cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A shared section is wrong.
    #[error("{section}.{why}")]
    Section {
        /// The section of the settings.
        section: &'static str,
        /// The key and what is wrong with it.
        why: String,
    },
    /// A named tool is wrong.
    #[error("tools.{name}: {why}")]
    Tool {
        /// The tool's name.
        name: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// A name cannot be registered.
    #[error("tools: {0}")]
    Name(#[from] RegistryError),
}

impl Error {
    pub(crate) fn section(section: &'static str) -> impl FnOnce(String) -> Self {
        move |why| Self::Section { section, why }
    }
}

/// The built-in tools, and the named ones of the settings. With default settings every built-in tool is there, and
/// `exec.run` refuses every program.
///
/// # Errors
/// A setting cannot be used; the error names its place. A process does not start on it.
pub fn builtin(settings: &Settings) -> Result<Registry, Error> {
    let kinds = Kinds::new(settings)?;
    let mut registry = Registry::new();
    for (name, description) in KINDS {
        if let Some(tool) = kinds.plain(name) {
            registry.register_entry(ToolEntry::new(*name, tool).with_description(*description))?;
        }
    }
    let secrets = Arc::new(Secrets::default());
    for (name, named) in &settings.tools {
        if named.enabled == Some(false) {
            registry.remove(name);
            continue;
        }
        let wrong = |why: String| Error::Tool { name: name.clone(), why };
        let kind = named.kind.as_deref().unwrap_or(name);
        let description = KINDS.iter().find(|(known, _)| *known == kind).map(|(_, description)| *description);
        let Some(description) = description else {
            return Err(wrong(unknown_kind(kind, named.kind.is_some())));
        };
        if KINDS.iter().any(|(known, _)| known == name) && kind != name {
            return Err(wrong(format!("`{name}` is built in; it cannot be made from `{kind}`")));
        }
        let tool = kinds.named(kind, name, named, &secrets).map_err(wrong)?;
        registry.replace(entry(name, tool, named, description).map_err(wrong)?)?;
    }
    Ok(registry)
}

fn entry(name: &str, tool: Arc<dyn Tool>, named: &NamedTool, description: &str) -> Result<ToolEntry, String> {
    let mut entry = ToolEntry::new(name, tool)
        .with_retry(named.retry.clone())
        .with_description(named.description.as_deref().unwrap_or(description));
    match named.timeout_ms {
        Some(0) => return Err("timeout_ms: 0 lets no attempt end; give at least 1".to_owned()),
        Some(ms) => entry = entry.with_timeout(Duration::from_millis(ms)),
        None => {}
    }
    if let Some(service) = &named.service {
        entry = entry.with_service(service.as_str());
    }
    Ok(entry)
}

fn unknown_kind(kind: &str, is_given: bool) -> String {
    let known: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
    let known = known.join(", ");
    if is_given {
        format!("kind: `{kind}` is no kind of tool; choose one of {known}")
    } else {
        format!("`kind` is missing; choose one of {known}")
    }
}

/// The built-in tools with their sentence, as far as they are compiled in.
const KINDS: &[(&str, &str)] = &[
    #[cfg(feature = "echo")]
    ("echo", "Gives its input back."),
    #[cfg(feature = "exec")]
    ("exec.run", "Runs a program that the operator allows."),
    #[cfg(feature = "http")]
    ("http.request", "Makes one HTTP request."),
    #[cfg(feature = "jq")]
    ("jq.transform", "Transforms JSON with a jq filter."),
    #[cfg(feature = "sleep")]
    ("sleep", "Waits."),
    #[cfg(feature = "template")]
    ("template.render", "Renders a Jinja template."),
];

/// What tools of one kind share.
struct Kinds {
    #[cfg(feature = "exec")]
    exec: Arc<crate::exec::Programs>,
    #[cfg(feature = "http")]
    http: crate::http::Client,
    #[cfg(feature = "template")]
    template: crate::template::Settings,
    #[cfg(feature = "jq")]
    jq: crate::jq::Settings,
}

impl Kinds {
    fn new(settings: &Settings) -> Result<Self, Error> {
        Ok(Self {
            #[cfg(feature = "exec")]
            exec: Arc::new(
                crate::exec::Programs::new(settings.exec.clone()).map_err(Error::section("exec"))?,
            ),
            #[cfg(feature = "http")]
            http: crate::http::Client::new(settings.http_request.clone())
                .map_err(Error::section("http_request"))?,
            #[cfg(feature = "template")]
            template: settings.template.clone(),
            #[cfg(feature = "jq")]
            jq: settings.jq.clone(),
        })
    }

    fn plain(&self, kind: &str) -> Option<Arc<dyn Tool>> {
        Some(match kind {
            #[cfg(feature = "echo")]
            "echo" => Arc::new(crate::Echo),
            #[cfg(feature = "sleep")]
            "sleep" => Arc::new(crate::Sleep),
            #[cfg(feature = "http")]
            "http.request" => Arc::new(crate::HttpRequest::new(self.http.clone())),
            #[cfg(feature = "exec")]
            "exec.run" => Arc::new(crate::ExecRun::new(Arc::clone(&self.exec))),
            #[cfg(feature = "template")]
            "template.render" => Arc::new(crate::TemplateRender::new(self.template.clone())),
            #[cfg(feature = "jq")]
            "jq.transform" => Arc::new(crate::JqTransform::new(self.jq.clone())),
            _ => return None,
        })
    }

    fn named(
        &self,
        kind: &str,
        name: &str,
        named: &NamedTool,
        secrets: &Arc<Secrets>,
    ) -> Result<Arc<dyn Tool>, String> {
        if named.with.is_empty() && named.defaults.is_empty() {
            return self.plain(kind).ok_or_else(|| unknown_kind(kind, true));
        }
        let fixed = || Fixed::new(named.with.clone(), named.defaults.clone(), Arc::clone(secrets));
        let name: Arc<str> = Arc::from(name);
        Ok(match kind {
            #[cfg(feature = "http")]
            "http.request" => Arc::new(crate::HttpRequest::named(name, self.http.clone(), fixed()?)?),
            #[cfg(feature = "exec")]
            "exec.run" => Arc::new(crate::ExecRun::named(name, Arc::clone(&self.exec), fixed()?)?),
            #[cfg(feature = "template")]
            "template.render" => {
                Arc::new(crate::TemplateRender::named(name, self.template.clone(), fixed()?)?)
            }
            #[cfg(feature = "jq")]
            "jq.transform" => Arc::new(crate::JqTransform::named(name, self.jq.clone(), fixed()?)?),
            _ => {
                drop((fixed, name));
                return Err(format!("`{kind}` takes neither `with` nor `defaults`"));
            }
        })
    }
}
