//! Gauges that are computed when they are exported.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

/// The values of a computed gauge, by the value of its label.
pub(crate) type Compute = Box<dyn Fn() -> Vec<(String, f64)> + Send + Sync>;

/// A gauge with one label whose values are computed when it is exported.
pub(crate) struct ComputedGauge {
    pub(crate) name: &'static str,
    pub(crate) label: &'static str,
    pub(crate) help: &'static str,
    pub(crate) compute: Compute,
}

impl fmt::Debug for ComputedGauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ComputedGauge").field(&self.name).finish()
    }
}

impl Collector for ComputedGauge {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // The registry of prometheus-client ends each help with a period, but not that of a collector.
        let help = format!("{}.", self.help);
        let mut metric = encoder.encode_descriptor(self.name, &help, None, MetricType::Gauge)?;
        for (value, gauge) in (self.compute)() {
            ConstGauge::new(gauge).encode(metric.encode_family(&[(self.label, value)])?)?;
        }
        Ok(())
    }
}
