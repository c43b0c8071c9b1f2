//! Holds an object that could not be applied, and no other.

use pulse_crd::names;
use pulse_reconcile::backoff::Attempt;

use super::{Applier, ApplyError};
use crate::jitter::jittered;

impl Applier<'_> {
    /// Runs an attempt to apply an object, unless its back-off is active. An error starts the back-off of this object
    /// only; it ends early if the spec or the desired object changes.
    pub(super) async fn guarded<T>(
        &self,
        key: String,
        hash: &str,
        attempt: impl Future<Output = Result<T, ApplyError>>,
    ) -> Result<T, ApplyError> {
        if self.dry_run {
            return attempt.await;
        }
        let (backoffs, generation) = (&self.memory.backoffs, self.cr.metadata.generation);
        let tried = Attempt { key, hash: hash.to_owned(), generation };
        if let Some(failure) = backoffs.held(&tried, self.now) {
            return Err(ApplyError::BackingOff(failure));
        }
        let result = attempt.await;
        match &result {
            Ok(_) => backoffs.succeeded(&tried.key),
            // It waits already.
            Err(ApplyError::BackingOff(_)) => {}
            Err(error) => {
                let object = names::instance_id(self.cr);
                let wait = backoffs.failed(
                    tried,
                    error.unapplied(),
                    |failures| jittered(self.intervals.after(failures)),
                    self.now,
                );
                tracing::warn!(object, wait_ms = wait.as_millis() as u64, %error, "cannot apply an object: retrying later");
            }
        }
        result
    }
}
