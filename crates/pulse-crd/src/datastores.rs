//! The connections to PostgreSQL and Redis.
#![expect(unreachable_pub, reason = "the derive for CEL rules generates types inside functions")]

use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::secret::{
    SecretKey, ca_secret, uri_secret, url_secret, with_ca_key, with_optional_uri_key, with_uri_key, with_url_key,
};
use super::tls::CertificateSecret;

/// Connection to PostgreSQL.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"), validation = (
    "has(self.migrationUrlSecretRef) == has(self.servingRole)",
    "set migrationUrlSecretRef and servingRole together: migrations then grant the role of urlSecretRef what the pods need"
))]
pub struct DatabaseSpec {
    /// Secret key with the connection URL of PostgreSQL. The key defaults to `uri`, as in the Secrets that
    /// CloudNativePG creates. A change of the reference runs a migration Job first and then replaces the pods.
    #[serde(deserialize_with = "with_uri_key")]
    #[schemars(schema_with = "uri_secret")]
    pub url_secret_ref: SecretKey,
    /// Secret key with the connection URL of the role that owns the schema, for migrations alone; `urlSecretRef` is then that
    /// of `servingRole`, which changes no schema. The key defaults to `uri`. If not set, migrations use `urlSecretRef`. A
    /// change runs a migration Job.
    #[serde(default, deserialize_with = "with_optional_uri_key", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "uri_secret")]
    pub migration_url_secret_ref: Option<SecretKey>,
    /// Name of the role in the URL of `urlSecretRef`. It must exist; migrations grant it exactly what the pods need. A change
    /// runs a migration Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub serving_role: Option<String>,
    /// Name of a role for people and reports. It must exist; migrations grant it to read everything but the contents of
    /// events and Idempotency-Keys. A change runs a migration Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub read_role: Option<String>,
    /// Secret key with the CA of PostgreSQL's certificate, in PEM. With it, the pods verify the certificate and the
    /// host name, unless the URL sets `sslmode=verify-ca`. The key defaults to `ca.crt`. CloudNativePG's Secret is
    /// `<cluster>-ca`. A change replaces the pods without a migration.
    #[serde(default, deserialize_with = "with_ca_key", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "ca_secret")]
    pub ca_secret_ref: Option<SecretKey>,
    /// Maximum number of connections that the pods of all roles may open together, also during rollouts, in which pods
    /// that start and pods that end overlap. It limits the number of workers, but never to less than one, and rollouts
    /// then wait until replaced pods have ended. An API pod counts as its `databasePoolSize` and 4 more connections, a
    /// worker likewise, a scheduler as 4, a console as 8, and 4 are reserved for migrations and administration. Not
    /// counted are pods that are evicted or deleted by others, and API pods that another controller adds. If not set,
    /// connections do not limit the number of workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 20, max = 10000))]
    pub max_connections_total: Option<u32>,
    /// Secret with a certificate for a PostgreSQL that asks clients for one. Each new connection uses the newest one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_secret_ref: Option<CertificateSecret>,
}

impl DatabaseSpec {
    /// The URL that migrations use.
    pub fn migration_url(&self) -> &SecretKey {
        self.migration_url_secret_ref.as_ref().unwrap_or(&self.url_secret_ref)
    }
}

/// Connection to Redis.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RedisSpec {
    /// Secret key with the connection URL of Redis: `redis://`, `redis+sentinel://` or `redis+cluster://`, and `rediss` for
    /// TLS. The key defaults to `url`.
    #[serde(deserialize_with = "with_url_key")]
    #[schemars(schema_with = "url_secret")]
    pub url_secret_ref: SecretKey,
    /// Secret key with the CA of Redis' certificate, in PEM. It replaces the CAs that the image trusts and requires a
    /// `rediss` URL. The key defaults to `ca.crt`. A change replaces the pods without a migration.
    #[serde(default, deserialize_with = "with_ca_key", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "ca_secret")]
    pub ca_secret_ref: Option<SecretKey>,
    /// Secret with a certificate for a Redis that asks clients for one. Each new connection uses the newest one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_secret_ref: Option<CertificateSecret>,
}
