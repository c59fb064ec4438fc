//! Paths in `{{ … }}`.

use proptest::prelude::*;
use serde_json::{Value, json};
use tidemill_workflow::{ExprError, Limits, Plan, ProblemCode, Scope};

use crate::templates::{renders, scope, with};
use crate::{Tools, has_problem, plan, problems};

/// What a template gives for an input.
fn of_input(template: &str, input: &Value) -> Result<Value, ExprError> {
    let plan =
        plan(&json!({ "name": "w", "steps": [{ "id": "a", "tool": "echo", "with": template }] }).to_string());
    let input = input.to_string();
    let scope = Scope { input: input.as_bytes(), ..Scope::default() };
    let text = plan.steps[0].with.render(&scope, &Limits::default())?;
    Ok(serde_json::from_slice(&text).expect("it is JSON"))
}

fn refusal(template: &str, input: &Value) -> String {
    of_input(template, input).expect_err("it leads nowhere").to_string()
}

#[test]
fn a_path_that_is_the_whole_string_keeps_its_type() {
    renders(&json!("{{ input.order }}"), &json!(42));
    renders(&json!("{{input}}"), &json!({ "order": 42, "name": "A \"b\"" }));
    renders(
        &json!({ "a": ["{{ steps.a.output.tags }}", "{{ steps.a.state }}"] }),
        &json!({ "a": [["x", "y"], "succeeded"] }),
    );
    renders(&json!("{{ steps.a.output.tags[-1] }}"), &json!("y"));
    renders(&json!("{{ steps.b.error.code }}"), &json!("http_500"));
    renders(&json!("{{ steps.b.output }}"), &json!(null));
    renders(&json!("{{ run.tenant }}"), &json!(null));
    renders(&json!("{{ run }}"), &json!({ "id": "r1", "workflow": "w", "version": 3, "tenant": null }));
    renders(&json!("{{ input.order }}\n"), &json!(42));
}

#[test]
fn a_path_inside_of_text_is_interpolated() {
    renders(&json!("order {{ input.order }} of {{ input.name }}!"), &json!("order 42 of A \"b\"!"));
    renders(&json!("tags {{ steps.a.output.tags }}"), &json!("tags [\"x\",\"y\"]"));
    renders(&json!("<{{ steps.z.output }}> {{ run.version }}"), &json!("<plain é text> 3"));
    renders(&json!(" {{ input.order }}"), &json!(" 42"));
    renders(&json!("{{ input.order }}{{ input.order }}"), &json!("4242"));
}

#[test]
fn literals_and_templates_of_others_stay_as_they_are() {
    for (text, expected) in [
        ("{{ name }} of {{ order.id | upper }}", "{{ name }} of {{ order.id | upper }}"),
        ("{% if input %}{{ input.order }}{% endif %}", "{% if input %}{{ input.order }}{% endif %}"),
        ("{{ \"{{\" }} input.order }}", "{{ input.order }}"),
        ("{{ '{{' }} input.order }} {{ input.order }}", "{{ input.order }} 42"),
        ("{{ '{{' }} ${ .input.order }", "{{ 42"),
        ("{{ input.order }} $${", "42 ${"),
        ("{{ name }} ${ .input.order }", "{{ name }} 42"),
        ("}} {{", "}} {{"),
    ] {
        renders(&json!(text), &json!(expected));
    }
    assert!(with(&json!("{{ \"{{\" }}")).steps[3].with.is_constant());
}

#[test]
fn a_path_that_leads_nowhere_fails_the_step() {
    let input = json!({ "list": [1, 2], "none": null, "o": { "a b": {} }, "n": 5 });
    for (template, message) in [
        ("{{ input.lst }}", "expression `{{ input.lst }}` failed: `input` has no \"lst\""),
        ("x {{ input.lst }}", "`input` has no \"lst\""),
        ("{{ input.list[2] }}", "`input.list` has 2 values, but none at [2]"),
        ("{{ input.list[-3] }}", "`input.list` has 2 values, but none at [-3]"),
        ("{{ input.list[-2147483648] }}", "none at [-2147483648]"),
        ("{{ input.list.x }}", "`input.list` is an array and has no \"x\""),
        ("{{ input.o[0] }}", "`input.o` is an object and has no 0"),
        ("{{ input.o['a b'].c }}", "`input.o[\"a b\"]` has no \"c\""),
        ("{{ input.n.x.y }}", "`input.n` is a number and has no \"x\""),
        ("{{ input.none.x }}", "`input.none` is null and has no \"x\""),
        ("n: {{ input.none }}", "`input.none` is null where text is needed"),
    ] {
        let error = refusal(template, &input);
        assert!(error.contains(message), "{error}");
    }
    assert_eq!(of_input("{{ input.none }}", &input).unwrap(), Value::Null);
    assert_eq!(
        refusal("{{ input }}!", &Value::Null),
        "expression `{{ input }}` failed: `input` is null where text is needed"
    );
    assert_eq!(of_input("{{ input.x }}", &json!({})).unwrap_err().code(), "expression_failed");

    let plan = with(&json!("<{{ steps.b.output }}>"));
    let error = plan.steps[3].with.render(&scope(), &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("`steps.b.output` is null where text is needed"), "{error}");
}

