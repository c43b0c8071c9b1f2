//! `pulse`, with the built-in processor.

use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    pulse::run(Arc::new(pulse_worker::Normalize))
}
