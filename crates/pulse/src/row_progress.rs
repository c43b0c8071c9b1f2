//! Progress of a command over the rows of a user.

use std::time::{Duration, Instant};

use pulse_store::UserRows;

use crate::output::print_progress;

/// Time between two lines of progress.
const PERIOD: Duration = Duration::from_secs(1);

/// Prints how many rows are done, once a second.
pub(crate) struct RowProgress {
    done: &'static str,
    printed: Instant,
}

impl RowProgress {
    /// `done` says what is done to the rows.
    pub(crate) fn new(done: &'static str) -> Self {
        Self { done, printed: Instant::now() }
    }

    pub(crate) fn show(&mut self, rows: &UserRows) {
        if self.printed.elapsed() >= PERIOD {
            self.printed = Instant::now();
            print_progress(&format!("{}: {}", self.done, numbers(rows)));
        }
    }
}

/// The number of rows of each table, as text.
pub(crate) fn numbers(rows: &UserRows) -> String {
    rows.tables().map(|(table, rows)| format!("{table} {rows}")).join(", ")
}
