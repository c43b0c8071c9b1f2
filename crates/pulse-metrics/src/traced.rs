//! Histograms that name the trace of an observation.

use std::fmt;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::{MetricType, TypedMetric};

/// The id of a trace, as the labels of an exemplar.
pub(crate) type Exemplar = [(&'static str, String); 1];

/// A histogram that keeps the trace of the last traced observation of each bucket, as its exemplar. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TracedHistogram(pub(crate) HistogramWithExemplars<Exemplar>);

impl TracedHistogram {
    pub(crate) fn new(buckets: impl IntoIterator<Item = f64>) -> Self {
        Self(HistogramWithExemplars::new(buckets.into_iter()))
    }

    /// Adds an observation, which belongs to the trace with this id, if there is one.
    pub fn observe(&self, value: f64, trace_id: Option<&str>) {
        self.0.observe(value, trace_id.map(|id| [("trace_id", id.to_owned())]), None);
    }
}

impl TypedMetric for TracedHistogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for TracedHistogram {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}
