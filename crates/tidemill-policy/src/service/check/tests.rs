use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::service::{Catalog, Definition, Problem};

fn problems(name: &str, definition: &Value) -> Vec<(String, String)> {
    let definition: Definition = serde_json::from_value(definition.clone()).unwrap();
    definition.check(name).into_iter().map(|Problem { path, message, .. }| (path, message)).collect()
}

fn refused(name: &str, definition: &Value, path: &str, word: &str) {
    let found = problems(name, definition);
    assert!(
        found.iter().any(|(at, message)| at == path && message.contains(word)),
        "{definition} → {found:?}"
    );
}

fn limit(members: &Value) -> Value {
    let mut limit = json!({ "unit": "requests", "limit": 100, "window_ms": 1000 });
    limit.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    json!({ "limits": [limit] })
}

#[test]
fn a_service_without_anything_is_one() {
    assert_eq!(problems("openai", &json!({})), []);
}

#[test]
fn the_service_of_the_design_is_one() {
    let all = json!({
        "description": "the chat API",
        "tools": ["llm.chat", "openai.*"],
        "limits": [
            { "unit": "requests", "limit": 600, "window_ms": 60000 },
            { "unit": "total_tokens", "limit": 90000, "window_ms": 60000, "contract": "average", "burst": 9000 },
            { "unit": "requests", "limit": "auto", "window_ms": 1000, "initial": 10, "max": 1000 },
            { "unit": "cost", "limit": 5, "window_ms": 1000, "contract": "fixed_window" },
            { "unit": "requests", "limit": 1, "window_ms": 500 },
        ],
        "concurrency": 50, "model": ".model", "user": ".user", "credential": ".key",
        "per_tenant": { "*": { "concurrency": 5 }, "acme/eu": { "limits": [{ "unit": "requests", "limit": 5, "window_ms": 1000 }] } },
        "per_model": { "gpt-9": { "concurrency": 5 } }, "per_credential": { "*": { "concurrency": 5 } },
        "estimate": { "total_tokens": ".max_tokens // 1000", "cost": 3 }, "default_estimate": { "total_tokens": 700 },
        "usage": { "total_tokens": ".body.usage.total" },
        "breaker": { "window": "count", "counts": ["server"] },
        "retry": { "max_attempts": 5 }, "per_class": { "throttled": { "max_attempts": 10 } },
        "retry_budget": { "ratio": 0.2, "when_spent": "fail" }, "timeout_ms": 60000,
        "hedge": { "after": "p95", "max_ratio": 0.05 },
        "cache": { "ttl_ms": 1000, "stale_ms": 1000, "order": "lfu" },
        "fallback": [{ "tool": "other.tool", "with": { "a": 1 } }, { "service": "other" }, { "stale": true }, { "value": null }],
        "fallback_on": ["limited"], "backpressure": "adaptive", "max_wait_ms": 1000, "redis_loss": { "local_share": 0.1 },
        "patience_ms": 10,
    });
    assert_eq!(problems("openai", &all), []);
    let definition: Definition = serde_json::from_value(all.clone()).unwrap();
    let written = serde_json::to_value(&definition).unwrap();
    assert_eq!(serde_json::from_value::<Definition>(written.clone()).unwrap(), definition);
    for (key, value) in all.as_object().unwrap() {
        if key != "breaker" && key != "retry_budget" && key != "cache" && key != "limits" {
            assert!(written[key] == *value || written[key].is_object(), "{key}: {}", written[key]);
        }
    }
}

