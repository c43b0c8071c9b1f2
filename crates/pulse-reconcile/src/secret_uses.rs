//! The Secret keys that pods use.

use std::collections::BTreeSet;

use pulse_crd::names::Role;
use pulse_crd::{CertificateSecret, PulseIngest, Revision, SecretKey};

/// Returns the Secret keys whose change replaces the pods of a role.
pub fn replacing<'a>(cr: &'a PulseIngest, role: Role, revision: &'a Revision) -> Vec<&'a SecretKey> {
    let mut used = vec![&revision.database_url_secret_ref, &cr.spec.redis.url_secret_ref];
    used.extend(&cr.spec.database.ca_secret_ref);
    used.extend(&cr.spec.redis.ca_secret_ref);
    if role.verifies_tokens() {
        used.extend(of_tokens(cr));
    }
    used
}

fn of_tokens(cr: &PulseIngest) -> impl Iterator<Item = &SecretKey> {
    let auth = &cr.spec.auth;
    let ca = auth.jwks.as_ref().and_then(|jwks| jwks.ca_secret_ref.as_ref());
    auth.jwt_secret_ref.iter().chain(&auth.next_jwt_secret_ref).chain(&auth.public_key_secret_ref).chain(ca)
}

/// Returns the Secret keys without which no pod can connect to PostgreSQL, in addition to the URL.
pub fn of_database(cr: &PulseIngest) -> impl Iterator<Item = SecretKey> {
    let database = &cr.spec.database;
    let certificate = database.client_certificate_secret_ref.iter().flat_map(CertificateSecret::keys);
    database.ca_secret_ref.clone().into_iter().chain(certificate)
}

/// Returns all Secret keys that the roles need, for the active and for the desired revision.
pub fn referenced(cr: &PulseIngest) -> Vec<SecretKey> {
    let spec = &cr.spec;
    let active = cr.status.as_ref().and_then(|status| status.active_revision.as_ref());
    let mut keys = vec![spec.database.url_secret_ref.clone(), spec.redis.url_secret_ref.clone()];
    keys.extend(active.map(|revision| revision.database_url_secret_ref.clone()));
    keys.extend(spec.database.migration_url_secret_ref.clone());
    keys.extend(of_database(cr));
    keys.extend(spec.redis.ca_secret_ref.clone());
    keys.extend(spec.redis.client_certificate_secret_ref.iter().flat_map(CertificateSecret::keys));
    keys.extend(of_tokens(cr).cloned());
    for tls in Role::of(spec).filter_map(|role| role.tls(spec)) {
        keys.extend(tls.secret_ref.keys());
        keys.extend(tls.client_ca_secret_ref.clone());
    }
    keys.sort();
    keys.dedup();
    keys
}

/// Returns the names of the Secrets that the roles need.
pub fn names(cr: &PulseIngest) -> BTreeSet<String> {
    referenced(cr).into_iter().map(|key| key.name).collect()
}
