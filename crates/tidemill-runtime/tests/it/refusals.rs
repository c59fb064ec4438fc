//! Each refusal with its words: what is wrong, where, what to do.

use tidemill_runtime::settings::{Sources, load};

use crate::sample::{Sample, from_file, from_variables, refused, shown};

#[test]
fn an_unknown_key_is_refused_with_its_line_and_the_nearest_known_one() {
    assert_eq!(
        refused("worker:\n  max_parallel: 1\n  max_paralel: 2\n"),
        "tidemill.yaml:3: worker.max_paralel: unknown key; did you mean `max_parallel`?"
    );
    assert_eq!(refused("wroker: {}\n"), "tidemill.yaml:1: wroker: unknown key; did you mean `worker`?");
    assert_eq!(
        refused("schedular: {}\n"),
        "tidemill.yaml:1: schedular: unknown key; did you mean `scheduler`?"
    );
    assert_eq!(
        refused("shutdown: { whatever: 1 }\n"),
        "tidemill.yaml:1: shutdown.whatever: unknown key; known here: `grace_ms`"
    );
    assert_eq!(
        refused("worker: { max_paralel: }\n"),
        "tidemill.yaml:1: worker.max_paralel: unknown key; did you mean `max_parallel`?"
    );
}

#[test]
fn an_unknown_variable_or_flag_is_refused_by_its_name() {
    assert_eq!(
        shown(from_variables(&[("TIDEMILL_WORKER__MAX_PARALEL", "2")])),
        "variable TIDEMILL_WORKER__MAX_PARALEL: worker.max_paralel: unknown key; did you mean `max_parallel`?"
    );
    assert_eq!(
        shown(from_variables(&[("TIDEMILL_REDIS_URI", "redis://x")])),
        "variable TIDEMILL_REDIS_URI: unknown variable; did you mean `TIDEMILL_REDIS_URL`?"
    );
    assert_eq!(
        shown(from_variables(&[("TIDEMILL_WORKER_MAX_PARALLEL", "2")])),
        "variable TIDEMILL_WORKER_MAX_PARALLEL: unknown variable; nested keys are written \
         TIDEMILL_SECTION__KEY, with two underscores"
    );
    assert_eq!(
        shown(load::<Sample>(&Sources::none().flag("--set", "worker.max", "2"))),
        "flag --set: worker.max: unknown key; known here: `max_parallel`, `share`, `strict`, `order`, `weights`, \
         `label`"
    );
    assert_eq!(
        shown(load::<Sample>(&Sources::none().flag("--set", "worker..x", "2"))),
        "flag --set: worker..x: `worker..x` is no key: write it as in `worker.max_parallel`"
    );
}

#[test]
fn a_wrong_type_or_range_tells_what_was_expected() {
    assert_eq!(
        refused("worker: { max_parallel: many }\n"),
        "tidemill.yaml:1: worker.max_parallel: expected a whole number, 0 or more, found string \"many\""
    );
    assert_eq!(
        refused("redis: { ports: [1, 70000] }\n"),
        "tidemill.yaml:1: redis.ports.1: expected u16, found integer `70000`"
    );
    assert_eq!(
        refused("worker: { strict: yes }\n"),
        "tidemill.yaml:1: worker.strict: expected true or false, found string \"yes\""
    );
    assert_eq!(
        refused("worker: { order: strickt }\n"),
        "tidemill.yaml:1: worker.order: `strickt` is not among `weighted`, `strict`; did you mean `strict`?"
    );
    assert_eq!(
        refused("worker: 5\n"),
        "tidemill.yaml:1: worker: expected keys with values, found string \"5\""
    );
    assert_eq!(refused("namespace:\n"), "tidemill.yaml:1: namespace: expected a text, found nothing");
    assert_eq!(refused("namespace: [a]\n"), "tidemill.yaml:1: namespace: expected a text, found sequence");
    assert_eq!(
        refused("http: { addr: nowhere }\n"),
        "tidemill.yaml:1: http.addr: invalid socket address syntax"
    );
}

