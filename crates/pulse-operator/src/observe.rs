//! Observes everything that a decision depends on, once at the start of a reconcile: the watch caches, the newest sample,
//! and, when they are due, Secrets and the Events of Jobs.

use std::time::Instant;

use pulse_crd::{PulseIngest, RedisSpec, SecretKey, names};
use pulse_reconcile::error::ReconcileError;
use pulse_reconcile::memory::Memory;
use pulse_reconcile::now::Now;
use pulse_reconcile::observed::{self, Observed};
use pulse_reconcile::owner::{self, Owner};
use pulse_reconcile::secret_reads::SecretReads;
use pulse_reconcile::secrets::{SecretRead, SecretValue};
use pulse_reconcile::seen::{Reads, Seen};

use crate::context::{Context, key};
use crate::scaling::{RedisServer, SampleTarget};
use crate::status_writer::{self, version_of};
use crate::{job_rejections, secrets};

/// Observes `object`. An object that no operator has claimed is claimed first.
///
/// # Errors
/// [`ReconcileError::OtherOperator`] for an object of another operator, or the error of the claim.
pub(crate) async fn observe(
    context: &Context,
    object: &PulseIngest,
    memory: &Memory,
    now: Now,
) -> Result<Seen, ReconcileError> {
    let mut cr = with_newest_status(object, context, memory);
    let written = match owner::owner(&cr, &context.identity) {
        Owner::This => memory.written.clone(),
        Owner::Unclaimed => {
            let claimed = status_writer::claim(&context.client, &cr, &context.identity).await?;
            cr.status.get_or_insert_default().operator = Some(context.identity.clone());
            Some(claimed)
        }
        Owner::Other(other) => return Err(ReconcileError::OtherOperator(other)),
    };
    let intervals = &context.settings.intervals;
    let mut observed = observed::children(context.caches.labelled(&cr), &cr);
    let secrets = read_secrets(&cr, &observed, context, memory, now).await;
    observed.secrets = secrets.reads().clone();
    let (client, budget) = (&context.client, &context.event_budget);
    let rejections = job_rejections::read(client, budget, &memory.job_rejections, &observed, intervals, now).await;
    observed.job_rejections = rejections.texts();
    register_sample_target(&cr, &observed, context);
    let instance = key(&cr);
    Ok(Seen {
        sample: context.samplers.latest(&instance),
        redis: context.samplers.looked_up(&instance),
        served: context.served.borrow().clone(),
        settings: context.settings.clone(),
        reads: Reads { written, secrets: Some(secrets), job_rejections: rejections },
        observed,
        cr,
    })
}

/// Returns the object with the operator's pull Secrets, and with the status that was written last if the cache does not
/// have it yet.
fn with_newest_status(object: &PulseIngest, context: &Context, memory: &Memory) -> PulseIngest {
    let mut cr = object.clone();
    cr.spec.image.add_pull_secrets(&context.pull_secrets);
    if let Some((version, status)) = &memory.written
        && version_of(&cr) < *version
    {
        cr.status = Some(status.clone());
    }
    cr
}

/// The Secrets, from memory unless they are due to be read again: not every reconcile may read them.
async fn read_secrets(
    cr: &PulseIngest,
    observed: &Observed,
    context: &Context,
    memory: &Memory,
    now: Now,
) -> SecretReads {
    let intervals = &context.settings.intervals;
    let is_current =
        |reads: &&SecretReads| reads.is_current(cr, observed, context.reconciled(), intervals, now.instant);
    if let Some(reads) = memory.secrets.as_ref().filter(is_current) {
        return reads.clone();
    }
    SecretReads::new(cr, secrets::read(&context.client, cr).await, Instant::now())
}

/// Registers the queue for sampling once its URL is known. While the Secret cannot be read, the last URL stays.
fn register_sample_target(cr: &PulseIngest, observed: &Observed, context: &Context) {
    let RedisSpec { url_secret_ref, ca_secret_ref, client_certificate_secret_ref } = &cr.spec.redis;
    let found = |key: &SecretKey| observed.secrets.get(key).and_then(SecretRead::found).map(SecretValue::reveal);
    let bytes = |key: &SecretKey| found(key).map(<[u8]>::to_vec);
    let Some(url) = found(url_secret_ref).and_then(|url| std::str::from_utf8(url).ok()) else { return };
    let ca = ca_secret_ref.as_ref().map(bytes);
    let certificate = client_certificate_secret_ref.as_ref().map(|secret| {
        let [certificate, key] = secret.keys();
        Some([bytes(&certificate)?, bytes(&key)?])
    });
    if ca != Some(None) && certificate != Some(None) {
        let server = RedisServer::new(url, ca.flatten(), certificate.flatten(), &names::instance_id(cr));
        context.samplers.add(SampleTarget { instance: names::instance_id(cr), server, key: key(cr) });
    }
}
