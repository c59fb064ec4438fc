//! A definition from a file: by itself, or as the section `services` of a settings file.

use std::collections::BTreeMap;
use std::io::Read;

use serde::{Deserialize, Serialize};
use tidemill_policy::service::Definition;
use tidemill_runtime::settings::{self, Sources};

use crate::error::{Error, Outcome};

/// Tells which of the two a file is.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Form {
    services: Option<serde_json::Value>,
}

/// A settings file, as far as it is about services.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Section {
    services: BTreeMap<String, Definition>,
}

/// The definition of a service in a file of YAML or JSON; `-` is JSON on standard input.
pub(super) fn read(file: &str, name: &str) -> Outcome<Definition> {
    if file == "-" {
        let mut text = String::new();
        let read = std::io::stdin().lock().read_to_string(&mut text);
        read.map_err(|error| Error::usage(format!("standard input cannot be read: {error}")))?;
        return Definition::from_json(&text)
            .map_err(|error| Error::failed("invalid_service", format!("standard input is {error}")));
    }
    let sources = Sources::none().file(file);
    let refused =
        |error| Error::failed("invalid_service", format!("this is no definition of a service:\n{error}"));
    if settings::load::<Form>(&sources).map_err(refused)?.settings.services.is_none() {
        return settings::load::<Definition>(&sources).map(|loaded| loaded.settings).map_err(refused);
    }
    let mut services = settings::load::<Section>(&sources).map_err(refused)?.settings.services;
    let known = services.keys().cloned().collect::<Vec<_>>().join(", ");
    services.remove(name).ok_or_else(|| {
        let known = if known.is_empty() { "none" } else { &known };
        Error::failed("invalid_service", format!("{file} has no service {name:?}; it has {known}"))
    })
}
