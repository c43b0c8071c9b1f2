//! Ids in paths. An invalid id gives 422 before the store is queried.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use pulse_http::Problem;
use uuid::Uuid;

use crate::error::validation;
use crate::query::parameter_error;

/// Id of an event, from the path.
pub(crate) struct EventId(pub i64);

/// Id of a task, from the path.
pub(crate) struct TaskId(pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for EventId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let id = text(parts, state).await.as_deref().and_then(event_id);
        id.map(Self).ok_or_else(|| {
            let msg = format!("input should be a whole number from 1 to {}", i64::MAX);
            validation(&[parameter_error("path", "id", "int_parsing", msg)])
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for TaskId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let id = text(parts, state).await.and_then(|text| Uuid::try_parse(&text).ok());
        id.map(Self)
            .ok_or_else(|| validation(&[parameter_error("path", "task_id", "uuid_parsing", "input should be a UUID")]))
    }
}

/// Returns the parameter of the path, unless it is not UTF-8.
async fn text<S: Send + Sync>(parts: &mut Parts, state: &S) -> Option<String> {
    Path::<String>::from_request_parts(parts, state).await.ok().map(|Path(text)| text)
}

fn event_id(text: &str) -> Option<i64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id >= 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_id_is_a_positive_i64() {
        assert_eq!(event_id("1"), Some(1));
        assert_eq!(event_id("9223372036854775807"), Some(i64::MAX));
        for bad in ["", "0", "-1", "+1", "1.0", "x", "9223372036854775808", "٣"] {
            assert_eq!(event_id(bad), None, "{bad}");
        }
    }
}
