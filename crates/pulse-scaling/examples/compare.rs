//! Prints how the scaling rules compare with KEDA and a HorizontalPodAutoscaler.
//!
//! `compare` runs the built-in traces, `compare random` 20 random ones, and `compare trace.json` the trace in a file.
#![expect(clippy::print_stdout, reason = "a command-line program")]

use anyhow::Context;
use pulse_scaling::simulation::{RANDOM_SEEDS, Trace, builtin, compare_all, random, table};

fn main() -> anyhow::Result<()> {
    let traces = match std::env::args().nth(1).as_deref() {
        None | Some("builtin") => builtin(),
        Some("random") => RANDOM_SEEDS.map(random).collect(),
        Some(path) => vec![read(path)?],
    };
    print!("{}", table(&compare_all(&traces)));
    Ok(())
}

fn read(path: &str) -> anyhow::Result<Trace> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read the trace {path}"))?;
    let mut trace: Trace = serde_json::from_str(&text).with_context(|| format!("parse the trace {path}"))?;
    trace.check()?;
    if trace.name.is_empty() {
        path.clone_into(&mut trace.name);
    }
    Ok(trace)
}
