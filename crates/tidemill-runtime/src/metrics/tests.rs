use super::*;

fn value_of(text: &str, metric: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn a_process_tells_its_build_memory_processor_time_and_uptime() {
    let text = Metrics::new("worker", "1.2.3").text();
    assert!(text.contains("tidemill_build_info{program=\"worker\",version=\"1.2.3\"} 1"), "{text}");
    assert!(
        value_of(&text, "process_resident_memory_bytes").is_some_and(|bytes| bytes > 500_000.0),
        "{text}"
    );
    assert!(value_of(&text, "process_cpu_seconds_total").is_some_and(|seconds| seconds >= 0.0), "{text}");
    assert!(value_of(&text, "process_uptime_seconds").is_some_and(|seconds| seconds >= 0.0), "{text}");
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn metrics_appear_under_their_names_and_labels() {
    const PARKED: MetricName = MetricName::new("tidemill_parked", "Jobs parked now", &["service", "why"]);
    const WAIT: MetricName = MetricName::new("tidemill_wait_seconds", "Time waited", &[]);
    let metrics = Metrics::new("worker", "1.2.3");
    let parked = metrics.gauges(PARKED);
    parked.with(&["shop", "limit"]).set(3);
    parked.with(&["shop", "limit"]).inc();
    parked.with(&["mail"]).dec();
    let wait = metrics.histogram(WAIT, &[0.1, 1.0]);
    wait.observe(0.05);
    wait.observe(5.0);
    let text = metrics.text();
    assert_eq!(value_of(&text, "tidemill_parked{service=\"shop\",why=\"limit\"}"), Some(4.0), "{text}");
    assert_eq!(value_of(&text, "tidemill_parked{service=\"mail\",why=\"\"}"), Some(-1.0), "{text}");
    assert_eq!(value_of(&text, "tidemill_wait_seconds_bucket{le=\"0.1\"}"), Some(1.0), "{text}");
    assert_eq!(value_of(&text, "tidemill_wait_seconds_count"), Some(2.0), "{text}");
}

#[test]
fn label_values_cannot_break_the_text() {
    const ODD: MetricName = MetricName::new("tidemill_odd", "Odd values", &["name"]);
    let metrics = Metrics::new("worker", "1.2.3");
    metrics.counters(ODD).with(&["a\"b\nc\\"]).inc();
    let text = metrics.text();
    assert!(text.contains(r#"tidemill_odd_total{name="a\"b\nc\\"} 1"#), "{text}");
}

#[test]
fn every_name_of_this_crate_is_well_formed() {
    for name in ALL {
        assert!(name.name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name:?}");
        assert!(!name.name.ends_with("_total") && !name.help.ends_with('.'), "{name:?}");
    }
}
