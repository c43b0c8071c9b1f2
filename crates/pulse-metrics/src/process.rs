//! Metrics of the process, with the names that all clients of Prometheus use.

use std::fs;

use crate::registry::Registry;

/// Ticks per second in `/proc`: `USER_HZ`, on every architecture of Linux.
const TICKS: f64 = 100.0;
/// Places in `/proc/self/stat`, after the name of the program, which may have spaces.
const USER: usize = 11;
const SYSTEM: usize = 12;
const START: usize = 19;

impl Registry {
    /// Declares the metrics of this process. They are absent on a system without `/proc`.
    pub fn process(&mut self) {
        self.computed_counter("process_cpu_seconds", "Processor time of the process, in seconds", || {
            let stat = fs::read_to_string("/proc/self/stat").ok()?;
            Some(seconds(&stat, USER)? + seconds(&stat, SYSTEM)?)
        });
        self.computed_gauge("process_resident_memory_bytes", "Resident memory of the process, in bytes", || {
            Some(1024.0 * first_number_after("VmRSS:", &fs::read_to_string("/proc/self/status").ok()?)?)
        });
        self.computed_gauge("process_open_fds", "Number of open file descriptors", || {
            Some(fs::read_dir("/proc/self/fd").ok()?.count() as f64)
        });
        self.computed_gauge("process_max_fds", "Maximum number of open file descriptors", || {
            first_number_after("Max open files", &fs::read_to_string("/proc/self/limits").ok()?)
        });
        self.computed_gauge(
            "process_start_time_seconds",
            "Time at which the process started, in seconds since 1970",
            || {
                let boot = first_number_after("btime", &fs::read_to_string("/proc/stat").ok()?)?;
                Some(boot + seconds(&fs::read_to_string("/proc/self/stat").ok()?, START)?)
            },
        );
    }
}

/// The time at a place of `/proc/self/stat`.
fn seconds(stat: &str, place: usize) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    Some(fields.split(' ').nth(place)?.parse::<f64>().ok()? / TICKS)
}

/// The number after a name that begins a line.
fn first_number_after(name: &str, text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_after_a_program_name_with_spaces_and_parentheses() {
        let stat = "7 (my (odd) name) S 1 7 7 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 9 0 1234 5 6";
        assert_eq!((seconds(stat, USER), seconds(stat, SYSTEM)), (Some(2.5), Some(0.5)));
        assert_eq!(seconds(stat, START), Some(12.34));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn process_has_a_value_of_each_metric() {
        let mut registry = Registry::default();
        registry.process();
        let text = registry.encode().expect("text");
        for metric in registry.metrics() {
            let value = text.lines().find_map(|line| line.strip_prefix(&metric.name)?.trim().parse::<f64>().ok());
            assert!(value.is_some_and(|value| value >= 0.0), "{}: {text}", metric.name);
        }
    }
}
