//! The reference pages say what the code says: settings with their defaults and comments, metrics with their help texts.
//!
//! `UPDATE=1 cargo test -p tidemill-e2e reference` writes them anew.

use serde_json::{Value, json};
use tidemill_policy::service;
use tidemill_runtime::metrics::MetricName;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Compares the part of a page between two marks, or writes it.
fn compare(page: &str, mark: &str, wanted: &str) {
    let path = format!("{ROOT}/{page}");
    let text = std::fs::read_to_string(&path).unwrap();
    let begins = text.find(&format!("<!-- {mark}:")).unwrap();
    let (head, rest) = text.split_at(begins + text.split_at(begins).1.find("-->").unwrap() + "-->".len());
    let (found, tail) = rest.split_at(rest.find(&format!("<!-- end of {mark} -->")).unwrap());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, format!("{head}\n{wanted}{tail}")).unwrap();
    } else {
        assert!(
            found.trim() == wanted.trim(),
            "{page} is out of date: run `UPDATE=1 cargo test -p tidemill-e2e reference`"
        );
    }
}

/// The comment above each public field of a struct in a source file.
fn comments(source: &str, type_name: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(format!("{ROOT}/{source}")).unwrap();
    let (_, body) = text.split_once(&format!("pub struct {type_name} {{")).unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    let (mut comment, mut fields) = (String::new(), Vec::new());
    for line in body.lines().map(str::trim) {
        if let Some(more) = line.strip_prefix("///") {
            comment.push_str(more);
        } else if let Some(field) = line.strip_prefix("pub ") {
            let (name, _) = field.split_once(':').unwrap();
            fields.push((name.to_owned(), std::mem::take(&mut comment).trim().to_owned()));
        }
    }
    fields
}

fn section<T: Default + serde::Serialize>(name: &str, source: &str) -> String {
    section_of::<T>(name, source, "Settings")
}

fn section_of<T: Default + serde::Serialize>(name: &str, source: &str, type_name: &str) -> String {
    table(name, source, type_name, &serde_json::to_value(T::default()).unwrap())
}

fn table(name: &str, source: &str, type_name: &str, defaults: &Value) -> String {
    let mut table = format!("\n`{name}`:\n\n| key | default | meaning |\n|---|---|---|\n");
    for (key, comment) in comments(source, type_name) {
        let default = match &defaults[&key] {
            Value::String(text) => format!("`{text}`"),
            Value::Null => "none".to_owned(),
            Value::Array(list) if list.is_empty() => "none".to_owned(),
            Value::Array(list) if *list == [json!("must be given")] => "must be given".to_owned(),
            Value::Object(map) if map.is_empty() => "none".to_owned(),
            Value::Object(map) if map.values().all(Value::is_null) => "none".to_owned(),
            Value::Object(_) => "see below".to_owned(),
            other => format!("`{other}`"),
        };
        table.push_str(&format!("| `{name}.{key}` | {default} | {} |\n", comment.replace('|', "\\|")));
    }
    table
}

/// The section of services: one table for each struct in it.
fn services() -> String {
    const FAULTS: &str = "crates/tidemill-policy/src/service/faults.rs";
    const ANSWERS: &str = "crates/tidemill-policy/src/service/answers.rs";
    const LIMIT: &str = "crates/tidemill-policy/src/service/limit.rs";
    // what has no default must be given
    let given: serde_json::Map<_, _> = ["unit", "limit", "window_ms"]
        .map(|key| (key.to_owned(), json!(["must be given"])))
        .into_iter()
        .collect();
    let mut limit = Value::Object(given);
    limit["contract"] = json!(service::Contract::default());
    [
        section_of::<service::Definition>(
            "services.<name>",
            "crates/tidemill-policy/src/service.rs",
            "Definition",
        ),
        table("services.<name>.limits[]", LIMIT, "Limit", &limit),
        section_of::<service::Tiered>("services.<name>.per_tenant.<tenant>", LIMIT, "Tiered"),
        section_of::<service::Breaker>("services.<name>.breaker", FAULTS, "Breaker"),
        section_of::<service::RetryBudget>("services.<name>.retry_budget", FAULTS, "RetryBudget"),
        section_of::<service::Hedge>("services.<name>.hedge", ANSWERS, "Hedge"),
        section_of::<service::Cache>("services.<name>.cache", ANSWERS, "Cache"),
    ]
    .concat()
}

#[test]
fn the_page_of_settings_is_what_the_structs_say() {
    let pages = [
        section::<tidemill_store::Settings>("redis", "crates/tidemill-store/src/settings.rs"),
        section::<tidemill_worker::Settings>("worker", "crates/tidemill-worker/src/settings.rs"),
        section::<tidemill_scheduler::Settings>("scheduler", "crates/tidemill-scheduler/src/settings.rs"),
        section::<tidemill_scheduler::RetentionSettings>(
            "retention",
            "crates/tidemill-scheduler/src/retention.rs",
        ),
        section::<tidemill_producer::Settings>("producer", "crates/tidemill-producer/src/settings.rs"),
        section::<tidemill_tools::http::Settings>(
            "http_request",
            "crates/tidemill-tools/src/http/settings.rs",
        ),
        section::<tidemill_tools::exec::Settings>("exec", "crates/tidemill-tools/src/exec/settings.rs"),
        section::<tidemill_tools::template::Settings>("template", "crates/tidemill-tools/src/template.rs"),
        section::<tidemill_tools::jq::Settings>("jq", "crates/tidemill-tools/src/jq.rs"),
    ];
    let named = section_of::<tidemill_tools::NamedTool>(
        "tools.<name>",
        "crates/tidemill-tools/src/settings.rs",
        "NamedTool",
    );
    compare("docs/configuration.md", "settings", &format!("{}{named}{}\n", pages.concat(), services()));
}

#[test]
fn the_page_of_metrics_is_what_the_constants_say() {
    let programs: [(&str, &[MetricName]); 5] = [
        ("every program", tidemill_runtime::metrics::ALL),
        ("tidemill-worker", tidemill_worker::metrics::ALL),
        ("tidemill-worker: caches of services", tidemill_worker::cache::METRICS),
        ("tidemill-scheduler", tidemill_scheduler::metrics::ALL),
        ("tidemill-producer", tidemill_producer::metric_names::ALL),
    ];
    let mut text = String::new();
    for (program, names) in programs {
        text.push_str(&format!("\n## {program}\n\n| metric | labels | meaning |\n|---|---|---|\n"));
        for name in names {
            let labels: Vec<_> = name.labels.iter().map(|label| format!("`{label}`")).collect();
            text.push_str(&format!("| `{}` | {} | {} |\n", name.name, labels.join(", "), name.help));
        }
    }
    compare("docs/metrics.md", "metrics", &format!("{text}\n"));
}
