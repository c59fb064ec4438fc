//! No secret is shown, neither in what is printed nor in what is refused.

use tidemill_runtime::{
    cli::CommonArgs,
    settings::{Sources, is_secret_key, load, redact_urls},
};

use crate::sample::{Sample, file, from_file, refused};

const CANARY: &str = "c4n4ry";

fn with_canaries() -> String {
    format!(
        "
redis:
  url: redis://user:{CANARY}@cache.local:6379/0
  password: {CANARY}
tools:
  shop.hold:
    kind: http.request
    with:
      url: https://me:{CANARY}@shop.local/hold?api_key={CANARY}&size=2
      headers: {{ Authorization: 'Bearer {CANARY}', X-Api-Key: {CANARY}, Accept: text/plain }}
      shop_token: {CANARY}
      client_secret: {{ nested: {CANARY} }}
      reference: {{ secret: 'env:SHOP_TOKEN' }}
      numeric_secret: 12345
"
    )
}

#[test]
fn what_is_printed_shows_origins_and_hides_secrets() {
    let printed = from_file(&with_canaries()).unwrap().print().unwrap();
    assert!(!printed.contains(CANARY) && !printed.contains("12345"), "{printed}");
    for part in [
        "redis://user:***@cache.local:6379/0",
        "https://me:***@shop.local/hold?api_key=***&size=2",
        "env:SHOP_TOKEN",
        "text/plain",
        "tidemill.yaml:3",
        "max_parallel: 64  # default",
    ] {
        assert!(printed.contains(part), "`{part}` is missing in\n{printed}");
    }
}

#[test]
fn what_is_printed_can_be_read_back() {
    let text = "
namespace: 'a: b # c'
redis: { ports: [1, 2], url: 'redis://h' }
worker: { weights: { 'true': 1, 'x.y': 2 }, label: '12' }
tools: { 'shop.hold': { with: { list: [a, { b: 'null' }], empty: {}, none: [], line: \"a\\nb\" } } }
";
    let first = from_file(text).unwrap();
    let second = from_file(&first.print().unwrap()).unwrap();
    assert_eq!(first.settings, second.settings);
}

#[test]
fn origins_are_those_of_the_winning_source() {
    let file = file("worker:\n  max_parallel: 1\n  share: 0.1\n");
    let sources = Sources::none().file(&file.path).environment([("TIDEMILL_WORKER__SHARE", "0.2")]).flag(
        "--set",
        "worker.strict",
        "true",
    );
    let printed = load::<Sample>(&sources).unwrap().print().unwrap();
    assert!(printed.contains("tidemill.yaml:2\n"), "{printed}");
    assert!(printed.contains("share: 0.2  # variable TIDEMILL_WORKER__SHARE\n"), "{printed}");
    assert!(printed.contains("strict: true  # flag --set\n"), "{printed}");
    assert!(printed.contains("order: weighted  # default\n"), "{printed}");
}

#[test]
fn no_refusal_shows_a_secret() {
    let wrong = [
        format!("redis: {{ password: [{CANARY}] }}"),
        format!("redis: {{ password: {{ {CANARY}: 1 }} }}"),
        format!("worker: {{ max_parallel: 'redis://u:{CANARY}@h' }}"),
        format!("http: {{ addr: 'http://u:{CANARY}@h' }}"),
        format!("tools: {{ t: {{ with: 1, timeout_ms: 'https://h?token={CANARY}' }} }}"),
    ];
    for text in wrong {
        let text = refused_or_empty(&text);
        assert!(!text.contains(CANARY), "{text}");
    }
    assert!(refused("redis: { password: [x] }").contains("not shown"));
}

fn refused_or_empty(text: &str) -> String {
    from_file(text).map(|_| String::new()).unwrap_or_else(|error| error.to_string())
}

#[test]
fn debug_output_shows_no_secret() {
    let file = file(&with_canaries());
    let arguments = CommonArgs {
        redis_url: Some(format!("redis://u:{CANARY}@h")),
        set: vec![("redis.password".to_owned(), CANARY.to_owned())],
        ..CommonArgs::default()
    };
    let sources = Sources::none().file(&file.path).environment([("TIDEMILL_REDIS__PASSWORD", CANARY)]);
    let sources = arguments.over(sources);
    let loaded = load::<Sample>(&sources).unwrap();
    let text = format!("{arguments:?} {sources:?} {loaded:?}");
    assert!(!text.contains(CANARY), "{text}");
    assert_eq!(loaded.settings.redis.password.as_deref(), Some(CANARY));
}

#[test]
fn passwords_in_urls_are_hidden_however_they_are_written() {
    for (text, clean) in [
        ("redis://:pw@h:1/0", "redis://:***@h:1/0"),
        ("see rediss://u:p@ss:w/rd@h, now", "see rediss://u:***@h, now"),
        ("redis+unix:///tmp/s?pass=pw&db=1", "redis+unix:///tmp/s?pass=***&db=1"),
        ("two: a://u:x@h b://u:y@h", "two: a://u:***@h b://u:***@h"),
        ("none: redis://h:1", "none: redis://h:1"),
    ] {
        assert_eq!(redact_urls(text), clean);
    }
}

#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Services {
    services: serde_json::Map<String, serde_json::Value>,
}

#[test]
fn which_credential_a_service_is_called_with_is_no_secret_but_credentials_are() {
    let settings = r#"{shop: {credential: ".account", per_credential: {"*": {concurrency: 5}}, fallback: [{tool: a, with: {credential: CANARY}}],
        with: {credential: CANARY}}}"#;
    let arguments = CommonArgs {
        set: vec![("services".to_owned(), settings.replace("CANARY", CANARY))],
        ..CommonArgs::default()
    };
    let loaded = load::<Services>(&arguments.over(Sources::none())).unwrap();
    let printed = loaded.print().unwrap();
    assert!(printed.contains("credential: \".account\""), "{printed}");
    assert!(printed.contains("concurrency: 5"), "{printed}");
    assert!(!printed.contains(CANARY), "{printed}");
}

#[test]
fn keys_that_hold_secrets_are_known_by_their_names() {
    for secret in
        ["password", "redis_password", "shop_token", "Token", "client-secret", "X-Api-Key", "Set-Cookie"]
    {
        assert!(is_secret_key(secret), "{secret}");
    }
    for open in ["max_tokens", "tokens", "url", "key", "timeout_ms", "secretary"] {
        assert!(!is_secret_key(open), "{open}");
    }
}
