//! Laws that hold for every workflow.

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tidemill_workflow::{DEFINITION_SCHEMA, Decision, Definition, Limits, Need, Plan, Scope};

use crate::plan;

/// Steps that need only earlier ones, with any join; some of them choose among the next ones.
fn graphs() -> impl Strategy<Value = Value> {
    let step = (prop::collection::vec(any::<prop::sample::Index>(), 0..4), 0..5_u8, any::<bool>());
    prop::collection::vec(step, 1..30).prop_map(|steps| {
        let count = steps.len();
        let steps = steps.into_iter().enumerate().map(|(at, (needs, join, continues))| {
            let mut needs: Vec<usize> = if at == 0 { Vec::new() } else { needs.iter().map(|need| need.index(at)).collect() };
            needs.sort_unstable();
            needs.dedup();
            let join = match (join, needs.len()) {
                (1, 1..) => json!("any"),
                (2, n @ 1..) => json!({ "n_of": n.div_ceil(2) }),
                _ => json!("all"),
            };
            let needs: Vec<String> = needs.iter().map(|need| format!("s{need}")).collect();
            let on_error = if continues { "continue" } else { "fail" };
            json!({ "id": format!("s{at}"), "tool": "echo", "needs": needs, "join": join, "on_error": on_error })
        });
        let mut steps: Vec<Value> = steps.collect();
        // every fifth step that may, chooses between the next two
        for at in (0..count.saturating_sub(2)).step_by(5) {
            if steps[at + 1..at + 3].iter().all(|step| step["join"] == "all") {
                let [a, b] = [at + 1, at + 2].map(|next| json!([format!("s{next}")]));
                steps[at]["switch"] = json!([{ "when": "${ .input }", "then": a }, { "default": b }]);
                steps[at].as_object_mut().expect("it is an object").remove("tool");
            }
        }
        json!({ "name": "w", "failure": "finish", "steps": steps })
    })
}

/// A call of a tool.
fn calls() -> impl Strategy<Value = Value> + Clone {
    (any::<bool>(), 1..100_000_u64).prop_map(|(long, ms)| {
        let mut call = json!({ "tool": "echo" });
        if long {
            call = json!({ "tool": "echo", "with": [ms], "retry": { "max_attempts": 3 }, "timeout_ms": ms });
        }
        call
    })
}

fn waits() -> impl Strategy<Value = Value> + Clone {
    let number = || 1..100_000_u64;
    prop_oneof![
        number().prop_map(|ms| json!({ "for_ms": ms })),
        Just(json!({ "for_ms": "${ .input.ms }" })),
        Just(json!({ "until": "2030-01-01T09:00", "time_zone": "Europe/Paris" })),
        Just(json!({ "signal": "go" })),
        number().prop_map(|ms| {
            json!({ "signal": "a.b", "schema": { "type": "object" }, "timeout_ms": ms, "on_timeout": "continue" })
        }),
    ]
}

/// `for_each` or `repeat`, by its name.
fn loops() -> impl Strategy<Value = (&'static str, Value)> + Clone {
    let each = (1..100_u32, 0..=4_000_u32).prop_map(|(n, share)| {
        let tolerate = format!("{}%", f64::from(share) / 40.0);
        json!({ "items": "${ .input }", "concurrency": n, "batch": n, "tolerate": tolerate })
    });
    let again = (1..1_000_u64).prop_map(
        |n| json!({ "while": true, "max_iterations": n, "every_ms": n, "on_exhausted": "continue" }),
    );
    prop_oneof![
        Just(("for_each", json!([1, 2]))),
        each.prop_map(|each| ("for_each", each)),
        Just(("repeat", json!({ "until": "${ .output == 1 }" }))),
        again.prop_map(|again| ("repeat", again)),
    ]
}

