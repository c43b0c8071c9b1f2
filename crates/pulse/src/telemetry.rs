//! Logs to stderr, and traces over OTLP/HTTP if an endpoint is set.
//!
//! A log message is a constant sentence; its fields carry the data. Payloads, tokens and client addresses are never
//! logged.

use std::io::IsTerminal;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, anyhow};
use hyper_rustls::HttpsConnectorBuilder;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::runtime::Tokio;
use opentelemetry_sdk::trace::SdkTracerProvider;
use opentelemetry_sdk::trace::span_processor_with_async_runtime::BatchSpanProcessor;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

use crate::printable::LogWriter;
use crate::trace::ShareOfRequests;
use crate::{encryption_policy, panic_log};

/// Time limit for the export of the last spans at shutdown.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);
/// Time limit for one export.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// The exported spans. They do not depend on the log filter. The target is [`pulse_core::TRACE`].
const SPAN_FILTER: &str = "info,pulse_trace=debug";

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Json,
}

/// What is logged, and where traces are sent.
#[derive(Debug, Clone)]
pub(crate) struct TelemetryConfig {
    pub(crate) format: Format,
    /// Directives of `tracing_subscriber::EnvFilter`.
    pub(crate) filter: String,
    pub(crate) service_name: &'static str,
    /// The base URL of an OTLP collector over HTTP, such as `http://localhost:4318`.
    pub(crate) otlp_endpoint: Option<String>,
    /// Share of the requests that are traced, from 0 to 1.
    pub(crate) trace_share: f64,
}

/// The exporter, which has to be flushed at shutdown.
pub(crate) struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

/// Starts logging, of panics too, and tracing for the whole process. Call it once.
///
/// # Errors
/// If the filter or the endpoint cannot be parsed, or if it was called before.
pub(crate) fn init(config: TelemetryConfig) -> anyhow::Result<Telemetry> {
    let TelemetryConfig { format, filter, service_name, otlp_endpoint, trace_share } = config;
    let filter = EnvFilter::from_str(&filter).with_context(|| {
        format!(
            "the log filter `{filter}` is not valid: expected a level, or directives such as info,pulse_worker=debug"
        )
    })?;
    let ansi = std::io::stderr().is_terminal();
    let lines = fmt::layer();
    let lines = match format {
        Format::Text => lines.with_ansi(ansi).with_target(false).with_writer(move || LogWriter::Text { ansi }).boxed(),
        Format::Json => lines.json().flatten_event(true).with_span_list(false).with_writer(|| LogWriter::Json).boxed(),
    };
    let provider = otlp_endpoint.map(|endpoint| provider(&endpoint, service_name, trace_share)).transpose()?;
    let spans = provider.as_ref().map(|provider| {
        let spans = tracing_opentelemetry::layer().with_tracer(provider.tracer("pulse"));
        spans.with_filter(EnvFilter::new(SPAN_FILTER))
    });
    tracing_subscriber::registry().with(spans).with(lines.with_filter(filter)).try_init()?;
    panic_log::install();
    Ok(Telemetry { provider })
}

fn provider(endpoint: &str, service_name: &'static str, trace_share: f64) -> anyhow::Result<SdkTracerProvider> {
    let fix = "give an https:// endpoint";
    encryption_policy::check("the OTLP collector", encryption_policy::of_url(endpoint), fix)?;
    let tls = pulse_tls::client_config(None, None);
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(HyperClient::new(connector, EXPORT_TIMEOUT, None))
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .build()
        // Its error has the endpoint, which may have a password.
        .map_err(|_| anyhow!("the OTLP endpoint is not valid: expected http://HOST:4318"))?;
    let resource = Resource::builder().with_service_name(service_name).build();
    let processor = BatchSpanProcessor::builder(exporter, Tokio).build();
    let provider = SdkTracerProvider::builder().with_span_processor(processor).with_resource(resource);
    Ok(provider.with_sampler(ShareOfRequests(trace_share)).build())
}

impl Telemetry {
    /// Exports the last spans, for at most [`FLUSH_TIMEOUT`].
    pub(crate) async fn shutdown(self) {
        let Some(provider) = self.provider else { return };
        // The call blocks, and the exporter needs this runtime: run it on a blocking thread.
        let flushed = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH_TIMEOUT));
        if let Ok(Err(error)) = flushed.await {
            tracing::debug!(%error, "cannot export the last spans");
        }
    }
}
