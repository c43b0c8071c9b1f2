//! The limits of users in the spec.

use pulse_core::defaults;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Limits of each user. Requests beyond a limit are answered with 429. `pulse user limit` sets other limits for one user,
/// which come first.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct UserLimitsSpec {
    /// Maximum number of requests per second, over all API pods. 0 means no limit. Defaults to 0.
    #[schemars(range(min = 0, max = 2_000_000_000))]
    pub requests_per_second: u32,
    /// Maximum number of posted events per second, over all API pods. A batch counts as its events. 0 means no limit.
    /// Defaults to 0.
    #[schemars(range(min = 0, max = 2_000_000_000))]
    pub events_per_second: u32,
    /// Maximum size of the request bodies per second, over all API pods, in bytes. 0 means no limit. Defaults to 0.
    #[schemars(range(min = 0, max = 2_000_000_000))]
    pub bytes_per_second: u32,
    /// Maximum number of concurrent requests per API pod. 0 means no limit. If not set, an eighth of
    /// `limits.maxInFlight`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub max_in_flight: Option<u32>,
    /// Maximum number of concurrent requests per API pod that list or count events. 0 means no limit. Defaults to 4.
    #[schemars(range(min = 0, max = 1000))]
    pub max_lists: u32,
    /// Maximum number of users that each API pod creates per minute. 0 means no limit. Defaults to 600.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_new_users_per_minute: u32,
}

impl Default for UserLimitsSpec {
    fn default() -> Self {
        Self {
            requests_per_second: 0,
            events_per_second: 0,
            bytes_per_second: 0,
            max_in_flight: None,
            max_lists: defaults::USER_MAX_LISTS,
            max_new_users_per_minute: defaults::MAX_NEW_USERS_PER_MINUTE,
        }
    }
}
