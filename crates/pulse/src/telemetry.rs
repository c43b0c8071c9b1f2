//! Logs to stderr, and traces over OTLP/HTTP if an endpoint is set.
//!
//! A log message is a constant sentence; its fields carry the data. Payloads, tokens and client addresses are never
//! logged.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, anyhow};
use http::HeaderMap;
use hyper_rustls::HttpsConnectorBuilder;
use opentelemetry::KeyValue;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Link, SpanContext, SpanKind, TraceContextExt, TraceId, TraceState, TracerProvider};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::runtime::Tokio;
use opentelemetry_sdk::trace::span_processor_with_async_runtime::BatchSpanProcessor;
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, SdkTracerProvider, ShouldSample};
use pulse_http::RequestTrace;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

use crate::printable::LogWriter;
use crate::{encryption_policy, panic_log};

/// Time limit for the export of the last spans at shutdown.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);
/// Time limit for one export.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// The exported spans. They do not depend on the log filter. The target is [`pulse_core::TRACE`].
const SPAN_FILTER: &str = "info,pulse_trace=debug";

const TRACEPARENT: &str = "traceparent";

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

/// Makes the client's trace context, if any, the parent of the request's span. The stored `traceparent` is that of the
/// span if traces are exported, otherwise the client's.
pub(crate) fn continue_trace(span: &Span, headers: &HeaderMap) -> RequestTrace {
    let propagator = TraceContextPropagator::new();
    let caller = headers.contains_key(TRACEPARENT).then(|| propagator.extract(&HeaderExtractor(headers)));
    if let Some(caller) = caller.clone().filter(|caller| caller.span().span_context().is_valid()) {
        // An error means that no traces are exported, or that this span is disabled.
        let _ = span.set_parent(caller);
    }
    let exported_id = exported_id(span);
    let own = span.context();
    let stored = if own.span().span_context().is_valid() { Some(own) } else { caller };
    let Some(stored) = stored else { return RequestTrace::default() };
    let mut carrier = HashMap::new();
    propagator.inject_context(&stored, &mut carrier);
    let traceparent = carrier.remove(TRACEPARENT);
    if traceparent.is_some() {
        span.record("trace_id", tracing::field::display(stored.span().span_context().trace_id()));
    }
    RequestTrace { traceparent, exported_id }
}

/// Makes the request that posted a task the parent of the task's span, without the client's `tracestate`. Returns the id of
/// the trace if the span is exported.
pub(crate) fn continue_task(span: &Span, traceparent: &str) -> Option<String> {
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    let request = TraceContextPropagator::new().extract(&carrier).span().span_context().clone();
    if !request.is_valid() {
        return None;
    }
    span.record("trace_id", tracing::field::display(request.trace_id()));
    // Not remote: an API of this instance made the span, and has decided whether the trace is exported.
    let (id, flags) = (request.trace_id(), request.trace_flags());
    let request = SpanContext::new(id, request.span_id(), flags, false, TraceState::NONE);
    let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(request));
    exported_id(span)
}

fn exported_id(span: &Span) -> Option<String> {
    let context = span.context();
    let context = context.span().span_context().clone();
    (context.is_valid() && context.is_sampled()).then(|| context.trace_id().to_string())
}

/// Decides which traces are exported: a share of the requests, whatever their clients ask for, and what belongs to them.
#[derive(Debug, Clone)]
struct ShareOfRequests(f64);

impl ShouldSample for ShareOfRequests {
    fn should_sample(
        &self,
        parent: Option<&opentelemetry::Context>,
        _: TraceId,
        _: &str,
        _: &SpanKind,
        _: &[KeyValue],
        _: &[Link],
    ) -> SamplingResult {
        let parent = parent.map(|parent| parent.span().span_context().clone()).filter(SpanContext::is_valid);
        let is_sampled = match &parent {
            Some(parent) if !parent.is_remote() => parent.is_sampled(),
            _ => rand::random::<f64>() < self.0,
        };
        SamplingResult {
            decision: if is_sampled { SamplingDecision::RecordAndSample } else { SamplingDecision::Drop },
            attributes: Vec::new(),
            trace_state: parent.map_or(TraceState::NONE, |parent| parent.trace_state().clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(traceparent: &'static str) -> HeaderMap {
        HeaderMap::from_iter([
            (http::HeaderName::from_static("traceparent"), HeaderValue::from_static(traceparent)),
            (http::HeaderName::from_static("tracestate"), HeaderValue::from_static("vendor=value")),
        ])
    }

    #[test]
    fn client_context_is_stored_without_an_exporter() {
        let stored = RequestTrace { traceparent: Some(CALLER.to_owned()), exported_id: None };
        assert_eq!(continue_trace(&Span::none(), &headers(CALLER)), stored);
        assert_eq!(continue_trace(&Span::none(), &HeaderMap::new()), RequestTrace::default());
    }

    #[test]
    fn malformed_context_is_ignored() {
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ] {
            assert_eq!(continue_trace(&Span::none(), &headers(bad)), RequestTrace::default(), "{bad}");
        }
    }

    #[test]
    fn request_span_keeps_tracestate_of_the_client() {
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let span = tracing::info_span!("request", trace_id = tracing::field::Empty);
            let stored = continue_trace(&span, &headers(CALLER));
            let context = span.context().span().span_context().clone();
            assert_eq!(context.trace_state().header(), "vendor=value");
            let expected = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", context.span_id());
            assert_eq!(stored.traceparent, Some(expected), "the task continues the span of the request");
        });
    }
}
