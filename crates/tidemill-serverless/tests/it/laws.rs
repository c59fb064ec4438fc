//! Whatever is written, reading and running it never panic and never run for ever.

use proptest::prelude::*;
use serde_json::{Value, json};
use tidemill_protocol::RunState;

use crate::host::{Ended, Host, Tools, document};

/// Tasks that nest, fail, retry, wait, fork and call, with names from `n` on.
fn tasks(depth: u32) -> BoxedStrategy<Value> {
    let task = prop_oneof![
        Just(json!({ "set": { "n": "${ (.n // 0) + 1 }" } })),
        Just(json!({ "set": { "n": "${ .n }" }, "then": "exit" })),
        Just(json!({ "call": "echo", "with": { "n": "${ .n }" } })),
        Just(json!({ "call": "shop.hold", "with": { "order": 1 } })),
        Just(json!({ "wait": { "seconds": 3 } })),
        Just(json!({ "wait": { "seconds": 30 }, "timeout": { "after": { "seconds": 9 } } })),
        Just(json!({ "raise": { "error": { "type": "urn:x", "status": 500 } } })),
        Just(json!({ "emit": { "event": { "with": { "source": "s", "type": "t" } } } })),
        Just(json!({ "if": "(.n // 0) > 1", "set": { "n": 0 } })),
    ];
    let leaf = prop::collection::vec(task, 1..4).prop_map(named);
    leaf.prop_recursive(depth, 24, 3, |inner| {
        let nested = prop_oneof![
            inner.clone().prop_map(|list| json!({ "do": list })),
            inner.clone().prop_map(|list| json!({ "for": { "in": "[1, 2]" }, "do": list })),
            (inner.clone(), any::<bool>())
                .prop_map(|(list, compete)| json!({ "fork": { "branches": list, "compete": compete } })),
            (inner.clone(), inner.clone()).prop_map(|(tried, handler)| {
                json!({ "try": tried, "catch": { "retry": { "limit": { "attempt": { "count": 1 } } }, "do": handler } })
            }),
            inner.prop_map(|list| json!({ "do": list, "timeout": { "after": { "seconds": 20 } } })),
        ];
        prop::collection::vec(nested, 1..3).prop_map(named)
    })
    .boxed()
}

fn named(tasks: Vec<Value>) -> Value {
    tasks.into_iter().enumerate().map(|(at, task)| json!({ (format!("t{at}")): task })).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// The host checks on the way that turns repeat, events come twice, keys are unique and last turns ask for nothing.
    #[test]
    fn every_document_comes_to_an_end(list in tasks(4), fails in any::<bool>()) {
        let text = json!({
            "document": { "dsl": "1.0.0", "namespace": "n", "name": "d", "version": "1.0.0" },
            "do": list,
        });
        let mut host = Host::new(&text.to_string(), &json!({})).answering(move |tool, input| {
            Some(if fails && tool == "shop.hold" {
                Err((RunState::Failed, "http_status", "no".to_owned()))
            } else {
                Ok(input.clone())
            })
        });
        prop_assert!(host.run() != Ended::Stuck);
    }

    #[test]
    fn any_text_is_read_without_a_panic(text in "(document|do|set|: |- |\\{|\\}|\\[|\\]|\\$|\"|\n|  |a|1){0,40}") {
        drop(tidemill_serverless::plan(&text, "x", &Tools));
        drop(tidemill_serverless::plan(&document(&text), "x", &Tools));
    }
}
