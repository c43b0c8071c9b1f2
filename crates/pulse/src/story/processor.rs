//! What `pulse dev` adds to its processor: the shop's work takes a while, and fails while its bad release is deployed.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use pulse_core::Event;
use pulse_worker::{ProcessError, Processor};
use serde::Deserialize;

use super::shop::MEMBER;

/// Longest time that the work takes, whatever the payload says.
const MAX_WORK: Duration = Duration::from_millis(200);

/// Processes the events of the story as the shop would, and all others with the processor inside.
pub(crate) struct ShopProcessor(pub(crate) Arc<dyn Processor>);

/// What the story says about one event.
#[derive(Deserialize)]
struct Script {
    /// Time that the work takes.
    work_ms: u64,
    /// Error of each attempt before `fails_until`.
    error: Option<String>,
    /// End of the bad release, as RFC 3339.
    fails_until: Option<String>,
}

fn script(payload: &str) -> Option<Script> {
    if !payload.contains(MEMBER) {
        return None;
    }
    let mut payload: serde_json::Value = serde_json::from_str(payload).ok()?;
    serde_json::from_value(payload.get_mut(MEMBER)?.take()).ok()
}

/// The error of an attempt at `now`.
fn error(script: &Script, now: SystemTime) -> Option<&str> {
    let until = humantime::parse_rfc3339(script.fails_until.as_deref()?).ok()?;
    script.error.as_deref().filter(|_| now < until)
}

#[async_trait]
impl Processor for ShopProcessor {
    async fn process(&self, event: &Event) -> Result<String, ProcessError> {
        if let Some(script) = script(&event.payload) {
            tokio::time::sleep(Duration::from_millis(script.work_ms).min(MAX_WORK)).await;
            if let Some(error) = error(&script, SystemTime::now()) {
                return Err(ProcessError::failed(error));
            }
        }
        self.0.process(event).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_events_of_the_story_fail_and_only_until_the_rollback() {
        let payload =
            r#"{"a":1,"pulse_demo_story":{"work_ms":5,"error":"no rate","fails_until":"2026-01-01T00:00:10Z"}}"#;
        let script = script(payload).unwrap_or_else(|| panic!("a script"));
        let at = |text| humantime::parse_rfc3339(text).unwrap_or(SystemTime::UNIX_EPOCH);
        assert_eq!(error(&script, at("2026-01-01T00:00:09Z")), Some("no rate"));
        assert_eq!(error(&script, at("2026-01-01T00:00:10Z")), None);
        for other in ["{}", r#"{"text":"pulse_demo_story"}"#, r#"{"pulse_demo_story":[1]}"#] {
            assert!(super::script(other).is_none(), "{other}");
        }
    }
}
