//! Rules about the time that pods have to terminate. `desired` computes it from the time that a role takes to drain.

use pulse_core::defaults;
use serde_json::{Value, json};

/// Time that an API needs to terminate after its drain delay: for requests in progress, and a reserve.
pub const API_GRACE_SECONDS: u32 = defaults::API_DRAIN_TIMEOUT_SECONDS + 5;
/// Time that a worker needs to terminate in addition to its drain timeout.
pub const WORKER_GRACE_SECONDS: u32 = 15;

/// Refuses a grace period of the API in which it cannot drain.
pub(super) fn api_rule() -> Value {
    rule(
        &format!("self.drainDelaySeconds + {API_GRACE_SECONDS}"),
        &format!("at least {API_GRACE_SECONDS} s more than drainDelaySeconds"),
    )
}

/// Refuses a grace period of the workers in which they cannot drain.
pub(super) fn worker_rule() -> Value {
    rule(
        &format!("(has(self.drainTimeoutSeconds) ? self.drainTimeoutSeconds : 0) + {WORKER_GRACE_SECONDS}"),
        &format!("at least {WORKER_GRACE_SECONDS} s more than drainTimeoutSeconds"),
    )
}

fn rule(needed: &str, message: &str) -> Value {
    let grace = "self.podTemplate.terminationGracePeriodSeconds";
    json!([{
        "rule": format!("!has({grace}) || {grace} >= {needed}"),
        "message": format!("podTemplate.terminationGracePeriodSeconds must be {message}"),
    }])
}
