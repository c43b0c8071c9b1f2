//! Spans that are only for traces.

/// The target of spans that no log line names: without an exporter, they are disabled and cost nothing.
pub const TRACE: &str = "pulse_trace";
