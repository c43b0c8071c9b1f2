//! Panics in the log: one record for each, with its backtrace.

use std::backtrace::Backtrace;
use std::panic::{self, PanicHookInfo};

use pulse_core::panic_message;
use tracing::Level;

/// Maximum length of a backtrace, in bytes. What comes after it are the frames of the runtime.
const MAX_BACKTRACE_BYTES: usize = 8 * 1024;

/// Logs panics of all threads from now on. Those that the log filter excludes are printed as before.
pub(crate) fn install() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |panic| if tracing::enabled!(Level::ERROR) { log(panic) } else { print(panic) }));
}

fn log(panic: &PanicHookInfo<'_>) {
    let mut backtrace = Backtrace::force_capture().to_string();
    backtrace.truncate(backtrace.floor_char_boundary(MAX_BACKTRACE_BYTES));
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    tracing::error!(
        panic = panic_message(panic.payload()),
        location,
        thread = thread.name().unwrap_or_default(),
        backtrace = %backtrace.trim_end(),
        "a thread panicked"
    );
}
