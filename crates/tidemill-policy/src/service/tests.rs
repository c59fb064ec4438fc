use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::limit::{Amount, Limit, Tiered};
use super::{
    Breaker, BreakerRules, BudgetRules, Catalog, Contract, Definition, RetryBudget, Scope, TierRules, Window,
};

fn catalog() -> Catalog {
    let set = json!({
        "@pool": { "concurrency": 500 },
        "@tenant:*": { "concurrency": 50 },
        "@tenant:acme": { "concurrency": 60 },
        "@tool:exec.run": { "concurrency": 4 },
        "openai": {
            "tools": ["llm.chat", "openai.*"], "model": ".model",
            "per_tenant": { "acme": { "concurrency": 9 } },
            "per_model": { "*": { "concurrency": 7 } },
        },
        "cheap": { "tools": ["openai.small.*"] },
    });
    Catalog::new(serde_json::from_value(set).unwrap()).unwrap()
}

fn tiers(catalog: &Catalog, scope: &Scope<'_>) -> Vec<String> {
    let shown = catalog.tiers(scope).into_iter().map(|tier| {
        if tier.name == tier.template {
            tier.name.to_string()
        } else {
            format!("{}={}", tier.name, tier.template)
        }
    });
    shown.collect()
}

#[test]
fn a_call_passes_the_tiers_that_have_rules_the_narrowest_last() {
    let catalog = catalog();
    let scope = Scope {
        tool: "llm.chat",
        service: Some("openai"),
        tenant: Some("acme"),
        user: Some("ann"),
        model: Some("meta/llama"),
        credential: Some("k"),
    };
    assert_eq!(
        tiers(&catalog, &scope),
        ["@pool", "@tenant:acme", "openai", "openai/tenant:acme", "openai/model:meta_llama=openai/model:*"]
    );
    let other = Scope { tenant: Some("zoo"), model: None, ..scope };
    assert_eq!(tiers(&catalog, &other), ["@pool", "@tenant:zoo=@tenant:*", "openai"]);
    // a tenant named like the wildcard has a tier of its own
    let star = Scope { tool: "exec.run", service: None, tenant: Some("*"), ..Scope::default() };
    assert_eq!(tiers(&catalog, &star), ["@pool", "@tool:exec.run", "@tenant:_=@tenant:*"]);
    assert_eq!(tiers(&Catalog::default(), &scope), [""; 0]);
}

#[test]
fn a_tool_depends_on_the_service_that_names_it_best() {
    let catalog = catalog();
    let service =
        |tool: &str, named: Option<&str>| catalog.service_of(tool, named).map(|(name, _)| name.to_owned());
    assert_eq!(service("llm.chat", None).as_deref(), Some("openai"));
    assert_eq!(service("llm.chats", None), None);
    assert_eq!(service("openai.embed", None).as_deref(), Some("openai"));
    assert_eq!(service("openai.small.embed", None).as_deref(), Some("cheap"));
    assert_eq!(service("openai.small.embed", Some("openai")).as_deref(), Some("openai"));
    assert_eq!(service("other", Some("openai")).as_deref(), Some("openai"));
    assert_eq!(service("openai.embed", Some("gone")), None);
    assert!(
        catalog.get("gone").is_none() && catalog.get("cheap").is_some() && catalog.get("@pool").is_none()
    );
}

#[test]
fn a_catalog_knows_which_tools_it_leaves_alone() {
    let set = json!({ "openai": { "tools": ["llm.chat"] }, "@tool:exec.run": { "concurrency": 1 } });
    let small = Catalog::new(serde_json::from_value(set).unwrap()).unwrap();
    assert!(
        small.affects("llm.chat", None)
            && small.affects("exec.run", None)
            && small.affects("x", Some("openai"))
    );
    assert!(!small.affects("echo", None));
    assert!(catalog().affects("echo", None), "the pool's own limits concern every tool");
    assert!(Catalog::default().is_empty() && !small.is_empty());
}