/// A step of any kind, with blocks in blocks. Its id is given by [`numbered`].
fn steps_of_all_kinds() -> impl Strategy<Value = Value> {
    let approvals = prop_oneof![
        (1..100_000_u64).prop_map(|ms| {
            json!({ "who": ["a"], "prompt": "ok?", "timeout_ms": ms, "on_timeout": "approve", "on_reject": "continue" })
        }),
        (calls(), 1_000..100_000_u64).prop_map(|(mut call, ms)| {
            call["every_ms"] = ms.into();
            json!({ "remind": call })
        }),
    ];
    let leaf = prop_oneof![
        calls(),
        waits().prop_map(|wait| json!({ "wait": wait })),
        (calls(), waits()).prop_map(|(mut call, wait)| {
            call["wait"] = wait;
            call
        }),
        any::<bool>()
            .prop_map(|detached| json!({ "workflow": "child@2", "with": { "a": 1 }, "detached": detached })),
        approvals.prop_map(|approval| json!({ "approval": approval })),
    ];
    let step = leaf.prop_recursive(3, 12, 3, |inner| {
        let inner = prop::collection::vec(inner, 2..4);
        prop_oneof![
            (inner.clone(), proptest::option::of(loops()), 1..1_000_u64).prop_map(|(steps, looped, ms)| {
                let mut block = json!({ "steps": steps, "output": { "n": ms }, "timeout_ms": ms });
                if let Some((member, value)) = looped {
                    block[member] = value;
                }
                block
            }),
            inner.prop_map(|branches| json!({ "race": branches })),
        ]
    });
    let ended = prop_oneof![Just(None), Just(Some("compensate")), Just(Some("continue"))];
    (step, ended, proptest::option::of(calls())).prop_map(|(mut step, on_error, undo)| {
        if let Some(on_error) = on_error {
            step["on_error"] = on_error.into();
        }
        if let Some(undo) = undo {
            step["compensate"] = undo;
        }
        step
    })
}

/// Gives ids to steps, those of blocks and branches included.
fn numbered(steps: &mut Value, next: &mut u32) {
    for step in steps.as_array_mut().into_iter().flatten() {
        step["id"] = format!("s{next}").into();
        *next += 1;
        for member in ["steps", "race"] {
            if let Some(inner) = step.get_mut(member) {
                numbered(inner, next);
            }
        }
    }
}

/// Puts a value in the place of one of those below, counted in the order of the text.
fn spoil(value: &mut Value, at: &mut usize, by: &Value) -> bool {
    if *at == 0 {
        *value = by.clone();
        return true;
    }
    *at -= 1;
    match value {
        Value::Array(values) => values.iter_mut().any(|value| spoil(value, at, by)),
        Value::Object(members) => members.values_mut().any(|value| spoil(value, at, by)),
        _ => false,
    }
}

/// What strings with braces are made of.
const BRACES: &[&str] = &[
    "{{ input.x }}",
    "{{ \"{{\" }}",
    "{{",
    "}}",
    "{",
    "}",
    "$",
    "${",
    " name ",
    "input",
    "'",
    "{%",
    "{{ steps.a",
];

/// JSON without expressions.
fn values() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e9..1e9).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[$}{ %a-z]{0,12}".prop_map(Value::from),
        prop::collection::vec(prop::sample::select(BRACES), 0..5)
            .prop_map(|pieces| Value::from(pieces.concat())),
    ];
    scalar.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("[a-z$ \"]{0,6}", inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Writes every `${` and `{{` of a string so that it stands for itself.
fn escaped_text(text: &str) -> String {
    let with_braces = !text.contains("{%");
    let (mut out, mut chars) = (String::new(), text.chars().peekable());
    while let Some(next) = chars.next() {
        match next {
            '$' if chars.next_if_eq(&'{').is_some() => out.push_str("$${"),
            '{' if with_braces && chars.next_if_eq(&'{').is_some() => out.push_str("{{ \"{{\" }}"),
            next => out.push(next),
        }
    }
    out
}

/// Writes all strings so that they stand for themselves.
fn escaped(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::from(escaped_text(text)),
        Value::Array(values) => values.iter().map(escaped).collect(),
        Value::Object(members) => {
            Value::Object(members.iter().map(|(name, value)| (name.clone(), escaped(value))).collect())
        }
        other => other.clone(),
    }
}

