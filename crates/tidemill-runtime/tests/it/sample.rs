//! Settings of an imaginary program, and the sources to fill them from.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tidemill_runtime::{
    http, log,
    settings::{Loaded, SettingsError, Sources, load},
    shutdown,
};

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Sample {
    pub(crate) redis: Redis,
    pub(crate) namespace: String,
    pub(crate) http: http::Settings,
    pub(crate) log: log::Settings,
    pub(crate) shutdown: shutdown::Settings,
    pub(crate) worker: Worker,
    pub(crate) tools: BTreeMap<String, Tool>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Redis {
    pub(crate) url: String,
    pub(crate) password: Option<String>,
    pub(crate) ports: Vec<u16>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Worker {
    pub(crate) max_parallel: u32,
    pub(crate) share: f64,
    pub(crate) strict: bool,
    pub(crate) order: Order,
    pub(crate) weights: BTreeMap<String, u32>,
    pub(crate) label: Option<String>,
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            max_parallel: 64,
            share: 0.5,
            strict: false,
            order: Order::Weighted,
            weights: BTreeMap::new(),
            label: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    Weighted,
    Strict,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Tool {
    pub(crate) kind: String,
    pub(crate) with: serde_json::Value,
    pub(crate) timeout_ms: Option<u64>,
}

/// A settings file in a folder that lives as long as this.
pub(crate) struct File {
    _folder: TempDir,
    pub(crate) path: PathBuf,
}

pub(crate) fn file(text: &str) -> File {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidemill.yaml");
    std::fs::write(&path, text).unwrap();
    File { _folder: folder, path }
}

pub(crate) fn from_file(text: &str) -> Result<Loaded<Sample>, SettingsError> {
    load(&Sources::none().file(&file(text).path))
}

pub(crate) fn from_variables(variables: &[(&str, &str)]) -> Result<Loaded<Sample>, SettingsError> {
    load(&Sources::none().environment(variables.iter().copied()))
}

/// The problems of a file, one a line, without the folder of the file.
pub(crate) fn refused(text: &str) -> String {
    shown(from_file(text))
}

pub(crate) fn shown(outcome: Result<Loaded<Sample>, SettingsError>) -> String {
    let text = outcome.expect_err("these settings must be refused").to_string();
    let lines = text.lines().map(|line| match line.split_once("tidemill.yaml") {
        Some((_, rest)) if line.starts_with('/') => format!("tidemill.yaml{rest}"),
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}
