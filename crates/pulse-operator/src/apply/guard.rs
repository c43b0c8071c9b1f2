//! Holds an object that could not be applied, and no other.

use pulse_crd::names;
use pulse_reconcile::backoff::Attempt;
use pulse_reconcile::error::{ReconcileError, Requeue};

use super::applier::Applier;
use crate::jitter::jittered;

impl Applier<'_> {
    /// Runs an attempt to apply an object, unless its back-off is active. An error starts the back-off of this object
    /// only; it ends early if the spec or the desired object changes.
    pub(super) async fn guarded<T>(
        &self,
        key: String,
        hash: &str,
        attempt: impl Future<Output = Result<T, ReconcileError>>,
    ) -> Result<T, ReconcileError> {
        if self.dry_run {
            return attempt.await;
        }
        let tried = Attempt { key, hash: hash.to_owned(), generation: self.cr.metadata.generation };
        let held = self.memory().backoffs.held(&tried, self.now);
        if let Some(failure) = held {
            return Err(failure);
        }
        let result = attempt.await;
        match &result {
            Ok(_) => self.memory().backoffs.succeeded(&tried.key),
            Err(error) if error.requeue() == Requeue::Child => {
                let object = names::instance_id(self.cr);
                let wait = |failures| jittered(self.intervals.after(failures));
                let wait = self.memory().backoffs.failed(tried, error.clone(), wait, self.now);
                tracing::warn!(object, wait_ms = wait.as_millis() as u64, %error, "cannot apply an object: retrying later");
            }
            // It waits already.
            Err(_) => {}
        }
        result
    }
}
