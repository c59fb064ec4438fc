//! What differs between two definitions, and whether runs of one fit the other.

use serde_json::{Value, json};
use tidemill_workflow::{AnyTool, Audience, ChangeKind, Definition, Diff, Fits, Plan};

fn read(text: &str) -> Definition {
    Definition::parse(text, "flow.yaml").unwrap()
}

fn diff(from: &str, to: &str) -> Diff {
    Diff::of(&read(from), &read(to))
}

/// Each change as `step|path|kind|from|to|breaks`.
fn told(diff: &Diff) -> Vec<String> {
    let value = |value: &Option<Value>| value.as_ref().map_or_else(String::new, ToString::to_string);
    let line = |change: &tidemill_workflow::Change| {
        let breaks: Vec<_> = change.breaks.iter().copied().map(Audience::as_str).collect();
        let kind = serde_json::to_value(change.kind).unwrap();
        let step = change.step.as_deref().unwrap_or("@");
        let (from, to) = (value(&change.from), value(&change.to));
        format!("{step}|{}|{}|{from}|{to}|{}", change.path, kind.as_str().unwrap(), breaks.join(" "))
    };
    diff.changes.iter().map(line).collect()
}

const FLOW: &str = "\
name: flow
version: 1
timeout_ms: 60000
input: { type: object, required: [order], properties: { order: { type: integer, minimum: 1 }, colour: { enum: [red, blue] } } }
steps:
  - { id: a, tool: shop.get, with: { order: '${ .input.order }', deep: { list: [1, 2] } } }
  - { id: b, tool: echo, needs: [a], retry: { max_attempts: 3 } }
  - { id: c, tool: echo, needs: [a, b], for_each: { items: '${ [1] }', concurrency: 2 } }
";

#[test]
fn a_definition_differs_from_itself_in_nothing_whatever_its_version_and_form() {
    assert!(diff(FLOW, FLOW).is_empty());
    let json = read(&FLOW.replace("version: 1", "version: 9")).to_value().to_string();
    assert!(diff(FLOW, &json).is_empty(), "{:?}", told(&diff(FLOW, &json)));
    assert!(
        diff(FLOW, &format!("# a comment\n{}", FLOW.replace("needs: [a, b]", "needs: [ a,  b ]"))).is_empty()
    );
}

#[test]
fn a_difference_is_told_member_by_member_and_there_and_back() {
    let other = FLOW
        .replace("timeout_ms: 60000", "timeout_ms: 50000\ndescription: new")
        .replace("deep: { list: [1, 2] }", "deep: { list: [1, 3] }, more: true")
        .replace(", retry: { max_attempts: 3 }", "");
    let forth = told(&diff(FLOW, &other));
    assert_eq!(
        forth,
        [
            "@|timeout_ms|changed|60000|50000|",
            "@|description|added||\"new\"|",
            "a|with.deep.list[1]|changed|2|3|",
            "a|with.more|added||true|",
            "b|retry|removed|{\"max_attempts\":3}||",
        ]
    );
    let back = diff(&other, FLOW);
    assert_eq!(back.changes.len(), forth.len());
    assert_eq!(back.changes[0].kind, ChangeKind::Removed, "{:?}", told(&back));
    assert_eq!(back.breaking(), 0);
}

#[test]
fn steps_and_edges_break_runs_and_what_is_needed_anew_breaks_workers() {
    let other = FLOW
        .replace("needs: [a], retry", "retry")
        .replace("needs: [a, b], for_each: { items: '${ [1] }', concurrency: 2 }", "needs: [b]")
        .replace(
            "  - { id: a, tool: shop.get",
            "  - { id: d, tool: mail.send, queue: slow }\n  - { id: a, tool: shop.put",
        );
    assert_eq!(
        told(&diff(FLOW, &other)),
        [
            // d and a: nobody needs a any more
            "@|output|changed|[\"c\"]|[\"d\",\"a\",\"c\"]|readers",
            "a|tool|changed|\"shop.get\"|\"shop.put\"|workers",
            "b|needs|removed|[\"a\"]||runs",
            "c|for_each|removed|{\"concurrency\":2,\"items\":\"${ [1] }\"}||runs readers",
            "c|needs|removed|\"a\"||runs",
            "d||added||{\"queue\":\"slow\",\"tool\":\"mail.send\"}|workers",
        ]
    );
    let removed = FLOW
        .replace("  - { id: b, tool: echo, needs: [a], retry: { max_attempts: 3 } }\n", "")
        .replace("[a, b]", "[a]");
    let lines = told(&diff(FLOW, &removed));
    assert!(lines.contains(&"c|needs|removed|\"b\"||runs".to_owned()), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("b||removed|") && line.ends_with("|runs")), "{lines:?}");
    let wider = FLOW.replace("concurrency: 2", "concurrency: 5");
    assert_eq!(told(&diff(FLOW, &wider)), ["c|for_each.concurrency|changed|2|5|"]);
}

