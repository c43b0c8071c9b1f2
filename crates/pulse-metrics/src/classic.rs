//! The text format of Prometheus before OpenMetrics, for readers that do not ask for OpenMetrics.

use std::collections::HashSet;

/// The same metrics in version 0.0.4 of the text format: a counter is declared with `_total`, and there are neither
/// exemplars nor an end mark.
pub(crate) fn from_openmetrics(text: &str) -> String {
    let is_counter = |line: &str| line.strip_prefix("# TYPE ")?.strip_suffix(" counter").map(str::to_owned);
    let counters: HashSet<String> = text.lines().filter_map(is_counter).collect();
    let mut classic = String::with_capacity(text.len());
    for line in text.lines().filter(|line| *line != "# EOF") {
        match line.strip_prefix("# ") {
            Some(declaration) => classic.push_str(&declared(declaration, &counters)),
            None => classic.push_str(line.split(" # {").next().unwrap_or_default()),
        }
        classic.push('\n');
    }
    classic
}

fn declared(declaration: &str, counters: &HashSet<String>) -> String {
    let mut words = declaration.splitn(3, ' ');
    let (keyword, name, rest) = (words.next(), words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let suffix = if counters.contains(name) { "_total" } else { "" };
    format!("# {} {name}{suffix} {rest}", keyword.unwrap_or_default())
}
