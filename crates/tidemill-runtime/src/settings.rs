//! Settings from one documented order of sources.
//!
//! Each source overrides those before it, key by key; lists are replaced whole:
//!
//! 1. the defaults in code,
//! 2. the file (YAML or JSON) named by `--config` or `TIDEMILL_CONFIG`,
//! 3. the environment: `TIDEMILL_WORKER__MAX_PARALLEL=8` is `worker.max_parallel`, and a few short names,
//! 4. the flags of the command line, `--set worker.max_parallel=8` among them.
//!
//! One file serves all programs. Each reads the sections that it knows; those of its siblings ([`SECTIONS`]) are left
//! to them; any other key is refused with its place and the nearest known one. All problems are told at once. No
//! value of a secret key and no password of a URL stands in a message or in what is printed.

mod compat;
mod environment;
mod key_path;
mod node;
mod origin;
mod print;
mod problem;
mod read;
mod secret;
mod yaml;

use std::{
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Serialize, de::DeserializeOwned};

pub use self::{
    compat::COMPATIBLE_NAMES,
    environment::{CONFIG_VARIABLE, SHORT_NAMES},
    problem::{Problem, SettingsError},
    secret::{is_secret_key, redact_urls},
};
use self::{
    key_path::KeyPath,
    node::{Node, Value},
    origin::Origin,
    problem::from_read_error,
};

/// Every top-level key that some program of Tidemill reads.
pub const SECTIONS: &[&str] = &[
    "redis",
    "namespace",
    "partitions",
    "http",
    "log",
    "shutdown",
    "worker",
    "scheduler",
    "producer",
    "dev",
    "cron",
    "tools",
    "exec",
    "http_request",
    "template",
    "jq",
    "queues",
    "services",
    "tenants",
    "workflows",
    "retention",
    "trace",
];

/// A settings file larger than this is refused.
const FILE_MAX_BYTES: u64 = 4 * 1024 * 1024;
/// Problems told at once; a file with more is most likely not a settings file.
const PROBLEMS_MAX: usize = 50;

/// Where settings come from, in rising precedence: file, environment, flags.
#[derive(Clone, Default)]
pub struct Sources {
    file: Option<PathBuf>,
    environment: Vec<(OsString, OsString)>,
    flags: Vec<Flag>,
}

#[derive(Clone)]
struct Flag {
    name: String,
    path: String,
    value: String,
}

/// Values may be secret, so only names are shown.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags: Vec<_> = self.flags.iter().map(|flag| (&flag.name, &flag.path)).collect();
        f.debug_struct("Sources").field("file", &self.file).field("flags", &flags).finish_non_exhaustive()
    }
}

impl Sources {
    /// No source at all: the defaults.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// The environment of this process.
    #[must_use]
    pub fn from_process() -> Self {
        Self::none().environment(std::env::vars_os())
    }

    /// Reads this file, whatever `TIDEMILL_CONFIG` says.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Takes these variables for the environment.
    #[must_use]
    pub fn environment<N: Into<OsString>, V: Into<OsString>>(
        mut self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        self.environment = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        self
    }

    /// Adds a flag: its name for messages (`--redis-url`), the key that it sets (`redis.url`) and its value.
    #[must_use]
    pub fn flag(mut self, name: &str, path: &str, value: impl Into<String>) -> Self {
        self.flags.push(Flag { name: name.to_owned(), path: path.to_owned(), value: value.into() });
        self
    }

    /// The file that is read, if any.
    #[must_use]
    pub fn file_path(&self) -> Option<PathBuf> {
        self.file.clone().or_else(|| environment::config_file(&self.environment))
    }
}

/// Settings, and where each of them came from.
pub struct Loaded<T> {
    /// The settings in force.
    pub settings: T,
    tree: Node,
}

/// Values may be secret: [`Loaded::print`] shows those that are not.
impl<T> fmt::Debug for Loaded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").finish_non_exhaustive()
    }
}

impl<T> Loaded<T> {
    /// Whether any source gave this key (`http.addr`), rather than the default.
    #[must_use]
    pub fn is_given(&self, key: &str) -> bool {
        KeyPath::parse(key).ok().and_then(|path| self.tree.get(path.segments())).is_some()
    }

