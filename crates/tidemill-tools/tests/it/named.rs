//! Named tools from settings, and what becomes of their secrets.

use std::sync::Arc;

use serde_json::{Value, json};
use tidemill_tool::Registry;
use tidemill_tools::{Settings, builtin};

use crate::server::{Server, response};
use crate::{TestResult, call, code_of};

const CANARY: &str = "canary \"4711\"";

fn registry(settings: Value) -> Result<Registry, String> {
    let settings: Settings = serde_json::from_value(settings).map_err(|error| error.to_string())?;
    builtin(&settings).map_err(|error| error.to_string())
}

fn tool(registry: &Registry, name: &str) -> Result<Arc<dyn tidemill_tool::Tool>, Box<dyn std::error::Error>> {
    Ok(Arc::clone(&registry.find(name)?.tool))
}

#[tokio::test]
async fn without_settings_every_built_in_tool_runs() -> TestResult {
    let registry = builtin(&Settings::default())?;
    assert_eq!(
        registry.names(),
        ["echo", "exec.run", "http.request", "jq.transform", "sleep", "template.render"]
    );
    assert_eq!(registry.kinds(), ["exec", "http", "inline", "sleep"]);
    assert_eq!(call(&tool(&registry, "echo")?, &json!({"a": 1})).await?, json!({"a": 1}));
    assert_eq!(call(&tool(&registry, "sleep")?, &json!({"ms": 1})).await?, Value::Null);
    let input = json!({"filter": "[.[] * 2] | {sum: add}", "input": [1, 2, 3]});
    assert_eq!(call(&tool(&registry, "jq.transform")?, &input).await?, json!({"sum": 12}));
    let input = json!({"template": "{{ a }}!", "data": {"a": 1}});
    assert_eq!(call(&tool(&registry, "template.render")?, &input).await?, "1!");
    for entry in registry.iter() {
        assert_eq!(entry.timeout.as_secs(), 30, "{}", entry.name);
        assert!(!entry.description.is_empty(), "{}", entry.name);
    }
    Ok(())
}

#[tokio::test]
async fn a_named_tool_keeps_its_url_and_its_secret() -> TestResult {
    let folder = tempfile::tempdir()?;
    let token = folder.path().join("token");
    std::fs::write(&token, format!("{CANARY}\n"))?;
    // A service that echoes what it was sent, in success and in failure.
    let server = Server::start(|request| {
        let status = if request.contains("/fail") { "500 X" } else { "200 OK" };
        let shown = request.lines().find(|line| line.starts_with("authorization")).unwrap_or_default();
        let body = json!({"you_sent": shown}).to_string();
        response(status, "content-type: application/json\r\n", &body)
    })
    .await?;
    // The server is on loopback: the operator's own URL needs no further word.
    let authorization = json!({"secret": format!("file:{}", token.display()), "prefix": "Bearer "});
    let settings = json!({"tools": {
        "shop.hold": {"kind": "http.request", "with": {"url": server.url("/orders/{order}"), "headers": {"Authorization": authorization}},
            "defaults": {"method": "PUT"}, "timeout_ms": 5000, "retry": {"max_attempts": 5}, "description": "Holds an order."},
        "shop.fail": {"kind": "http.request", "with": {"url": server.url("/fail"), "headers": {"Authorization": authorization}}},
    }});
    let registry = registry(settings)?;
    let entry = registry.find("shop.hold")?;
    assert_eq!(
        (entry.timeout.as_secs(), entry.retry.max_attempts(), &*entry.description),
        (5, 5, "Holds an order.")
    );
    let hold = tool(&registry, "shop.hold")?;
    let output = call(&hold, &json!({"path": {"order": 42}, "query": {"n": 1}})).await?;
    let request = server.requests().pop().unwrap_or_default();
    assert!(
        request.starts_with("PUT /orders/42?n=1 ")
            && request.contains(&format!("authorization: Bearer {CANARY}")),
        "{request}"
    );
    let failed = call(&tool(&registry, "shop.fail")?, &json!({})).await.err().ok_or("no error")?;
    let everything = format!("{output} {failed} {failed:?} {registry:?} {:?}", hold.input_schema());
    assert!(everything.contains("[redacted]") && !everything.contains("4711"), "{everything}");
    for input in [
        json!({"url": "http://evil.example/"}),
        json!({"headers": {"AUTHORIZATION": "x"}}),
        json!({"headers": null}),
        json!({"headers": {"X": {"secret": "env:HOME"}}}),
        json!({"text": "secret://env/HOME"}),
        json!([]),
    ] {
        assert_eq!(code_of(&hold, &input).await, "invalid_input", "{input}");
    }
    std::fs::write(&token, "rotated-token")?;
    call(&hold, &json!({"path": {"order": 42}})).await?;
    assert!(server.requests().pop().is_some_and(|request| request.contains("Bearer rotated-token")));
    // The generic tool may still not go where the named one goes, not even on its kept connection.
    assert_eq!(
        code_of(&tool(&registry, "http.request")?, &json!({"url": server.url("/orders/42")})).await,
        "address_refused"
    );
    std::fs::remove_file(&token)?;
    let error = call(&hold, &json!({"path": {"order": 1}})).await.err().ok_or("no error")?;
    assert_eq!(error.code, "secret_unavailable");
    Ok(())
}