#[test]
fn a_limit_that_cannot_be_held_is_refused() {
    for (members, key, word) in [
        (json!({ "unit": "Total Tokens" }), "unit", "snake-case"),
        (json!({ "unit": "" }), "unit", "snake-case"),
        (json!({ "limit": 0 }), "limit", "pause"),
        (json!({ "limit": 2_000_000_000_000_u64 }), "limit", "between"),
        (json!({ "window_ms": 0 }), "window_ms", "between"),
        (json!({ "burst": 101 }), "burst", "more than the limit"),
        (json!({ "burst": 0 }), "burst", "between"),
        (json!({ "contract": "fixed_window", "burst": 5 }), "burst", "at once"),
        (json!({ "contract": "average", "slack_ms": 5 }), "slack_ms", "strict"),
        (json!({ "slack_ms": 2000 }), "slack_ms", "between"),
        (json!({ "initial": 5 }), "initial", "auto"),
        (json!({ "limit": "auto", "initial": 50, "max": 20 }), "initial", "above"),
        (json!({ "limit": "auto", "burst": 11 }), "burst", "at most 10"),
    ] {
        refused("openai", &limit(&members), &format!("openai.limits.0.{key}"), word);
    }
    for fine in [
        json!({ "limit": 1, "burst": 1 }),
        json!({ "burst": 50 }),
        json!({ "contract": "average", "burst": 300 }),
    ] {
        assert_eq!(problems("openai", &limit(&fine)), []);
    }
    let twice = json!({ "unit": "requests", "limit": 1, "window_ms": 5 });
    refused("openai", &json!({ "limits": [twice, twice] }), "openai.limits.1", "another limit");
    refused("openai", &json!({ "concurrency": 0 }), "openai.concurrency", "pause");
    let many: Vec<_> =
        (1..=17).map(|ms| json!({ "unit": "requests", "limit": 1, "window_ms": ms })).collect();
    refused("openai", &json!({ "limits": many }), "openai.limits", "17");
}

#[test]
fn a_scope_of_the_pool_takes_only_limits_and_concurrency() {
    refused("@pool", &json!({ "concurrency": 5, "patience_ms": 5 }), "@pool", "nothing else");
    refused("@pool", &json!({}), "@pool", "limits nothing");
    refused("@team:a", &json!({ "concurrency": 5 }), "@team:a", "@tenant:");
    refused("@tenant:", &json!({ "concurrency": 5 }), "@tenant:", "@tenant:");
    for name in ["@pool", "@tenant:*", "@tenant:acme", "@user:*", "@tool:exec"] {
        assert_eq!(problems(name, &json!({ "concurrency": 5, "description": "bulkhead" })), []);
    }
}