#[test]
fn all_problems_of_all_sources_are_told_at_once() {
    let file = crate::sample::file("worker:\n  max_paralel: 1\n  share: lots\nnmespace: x\n");
    let sources = Sources::none().file(&file.path).environment([
        ("TIDEMILL_WORKER__STRICT", "maybe"),
        ("TIDEMILL_NAMESPCE", "x"),
        ("TIDEMILL_HTTP__PORT", "1"),
    ]);
    let text = shown(load::<Sample>(&sources));
    let wanted = [
        "tidemill.yaml:2: worker.max_paralel: unknown key",
        "tidemill.yaml:3: worker.share: expected a number",
        "tidemill.yaml:4: nmespace: unknown key; did you mean `namespace`?",
        "variable TIDEMILL_WORKER__STRICT: worker.strict: expected true or false",
        "variable TIDEMILL_NAMESPCE: unknown variable; did you mean `TIDEMILL_NAMESPACE`?",
        "variable TIDEMILL_HTTP__PORT: http.port: unknown key; known here: `addr`",
    ];
    for part in wanted {
        assert!(text.contains(part), "`{part}` is missing in\n{text}");
    }
    assert_eq!(text.lines().count(), wanted.len(), "{text}");
}

#[test]
fn a_file_that_is_no_settings_file_is_refused_with_the_reason() {
    let missing = load::<Sample>(&Sources::none().file("/no/such/file.yaml")).unwrap_err().to_string();
    assert_eq!(
        missing,
        "/no/such/file.yaml: the settings file cannot be read: No such file or directory (os error 2); \
         name another one with --config or TIDEMILL_CONFIG"
    );
    let broken = refused("worker:\n  a: [1,\n");
    assert!(broken.starts_with("tidemill.yaml:") && broken.contains("not valid YAML"), "{broken}");
    assert!(refused("just words\n").contains("must hold keys and values"));
    assert!(refused("worker: {}\nworker: {}\n").contains("tidemill.yaml:2: `worker` stands here twice"));
    assert!(refused("a: 1\n---\nb: 2\n").contains("a second document"));
    assert!(refused("worker: { <<: {a: 1} }\n").contains("merge keys"));
}

#[test]
fn nested_and_repeated_values_are_bounded() {
    let deep = format!("worker: {}1{}", "[".repeat(5000), "]".repeat(5000));
    assert!(refused(&deep).contains("too deep") || refused(&deep).contains("not valid YAML"));
    let mut laughs = "tools:\n  a0: &a0 { with: [1,1,1,1,1,1,1,1,1,1] }\n".to_owned();
    for level in 1..12 {
        let last = level - 1;
        laughs.push_str(&format!(
            "  a{level}: &a{level} {{ with: [*a{last},*a{last},*a{last},*a{last},*a{last}] }}\n"
        ));
    }
    assert!(refused(&laughs).contains("too large for settings"));
}

#[test]
fn a_later_check_names_the_place_that_the_value_came_from() {
    let loaded = from_file("log:\n  level: inof\n").unwrap();
    let error = loaded.settings.log.check().unwrap_err();
    let problem = loaded.problem("log.level", error.to_string()).to_string();
    assert!(problem.contains("tidemill.yaml:2: log.level: `inof` is no log level"), "{problem}");
    let unset = loaded.problem("shutdown.grace_ms", "too short").to_string();
    assert_eq!(unset, "default: shutdown.grace_ms: too short");
}

#[test]
fn a_variable_that_is_not_text_is_refused_and_not_shown() {
    use std::os::unix::ffi::OsStringExt;
    let value = std::ffi::OsString::from_vec(vec![b'x', 0xff]);
    let sources = Sources::none().environment([("TIDEMILL_NAMESPACE", value)]);
    let text = load::<Sample>(&sources).unwrap_err().to_string();
    assert_eq!(text, "variable TIDEMILL_NAMESPACE: its value is not valid UTF-8");
}