#[tokio::test]
async fn a_named_program_has_its_arguments_and_environment_fixed() -> TestResult {
    let folder = tempfile::tempdir()?;
    let token = folder.path().join("token");
    std::fs::write(&token, CANARY)?;
    let settings = json!({
        "exec": {"allow": {"sh": "/bin/sh"}},
        "tools": {"score": {"kind": "exec.run", "with": {
            "program": "sh", "args": ["-c", "cat; printf '%s' \"$TOKEN\" >&2; [ -n \"$TOKEN\" ] && [ \"$1\" = fail ] && exit 1; exit 0"],
            "env": {"TOKEN": {"secret": format!("file:{}", token.display())}}, "output": "json"}},
        "score.fail": {"kind": "exec.run", "with": {
            "program": "sh", "args": ["-c", "echo \"$TOKEN\" >&2; exit 1"],
            "env": {"TOKEN": {"secret": format!("file:{}", token.display())}}}}},
    });
    let registry = registry(settings)?;
    let score = tool(&registry, "score")?;
    assert_eq!(call(&score, &json!({"stdin": {"order": 1}})).await?["stdout"], json!({"order": 1}));
    for input in [
        json!({"args": []}),
        json!({"program": "ls"}),
        json!({"env": {"LD_PRELOAD": "x"}}),
        json!({"env": {}}),
    ] {
        assert_eq!(code_of(&score, &input).await, "invalid_input", "{input}");
    }
    let failed = call(&tool(&registry, "score.fail")?, &json!({})).await.err().ok_or("no error")?;
    assert!(failed.message.contains("[redacted]") && !failed.message.contains("4711"), "{failed}");
    Ok(())
}

#[tokio::test]
async fn named_templates_and_filters_take_their_data_from_the_call() -> TestResult {
    let registry = registry(json!({"tools": {
        "greet": {"kind": "template.render", "with": {"template": "Hello {{ name }}"}},
        "total": {"kind": "jq.transform", "with": {"filter": "map(.price) | add"}},
    }}))?;
    assert_eq!(call(&tool(&registry, "greet")?, &json!({"data": {"name": "Ada"}})).await?, "Hello Ada");
    assert_eq!(call(&tool(&registry, "total")?, &json!({"input": [{"price": 2}, {"price": 3}]})).await?, 5);
    assert_eq!(code_of(&tool(&registry, "greet")?, &json!({"template": "x"})).await, "invalid_input");
    let schema = registry.input_schema("total").ok_or("no schema")?;
    assert_eq!(
        (schema["required"].clone(), schema["properties"]["filter"].clone()),
        (json!([]), Value::Null)
    );
    Ok(())
}

#[tokio::test]
async fn jq_bombs_end_by_their_fuel() -> TestResult {
    let tool = tool(&builtin(&Settings::default())?, "jq.transform")?;
    for filter in
        ["def f: f; f", "[range(1e18)] | length", "reduce range(60) as $i (\"xx\"; . + .)", "last(repeat(1))"]
    {
        let code = code_of(&tool, &json!({"filter": filter})).await;
        assert!(code.starts_with("expression_"), "{filter}: {code}");
    }
    assert_eq!(code_of(&tool, &json!({"filter": "."  , "inptu": 1})).await, "invalid_input");
    assert_eq!(code_of(&tool, &json!({"filter": ".["})).await, "invalid_input");
    Ok(())
}

