//! Calls: what tools are asked, and what documents get.

use serde_json::{Value, json};
use tidemill_protocol::RunState;

use crate::host::{Ended, Host, document};

fn http(status: u16, body: &Value) -> Value {
    json!({ "status": status, "headers": { "content-type": "application/json" }, "body": body })
}

#[test]
fn an_http_call_is_what_the_document_says() {
    let tasks = r#"
- send:
    call: http
    with:
      method: post
      endpoint:
        uri: https://shop.test/orders/{order}/items
        authentication: { basic: { username: "${ .user }", password: secret } }
      headers: { X-Trace: "${ .order }", Accept: null }
      query: { page: 1, tags: [a, b] }
      body: { lines: "${ .lines }" }
      output: response
"#;
    let mut host = Host::new(&document(tasks), &json!({"order": "a/1", "user": "ada", "lines": [1]}))
        .answering(|_, _| Some(Ok(http(201, &json!({"ok": true})))));
    let expected = json!({
        "request": { "method": "post", "uri": "https://shop.test/orders/a%2F1/items", "headers": { "X-Trace": "a/1" } },
        "statusCode": 201,
        "headers": { "content-type": "application/json" },
        "content": { "ok": true },
    });
    assert_eq!(host.run(), Ended::Output(expected));
    let asked = json!({
        "method": "POST",
        "url": "https://shop.test/orders/a%2F1/items",
        "expect_status": ["2xx", "3xx", "4xx", "5xx"],
        "headers": { "X-Trace": "a/1", "Authorization": "Basic YWRhOnNlY3JldA==" },
        "query": { "page": 1, "tags": ["a", "b"] },
        "json": { "lines": [1] },
    });
    assert_eq!(host.asked, [("http.request".to_owned(), asked)]);
}

#[test]
fn a_status_outside_of_those_wanted_is_an_error_of_that_status() {
    for (redirect, status, is_error) in
        [(false, 302, true), (true, 302, false), (false, 404, true), (true, 503, true)]
    {
        let tasks = format!(
            "- a: {{ call: http, with: {{ method: get, endpoint: 'https://shop.test/x', redirect: {redirect} }} }}"
        );
        let mut host = Host::new(&document(&tasks), &json!({}))
            .answering(move |_, _| Some(Ok(http(status, &json!("body")))));
        match host.run() {
            Ended::Output(output) => assert!(!is_error && output == json!("body"), "{status}"),
            Ended::Fault(fault) => {
                assert!(is_error, "{status}");
                assert_eq!(fault["status"], json!(status));
                assert_eq!(fault["detail"], json!(format!("GET https://shop.test/x answered {status}")));
                assert_eq!(
                    fault["type"],
                    json!("https://serverlessworkflow.io/spec/1.0.0/errors/communication")
                );
            }
            Ended::Stuck => panic!("nothing answered"),
        }
    }
}

#[test]
fn raw_output_is_the_body_in_base_64() {
    let tasks = "- a: { call: http, with: { method: GET, endpoint: 'https://shop.test/', output: raw } }";
    let mut host = Host::new(&document(tasks), &json!({}))
        .answering(|_, _| Some(Ok(json!({"status": 200, "headers": {}, "body_base64": "eHl6"}))));
    assert_eq!(host.run(), Ended::Output(json!("eHl6")));
    assert_eq!(host.asked[0].1["response"], json!("bytes"));
}

#[test]
fn a_uri_with_an_object_in_it_is_an_error() {
    let tasks = "- a: { call: http, with: { method: get, endpoint: 'https://shop.test/{x}' } }";
    let Ended::Fault(fault) = Host::new(&document(tasks), &json!({"x": {}})).run() else {
        panic!("it was called")
    };
    assert_eq!((&fault["status"], &fault["instance"]), (&json!(400), &json!("/do/0/a")));
}

