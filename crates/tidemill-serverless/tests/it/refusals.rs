//! What is refused when a document is published: with its line, its path and what to do.

use tidemill_workflow::{Problem, ProblemCode};

use crate::host::{Tools, document};

fn problems(text: &str) -> Vec<Problem> {
    match tidemill_serverless::plan(text, "doc.sw.yaml", &Tools) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().cloned().collect(),
    }
}

/// Path, code and a part of the message of the only problem.
fn only(text: &str, path: &str, code: ProblemCode, part: &str) {
    let found = problems(text);
    let [problem] = found.as_slice() else { panic!("not one problem in {text}: {found:#?}") };
    assert_eq!((problem.path.as_str(), problem.code), (path, code), "{problem}");
    assert!(problem.message.contains(part), "{problem}");
}

fn task(task: &str, path: &str, code: ProblemCode, part: &str) {
    let path = if path.is_empty() { "do[0].a".to_owned() } else { format!("do[0].a.{path}") };
    only(&document(&format!("- a: {task}")), &path, code, part);
}

#[test]
fn what_is_not_carried_out_is_refused_with_its_path() {
    use ProblemCode::NotSupported;
    for (text, path) in [
        ("{ call: grpc, with: { proto: { endpoint: x } } }", "call"),
        ("{ call: asyncapi, with: {} }", "call"),
        ("{ call: 'https://functions.test/f@v1' }", "call"),
        ("{ call: log:0.5.2@global }", "call"),
        (
            "{ call: http, with: { method: get, endpoint: { uri: 'https://h.test/', authentication: { oauth2: {} } } } }",
            "with.endpoint.authentication.oauth2",
        ),
        ("{ call: http, with: { method: get, endpoint: 'ftp://h.test/' } }", "with.endpoint"),
        ("{ run: { container: { image: x } } }", "run.container"),
        ("{ run: { shell: { command: ls, environment: {} } } }", "run.shell.environment"),
        ("{ run: { shell: { command: ls }, return: stderr } }", "run.return"),
        ("{ run: { script: { language: ruby, code: x } } }", "run.script.language"),
        ("{ listen: { to: { any: [] } } }", "listen.to.any"),
        ("{ listen: { to: { one: { with: { type: x } } }, read: raw } }", "listen.read"),
        ("{ set: { x: 1 }, input: { schema: { resource: { endpoint: x } } } }", "input.schema.resource"),
    ] {
        task(text, path, NotSupported, "");
    }
    let head =
        "document: { dsl: 1.0.0, namespace: n, name: d, version: 1.0.0 }\ndo: [ { a: { set: { x: 1 } } } ]\n";
    for (text, path) in [
        ("schedule: { cron: '* * * * *' }", "schedule"),
        ("evaluate: { mode: loose }", "evaluate.mode"),
        ("evaluate: { language: js }", "evaluate.language"),
        ("use: { secrets: [a] }", "use.secrets"),
        ("use: { extensions: [] }", "use.extensions"),
        ("use: { catalogs: {} }", "use.catalogs"),
    ] {
        only(&format!("{head}{text}"), path, NotSupported, "");
    }
    only(&head.replace("1.0.0, n", "2.0.0, n"), "document.dsl", NotSupported, "1.0.x");
}

#[test]
fn a_problem_has_its_line_and_column() {
    let text = "document:\n  dsl: 1.0.0\n  namespace: n\n  name: d\n  version: 1.0.0\ndo:\n  - a:\n      set:\n        ok: 1\n        bad: ${ .x | }\n";
    let found = problems(text);
    let [problem] = found.as_slice() else { panic!("{found:#?}") };
    assert_eq!((problem.line, problem.column, problem.path.as_str()), (10, 9, "do[0].a.set.bad"));
    assert!(problem.to_string().starts_with("doc.sw.yaml:10:9: do[0].a.set.bad: "), "{problem}");
}

#[test]
fn names_that_do_not_exist_are_refused() {
    use ProblemCode::{BadExpression, BadValue, UnknownStepReference, UnknownTool};
    task("{ set: { x: 1 }, then: b }", "then", UnknownStepReference, "there is no task `b`");
    task(
        "{ do: [ { b: { set: { x: 1 }, then: a } } ] }",
        "do[0].b.then",
        UnknownStepReference,
        "cannot leave",
    );
    task("{ call: shop.hol }", "call", UnknownTool, "did you mean `shop.hold`");
    task("{ raise: { error: none } }", "raise.error", BadValue, "use.errors");
    task("{ set: { x: 1 }, timeout: none }", "timeout", BadValue, "use.timeouts");
    task(
        "{ try: [ { b: { set: { x: 1 } } } ], catch: { retry: none } }",
        "catch.retry",
        BadValue,
        "use.retries",
    );
    task("{ set: { x: \"${ $item }\" } }", "set.x", BadExpression, "$item");
    task("{ set: { x: \"${ $secrets.a }\" } }", "set.x", BadExpression, "named tools");
    task("{ set: { x: 1 }, input: { from: $input } }", "input.from", BadExpression, "$input");
    task(
        "{ for: { in: .x, at: n }, do: [ { b: { set: { x: \"${ $index }\" } } } ] }",
        "do[0].b.set.x",
        BadExpression,
        "$index",
    );
}

