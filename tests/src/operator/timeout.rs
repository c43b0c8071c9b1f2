//! How long the tests wait for the operator.

use std::time::Duration;

/// Time to wait for one reaction of the operator, on a busy machine.
pub const TIMEOUT: Duration = Duration::from_secs(30);
