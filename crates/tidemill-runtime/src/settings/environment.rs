//! Environment variables as settings.

use std::{ffi::OsString, path::PathBuf};

use super::{
    node::Node,
    origin::Origin,
    problem::{Problem, nearest},
    yaml,
};

/// Names the settings file.
pub const CONFIG_VARIABLE: &str = "TIDEMILL_CONFIG";

/// Fixed short names, each with the key that it sets. A later one overrides an earlier one of the same key.
pub const SHORT_NAMES: &[(&str, &str)] = &[
    ("LOG_LEVEL", "log.level"),
    ("LOG_FORMAT", "log.format"),
    ("TIDEMILL_LOG_LEVEL", "log.level"),
    ("TIDEMILL_LOG_FORMAT", "log.format"),
    ("TIDEMILL_REDIS_URL", "redis.url"),
    ("TIDEMILL_NAMESPACE", "namespace"),
    ("TIDEMILL_PARTITIONS", "partitions"),
    ("TIDEMILL_HTTP_ADDR", "http.addr"),
];

const PREFIX: &str = "TIDEMILL_";
/// Reserved for the tests' own switches.
const TEST_PREFIX: &str = "TIDEMILL_TEST_";

/// The file named by the environment; an empty name counts as none.
pub(super) fn config_file(environment: &[(OsString, OsString)]) -> Option<PathBuf> {
    let (_, value) = environment.iter().find(|(name, _)| name == CONFIG_VARIABLE)?;
    (!value.is_empty()).then(|| PathBuf::from(value))
}

/// One node for each variable that sets something, in rising precedence: short names, then nested ones by name.
pub(super) fn layers(environment: &[(OsString, OsString)], problems: &mut Vec<Problem>) -> Vec<Node> {
    let mut layers = super::compat::layers(environment, problems);
    for &(short, key) in SHORT_NAMES {
        if let Some((_, value)) = environment.iter().find(|(name, _)| name == short) {
            let path: Vec<String> = key.split('.').map(str::to_owned).collect();
            layers.extend(layer(short, &path, value, problems));
        }
    }
    let mut nested: Vec<_> = environment
        .iter()
        .filter_map(|(name, value)| Some((name.to_str()?, value)))
        .filter(|(name, value)| is_setting(name, &value.to_string_lossy()))
        .collect();
    nested.sort_unstable();
    for (name, value) in nested {
        let path: Vec<String> =
            name.trim_start_matches(PREFIX).split("__").map(str::to_ascii_lowercase).collect();
        if let [single] = path.as_slice()
            && !super::SECTIONS.contains(&single.as_str())
        {
            let message = unknown_variable(name);
            problems.push(Problem::new(Origin::Variable(name.into()), "", message));
        } else if path.iter().any(String::is_empty) {
            let message = "its name has an empty part; write TIDEMILL_SECTION__KEY";
            problems.push(Problem::new(Origin::Variable(name.into()), "", message));
        } else {
            layers.extend(layer(name, &path, value, problems));
        }
    }
    layers
}

/// An empty variable sets nothing: templates leave such ones behind.
fn layer(name: &str, path: &[String], value: &OsString, problems: &mut Vec<Problem>) -> Option<Node> {
    let origin = Origin::Variable(name.into());
    let Some(text) = value.to_str() else {
        problems.push(Problem::new(origin, "", "its value is not valid UTF-8"));
        return None;
    };
    if text.is_empty() {
        return None;
    }
    match yaml::inline(text, &origin) {
        Ok(leaf) => Some(Node::at(path, leaf)),
        Err(message) => {
            problems.push(Problem::new(origin, "", message));
            None
        }
    }
}

fn is_setting(name: &str, value: &str) -> bool {
    name.starts_with(PREFIX)
        && name != CONFIG_VARIABLE
        && !name.starts_with(TEST_PREFIX)
        && !SHORT_NAMES.iter().any(|(short, _)| *short == name)
        && !is_service_link(name, value)
}

/// Kubernetes gives every container such variables for every service of its namespace, Tidemill's own among them:
/// `TIDEMILL_PRODUCER_SERVICE_HOST`, `TIDEMILL_PRODUCER_PORT=tcp://…`, `TIDEMILL_PRODUCER_PORT_8080_TCP_ADDR`.
fn is_service_link(name: &str, value: &str) -> bool {
    let single = !name.contains("__");
    let by_name = name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.contains("_PORT_") && (name.contains("_TCP") || name.contains("_UDP")));
    let by_value = name.ends_with("_PORT") && (value.starts_with("tcp://") || value.starts_with("udp://"));
    single && (by_name || by_value)
}

fn unknown_variable(name: &str) -> String {
    let sections = super::SECTIONS.iter().map(|section| format!("{PREFIX}{}", section.to_ascii_uppercase()));
    let known: Vec<String> =
        SHORT_NAMES.iter().map(|(short, _)| (*short).to_owned()).chain(sections).collect();
    let hint = match nearest(name, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "nested keys are written TIDEMILL_SECTION__KEY, with two underscores".to_owned(),
    };
    format!("unknown variable; {hint}")
}