/// Carries a run out as the settle function does: counters per step, decided on when one of them is reached.
struct Walk<'p> {
    plan: &'p Plan,
    stands: Vec<Need>,
    counts: Vec<(u32, u32)>,
    fired: Vec<u32>,
    order: Vec<u32>,
}

impl Walk<'_> {
    fn end(&mut self, step: u32, how: Need) {
        assert_eq!(self.stands[step as usize], Need::Pending, "a step ends once");
        self.stands[step as usize] = how;
        for &dependent in self.plan.dependents(step) {
            let count = &mut self.counts[dependent as usize];
            count.0 += 1;
            count.1 += u32::from(how == Need::Succeeded);
            let fires = self.plan.fires_when(dependent).expect("the step exists");
            if fires.reached(count.0, count.1) && self.fired[dependent as usize] == 0 {
                self.fire(dependent);
            }
        }
    }

    fn fire(&mut self, step: u32) {
        self.fired[step as usize] += 1;
        self.order.push(step);
    }

    fn decide(&self, step: u32) -> Decision {
        let node = self.plan.step(step).expect("the step exists");
        let needs: Vec<Need> = node.needs.iter().map(|need| self.stands[*need as usize]).collect();
        node.decide(&needs)
    }
}

proptest! {
    #[test]
    fn every_step_fires_once_after_what_it_waits_for(graph in graphs(), picks in prop::collection::vec((any::<prop::sample::Index>(), 0..10_u8), 40)) {
        let plan = plan(&graph.to_string());
        let count = plan.steps.len();
        let mut walk = Walk { plan: &plan, stands: vec![Need::Pending; count], counts: vec![(0, 0); count], fired: vec![0; count], order: vec![] };
        plan.roots().iter().for_each(|root| walk.fire(*root));
        let mut running: Vec<u32> = Vec::new();
        let mut picks = picks.into_iter().cycle();
        let mut seen = 0;
        loop {
            // Decide on what fired; what runs ends in any order and in any way.
            while let Some(&step) = walk.order.get(seen) {
                seen += 1;
                match walk.decide(step) {
                    Decision::Run => running.push(step),
                    Decision::Skip => walk.end(step, Need::Skipped),
                    Decision::Wait => prop_assert!(false, "step {step} fired too early"),
                }
            }
            if running.is_empty() {
                break;
            }
            let (pick, how) = picks.next().unwrap();
            let step = running.swap_remove(pick.index(running.len()));
            let continues = plan.step(step).unwrap().continue_on_error;
            walk.end(step, match how { 0 | 1 if continues => Need::Continued, 0 | 1 => Need::Failed, 2 => Need::Skipped, _ => Need::Succeeded });
        }
        prop_assert!(walk.fired.iter().all(|fired| *fired == 1), "each step fires exactly once: {:?}", walk.fired);
        prop_assert!(walk.stands.iter().all(|need| *need != Need::Pending));
    }

    #[test]
    fn a_definition_survives_being_written_and_read(graph in graphs(), with in values(), version in proptest::option::of(1..u32::MAX)) {
        let mut graph = graph;
        if graph["steps"][0]["switch"].is_null() {
            graph["steps"][0]["with"] = with;
        }
        if let Some(version) = version {
            graph["version"] = version.into();
        }
        let definition = Definition::parse(&graph.to_string(), "w").unwrap();
        let again = Definition::parse(&definition.to_value().to_string(), "w").unwrap();
        prop_assert_eq!(again, definition);
    }

    #[test]
    fn whatever_a_workflow_says_survives_and_compiles(
        steps in prop::collection::vec(steps_of_all_kinds(), 1..5),
        cost in 1..=1_000_000_000_u64,
        full in prop::sample::select(vec!["queue", "cancel_older", "cancel_newer"]),
    ) {
        let mut steps = Value::from(steps);
        let mut next = 0;
        numbered(&mut steps, &mut next);
        #[expect(clippy::cast_precision_loss, reason = "small enough for a float")]
        let cost = cost as f64 / 1e6;
        let definition = json!({
            "name": "w", "steps": steps, "finally": [{ "id": "end", "tool": "echo", "with": "${ .run.state }" }],
            "labels": { "k": "${ .input.k }" }, "group": { "key": "k", "limit": 3, "on_full": full },
            "budget": { "cost": cost }, "mode": "classic",
        });
        let definition = Definition::parse(&definition.to_string(), "w").unwrap();
        let written = definition.to_value();
        let again = Definition::parse(&written.to_string(), "w").unwrap();
        prop_assert_eq!(&again, &definition);
        prop_assert_eq!(&again.to_value(), &written);
        let schema: Value = serde_json::from_str(DEFINITION_SCHEMA).unwrap();
        let schema = jsonschema::options().offline().build(&schema).unwrap();
        let errors: Vec<String> = schema.iter_errors(&written).map(|error| error.to_string()).collect();
        prop_assert!(errors.is_empty(), "{:?}", errors);
        let plan = plan(&written.to_string());
        prop_assert_eq!(plan.steps.len() as u32, plan.main() + plan.finally.len() as u32 + plan.steps.iter().filter(|step| step.undo.is_some()).count() as u32);
        for step in &plan.steps {
            prop_assert!(step.references().steps.iter().all(|read| *read < plan.steps.len() as u32));
        }
        let (mermaid, dot) = (plan.to_mermaid(), plan.to_dot());
        prop_assert_eq!(mermaid.matches("subgraph").count(), mermaid.matches("    end\n").count());
        prop_assert_eq!(dot.matches('{').count(), dot.matches('}').count());
    }

    #[test]
    fn a_spoilt_workflow_is_compiled_or_refused(
        steps in prop::collection::vec(steps_of_all_kinds(), 1..4),
        spoils in prop::collection::vec((1..80_usize, prop::sample::select(vec![
            json!(null), json!(0), json!("s0"), json!("s1"), json!([]), json!({}), json!(true), json!(["s1", "s2"]), json!("${ .steps.s1.output }"),
            json!({ "goto": "s2" }), json!({ "of": "s0" }), json!([{ "default": ["s1"] }]),
        ])), 1..4),
    ) {
        let mut steps = Value::from(steps);
        numbered(&mut steps, &mut 0);
        let mut definition = json!({ "name": "w", "steps": steps, "finally": [{ "id": "end", "tool": "echo" }] });
        for (mut at, by) in spoils {
            spoil(&mut definition, &mut at, &by);
        }
        match Plan::from_source(&definition.to_string(), "w", &crate::Tools) {
            Ok(plan) => prop_assert!(plan.steps.len() >= plan.main() as usize),
            Err(problems) => prop_assert!(problems.iter().all(|problem| problem.line == 1 && !problem.message.is_empty())),
        }
    }

    #[test]
    fn a_constant_template_renders_to_itself(value in values()) {
        let definition = json!({ "name": "w", "steps": [{ "id": "a", "tool": "echo", "with": escaped(&value) }] });
        let plan = plan(&definition.to_string());
        let with = &plan.steps[0].with;
        let rendered = with.render(&Scope::default(), &Limits::default()).unwrap();
        prop_assert_eq!(serde_json::from_slice::<Value>(&rendered).unwrap(), value);
        prop_assert!(with.is_constant());
    }

    #[test]
    fn any_text_is_a_definition_or_a_list_of_problems(text in any::<String>()) {
        if let Err(problems) = Definition::parse(&text, "w") {
            prop_assert!(!problems.is_empty());
        }
    }

    #[test]
    fn any_yaml_like_text_is_a_definition_or_a_list_of_problems(text in "[-a-z:{}\\[\\], &*!|>'\"#%@?\n\t]{0,60}") {
        if let Err(problems) = Definition::parse(&text, "w") {
            prop_assert!(!problems.is_empty());
        }
    }
}
