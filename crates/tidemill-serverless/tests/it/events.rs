//! `emit` and `listen`.

use serde_json::json;

use crate::host::{Ended, Host, document};

#[test]
fn an_emitted_event_is_whole_and_goes_out_before_the_end() {
    let tasks = r#"
- say: { emit: { event: { with: { source: https://shop.test, type: shop.placed, data: { order: "${ .id }" }, tenant_id: t } } } }
"#;
    let mut host = Host::new(&document(tasks), &json!({"id": 9}));
    let event = json!({
        "specversion": "1.0", "id": "r1-0", "time": "2026-11-21T12:00:00.000Z", "source": "https://shop.test",
        "type": "shop.placed", "tenant_id": "t", "data": { "order": 9 },
    });
    assert_eq!(host.run(), Ended::Output(event.clone()));
    assert_eq!(host.published, [event]);
}

#[test]
fn a_document_can_tell_of_its_life() {
    let tasks = "- a: { set: { x: 1 } }\n- b: { try: [ { c: { raise: { error: { type: 'urn:x', status: 1 } } } } ], catch: {} }";
    let text =
        document(tasks).replace("version: '0.1.0'", "version: '0.1.0', metadata: { lifecycleEvents: true }");
    let mut host = Host::new(&text, &json!({}));
    assert_eq!(host.run(), Ended::Output(json!({"x": 1})));
    let told = host.published.iter().map(|event| {
        let kind = event["type"].as_str().expect("a type").trim_start_matches("io.serverlessworkflow.");
        format!("{} {}", kind.trim_end_matches(".v1"), event["data"]["task"].as_str().unwrap_or("-"))
    });
    let expected = [
        "workflow.started -",
        "task.started /do/0/a",
        "task.completed /do/0/a",
        "task.started /do/1/b",
        "task.started /do/1/b/try/0/c",
        "task.faulted /do/1/b/try/0/c",
        "task.completed /do/1/b",
        "workflow.completed -",
    ];
    assert_eq!(told.collect::<Vec<_>>(), expected);
    let mut quiet = Host::new(&document(tasks), &json!({}));
    quiet.run();
    assert_eq!(quiet.published, Vec::<serde_json::Value>::new());
}

#[test]
fn an_event_without_a_type_is_an_error() {
    let tasks = "- a: { emit: { event: { with: { source: s, type: \"${ .kind }\" } } } }";
    let Ended::Fault(fault) = Host::new(&document(tasks), &json!({})).run() else { panic!("it was emitted") };
    assert_eq!(fault["type"], json!("https://serverlessworkflow.io/spec/1.0.0/errors/validation"));
}

#[test]
fn one_event_is_waited_for_and_read() {
    for (read, expected) in [
        ("data", json!([{"t": 39}])),
        ("envelope", json!([{"specversion": "1.0", "type": "hot", "id": "e1", "data": {"t": 39}}])),
    ] {
        let tasks =
            format!("- a: {{ listen: {{ to: {{ one: {{ with: {{ type: hot }} }} }}, read: {read} }} }}");
        let event = json!({"specversion": "1.0", "type": "hot", "id": "e1", "data": {"t": 39}});
        let mut host = Host::new(&document(&tasks), &json!({})).signal("hot", event);
        assert_eq!(host.run(), Ended::Output(expected));
        assert_eq!(host.whys, ["listens in `a`"]);
    }
}

#[test]
fn a_payload_that_is_no_event_becomes_the_data_of_one() {
    let tasks = "- a: { listen: { to: { one: { with: { type: hot } } }, read: envelope }, output: { as: \".[0] | [.type, .source, .data]\" } }";
    let mut host = Host::new(&document(tasks), &json!({})).signal("hot", json!({"t": 1}));
    assert_eq!(host.run(), Ended::Output(json!(["hot", "tester", {"t": 1}])));
}

#[test]
fn only_events_that_fit_are_taken() {
    let tasks = r#"
- a:
    listen:
      to:
        any:
          - with: { type: heat, data: "${ .t > $input.limit }" }
          - with: { type: beat, source: "ward-[0-9]+", subject: ada }
"#;
    let listening = |events: &[(&str, serde_json::Value)]| {
        let host = Host::new(&document(tasks), &json!({"limit": 38}));
        events.iter().fold(host, |host, (kind, event)| host.signal(kind, event.clone())).run()
    };
    let event = |kind: &str, source: &str, data: &serde_json::Value| json!({"specversion": "1.0", "type": kind, "source": source, "subject": "ada", "data": data});
    assert_eq!(listening(&[("heat", event("heat", "x", &json!({"t": 37})))]), Ended::Stuck);
    assert_eq!(listening(&[("beat", event("beat", "home-1", &json!(60)))]), Ended::Stuck);
    let events =
        [("heat", event("heat", "x", &json!({"t": 37}))), ("beat", event("beat", "ward-12", &json!(61)))];
    assert_eq!(listening(&events), Ended::Output(json!([61])));
}

#[test]
fn all_waits_for_each_of_its_events_once() {
    let tasks = "- a: { listen: { to: { all: [ { with: { type: x } }, { with: { type: y } } ] } } }";
    let host = Host::new(&document(tasks), &json!({}));
    let mut host = host.signal("x", json!(1)).signal("x", json!(2)).signal("y", json!(3));
    assert_eq!(host.run(), Ended::Output(json!([1, 3])));
}

#[test]
fn any_goes_on_until_its_condition_holds() {
    let tasks = "- a: { listen: { to: { any: [ { with: { type: x } } ], until: ( . | length ) > 2 } } }";
    let host = Host::new(&document(tasks), &json!({}));
    let mut host = (1..9).fold(host, |host, n| host.signal("x", json!(n)));
    assert_eq!(host.run(), Ended::Output(json!([1, 2, 3])));
}

#[test]
fn events_that_end_the_listening_are_not_part_of_it() {
    let tasks = "- a: { listen: { to: { any: [ { with: { type: x } } ], until: { one: { with: { type: stop } } } } } }";
    let host = Host::new(&document(tasks), &json!({}));
    let mut host = host.signal("x", json!(1)).signal("x", json!(2)).signal("stop", json!(3));
    assert_eq!(host.run(), Ended::Output(json!([1, 2])));
}

#[test]
fn each_event_is_dealt_with_before_the_next() {
    let tasks = r#"
- a:
    listen: { to: { any: [ { with: { type: x } } ], until: ( . | length ) >= 3 } }
    foreach:
      item: event
      at: number
      do:
        - work: { call: echo, with: { of: "${ $event }", number: "${ $number }" } }
      output: { as: "[.of, .number]" }
      export: { as: "$context + [.]" }
- b: { set: { all: "${ . }", context: "${ $context }" } }
"#;
    let host = Host::new(&document(tasks), &json!({}));
    let mut host = host.signal("x", json!("p")).signal("x", json!("q")).signal("x", json!("r"));
    let all = json!([["p", 0], ["q", 1], ["r", 2]]);
    assert_eq!(host.run(), Ended::Output(json!({"all": all, "context": all})));
}

#[test]
fn events_are_correlated_by_what_the_first_of_them_says() {
    let tasks = r#"
- a:
    listen:
      to:
        any: [ { with: { type: x }, correlate: { order: { from: .data.order }, shop: { from: .data.shop, expect: "${ $input.shop }" } } } ]
        until: ( . | length ) >= 2
    output: { as: "map(.n)" }
"#;
    let event = |order: u32, shop: &str, n: u32| json!({"order": order, "shop": shop, "n": n});
    let host = Host::new(&document(tasks), &json!({"shop": "s"}));
    let mut host = host
        .signal("x", event(1, "other", 1))
        .signal("x", event(7, "s", 2))
        .signal("x", event(8, "s", 3))
        .signal("x", event(7, "s", 4));
    assert_eq!(host.run(), Ended::Output(json!([2, 4])));
}

#[test]
fn a_listener_that_hears_nothing_times_out() {
    let tasks = "- a: { listen: { to: { one: { with: { type: x } } } }, timeout: { after: PT1M } }";
    let Ended::Fault(fault) = Host::new(&document(tasks), &json!({})).run() else {
        panic!("it heard something")
    };
    assert_eq!(fault["status"], json!(408));
}