#[test]
fn tools_can_be_taken_away_and_changed() -> TestResult {
    let registry =
        registry(json!({"tools": {"http.request": {"enabled": false}, "echo": {"timeout_ms": 50}}}))?;
    assert!(registry.get("http.request").is_none());
    assert_eq!(registry.find("echo")?.timeout.as_millis(), 50);
    Ok(())
}

#[test]
fn settings_that_cannot_work_are_refused_by_name() {
    for (settings, part) in [
        (json!({"tools": {"a": {}}}), "`kind` is missing"),
        (json!({"tools": {"a": {"kind": "http"}}}), "`http` is no kind"),
        (json!({"tools": {"a": {"kind": "echo", "wiht": {}}}}), "wiht"),
        (json!({"tools": {"a b": {"kind": "echo"}}}), "cannot name a tool"),
        (json!({"tools": {"echo": {"kind": "sleep"}}}), "built in"),
        (json!({"tools": {"a": {"kind": "echo", "with": {"x": 1}}}}), "takes neither"),
        (json!({"tools": {"a": {"kind": "http.request", "with": {"ulr": "x"}}}}), "ulr"),
        (json!({"tools": {"a": {"kind": "http.request", "with": {"url": "ftp://x/"}}}}), "ftp"),
        (
            json!({"tools": {"a": {"kind": "http.request", "with": {"headers": {"A": {"secret": "env:A"}}}}}}),
            "fix the `url`",
        ),
        (
            json!({"tools": {"a": {"kind": "http.request", "with": {"url": "http://x/", "headers": {"A": {"secret": "vault:A"}}}}}}),
            "env:NAME",
        ),
        (
            json!({"tools": {"a": {"kind": "http.request", "with": {"url": "http://x/", "headers": {"Host": "y"}}}}}),
            "Host",
        ),
        (json!({"tools": {"a": {"kind": "exec.run", "with": {"program": "rm"}}}}), "exec.allow"),
        (
            json!({"tools": {"a": {"kind": "template.render", "with": {"template": "{{"}}}}),
            "template is wrong",
        ),
        (json!({"tools": {"a": {"kind": "jq.transform", "with": {"filter": ".["}}}}), "filter"),
        (json!({"tools": {"a": {"kind": "echo", "timeout_ms": 0}}}), "timeout_ms"),
        (json!({"http_request": {"allow_networks": ["all"]}}), "http_request.allow_networks"),
        (json!({"exec": {"allow": {"x": "sh"}}}), "exec.allow.x"),
    ] {
        let why = registry(settings.clone()).err().unwrap_or_default();
        assert!(why.contains(part), "{settings}: `{why}` lacks `{part}`");
    }
}

/// What a file of this repository says.
fn file(path: &str) -> Result<String, std::io::Error> {
    std::fs::read_to_string(format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR")))
}

#[test]
fn the_example_settings_make_working_tools() -> TestResult {
    let path = format!("{}/../../config/tools.example.yaml", env!("CARGO_MANIFEST_DIR"));
    let settings = tidemill_runtime::settings::load::<Settings>(
        &tidemill_runtime::settings::Sources::none().file(path),
    )?
    .settings;
    let registry = builtin(&settings)?;
    for name in ["shop.hold", "lines.sort", "order.letter", "order.total"] {
        registry.find(name)?;
    }
    assert_eq!(registry.find("http.request")?.timeout.as_secs(), 10);
    assert_eq!(registry.find("shop.hold")?.retry.max_attempts(), 5);
    Ok(())
}

#[test]
fn every_setting_and_every_member_of_an_input_is_documented() -> TestResult {
    let text = file("docs/tools.md")?;
    let settings = serde_json::to_value(Settings::default())?;
    let mut keys: Vec<String> = Vec::new();
    for section in ["http_request", "exec", "template", "jq"] {
        keys.extend(settings[section].as_object().ok_or("no section")?.keys().cloned());
    }
    let named = serde_json::to_value(tidemill_tools::NamedTool::default())?;
    keys.extend(named.as_object().ok_or("no object")?.keys().cloned());
    for entry in builtin(&Settings::default())?.iter() {
        let schema = entry.tool.input_schema();
        keys.extend(schema["properties"].as_object().into_iter().flat_map(|members| members.keys().cloned()));
    }
    let missing: Vec<&String> = keys.iter().filter(|key| !text.contains(key.as_str())).collect();
    assert!(missing.is_empty(), "docs/tools.md lacks {missing:?}");
    Ok(())
}