#[test]
fn the_compiled_text_is_the_documented_one() {
    let definition: Definition = serde_json::from_value(json!({
        "limits": [
            { "unit": "requests", "limit": 600, "window_ms": 60000 },
            { "unit": "requests", "limit": 10, "window_ms": 1000, "slack_ms": 0 },
            { "unit": "total_tokens", "limit": 90000, "window_ms": 60000, "contract": "average" },
            { "unit": "requests", "limit": "auto", "window_ms": 1000 },
        ],
        "concurrency": 50,
        "breaker": { "window": "count", "slow_ms": 1500 },
        "per_tenant": { "*": { "concurrency": 5 }, "a/b": { "limits": [{ "unit": "cost", "limit": 7, "window_ms": 86_400_000, "contract": "fixed_window" }] } },
    }))
    .unwrap();
    let expected = [
        (
            "openai",
            "c=50 d=requests,s,600,60000000,12,240000,0,600,600 d=requests,s,10,1000000,1,0,0,10,10 \
             d=total_tokens,a,90000,60000000,9000,0,0,90000,90000 d=requests,s,1000,1000000,1,20000,1,10,1000 \
             b=c,100,20,0.5,1500000,1,5000000,60000000,3,30000000 r=0.1,0.1,10",
        ),
        ("openai/tenant:*", "c=5"),
        ("openai/tenant:a_b", "d=cost,f,7,86400000000,7,0,0,7,7"),
    ];
    assert_eq!(
        definition.templates("openai"),
        expected.map(|(name, text)| (name.to_owned(), text.to_owned()))
    );
    let pool = Definition { concurrency: Some(3), ..Definition::default() };
    assert_eq!(pool.templates("@tenant:*"), [("@tenant:*".to_owned(), "c=3".to_owned())]);
    let bare = Definition {
        breaker: Breaker { enabled: false, ..Breaker::default() },
        retry_budget: RetryBudget { enabled: false, ..RetryBudget::default() },
        ..Definition::default()
    };
    assert_eq!(bare.templates("shop"), [("shop".to_owned(), String::new())]);
    assert_eq!(TierRules::parse("").unwrap(), TierRules::default());
}

#[test]
fn a_text_that_is_not_of_the_form_is_refused_with_its_word() {
    for text in [
        "x=1",
        "c",
        "c=",
        "c=1,2",
        "c=-1",
        "d=requests,s,1",
        "d=,s,1,1,1,1,0,1,1",
        "d=r,x,1,1,1,1,0,1,1",
        "d=r,s,1,1,1,1,2,1,1",
        "d=r,s,1,1,1,1,0,1,1,1",
        "b=z,1,1,1,1,1,1,1,1,1",
        "b=t,1",
        "r=1,2",
        "r=a,1,1",
    ] {
        let error = TierRules::parse(&format!("c=5 {text}")).unwrap_err();
        assert_eq!(error.word, text);
    }
}

#[test]
fn an_answer_to_a_class_of_failures_goes_before_the_general_one() {
    use tidemill_protocol::ErrorClass::{Server, Throttled};
    let definition: Definition = serde_json::from_value(json!({
        "retry": { "max_attempts": 2, "base_ms": 7 }, "per_class": { "throttled": { "max_attempts": 10 } },
        "default_estimate": { "cost": 4 },
    }))
    .unwrap();
    assert_eq!(definition.retry_of(Throttled).max_attempts(), 10);
    assert_eq!(definition.retry_of(Throttled).base_ms, Some(7));
    assert_eq!(definition.retry_of(Server).max_attempts(), 2);
    let guesses = ["cost", "total_tokens", "images"].map(|unit| definition.first_estimate(unit));
    assert_eq!(guesses, [4, 1_000, 1]);
}

fn contract() -> impl Strategy<Value = Contract> {
    prop_oneof![
        Just(Contract::Strict),
        Just(Contract::Average),
        Just(Contract::Bucket),
        Just(Contract::FixedWindow)
    ]
}

prop_compose! {
    fn limit()(
        unit in "[a-z][a-z0-9_]{0,15}", fixed in proptest::option::of(1_u64..=1_000_000_000_000), window_ms in 1_u64..=31_622_400_000,
        contract in contract(), burst in proptest::option::of(1_u64..100_000), slack in proptest::option::of(0_u64..60_000),
        initial in proptest::option::of(1_u64..5_000), max in proptest::option::of(1_u64..1_000_000),
    ) -> Limit {
        let auto = fixed.is_none();
        let most = fixed.or(initial).unwrap_or(1);
        Limit {
            unit, window_ms, contract,
            limit: fixed.map_or(Amount::Auto, Amount::Fixed),
            burst: burst.filter(|_| contract != Contract::FixedWindow).map(|burst| burst.min(most)),
            slack_ms: slack.filter(|slack| contract == Contract::Strict && *slack <= window_ms),
            initial: initial.filter(|_| auto), max: max.filter(|_| auto),
        }
    }
}

