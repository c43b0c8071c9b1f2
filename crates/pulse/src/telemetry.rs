//! Logs to stderr, and traces over OTLP/HTTP if an endpoint is set.
//!
//! A log message is a constant sentence; its fields carry the data. Payloads, tokens and client addresses are never
//! logged.

use std::io::IsTerminal;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::runtime::Tokio;
use opentelemetry_sdk::trace::SdkTracerProvider;
use opentelemetry_sdk::trace::span_processor_with_async_runtime::BatchSpanProcessor;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

/// Time limit for the export of the last spans at shutdown.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);
/// The level of exported spans. It does not depend on the log filter.
const SPAN_FILTER: &str = "info";

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
}

/// The exporter, which has to be flushed at shutdown.
pub(crate) struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

/// Starts logging and tracing for the whole process. Call it once.
///
/// # Errors
/// If the filter or the endpoint cannot be parsed, or if it was called before.
pub(crate) fn init(config: TelemetryConfig) -> anyhow::Result<Telemetry> {
    let TelemetryConfig { format, filter, service_name, otlp_endpoint } = config;
    let filter = EnvFilter::from_str(&filter).with_context(|| {
        format!(
            "the log filter `{filter}` is not valid: expected a level, or directives such as info,pulse_worker=debug"
        )
    })?;
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        Format::Text => lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).boxed(),
        Format::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
    };
    let provider = otlp_endpoint.map(|endpoint| provider(&endpoint, service_name)).transpose()?;
    let spans = provider.as_ref().map(|provider| {
        let spans = tracing_opentelemetry::layer().with_tracer(provider.tracer("pulse"));
        spans.with_filter(EnvFilter::new(SPAN_FILTER))
    });
    tracing_subscriber::registry().with(spans).with(lines.with_filter(filter)).try_init()?;
    Ok(Telemetry { provider })
}

fn provider(endpoint: &str, service_name: &'static str) -> anyhow::Result<SdkTracerProvider> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .build()
        .with_context(|| format!("the OTLP endpoint `{endpoint}` is not valid: expected http://HOST:4318"))?;
    let resource = Resource::builder().with_service_name(service_name).build();
    let processor = BatchSpanProcessor::builder(exporter, Tokio).build();
    Ok(SdkTracerProvider::builder().with_span_processor(processor).with_resource(resource).build())
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

/// Makes the client's trace context, if any, the parent of the request's span. Returns the `traceparent` that is stored
/// with the task: the one of the span if traces are exported, otherwise the client's unchanged.
pub(crate) fn continue_trace(span: &Span, traceparent: Option<&str>) -> Option<String> {
    if let Some(caller) = traceparent.and_then(parse) {
        span.record("trace_id", tracing::field::display(caller.trace_id()));
        // An error means that no traces are exported, or that this span is disabled.
        let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(caller));
    }
    let context = span.context();
    let own = context.span().span_context().clone();
    if !own.is_valid() {
        return traceparent.map(str::to_owned);
    }
    span.record("trace_id", tracing::field::display(own.trace_id()));
    Some(format!("00-{}-{}-{:02x}", own.trace_id(), own.span_id(), own.trace_flags().to_u8()))
}

/// Links a task's span to the request that posted the task. The span is not a child, because the request has ended.
pub(crate) fn link_to(span: &Span, traceparent: &str) {
    if let Some(request) = parse(traceparent) {
        span.record("trace_id", tracing::field::display(request.trace_id()));
        span.add_link(request);
    }
}

/// Parses a `traceparent`. The API has checked its syntax, so parts that are missing only make it `None`.
fn parse(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.split('-').skip(1);
    let trace_id = TraceId::from_hex(parts.next()?).ok()?;
    let span_id = SpanId::from_hex(parts.next()?).ok()?;
    let flags = u8::from_str_radix(parts.next()?, 16).ok()?;
    let context = SpanContext::new(trace_id, span_id, TraceFlags::new(flags), true, TraceState::NONE);
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traceparent_keeps_its_ids() {
        let context = parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").expect("valid");
        assert_eq!(context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(context.is_sampled());
        assert!(parse("00-x-y-z").is_none());
    }

    #[test]
    fn client_context_is_stored_without_an_exporter() {
        let caller = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(continue_trace(&Span::none(), Some(caller)).as_deref(), Some(caller));
        assert_eq!(continue_trace(&Span::none(), None), None);
    }
}
