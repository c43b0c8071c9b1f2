//! `pulse` with a processor that is scripted by the name of the event, such as `sleep:500`, `panic`, `spin` or `fail`.
//! Everything else is the product.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pulse_core::Event;
use pulse_worker::{Normalize, ProcessError, Processor};
use serde_json::{Value, json};

fn main() -> ExitCode {
    pulse::run(Arc::new(ScriptedProcessor))
}

/// All fields of the event but the payload.
fn echo(event: &Event) -> Value {
    let Event {
        id,
        task_id,
        user_id,
        event_name,
        event_type,
        source,
        session_id,
        payload: _,
        ip_address,
        user_agent,
        event_timestamp,
        created_at,
    } = event;
    json!({
        "id": id, "task_id": task_id, "user_id": user_id, "event_name": event_name, "event_type": event_type,
        "source": source, "session_id": session_id, "ip_address": ip_address, "user_agent": user_agent,
        "event_timestamp": event_timestamp, "created_at": created_at,
    })
}

struct ScriptedProcessor;

#[async_trait]
impl Processor for ScriptedProcessor {
    async fn process(&self, event: &Event) -> Result<String, ProcessError> {
        match event.event_name.split_once(':').unwrap_or((&event.event_name, "")) {
            ("sleep", milliseconds) => {
                tokio::time::sleep(Duration::from_millis(milliseconds.parse().unwrap_or(0))).await;
            }
            // Blocks the thread: does not yield before it returns.
            ("block", milliseconds) => std::thread::sleep(Duration::from_millis(milliseconds.parse().unwrap_or(0))),
            ("panic", _) => panic!("as scripted"),
            ("spin", _) => loop {
                std::hint::spin_loop();
            },
            ("invalid", _) => return Err(ProcessError::invalid_payload("as scripted")),
            ("fail", _) => return Err(ProcessError::failed("as scripted")),
            // JSON that PostgreSQL refuses: the settlement fails, not the processor.
            ("constraint", _) => return Ok(r#"{"a":"\u0000"}"#.into()),
            ("echo", _) => return Ok(echo(event).to_string()),
            _ => {}
        }
        Normalize.process(event).await
    }
}
