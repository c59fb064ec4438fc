//! The OpenAPI document says what the routes are.

use serde_json::Value;
use tidemill_producer::http::openapi_json;

use crate::door::Door;

/// Every route of the API, as the design names them.
const ROUTES: [(&str, &str); 54] = [
    ("post", "/v1/runs/{id}/signals/{name}"),
    ("post", "/v1/runs/{id}/steps/{step}/decision"),
    ("get", "/v1/approvals"),
    ("post", "/v1/runs/{id}/retry"),
    ("post", "/v1/runs/{id}/rerun"),
    ("post", "/v1/runs/{id}/steps/{step}/skip"),
    ("get", "/v1/operations"),
    ("post", "/v1/runs/{id}/pause"),
    ("post", "/v1/runs/{id}/resume"),
    ("post", "/v1/workflows/{name}/pause"),
    ("post", "/v1/workflows/{name}/resume"),
    ("post", "/v1/queues/{name}/pause"),
    ("post", "/v1/queues/{name}/resume"),
    ("get", "/v1/paused"),
    ("post", "/v1/bulk"),
    ("post", "/v1/jobs"),
    ("get", "/v1/jobs/{id}"),
    ("get", "/v1/jobs/{id}/why"),
    ("post", "/v1/jobs/{id}/cancel"),
    ("post", "/v1/runs"),
    ("get", "/v1/runs"),
    ("get", "/v1/runs/{id}"),
    ("get", "/v1/runs/{id}/why"),
    ("get", "/v1/runs/{id}/steps/{step}"),
    ("get", "/v1/runs/{id}/audit"),
    ("get", "/v1/runs/{id}/history"),
    ("post", "/v1/runs/{id}/cancel"),
    ("get", "/v1/runs/{id}/events"),
    ("get", "/v1/results/{id}"),
    ("get", "/v1/services"),
    ("get", "/v1/services/changes"),
    ("get", "/v1/services/{name}"),
    ("put", "/v1/services/{name}"),
    ("delete", "/v1/services/{name}"),
    ("post", "/v1/services/{name}/{action}"),
    ("get", "/v1/queues"),
    ("get", "/v1/workers"),
    ("get", "/v1/dead"),
    ("put", "/v1/workflows"),
    ("get", "/v1/workflows"),
    ("get", "/v1/workflows/{name}"),
    ("post", "/v1/workflows/validate"),
    ("get", "/v1/workflows/{name}/versions"),
    ("get", "/v1/workflows/{name}/changes"),
    ("get", "/v1/workflows/{name}/diff"),
    ("post", "/v1/workflows/{name}/{action}"),
    ("get", "/v1/groups"),
    ("get", "/v1/groups/{name}"),
    ("get", "/v1/mode"),
    ("put", "/v1/mode"),
    ("post", "/v1/mode/rollback"),
    ("get", "/v1/mode/history"),
    ("get", "/v1/mode/metrics"),
    ("get", "/openapi.json"),
];

fn operations(document: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            found.push((method.clone(), path.clone()));
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn every_route_is_in_the_document_and_the_document_s_routes_exist() {
    let door = Door::open().await;
    let answer = door.get("/openapi.json").await;
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.body, openapi_json());
    let document = answer.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."), "{}", document["openapi"]);
    let mut wanted: Vec<_> = ROUTES.map(|(method, path)| (method.to_owned(), path.to_owned())).to_vec();
    wanted.sort();
    assert_eq!(operations(&document), wanted);
    for (method, path) in ROUTES {
        let path = path.replace(['{', '}'], "");
        let answer = door.send(&method.to_uppercase(), &path, &[], "").await;
        let code = if answer.status >= 400 {
            answer.json()["code"].as_str().unwrap().to_owned()
        } else {
            String::new()
        };
        assert!(!["unknown_path", "method_not_allowed"].contains(&code.as_str()), "{method} {path}: {code}");
    }
}

#[test]
fn every_reference_of_the_document_leads_somewhere_and_every_operation_has_its_own_id() {
    let document: Value = serde_json::from_str(&openapi_json()).unwrap();
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(references.len() > 20, "{references:?}");
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    let mut ids = Vec::new();
    for item in document["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values() {
            ids.push(operation["operationId"].as_str().unwrap().to_owned());
            assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()));
            assert!(!operation["responses"].as_object().unwrap().is_empty());
        }
    }
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count);
}

fn collect(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                if name == "$ref" {
                    references.push(value.as_str().unwrap().to_owned());
                }
                collect(value, references);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, references)),
        _ => {}
    }
}
