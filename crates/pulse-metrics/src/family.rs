//! Metrics with labels.

use std::borrow::Cow;
use std::sync::Arc;

use prometheus_client::metrics::family::{Family as Series, MetricConstructor};

/// A value of a label.
pub type LabelValue = Cow<'static, str>;

/// A metric with `N` labels: one series for each combination of their values. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Family<M, const N: usize> {
    labels: [&'static str; N],
    pub(crate) series: Series<[(&'static str, LabelValue); N], M, Constructor<M>>,
}

impl<M: Clone, const N: usize> Family<M, N> {
    pub(crate) fn new(labels: [&'static str; N], constructor: impl Fn() -> M + Send + Sync + 'static) -> Self {
        Self { labels, series: Series::new_with_constructor(Constructor(Arc::new(constructor))) }
    }

    /// The series with these values, in the order of the labels. A series that does not exist is created, and is then
    /// exported.
    pub fn with<V: Into<LabelValue>>(&self, values: [V; N]) -> M {
        self.series.get_or_create_owned(&self.label_set(values))
    }

    /// Ends the export of a series.
    pub fn remove<V: Into<LabelValue>>(&self, values: [V; N]) {
        self.series.remove(&self.label_set(values));
    }

    fn label_set<V: Into<LabelValue>>(&self, values: [V; N]) -> [(&'static str, LabelValue); N] {
        let mut set = self.labels.map(|label| (label, LabelValue::default()));
        for ((_, slot), value) in set.iter_mut().zip(values) {
            *slot = value.into();
        }
        set
    }
}

/// Creates the metric of a new series.
#[derive(Clone)]
pub(crate) struct Constructor<M>(Arc<dyn Fn() -> M + Send + Sync>);

impl<M> MetricConstructor<M> for Constructor<M> {
    fn new_metric(&self) -> M {
        (self.0)()
    }
}
