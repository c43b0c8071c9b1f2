//! The language of filters: `key:value` or `key:"a value"`, separated by spaces.

use crate::console::Console;
use crate::error::PageError;
use crate::identity::Identity;

/// Longest text, in bytes.
const MAX_BYTES: usize = 1024;
/// What is wrong with a condition on the user.
pub(crate) const ONLY_ADMINISTRATORS: &str = "only administrators select a user";

/// A key with its value.
pub(crate) type Condition = (&'static str, String);

/// A condition as a part of a filter.
pub(crate) fn condition(key: &str, value: &str) -> String {
    let escaped = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n").replace('\r', r"\r");
    format!("{key}:\"{escaped}\"")
}

/// The query of a page with this filter.
pub(crate) fn query(text: &str) -> String {
    form_urlencoded::Serializer::new(String::new()).append_pair("q", text).finish()
}

/// The conditions of the text, and what is wrong with its other words.
///
/// # Errors
/// [`PageError::Field`] if the text is too long or cannot be compared with any value.
pub(crate) fn read(text: &str, keys: &[&'static str]) -> Result<(Vec<Condition>, Vec<String>), PageError> {
    if text.len() > MAX_BYTES {
        return Err(PageError::Field("The filter is longer than 1,024 bytes: shorten it."));
    }
    if text.contains('\0') {
        return Err(PageError::Field("The filter has a NUL character: remove it."));
    }
    let (known, unknown) = conditions(text, keys);
    Ok((known, unknown.into_iter().map(|word| format!("“{word}” is not a condition")).collect()))
}

/// The user with this `sub`, or an id that no user has; `None` if others than administrators ask.
pub(crate) async fn user(console: &Console, identity: &Identity, subject: &str) -> Result<Option<i64>, PageError> {
    if !identity.is_admin {
        return Ok(None);
    }
    Ok(Some(console.store.find_user(subject).await?.map_or(-1, |user| user.id)))
}

/// The conditions of the text, and its words that are none.
fn conditions<'a>(text: &'a str, keys: &[&'static str]) -> (Vec<Condition>, Vec<&'a str>) {
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
        let key = word.split_once(':').and_then(|(key, _)| keys.iter().find(|known| **known == key));
        match key.zip(value) {
            Some((key, value)) => known.push((*key, value)),
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

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 4] = ["state", "user", "error", "group"];

    #[test]
    fn filter_has_conditions_with_quoted_values() {
        let (known, unknown) =
            conditions(r#" state:dead,retrying error:"timed out: x" user:a foo bar:1 event: group:"" "#, &KEYS);
        let known: Vec<(&str, &str)> = known.iter().map(|(key, value)| (*key, value.as_str())).collect();
        assert_eq!(known, [("state", "dead,retrying"), ("error", "timed out: x"), ("user", "a"), ("group", "")]);
        assert_eq!(unknown, ["foo", "bar:1", "event:"]);
        assert_eq!(conditions(r#"error:"open"#, &KEYS).0, [("error", "open".to_owned())]);
        assert!(conditions("", &KEYS).0.is_empty());
    }

    #[test]
    fn condition_is_read_as_it_was_written() {
        for value in ["", "a b", "a\"b", r"a\b", "a\r\nb\\n", "ü\"\"", "\\"] {
            let text = format!("{} user:x", condition("group", value));
            assert_eq!(conditions(&text, &KEYS).0, [("group", value.to_owned()), ("user", "x".to_owned())], "{text}");
        }
    }
}
