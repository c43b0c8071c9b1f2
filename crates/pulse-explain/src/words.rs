//! Times and counts in sentences.

use chrono::{DateTime, TimeDelta, Utc};

/// A length of time in its two largest units at most: `850 ms`, `42 s`, `3 min`, `2 h 5 min`, `4 d`.
pub(crate) fn time(delta: TimeDelta) -> String {
    let delta = delta.max(TimeDelta::zero());
    let (seconds, minutes, hours) = (delta.num_seconds(), delta.num_minutes(), delta.num_hours());
    match (seconds, minutes, hours) {
        (0, ..) => format!("{} ms", delta.num_milliseconds()),
        (1..120, ..) => format!("{seconds} s"),
        (_, 2..120, _) => format!("{minutes} min"),
        (_, _, 2..48) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{} d", delta.num_days()),
    }
}

/// `14:03:13 UTC`, or with the date if it is another day than `now`.
pub(crate) fn clock(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let format = if at.date_naive() == now.date_naive() { "%H:%M:%S UTC" } else { "%Y-%m-%d %H:%M:%S UTC" };
    at.format(format).to_string()
}

/// `1 task`, `2 tasks`.
pub(crate) fn count(number: i64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// An error text that fits into a sentence: one line of at most 200 characters, without a full stop at its end.
pub(crate) fn quoted(error: &str) -> String {
    let line: String = error.chars().map(|char| if char.is_control() { ' ' } else { char }).take(200).collect();
    line.trim_end_matches(['.', ' ']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_unit_that_a_person_would_use() {
        for (milliseconds, text) in [
            (-5, "0 ms"),
            (850, "850 ms"),
            (42_900, "42 s"),
            (180_000, "3 min"),
            (7_500_000, "2 h 5 min"),
            (345_600_000, "4 d"),
        ] {
            assert_eq!(time(TimeDelta::milliseconds(milliseconds)), text);
        }
    }

    #[test]
    fn errors_in_a_sentence_are_one_short_line() {
        assert_eq!(quoted("no\nroute."), "no route");
        assert_eq!(quoted(&"x".repeat(500)).len(), 200);
    }
}