#[test]
fn each_problem_of_a_service_is_told_at_its_key() {
    for (definition, path, word) in [
        (json!({ "tools": ["a.*.b"] }), "openai.tools.0", "before its end"),
        (json!({ "tools": ["a b"] }), "openai.tools.0", "tool or workflow name"),
        (json!({ "tools": ["a", "a"] }), "openai.tools.1", "twice"),
        (json!({ "per_model": { "gpt": { "concurrency": 5 } } }), "openai.model", "per_model"),
        (json!({ "model": " " }), "openai.model", "empty"),
        (json!({ "per_tenant": { "a.b": {} } }), "openai.per_tenant.\"a.b\"", "limits nothing"),
        (
            json!({ "per_tenant": { "a/b": { "concurrency": 1 }, "a:b": { "concurrency": 2 } } }),
            "openai.per_tenant.a:b",
            "shares",
        ),
        (
            json!({ "per_user": { "u": { "limits": [{ "unit": "requests", "limit": 0, "window_ms": 5 }] } } }),
            "openai.per_user.u.limits.0.limit",
            "pause",
        ),
        (json!({ "estimate": { "requests": 2 } }), "openai.estimate.requests", "always"),
        (json!({ "usage": { "Tokens": ".a" } }), "openai.usage.Tokens", "snake-case"),
        (json!({ "breaker": { "failure_ratio": 0.0 } }), "openai.breaker.failure_ratio", "above 0"),
        (json!({ "breaker": { "counts": [] } }), "openai.breaker.counts", "never open"),
        (
            json!({ "breaker": { "window": "count", "window_calls": 10 } }),
            "openai.breaker.min_calls",
            "never open",
        ),
        (json!({ "breaker": { "open_ms": 70_000 } }), "openai.breaker.max_open_ms", "between"),
        (json!({ "retry_budget": { "ratio": -1.0 } }), "openai.retry_budget.ratio", "between"),
        (json!({ "retry_budget": { "ratio": 0, "min_per_second": 0 } }), "openai.retry_budget", "fills"),
        (
            json!({ "per_class": { "server": { "max_attempts": 0 } } }),
            "openai.per_class.server.max_attempts",
            "between",
        ),
        (json!({ "hedge": { "max_ratio": 2.0 } }), "openai.hedge.max_ratio", "at most 1"),
        (json!({ "cache": { "ttl_ms": 0, "coalesce": false } }), "openai.cache.ttl_ms", "leave"),
        (json!({ "fallback": [{ "stale": true }] }), "openai.fallback.0", "stale_ms"),
        (json!({ "fallback": [{ "value": 1 }, { "tool": "a" }] }), "openai.fallback.0", "never reached"),
        (json!({ "fallback": [{ "service": "openai" }] }), "openai.fallback.0.service", "itself"),
        (json!({ "fallback": [{ "value": 1 }], "fallback_on": [] }), "openai.fallback_on", "empty"),
        (json!({ "redis_loss": { "local_share": 0 } }), "openai.redis_loss.local_share", "above 0"),
        (json!({ "patience_ms": 20_000 }), "openai.patience_ms", "between"),
    ] {
        refused("openai", &definition, path, word);
    }
    refused("a b", &json!({}), "a b", "64");
    refused("shop.eu", &json!({ "concurrency": 0 }), "\"shop.eu\".concurrency", "pause");
}

#[test]
fn a_form_that_is_wrong_is_said_in_words() {
    for (text, word) in [
        (
            r#"{ "limits": [{ "unit": "requests", "limit": "much", "window_ms": 5 }] }"#,
            "neither a whole number nor `auto`",
        ),
        (r#"{ "limits": [{ "unit": "requests", "limit": -5, "window_ms": 5 }] }"#, "whole number, or `auto`"),
        (r#"{ "hedge": { "after": "p50" } }"#, "nor `p95`"),
        (r#"{ "usage": "google" }"#, "`openai`"),
        (r#"{ "usage": 5 }"#, "units with jq"),
        (r#"{ "estimate": { "cost": [] } }"#, "jq expression over the input"),
        (r#"{ "fallback": [{ "tool": "a", "value": 1 }] }"#, "a fallback is one of"),
        (r#"{ "fallback": [{ "with": 1 }] }"#, "a fallback is one of"),
        (r#"{ "limit": [] }"#, "unknown field `limit`"),
        ("{", "EOF"),
    ] {
        let error = Definition::from_json(text).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
        assert_eq!(error.line, 1);
    }
    assert!(
        Definition::from_json("{\n  \"colour\": 1 }").unwrap_err().to_string().contains("(line 2, column")
    );
}

#[test]
fn what_is_wrong_between_services_is_found_too() {
    let set = |value: Value| serde_json::from_value::<BTreeMap<String, Definition>>(value).unwrap();
    let problems = Catalog::new(set(json!({
        "a": { "tools": ["x", "llm.*"], "concurrency": 0 },
        "b": { "tools": ["llm.*", "x.y"], "fallback": [{ "service": "c" }] },
        "@tenant:a/b": { "concurrency": 1 }, "@tenant:a:b": { "concurrency": 2 },
    })))
    .unwrap_err();
    let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
    for expected in [
        "services.a.concurrency: 0",
        "services.b.tools.0: \"llm.*\"",
        "services.b.fallback.0.service: there",
        "services.@tenant:a:b: it shares",
    ] {
        assert!(told.iter().any(|told| told.starts_with(expected)), "{expected} is not in {told:#?}");
    }
    assert_eq!(told.len(), 4, "{told:#?}");
}
