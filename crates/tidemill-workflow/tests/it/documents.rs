//! The published schema, and the examples of the documentation.

use serde_json::{Value, json};
use tidemill_protocol::ErrorClass;
use tidemill_workflow::{DEFINITION_SCHEMA, Definition, Plan};

use crate::Tools;

const GUIDE: &str = include_str!("../../../../docs/workflows.md");

fn schema() -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(DEFINITION_SCHEMA).expect("the schema is JSON");
    jsonschema::options().offline().build(&schema).expect("the schema compiles")
}

/// The blocks of the guide with this mark.
fn blocks(mark: &str) -> Vec<&'static str> {
    let fence = format!("```{mark}\n");
    GUIDE.split(fence.as_str()).skip(1).filter_map(|rest| rest.split("\n```").next()).collect()
}

#[test]
fn every_example_of_the_guide_is_a_valid_workflow() {
    let schema = schema();
    let examples = blocks("yaml");
    assert!(examples.len() >= 4, "the guide has examples");
    for example in examples {
        let plan = Plan::from_source(example, "docs/workflows.md", &Tools)
            .unwrap_or_else(|problems| panic!("{problems}\n{example}"));
        assert!(!plan.steps.is_empty());
        let value = Definition::parse(example, "docs/workflows.md").expect("it was a plan").to_value();
        let errors: Vec<String> = schema.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{errors:?}\n{example}");
    }
}

#[test]
fn every_refused_example_of_the_guide_is_refused_as_it_says() {
    let examples = blocks("yaml refused");
    assert!(!examples.is_empty(), "the guide shows what is refused");
    for example in examples {
        let said = (1_u32..)
            .zip(example.lines())
            .filter_map(|(line, text)| Some((line, text.split("# refused: ").nth(1)?)));
        let expected: Vec<(u32, &str)> =
            said.flat_map(|(line, codes)| codes.split(", ").map(move |code| (line, code))).collect();
        let problems = crate::problems(example);
        let codes: Vec<(u32, &str)> =
            problems.iter().map(|problem| (problem.line, problem.code.as_str())).collect();
        assert_eq!(codes, expected, "{problems}");
    }
}

/// Schema and reader agree about a definition with this member, which is one of the first step where its name starts so.
fn agree(member: &str, value: &Value) {
    let mut definition =
        json!({ "name": "w", "steps": [{ "id": "a", "tool": "echo" }, { "id": "b", "tool": "echo" }] });
    match member.strip_prefix("step.") {
        Some(member) => definition["steps"][0][member] = value.clone(),
        None => definition[member] = value.clone(),
    }
    let parsed = Definition::parse(&definition.to_string(), "w").is_ok();
    assert_eq!(schema().is_valid(&definition), parsed, "{member}: {value}");
}

/// Schema and reader agree that a step is valid, or that it is not.
fn are_agreed(step: &Value, valid: bool) {
    let definition = json!({ "name": "w", "steps": [step, { "id": "b", "tool": "echo" }] });
    assert_eq!(schema().is_valid(&definition), valid, "{step}");
    assert_eq!(Definition::parse(&definition.to_string(), "w").is_ok(), valid, "{step}");
}

#[test]
fn the_schema_refuses_what_the_reader_refuses() {
    for (member, value) in [
        ("version", json!(3)),
        ("failure", json!("finish")),
        ("input", json!(true)),
        ("output", json!(null)),
        ("retention_ms", json!(0)),
        ("step.join", json!("all")),
        ("step.when", json!(true)),
        ("step.for_each", json!(["x"])),
        ("step.for_each", json!({ "items": "${ [] }" })),
        ("step.tool", json!("echo@v1")),
        ("step.retry", json!({ "on": ErrorClass::ALL })),
        ("step.needs", json!(["b"])),
        ("step.on_error", json!("continue")),
        ("step.match", json!("all")),
        ("step.on_error", json!("goto")),
        ("step.on_error", json!({ "goto": "b" })),
        ("step.on_error", json!("compensate")),
        ("step.on_error", json!({})),
        ("version", json!(0)),
        ("failure", json!("stop")),
        ("input", json!(5)),
        ("colour", json!(1)),
        ("name", json!("W")),
        ("queue", json!("a b")),
        ("timeout_ms", json!(0)),
        ("steps", json!([])),
        ("step.id", json!("1")),
        ("step.join", json!("some")),
        ("step.join", json!({ "n_of": 0 })),
        ("step.for_each", json!(5)),
        ("step.for_each", json!({ "items": [], "concurrency": 0 })),
        ("step.tool", json!("")),
        ("step.tool", json!("a b")),
        ("step.retry", json!({ "on": ["x"] })),
        ("step.needs", json!("b")),
        ("step.needs", json!(["b", "b"])),
        ("step.timeout_ms", json!("1s")),
    ] {
        agree(member, &value);
    }
}

