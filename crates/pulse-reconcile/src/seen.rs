//! What a decision is made from.

use std::path::PathBuf;
use std::sync::Arc;

use pulse_crd::{PulseIngest, PulseIngestStatus};

use crate::intervals::Intervals;
use crate::job_rejections::JobRejections;
use crate::observed::Observed;
use crate::scaling::Sample;
use crate::secret_reads::SecretReads;
use crate::secrets::DigestKey;
use crate::served::Served;

/// Settings of the operator that a decision depends on.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Key of the digests of Secrets.
    pub digest_key: DigestKey,
    /// Development only: path at which the roles find newer builds of their binary.
    pub dev_reload: Option<PathBuf>,
    /// Intervals of the reconcile.
    pub intervals: Intervals,
}

/// Everything that a reconcile looked at.
pub struct Seen {
    /// The object, with its newest status and the operator's pull Secrets.
    pub cr: PulseIngest,
    /// Its objects and Secrets.
    pub observed: Observed,
    /// The newest sample of its queue; `None` before the first.
    pub sample: Option<Sample>,
    /// The name that is looked up to sample the queue.
    pub redis: Option<String>,
    /// What the API server serves of the CRD.
    pub served: Arc<Served>,
    /// Settings of the operator.
    pub settings: Arc<Settings>,
    /// What was read, for the next reconcile.
    pub reads: Reads,
}

/// What the next reconcile need not read again.
#[derive(Debug, Default)]
pub struct Reads {
    /// The status that was written last, with its resource version.
    pub written: Option<(u64, PulseIngestStatus)>,
    /// When the Secrets were read.
    pub secrets: Option<SecretReads>,
    /// When the Events of Jobs were read.
    pub job_rejections: JobRejections,
}
