//! Logs: one line an event, on standard error.
//!
//! `pretty` is for people at a terminal; `json` is for machines: `timestamp`, `level`, `target`, `message`, and the
//! event's fields beside them. Neither lets a value forge a line or drive a terminal: control characters are escaped.

mod pretty;

use std::io::{self, IsTerminal};

use serde::{Deserialize, Serialize};
use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, fmt,
    fmt::{MakeWriter, format::JsonFields},
    layer::SubscriberExt,
};

/// Settings of logs (`log`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What is logged: `off`, `error`, `warn`, `info`, `debug`, `trace`, and for single parts
    /// `info,tidemill_worker=debug`.
    pub level: String,
    /// How it is written.
    pub format: Format,
}

impl Default for Settings {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: Format::Auto }
    }
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// `pretty` if standard error is a terminal, else `json`.
    #[default]
    Auto,
    /// For people.
    #[serde(alias = "text")]
    Pretty,
    /// For machines.
    Json,
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Why logs cannot be written as asked.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LogError {
    /// The level is none.
    #[error(
        "`{directive}` is no log level: write `info`, or off, error, warn, debug, trace, or `info,tidemill_worker=debug`"
    )]
    Level {
        /// The part of the setting that is wrong.
        directive: String,
    },
    /// Something has set up logs before.
    #[error("logs are set up already in this process")]
    Twice,
}

impl Settings {
    /// Refuses a level that is none.
    ///
    /// # Errors
    /// [`LogError::Level`].
    pub fn check(&self) -> Result<(), LogError> {
        self.filter().map(drop)
    }

    /// The library takes any bare word for the name of a target, and would log everything of a target `inof`.
    fn filter(&self) -> Result<EnvFilter, LogError> {
        for directive in self.level.split(',').map(str::trim) {
            let refuse = || LogError::Level { directive: directive.to_owned() };
            let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
            if !LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level)) {
                return Err(refuse());
            }
            EnvFilter::builder().parse(directive).map_err(|_| refuse())?;
        }
        EnvFilter::builder().parse(&self.level).map_err(|_| LogError::Level { directive: self.level.clone() })
    }
}

/// Writes the logs of this process from now on.
///
/// # Errors
/// [`LogError`].
pub fn init(settings: &Settings) -> Result<(), LogError> {
    let terminal = io::stderr().is_terminal();
    let subscriber = subscriber(settings, terminal, io::stderr)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Twice)
}

/// A subscriber that writes to `writer`, which is a terminal or not.
///
/// # Errors
/// [`LogError::Level`].
pub fn subscriber<W>(
    settings: &Settings,
    terminal: bool,
    writer: W,
) -> Result<impl Subscriber + Send + Sync + 'static, LogError>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let pretty = match settings.format {
        Format::Auto => terminal,
        Format::Pretty => true,
        Format::Json => false,
    };
    let layer: Box<dyn Layer<Registry> + Send + Sync> = if pretty {
        fmt::layer().with_ansi(terminal).fmt_fields(pretty::fields()).with_writer(writer).boxed()
    } else {
        let json = fmt::layer().json().flatten_event(true).with_current_span(true).with_span_list(false);
        json.fmt_fields(JsonFields::new()).with_ansi(false).with_writer(writer).boxed()
    };
    Ok(Registry::default().with(layer.with_filter(settings.filter()?)))
}

#[cfg(test)]
mod tests;
