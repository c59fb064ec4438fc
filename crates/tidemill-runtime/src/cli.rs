//! Flags that all programs share.

use std::{
    fmt,
    io::{self, Write},
    path::PathBuf,
};

use clap::{Args, Subcommand};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    exit::Exit,
    settings::{self, Loaded, Problem, SettingsError, Sources, redact_urls},
};

/// Flags of every program; they override the file and the environment.
#[derive(Clone, Default, Args)]
pub struct CommonArgs {
    /// Settings file (YAML or JSON) [env: TIDEMILL_CONFIG]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Settings")]
    pub config: Option<PathBuf>,
    /// Redis to use; prefer the variable if it holds a password, as flags can be seen by others on the machine
    /// [env: TIDEMILL_REDIS_URL]
    #[arg(long, global = true, value_name = "URL", help_heading = "Settings")]
    pub redis_url: Option<String>,
    /// Prefix of all keys in Redis [env: TIDEMILL_NAMESPACE]
    #[arg(long, global = true, value_name = "NAME", help_heading = "Settings")]
    pub namespace: Option<String>,
    /// Address for HTTP; port 0 takes a free one [env: TIDEMILL_HTTP_ADDR]
    #[arg(long, global = true, value_name = "IP:PORT", help_heading = "Settings")]
    pub http_addr: Option<String>,
    /// What is logged: off, error, warn, info, debug, trace, or `info,tidemill_worker=debug` [env: LOG_LEVEL]
    #[arg(long, global = true, value_name = "LEVEL", help_heading = "Settings")]
    pub log_level: Option<String>,
    /// How it is logged: auto, pretty, json [env: TIDEMILL_LOG_FORMAT]
    #[arg(long, global = true, value_name = "FORMAT", help_heading = "Settings")]
    pub log_format: Option<String>,
    /// Any setting, such as worker.max_parallel=8; may be repeated
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = key_value, help_heading = "Settings")]
    pub set: Vec<(String, String)>,
}

/// Values may be secret, so `--set` shows only its keys and a URL no password.
impl fmt::Debug for CommonArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set: Vec<&str> = self.set.iter().map(|(key, _)| key.as_str()).collect();
        f.debug_struct("CommonArgs")
            .field("config", &self.config)
            .field("redis_url", &self.redis_url.as_deref().map(redact_urls))
            .field("set", &set)
            .finish_non_exhaustive()
    }
}

impl CommonArgs {
    /// The sources of settings that these flags, the environment and the file make up.
    #[must_use]
    pub fn sources(&self) -> Sources {
        self.over(Sources::from_process())
    }

    /// These flags over other sources.
    #[must_use]
    pub fn over(&self, mut sources: Sources) -> Sources {
        if let Some(file) = &self.config {
            sources = sources.file(file);
        }
        for (key, value) in &self.set {
            sources = sources.flag("--set", key, value);
        }
        let named = [
            ("--redis-url", "redis.url", &self.redis_url),
            ("--namespace", "namespace", &self.namespace),
            ("--http-addr", "http.addr", &self.http_addr),
            ("--log-level", "log.level", &self.log_level),
            ("--log-format", "log.format", &self.log_format),
        ];
        for (flag, key, value) in named {
            if let Some(value) = value {
                sources = sources.flag(flag, key, value);
            }
        }
        sources
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, such as worker.max_parallel=8")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

/// What to do with the settings instead of running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum ConfigCommand {
    /// Print the settings in force, each with its origin; secrets are hidden
    Print,
    /// Check the settings and tell everything that is wrong with them
    Check,
}

/// Carries out `config print` or `config check`. `check` finds what only the program itself can see.
///
/// # Errors
/// [`SettingsError`] with everything that is wrong.
pub fn config<T>(
    command: ConfigCommand,
    sources: &Sources,
    check: impl FnOnce(&Loaded<T>) -> Vec<Problem>,
) -> Result<Exit, SettingsError>
where
    T: DeserializeOwned + Serialize,
{
    let loaded = settings::load::<T>(sources)?;
    let problems = check(&loaded);
    if !problems.is_empty() {
        return Err(SettingsError::new(problems));
    }
    let text = match command {
        ConfigCommand::Print => loaded.print()?,
        ConfigCommand::Check => "settings are valid\n".to_owned(),
    };
    // A reader that has gone away (`| head`) is no failure of the settings.
    io::stdout().lock().write_all(text.as_bytes()).ok();
    Ok(Exit::Ok)
}
