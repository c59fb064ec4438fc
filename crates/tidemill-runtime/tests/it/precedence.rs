//! Which source wins.

use tidemill_runtime::settings::{Sources, load};

use crate::sample::{Order, Sample, file, from_file, from_variables};

const FILE: &str = "
redis: { url: 'redis://file' }
namespace: from-file
worker:
  max_parallel: 1
  share: 0.25
  order: strict
";

#[test]
fn without_any_source_the_defaults_hold() {
    let loaded = load::<Sample>(&Sources::none()).unwrap();
    assert_eq!(loaded.settings, Sample::default());
    assert!(!loaded.is_given("worker.max_parallel"));
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default() {
    let file = file(FILE);
    let sources = Sources::none()
        .file(&file.path)
        .environment([
            ("TIDEMILL_REDIS_URL", "redis://variable"),
            ("TIDEMILL_WORKER__MAX_PARALLEL", "2"),
            ("TIDEMILL_WORKER__ORDER", "weighted"),
        ])
        .flag("--set", "worker.max_parallel", "3");
    let loaded = load::<Sample>(&sources).unwrap();
    let worker = &loaded.settings.worker;
    assert_eq!(worker.max_parallel, 3, "from the flag");
    assert_eq!(worker.order, Order::Weighted, "from the environment");
    assert_eq!(loaded.settings.redis.url, "redis://variable", "from a short name");
    assert!((worker.share - 0.25).abs() < 1e-9, "from the file");
    assert_eq!(loaded.settings.namespace, "from-file");
    assert!(!worker.strict, "from the code");
    assert!(loaded.is_given("worker.order") && !loaded.is_given("worker.strict"));
}

#[test]
fn the_file_is_named_by_the_environment_unless_a_flag_names_another() {
    let (first, second) = (file("namespace: first"), file("namespace: second"));
    let sources = Sources::none().environment([("TIDEMILL_CONFIG", &first.path)]);
    assert_eq!(load::<Sample>(&sources).unwrap().settings.namespace, "first");
    assert_eq!(load::<Sample>(&sources.file(&second.path)).unwrap().settings.namespace, "second");
}

#[test]
fn short_names_set_their_keys_and_the_most_specific_wins() {
    let short = [
        ("LOG_LEVEL", "debug"),
        ("TIDEMILL_NAMESPACE", "ns"),
        ("TIDEMILL_HTTP_ADDR", "0.0.0.0:9000"),
        ("TIDEMILL_LOG_FORMAT", "json"),
    ];
    let settings = from_variables(&short).unwrap().settings;
    assert_eq!(settings.namespace, "ns");
    assert_eq!(settings.http.addr.to_string(), "0.0.0.0:9000");
    assert_eq!(settings.log.level, "debug");
    let both = [("LOG_LEVEL", "debug"), ("TIDEMILL_LOG_LEVEL", "warn"), ("TIDEMILL_LOG__LEVEL", "error")];
    assert_eq!(from_variables(&both[..2]).unwrap().settings.log.level, "warn");
    assert_eq!(from_variables(&both).unwrap().settings.log.level, "error");
}

#[test]
fn a_value_is_read_as_the_type_that_its_key_has() {
    let loaded = from_variables(&[
        ("TIDEMILL_NAMESPACE", "007"),
        ("TIDEMILL_REDIS__PASSWORD", "true"),
        ("TIDEMILL_REDIS__PORTS", "1, 2,3"),
        ("TIDEMILL_WORKER__STRICT", "true"),
        ("TIDEMILL_WORKER__WEIGHTS", "{high: 6, low: 1}"),
        ("TIDEMILL_WORKER__LABEL", ""),
    ]);
    let settings = loaded.unwrap().settings;
    assert_eq!(settings.namespace, "007");
    assert_eq!(settings.redis.password.as_deref(), Some("true"));
    assert_eq!(settings.redis.ports, [1, 2, 3]);
    assert!(settings.worker.strict);
    assert_eq!(settings.worker.weights["high"], 6);
    assert_eq!(settings.worker.label, None, "an empty variable sets nothing");
}

#[test]
fn maps_are_joined_key_by_key_and_lists_replaced_whole() {
    let file = file("worker: { weights: { a: 1, b: 2 } }\nredis: { ports: [1, 2, 3] }");
    let sources = Sources::none()
        .file(&file.path)
        .flag("--set", "worker.weights.b", "9")
        .flag("--set", "redis.ports", "[7]")
        .flag("--set", "tools.\"shop.hold\".timeout_ms", "5");
    let settings = load::<Sample>(&sources).unwrap().settings;
    assert_eq!(settings.worker.weights.into_iter().collect::<Vec<_>>(), [("a".into(), 1), ("b".into(), 9)]);
    assert_eq!(settings.redis.ports, [7]);
    assert_eq!(settings.tools["shop.hold"].timeout_ms, Some(5));
}

#[test]
fn free_values_keep_the_types_that_yaml_gives_them() {
    let text = "tools: { t: { with: { a: 1, b: -2, c: 1.5, d: true, e: null, f: '1', g: text, h: [x, 2], i: 1.2.3 } } }";
    let with = from_file(text).unwrap().settings.tools["t"].with.clone();
    let wanted = serde_json::json!(
        { "a": 1, "b": -2, "c": 1.5, "d": true, "e": null, "f": "1", "g": "text", "h": ["x", 2], "i": "1.2.3" }
    );
    assert_eq!(with, wanted);
}

#[test]
fn json_is_read_too_and_so_are_anchors_and_an_empty_file() {
    assert_eq!(from_file(r#"{"worker": {"max_parallel": 5}}"#).unwrap().settings.worker.max_parallel, 5);
    let anchored = from_file("tools: { a: &t { kind: echo }, b: *t }").unwrap().settings.tools;
    assert_eq!(anchored["a"], anchored["b"]);
    assert_eq!(from_file("# nothing yet\n").unwrap().settings, Sample::default());
    assert_eq!(from_file("worker:\n").unwrap().settings, Sample::default());
}

#[test]
fn sections_of_sibling_programs_are_left_to_them() {
    let text = "scheduler: { anything: 1 }\nproducer: { more: [2] }\nworker: { max_parallel: 5 }";
    assert_eq!(from_file(text).unwrap().settings.worker.max_parallel, 5);
    assert!(from_variables(&[("TIDEMILL_SCHEDULER__ANYTHING", "1")]).is_ok());
}

#[test]
fn variables_that_kubernetes_and_the_tests_set_are_no_settings() {
    let foreign = [
        ("TIDEMILL_PRODUCER_SERVICE_HOST", "10.0.0.1"),
        ("TIDEMILL_PRODUCER_SERVICE_PORT", "8080"),
        ("TIDEMILL_PRODUCER_SERVICE_PORT_HTTP", "8080"),
        ("TIDEMILL_PRODUCER_PORT", "tcp://10.0.0.1:8080"),
        ("TIDEMILL_PRODUCER_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("TIDEMILL_PRODUCER_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("TIDEMILL_TEST_SERVER", "valkey-server"),
        ("TIDEMILLIPEDE", "1"),
        ("PATH", "/bin"),
    ];
    assert_eq!(from_variables(&foreign).unwrap().settings, Sample::default());
}
