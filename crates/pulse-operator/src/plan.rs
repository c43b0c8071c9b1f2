//! What to do, decided from what is wanted and what is there. Pure: time is an argument.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::crd::{PulseIngest, Revision, SecretKey};
use crate::migration::{self, Migration};
use crate::names::{Role, SECRETS};
use crate::observe::Observed;
use crate::revision;
use crate::secrets::{DigestKey, SecretRead};

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub struct ReconcilePlan {
    /// What is asked for.
    pub wanted: Revision,
    /// What runs from now on; none before the first migration.
    pub active: Option<Revision>,
    /// The schema.
    pub migration: Migration,
    /// Digests of the Secrets for each role's pods. A role without one keeps what its pods have.
    pub secrets: BTreeMap<Role, String>,
    /// References that do not exist, a sentence each.
    pub missing: Vec<String>,
    /// References that could not be read, a sentence each.
    pub unreadable: Vec<String>,
}

/// Decides.
pub fn plan(cr: &PulseIngest, observed: &Observed, key: &DigestKey, now: Timestamp) -> ReconcilePlan {
    let wanted = revision::desired(&cr.spec);
    let found = |key: &SecretKey| observed.secrets.get(key).and_then(SecretRead::found);
    // Without the CA a Job's pod would not start, and the Job would have to end before there is another.
    let ca_is_there = cr.spec.database.ca_secret_ref.as_ref().is_none_or(|key| found(key).is_some());
    let url = found(&wanted.database_url_secret_ref).filter(|_| ca_is_there);
    let url_digest = url.map(|url| key.digest(&[url.reveal()]));
    let migration = migration::plan(cr, &wanted, url_digest.as_deref(), &observed.jobs, &observed.job_pods, now);
    let active = if migration.done { Some(wanted.clone()) } else { running(cr, observed) };
    let secrets = match &active {
        Some(revision) => {
            let digests = Role::ALL.map(|role| (role, role_digest(cr, role, revision, observed, key)));
            digests.into_iter().filter_map(|(role, digest)| Some((role, digest?))).collect()
        }
        None => BTreeMap::new(),
    };
    let mut missing = Vec::new();
    let mut unreadable = Vec::new();
    for reading in observed.secrets.values() {
        match reading {
            SecretRead::Found(_) => {}
            SecretRead::Missing(why) => missing.push(why.clone()),
            SecretRead::Unreadable(why) => unreadable.push(why.clone()),
        }
    }
    ReconcilePlan { wanted, active, migration, secrets, missing, unreadable }
}

/// What runs: as the status says, or as the Deployments say if the status was lost.
fn running(cr: &PulseIngest, observed: &Observed) -> Option<Revision> {
    let told = cr.status.as_ref().and_then(|status| status.active_revision.clone());
    told.or_else(|| {
        let annotations = observed.deployments.values().filter_map(|found| found.metadata.annotations.as_ref());
        let mut texts = annotations.filter_map(|annotations| annotations.get(crate::names::REVISION));
        texts.find_map(|text| serde_json::from_str(text).ok())
    })
}

/// The digest of a role's Secrets. If one of them cannot be read now, its pods keep what they have.
fn role_digest(
    cr: &PulseIngest,
    role: Role,
    revision: &Revision,
    observed: &Observed,
    key: &DigestKey,
) -> Option<String> {
    let values: Option<Vec<&[u8]>> = used(cr, role, revision)
        .into_iter()
        .map(|reference| observed.secrets.get(reference)?.found().map(crate::secrets::Hidden::reveal))
        .collect();
    match values {
        Some(values) => Some(key.digest(&values)),
        None => {
            let template = observed.deployments.get(&role)?.spec.as_ref()?.template.metadata.as_ref()?;
            template.annotations.as_ref()?.get(SECRETS).cloned()
        }
    }
}

/// The references that a role's pods use.
fn used<'a>(cr: &'a PulseIngest, role: Role, revision: &'a Revision) -> Vec<&'a SecretKey> {
    let mut used = vec![&revision.database_url_secret_ref, &cr.spec.redis.url_secret_ref];
    used.extend(&cr.spec.database.ca_secret_ref);
    used.extend(&cr.spec.redis.ca_secret_ref);
    if role == Role::Api {
        used.extend(&cr.spec.auth.jwt_secret_ref);
        used.extend(&cr.spec.auth.public_key_secret_ref);
    }
    used
}
