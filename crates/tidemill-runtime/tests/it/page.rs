//! docs/configuration.md says what the code does.

use serde::{Deserialize, Serialize};
use tidemill_runtime::{
    exit::Exit,
    http, log,
    settings::{SECTIONS, SHORT_NAMES, Sources, load},
    shutdown,
};

const PAGE: &str = include_str!("../../../../docs/configuration.md");

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Common {
    http: http::Settings,
    log: log::Settings,
    shutdown: shutdown::Settings,
}

/// The first two cells of each row of the table whose head is `head`.
fn rows(head: &str) -> Vec<(String, String)> {
    let lines = PAGE.lines().skip_while(|line| !line.starts_with(head)).skip(2);
    let rows = lines.take_while(|line| line.starts_with('|')).map(|line| {
        let mut cells = line.split('|').skip(1).map(|cell| cell.trim().trim_matches('`').to_owned());
        (cells.next().unwrap_or_default(), cells.next().unwrap_or_default())
    });
    rows.collect()
}

#[test]
fn each_common_key_stands_on_the_page_with_its_default() {
    let serde_json::Value::Object(sections) = serde_json::to_value(Common::default()).unwrap() else {
        unreachable!("a struct is an object")
    };
    let mut keys = Vec::new();
    for (section, members) in &sections {
        for (key, value) in members.as_object().expect("a section is an object") {
            keys.push((format!("{section}.{key}"), value.to_string().trim_matches('"').to_owned()));
        }
    }
    let mut told = rows("| key | default |");
    told.sort_unstable();
    keys.sort_unstable();
    assert_eq!(told, keys);
}

#[test]
fn each_section_short_name_and_exit_code_stands_on_the_page() {
    let sections = SECTIONS.iter().map(|section| format!("`{section}`")).collect::<Vec<_>>().join(" · ");
    assert!(PAGE.contains(&sections), "{sections}");
    let names: Vec<_> = rows("| short name |").into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, SHORT_NAMES.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    let codes: Vec<_> =
        Exit::ALL.iter().map(|(exit, text)| (exit.code().to_string(), (*text).to_owned())).collect();
    assert_eq!(rows("| code |"), codes);
}

#[test]
fn the_example_file_is_valid_and_holds_the_defaults() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/tidemill.example.yaml");
    let loaded = load::<Common>(&Sources::none().file(path)).unwrap();
    assert_eq!(loaded.settings, Common::default());
}