    /// A problem with a key that only later checks can see, with the place that the key came from.
    #[must_use]
    pub fn problem(&self, key: &str, message: impl Into<String>) -> Problem {
        let segments = KeyPath::parse(key).map(KeyPath::into_segments).unwrap_or_default();
        Problem::new(self.tree.origin_of(&segments), key, message)
    }
}

impl<T: Serialize> Loaded<T> {
    /// All settings in force as YAML, each with its origin as a comment; secrets are replaced by `***`.
    ///
    /// # Errors
    /// When the settings cannot be expressed as YAML, which is a fault of their type.
    pub fn print(&self) -> Result<String, SettingsError> {
        match serde_json::to_value(&self.settings) {
            Ok(value) => Ok(print::print(&value, &self.tree)),
            Err(error) => Err(Problem::new(Origin::Default, "", error.to_string()).into()),
        }
    }
}

/// Reads settings of type `T` from `sources`.
///
/// `T` derives `Default` and `Deserialize` with `#[serde(default, deny_unknown_fields)]`, and so do the structs in it.
///
/// # Errors
/// Everything that is wrong with any source, with its file and line, variable or flag.
pub fn load<T>(sources: &Sources) -> Result<Loaded<T>, SettingsError>
where
    T: DeserializeOwned,
{
    let mut problems = Vec::new();
    let mut tree = Node::empty_map(Origin::Default);
    if let Some(path) = sources.file_path() {
        match read_file(&path) {
            Ok(node) => tree.overlay(node),
            Err(found) => problems.extend(found),
        }
    }
    for layer in environment::layers(&sources.environment, &mut problems) {
        tree.overlay(layer);
    }
    for flag in &sources.flags {
        let origin = Origin::Flag(flag.name.as_str().into());
        match KeyPath::parse(&flag.path) {
            Ok(path) => match yaml::inline(&flag.value, &origin) {
                Ok(value) => tree.overlay(Node::at(path.segments(), value)),
                Err(message) => problems.push(Problem::new(origin, &flag.path, message)),
            },
            Err(message) => problems.push(Problem::new(origin, &flag.path, message)),
        }
    }
    let settings = read_all(&tree, &mut problems);
    match settings {
        Some(settings) if problems.is_empty() => Ok(Loaded { settings, tree }),
        _ => Err(SettingsError::new(problems)),
    }
}

/// Reads the tree, taking out what is wrong and reading again, so that one run finds every problem.
fn read_all<T: DeserializeOwned>(tree: &Node, problems: &mut Vec<Problem>) -> Option<T> {
    let mut rest = tree.clone();
    while problems.len() < PROBLEMS_MAX {
        let error = match T::deserialize(read::Reader::new(&rest)) {
            Ok(settings) => return Some(settings),
            Err(error) => error,
        };
        let path = error.culprit();
        let sibling = matches!(path.as_slice(), [section] if error.is_unknown_key() && SECTIONS.contains(&section.as_str()));
        if !sibling {
            problems.push(from_read_error(&error, &rest));
        }
        if !rest.remove(&path) {
            return None;
        }
    }
    None
}

fn read_file(path: &Path) -> Result<Node, Vec<Problem>> {
    let whole = Origin::File { file: Arc::from(path), line: 0 };
    let refuse = |message: String| vec![Problem::new(whole.clone(), "", message)];
    let hint = "name another one with --config or TIDEMILL_CONFIG";
    let size = fs::metadata(path)
        .map_err(|error| refuse(format!("the settings file cannot be read: {error}; {hint}")))?
        .len();
    if size > FILE_MAX_BYTES {
        return Err(refuse(format!(
            "the settings file has {size} bytes, more than {FILE_MAX_BYTES}; {hint}"
        )));
    }
    let text = fs::read_to_string(path)
        .map_err(|error| refuse(format!("the settings file cannot be read: {error}; {hint}")))?;
    let node = yaml::parse(&text, &Arc::from(path))?;
    match node.value {
        Value::Map(_) | Value::Null => Ok(node),
        Value::Scalar { .. } | Value::List(_) => Err(refuse(
            "the settings file must hold keys and values at its top, such as `log: {level: info}`".to_owned(),
        )),
    }
}