#[test]
fn shapes_that_the_dsl_does_not_have_are_refused() {
    use ProblemCode::{BadToolInput, BadValue, DuplicateId, DuplicateMember, MissingMember, UnknownMember};
    task("{ sett: { x: 1 } }", "", MissingMember, "did you mean `set`");
    task("{ set: { x: 1 }, thn: end }", "thn", UnknownMember, "did you mean `then`");
    task("{ set: 5 }", "set", BadValue, "object or an expression");
    task("{ wait: 5 }", "wait", BadValue, "string");
    task("{ wait: P1M }", "wait", BadValue, "not fixed");
    task("{ wait: { second: 5 } }", "wait.second", UnknownMember, "did you mean `seconds`");
    task("{ switch: [ { x: { then: end } }, { y: { then: end } } ] }", "switch[1]", BadValue, "default");
    task("{ switch: [ { x: { when: .a } } ] }", "switch[0].x", MissingMember, "`then`");
    task(
        "{ fork: { branches: [ { x: { set: { y: 1 }, then: x } } ] } }",
        "fork.branches[0].x.then",
        ProblemCode::UnknownStepReference,
        "",
    );
    task("{ raise: { error: { type: t, status: 5 } }, set: {} }", "raise", UnknownMember, "");
    task("{ call: shop.hold, with: { nothing: 1 } }", "with", BadToolInput, "order");
    task(
        "{ call: http, with: { method: get, endpoint: 'https://h.test/{+x}' } }",
        "with.endpoint",
        BadValue,
        "simple",
    );
    task("{ emit: { event: { with: { type: x } } } }", "emit.event.with", MissingMember, "`source`");
    task(
        "{ emit: { event: { with: { type: x, source: y, Bad: 1 } } } }",
        "emit.event.with.Bad",
        BadValue,
        "lower-case",
    );
    task(
        "{ listen: { to: { one: { with: { type: x } }, until: .x } } }",
        "listen.to.until",
        BadValue,
        "`any` only",
    );
    task(
        "{ for: { in: .x, each: input }, do: [ { b: { set: { x: 1 } } } ] }",
        "for.each",
        BadValue,
        "every task",
    );
    only(&document("- a: { set: { x: 1 } }\n- a: { set: { x: 2 } }"), "do[1]", DuplicateId, "`a`");
    only(
        &document("- a: { set: { x: 1 }, b: { set: { x: 2 } } }")
            .replace("set: { x: 1 }, b", "set: { x: 1 }, set"),
        "do[0].a.set",
        DuplicateMember,
        "twice",
    );
}

#[test]
fn types_of_events_are_such_as_signals_can_carry() {
    let long = "x".repeat(191);
    for kind in ["a b", long.as_str(), "\"\""] {
        let text = format!("{{ listen: {{ to: {{ one: {{ with: {{ type: {kind} }} }} }} }} }}");
        task(&text, "listen.to.one.with", ProblemCode::BadValue, "space");
    }
}

#[test]
fn functions_that_call_themselves_are_refused() {
    let text = "document: { dsl: 1.0.0, namespace: n, name: d, version: 1.0.0 }\nuse:\n  functions:\n    one: { do: [ { x: { call: two } } ] }\n    two: { call: one }\ndo: [ { a: { call: one } } ]\n";
    let found = problems(text);
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found.iter().all(|problem| problem.code == ProblemCode::Cycle), "{found:#?}");
}

#[test]
fn names_and_versions_are_those_that_a_workflow_can_have() {
    let text = |namespace: &str, name: &str, version: &str| {
        format!(
            "document: {{ dsl: 1.0.0, namespace: {namespace}, name: {name}, version: {version} }}\ndo: [ {{ a: {{ set: {{ x: 1 }} }} }} ]"
        )
    };
    assert!(problems(&text("n", "d", "1.0.0")).is_empty());
    only(&text("n", "d", "1.0.0-rc1"), "document.version", ProblemCode::BadValue, "pre-releases");
    only(&text("-n", "d", "1.0.0"), "document.namespace", ProblemCode::BadValue, "edge");
    only(
        &text(&"n".repeat(40), &"d".repeat(40), "1.0.0"),
        "document.name",
        ProblemCode::BadValue,
        "longer than 64",
    );
}

#[test]
fn all_problems_are_told_at_once() {
    let found =
        problems(&document("- a: { call: nothing }\n- b: { wait: soon }\n- c: { set: { x: \"${ ( }\" } }"));
    assert_eq!(found.len(), 3, "{found:#?}");
}

#[test]
fn a_definition_of_our_own_is_read_as_such() {
    let own = "name: own\nsteps: [ { id: a, tool: echo } ]\n";
    assert!(
        !tidemill_serverless::is_document(own)
            && tidemill_serverless::is_document(&document("- a: { set: { x: 1 } }"))
    );
    assert_eq!(
        tidemill_serverless::plan(own, "own.yaml", &Tools).map(|plan| plan.name).ok().as_deref(),
        Some("own")
    );
    assert!(!tidemill_serverless::is_document("{"));
}
