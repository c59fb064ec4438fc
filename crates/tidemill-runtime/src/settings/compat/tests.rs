use std::ffi::OsString;

use super::super::{node::Value, problem::Problem};
use super::{COMPATIBLE_NAMES, layers};

/// What variables set, as `key=value`, and what is refused.
fn read(variables: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
    let environment: Vec<(OsString, OsString)> =
        variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
    let mut problems: Vec<Problem> = Vec::new();
    let set = layers(&environment, &mut problems).into_iter().map(|layer| {
        let (mut node, mut path) = (layer, Vec::new());
        loop {
            match node.value {
                Value::Map(mut entries) => {
                    let entry = entries.remove(0);
                    path.push(entry.key);
                    node = entry.node;
                }
                Value::Scalar { text, .. } => return format!("{}={text}", path.join(".")),
                other => panic!("{other:?}"),
            }
        }
    });
    (set.collect(), problems.iter().map(ToString::to_string).collect())
}

fn set(variables: &[(&str, &str)]) -> Vec<String> {
    let (set, problems) = read(variables);
    assert_eq!(problems, Vec::<String>::new(), "{variables:?}");
    set
}

fn refused(variables: &[(&str, &str)]) -> String {
    let (_, problems) = read(variables);
    assert_eq!(problems.len(), 1, "{variables:?}: {problems:?}");
    problems.concat()
}

#[test]
fn each_variable_sets_its_key_and_an_empty_one_nothing() {
    assert_eq!(set(&[("MAX_WORKERS", "16")]), ["worker.max_parallel=16"]);
    assert_eq!(set(&[("TIMEOUT_MS", "5000")]), ["worker.timeout_ms=5000"]);
    assert_eq!(set(&[("MAX_WORKFLOW_DURATION_MS", "300000")]), ["scheduler.run_timeout_ms=300000"]);
    assert_eq!(set(&[("MAX_CONCURRENT_EXECUTIONS", "50")]), ["scheduler.max_live_runs=50"]);
    assert_eq!(set(&[("MAX_RETRY_ATTEMPTS", "3")]), ["worker.max_attempts=3"]);
    assert_eq!(set(&[("WORKFLOW_ENGINE_MODE", "STATE-MACHINE")]), ["scheduler.mode=state_machine"]);
    let empty: Vec<_> = COMPATIBLE_NAMES.iter().map(|(name, _)| (*name, " ")).collect();
    assert_eq!(set(&empty), Vec::<String>::new());
}

#[test]
fn what_is_enabled_decides_the_mode_where_none_is_named() {
    const OPTIMIZATION: &str = "ENABLE_WORKFLOW_OPTIMIZATION";
    const HYBRID: &str = "ENABLE_HYBRID_EXECUTION";
    assert_eq!(set(&[(HYBRID, "true")]), ["scheduler.mode=hybrid"]);
    assert_eq!(set(&[(OPTIMIZATION, "true"), (HYBRID, "1")]), ["scheduler.mode=hybrid"]);
    assert_eq!(set(&[(OPTIMIZATION, "true"), (HYBRID, "no")]), ["scheduler.mode=optimized"]);
    assert_eq!(set(&[(HYBRID, "false")]), ["scheduler.mode=optimized"]);
    assert_eq!(set(&[(OPTIMIZATION, "off")]), ["scheduler.mode=state_machine"]);
    assert_eq!(set(&[(OPTIMIZATION, "false"), (HYBRID, "false")]), ["scheduler.mode=state_machine"]);
    assert_eq!(set(&[(OPTIMIZATION, "true")]), Vec::<String>::new(), "the default is optimized and more");
    let agreeing = [("WORKFLOW_ENGINE_MODE", "optimized"), (OPTIMIZATION, "true"), (HYBRID, "false")];
    assert_eq!(set(&agreeing), ["scheduler.mode=optimized"]);
}

#[test]
fn a_contradiction_is_refused_with_its_reason() {
    let text = refused(&[("WORKFLOW_ENGINE_MODE", "classic"), ("ENABLE_HYBRID_EXECUTION", "true")]);
    assert!(text.contains("variable ENABLE_HYBRID_EXECUTION") && text.contains("is classic"), "{text}");
    let text = refused(&[("WORKFLOW_ENGINE_MODE", "hybrid"), ("ENABLE_WORKFLOW_OPTIMIZATION", "false")]);
    assert!(text.contains("which means true"), "{text}");
    let text = refused(&[("ENABLE_WORKFLOW_OPTIMIZATION", "false"), ("ENABLE_HYBRID_EXECUTION", "true")]);
    assert!(text.contains("change one of them"), "{text}");
    let text = refused(&[("MAX_WORKERS", "4"), ("TIDEMILL_WORKER__MAX_PARALLEL", "8")]);
    assert!(text.contains("MAX_WORKERS: it sets worker.max_parallel to 4"), "{text}");
    assert!(text.contains("TIDEMILL_WORKER__MAX_PARALLEL sets it to 8"), "{text}");
    assert_eq!(set(&[("MAX_WORKERS", "8"), ("TIDEMILL_WORKER__MAX_PARALLEL", "8")]).len(), 1);
    let text = refused(&[("ENABLE_TIMEOUT_PROTECTION", "false"), ("TIMEOUT_MS", "5000")]);
    assert!(text.contains("ENABLE_TIMEOUT_PROTECTION is false"), "{text}");
    let text = refused(&[("WORKFLOW_ENGINE_MODE", "hybrid"), ("TIDEMILL_SCHEDULER__MODE", "classic")]);
    assert!(text.contains("sets it to classic"), "{text}");
}

#[test]
fn the_protection_alone_bounds_a_run_and_gives_way_to_a_bound_that_is_said() {
    assert_eq!(set(&[("ENABLE_TIMEOUT_PROTECTION", "true")]), ["scheduler.run_timeout_ms=300000"]);
    let longer = [("ENABLE_TIMEOUT_PROTECTION", "true"), ("MAX_WORKFLOW_DURATION_MS", "900000")];
    assert_eq!(set(&longer), ["scheduler.run_timeout_ms=900000"]);
    let nested = [("ENABLE_TIMEOUT_PROTECTION", "true"), ("TIDEMILL_SCHEDULER__RUN_TIMEOUT_MS", "7")];
    assert_eq!(set(&nested), Vec::<String>::new());
    assert_eq!(set(&[("ENABLE_TIMEOUT_PROTECTION", "false")]), Vec::<String>::new());
}

#[test]
fn a_value_that_is_none_is_refused_by_its_variable() {
    for (name, value, words) in [
        ("WORKFLOW_ENGINE_MODE", "turbo", "classic, state_machine, optimized, hybrid"),
        ("ENABLE_HYBRID_EXECUTION", "maybe", "neither true nor false"),
        ("MAX_WORKERS", "0", "above 0"),
        ("MAX_WORKERS", "-3", "above 0"),
        ("TIMEOUT_MS", "5s", "above 0"),
        ("MAX_RETRY_ATTEMPTS", "99999999999999999999", "above 0"),
    ] {
        let text = refused(&[(name, value)]);
        assert!(text.starts_with(&format!("variable {name}: ")) && text.contains(words), "{text}");
    }
}
