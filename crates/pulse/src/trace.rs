//! The trace of a request and of its tasks, and which traces are exported.

use std::collections::HashMap;

use http::HeaderMap;
use opentelemetry::KeyValue;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Link, SpanContext, SpanKind, TraceContextExt, TraceId, TraceState};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, ShouldSample};
use pulse_http::RequestTrace;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

const TRACEPARENT: &str = "traceparent";

/// Makes the client's trace context, if any, the parent of the request's span. The stored `traceparent` is that of the
/// span if traces are exported, otherwise the client's.
pub(crate) fn continue_trace(span: &Span, headers: &HeaderMap) -> RequestTrace {
    let propagator = TraceContextPropagator::new();
    let caller = headers.contains_key(TRACEPARENT).then(|| propagator.extract(&HeaderExtractor(headers)));
    if let Some(caller) = caller.clone().filter(|caller| caller.span().span_context().is_valid()) {
        // An error means that no traces are exported, or that this span is disabled.
        let _ = span.set_parent(caller);
    }
    let own = span.context();
    let exported_id = exported_id(own.span().span_context());
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
    exported_id(span.context().span().span_context())
}

/// The id of the trace if it is exported.
fn exported_id(context: &SpanContext) -> Option<String> {
    (context.is_valid() && context.is_sampled()).then(|| context.trace_id().to_string())
}

/// Decides which traces are exported: a share of the requests, whatever their clients ask for, and what belongs to them.
#[derive(Debug, Clone)]
pub(crate) struct ShareOfRequests(pub(crate) f64);

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
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::layer::SubscriberExt;

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
