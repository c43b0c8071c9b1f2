//! Metrics whose values are computed when they are exported.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Computes a value; `None` while there is none.
pub(crate) type Value = Box<dyn Fn() -> Option<f64> + Send + Sync>;

/// Computes the values of a metric with one label, by the value of the label.
pub(crate) type Values = Box<dyn Fn() -> Vec<(String, f64)> + Send + Sync>;

pub(crate) enum Compute {
    One(Value),
    /// With the name of the label.
    Labelled(&'static str, Values),
}

/// A metric that is computed when it is exported.
pub(crate) struct Computed {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) is_counter: bool,
    pub(crate) compute: Compute,
}

impl fmt::Debug for Computed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Computed").field(&self.name).finish()
    }
}

impl Computed {
    fn value(&self, value: f64, encoder: MetricEncoder<'_>) -> fmt::Result {
        if self.is_counter { ConstCounter::new(value).encode(encoder) } else { ConstGauge::new(value).encode(encoder) }
    }
}

impl Collector for Computed {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // The registry of prometheus-client ends each help with a period, but not that of a collector.
        let help = format!("{}.", self.help);
        let kind = if self.is_counter { MetricType::Counter } else { MetricType::Gauge };
        match &self.compute {
            Compute::One(compute) => {
                let Some(value) = compute() else { return Ok(()) };
                self.value(value, encoder.encode_descriptor(self.name, &help, None, kind)?)
            }
            Compute::Labelled(label, compute) => {
                let mut metric = encoder.encode_descriptor(self.name, &help, None, kind)?;
                for (value, number) in compute() {
                    self.value(number, metric.encode_family(&[(*label, value)])?)?;
                }
                Ok(())
            }
        }
    }
}
