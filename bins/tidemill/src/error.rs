//! Why a command failed: its exit code, a stable word, and a sentence that says what to do.

use std::io::{self, Write};

use serde_json::{Value, json};
use tidemill_producer::{Code, Refusal};
use tidemill_protocol::InvalidName;
use tidemill_runtime::exit::Exit;
use tidemill_runtime::settings::SettingsError;

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Error {
    pub(crate) exit: Exit,
    code: String,
    message: String,
    problems: Vec<Value>,
}

/// What a command gives.
pub(crate) type Outcome<T = ()> = Result<T, Error>;

impl Error {
    fn new(exit: Exit, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { exit, code: code.into(), message: message.into(), problems: Vec::new() }
    }

    /// It was not possible.
    pub(crate) fn failed(code: &str, message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, code, message)
    }

    /// It was called wrongly.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "usage", message)
    }

    /// What was waited for did not come in time.
    pub(crate) fn unfinished(message: impl Into<String>) -> Self {
        Self::new(Exit::Unfinished, "unfinished", message)
    }

    /// Redis cannot be reached, or cannot be used.
    pub(crate) fn redis(message: impl Into<String>) -> Self {
        Self::new(Exit::Redis, "redis", message)
    }

    /// The sentence.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn with_problems(mut self, problems: Vec<Value>) -> Self {
        self.problems = problems;
        self
    }

    /// Writes it to standard error, as one JSON document if that is wanted, and gives the exit.
    pub(crate) fn tell(&self, as_json: bool) -> Exit {
        let mut text = if as_json {
            let mut error = json!({ "code": self.code, "message": self.message, "exit": self.exit.code() });
            if !self.problems.is_empty() {
                error["problems"] = Value::Array(self.problems.clone());
            }
            json!({ "error": error }).to_string()
        } else {
            format!("tidemill: {}", self.message)
        };
        text.push('\n');
        // nobody may be listening
        io::stderr().lock().write_all(text.as_bytes()).ok();
        self.exit
    }
}

impl From<tidemill_store::Error> for Error {
    fn from(error: tidemill_store::Error) -> Self {
        match &error {
            tidemill_store::Error::Redis { .. } | tidemill_store::Error::Unsuitable(_) => {
                Self::redis(error.to_string())
            }
            tidemill_store::Error::Settings(_) => Self::new(Exit::Settings, "settings", error.to_string()),
            tidemill_store::Error::Damaged(_) => Self::failed("damaged_definition", error.to_string()),
            tidemill_store::Error::Corrupt(_) => Self::failed("corrupt", error.to_string()),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let exit = match refusal.code {
            Code::RedisUnavailable | Code::RedisMemory => Exit::Redis,
            Code::InvalidJson | Code::InvalidRequest | Code::InvalidMember => Exit::Usage,
            _ => Exit::Failed,
        };
        Self::new(exit, refusal.code.as_str(), refusal.detail).with_problems(refusal.problems)
    }
}

impl From<InvalidName> for Error {
    fn from(error: InvalidName) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<SettingsError> for Error {
    fn from(error: SettingsError) -> Self {
        Self::new(Exit::Settings, "settings", format!("settings refused:\n{error}"))
    }
}
