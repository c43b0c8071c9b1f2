//! Keys of Secrets in a pod, as files and as environment variables.

use k8s_openapi::api::core::v1::{
    EnvVar, EnvVarSource, KeyToPath, SecretKeySelector, SecretVolumeSource, Volume, VolumeMount,
};
use pulse_crd::names::Role;
use pulse_crd::{CertificateSecret, PulseIngest, SecretKey};

/// Keys of one Secret that are mounted as files. Files that belong together change together.
pub(super) struct SecretFiles {
    /// Name of the directory below `/etc/pulse`.
    folder: &'static str,
    secret: String,
    files: Vec<SecretFile>,
}

struct SecretFile {
    variable: &'static str,
    key: String,
    name: &'static str,
}

impl SecretFiles {
    fn one(folder: &'static str, variable: &'static str, name: &'static str, key: &SecretKey) -> Self {
        let SecretKey { name: secret, key } = key.clone();
        Self { folder, secret, files: vec![SecretFile { variable, key, name }] }
    }

    fn certificate(folder: &'static str, variables: [&'static str; 2], secret: &CertificateSecret) -> Self {
        let keys = [CertificateSecret::CERTIFICATE, CertificateSecret::KEY];
        let file = |(variable, name): (_, &'static str)| SecretFile { variable, key: name.to_owned(), name };
        Self { folder, secret: secret.name.clone(), files: variables.into_iter().zip(keys).map(file).collect() }
    }

    fn of_tokens(cr: &PulseIngest) -> Vec<Self> {
        let auth = &cr.spec.auth;
        let secret = |folder, key| Self::one(folder, "PULSE_JWT_SECRET_FILE", "secret", key);
        let public_key = |key| Self::one("auth", "PULSE_JWT_PUBLIC_KEY_FILE", "public.pem", key);
        let ca = |key| Self::one("jwks-ca", "PULSE_JWKS_CA_FILE", "ca.crt", key);
        let mut files: Vec<Self> = auth.jwt_secret_ref.iter().map(|key| secret("jwt-secret", key)).collect();
        files.extend(auth.next_jwt_secret_ref.iter().map(|key| secret("next-jwt-secret", key)));
        files.extend(auth.public_key_secret_ref.as_ref().map(public_key));
        files.extend(auth.jwks.iter().filter_map(|jwks| jwks.ca_secret_ref.as_ref()).map(ca));
        files
    }

    /// What a pod needs to connect to PostgreSQL.
    pub(super) fn of_database(cr: &PulseIngest) -> Vec<Self> {
        let database = &cr.spec.database;
        let ca = |key| Self::one("database-ca", "PULSE_DATABASE_CA_FILE", "ca.crt", key);
        let variables = ["PULSE_DATABASE_CERT_FILE", "PULSE_DATABASE_KEY_FILE"];
        let certificate = |secret| Self::certificate("database-client", variables, secret);
        let ca = database.ca_secret_ref.as_ref().map(ca);
        ca.into_iter().chain(database.client_certificate_secret_ref.as_ref().map(certificate)).collect()
    }

    /// What the pods of a role need.
    pub(super) fn of_role(cr: &PulseIngest, role: Role) -> Vec<Self> {
        let redis = &cr.spec.redis;
        let mut files = if role.verifies_tokens() { Self::of_tokens(cr) } else { Vec::new() };
        files.extend(Self::of_database(cr));
        let ca = |key| Self::one("redis-ca", "PULSE_REDIS_CA_FILE", "ca.crt", key);
        files.extend(redis.ca_secret_ref.as_ref().map(ca));
        let variables = ["PULSE_REDIS_CERT_FILE", "PULSE_REDIS_KEY_FILE"];
        let certificate = |secret| Self::certificate("redis-client", variables, secret);
        files.extend(redis.client_certificate_secret_ref.as_ref().map(certificate));
        if let Some(tls) = role.tls(&cr.spec) {
            files.push(Self::certificate("tls", ["PULSE_TLS_CERT", "PULSE_TLS_KEY"], &tls.secret_ref));
            let ca = |key| Self::one("client-ca", "PULSE_TLS_CLIENT_CA", "ca.crt", key);
            files.extend(tls.client_ca_secret_ref.as_ref().map(ca));
        }
        files
    }

    fn directory(&self) -> String {
        format!("/etc/pulse/{}", self.folder)
    }

    /// Mounts these keys only, not the other keys of the Secret.
    pub(super) fn volume(&self) -> Volume {
        let item = |file: &SecretFile| KeyToPath { key: file.key.clone(), path: file.name.to_owned(), mode: None };
        let source = SecretVolumeSource {
            secret_name: Some(self.secret.clone()),
            items: Some(self.files.iter().map(item).collect()),
            ..SecretVolumeSource::default()
        };
        Volume { name: self.name(), secret: Some(source), ..Volume::default() }
    }

    /// Name of the volume, with a prefix that the schema refuses for other volumes.
    fn name(&self) -> String {
        format!("pulse-{}", self.folder)
    }

    pub(super) fn mount(&self) -> VolumeMount {
        let (name, mount_path) = (self.name(), self.directory());
        VolumeMount { name, mount_path, read_only: Some(true), ..VolumeMount::default() }
    }
}

/// Returns the variables with the paths of the files, and whether connections have to be encrypted. A variable may list
/// several files.
pub(super) fn variables(cr: &PulseIngest, files: &[SecretFiles]) -> Vec<EnvVar> {
    let mut variables: Vec<EnvVar> = Vec::new();
    for (folder, file) in files.iter().flat_map(|folder| folder.files.iter().map(move |file| (folder, file))) {
        let path = format!("{}/{}", folder.directory(), file.name);
        match variables.iter_mut().find(|variable| variable.name == file.variable) {
            Some(variable) => variable.value = variable.value.take().map(|paths| format!("{paths},{path}")),
            None => variables.push(value(file.variable, path)),
        }
    }
    variables.extend(cr.spec.require_tls.then(|| value("PULSE_REQUIRE_TLS", "true")));
    variables
}

/// Returns a variable with a literal value.
pub(super) fn value(name: &str, value: impl Into<String>) -> EnvVar {
    EnvVar { name: name.into(), value: Some(value.into()), ..EnvVar::default() }
}

/// Returns a variable with the value of a Secret key.
pub(super) fn secret(name: &str, key: &SecretKey) -> EnvVar {
    let SecretKey { name: secret, key } = key.clone();
    let selector = SecretKeySelector { name: secret, key, optional: None };
    let source = EnvVarSource { secret_key_ref: Some(selector), ..EnvVarSource::default() };
    EnvVar { name: name.into(), value_from: Some(source), ..EnvVar::default() }
}
