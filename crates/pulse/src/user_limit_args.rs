//! Flags of the limits of users.

use clap::Args;
use pulse_core::{UserLimits, defaults};

/// Limits of the instance, which those of a user come before.
#[derive(Debug, Clone, Args)]
pub(crate) struct UserLimitArgs {
    /// Maximum number of requests of a user per second, over all API processes; further requests are answered 429. 0
    /// means no limit, also below
    #[arg(long, env = "PULSE_USER_REQUESTS_PER_SECOND", default_value_t = 0)]
    user_requests_per_second: u32,
    /// Maximum number of events that a user posts per second, over all API processes. A batch counts as its events
    #[arg(long, env = "PULSE_USER_EVENTS_PER_SECOND", default_value_t = 0)]
    user_events_per_second: u32,
    /// Maximum size of the request bodies of a user per second, over all API processes, in bytes
    #[arg(long, env = "PULSE_USER_BYTES_PER_SECOND", default_value_t = 0)]
    user_bytes_per_second: u32,
    /// Maximum number of requests of a user in flight, in each API process; further requests are answered 429. Without
    /// it, an eighth of --max-in-flight
    #[arg(long, env = "PULSE_USER_MAX_IN_FLIGHT")]
    user_max_in_flight: Option<u32>,
    /// Maximum number of those that list or count events
    #[arg(long, env = "PULSE_USER_MAX_LISTS", default_value_t = defaults::USER_MAX_LISTS)]
    user_max_lists: u32,
    /// Maximum number of users that an API process creates per minute; requests of further new users are answered 429
    #[arg(long, env = "PULSE_MAX_NEW_USERS_PER_MINUTE", default_value_t = defaults::MAX_NEW_USERS_PER_MINUTE)]
    pub(crate) max_new_users_per_minute: u32,
}

impl UserLimitArgs {
    pub(crate) fn limits(&self, max_in_flight: usize) -> UserLimits {
        let eighth = || u32::try_from(max_in_flight / 8).unwrap_or(u32::MAX).max(1);
        UserLimits {
            requests_per_second: Some(self.user_requests_per_second),
            events_per_second: Some(self.user_events_per_second),
            bytes_per_second: Some(self.user_bytes_per_second),
            max_in_flight: Some(self.user_max_in_flight.unwrap_or_else(eighth)),
            max_lists: Some(self.user_max_lists),
        }
    }
}

/// Limits of one user.
#[derive(Debug, Clone, Args)]
pub(crate) struct LimitsOfUserArgs {
    /// Maximum number of requests per second. 0 means no limit, also below
    #[arg(long)]
    requests_per_second: Option<u32>,
    /// Maximum number of posted events per second
    #[arg(long)]
    events_per_second: Option<u32>,
    /// Maximum size of the request bodies per second, in bytes
    #[arg(long)]
    bytes_per_second: Option<u32>,
    /// Maximum number of requests in flight, in each API process
    #[arg(long)]
    max_in_flight: Option<u32>,
    /// Maximum number of those that list or count events
    #[arg(long)]
    max_lists: Option<u32>,
}

impl From<LimitsOfUserArgs> for UserLimits {
    fn from(args: LimitsOfUserArgs) -> Self {
        let LimitsOfUserArgs { requests_per_second, events_per_second, bytes_per_second, max_in_flight, max_lists } =
            args;
        Self { requests_per_second, events_per_second, bytes_per_second, max_in_flight, max_lists }
    }
}
