//! Limits that both versions of HTTP share.

use std::time::Duration;

/// Maximum idle time of a connection between two requests: longer than that of load balancers (60 s), so that the load
/// balancer closes the connection.
pub(crate) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(75);
/// Maximum size of the request line and headers, in bytes.
pub(crate) const MAX_HEAD_BYTES: u16 = 16 * 1024;
