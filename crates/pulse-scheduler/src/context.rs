//! What all jobs use.

use pulse_queue::{Queue, QueueError};
use pulse_store::{Store, StoreError};

use crate::metrics::SchedulerMetrics;

pub(crate) struct Context {
    pub(crate) store: Store,
    pub(crate) queue: Queue,
    pub(crate) metrics: SchedulerMetrics,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum JobError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Queue(#[from] QueueError),
}