#[test]
fn only_what_is_read_is_referenced() {
    for (template, input, steps) in [
        ("{{ input.a }}", true, vec![]),
        ("{{ steps.a.output.x }} {{ steps[\"z\"].state }}", false, vec![0, 1]),
        ("{{ run.id }}", false, vec![]),
        ("{{ steps.a }}", false, vec![1]),
        ("{{ steps }}", false, vec![0, 1, 2]),
    ] {
        let plan = with(&json!(template));
        let references = plan.steps[3].with.references();
        assert_eq!((references.input, &references.steps), (input, &steps), "{template}");
        assert_eq!(references.run, template.contains("run"), "{template}");
    }
}

#[test]
fn paths_stand_wherever_expressions_do() {
    let plan = plan(
        "name: w\nsteps:\n  - { id: a, tool: echo, when: '{{ input.ok }}', for_each: '{{ input.list }}', with: '{{ index }}: {{ item.n }}' }\n  - { id: r, switch: [{ when: '{{ input.ok }}', then: [] }] }\noutput: 'got {{ steps.a.output }}'\n",
    );
    let step = &plan.steps[0];
    let limits = Limits::default();
    let scope = Scope { input: br#"{"ok":true,"list":[{"n":"x"}]}"#, ..Scope::default() };
    assert_eq!(step.when.as_ref().unwrap().is_true(&scope, &limits), Ok(true));
    assert_eq!(step.when.as_ref().unwrap().source(), Some("{{ input.ok }}"));
    assert_eq!(plan.steps[1].with.render(&scope, &limits).unwrap(), br#"{"chosen":[]}"#);
    let items = step.for_each.as_ref().unwrap().items(&scope, &limits).unwrap();
    let item = Scope { item: Some((4, items[0].get().as_bytes())), ..scope };
    assert_eq!(step.with.render(&item, &limits).unwrap(), br#""4: x""#);
    let odd = Scope { input: br#"{"ok":1}"#, ..Scope::default() };
    let error = step.when.as_ref().unwrap().is_true(&odd, &limits).unwrap_err();
    assert_eq!(error.code(), "expression_wrong_output", "{error}");
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let text = "name: w\nsteps:\n  - id: a\n    tool: echo\n    with:\n      deep:\n        - ok\n        - 'é {{ input.x | upper }}'\n";
    has_problem(
        text,
        ProblemCode::BadExpression,
        (8, 11),
        "w.yaml:8:11: steps[0].with.deep[1]: template `{{ input.x | upper }}`: column 12: expected",
    );
    let refused = |with: &str, code, message: &str| {
        let text = format!(
            "name: w\nsteps:\n  - {{ id: a, tool: echo }}\n  - id: b\n    tool: echo\n    with: {}\n",
            json!(with)
        );
        has_problem(&text, code, (6, 5), message);
    };
    refused("{{ steps.a.output }}", ProblemCode::NotUpstream, "add it to `needs`");
    refused("{{ steps.aa.output }}", ProblemCode::UnknownStepReference, "did you mean `a`?");
    let bad = ProblemCode::BadExpression;
    refused("{{ steps.a.body }}", bad, "a step has `output`, `state`, `error`");
    refused("{{ inputs.x }}", bad, "did you mean `input`?");
    refused("{{ item.x }}", bad, "outside of `for_each`");
    refused("{{ input.x }} and ${ .input.y }", bad, "write all of them in one way");
    refused("{{ name }} and {{ input.y }}", bad, "`{{ name }} and {{ input.y }}` in a string");
    refused("{{ input.x", bad, "no closing `}}`");
    let when = problems("name: w\nsteps: [{id: a, tool: echo, when: '{{ input.x }} '}]");
    assert!(when.has(ProblemCode::BadValue), "{when}");
}

/// JSON whose names need quotes at times.
fn documents() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z\"\\\\é{}$ ]{0,8}".prop_map(Value::from),
    ];
    scalar.prop_recursive(4, 30, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(
                "[a-z_]{1,3}|[a-z .\\[\\]{}$\\\\é-]{0,4}|[a-z\"]{0,3}|[a-z']{0,3}",
                inner,
                0..4
            )
            .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// A path into the document along the picks, as ours and as jq, with what it leads to.
fn path_into(document: &Value, picks: &[(prop::sample::Index, bool)]) -> (String, String, Value) {
    let (mut ours, mut jq, mut value) = ("input".to_owned(), ".input".to_owned(), document);
    for (pick, other_way) in picks {
        match value {
            Value::Array(values) if !values.is_empty() => {
                let at = pick.index(values.len());
                let shown = if *other_way { format!("-{}", values.len() - at) } else { at.to_string() };
                ours.push_str(&format!("[{shown}]"));
                jq.push_str(&format!("[{at}]"));
                value = &values[at];
            }
            Value::Object(members) if !members.is_empty() => {
                let (name, member) = members.iter().nth(pick.index(members.len())).expect("there is one");
                let simple = !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
                match (simple && !other_way, name.contains('"')) {
                    (true, _) => ours.push_str(&format!(".{name}")),
                    (false, true) => ours.push_str(&format!("['{name}']")),
                    (false, false) => ours.push_str(&format!("[ \"{name}\" ]")),
                }
                jq.push_str(&format!("[{}]", json!(name)));
                value = member;
            }
            _ => break,
        }
    }
    (ours, jq, value.clone())
}

proptest! {
    #[test]
    fn a_path_gives_what_it_leads_to(document in documents(), picks in prop::collection::vec(any::<(prop::sample::Index, bool)>(), 0..5)) {
        let (path, jq, value) = path_into(&document, &picks);
        prop_assert_eq!(&of_input(&format!("{{{{ {path} }}}}"), &document).unwrap(), &value, "{}", path);
        let text = of_input(&format!("<{{{{{path}}}}}>"), &document);
        if value.is_null() {
            prop_assert!(text.unwrap_err().to_string().contains("null where text is needed"));
        } else {
            prop_assert_eq!(text.unwrap(), of_input(&format!("<${{ {jq} }}>"), &document).unwrap(), "{}", path);
        }
    }

    #[test]
    fn a_path_beyond_what_there_is_fails(document in documents(), picks in prop::collection::vec(any::<(prop::sample::Index, bool)>(), 0..5), by_name in any::<bool>(), around in any::<bool>()) {
        let (path, _, _) = path_into(&document, &picks);
        let beyond = if by_name { ".nothing_of_that_name" } else { "[4]" };
        let around = if around { "!" } else { "" };
        let error = of_input(&format!("{{{{ {path}{beyond} }}}}{around}"), &document).unwrap_err();
        prop_assert_eq!(error.code(), "expression_failed", "{}", error);
    }

    #[test]
    fn any_string_of_braces_is_a_template_or_a_problem(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..12)) {
        let text = pieces.concat();
        let definition = json!({ "name": "w", "steps": [{ "id": "a", "tool": "echo", "with": text }] });
        match Plan::from_source(&definition.to_string(), "w", &Tools) {
            Ok(plan) => {
                let rendered = plan.steps[0].with.render(&Scope { input: b"{\"x\":1}", ..Scope::default() }, &Limits::default());
                if let Ok(rendered) = rendered {
                    prop_assert!(serde_json::from_slice::<Value>(&rendered).is_ok());
                }
            }
            Err(problems) => prop_assert!(!problems.is_empty()),
        }
    }
}

const PIECES: &[&str] = &[
    "{{",
    "}}",
    "{",
    "}",
    " ",
    "input",
    "steps",
    "run",
    "item",
    "index",
    "name",
    ".",
    "[",
    "]",
    "0",
    "-1",
    "\"",
    "'",
    ".x",
    "|",
    "$",
    "${ .input }",
    "{{ input.x }}",
    "{{ \"{{\" }}",
    "é",
    "\\",
    "\n",
    "{%",
];
