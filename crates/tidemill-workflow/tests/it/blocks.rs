//! Blocks of steps, other workflows, loops and races: what they see, and what is refused.

use serde_json::{Value, json};
use tidemill_workflow::{
    Action, Child, ChildTarget, Limits, Plan, PlanStep, ProblemCode, Scope, StepView, Template, Tolerance,
};

use crate::{has_problem, plan, problems};

fn child(step: &PlanStep) -> &Child {
    match &step.action {
        Action::Child(child) => child,
        other => panic!("no child: {other:?}"),
    }
}

fn step<'p>(plan: &'p Plan, id: &str) -> &'p PlanStep {
    plan.step_index(id).and_then(|index| plan.step(index)).expect("the step exists")
}

fn rendered(template: &Template, scope: &Scope<'_>) -> Value {
    let text = template.render(scope, &Limits::default()).expect("it renders");
    serde_json::from_slice(&text).expect("it is JSON")
}

const NESTED: &str = r#"
name: w
version: 4
queue: slow
steps:
  - { id: order, tool: echo }
  - id: outer
    needs: [order]
    timeout_ms: 5000
    queue: fast
    for_each: { items: "${ .steps.order.output.lines }", concurrency: 3, batch: 2, tolerate: "12.5%" }
    steps:
      - { id: first, tool: echo, with: { item: "${ .item }", order: "${ .steps.order.output.id }" } }
      - id: inner
        needs: [first]
        with: { index: "${ .index }" }
        steps:
          - { id: deep, tool: shop.hold, with: "${ [.steps.order.output.id, .steps.first.output, .index, .input.index] }" }
    output: { sum: "${ .steps.inner.output }" }
"#;

#[test]
fn a_block_is_a_plan_of_its_own_that_every_plan_around_it_finds() {
    let plan = plan(NESTED);
    let outer = plan.block("outer").expect("it exists");
    let inner = plan.block("outer/inner").expect("it exists");
    assert_eq!(plan.steps.len(), 2);
    assert_eq!(outer.steps.len(), 2);
    assert!(outer.block("outer/inner").is_some_and(|found| found.reference() == inner.reference()));
    assert_eq!(plan.block("inner").map(|plan| plan.reference()), None);
    assert_eq!(plan.reference(), "w@4");
    assert_eq!(inner.reference(), "w@4#outer/inner");
    assert_eq!((outer.queue.as_str(), inner.queue.as_str()), ("fast", "fast"));
    assert_eq!((outer.timeout_ms, inner.timeout_ms), (Some(5000), None));
    assert!(plan.waits() && outer.waits() && !inner.waits());
    assert_eq!(plan.tools().iter().map(AsRef::as_ref).collect::<Vec<_>>(), ["echo", "shop.hold"]);
    let each = step(&plan, "outer").for_each.as_ref().expect("it has one");
    assert_eq!((each.concurrency, each.batch, each.tolerate), (3, 2, Tolerance::Percent(12.5)));
    assert_eq!(child(step(&plan, "outer")).target, ChildTarget::Block("outer".into()));
}

#[test]
fn a_block_is_called_by_the_name_that_was_published() {
    let plan = Plan::published(NESTED, ("other", 7), &crate::Tools).unwrap();
    assert_eq!(plan.reference(), "other@7");
    assert_eq!(
        plan.block("outer/inner").map(|block| block.reference()).as_deref(),
        Some("other@7#outer/inner")
    );
}

