//! Limits of what one user can take from the API.

use serde::{Deserialize, Serialize};

/// Limits of one user. `None` leaves a limit to the instance, 0 means no limit.
///
/// Rates apply to the whole instance: its API processes share them. The others apply to each API process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UserLimits {
    /// Maximum number of requests per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<u32>,
    /// Maximum number of posted events per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events_per_second: Option<u32>,
    /// Maximum size of the request bodies per second, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u32>,
    /// Maximum number of requests in flight in an API process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u32>,
    /// Maximum number of those that list or count events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_lists: Option<u32>,
}

impl UserLimits {
    /// These limits, and those of `other` where these are `None`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            requests_per_second: self.requests_per_second.or(other.requests_per_second),
            events_per_second: self.events_per_second.or(other.events_per_second),
            bytes_per_second: self.bytes_per_second.or(other.bytes_per_second),
            max_in_flight: self.max_in_flight.or(other.max_in_flight),
            max_lists: self.max_lists.or(other.max_lists),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_a_user_come_before_those_of_the_instance() {
        let user = UserLimits { events_per_second: Some(0), max_lists: Some(1), ..UserLimits::default() };
        let instance = UserLimits { events_per_second: Some(10), max_in_flight: Some(5), ..UserLimits::default() };
        let both = user.or(instance);
        assert_eq!((both.events_per_second, both.max_lists, both.max_in_flight), (Some(0), Some(1), Some(5)));
        assert_eq!(both.requests_per_second, None);
    }

    #[test]
    fn json_has_only_the_limits_that_are_set() {
        let limits = UserLimits { events_per_second: Some(7), ..UserLimits::default() };
        assert_eq!(serde_json::to_string(&limits).expect("serialises"), r#"{"events_per_second":7}"#);
        assert_eq!(serde_json::from_str::<UserLimits>("{}").expect("parses"), UserLimits::default());
    }
}
