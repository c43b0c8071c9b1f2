//! `pulse` with a processing step of its own.

use std::process::ExitCode;
use std::sync::Arc;

use pulse::{Event, ProcessError, Processor, async_trait};

struct MyProcessor;

#[async_trait]
impl Processor for MyProcessor {
    async fn process(&self, event: &Event) -> Result<String, ProcessError> {
        if event.payload == "{}" {
            return Err(ProcessError::invalid_payload("the payload is empty")); // buried at once
        }
        Ok(format!(r#"{{"original":{}}}"#, event.payload)) // the event's `properties`, as JSON text
    }
}

fn main() -> ExitCode {
    pulse::run(Arc::new(MyProcessor))
}
