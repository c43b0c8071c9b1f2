//! The filter of tasks as a text, such as `state:dead,retrying user:ada error:"timed out" since:1h`.

use chrono::{DateTime, TimeDelta, Utc};
use pulse_store::console::PageFilter;

use crate::console::Console;
use crate::error::PageError;
use crate::identity::Identity;

/// Longest text, in bytes.
const MAX_BYTES: usize = 1024;
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
    if text.len() > MAX_BYTES {
        return Err(PageError::Field("The filter is longer than 1,024 bytes: shorten it."));
    }
    if text.contains('\0') {
        return Err(PageError::Field("The filter has a NUL character: remove it."));
    }
    let (known, unknown) = conditions(text);
    let mut problems: Vec<String> = unknown.into_iter().map(|word| format!("“{word}” is not a condition")).collect();
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
            _ if identity.is_admin => {
                filter.user_id = Some(console.store.find_user(&value).await?.map_or(-1, |user| user.id))
            }
            _ => problems.push("only administrators select a user".into()),
        }
    }
    Ok(Filter { conditions: filter, is_empty, problems })
}

/// A condition as a part of a filter.
pub(crate) fn condition(key: &str, value: &str) -> String {
    let escaped = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n").replace('\r', r"\r");
    format!("{key}:\"{escaped}\"")
}

/// The query of a page with this filter.
pub(crate) fn query(text: &str) -> String {
    form_urlencoded::Serializer::new(String::new()).append_pair("q", text).finish()
}

/// The conditions of the text, and its words that are none.
fn conditions(text: &str) -> (Vec<(&'static str, String)>, Vec<&str>) {
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    let mut rest = text.trim();
    while !rest.is_empty() {
        let quote = rest.find(":\"").filter(|at| !rest[..*at].contains(char::is_whitespace));
        let (end, value) = match quote {
            Some(at) => {
                let (bytes, value) = unquoted(&rest[at + 2..]);
                (at + 2 + bytes, Some(value))
            }
            None => {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                let value = rest[..end].split_once(':').map(|(_, value)| value.to_owned());
                (end, value.filter(|value| !value.is_empty()))
            }
        };
        let word = &rest[..end];
        let key = word.split_once(':').and_then(|(key, _)| KEYS.into_iter().find(|known| *known == key));
        match key.zip(value) {
            Some(condition) => known.push(condition),
            None => unknown.push(word),
        }
        rest = rest[end..].trim_start();
    }
    (known, unknown)
}

/// The text before the closing quote, and how many bytes it and the quote have. Without one, it is the whole text.
fn unquoted(text: &str) -> (usize, String) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (at + 1, value),
            '\\' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, escaped)) => value.push(escaped),
                None => break,
            },
            other => value.push(other),
        }
    }
    (text.len(), value)
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
    fn filter_has_conditions_with_quoted_values() {
        let (known, unknown) =
            conditions(r#" state:dead,retrying error:"timed out: x" user:a foo bar:1 event: group:"" "#);
        let known: Vec<(&str, &str)> = known.iter().map(|(key, value)| (*key, value.as_str())).collect();
        assert_eq!(known, [("state", "dead,retrying"), ("error", "timed out: x"), ("user", "a"), ("group", "")]);
        assert_eq!(unknown, ["foo", "bar:1", "event:"]);
        assert_eq!(conditions(r#"error:"open"#).0, [("error", "open".to_owned())]);
        assert!(conditions("").0.is_empty());
    }

    #[test]
    fn condition_is_read_as_it_was_written() {
        for value in ["", "a b", "a\"b", r"a\b", "a\r\nb\\n", "ü\"\"", "\\"] {
            let text = format!("{} user:x", condition("group", value));
            assert_eq!(conditions(&text).0, [("group", value.to_owned()), ("user", "x".to_owned())], "{text}");
        }
    }

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
