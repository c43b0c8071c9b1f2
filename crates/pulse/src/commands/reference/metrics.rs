//! Every metric, with the roles that export it.

use pulse_metrics::{Metric, Registry, TaskMetrics};
use pulse_operator::OperatorMetrics;
use pulse_scheduler::SchedulerMetrics;
use pulse_store::PoolUse;
use pulse_worker::WorkerMetrics;

use super::page::{Page, Table};
use crate::metrics;

pub(super) fn page() -> Page {
    let text = format!(
        "Each role serves OpenMetrics text at `/metrics` of its admin port. [Monitor an instance](../how-to/monitor.md) says \
         what to watch.\n\n{}",
        table(&registries())
    );
    Page { path: "metrics.md".into(), title: "Metrics".into(), text }
}

/// The registry of each role, filled as in its process.
fn registries() -> [(&'static str, Registry); 5] {
    let process = |name, register: fn(&mut Registry)| {
        let mut registry = metrics::registry(name);
        register(&mut registry);
        (name, registry)
    };
    let role = |name, register: fn(&mut Registry)| {
        let (name, mut registry) = process(name, |_| ());
        metrics::postgresql(&mut registry, PoolUse::default);
        register(&mut registry);
        (name, registry)
    };
    [
        role("api", |registry| drop(metrics::api(registry))),
        role("worker", |registry| {
            let tasks = TaskMetrics::register(registry);
            drop(WorkerMetrics::register(registry, tasks));
        }),
        role("scheduler", |registry| {
            let tasks = TaskMetrics::register(registry);
            drop(SchedulerMetrics::register(registry, tasks));
        }),
        role("console", |registry| drop(metrics::console(registry))),
        process("operator", |registry| drop(OperatorMetrics::register(registry))),
    ]
}

fn table(registries: &[(&str, Registry)]) -> String {
    let mut rows: Vec<(&Metric, Vec<&str>)> = Vec::new();
    for (role, registry) in registries {
        for metric in registry.metrics() {
            match rows.iter_mut().find(|(known, _)| *known == metric) {
                Some((_, roles)) => roles.push(role),
                None => rows.push((metric, vec![role])),
            }
        }
    }
    let mut table = Table::new(&["metric", "type", "role", "labels", "description"]);
    for (Metric { name, kind, labels, help }, roles) in rows {
        let roles = if roles.len() == registries.len() { "all".to_owned() } else { roles.join(", ") };
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        table.row(&[&format!("`{name}`"), kind, &roles, &labels.join(", "), help]);
    }
    table.0
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    #[test]
    fn table_has_one_row_per_metric_with_its_roles() {
        let table = table(&registries());
        for row in [
            "| `pulse_build_info` | gauge | all | `version`, `role` | ",
            "| `pulse_tasks_settled_total` | counter | worker, scheduler | `outcome` | ",
            "| `pulse_worker_in_flight_tasks` | gauge | worker |  | ",
        ] {
            assert_eq!(table.matches(row).count(), 1, "{row}");
        }
    }

    /// The Markdown files below a folder.
    fn pages(folder: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { pages(&path) } else { vec![path] }).collect()
    }

    #[test]
    fn documentation_names_declared_metrics_only() {
        let registries = registries();
        let is_declared = |name: &str| {
            let mut metrics = registries.iter().flat_map(|(_, registry)| registry.metrics());
            metrics.any(|metric| matches!(name.strip_prefix(&metric.name), Some("" | "_bucket" | "_count" | "_sum")))
        };
        let mut names = 0;
        for page in pages(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs"))) {
            if page.extension() != Some("md".as_ref()) {
                continue;
            }
            let text = std::fs::read_to_string(&page).unwrap();
            for quoted in text.split('`') {
                let name = quoted.split(['{', ' ']).next().unwrap_or_default();
                let is_metric = name.starts_with("pulse_") || name.starts_with("http_server_");
                if is_metric && !name.contains("::") {
                    names += 1;
                    assert!(is_declared(name), "{}: no role exports {name}", page.display());
                }
            }
        }
        assert!(names >= 50, "the documentation names only {names} metrics");
    }
}
