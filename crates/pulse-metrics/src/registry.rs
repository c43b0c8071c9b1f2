//! The registry: creates metrics, exports them as text, and lists them.

use std::fmt;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry as Exporter;

use crate::classic;
use crate::computed::{Compute, Computed};
use crate::family::Family;
use crate::traced::TracedHistogram;

/// A gauge whose value is not a whole number, such as seconds.
pub type FloatGauge = Gauge<f64, AtomicU64>;

/// How a metric was declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    /// The name in queries: that of a counter ends with `_total`, that of a histogram lacks `_bucket`, `_sum`, `_count`.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The names of its labels, in their order.
    pub labels: Vec<&'static str>,
    /// The help, without its period.
    pub help: &'static str,
}

/// The metrics of a process. Each method declares one metric: it creates the metric and exports it from then on. A name
/// is declared once, that of a counter without `_total`. A help is a phrase without a period.
#[derive(Debug, Default)]
pub struct Registry {
    exporter: Exporter,
    metrics: Vec<Metric>,
}

impl Registry {
    /// Declares a counter.
    pub fn counter(&mut self, name: &'static str, help: &'static str) -> Counter {
        let counter = Counter::default();
        self.export(name, &[], help, counter.clone());
        counter
    }

    /// Declares a counter with labels.
    pub fn counters<const N: usize>(
        &mut self,
        name: &'static str,
        labels: [&'static str; N],
        help: &'static str,
    ) -> Family<Counter, N> {
        let family = Family::new(labels, Counter::default);
        self.export(name, &labels, help, family.series.clone());
        family
    }

    /// Declares a gauge.
    pub fn gauge(&mut self, name: &'static str, help: &'static str) -> Gauge {
        let gauge = Gauge::default();
        self.export(name, &[], help, gauge.clone());
        gauge
    }

    /// Declares a gauge whose value is not a whole number.
    pub fn float_gauge(&mut self, name: &'static str, help: &'static str) -> FloatGauge {
        let gauge = FloatGauge::default();
        self.export(name, &[], help, gauge.clone());
        gauge
    }

    /// Declares a gauge with labels.
    pub fn gauges<const N: usize>(
        &mut self,
        name: &'static str,
        labels: [&'static str; N],
        help: &'static str,
    ) -> Family<Gauge, N> {
        let family = Family::new(labels, Gauge::default);
        self.export(name, &labels, help, family.series.clone());
        family
    }

    /// Declares a gauge. `compute` returns its value, and runs at each export; the gauge is absent without a value.
    pub fn computed_gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
        compute: impl Fn() -> Option<f64> + Send + Sync + 'static,
    ) {
        self.export_computed(name, help, false, Compute::One(Box::new(compute)));
    }

    /// Declares a counter. `compute` returns its value, and runs at each export; the counter is absent without a value.
    pub fn computed_counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        compute: impl Fn() -> Option<f64> + Send + Sync + 'static,
    ) {
        self.export_computed(name, help, true, Compute::One(Box::new(compute)));
    }

    /// Declares a gauge with one label. `compute` returns its values by label, and runs at each export.
    pub fn computed_gauges(
        &mut self,
        name: &'static str,
        label: &'static str,
        help: &'static str,
        compute: impl Fn() -> Vec<(String, f64)> + Send + Sync + 'static,
    ) {
        self.export_computed(name, help, false, Compute::Labelled(label, Box::new(compute)));
    }

    /// Declares a histogram with these upper bounds, and with the traces of its observations as exemplars.
    pub fn traced_histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        buckets: impl IntoIterator<Item = f64>,
    ) -> TracedHistogram {
        let histogram = TracedHistogram::new(buckets);
        self.export(name, &[], help, histogram.0.clone());
        histogram
    }

    /// Declares a histogram with these upper bounds.
    pub fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        buckets: impl IntoIterator<Item = f64>,
    ) -> Histogram {
        let histogram = Histogram::new(buckets);
        self.export(name, &[], help, histogram.clone());
        histogram
    }

    /// Declares a histogram with labels, with these upper bounds, and with the traces of its observations as exemplars.
    pub fn traced_histograms<const N: usize>(
        &mut self,
        name: &'static str,
        labels: [&'static str; N],
        help: &'static str,
        buckets: &'static [f64],
    ) -> Family<TracedHistogram, N> {
        let family = Family::new(labels, move || TracedHistogram::new(buckets.iter().copied()));
        self.export(name, &labels, help, family.series.clone());
        family
    }

    /// Everything declared so far, in that order.
    pub fn metrics(&self) -> &[Metric] {
        &self.metrics
    }

    /// The values of all metrics, as OpenMetrics text, with exemplars. A metric with labels and without a series is absent.
    ///
    /// # Errors
    /// Never for the metrics of this crate.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.exporter)?;
        Ok(text)
    }

    /// The values of all metrics in version 0.0.4 of the text format of Prometheus, which has no exemplars.
    ///
    /// # Errors
    /// Never for the metrics of this crate.
    pub fn encode_classic(&self) -> Result<String, fmt::Error> {
        Ok(classic::from_openmetrics(&self.encode()?))
    }

    fn export_computed(&mut self, name: &'static str, help: &'static str, is_counter: bool, compute: Compute) {
        let (kind, suffix) = if is_counter { ("counter", "_total") } else { ("gauge", "") };
        let label = if let Compute::Labelled(label, _) = &compute { Some(*label) } else { None };
        self.list(format!("{name}{suffix}"), kind, label.as_slice(), help);
        self.exporter.register_collector(Box::new(Computed { name, help, is_counter, compute }));
    }

    fn export(
        &mut self,
        name: &'static str,
        labels: &[&'static str],
        help: &'static str,
        metric: impl EncodeMetric + fmt::Debug + Send + Sync + 'static,
    ) {
        let (kind, suffix) = match metric.metric_type() {
            MetricType::Counter => ("counter", "_total"),
            MetricType::Histogram => ("histogram", ""),
            _ => ("gauge", ""),
        };
        self.list(format!("{name}{suffix}"), kind, labels, help);
        self.exporter.register(name, help, metric);
    }

    fn list(&mut self, name: String, kind: &'static str, labels: &[&'static str], help: &'static str) {
        debug_assert!(self.metrics.iter().all(|metric| metric.name != name), "{name} is declared twice");
        self.metrics.push(Metric { name, kind, labels: labels.to_vec(), help });
    }
}
