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

#[test]
fn the_schema_refuses_what_the_reader_refuses() {
    let schema = schema();
    let with = |member: &str, value: Value| {
        let mut definition =
            json!({ "name": "w", "steps": [{ "id": "a", "tool": "echo" }, { "id": "b", "tool": "echo" }] });
        match member.strip_prefix("step.") {
            Some(member) => definition["steps"][0][member] = value,
            None => definition[member] = value,
        }
        definition
    };
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
        ("step.finally", json!(true)),
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
        ("step.compensate", json!({})),
        ("step.timeout_ms", json!("1s")),
    ] {
        let definition = with(member, value.clone());
        let parsed = Definition::parse(&definition.to_string(), "w").is_ok();
        assert_eq!(schema.is_valid(&definition), parsed, "{member}: {value}");
    }
}

#[test]
fn the_schema_refuses_the_steps_that_the_reader_refuses() {
    let schema = schema();
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
        let definition = json!({ "name": "w", "steps": [step, { "id": "b", "tool": "echo" }] });
        assert_eq!(schema.is_valid(&definition), valid, "{step}");
        assert_eq!(Definition::parse(&definition.to_string(), "w").is_ok(), valid, "{step}");
    }
}
