//! Definitions and plans from the outside.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests may fail the test"
)]

mod blocks;
mod braces;
mod closing;
mod definitions;
mod diff;
mod documents;
mod expressions;
mod laws;
mod switches;
mod templates;
mod waits;

use serde_json::{Value, json};
use tidemill_workflow::{Plan, ProblemCode, Problems, ToolCatalog};

/// A catalogue with the tools that the tests name.
struct Tools;

impl ToolCatalog for Tools {
    fn knows(&self, tool: &str) -> bool {
        self.names().iter().any(|name| name == tool)
    }

    fn input_schema(&self, tool: &str) -> Option<Value> {
        (tool == "sleep").then(|| {
            json!({
                "type": "object",
                "properties": { "ms": { "type": "integer", "minimum": 0 } },
                "required": ["ms"],
                "additionalProperties": false
            })
        })
    }

    fn names(&self) -> Vec<String> {
        [
            "echo",
            "sleep",
            "http.request",
            "exec.run",
            "jq.transform",
            "template.render",
            "llm.chat",
            "shop.hold",
        ]
        .map(str::to_owned)
        .to_vec()
    }
}

fn plan(text: &str) -> Plan {
    Plan::from_source(text, "w.yaml", &Tools).unwrap_or_else(|problems| panic!("{problems}"))
}

fn problems(text: &str) -> Problems {
    Plan::from_source(text, "w.yaml", &Tools).expect_err("the definition is wrong")
}

/// The text has one problem, of this kind, at this line and column.
fn has_problem(text: &str, code: ProblemCode, place: (u32, u32), message: &str) {
    let problems = problems(text);
    let problem = problems.iter().next().expect("there is a problem");
    assert_eq!(problems.len(), 1, "{problems}");
    assert_eq!((problem.code, (problem.line, problem.column)), (code, place), "{problem}");
    assert!(problem.to_string().contains(message), "{problem}");
}
