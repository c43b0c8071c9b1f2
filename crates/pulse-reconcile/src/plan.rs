//! Plans a reconcile from the desired and the observed state. Pure: time is an argument.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pulse_crd::names::{Role, SECRETS};
use pulse_crd::{PulseIngest, Revision, SecretKey};

use crate::error::ReconcileError;
use crate::migration::{self, Migration};
use crate::observed::Observed;
use crate::revision;
use crate::secret_uses;
use crate::secrets::{DigestKey, SecretRead};

/// The plan of a reconcile.
#[derive(Debug, Clone, PartialEq)]
pub struct ReconcilePlan {
    /// Revision that the spec asks for.
    pub desired: Revision,
    /// Revision that runs from now on; `None` before the first migration is done.
    pub active: Option<Revision>,
    /// The migration to the desired revision.
    pub migration: Migration,
    /// Digests of the Secrets that each role uses. The pods of a role without a digest keep the one that they have.
    pub secrets: BTreeMap<Role, String>,
    /// References that do not exist, one sentence each.
    pub missing: Vec<String>,
    /// References that cannot be read, one sentence each.
    pub unreadable: Vec<String>,
}

impl ReconcilePlan {
    /// Records that a Job that should be created waits for the rollouts of other instances.
    pub fn hold_queued(&mut self, cr: &PulseIngest, queued: &[String]) {
        let Some(request) = &self.migration.create else { return };
        if !queued.iter().any(|object| object.strip_prefix("Job ") == Some(&request.name)) {
            return;
        }
        let known = cr.status.as_ref().and_then(|status| status.migrations.clone());
        self.migration.queued(known.unwrap_or_default(), &self::queued(queued).to_string());
    }
}

/// Returns why `objects` are not applied while other instances roll out.
pub fn queued(objects: &[String]) -> ReconcileError {
    ReconcileError::Queued(objects.join(", "))
}

/// Plans the migration, the active revision and the Secret digests of `cr`.
pub fn plan(cr: &PulseIngest, observed: &Observed, key: &DigestKey, now: Timestamp) -> ReconcilePlan {
    let desired = revision::desired(&cr.spec);
    let found = |key: &SecretKey| observed.secrets.get(key).and_then(SecretRead::found);
    // Without its files, the pod of a Job cannot start, and the next Job would have to wait for its deadline.
    let has_files = secret_uses::of_database(cr).all(|key| found(&key).is_some());
    let url = found(cr.spec.database.migration_url()).filter(|_| has_files);
    let url_digest = url.map(|url| key.digest(&[url.reveal()]));
    let migration =
        migration::plan_migration(cr, &desired, url_digest.as_deref(), &observed.jobs, &observed.job_pods, now)
            .with_rejections(&observed.job_rejections);
    let active = if migration.done { Some(desired.clone()) } else { active_revision(cr, observed) };
    let secrets = match &active {
        Some(revision) => {
            let digests = Role::ALL.map(|role| (role, role_digest(cr, role, revision, observed, key)));
            digests.into_iter().filter_map(|(role, digest)| Some((role, digest?))).collect()
        }
        None => BTreeMap::new(),
    };
    let mut missing = Vec::new();
    let mut unreadable = Vec::new();
    for result in observed.secrets.values() {
        match result {
            SecretRead::Found(_) => {}
            SecretRead::Missing(why) => missing.push(why.clone()),
            SecretRead::Unreadable(why) => unreadable.push(why.clone()),
        }
    }
    ReconcilePlan { desired, active, migration, secrets, missing, unreadable }
}

/// Returns the active revision from the status, or from the Deployments if the status was lost.
fn active_revision(cr: &PulseIngest, observed: &Observed) -> Option<Revision> {
    let recorded = cr.status.as_ref().and_then(|status| status.active_revision.clone());
    recorded.or_else(|| {
        let annotations = observed.deployments.values().filter_map(|found| found.metadata.annotations.as_ref());
        let mut texts = annotations.filter_map(|annotations| annotations.get(pulse_crd::names::REVISION));
        texts.find_map(|text| serde_json::from_str(text).ok())
    })
}

/// Returns the digest of a role's Secrets, or the digest that its pods have if a Secret cannot be read.
fn role_digest(
    cr: &PulseIngest,
    role: Role,
    revision: &Revision,
    observed: &Observed,
    key: &DigestKey,
) -> Option<String> {
    let values: Option<Vec<&[u8]>> = secret_uses::replacing(cr, role, revision)
        .into_iter()
        .map(|reference| observed.secrets.get(reference)?.found().map(crate::secrets::SecretValue::reveal))
        .collect();
    match values {
        Some(values) => Some(key.digest(&values)),
        None => {
            let template = observed.deployments.get(&role)?.spec.as_ref()?.template.metadata.as_ref()?;
            template.annotations.as_ref()?.get(SECRETS).cloned()
        }
    }
}
