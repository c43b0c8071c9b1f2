//! Waiting for a condition.

use std::time::Duration;

use anyhow::bail;
use tokio::time::Instant;

/// Polls `condition` every 25 ms until it is true. An error counts as false.
///
/// # Errors
/// If the condition is not true within `timeout`; the error includes the last error of the condition.
pub async fn eventually(
    what: &str,
    timeout: Duration,
    mut condition: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + timeout;
    loop {
        let state = condition().await;
        match state {
            Ok(true) => return Ok(()),
            _ if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(25)).await,
            Ok(false) => bail!("not within {} s: {what}", timeout.as_secs_f64()),
            Err(error) => return Err(error.context(format!("not within {} s: {what}", timeout.as_secs_f64()))),
        }
    }
}
