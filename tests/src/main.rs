//! `pulse` with a processor that is scripted by the name of the event, such as `sleep:500`, `panic`, `spin`,
//! `abort`, `fail`, `variable:HOME` or `file:/tmp/a`.
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
fn echo(event: &Event) -> Result<Value, ProcessError> {
    let Event { id, task_id, user_id, fields, payload: _, event_timestamp, created_at } = event;
    let mut echoed = json!({
        "id": id, "task_id": task_id, "user_id": user_id, "event_timestamp": event_timestamp, "created_at": created_at,
    });
    let fields = serde_json::to_value(fields).map_err(|error| ProcessError::failed(error.to_string()))?;
    for (name, value) in fields.as_object().into_iter().flatten() {
        echoed[name] = value.clone();
    }
    Ok(echoed)
}

#[expect(clippy::disallowed_methods, reason = "settings of the processor, not of pulse")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn result(text: Option<String>) -> Result<String, ProcessError> {
    let text = text.ok_or_else(|| ProcessError::invalid_payload("as scripted"))?;
    Ok(json!({ "result": text }).to_string())
}

struct ScriptedProcessor;

#[async_trait]
impl Processor for ScriptedProcessor {
    async fn process(&self, event: &Event) -> Result<String, ProcessError> {
        match event.fields.event_name.split_once(':').unwrap_or((&event.fields.event_name, "")) {
            ("sleep", milliseconds) => {
                tokio::time::sleep(Duration::from_millis(milliseconds.parse().unwrap_or(0))).await;
            }
            // Blocks the thread: does not yield before it returns.
            ("block", milliseconds) => std::thread::sleep(Duration::from_millis(milliseconds.parse().unwrap_or(0))),
            ("panic", _) => panic!("as scripted"),
            ("abort", _) => std::process::abort(),
            ("spin", _) => loop {
                std::hint::spin_loop();
            },
            ("invalid", _) => return Err(ProcessError::invalid_payload("as scripted")),
            ("fail", _) => return Err(ProcessError::failed("as scripted")),
            ("fail_with", error) => return Err(ProcessError::failed(error)),
            // JSON that PostgreSQL refuses: the settlement fails, not the processor.
            ("constraint", _) => return Ok(r#"{"a":1e999999}"#.into()),
            ("nul", _) => return Ok(r#"{"a":"\u0000"}"#.into()),
            ("echo", _) => return Ok(echo(event)?.to_string()),
            ("variable", name) => return result(variable(name)),
            ("file", path) => return result(std::fs::read_to_string(path).ok()),
            ("write", path) => return result(std::fs::write(path, "written").ok().map(|()| "written".into())),
            _ => {}
        }
        Normalize.process(event).await
    }
}