#[test]
fn the_schema_refuses_the_loops_and_waits_that_the_reader_refuses() {
    for (member, value) in [
        ("step.compensate", json!({ "tool": "echo", "with": 1, "retry": {}, "timeout_ms": 5 })),
        ("step.compensate", json!({ "tool": "echo", "needs": [] })),
        ("step.for_each", json!({ "items": [], "batch": 5, "tolerate": "2.5%" })),
        ("step.for_each", json!({ "items": [], "tolerate": "100%" })),
        ("step.for_each", json!({ "items": [], "tolerate": "100.5%" })),
        ("step.for_each", json!({ "items": [], "tolerate": "5" })),
        ("step.for_each", json!({ "items": [], "batch": 0 })),
        ("step.repeat", json!({ "until": true })),
        (
            "step.repeat",
            json!({ "while": "${ true }", "max_iterations": 3, "every_ms": 0, "on_exhausted": "continue" }),
        ),
        ("step.repeat", json!({ "max_iterations": 3 })),
        ("step.repeat", json!({ "until": true, "max_iterations": 0 })),
        ("step.wait", json!({ "for_ms": 5 })),
        ("step.wait", json!({ "for_ms": "5" })),
        ("step.wait", json!({ "for_ms": "${ .output }" })),
        ("step.wait", json!({ "until": "2030-01-01T00:00:00Z", "time_zone": "UTC" })),
        ("step.wait", json!({ "signal": "go", "schema": {}, "timeout_ms": 5, "on_timeout": "fail" })),
        ("step.wait", json!({ "signal": "go", "on_timeout": "fail" })),
        ("step.wait", json!({ "signal": "g o" })),
        ("step.wait", json!({ "signal": "go", "for_ms": 5 })),
        ("step.wait", json!({})),
        ("step.workflow", json!("w2")),
        ("step.detached", json!(true)),
        ("step.output", json!(1)),
        ("step.finally", json!(true)),
        ("step.compensate", json!({})),
    ] {
        agree(member, &value);
    }
}

#[test]
fn the_schema_refuses_what_the_reader_refuses_about_runs() {
    for (member, value) in [
        ("labels", json!({ "a/b": "x", "n": 1, "t": true })),
        ("labels", json!({ "a b": "x" })),
        ("labels", json!({ "a": null })),
        ("labels", json!([])),
        ("group", json!({ "key": "x", "limit": 1, "on_full": "cancel_newer" })),
        ("group", json!({ "key": "x" })),
        ("group", json!({ "key": 1, "limit": 1 })),
        ("budget", json!({ "steps": 1, "cost": 0.5, "duration_ms": 1 })),
        ("budget", json!({ "cost": 0 })),
        ("mode", json!("hybrid")),
        ("mode", json!("quick")),
        ("finally", json!([{ "id": "f", "tool": "echo", "when": true, "queue": "q" }])),
        ("finally", json!([{ "id": "f", "wait": { "for_ms": 1 } }])),
        ("finally", json!([{ "id": "f", "tool": "echo", "needs": [] }])),
        ("finally", json!([])),
    ] {
        agree(member, &value);
    }
}

#[test]
fn the_schema_refuses_the_steps_that_the_reader_refuses() {
    for (step, valid) in [
        (
            json!({ "id": "a", "switch": [{ "when": true, "then": ["b"] }, { "default": [] }], "match": "all" }),
            true,
        ),
        (json!({ "id": "a", "tool": "echo", "on_error": "fail", "continue_on_error": false }), true),
        (json!({ "id": "a", "tool": "echo", "on_error": "fail", "continue_on_error": true }), false),
        (json!({ "id": "a", "tool": "echo", "on_error": "continue", "continue_on_error": false }), false),
        (json!({ "id": "a" }), false),
        (json!({ "id": "a", "switch": [] }), false),
        (json!({ "id": "a", "switch": [{}] }), false),
        (json!({ "id": "a", "switch": [{ "when": true }] }), false),
        (json!({ "id": "a", "switch": [{ "when": true, "then": ["b", "b"] }] }), false),
        (json!({ "id": "a", "switch": [{ "when": true, "then": [], "default": [] }] }), false),
        (json!({ "id": "a", "switch": [{ "default": "b" }] }), false),
        (json!({ "id": "a", "switch": [{ "default": [] }], "match": "any" }), false),
        (json!({ "id": "a", "switch": [{ "default": [] }], "tool": "echo" }), false),
        (json!({ "id": "a", "switch": [{ "default": [] }], "with": {} }), false),
        (json!({ "id": "a", "switch": [{ "default": [] }], "retry": {} }), false),
    ] {
        are_agreed(&step, valid);
    }
}

