//! The section `services` as settings files write it.
#![expect(clippy::unwrap_used, reason = "tests say what they mean by failing")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidemill_policy::service::{Catalog, Definition, check_all};
use tidemill_runtime::settings::{Loaded, SettingsError, Sources, load};

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    services: BTreeMap<String, Definition>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    services: BTreeMap<String, Value>,
}

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/services.example.yaml");

fn read(text: &str) -> Result<Loaded<Settings>, SettingsError> {
    let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    load(&Sources::none().file(file.path()))
}

/// The public fields of a struct in a source file.
fn fields(source: &str, name: &str) -> BTreeSet<String> {
    let (_, body) = source.split_once(&format!("pub struct {name} {{")).unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    let lines = body.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(':'));
    lines.map(|(field, _)| field.to_owned()).collect()
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn the_example_is_valid_and_shows_every_key() {
    let settings = load::<Settings>(&Sources::none().file(EXAMPLE)).unwrap().settings;
    assert_eq!(check_all(&settings.services), []);
    let catalog = Catalog::new(settings.services).unwrap();
    assert_eq!(catalog.service_of("llm.chat", None).unwrap().0, "openai");

    let written = load::<Written>(&Sources::none().file(EXAMPLE)).unwrap().settings.services;
    let openai = &written["openai"];
    assert_eq!(keys(openai), fields(include_str!("../src/service.rs"), "Definition"));
    let faults = include_str!("../src/service/faults.rs");
    let answers = include_str!("../src/service/answers.rs");
    for (key, source, name) in [
        ("breaker", faults, "Breaker"),
        ("retry_budget", faults, "RetryBudget"),
        ("hedge", answers, "Hedge"),
        ("cache", answers, "Cache"),
    ] {
        assert_eq!(keys(&openai[key]), fields(source, name), "{key}");
    }
    let limits: BTreeSet<String> = openai["limits"].as_array().unwrap().iter().flat_map(keys).collect();
    assert_eq!(limits, fields(include_str!("../src/service/limit.rs"), "Limit"));
}

#[test]
fn what_is_in_force_can_be_printed_and_read_again() {
    let loaded = load::<Settings>(&Sources::none().file(EXAMPLE)).unwrap();
    let again = read(&loaded.print().unwrap()).unwrap();
    assert_eq!(again.settings.services, loaded.settings.services);
}

#[test]
fn every_wrong_form_is_told_at_once_with_its_key_and_line() {
    let error = read(
        "services:
  openai:
    limits:
      - { unit: requests, limit: much, window_ms: 1000 }
    hedge: { after: p50 }
    usage: google
    concurency: 5
    fallback:
      - { tool: a, value: 1 }
    estimate: { cost: [1] }
    breaker: { counts: [servers] }
    redis_loss: { local_shre: 0.1 }
    per_class: { throtled: { max_attempts: 5 } }
",
    )
    .unwrap_err();
    let told = error.to_string();
    for expected in [
        ":4: services.openai.limits.0.limit: `much` is neither a whole number nor `auto`",
        ":5: services.openai.hedge.after: `p50` is neither",
        ":6: services.openai.usage: `google` is not among",
        ":7: services.openai.concurency: unknown key; did you mean `concurrency`?",
        ":9: services.openai.fallback.0: a fallback is one of",
        ":10: services.openai.estimate.cost: expected a whole number, or a jq expression",
        ":11: services.openai.breaker.counts.0: `servers` is not among",
        ":12: services.openai.redis_loss: `local_shre` is not among",
        ":13: services.openai.per_class: `throtled` is not among",
    ] {
        assert!(told.contains(expected), "{expected}\nis not in\n{told}");
    }
}

#[test]
fn a_value_that_cannot_be_held_is_told_at_its_line() {
    let loaded = read(
        "services:
  shop.eu:
    concurrency: 0
    limits:
      - { unit: requests, limit: 5, window_ms: 1000,
          burst: 6 }
",
    )
    .unwrap();
    let problems = check_all(&loaded.settings.services);
    let told: Vec<String> = problems
        .iter()
        .map(|problem| loaded.problem(&format!("services.{}", problem.path), &*problem.message).to_string())
        .collect();
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told[0].contains(":3: services.\"shop.eu\".concurrency: 0 would stop"), "{told:#?}");
    assert!(
        told[1].contains(":6: services.\"shop.eu\".limits.0.burst: 6 is more than the limit"),
        "{told:#?}"
    );
}

#[test]
fn a_single_key_can_be_set_from_outside() {
    let sources =
        Sources::none().file(EXAMPLE).environment([("TIDEMILL_SERVICES__OPENAI__CONCURRENCY", "7")]);
    let settings = load::<Settings>(&sources).unwrap().settings;
    assert_eq!(settings.services["openai"].concurrency, Some(7));
    assert_eq!(settings.services["openai"].limits.len(), 6);
}
