//! Tests of what a registry exports and lists.

use pulse_core::{AttemptOutcome, FailureReason};

use crate::{LabelValue, Metric, Registry, TaskMetrics};

#[test]
fn registry_exports_each_kind_of_metric() {
    let mut registry = Registry::default();
    registry.counter("jobs", "Number of jobs").inc();
    registry.counters("errors", ["code", "reason"], "Number of errors").with(["500", "crash"]).inc_by(2);
    registry.gauge("leader", "1 if leader").set(1);
    registry.float_gauge("age_seconds", "Age, in seconds").set(1.5);
    let workers = registry.gauges("workers", ["name"], "Number of workers");
    workers.with(["gone"]).set(3);
    workers.with(["main".to_owned()]).set(4);
    workers.remove([LabelValue::from("gone")]);
    registry.computed_gauges("watch_seconds", "kind", "Time, in seconds", || vec![("pods".into(), 2.0)]);
    registry.histogram("wait_seconds", "Wait, in seconds", [1.0]).observe(0.5);
    let runs = registry.traced_histograms("run_seconds", ["job"], "Run, in seconds", &[1.0]);
    runs.with(["reap"]).observe(2.0, Some("4bf9"));
    registry.computed_counter("cpu_seconds", "Time, in seconds", || Some(0.5));
    registry.computed_gauge("unknown", "Number", || None);
    registry.counters("unused", ["code"], "Number of nothing");
    let expected = r#"# HELP jobs Number of jobs.
# TYPE jobs counter
jobs_total 1
# HELP errors Number of errors.
# TYPE errors counter
errors_total{code="500",reason="crash"} 2
# HELP leader 1 if leader.
# TYPE leader gauge
leader 1
# HELP age_seconds Age, in seconds.
# TYPE age_seconds gauge
age_seconds 1.5
# HELP workers Number of workers.
# TYPE workers gauge
workers{name="main"} 4
# HELP wait_seconds Wait, in seconds.
# TYPE wait_seconds histogram
wait_seconds_sum 0.5
wait_seconds_count 1
wait_seconds_bucket{le="1.0"} 1
wait_seconds_bucket{le="+Inf"} 1
# HELP run_seconds Run, in seconds.
# TYPE run_seconds histogram
run_seconds_sum{job="reap"} 2.0
run_seconds_count{job="reap"} 1
run_seconds_bucket{le="1.0",job="reap"} 0
run_seconds_bucket{le="+Inf",job="reap"} 1 # {trace_id="4bf9"} 2.0
# HELP watch_seconds Time, in seconds.
# TYPE watch_seconds gauge
watch_seconds{kind="pods"} 2.0
# HELP cpu_seconds Time, in seconds.
# TYPE cpu_seconds counter
cpu_seconds_total 0.5
# EOF
"#;
    assert_eq!(registry.encode().expect("text"), expected);
    let classic = expected
        .replace(" # {trace_id=\"4bf9\"} 2.0", "")
        .replace("# EOF\n", "")
        .replace(" cpu_seconds ", " cpu_seconds_total ")
        .replace(" jobs ", " jobs_total ")
        .replace(" errors ", " errors_total ");
    assert_eq!(registry.encode_classic().expect("text"), classic);
}

#[test]
fn registry_lists_metrics_by_their_names_in_queries() {
    let mut registry = Registry::default();
    registry.counters("errors", ["code", "reason"], "Number of errors");
    registry.histogram("wait_seconds", "Wait, in seconds", [1.0]);
    registry.computed_gauges("watch_seconds", "kind", "Time, in seconds", Vec::new);
    let metric = |name: &str, kind, labels, help| Metric { name: name.into(), kind, labels, help };
    assert_eq!(
        registry.metrics(),
        [
            metric("errors_total", "counter", vec!["code", "reason"], "Number of errors"),
            metric("wait_seconds", "histogram", vec![], "Wait, in seconds"),
            metric("watch_seconds", "gauge", vec!["kind"], "Time, in seconds"),
        ]
    );
}

#[test]
fn task_metrics_have_all_label_values_at_start() {
    let mut registry = Registry::default();
    TaskMetrics::register(&mut registry);
    let text = registry.encode().expect("text");
    for outcome in AttemptOutcome::ALL {
        assert!(text.contains(&format!("pulse_tasks_settled_total{{outcome=\"{}\"}} 0\n", outcome.as_str())));
        assert!(registry.metrics()[0].help.contains(outcome.as_str()));
    }
    for reason in FailureReason::ALL {
        assert!(text.contains(&format!("pulse_task_retries_total{{reason=\"{}\"}} 0\n", reason.as_str())));
    }
}
