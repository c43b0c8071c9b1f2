//! Flags about how long data are kept.

use std::time::Duration;

use clap::Args;
use pulse_scheduler::Retention;

use crate::args::duration;

#[derive(Debug, Args)]
pub(crate) struct RetentionArgs {
    /// Time for which events are kept, at least one day. Whole months are dropped, so the newest events of a month are
    /// kept up to a month longer than needed for its oldest. Without it, events are kept for ever
    #[arg(long, env = "PULSE_RETAIN_EVENTS", value_parser = days)]
    retain_events: Option<Duration>,
    /// Time for which settled tasks are kept, by whole months too. Without it, they are kept for ever
    #[arg(long, env = "PULSE_RETAIN_HISTORY", value_parser = days)]
    retain_history: Option<Duration>,
    /// Time for which dead letters are kept. Their events stay. Without it, they are kept for ever
    #[arg(long, env = "PULSE_RETAIN_DEAD_TASKS", value_parser = days)]
    retain_dead_tasks: Option<Duration>,
}

impl From<RetentionArgs> for Retention {
    fn from(args: RetentionArgs) -> Self {
        Self { events: args.retain_events, history: args.retain_history, dead_tasks: args.retain_dead_tasks }
    }
}

const DAY: Duration = Duration::from_hours(24);
/// PostgreSQL's intervals and times have room for it.
const CENTURY: Duration = Duration::from_hours(24 * 36_500);

/// A time of one day to a hundred years.
fn days(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        time if (DAY..=CENTURY).contains(&time) => Ok(time),
        _ => Err("expected 1 to 36500 days: write it like 90d".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_is_at_least_a_day() {
        assert_eq!(days("90d"), Ok(DAY * 90));
        assert_eq!(days("24h"), Ok(DAY));
        for wrong in ["0", "23h", "90", "40000d", "soon"] {
            assert!(days(wrong).is_err(), "{wrong}");
        }
    }
}