#[test]
fn a_block_is_given_what_it_reads_of_its_surroundings_and_no_more() {
    let plan = plan(NESTED);
    let outer = step(&plan, "outer");
    let given = child(outer).outer.as_ref().expect("it reads a step around it");
    let scope = Scope {
        steps: vec![(
            0,
            StepView { state: "succeeded", output: Some(br#"{"id":5,"lines":[1,2,3]}"#), error: None },
        )],
        ..Scope::default()
    };
    let record = json!({ "order": { "state": "succeeded", "output": { "id": 5, "lines": [1, 2, 3] }, "error": null } });
    assert_eq!(rendered(given, &scope), record);
    assert_eq!(child(outer).locals, ["item", "index"]);
    assert_eq!(outer.references().steps, [0]);
    let items = outer.for_each.as_ref().map(|each| each.items(&scope, &Limits::default()).unwrap());
    let items: Vec<Value> =
        items.into_iter().flatten().map(|item| serde_json::from_str(item.get()).unwrap()).collect();
    assert_eq!(items, [json!([1, 2]), json!([3])]);
}

#[test]
fn what_stands_around_is_handed_down_to_the_innermost_block() {
    let plan = plan(NESTED);
    let outer = plan.block("outer").unwrap();
    let inner = plan.block("outer/inner").unwrap();
    let around = br#"{"order":{"state":"succeeded","output":{"id":5},"error":null}}"#;
    let scope = Scope {
        input: b"{}",
        steps: vec![(0, StepView { state: "succeeded", output: Some(b"\"f\""), error: None })],
        locals: vec![("outer", around), ("item", b"[1,2]"), ("index", b"1")],
        ..Scope::default()
    };
    assert_eq!(rendered(&step(outer, "first").with, &scope), json!({ "item": [1, 2], "order": 5 }));
    let middle = step(outer, "inner");
    assert_eq!(child(middle).locals, ["item", "index"]);
    assert_eq!(rendered(&middle.with, &scope), json!({ "index": 1 }));
    let handed = rendered(child(middle).outer.as_ref().unwrap(), &scope);
    assert_eq!(handed["order"]["output"], json!({ "id": 5 }));
    assert_eq!(handed["first"], json!({ "state": "succeeded", "output": "f", "error": null }));
    assert!(middle.references().reads_locals());

    let handed = handed.to_string();
    let scope = Scope {
        input: br#"{"index":1}"#,
        locals: vec![("outer", handed.as_bytes()), ("index", b"1")],
        ..Scope::default()
    };
    let deep = step(inner, "deep");
    assert_eq!(rendered(&deep.with, &scope), json!([5, "f", 1, 1]));
    assert_eq!(deep.references().outer.iter().map(AsRef::as_ref).collect::<Vec<_>>(), ["first", "order"]);
    assert!(deep.references().steps.is_empty());
}

#[test]
fn whole_documents_reach_a_block_byte_for_byte() {
    let plan = plan(
        "name: w\nsteps:\n  - { id: a, tool: echo }\n  - id: b\n    needs: [a]\n    steps:\n      \
         - { id: c, steps: [{ id: d, tool: echo, with: \"${ .steps.a.output }\" }] }\n      \
         - { id: e, tool: echo, with: \"${ .steps.a.error }\" }\n",
    );
    let exact = b"{\"n\": 123456789012345678901234567890, \"x\":1.50}";
    let limits = Limits::default();
    let done = StepView { state: "succeeded", output: Some(exact), error: None };
    let scope = Scope { steps: vec![(0, done)], ..Scope::default() };
    let outer = child(&plan.steps[1]).outer.as_ref().unwrap().render(&scope, &limits).unwrap();
    let block = plan.block("b").unwrap();
    let scope = Scope { locals: vec![("outer", &outer)], ..Scope::default() };
    assert_eq!(block.steps[1].with.render(&scope, &limits).unwrap(), b"null");
    let inner = child(&block.steps[0]).outer.as_ref().unwrap().render(&scope, &limits).unwrap();
    let scope = Scope { locals: vec![("outer", &inner)], ..Scope::default() };
    assert_eq!(plan.block("b/c").unwrap().steps[0].with.render(&scope, &limits).unwrap(), exact);
}

#[test]
fn a_block_that_reads_nothing_is_given_nothing() {
    let plan = plan(
        "name: w\nsteps:\n  - { id: a, tool: echo }\n  - { id: b, needs: [a], steps: [{ id: c, tool: echo }] }\n",
    );
    let b = step(&plan, "b");
    assert_eq!((child(b).outer.as_ref(), child(b).locals.as_slice()), (None, &[][..]));
    assert!(b.references().steps.is_empty() && !b.references().reads_locals());
    assert_eq!(rendered(&b.with, &Scope { input: b"[1]", ..Scope::default() }), json!([1]));
}

#[test]
fn a_whole_steps_object_takes_everything_upstream_along() {
    let plan = plan(
        "name: w\nsteps:\n  - { id: a, tool: echo }\n  - { id: b, tool: echo }\n  \
         - { id: c, needs: [a], steps: [{ id: d, tool: echo, with: \"${ .steps | keys }\" }] }\n",
    );
    let record = br#"{"a":{"state":"failed","output":null,"error":null}}"#;
    let scope = Scope { locals: vec![("outer", record)], ..Scope::default() };
    assert_eq!(rendered(&plan.block("c").unwrap().steps[0].with, &scope), json!(["a"]));
    assert_eq!(step(&plan, "c").references().steps, [0]);
}

#[test]
fn blocks_see_what_has_ended_before_and_nothing_else() {
    let text = |with: &str| {
        format!(
            "name: w\nsteps:\n  - {{ id: a, tool: echo }}\n  - {{ id: b, tool: echo }}\n  - id: c\n    needs: [a]\n    \
             steps:\n      - {{ id: d, tool: echo, with: \"{with}\" }}\n  - {{ id: z, tool: echo, needs: [c] }}\n"
        )
    };
    assert!(plan(&text("${ .steps.a.output }")).block("c").is_some());
    for (with, code, message) in [
        ("${ .steps.b.output }", ProblemCode::NotUpstream, "step `b` need not have ended"),
        ("${ .steps.c.output }", ProblemCode::NotUpstream, "step `c` need not have ended"),
        ("${ .steps.z.output }", ProblemCode::NotUpstream, "step `z` need not have ended"),
        ("${ .steps.aa.output }", ProblemCode::UnknownStepReference, "did you mean `a`?"),
        ("${ .item }", ProblemCode::BadExpression, "outside of `for_each`"),
    ] {
        has_problem(&text(with), code, (8, 30), message);
    }
    let outside = "name: w\nsteps:\n  - { id: a, steps: [{ id: b, tool: echo }] }\n  \
                   - { id: c, tool: echo, needs: [a], with: \"${ .steps.b.output }\" }\n";
    has_problem(outside, ProblemCode::UnknownStepReference, (4, 38), "there is no step `b`");
}

#[test]
fn problems_in_a_block_have_their_place() {
    let text = "name: w\nsteps:\n  - id: a\n    steps:\n      - { id: b, tool: ehco }\n      \
                - { id: c, tool: echo, needs: [bb] }\n";
    let problems = problems(text);
    let told: Vec<String> =
        problems.iter().map(|problem| format!("{}:{}", problem.line, problem.path)).collect();
    assert_eq!(told, ["5:steps[0].steps[0].tool", "6:steps[0].steps[1].needs[0]"]);
}

#[test]
fn one_id_is_one_step_in_the_whole_document() {
    for text in [
        "steps: [{ id: a, steps: [{ id: a, tool: echo }] }]",
        "steps: [{ id: a, steps: [{ id: b, tool: echo }] }, { id: b, tool: echo }]",
        "steps: [{ id: a, race: [{ id: b, tool: echo }, { id: b, tool: echo }] }]",
        "steps: [{ id: a, tool: echo }]\nfinally: [{ id: a, tool: echo }]",
    ] {
        let problems = problems(&format!("name: w\n{text}\n"));
        assert!(problems.has(ProblemCode::DuplicateId) && problems.len() == 1, "{text}: {problems}");
    }
}

#[test]
fn blocks_are_nested_so_deep_and_no_deeper() {
    let nested = |depth: usize| {
        let mut step = json!({ "id": "leaf", "tool": "echo" });
        for level in 0..depth {
            step = json!({ "id": format!("l{level}"), "steps": [step] });
        }
        json!({ "name": "w", "steps": [step] }).to_string()
    };
    let deepest = plan(&nested(16));
    assert!(deepest.block("l15/l14/l13/l12/l11/l10/l9/l8/l7/l6/l5/l4/l3/l2/l1/l0").is_some());
    let problems = problems(&nested(17));
    assert!(problems.has(ProblemCode::TooLarge), "{problems}");
    assert!(problems.to_string().contains("nested more than 16 deep"), "{problems}");
}

#[test]
fn the_steps_of_all_blocks_are_counted() {
    let block = |at: usize| {
        let steps: Vec<Value> =
            (0..200).map(|n| json!({ "id": format!("s{at}_{n}"), "tool": "echo" })).collect();
        json!({ "id": format!("b{at}"), "steps": steps })
    };
    let definition =
        |blocks: usize| json!({ "name": "w", "steps": (0..blocks).map(block).collect::<Vec<_>>() });
    assert_eq!(plan(&definition(10).to_string()).steps.len(), 10);
    let problems = problems(&definition(100).to_string());
    assert!(problems.has(ProblemCode::TooManySteps), "{problems}");
    assert!(problems.to_string().contains("has 20100 steps with those of its blocks"), "{problems}");
}

#[test]
fn another_workflow_is_run_with_its_input() {
    let plan = plan(
        "name: w\nsteps:\n  - { id: a, workflow: child@3, with: { x: \"${ .input.y }\" } }\n  \
         - { id: b, workflow: other, detached: true }\n",
    );
    let (a, b) = (child(&plan.steps[0]), child(&plan.steps[1]));
    assert_eq!((&a.target, a.detached), (&ChildTarget::Workflow("child@3".into()), false));
    assert_eq!((&b.target, b.detached), (&ChildTarget::Workflow("other".into()), true));
    assert_eq!(plan.steps[1].with.constant(), Some(&b"{}"[..]));
    assert!(plan.steps[0].references().input);
    for (target, message) in [
        ("Child", "is no valid name"),
        ("a@", "names no version"),
        ("a@0", "names no version"),
        ("a@x", "names no version"),
        ("\"@1\"", "is no valid name"),
    ] {
        has_problem(
            &format!("name: w\nsteps:\n  - {{ id: a, workflow: {target} }}\n"),
            ProblemCode::BadValue,
            (3, 14),
            message,
        );
    }
}

#[test]
fn a_repeat_asks_with_what_the_last_iteration_gave() {
    let plan = plan(
        "name: w\nsteps:\n  - id: poll\n    tool: http.request\n    with: { url: \"https://x/${ .iteration }\", last: \"{{ previous }}\" }\n    \
         repeat: { while: \"${ .iteration < 5 }\", until: \"{{ output.done }}\", max_iterations: 7, every_ms: 20, on_exhausted: continue }\n",
    );
    let poll = &plan.steps[0];
    let repeat = poll.repeat.as_ref().expect("it repeats");
    assert_eq!((repeat.max_iterations, repeat.every_ms, repeat.continue_when_exhausted), (7, 20, true));
    let ask = |output: &'static [u8]| {
        let scope = Scope { locals: vec![("iteration", b"3"), ("output", output)], ..Scope::default() };
        let limits = Limits::default();
        let asked = |condition: &Option<tidemill_workflow::Expr>| {
            condition.as_ref().unwrap().is_true(&scope, &limits)
        };
        (asked(&repeat.while_).unwrap(), asked(&repeat.until).unwrap())
    };
    assert_eq!(ask(br#"{"done":true}"#), (true, true));
    assert_eq!(ask(br#"{"done":false}"#), (true, false));
    let scope = Scope { locals: vec![("iteration", b"3"), ("previous", b"[1]")], ..Scope::default() };
    assert_eq!(rendered(&poll.with, &scope), json!({ "url": "https://x/3", "last": [1] }));
    assert_eq!(rendered(&poll.with, &Scope::default()), json!({ "url": "https://x/null", "last": null }));
    assert_eq!(poll.references().locals, ["iteration", "output", "previous"]);
    assert!(poll.is_orchestrated());
    let defaults = crate::plan("name: w\nsteps: [{ id: a, tool: echo, repeat: { until: true } }]");
    let repeat = defaults.steps[0].repeat.as_ref().unwrap();
    assert_eq!((repeat.max_iterations, repeat.every_ms, repeat.continue_when_exhausted), (100, 0, false));
}

#[test]
fn a_race_runs_blocks_workflows_and_single_steps_of_any_kind() {
    let plan = plan(
        "name: w\nsteps:\n  - { id: a, tool: echo }\n  - id: r\n    needs: [a]\n    race:\n      \
         - { id: x, tool: sleep, with: { ms: 5 }, retry: { max_attempts: 2 }, timeout_ms: 9 }\n      \
         - { id: y, workflow: other, with: \"${ .steps.a.output }\" }\n      \
         - { id: z, steps: [{ id: z1, tool: echo, with: \"${ .steps.a.output }\" }], with: 5 }\n      \
         - { id: late, wait: { for_ms: 1000 } }\n      \
         - { id: each, for_each: [1, 2], steps: [{ id: e1, tool: echo }] }\n      \
         - { id: q, workflow: other, queue: gpu }\n",
    );
    let r = step(&plan, "r");
    let Action::Race(branches) = &r.action else { panic!("it is a race") };
    let targets: Vec<(&str, String)> = branches
        .iter()
        .map(|branch| {
            let target = match &branch.child.target {
                ChildTarget::Block(path) => format!("#{path}"),
                ChildTarget::Workflow(name) => name.clone(),
            };
            (&*branch.id, target)
        })
        .collect();
    assert_eq!(
        targets,
        [
            ("x", "#r/x".to_owned()),
            ("y", "other".to_owned()),
            ("z", "#r/z".to_owned()),
            ("late", "#r/late".to_owned()),
            ("each", "#r/each".to_owned()),
            ("q", "#r/q".to_owned()),
        ]
    );
    let block = |path: &str| plan.block(path).expect("it exists");
    let x = &block("r/x").steps[0];
    assert_eq!((&*x.id, x.retry.max_attempts, x.timeout_ms), ("x", Some(2), Some(9)));
    assert!(matches!(block("r/late").steps[0].action, Action::Wait(_)));
    assert_eq!(child(&block("r/each").steps[0]).target, ChildTarget::Block("r/each/each".into()));
    assert!(plan.block("r/each/each").is_some());
    assert_eq!(block("r/q").queue_of(0), "gpu");
    assert_eq!(branches[2].with.constant(), Some(&b"5"[..]));
    assert!(branches[2].child.outer.is_some() && branches[0].child.outer.is_none());
    assert_eq!(r.references().steps, [0]);
    assert!(r.references().input);
}

#[test]
fn what_a_branch_cannot_have_is_refused() {
    for (branch, column, message) in [
        ("needs: [a]", 30, "`needs` has no meaning in a branch of a race"),
        ("when: true", 30, "`when` has no meaning in a branch"),
        ("on_error: continue", 30, "`on_error` has no meaning in a branch"),
        ("compensate: { tool: echo }", 30, "`compensate` has no meaning in a branch"),
    ] {
        let text = format!(
            "name: w\nsteps:\n  - id: a\n    race:\n      - {{ id: b, tool: echo, {branch} }}\n      - {{ id: c, tool: echo }}\n"
        );
        has_problem(&text, ProblemCode::BadValue, (5, column), message);
    }
    has_problem(
        "name: w\nsteps:\n  - id: a\n    race: [{ id: b, tool: echo }]\n",
        ProblemCode::BadValue,
        (4, 5),
        "at least two branches",
    );
    has_problem(
        "name: w\nsteps:\n  - id: a\n    race: [{ id: b }, { id: c, tool: echo }]\n",
        ProblemCode::MissingMember,
        (4, 12),
        "`tool` is missing",
    );
}

#[test]
fn members_that_do_not_go_together_are_refused_with_a_way_out() {
    for (members, message) in [
        ("tool: echo, workflow: w2", "`workflow` has no meaning in a step with `tool`"),
        (
            "steps: [{ id: x, tool: echo }], wait: { for_ms: 1 }",
            "`wait` has no meaning in a step with `steps`",
        ),
        (
            "workflow: w2, retry: {}",
            "`retry` has no meaning in a step with `workflow`, only in one with `tool`",
        ),
        ("workflow: w2, timeout_ms: 5", "`timeout_ms` has no meaning in a step with `workflow`"),
        ("tool: echo, output: 1", "`output` has no meaning in a step with `tool`, only in one with `steps`"),
        (
            "tool: echo, detached: true",
            "`detached` has no meaning in a step with `tool`, only in one with `workflow`",
        ),
        ("wait: { for_ms: 1 }, with: {}", "`with` has no meaning in a step with `wait`"),
        ("wait: { for_ms: 1 }, for_each: [1]", "`for_each` has no meaning in a step with `wait`"),
        ("tool: echo, for_each: [1], repeat: { until: true }", "put one of them into a block"),
        ("workflow: w2, for_each: [1], detached: true", "`for_each` and `detached` exclude each other"),
        (
            "workflow: w2, repeat: { until: true }, detached: true",
            "`repeat` and `detached` exclude each other",
        ),
        ("tool: echo, wait: { for_ms: 1 }, for_each: [1]", "put these two into a block"),
        ("tool: echo, wait: { for_ms: 1 }, repeat: { until: true }", "put these two into a block"),
        (
            "switch: [{ default: [] }], compensate: { tool: echo }",
            "`compensate` has no meaning in a step with `switch`",
        ),
    ] {
        let problems = problems(&format!("name: w\nsteps:\n  - {{ id: a, {members} }}\n"));
        let first = problems.iter().next().expect("there is a problem");
        assert_eq!((problems.len(), first.code), (1, ProblemCode::BadValue), "{members}: {problems}");
        assert!(first.message.contains(message), "{members}: {first}");
    }
    has_problem(
        "name: w\nsteps: [{ id: a }]\n",
        ProblemCode::MissingMember,
        (2, 9),
        "`tool` is missing, or another of `workflow`",
    );
}

#[test]
fn bad_loops_are_refused() {
    for (members, code, message) in [
        ("repeat: {}", ProblemCode::MissingMember, "`until` is missing, or `while`"),
        ("repeat: { until: 5 }", ProblemCode::BadValue, "gives true or false"),
        ("repeat: { until: true, max_iterations: 0 }", ProblemCode::BadValue, "from 1 to 1000000"),
        (
            "repeat: { until: true, on_exhausted: stop }",
            ProblemCode::BadValue,
            "must be one of fail, continue",
        ),
        ("repeat: { unitl: true, while: true }", ProblemCode::UnknownMember, "did you mean `until`?"),
        ("for_each: { items: [], tolerate: \"101%\" }", ProblemCode::BadValue, "such as `3` or `\"5%\"`"),
        ("for_each: { items: [], tolerate: \"5\" }", ProblemCode::BadValue, "such as `3` or `\"5%\"`"),
        ("for_each: { items: [], tolerate: \"-5%\" }", ProblemCode::BadValue, "such as `3` or `\"5%\"`"),
        ("for_each: { items: [], tolerate: -1 }", ProblemCode::BadValue, "must be a whole number"),
        ("for_each: { items: [], batch: 0 }", ProblemCode::BadValue, "from 1 to 10000"),
    ] {
        let problems = problems(&format!("name: w\nsteps:\n  - {{ id: a, tool: echo, {members} }}\n"));
        let first = problems.iter().next().expect("there is a problem");
        assert_eq!((problems.len(), first.code), (1, code), "{members}: {problems}");
        assert!(first.message.contains(message), "{members}: {first}");
    }
}

#[test]
fn blocks_are_drawn_around_their_steps() {
    let plan = plan(
        "name: w\nsteps:\n  - { id: a, tool: echo, on_error: { goto: z }, compensate: { tool: echo } }\n  \
         - { id: b, needs: [a], steps: [{ id: c, tool: echo }, { id: d, wait: { for_ms: 1 }, needs: [c] }] }\n  \
         - { id: r, needs: [b], race: [{ id: x, tool: echo }, { id: y, workflow: other }] }\n  \
         - { id: q, needs: [r], approval: {} }\n  - { id: z, workflow: fix, repeat: { until: true } }\n",
    );
    let mermaid = plan.to_mermaid();
    for line in [
        "    subgraph n1[\"b<br/>steps\"]",
        "        n1_0_0[\"c<br/>echo\"]",
        "        n1_0_1([\"d<br/>wait\"])",
        "        n1_0_0 --> n1_0_1",
        "        n2_1[[\"other\"]]",
        "    n3[/\"q<br/>approval\"/]",
        "    n4[[\"z<br/>fix (repeat)\"]]",
        "    n0 -->|failed| n4",
        "    n0 --> n1",
        "    n0 -.->|undo| n5",
    ] {
        assert!(mermaid.lines().any(|drawn| drawn == line), "{line} is not in\n{mermaid}");
    }
    let dot = plan.to_dot();
    for line in [
        "    n1 [label=\"b\\nsteps\", shape=component];",
        "    subgraph \"cluster_b\" {",
        "        n1_0_0 -> n1_0_1;",
        "    n1 -> n1_0_0 [style=dotted];",
        "    n0 -> n4 [label=\"failed\"];",
        "    n0 -> n5 [label=\"undo\", style=dashed];",
    ] {
        assert!(dot.lines().any(|drawn| drawn == line), "{line} is not in\n{dot}");
    }
}