#[test]
fn an_input_that_takes_less_breaks_callers_and_one_that_takes_more_does_not() {
    let breaks = |from: &str, to: &str| {
        assert!(FLOW.contains(from), "{from}");
        let diff = diff(FLOW, &FLOW.replace(from, to));
        assert_eq!(diff.changes.len(), 1, "{:?}", told(&diff));
        diff.changes[0].breaks == [Audience::Callers]
    };
    assert!(breaks("required: [order]", "required: [order, colour]"));
    assert!(!breaks("required: [order], ", ""));
    assert!(breaks("minimum: 1", "minimum: 2"));
    assert!(!breaks("minimum: 1", "minimum: 0"));
    assert!(breaks("[red, blue]", "[red]"));
    assert!(!breaks("[red, blue]", "[red, blue, green]"));
    assert!(breaks("type: integer", "type: string"));
    assert!(!breaks("type: integer", "type: integer, description: its number"));
    assert!(!breaks("properties: {", "properties: { size: { type: integer },"));
    assert!(breaks("type: object,", "type: object, additionalProperties: false,"));
}

#[test]
fn the_same_steps_in_another_order_are_reordered() {
    let text = "name: f\nsteps: [{ id: a, tool: echo }, { id: b, tool: echo }]\n";
    let other = "name: f\nsteps: [{ id: b, tool: echo }, { id: a, tool: echo }]\n";
    let lines = told(&diff(text, other));
    assert!(lines.contains(&"@|steps|reordered|[\"a\",\"b\"]|[\"b\",\"a\"]|".to_owned()), "{lines:?}");
    assert_eq!(
        json!(diff(text, other).changes[0].kind),
        json!("changed"),
        "the last steps come in another order"
    );
}

fn plan(text: &str) -> Plan {
    Plan::from_source(text, "flow.yaml", &AnyTool).unwrap()
}

fn misfit(to: &str, step: &str) -> Option<String> {
    Fits::of(&plan(FLOW), &plan(to)).misfit(step).map(ToOwned::to_owned)
}

#[test]
fn a_run_fits_where_each_step_that_it_began_waits_for_the_same() {
    assert!(Fits::of(&plan(FLOW), &plan(FLOW)).is_complete());
    let more = format!("{FLOW}  - {{ id: d, tool: echo, needs: [c] }}\n");
    assert!(Fits::of(&plan(FLOW), &plan(&more)).is_complete(), "what comes after does not matter");
    let other = FLOW.replace("shop.get", "shop.find").replace("max_attempts: 3", "max_attempts: 5");
    assert!(Fits::of(&plan(FLOW), &plan(&other)).is_complete(), "nor does how a step does it");
    let renamed = FLOW.replace("id: b", "id: x").replace("[a, b]", "[a, x]");
    assert_eq!(misfit(&renamed, "b").unwrap(), "it does not exist there");
    assert_eq!(misfit(&renamed, "c").unwrap(), "it waits for a, b here and for a, x there");
    assert_eq!(misfit(&renamed, "a"), None);
    let joined = FLOW.replace("needs: [a, b],", "needs: [a, b], join: any,");
    assert!(misfit(&joined, "c").unwrap().contains("another number"));
    let single = FLOW.replace(", for_each: { items: '${ [1] }', concurrency: 2 }", "");
    assert_eq!(misfit(&single, "c").unwrap(), "it is many here and one there");
    let chosen = FLOW.replace(
        "  - { id: b, tool: echo, needs: [a]",
        "  - { id: s, needs: [a], switch: [{ when: '${ true }', then: [b] }] }\n  - { id: b, tool: echo",
    );
    assert!(
        misfit(&chosen, "b").unwrap().contains("it waits for a here and for s there"),
        "{:?}",
        misfit(&chosen, "b")
    );
    let switch = FLOW.replace(
        "{ id: a, tool: shop.get, with: { order: '${ .input.order }', deep: { list: [1, 2] } } }",
        "{ id: a, switch: [{ when: '${ true }', then: [b] }, { default: [c] }] }",
    );
    assert_eq!(misfit(&switch, "a").unwrap(), "it does another kind of thing there");
}

/// Twenty steps in four layers, each with expressions.
fn twenty(n: u32) -> String {
    let mut text = format!("name: flow-{n}\nversion: 1\nsteps:\n");
    for step in 0_u32..20 {
        let needs: Vec<_> = (step / 5 * 5)
            .checked_sub(5)
            .map(|from| (from..from + 5).map(|need| format!("s{need}")).collect())
            .unwrap_or_default();
        let order = match needs.first() {
            Some(need) => format!("${{ .steps.{need}.output.order + {n} }}"),
            None => "${ .input.order }".to_owned(),
        };
        text.push_str(&format!(
            "  - {{ id: s{step}, tool: echo, needs: [{}], with: {{ order: '{order}', note: fixed }} }}\n",
            needs.join(", ")
        ));
    }
    text
}

#[test]
fn a_hundred_definitions_of_twenty_steps_are_compiled_at_once() {
    let texts: Vec<String> = (0..100).map(twenty).collect();
    plan(&texts[0]);
    // the best of five: other programs run beside this one
    let took = (0..5).map(|_| {
        let started = now();
        for text in &texts {
            assert_eq!(plan(text).steps.len(), 20);
        }
        started.elapsed()
    });
    let took = took.min().unwrap();
    println!(
        "workflow graph validation: 100 definitions of 20 steps in {:.1} ms",
        took.as_secs_f64() * 1_000.0
    );
    // the aim is 10 ms of an optimised build on an idle core; the bound only tells when something has gone badly wrong
    let bound = if cfg!(debug_assertions) { 2_000 } else { 200 };
    assert!(took.as_millis() < bound, "{took:?}");
}

#[expect(clippy::disallowed_types, reason = "the time that compiling takes is what is measured")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}
