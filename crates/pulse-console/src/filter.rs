//! The filter of tasks as a text, such as `state:dead,retrying user:ada error:"timed out" since:1h`.

use chrono::{DateTime, TimeDelta, Utc};
use pulse_store::console::PageFilter;

use crate::console::Console;
use crate::error::PageError;
use crate::filter_text;
use crate::identity::Identity;

const KEYS: [&str; 7] = ["state", "user", "event", "reason", "error", "group", "since"];
/// The states that the filter selects.
pub(crate) const STATES: [&str; 7] = ["pending", "running", "retrying", "dead", "completed", "cancelled", "orphaned"];

/// A filter that was read.
pub(crate) struct Filter {
    pub(crate) conditions: PageFilter,
    /// Whether the text has a condition.
    pub(crate) is_empty: bool,
    /// The parts of the text that are no conditions, each with what is wrong.
    pub(crate) problems: Vec<String>,
}

/// Reads a filter. Others than administrators see their own data, whatever they ask for.
pub(crate) async fn read(console: &Console, identity: &Identity, text: &str) -> Result<Filter, PageError> {
    let (known, mut problems) = filter_text::read(text, &KEYS)?;
    let mut filter = PageFilter { user_id: identity.user_id, ..PageFilter::default() };
    let is_empty = known.is_empty();
    for (key, value) in known {
        match key {
            "state" => match states(&value) {
                Ok(states) => filter.states = states,
                Err(problem) => problems.push(problem),
            },
            "event" => filter.event_name = Some(value),
            "reason" => filter.reason = Some(value),
            "error" => filter.error_prefix = Some(value),
            "group" => filter.error_group = Some(value),
            "since" => match since(&value, Utc::now()) {
                Some(time) => filter.since = Some(time),
                None => {
                    problems.push(format!("since:{value} is not a time such as 15m, 1h, 7d or 2026-01-31T12:00:00Z"))
                }
            },
            _ => match filter_text::user(console, identity, &value).await? {
                Some(user) => filter.user_id = Some(user),
                None => problems.push(filter_text::ONLY_ADMINISTRATORS.into()),
            },
        }
    }
    Ok(Filter { conditions: filter, is_empty, problems })
}

fn states(text: &str) -> Result<Vec<String>, String> {
    let names: Vec<String> = text.split(',').map(str::to_owned).collect();
    match names.iter().find(|name| !STATES.contains(&name.as_str())) {
        Some(unknown) => Err(format!("“{unknown}” is not a state: use {}", STATES.join(", "))),
        None => Ok(names),
    }
}

/// A time such as `15m`, `1h` or `7d` ago, or one of RFC 3339.
fn since(text: &str, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.to_utc());
    }
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: i64 = number.parse().ok().filter(|number| (1..=10_000).contains(number))?;
    let ago = match unit {
        "m" => TimeDelta::try_minutes(number),
        "h" => TimeDelta::try_hours(number),
        "d" => TimeDelta::try_days(number),
        _ => None,
    };
    now.checked_sub_signed(ago?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_state_is_a_problem_and_not_an_empty_filter() {
        assert_eq!(states("dead,pending"), Ok(vec!["dead".to_owned(), "pending".to_owned()]));
        assert!(states("gone").is_err_and(|problem| problem.contains("gone")));
        assert!(states("").is_err());
    }

    #[test]
    fn time_of_a_filter_has_a_unit_or_is_a_date() {
        let now = DateTime::from_timestamp(1_700_000_000, 0).expect("valid");
        assert_eq!(since("15m", now), Some(now - TimeDelta::minutes(15)));
        assert_eq!(since("2023-11-14T22:13:20Z", now), Some(now));
        for wrong in ["", "m", "-1h", "1", "1é", "99999999999d", "2023-11-14"] {
            assert_eq!(since(wrong, now), None, "{wrong}");
        }
    }
}