prop_compose! {
    fn tiered()(limits in proptest::collection::vec(limit(), 0..4), concurrency in proptest::option::of(1_u64..=1_000_000)) -> Tiered {
        Tiered { limits, concurrency }
    }
}

prop_compose! {
    fn breaker()(
        enabled: bool, count: bool, window_ms in 100_u64..=3_600_000, window_calls in 1_u64..=10_000, min_calls in 1_u64..1_000,
        failure_ratio in 0.0001_f64..=1.0, slow_ratio in 0.0001_f64..=1.0, slow_ms in 0_u64..100_000, open_ms in 1_u64..100_000,
        more_ms in 0_u64..100_000, probes in 1_u64..=1_000, probe_timeout_ms in 1_u64..100_000,
    ) -> Breaker {
        let window = if count { Window::Count } else { Window::Time };
        Breaker {
            enabled, window, window_ms, window_calls, min_calls, failure_ratio, slow_ms, slow_ratio, open_ms,
            max_open_ms: open_ms + more_ms, probes, probe_timeout_ms, ..Breaker::default()
        }
    }
}

prop_compose! {
    fn definition()(
        own in tiered(), tenants in proptest::collection::btree_map("\\*|[ -~é]{1,12}", tiered(), 0..4), breaker in breaker(),
        enabled: bool, ratio in 0.0_f64..10.0, min_per_second in 0.0_f64..10.0, burst in 1.0_f64..100.0,
    ) -> Definition {
        Definition {
            limits: own.limits, concurrency: own.concurrency, per_tenant: tenants, breaker,
            retry_budget: RetryBudget { enabled, ratio, min_per_second, burst, ..RetryBudget::default() },
            ..Definition::default()
        }
    }
}

proptest! {
    #[test]
    fn the_templates_of_any_valid_definition_can_be_read_back(definition in definition()) {
        prop_assume!(definition.check("shop").is_empty());
        let templates = definition.templates("shop");
        prop_assert_eq!(templates.len(), 1 + definition.per_tenant.len());
        for (index, (_, text)) in templates.iter().enumerate() {
            let rules = TierRules::parse(text).map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(&rules.to_string(), text);
            let own = index == 0;
            prop_assert_eq!(rules.breaker.is_some(), own && definition.breaker.enabled);
            prop_assert_eq!(rules.retry_budget.is_some(), own && definition.retry_budget.enabled);
            for limit in &rules.limits {
                prop_assert!(limit.burst >= 1 && limit.initial >= 1 && limit.initial <= limit.max && limit.limit == limit.max);
                if limit.contract == Contract::Strict {
                    prop_assert!(limit.burst <= limit.initial, "{:?}", limit);
                }
            }
        }
        let own = TierRules::parse(&templates[0].1).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let mut expected = TierRules::new(&definition.limits, definition.concurrency);
        expected.breaker = BreakerRules::of(&definition.breaker);
        expected.retry_budget = BudgetRules::of(&definition.retry_budget);
        prop_assert_eq!(own, expected);
    }

    #[test]
    fn every_tier_of_a_valid_catalog_has_a_template_that_was_made(definition in definition(), tenant in "[ -~]{1,12}") {
        prop_assume!(definition.check("shop").is_empty());
        let templates: Vec<_> = definition.templates("shop").into_iter().map(|(name, _)| name).collect();
        let catalog = Catalog::new(BTreeMap::from([("shop".to_owned(), definition)]))
            .map_err(|problems| TestCaseError::fail(format!("{problems:?}")))?;
        for tenant in templates.iter().filter_map(|name| name.split_once(':').map(|(_, tenant)| tenant)).chain([&*tenant]) {
            let scope = Scope { tool: "t", service: Some("shop"), tenant: Some(tenant), ..Scope::default() };
            for tier in catalog.tiers(&scope) {
                prop_assert!(templates.iter().any(|template| **template == *tier.template), "{:?}", tier);
                let (exact, any) = super::template_names(&tier.name);
                prop_assert!(*tier.template == *exact || Some(&*tier.template) == any.as_deref());
            }
        }
    }

    #[test]
    fn no_text_makes_the_reader_of_rules_panic(text in "[cdbr=,.0-9a-z -]{0,60}") {
        if let Ok(rules) = TierRules::parse(&text) {
            prop_assert_eq!(TierRules::parse(&rules.to_string()), Ok(rules));
        }
    }
}