#[test]
fn the_schema_refuses_the_blocks_that_the_reader_refuses() {
    for (step, valid) in [
        (json!({ "id": "a", "tool": "echo", "on_error": { "goto": "b" }, "continue_on_error": true }), false),
        (json!({ "id": "a", "workflow": "w@2", "with": 5, "detached": true }), true),
        (json!({ "id": "a", "workflow": "w@0" }), false),
        (json!({ "id": "a", "workflow": "w", "retry": {} }), false),
        (json!({ "id": "a", "workflow": "w", "timeout_ms": 5 }), false),
        (json!({ "id": "a", "workflow": "w", "for_each": [1], "detached": true }), false),
        (
            json!({ "id": "a", "steps": [{ "id": "c", "tool": "echo" }], "timeout_ms": 5, "output": 1, "with": 1 }),
            true,
        ),
        (json!({ "id": "a", "steps": [] }), false),
        (json!({ "id": "a", "steps": [{ "id": "c" }] }), false),
        (json!({ "id": "a", "steps": [{ "id": "c", "tool": "echo" }], "tool": "echo" }), false),
        (
            json!({ "id": "a", "steps": [{ "id": "c", "tool": "echo" }], "for_each": [1], "repeat": { "until": true } }),
            false,
        ),
        (
            json!({ "id": "a", "race": [{ "id": "c", "tool": "echo" }, { "id": "d", "wait": { "for_ms": 1 } }] }),
            true,
        ),
        (json!({ "id": "a", "race": [{ "id": "c", "tool": "echo" }] }), false),
        (
            json!({ "id": "a", "race": [{ "id": "c", "tool": "echo", "needs": [] }, { "id": "d", "tool": "echo" }] }),
            false,
        ),
        (
            json!({ "id": "a", "race": [{ "id": "c", "switch": [{ "default": [] }] }, { "id": "d", "tool": "echo" }] }),
            false,
        ),
    ] {
        are_agreed(&step, valid);
    }
}

#[test]
fn the_schema_refuses_the_waiting_steps_that_the_reader_refuses() {
    for (step, valid) in [
        (json!({ "id": "a", "wait": { "for_ms": 1 }, "compensate": { "tool": "echo" } }), true),
        (json!({ "id": "a", "wait": { "for_ms": 1 }, "with": 1 }), false),
        (json!({ "id": "a", "tool": "echo", "wait": { "signal": "go" }, "retry": {} }), true),
        (json!({ "id": "a", "tool": "echo", "wait": { "signal": "go" }, "for_each": [1] }), false),
        (json!({ "id": "a", "approval": {} }), true),
        (
            json!({ "id": "a", "approval": { "of": "b", "who": ["x"], "prompt": "p", "timeout_ms": 5, "on_timeout": "approve",
                "max_iterations": 2, "on_reject": "revise", "remind": { "every_ms": 1000, "tool": "echo", "with": 1 } } }),
            true,
        ),
        (json!({ "id": "a", "approval": { "on_reject": "revise" } }), false),
        (json!({ "id": "a", "approval": { "on_reject": "continue" } }), true),
        (json!({ "id": "a", "approval": { "max_iterations": 2 } }), false),
        (json!({ "id": "a", "approval": { "who": [] } }), false),
        (json!({ "id": "a", "approval": { "remind": { "every_ms": 5, "tool": "echo" } } }), false),
        (json!({ "id": "a", "approval": { "on_timeout": "fail" } }), false),
        (json!({ "id": "a", "switch": [{ "default": [] }], "compensate": { "tool": "echo" } }), false),
    ] {
        are_agreed(&step, valid);
    }
}
