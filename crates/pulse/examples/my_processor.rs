//! `pulse` with a custom processor.

use std::process::ExitCode;
use std::sync::Arc;

use pulse::{Event, ProcessError, Processor, async_trait};

struct MyProcessor;

#[async_trait]
impl Processor for MyProcessor {
    async fn process(&self, event: &Event) -> Result<String, ProcessError> {
        if event.fields.source.as_deref() == Some("healthcheck") {
            return Ok("{}".into()); // nothing to compute
        }
        if event.payload == "{}" {
            return Err(ProcessError::invalid_payload("the payload is empty")); // not retried: the task is dead
        }
        Ok(format!(r#"{{"original":{}}}"#, event.payload)) // JSON text, stored as the event's `properties`
    }
}

fn main() -> ExitCode {
    pulse::run(Arc::new(MyProcessor))
}