#[test]
fn an_openapi_call_reads_the_description_first() {
    let description = r##"
openapi: 3.0.0
servers: [ { url: /api } ]
paths:
  /pets/{id}:
    get:
      operationId: find
      parameters: [ { name: id, in: path, required: true }, { name: full, in: query } ]
"##;
    let tasks = r#"
- find:
    call: openapi
    with:
      document: { endpoint: https://pets.test/openapi.yaml }
      operationId: find
      parameters: { id: "${ .id }", full: true }
      authentication: { bearer: { token: t } }
    output: { as: .name }
"#;
    let mut host = Host::new(&document(tasks), &json!({"id": 3})).answering(move |_, input| {
        let is_description = input["url"].as_str().is_some_and(|url| url.ends_with(".yaml"));
        Some(Ok(http(200, &if is_description { json!(description) } else { json!({"name": "Milou"}) })))
    });
    assert_eq!(host.run(), Ended::Output(json!("Milou")));
    let asked: Vec<&Value> = host.asked.iter().map(|(_, input)| input).collect();
    assert_eq!(asked.len(), 2);
    assert_eq!(
        (&asked[0]["url"], &asked[0]["response"]),
        (&json!("https://pets.test/openapi.yaml"), &json!("text"))
    );
    assert_eq!(asked[1]["url"], json!("https://pets.test/api/pets/3"));
    assert_eq!(asked[1]["query"], json!({"full": true}));
    assert_eq!(asked[1]["headers"], json!({"Authorization": "Bearer t"}));
}

#[test]
fn a_description_without_the_operation_is_a_configuration_error() {
    let tasks = "- a: { call: openapi, with: { document: { endpoint: 'https://pets.test/o.json' }, operationId: none } }";
    for (answer, kind, status) in [
        (http(200, &json!("{\"paths\": {}}")), "configuration", 400),
        (http(200, &json!("{{")), "configuration", 400),
        (http(404, &json!("")), "communication", 404),
    ] {
        let mut host =
            Host::new(&document(tasks), &json!({})).answering(move |_, _| Some(Ok(answer.clone())));
        let Ended::Fault(fault) = host.run() else { panic!("it was called") };
        assert_eq!(fault["type"], json!(format!("https://serverlessworkflow.io/spec/1.0.0/errors/{kind}")));
        assert_eq!(fault["status"], json!(status));
    }
}

#[test]
fn any_tool_of_the_pool_is_a_function() {
    let tasks = "- hold: { call: shop.hold, with: { order: \"${ .id }\" }, output: { as: .held } }";
    let mut host = Host::new(&document(tasks), &json!({"id": 5}))
        .answering(|tool, input| Some(Ok(json!({ "held": [tool, input] }))));
    assert_eq!(host.run(), Ended::Output(json!(["shop.hold", {"order": 5}])));
}

#[test]
fn kinds_of_failures_are_kinds_of_errors() {
    for (state, code, kind, status) in [
        (RunState::Failed, "connect_failed", "communication", 500),
        (RunState::TimedOut, "timeout", "timeout", 408),
        (RunState::Failed, "invalid_input", "validation", 400),
        (RunState::Failed, "unknown_tool", "configuration", 400),
        (RunState::Failed, "address_refused", "authorization", 403),
        (RunState::Cancelled, "cancelled", "runtime", 500),
    ] {
        let mut host = Host::new(&document("- a: { call: echo }"), &json!({}))
            .answering(move |_, _| Some(Err((state, code, "so it is".to_owned()))));
        let Ended::Fault(fault) = host.run() else { panic!("it succeeded") };
        assert_eq!(
            fault["type"],
            json!(format!("https://serverlessworkflow.io/spec/1.0.0/errors/{kind}")),
            "{code}"
        );
        assert_eq!((&fault["status"], &fault["instance"]), (&json!(status), &json!("/do/0/a")), "{code}");
    }
}

#[test]
fn shells_and_scripts_go_through_the_allowed_programs() {
    let tasks = r#"
- shell: { run: { shell: { command: "echo ${ .name }", arguments: [a, "${ .n }"] }, return: code } }
- js: { run: { script: { language: js, code: "console.log(who)", arguments: { who: "${ . }" } } } }
- python: { run: { script: { language: python, code: "print(who)", arguments: { who: { it: "is \"me\"" } } }, await: false } }
- none: { run: { shell: { command: ls }, return: none } }
"#;
    let mut host = Host::new(&document(tasks), &json!({"name": "ada", "n": 2}))
        .answering(|_, _| Some(Ok(json!({"exit_code": 0, "stdout": "out"}))));
    assert_eq!(host.run(), Ended::Output(json!({})));
    let asked: Vec<&Value> = host.asked.iter().map(|(_, input)| input).collect();
    assert_eq!(asked[0], &json!({"program": "sh", "args": ["-c", "echo ada \"$@\"", "sh", "a", "2"]}));
    assert_eq!(asked[1], &json!({"program": "node", "args": ["-e", "const who = 0;\nconsole.log(who)"]}));
    let script = "who = __import__('json').loads(\"{\\\"it\\\":\\\"is \\\\\\\"me\\\\\\\"\\\"}\")\nprint(who)";
    assert_eq!(asked[2], &json!({"program": "python3", "args": ["-c", script]}));
    assert_eq!(asked[3], &json!({"program": "sh", "args": ["-c", "ls"]}));
}

#[test]
fn other_workflows_are_run_by_namespace_name_and_version() {
    let tasks = r#"
- one: { run: { workflow: { namespace: Other, name: do-it, version: 1.2.3, input: { x: "${ .n }" } } } }
- two: { run: { workflow: { namespace: other, name: later, version: latest }, await: false } }
- three: { run: { workflow: { namespace: other, name: third }, return: none } }
"#;
    let mut host =
        Host::new(&document(tasks), &json!({"n": 1})).answering(|_, input| Some(Ok(json!({ "got": input }))));
    assert_eq!(host.run(), Ended::Output(json!({})));
    let got = json!({"got": {"x": 1}});
    assert_eq!(
        host.asked,
        [
            ("other.do-it@1002003".to_owned(), json!({"x": 1})),
            ("other.later".to_owned(), got.clone()),
            ("other.third".to_owned(), got),
        ]
    );
}

#[test]
fn an_error_of_a_sub_workflow_keeps_its_type() {
    let inner =
        json!({"type": "urn:tea", "status": 418, "title": "Tea", "instance": "/do/7/deep"}).to_string();
    let tasks = "- a: { run: { workflow: { namespace: o, name: n, version: latest } } }";
    let mut host = Host::new(&document(tasks), &json!({}))
        .answering(move |_, _| Some(Err((RunState::Failed, "sw_tea", inner.clone()))));
    let expected = json!({"type": "urn:tea", "status": 418, "title": "Tea", "instance": "/do/0/a"});
    assert_eq!(host.run(), Ended::Fault(expected));
}

#[test]
fn tasks_of_one_name_have_blocks_of_their_own() {
    let tasks = "- a: { do: [ { call it: { call: echo, with: { n: 1 } } } ] }\n- b: { do: [ { call it: { call: echo, with: { n: 2 } } } ] }";
    let plan = tidemill_serverless::plan(&document(tasks), "x", &crate::host::Tools).expect("it is valid");
    assert!(plan.block("flow/call_it").is_some() && plan.block("flow/call_it-2").is_some());
    assert_eq!((plan.name.as_str(), plan.version, plan.waits()), ("test.doc", 1000, true));
}
