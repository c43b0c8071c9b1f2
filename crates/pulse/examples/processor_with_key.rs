//! `pulse` with a processor that needs an API key and a file. docs/how-to/your-own-processor.md runs it on Kubernetes.

use std::process::ExitCode;
use std::sync::Arc;

use pulse::{Event, ProcessError, Processor, async_trait};

/// Calls a partner for each event. It has no settings in the other roles, which run the same program.
struct PartnerProcessor {
    key: Option<String>,
    region: Option<String>,
}

#[async_trait]
impl Processor for PartnerProcessor {
    async fn process(&self, event: &Event) -> Result<String, ProcessError> {
        // Without a key, the tasks are retried until the workers have one.
        let key = self.key.as_ref().ok_or_else(|| ProcessError::failed("PARTNER_API_KEY is not set"))?;
        let region = self.region.as_deref().ok_or_else(|| ProcessError::failed("/settings/region cannot be read"))?;
        // Call the partner here. Temporary files can be written to /tmp.
        Ok(format!(r#"{{"region":"{region}","key_length":{},"original":{}}}"#, key.len(), event.payload))
    }
}

#[expect(clippy::disallowed_methods, reason = "the processor has settings of its own")]
fn main() -> ExitCode {
    let key = std::env::var("PARTNER_API_KEY").ok();
    let region = std::fs::read_to_string("/settings/region").ok();
    pulse::run(Arc::new(PartnerProcessor { key, region }))
}
