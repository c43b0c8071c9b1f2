//! The OTLP receiver of the OpenTelemetry Collector.

use std::path::PathBuf;

use serde_json::Value;
use tokio::process::Child;

use crate::cluster::protocol_program;
use crate::daemon;
use crate::env::TestEnv;
use crate::host::free_port;

/// A running receiver. It is killed when this is dropped.
pub struct OtlpReceiver {
    _child: Child,
    /// The URL to export to.
    pub url: String,
    file: PathBuf,
}

impl OtlpReceiver {
    /// Starts a receiver.
    ///
    /// # Errors
    /// If it cannot be built, or does not start within 20 s.
    pub async fn start(env: &TestEnv) -> anyhow::Result<Self> {
        let (port, file) = (free_port()?, env.file("traces.jsonl"));
        let program = protocol_program("otlp-receiver").await?;
        let (program, path) = (program.display().to_string(), file.display().to_string());
        let child = daemon::start(env, &program, &[], &[&format!("127.0.0.1:{port}"), &path], port).await?;
        Ok(Self { _child: child, url: format!("http://127.0.0.1:{port}"), file })
    }

    /// All spans received so far, as OTLP JSON.
    ///
    /// # Errors
    /// If the receiver has written no JSON.
    pub fn spans(&self) -> anyhow::Result<Vec<Value>> {
        let mut spans = Vec::new();
        for line in std::fs::read_to_string(&self.file)?.lines() {
            let export: Value = serde_json::from_str(line)?;
            let lists = export["resourceSpans"].as_array().into_iter().flatten();
            let lists = lists.flat_map(|resource| resource["scopeSpans"].as_array().into_iter().flatten());
            spans.extend(lists.flat_map(|scope| scope["spans"].as_array().into_iter().flatten()).cloned());
        }
        Ok(spans)
    }
}
