//! Times of the day with another minimum number of workers.

use cronexpr::{Crontab, MakeTimestamp, parse_crontab};
use jiff::Timestamp;

/// A minimum number of workers from each start to the next end, both cron expressions in a time zone.
#[derive(Debug, Clone)]
pub struct Schedule {
    start: Crontab,
    end: Crontab,
    min: u32,
}

/// A schedule that cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{field} {expression:?} is not a cron expression in the time zone {time_zone:?}: {cause}")]
pub struct ScheduleError {
    field: &'static str,
    expression: String,
    time_zone: String,
    cause: String,
}

impl Schedule {
    /// At least `min` workers from `start` to `end`: five fields of cron, such as `0 8 * * 1-5`, in a time zone of the
    /// IANA database, such as `Europe/Berlin`.
    ///
    /// # Errors
    /// [`ScheduleError`] if an expression or the time zone is not valid.
    pub fn new(start: &str, end: &str, time_zone: &str, min: u32) -> Result<Self, ScheduleError> {
        let parse = |field, expression: &str| {
            parse_crontab(&format!("{expression} {time_zone}")).map_err(|cause| ScheduleError {
                field,
                expression: expression.to_owned(),
                time_zone: time_zone.to_owned(),
                cause: cause.to_string(),
            })
        };
        Ok(Self { start: parse("start", start)?, end: parse("end", end)?, min })
    }

    /// The minimum at `now`; 0 outside of the schedule.
    pub(crate) fn min_at(&self, now: Timestamp) -> u32 {
        let next = |times: &Crontab| times.find_next(MakeTimestamp(now)).map(|at| at.timestamp());
        match (next(&self.start), next(&self.end)) {
            // The next thing to happen is an end.
            (Ok(start), Ok(end)) if end < start => self.min,
            _ => 0,
        }
    }

    /// The next time at which the minimum changes.
    pub(crate) fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let next = |times: &Crontab| times.find_next(MakeTimestamp(now)).map(|at| at.timestamp()).ok();
        next(&self.start).into_iter().chain(next(&self.end)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn office_hours() -> Schedule {
        Schedule::new("0 8 * * 1-5", "0 18 * * 1-5", "Europe/Berlin", 7).expect("valid")
    }

    fn at(time: &str) -> Timestamp {
        time.parse().expect("a time")
    }

    #[test]
    fn schedule_applies_from_its_start_to_its_end_in_its_time_zone() {
        for (time, min) in [
            ("2026-03-27T06:59:59Z", 0), // Friday, winter time
            ("2026-03-27T07:00:00Z", 7),
            ("2026-03-27T16:59:59Z", 7),
            ("2026-03-27T17:00:00Z", 0),
            ("2026-03-28T10:00:00Z", 0), // Saturday
            ("2026-03-30T05:59:59Z", 0), // Monday, summer time
            ("2026-03-30T06:00:00Z", 7),
        ] {
            assert_eq!(office_hours().min_at(at(time)), min, "{time}");
        }
    }

    #[test]
    fn schedule_says_when_it_changes_next() {
        assert_eq!(office_hours().next_change(at("2026-03-27T12:00:00Z")), Some(at("2026-03-27T17:00:00Z")));
        assert_eq!(office_hours().next_change(at("2026-03-27T17:00:00Z")), Some(at("2026-03-30T06:00:00Z")));
    }

    #[test]
    fn schedule_with_an_error_names_the_field() {
        for (start, end, zone, named) in [
            ("0 25 * * *", "0 18 * * *", "UTC", "start \"0 25 * * *\""),
            ("0 8 * * *", "", "UTC", "end \"\""),
            ("0 8 * * *", "0 18 * * *", "Europe/Atlantis", "time zone \"Europe/Atlantis\""),
        ] {
            let error = Schedule::new(start, end, zone, 1).expect_err("invalid").to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
