//! Compares the rules of this crate with KEDA and a HorizontalPodAutoscaler, on the same model of a queue and its
//! workers. `plant.rs` is that model, `trace.rs` and `random.rs` what happens to it, `builtin.rs` the traces of
//! `docs/concepts/scaling.md`; `rules.rs` runs the real code, `keda.rs` and `hpa.rs` model the others, `run.rs` brings them
//! together and `table.rs` prints the comparison.

mod builtin;
mod chance;
mod compare;
mod hpa;
mod keda;
mod plant;
mod random;
mod rules;
mod run;
mod table;
mod trace;

pub use builtin::builtin;
pub use compare::{Comparison, Figures, SEEDS, compare, compare_all};
pub use hpa::Hpa;
pub use keda::{Keda, Metric};
pub use plant::{Plant, Worker};
pub use random::{RANDOM_SEEDS, random};
pub use rules::Rules;
pub use run::{Autoscaler, Result, run};
pub use table::table;
pub use trace::{Failures, NodeLoss, Service, Trace, TraceError};
